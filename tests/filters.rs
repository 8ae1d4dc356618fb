//! The shipped filters against logs as the programs write them.
//!
//! `tests/filters/FILTER[.FORMAT].log` holds lines and, in a comment above a line, what is expected of it:
//! `# expect: {"outcome":"matched","offender":"203.0.113.7","at":"2025-01-02T22:46:04Z"}`. An `offender` of `null` says that the line is
//! held against nobody; keys left out are not looked at. A line without an expectation must not be an offense. Other
//! comments explain. Trusted proxies are loopback and the private ranges; stamps without a zone are UTC; it is 2025-01-03.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::Deserialize;
use stockade::filter::{Attribution, Filter, Matcher, Outcome, Trust, builtin};
use stockade::types::{JailId, Timestamp};

/// 2025-01-03T00:00:00Z
const NOW: Timestamp = Timestamp::from_secs(1_735_862_400);

const TRUSTED: [&str; 6] =
    ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    outcome: Option<String>,
    /// `Some(None)`: nobody.
    #[serde(default, deserialize_with = "some")]
    offender: Option<Option<String>>,
    at: Option<String>,
    format: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

fn some<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(d).map(Some)
}

fn trust() -> Trust {
    Trust::new(TRUSTED.iter().map(|n| n.parse().unwrap()).collect())
}

fn compile(name: &str) -> Filter {
    let text = builtin::text(name).unwrap_or_else(|| panic!("no shipped filter {name}"));
    let definition = stockade::config::filter::definition(text, name).unwrap_or_else(|e| panic!("{e}"));
    Filter::compile(name, &definition, &TimeZone::UTC).unwrap_or_else(|e| panic!("{e}"))
}

/// Judges every line of a file both alone and behind those before it; gives the number of offenses.
fn judge(file: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filters").join(file);
    let log = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let filter = Arc::new(compile(file.split('.').next().unwrap()));
    let mut matcher = Matcher::new(vec![(JailId(0), Arc::clone(&filter), Arc::new(trust()))]);
    let mut expected: Option<Expected> = None;
    let mut offenses = 0;
    for (n, line) in log.split(|&b| b == b'\n').enumerate() {
        let place = format!("{file}:{}: {}", n + 1, line.escape_ascii());
        if let Some(comment) = line.strip_prefix(b"#") {
            if let Some(json) = comment.trim_ascii().strip_prefix(b"expect: ") {
                assert!(expected.is_none(), "{place}: two expectations for one line");
                expected = Some(serde_json::from_slice(json).unwrap_or_else(|e| panic!("{place}: {e}")));
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let seen = filter.examine(line, NOW, &trust());
        let mut hits = Vec::new();
        matcher.line(line, NOW, |hit| hits.push(hit));
        let Some(expected) = expected.take() else {
            assert_ne!(seen.outcome, Outcome::Matched, "{place}: unexpected");
            assert_eq!(hits, [], "{place}: unexpected");
            continue;
        };
        let outcome = expected.outcome.as_deref().unwrap_or("matched");
        assert_eq!(seen.outcome.word(), outcome, "{place}");
        assert_eq!(hits.len(), usize::from(outcome == "matched"), "{place}");
        offenses += hits.len();
        if let Some(offender) = &expected.offender {
            let who = |a: Attribution| a.offender().map(|a| a.to_string());
            assert_eq!(seen.who.and_then(who), *offender, "{place}");
            assert_eq!(
                hits.first().and_then(|h| who(h.who)),
                *offender,
                "{place}: behind the lines before it"
            );
        }
        if let Some(at) = &expected.at {
            assert_eq!(seen.at.map(|t| t.to_string()).as_ref(), Some(at), "{place}");
            assert_eq!(hits.first().and_then(|h| h.at), seen.at, "{place}");
        }
        if let Some(format) = &expected.format {
            assert_eq!(seen.format, Some(format.as_str()), "{place}");
        }
        for (name, value) in &expected.fields {
            let got = seen.fields.iter().find(|f| f.0 == *name).map(|f| f.1.escape_ascii().to_string());
            assert_eq!(
                got.unwrap_or_default(),
                value.as_bytes().escape_ascii().to_string(),
                "{place}: {name}"
            );
        }
    }
    assert!(expected.is_none(), "{file} ends in an expectation");
    offenses
}

#[test]
fn npm_forceful_browsing() {
    assert_eq!(judge("npm-forceful-browsing.log"), 16);
}

#[test]
fn npm_404() {
    assert_eq!(judge("npm-404.log"), 11);
}

#[test]
fn npm_403() {
    assert_eq!(judge("npm-403.log"), 4);
}

#[test]
fn npm_forbidden() {
    assert_eq!(judge("npm-forbidden.log"), 5);
}

#[test]
fn npm_protocol() {
    assert_eq!(judge("npm-protocol.log"), 5);
}

#[test]
fn traefik_forceful_browsing() {
    assert_eq!(judge("traefik-forceful-browsing.json.log"), 8);
    assert_eq!(judge("traefik-forceful-browsing.clf.log"), 13);
}

#[test]
fn haproxy() {
    assert_eq!(judge("haproxy-forceful-browsing.log"), 5);
}

#[test]
fn nginx_forceful_browsing() {
    assert_eq!(judge("nginx-forceful-browsing.log"), 12);
}

#[test]
fn sshd() {
    assert_eq!(judge("sshd.log"), 18);
}

#[test]
fn every_shipped_filter_has_its_log() {
    let logs: Vec<String> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filters"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in builtin::names() {
        assert!(logs.iter().any(|log| log.split('.').next() == Some(name)), "{name} has no log");
    }
}
