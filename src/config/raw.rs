//! What the file may say: every key, each value judged by itself and not yet with the others.

use std::path::PathBuf;
use std::time::Duration;

use super::cursor::{Cursor, nearest};
use super::escalation::{self, RawEscalation};
use super::headers::{self, RawHeaders};
use super::names::{self, AllowEntry};
use super::report::{Location, Report, shown};
use super::sinks::{self, Sink};
use super::sources::{self, RawJailSources, RawSources};
use super::{Backend, From, LogFormat, LogLevel, duration, filter, ports, size};
use crate::filter::definition::Definition;
use crate::types::BanTime;

const TOP: &[&str] = &[
    "ignoreip",
    "trusted_proxies",
    "defaults",
    "escalation",
    "jails",
    "filters",
    "sinks",
    "cloudflare_ranges",
    "journal",
    "docker",
    "syslog",
    "backend",
    "headers",
    "paths",
    "limits",
    "leaks",
    "log",
];

const JAIL: &[&str] = &[
    "enabled",
    "filter",
    "logpath",
    "journal",
    "docker",
    "listen",
    "render",
    "from",
    "maxretry",
    "findtime",
    "bantime",
    "escalation",
    "ipv6_prefix",
    "ignoreip",
    "ports",
    "timezone",
    "observe",
    "sinks",
];

const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// A name's longest length, in bytes.
const NAME_MAX: usize = 64;

/// A document; `None` where it says nothing, or something that is reported as a mistake.
#[derive(Debug, Default)]
pub(super) struct RawConfig {
    pub(super) ignoreip: Option<Vec<AllowEntry>>,
    pub(super) trusted_proxies: Option<Vec<AllowEntry>>,
    pub(super) defaults: RawJail,
    pub(super) escalation: Option<RawEscalation>,
    pub(super) jails: Vec<RawNamed<RawJail>>,
    pub(super) filters: Vec<RawNamed<Definition>>,
    /// Without what holds mistakes, which are reported.
    pub(super) sinks: Vec<RawNamed<Option<Sink>>>,
    pub(super) cloudflare_ranges: Option<sinks::CloudflareRanges>,
    pub(super) sources: RawSources,
    pub(super) backend: Option<Backend>,
    pub(super) headers: RawHeaders,
    pub(super) state: Option<PathBuf>,
    pub(super) control: Option<PathBuf>,
    pub(super) offenders: Option<u64>,
    pub(super) history: Option<u64>,
    pub(super) line: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) grace: Option<Duration>,
    pub(super) level: Option<LogLevel>,
    pub(super) format: Option<LogFormat>,
}

/// An entry whose key is a name of the user's own.
#[derive(Debug)]
pub(super) struct RawNamed<T> {
    pub(super) name: String,
    pub(super) at: Location,
    pub(super) value: T,
}

/// A jail, or the defaults of all jails.
#[derive(Debug, Default)]
pub(super) struct RawJail {
    pub(super) enabled: Option<bool>,
    pub(super) filter: Option<RawFilter>,
    /// Empty: it holds nothing but mistakes.
    pub(super) logpath: Option<Vec<String>>,
    pub(super) sources: RawJailSources,
    pub(super) from: Option<From>,
    pub(super) maxretry: Option<u32>,
    pub(super) findtime: Option<Duration>,
    pub(super) bantime: Option<BanTime>,
    pub(super) escalation: Option<RawEscalation>,
    pub(super) ipv6_prefix: Option<u8>,
    pub(super) ignoreip: Option<Vec<AllowEntry>>,
    pub(super) ports: Option<Vec<u16>>,
    pub(super) timezone: Option<String>,
    pub(super) observe: Option<bool>,
    /// Names and their places.
    pub(super) sinks: Option<Vec<(String, Location)>>,
}

/// The name of a filter and its place; without the name, what stands there is no name.
#[derive(Clone, Debug)]
pub(super) struct RawFilter {
    pub(super) name: Option<String>,
    pub(super) at: Location,
}

/// Reads a document.
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> RawConfig {
    let sink = |key: &str| sinks::KINDS.contains(&key).then(|| "it stands under `sinks:`".to_owned());
    let top = cursor.section_with(TOP, sink, report);
    let mut raw = RawConfig {
        ignoreip: top.read("ignoreip", report, addresses),
        trusted_proxies: top.read("trusted_proxies", report, addresses),
        ..RawConfig::default()
    };
    if let Some(c) = top.get("defaults") {
        raw.defaults = jail(&c, report);
    }
    raw.escalation = top.read("escalation", report, escalation::read);
    if let Some(c) = top.get("jails") {
        raw.jails = named(&c, "jail", report, |_, c, r| c.is_map(r).then(|| jail(c, r)));
    }
    if let Some(c) = top.get("filters") {
        raw.filters = named(&c, "filter", report, |_, c, r| Some(filter::read(c, r)));
    }
    if let Some(c) = top.get("sinks") {
        raw.sinks = named(&c, "sink", report, |name, c, r| {
            Some(c.is_map(r).then(|| sinks::read(name, c, r)).flatten())
        });
        sinks::compare(&c, report);
    }
    raw.cloudflare_ranges = top.read("cloudflare_ranges", report, |c, r| Some(sinks::ranges(c, r)));
    raw.sources.journal = top.read("journal", report, sources::journal);
    raw.sources.docker = top.read("docker", report, sources::docker);
    if let Some(c) = top.get("syslog") {
        sources::syslog(&c, report, &mut raw.sources);
    }
    raw.backend = top.read("backend", report, headers::backend);
    if let Some(c) = top.get("headers") {
        raw.headers = headers::read(&c, report);
    }
    if let Some(c) = top.get("paths") {
        let paths = c.section(&["state", "control"], report);
        raw.state = paths.read("state", report, |c, r| c.path(r));
        raw.control = paths.read("control", report, control);
    }
    if let Some(c) = top.get("limits") {
        let limits = c.section(&["memory", "offenders", "history", "line"], report);
        raw.offenders = limits.read("offenders", report, |c, r| c.whole(100..=50_000_000, r));
        raw.history = limits.read("history", report, |c, r| c.whole(100..=50_000_000, r));
        raw.memory = limits.read("memory", report, size::read);
        raw.line = limits.read("line", report, |c, r| c.whole(512..=16_777_216, r));
    }
    if let Some(c) = top.get("leaks") {
        raw.grace = c.section(&["grace"], report).read("grace", report, span);
    }
    if let Some(c) = top.get("log") {
        let log = c.section(&["level", "format"], report);
        raw.level = log.read("level", report, |c, r| c.word(LEVELS, r));
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        raw.format = log.read("format", report, |c, r| c.word(&formats, r));
    }
    raw
}

fn jail(cursor: &Cursor<'_>, report: &mut Report) -> RawJail {
    let keys = cursor.section(JAIL, report);
    RawJail {
        enabled: keys.read("enabled", report, |c, r| c.flag(r)),
        filter: keys.read("filter", report, |c, r| {
            Some(RawFilter { name: c.some_text(r).map(str::to_owned), at: c.at() })
        }),
        logpath: keys.read("logpath", report, |c, r| Some(logpath(c, r))),
        sources: sources::jail(&keys, report),
        from: keys.read("from", report, |c, r| {
            c.word(&[("recent", From::Recent), ("start", From::Start), ("end", From::End)], r)
        }),
        maxretry: keys.read("maxretry", report, |c, r| {
            c.whole(1..=u32::MAX.into(), r).and_then(|n| u32::try_from(n).ok())
        }),
        findtime: keys.read("findtime", report, findtime),
        bantime: keys.read("bantime", report, bantime),
        escalation: keys.read("escalation", report, escalation::read),
        // Below /32 a ban would take in more than one provider.
        ipv6_prefix: keys
            .read("ipv6_prefix", report, |c, r| c.whole(32..=128, r).and_then(|n| u8::try_from(n).ok())),
        ignoreip: keys.read("ignoreip", report, addresses),
        ports: keys.read("ports", report, |c, r| Some(ports::read(c, r))),
        timezone: keys.read("timezone", report, filter::timezone),
        observe: keys.read("observe", report, |c, r| c.flag(r)),
        sinks: keys.read("sinks", report, |c, r| {
            Some(c.list(r, |c, r| c.some_text(r).map(|name| (name.to_owned(), c.at()))))
        }),
    }
}

fn addresses(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<AllowEntry>> {
    Some(names::read(cursor, report))
}

fn named<T>(
    cursor: &Cursor<'_>,
    what: &str,
    report: &mut Report,
    read: impl Fn(&str, &Cursor<'_>, &mut Report) -> Option<T>,
) -> Vec<RawNamed<T>> {
    let mut out = Vec::new();
    for (key, value) in cursor.entries(report) {
        if !is_name(&key.text) {
            let text = format!(
                "is not a name for a {what}; take 1 to {NAME_MAX} of a-z A-Z 0-9 . _ - and begin with a letter or a digit"
            );
            report.mistake(Some(key.at), value.path, text);
        }
        if let Some(value) = read(&key.text, &value, report) {
            out.push(RawNamed { name: key.text.clone(), at: key.at, value });
        }
    }
    out
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= NAME_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn logpath(cursor: &Cursor<'_>, report: &mut Report) -> Vec<String> {
    let mut out = Vec::new();
    for path in cursor.list(report, |c, r| c.absolute(r).map(str::to_owned)) {
        if !out.contains(&path) {
            out.push(path);
        }
    }
    if cursor.items().is_empty() {
        cursor.mistake(report, "the list is empty; name the files to follow");
    }
    out
}

fn findtime(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    let text = cursor.text(report)?;
    match duration::parse(text) {
        Ok(Duration::ZERO) => cursor.mistake(report, "must be longer than 0; offenses are counted within it"),
        Ok(d) => return Some(d),
        Err(e) => cursor.mistake(report, length(text, &e)),
    }
    None
}

/// A length of time, which may be 0.
pub(super) fn span(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    let text = cursor.text(report)?;
    match duration::parse(text) {
        Ok(d) => return Some(d),
        Err(e) => cursor.mistake(report, length(text, &e)),
    }
    None
}

fn bantime(cursor: &Cursor<'_>, report: &mut Report) -> Option<BanTime> {
    let text = cursor.text(report)?;
    match duration::parse_ban_time(text) {
        Ok(BanTime::For(Duration::ZERO)) => cursor.mistake(
            report,
            "must be longer than 0; for a jail that bans nobody write `enabled: false`, for bans without an end `permanent`",
        ),
        Ok(time) => return Some(time),
        Err(e) => {
            let near = nearest(text, ["permanent"].into_iter());
            let text = match near {
                Some(word) => format!("`{}`: did you mean `{word}`?", shown(text)),
                None => length(text, &e),
            };
            cursor.mistake(report, text);
        }
    }
    None
}

fn length(text: &str, error: &duration::DurationError) -> String {
    format!("`{}`: {error}", shown(text))
}

/// Unix socket addresses hold 108 bytes, the last of them NUL (unix(7)).
fn control(cursor: &Cursor<'_>, report: &mut Report) -> Option<PathBuf> {
    const SOCKET_MAX: usize = 107;
    let path = cursor.absolute(report)?;
    if path.len() > SOCKET_MAX {
        cursor.mistake(
            report,
            format!("is longer than {SOCKET_MAX} bytes, the most a Unix socket's path may have"),
        );
        return None;
    }
    Some(path.into())
}
