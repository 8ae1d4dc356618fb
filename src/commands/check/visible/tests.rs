use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::commands::SHIPPED;
use crate::config::Config;
use crate::daemon::jails::{Jails, Registry};

/// A jail over JSON lines, with these extra keys.
fn jail(extra: &str, log: &Path) -> Jails {
    let text = format!(
        "trusted_proxies: [loopback, private, cloudflare]\nfilters:\n  f: {{ format: json, peer: .peer, forwarded: .xff, \
         match: {{ .status: 404 }} }}\njails:\n  web: {{ filter: f, logpath: {}, {extra} }}\n",
        log.display()
    );
    let config = Config::parse(&text, "test", &SHIPPED).unwrap();
    Jails::new(&config, &mut Registry::default()).unwrap()
}

/// What is found of a log of these peers and lists, with a matcher or without.
fn found(
    lines: &[(&str, &str)],
    extra: &str,
    matcher: Option<MatcherChoice>,
    peers: &[&str],
) -> Vec<Finding> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let text: String = lines
        .iter()
        .map(|(peer, xff)| format!("{{\"peer\": \"{peer}\", \"xff\": \"{xff}\", \"status\": 200}}\n"))
        .collect();
    fs::write(log.path(), text).unwrap();
    let jails = jail(extra, log.path());
    let own = ["172.18.0.0/16".parse().unwrap()];
    let mut around = Surroundings::new(&jails.trust, &own, Instant::now() + Duration::from_secs(60));
    around.peers = Peers { addresses: peers.iter().map(|a| a.parse().unwrap()).collect(), forwarded: true };
    let section = Section::Jail("web".into(), String::new());
    judge(&jails.jails[0], &look(&jails.jails[0], &around), matcher, &around, &section)
}

fn marks(found: &[Finding]) -> Vec<(&str, Mark)> {
    found.iter().map(|finding| (finding.what.as_str(), finding.mark)).collect()
}

const BPF: Option<MatcherChoice> = Some(MatcherChoice::Bpf);

#[test]
fn direct_clients_are_stopped_by_source() {
    let direct = found(&[("203.0.113.7", ""), ("203.0.113.8", "1.2.3.4")], "", None, &[]);
    assert_eq!(marks(&direct), [("offenders, direct", Mark::Ok)]);
    assert_eq!(direct[0].told, "2 of 2 lines: stopped by source");
    let behind = found(&[("172.18.0.2", "203.0.113.7")], "", None, &[]);
    assert_eq!(
        marks(&behind),
        [("offenders, own proxy", Mark::Ok)],
        "the client's packets come to this host"
    );
}

#[test]
fn clients_of_a_proxy_elsewhere_need_header_bans() {
    for (peer, what) in [("192.168.7.7", "offenders, proxy"), ("104.16.1.1", "offenders, Cloudflare")] {
        let lines = [(peer, "203.0.113.7")];
        let with = found(&lines, "", BPF, &[]);
        assert_eq!(marks(&with), [(what, Mark::Heed)]);
        assert!(with[0].told.contains("header bans (bpf)"), "{}", with[0].told);
        assert_eq!(marks(&found(&lines, "", None, &[])), [(what, Mark::No)]);
        let ports = found(&lines, "ports: [443]", BPF, &[]);
        assert_eq!(marks(&ports), [(what, Mark::No)], "ports are by source alone");
    }
    let cloudflare = found(&[("172.18.0.2", "203.0.113.7, 104.16.1.1")], "", BPF, &[]);
    assert_eq!(marks(&cloudflare), [("offenders, Cloudflare", Mark::Heed)]);
    assert!(cloudflare[0].advice.iter().any(|advice| advice == NO_SINK));
}

#[test]
fn open_connections_tell_what_the_log_does_not() {
    let lines = [("172.18.0.2", "203.0.113.7")];
    let peers = ["104.16.1.1", "203.0.113.9"];
    assert_eq!(found(&lines, "", None, &peers)[0].mark, Mark::No);
    let with = found(&lines, "", BPF, &peers);
    assert_eq!(with[0].mark, Mark::Heed);
    assert!(with[0].told.ends_with("but 1 of 2 open connections come from Cloudflare"), "{}", with[0].told);
    assert_eq!(found(&lines, "", None, &["203.0.113.9"])[0].mark, Mark::Ok);
}

#[test]
fn lines_that_name_nobody_ban_nobody() {
    let all = found(&[("172.18.0.1", "")], "", BPF, &[]);
    assert_eq!(marks(&all), [("offenders, unnamed", Mark::No)]);
    let some = found(&[("172.18.0.1", ""), ("203.0.113.7", "")], "", BPF, &[]);
    assert_eq!(marks(&some), [("offenders, direct", Mark::Ok), ("offenders, unnamed", Mark::Heed)]);
    assert_eq!(marks(&found(&[], "", BPF, &[])), [("offenders", Mark::Unknown)]);
}

#[test]
fn nginx_proxy_manager_does_not_tell_who_connected() {
    let text = crate::filter::builtin::text("npm-404").unwrap();
    let definition = crate::config::filter::definition(text, "npm-404").unwrap();
    let filter = Filter::compile("npm-404", &definition, &TimeZone::UTC).unwrap();
    let line = |client: &str| {
        format!(
            "[04/Jan/2025:21:27:00 +0000] - 200 200 - GET https one.example \"/\" [Client {client}] [Length 1] [Gzip -] \
             [Sent-to app] \"curl\" \"-\""
        )
    };
    let trust = Trust::new(vec!["172.16.0.0/12".parse().unwrap()]);
    let origin = |client: &str| filter.origin(line(client).as_bytes(), &trust).unwrap();
    assert!(!origin("203.0.113.7").told);
    assert_eq!(origin("203.0.113.7").client, Some("203.0.113.7".parse().unwrap()));
    assert_eq!(origin("172.18.0.1").client, None);
}

#[test]
fn a_tail_is_whole_lines() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
    assert_eq!(tail(file.path(), 100).unwrap(), b"one\ntwo\nthree\n");
    assert_eq!(tail(file.path(), 8).unwrap(), b"three\n");
    assert_eq!(tail(file.path(), 3).unwrap(), b"");
}
