//! An event in a line of plain text, for sinks without words of their own.

use super::event::{Banned, Event, Merged};
use crate::config::duration::Shown;
use crate::daemon::shown;

/// A sentence, without a full stop. It is one line, and holds nothing that an attacker has written.
#[must_use]
pub fn line(event: &Event) -> String {
    match event {
        Event::Start(e) => {
            format!(
                "stockade {} enforces {} jails with {} ({} bans restored)",
                e.version, e.jails, e.backend, e.bans
            )
        }
        Event::Stop(e) if e.flushed => format!("stockade stopped; its {} bans were lifted", e.bans),
        Event::Stop(e) => format!("stockade stopped; {} bans stay in the kernel until they end", e.bans),
        Event::Ban(e) => {
            let what = if e.prolonged { "prolonged the ban of" } else { "banned" };
            let would = if e.observed { "would have " } else { "" };
            format!("{}: {would}{what} {} {}{}", e.jail, shown(e.offender), length(e), reason(e))
        }
        Event::Unban(e) => {
            let would = if e.observed { "would have " } else { "" };
            format!("{}: {would}unbanned {} ({})", e.jail, shown(e.offender), e.reason)
        }
        Event::Leak(e) => {
            format!("{}: {} is banned and comes through: {}", e.jail, shown(e.offender), e.advice)
        }
        Event::Error(e) => e.message.clone(),
        Event::Merged(e) => merged(e),
    }
}

/// `for 10m`, `for ever`.
#[must_use]
pub fn length(ban: &Banned) -> String {
    match ban.until {
        Some(until) => format!("for {}", Shown(until.since(ban.since))),
        None => "for ever".to_owned(),
    }
}

fn reason(ban: &Banned) -> String {
    let mut text = match ban.offenses {
        0 => " by hand".to_owned(),
        1 => " after 1 offense".to_owned(),
        n => format!(" after {n} offenses"),
    };
    if ban.count > 1 {
        text.push_str(&format!(", ban number {}", ban.count));
    }
    if let Some(problem) = &ban.problem {
        text.push_str(&format!("; not in force yet: {problem}"));
    }
    text
}

fn merged(merged: &Merged) -> String {
    let mut parts = Vec::new();
    for (what, counts) in [("bans", &merged.bans), ("ended bans", &merged.unbans)] {
        let all: u64 = counts.values().sum();
        if all > 0 {
            let by: Vec<String> = counts.iter().map(|(jail, n)| format!("{jail} {n}")).collect();
            parts.push(format!("{all} {what} ({})", by.join(", ")));
        }
    }
    if merged.others > 0 {
        parts.push(format!("{} other events", merged.others));
    }
    format!("{} to {}: {}", merged.at, merged.last, parts.join(", "))
}

/// The beginning of a text, at most so many bytes of it, and whole characters.
#[must_use]
pub fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!((cut("aü", 2), cut("aü", 3), cut("", 3)), ("a", "aü", ""));
    }
}
