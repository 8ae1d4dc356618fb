//! `sinks`: where decisions go besides the kernel.

mod cloudflare;
mod exec;
mod mail;
mod map;
mod program;
mod ranges;
mod telegram;
mod template;
mod webhook;

use std::time::Duration;

pub use self::cloudflare::{Action, Cloudflare, Credentials, Place};
pub use self::exec::Exec;
pub(crate) use self::exec::PLACEHOLDERS;
pub use self::mail::{Encryption, Mail, OwnerSource, Server, Way};
pub use self::map::{Map, MapFormat};
pub use self::ranges::CloudflareRanges;
pub(super) use self::ranges::read as ranges;
pub use self::telegram::{ChatId, Telegram};
pub use self::webhook::{Body, HeaderSource, Hidden, Preset, UrlSource, Webhook};
use super::cursor::{Cursor, Section, nearest};
use super::raw::span;
use super::report::{Report, shown};
use crate::sinks::event::EventKind;
use crate::sinks::http::HttpOptions;
use crate::sinks::secret::SecretSource;

/// A sink: a name of the user's own, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// 1 to 64 of `a-z A-Z 0-9 . _ -`, beginning with a letter or a digit; unique.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it tells; nothing for mirrors, which show bans.
    pub events: Vec<EventKind>,
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A mirror: rules or a list at Cloudflare.
    Cloudflare(Cloudflare),
    /// A mirror: a file that a web server reads.
    Map(Map),
    /// A notifier: a chat.
    Telegram(Telegram),
    /// A notifier: JSON to a URL.
    Webhook(Webhook),
    /// A notifier: mail.
    Mail(Mail),
    /// A notifier: a program.
    Exec(Exec),
}

impl Kind {
    /// The word for it in the configuration.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Cloudflare(_) => "cloudflare",
            Self::Map(_) => "map",
            Self::Telegram(_) => "telegram",
            Self::Webhook(_) => "webhook",
            Self::Mail(_) => "mail",
            Self::Exec(_) => "exec",
        }
    }

    /// Whether what `other` has shown stays in view of this one, which takes its place under the same name.
    #[must_use]
    pub fn takes_over_from(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cloudflare(new), Self::Cloudflare(old)) => {
                (&new.place, &new.instance) == (&old.place, &old.instance)
            }
            (Self::Map(new), Self::Map(old)) => new.path == old.path,
            _ => !self.is_mirror() && !other.is_mirror(),
        }
    }

    /// Whether it shows the bans as they are, and is no notifier.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        matches!(self, Self::Cloudflare(_) | Self::Map(_))
    }
}

pub(super) const KINDS: [&str; 6] = ["cloudflare", "map", "telegram", "webhook", "mail", "exec"];

/// What is told unless `events` says otherwise.
const EVENTS: [EventKind; 5] =
    [EventKind::Start, EventKind::Stop, EventKind::Ban, EventKind::Leak, EventKind::Error];

/// Reads what stands under a sink's name; `None` with mistakes.
pub(super) fn read(name: &str, cursor: &Cursor<'_>, report: &mut Report) -> Option<Sink> {
    let kind = kind(name, cursor, report)?;
    let (own, mirror) = match kind {
        "cloudflare" => (cloudflare::KEYS, true),
        "map" => (map::KEYS, true),
        "telegram" => (telegram::KEYS, false),
        "webhook" => (webhook::KEYS, false),
        "mail" => (mail::KEYS, false),
        _ => (exec::KEYS, false),
    };
    let common: &[&str] = if mirror { &["kind"] } else { &["kind", "events"] };
    let keys = cursor.section(&[common, own].concat(), report);
    let read = match kind {
        "cloudflare" => cloudflare::read(&keys, cursor, report).map(Kind::Cloudflare),
        "map" => map::read(&keys, cursor, report).map(Kind::Map),
        "telegram" => telegram::read(&keys, cursor, report).map(Kind::Telegram),
        "webhook" => webhook::read(&keys, cursor, report).map(Kind::Webhook),
        "mail" => mail::read(&keys, cursor, report).map(Kind::Mail),
        _ => exec::read(&keys, cursor, report).map(Kind::Exec),
    };
    let usual: &[EventKind] = match kind {
        "exec" => &[EventKind::Ban, EventKind::Unban],
        _ if mirror => &[],
        _ => &EVENTS,
    };
    let events = keys.read("events", report, events).unwrap_or_else(|| usual.to_vec());
    Some(Sink { name: name.to_owned(), kind: read?, events })
}

/// What cannot be side by side: two that write one file.
pub(super) fn compare(cursor: &Cursor<'_>, report: &mut Report) {
    let mut files: Vec<(String, &str)> = Vec::new();
    for (name, sink) in cursor.entries(report) {
        let Some(path) = sink.quiet("path").filter(|path| path.plain().is_some()) else { continue };
        let text = path.plain().unwrap_or_default();
        match files.iter().find(|(file, _)| file == text) {
            Some((_, other)) => {
                path.mistake(
                    report,
                    format!("is the file of the sink {} too; several jails can use one sink", shown(other)),
                );
            }
            None => files.push((text.to_owned(), &name.text)),
        }
    }
}

/// What kind of sink it is: said, or its name.
fn kind(name: &str, cursor: &Cursor<'_>, report: &mut Report) -> Option<&'static str> {
    let known = |word: &str| KINDS.into_iter().find(|kind| *kind == word);
    let Some(said) = cursor.quiet("kind") else {
        let kind = known(name);
        if kind.is_none() {
            let near = nearest(name, KINDS.into_iter());
            let kinds = KINDS.join(", ");
            let hint = near.map_or_else(|| format!("one of {kinds}"), |near| format!("such as `{near}`"));
            cursor.mistake(report, format!("has no kind; add `kind:`, {hint}"));
        }
        return kind;
    };
    let text = said.text(report)?;
    let kind = known(text);
    if kind.is_none() {
        let hint = nearest(text, KINDS.into_iter()).map_or_else(
            || format!("expected one of {}", KINDS.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        said.mistake(report, format!("`{}`: {hint}", shown(text)));
    }
    kind
}

fn events(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<EventKind>> {
    let words = EventKind::ALL.map(|kind| (kind.word(), kind));
    let mut events = cursor.list(report, |c, r| c.word(&words, r));
    events.sort_unstable();
    events.dedup();
    Some(events)
}

/// `WHAT_file` or `WHAT_env`: exactly one of them.
fn secret(what: &str, keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<SecretSource> {
    let source = optional_secret(what, keys, report);
    let (file, env) = (format!("{what}_file"), format!("{what}_env"));
    if keys.get(&file).is_none() && keys.get(&env).is_none() {
        cursor.mistake(
            report,
            format!("has no {file}; name a file of mode 600 that holds it (or a variable with {env})"),
        );
    }
    source
}

/// `WHAT_file` or `WHAT_env`: one of them, or none.
fn optional_secret(what: &str, keys: &Section<'_>, report: &mut Report) -> Option<SecretSource> {
    let (file, env) = (format!("{what}_file"), format!("{what}_env"));
    if let (Some(_), Some(second)) = (keys.get(&file), keys.get(&env)) {
        second.mistake(report, format!("stands beside {file}; take one of them out"));
    }
    let of_file = keys.read(&file, report, |c, r| c.path(r)).map(SecretSource::File);
    let of_env = keys.read(&env, report, |c, r| {
        let name = c.some_text(r)?;
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            c.mistake(
                r,
                format!("`{}` is not the name of a variable, such as CLOUDFLARE_TOKEN", shown(name)),
            );
            return None;
        }
        Some(SecretSource::Env(name.to_owned()))
    });
    of_file.or(of_env)
}

/// The keys that [`http`] reads.
const HTTP_KEYS: [&str; 3] = ["timeout", "ca_file", "proxy"];

/// What sinks that speak HTTP have in common.
fn http(keys: &Section<'_>, report: &mut Report) -> HttpOptions {
    let usual = HttpOptions::default();
    HttpOptions {
        timeout: keys.read("timeout", report, timeout).unwrap_or(usual.timeout),
        ca_file: keys.read("ca_file", report, |c, r| c.path(r)),
        proxy: keys.read("proxy", report, url),
    }
}

fn timeout(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(600));
    let time = span(cursor, report)?;
    if time < least || time > most {
        cursor.mistake(report, "must be from 1s to 10m");
        return None;
    }
    Some(time)
}

/// An http or https URL without a user, a password or a fragment; without the `/` at its end.
fn url(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    let parsed = reqwest::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    });
    if parsed.is_none() {
        // It may hold a secret: it is not repeated.
        cursor.mistake(report, "is not an http or https URL without a user and a password");
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}
