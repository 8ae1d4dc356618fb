//! `kind: exec`.

use std::time::Duration;

use super::super::cursor::{Cursor, Section, nearest};
use super::super::report::Report;
use super::program;

/// The keys, besides those all sinks have.
pub(super) const KEYS: &[&str] = &["command", "timeout"];

/// What may stand between `{` and `}` in an argument.
pub(crate) const PLACEHOLDERS: [&str; 7] =
    ["event", "address", "jail", "since", "until", "offenses", "count"];

/// The settings of a sink of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments, with placeholders in the arguments.
    pub command: Vec<String>,
    /// It ends within this, or is killed.
    pub timeout: Duration,
}

/// Reads the settings; `None` with mistakes.
pub(super) fn read(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Exec> {
    if keys.get("command").is_none() {
        cursor
            .mistake(report, "has no command; add `command:`, such as [/usr/local/bin/notify, '{address}']");
    }
    let command = keys.read("command", report, command);
    let timeout = program::time("timeout", (1, 600), keys, report);
    Some(Exec { command: command?, timeout: timeout.unwrap_or(Duration::from_secs(10)) })
}

fn command(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<String>> {
    let words = program::read(cursor, report)?;
    for (word, item) in words.iter().zip(cursor.items()).skip(1) {
        if let Some(unknown) = placeholders(word).find(|name| !PLACEHOLDERS.contains(name)) {
            let hint = match nearest(unknown, PLACEHOLDERS.into_iter()) {
                Some(near) => format!("did you mean {{{near}}}?"),
                None => format!("known are {}; the rest is in the environment", PLACEHOLDERS.join(", ")),
            };
            item.mistake(report, format!("nothing is called {{{unknown}}} here; {hint}"));
            return None;
        }
    }
    Some(words)
}

/// Names between braces: lower-case letters and `_` alone, so that JSON is text.
fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    let names = word.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name));
    names.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}
