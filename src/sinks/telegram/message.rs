//! What is said, in Telegram's HTML.

use std::sync::Arc;

use super::super::digest;
use super::super::event::{Event, EventKind};
use super::super::template::{Escape, Facts, Template, tidy};
use super::super::words;
use crate::config::sinks::Telegram;

/// A message is no longer, in bytes with its markup: Telegram takes 4096 characters without.
pub(super) const LONGEST: usize = 3500;

/// What is said where the configuration has no words of its own.
const WORDS: [(EventKind, &str); 6] = [
    (
        EventKind::Start,
        "🟢 <b>{host}</b>: stockade {version} enforces {jails} jails with {backend}, {bans} bans restored",
    ),
    (EventKind::Stop, "⚪ <b>{host}</b>: {message}"),
    (
        EventKind::Ban,
        "⛔ <b>{jail}</b> on {host}: {what} {link} for {length}\n\
         Bans so far: {count}\n\
         Offenses: {offenses}\n\
         Requested host: <code>{requested_host}</code>\n\
         Container: <code>{container}</code>\n\
         URI: <code>{uri}</code>\n\
         User agent: <code>{user_agent}</code>\n\
         User: <code>{user}</code>\n\
         Not in force yet: {problem}",
    ),
    (EventKind::Unban, "🔓 <b>{jail}</b> on {host}: {what} {link} ({reason})"),
    (EventKind::Leak, "⚠️ <b>{jail}</b> on {host}: {link} is banned and comes through: {reason}"),
    (EventKind::Error, "❗ <b>{host}</b>: {reason}"),
];

/// How events are told.
pub(super) struct Messages {
    templates: Vec<(EventKind, Template)>,
    host: String,
    lookup: Option<String>,
    silent: Vec<EventKind>,
}

impl Messages {
    pub(super) fn new(settings: &Telegram, host: &str) -> Self {
        let own = |kind: EventKind| settings.templates.iter().find(|(k, _)| *k == kind).cloned();
        let template =
            |(kind, words)| own(kind).or_else(|| Some((kind, Template::parse(words, Escape::Html).ok()?)));
        Self {
            templates: WORDS.into_iter().filter_map(template).collect(),
            host: host.to_owned(),
            lookup: settings.lookup.clone(),
            silent: settings.silent.clone(),
        }
    }

    /// A message about one event.
    pub(super) fn one(&self, event: &Event) -> String {
        let template = self.templates.iter().find(|(kind, _)| event.kind() == Some(*kind));
        let Some((_, template)) = template else {
            return Escape::Html.value(&words::line(event), LONGEST / 6);
        };
        let facts = Facts { host: &self.host, lookup: self.lookup.as_deref() };
        let text = template.within(event, &facts, LONGEST);
        text.unwrap_or_else(|| Escape::Html.value(&words::line(event), LONGEST / 6))
    }

    /// A message about many.
    pub(super) fn digest(&self, events: &[Arc<Event>]) -> String {
        digest::text(events, &tidy(&self.host, 100), Escape::Html, LONGEST)
    }

    /// Whether there is to be no sound.
    pub(super) fn is_silent(&self, events: &[Arc<Event>]) -> bool {
        // Of what was merged nobody knows; it was much.
        events.iter().all(|event| event.kind().is_some_and(|kind| self.silent.contains(&kind)))
    }
}

#[cfg(test)]
mod tests;
