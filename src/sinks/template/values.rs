//! What the names in a template stand for.

use std::borrow::Cow;

use ipnet::IpNet;

use super::super::event::{Banned, Event};
use super::super::words;
use crate::config::duration::Shown;
use crate::daemon::shown;
use crate::types::Timestamp;

/// Names of what we know ourselves.
pub const NAMES: &[&str] = &[
    "address", "at", "backend", "bans", "count", "event", "host", "jail", "jails", "length", "line", "link",
    "lookup", "message", "offenses", "problem", "reason", "since", "until", "version", "what",
];

/// Names of fields that filters read out of a line, and what they are called there: `{host}` is the agent's own.
pub const FIELDS: &[(&str, &str)] = &[
    ("container", "sent_to"),
    ("level", "level"),
    ("method", "method"),
    ("protocol", "protocol"),
    ("referer", "referer"),
    ("requested_host", "host"),
    ("router", "router"),
    ("scheme", "scheme"),
    ("sent_to", "sent_to"),
    ("server", "server"),
    ("status", "status"),
    ("upstream", "upstream"),
    ("upstream_status", "upstream_status"),
    ("uri", "uri"),
    ("user", "user"),
    ("user_agent", "user_agent"),
];

/// What is known besides the event.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The agent's host.
    pub host: &'a str,
    /// Where more is told about an address: a URL with `{address}` in it.
    pub lookup: Option<&'a str>,
}

/// The value of a field of the filter.
pub(super) fn field<'e>(name: &str, event: &'e Event) -> &'e str {
    match event {
        Event::Ban(ban) => ban.fields.get(name).map_or("", String::as_str),
        _ => "",
    }
}

/// The value of one of [`NAMES`] or [`FIELDS`]; empty where the event has none.
pub(super) fn known<'e>(name: &str, event: &'e Event, facts: &Facts<'e>) -> Cow<'e, str> {
    if let Some((_, own)) = FIELDS.iter().find(|(known, _)| *known == name) {
        return match field(own, event) {
            // What a log writes for nothing.
            "-" => "".into(),
            value => value.into(),
        };
    }
    match name {
        "host" => facts.host.into(),
        "version" => env!("CARGO_PKG_VERSION").into(),
        "message" => words::line(event).into(),
        "event" => event.kind().map_or("merged", |kind| kind.word()).into(),
        "at" => time(event.at()).into(),
        "jail" => event.jail().unwrap_or_default().into(),
        "address" => event.offender().map(shown).unwrap_or_default().into(),
        "lookup" => match (facts.lookup, event.offender()) {
            (Some(url), Some(offender)) => lookup(url, offender).into(),
            _ => "".into(),
        },
        _ => match event {
            Event::Ban(ban) => of_ban(name, ban),
            Event::Unban(unban) => match name {
                "since" => time(unban.since).into(),
                "reason" => unban.reason.as_str().into(),
                "what" if unban.observed => "would have unbanned".into(),
                "what" => "unbanned".into(),
                _ => "".into(),
            },
            Event::Start(start) => match name {
                "bans" => start.bans.to_string().into(),
                "jails" => start.jails.to_string().into(),
                "backend" => start.backend.as_str().into(),
                _ => "".into(),
            },
            Event::Stop(stop) if name == "bans" => stop.bans.to_string().into(),
            Event::Leak(leak) if name == "reason" => leak.advice.as_str().into(),
            Event::Error(fault) if name == "reason" => fault.message.as_str().into(),
            _ => "".into(),
        },
    }
}

fn of_ban<'e>(name: &str, ban: &'e Banned) -> Cow<'e, str> {
    match name {
        "since" => time(ban.since).into(),
        "until" => ban.until.map_or_else(|| "never".to_owned(), time).into(),
        "length" => match ban.until {
            Some(until) => Shown(until.since(ban.since)).to_string().into(),
            None => "ever".into(),
        },
        "offenses" if ban.offenses > 0 => ban.offenses.to_string().into(),
        "count" if ban.count > 0 => ban.count.to_string().into(),
        "line" | "reason" => ban.line.as_str().into(),
        "problem" => ban.problem.as_deref().unwrap_or_default().into(),
        "what" => match (ban.observed, ban.prolonged) {
            (false, false) => "banned",
            (false, true) => "prolonged the ban of",
            (true, false) => "would have banned",
            (true, true) => "would have prolonged the ban of",
        }
        .into(),
        _ => "".into(),
    }
}

/// `url` with the address in the place of `{address}`: of a prefix or a network its first.
fn lookup(url: &str, offender: IpNet) -> String {
    url.replace("{address}", &offender.addr().to_string())
}

/// RFC 3339 in whole seconds.
fn time(at: Timestamp) -> String {
    Timestamp::from_secs(at.as_millis().div_euclid(1000)).to_string()
}
