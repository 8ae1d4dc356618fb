//! `kind: exec`: a program, told of each event by arguments, environment and standard input.
//!
//! There is no shell, and an argument stays one argument: what an attacker wrote is text in a variable, never part of a command.

use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, EventKind};
use super::notifier::{Notifier, Pace};
use super::process;
use super::trouble::Trouble;
use super::words;
use super::{Checked, Context};
use crate::config::sinks::{Exec, PLACEHOLDERS};
use crate::daemon::shown;

/// So often the program is run for one event, unless it says that it is done.
const ATTEMPTS: u32 = 4;

/// A sink of this kind.
#[derive(Debug)]
pub struct ExecSink {
    settings: Exec,
    host: String,
    /// The event that the program failed for, and how often.
    failed: Option<(Arc<Event>, u32)>,
}

impl ExecSink {
    /// A sink with these settings. Nothing is run yet.
    ///
    /// # Errors
    /// Never: it has no secret.
    pub fn new(settings: &Exec, context: &Context) -> Result<Self, Trouble> {
        Ok(Self { settings: settings.clone(), host: context.host.clone(), failed: None })
    }

    /// How often the program has failed for this event, with this time.
    fn note_failure(&mut self, event: &Arc<Event>) -> u32 {
        let before = self.failed.take().filter(|(of, _)| Arc::ptr_eq(of, event)).map_or(0, |(_, n)| n);
        self.failed = Some((Arc::clone(event), before + 1));
        before + 1
    }
}

impl Notifier for ExecSink {
    /// One at a time is pace enough.
    fn pace(&self) -> Pace {
        Pace { gap: Duration::ZERO, per_minute: u32::MAX }
    }

    async fn tell(&mut self, events: &[Arc<Event>], _room: u32) -> Result<usize, Trouble> {
        let Some(event) = events.first() else { return Ok(0) };
        // Nothing was banned: a program that acts would do what nobody did.
        if is_observed(event) {
            return Ok(1);
        }
        let facts = facts(event);
        let words: Vec<String> = match self.settings.command.split_first() {
            Some((program, rest)) => {
                std::iter::once(program.clone()).chain(rest.iter().map(|word| fill(word, &facts))).collect()
            }
            None => Vec::new(),
        };
        let program = words.first().map_or("", String::as_str).to_owned();
        let mut input = serde_json::to_vec(&**event).map_err(|e| Trouble::unfit(1, e.to_string()))?;
        input.push(b'\n');
        let environment = environment(event, &facts, &self.host);
        let outcome = process::run(&words, environment, &input, self.settings.timeout).await;
        let outcome = outcome.map_err(|e| {
            Trouble::refused(format!("{program} cannot be run: {e}; nothing is lost until it can be"))
        })?;
        if outcome.is_good() {
            self.failed = None;
            for line in String::from_utf8_lossy(&outcome.out).lines().take(4) {
                tracing::debug!("{program} said: {line}");
            }
            return Ok(1);
        }
        let text = format!("{program} failed for {}: {}", words::line(event), outcome.text());
        if self.note_failure(event) < ATTEMPTS {
            return Err(Trouble::later(text));
        }
        self.failed = None;
        Err(Trouble::unfit(1, format!("given up after {ATTEMPTS} attempts: {text}")))
    }
}

fn is_observed(event: &Event) -> bool {
    match event {
        Event::Ban(ban) => ban.observed,
        Event::Unban(unban) => unban.observed,
        _ => false,
    }
}

/// What may stand in an argument, in the order of [`PLACEHOLDERS`]. None of it can begin with `-`, for no address, name, number
/// or time does.
fn facts(event: &Event) -> [String; PLACEHOLDERS.len()] {
    let kind = event.kind().map_or("merged", EventKind::word).to_owned();
    let address = event.offender().map(shown).unwrap_or_default();
    let jail = event.jail().unwrap_or_default().to_owned();
    let (since, until, offenses, count) = match event {
        Event::Ban(ban) => (
            ban.since.to_string(),
            ban.until.map_or_else(|| "never".to_owned(), |until| until.to_string()),
            ban.offenses.to_string(),
            ban.count.to_string(),
        ),
        Event::Unban(unban) => (unban.since.to_string(), String::new(), String::new(), String::new()),
        _ => Default::default(),
    };
    [kind, address, jail, since, until, offenses, count]
}

/// An argument with its placeholders filled; what is filled in is not looked at again.
fn fill(word: &str, facts: &[String]) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let known = PLACEHOLDERS.iter().zip(facts).find_map(|(name, fact)| {
            after.strip_prefix(name).and_then(|after| after.strip_prefix('}')).map(|after| (fact, after))
        });
        match known {
            Some((fact, after)) => {
                filled.push_str(fact);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// `STOCKADE_*`: one line each, without what would move a cursor.
fn environment(event: &Event, facts: &[String], host: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = PLACEHOLDERS
        .iter()
        .zip(facts)
        .map(|(name, fact)| (format!("STOCKADE_{}", name.to_ascii_uppercase()), fact.clone()))
        .collect();
    let mut add = |name: &str, value: &str| all.push((format!("STOCKADE_{name}"), harmless(value)));
    add("HOST", host);
    add("TEXT", &words::line(event));
    match event {
        Event::Ban(ban) => {
            add("LINE", &ban.line);
            add("PROLONGED", if ban.prolonged { "1" } else { "0" });
            for (name, value) in &ban.fields {
                add(&format!("FIELD_{}", variable(name)), value);
            }
        }
        Event::Unban(unban) => add("REASON", &unban.reason),
        Event::Leak(leak) => add("REASON", &leak.advice),
        Event::Error(fault) => add("REASON", &fault.message),
        Event::Start(_) | Event::Stop(_) | Event::Merged(_) => {}
    }
    all
}

/// A field's name as part of a variable's.
fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn harmless(text: &str) -> String {
    text.chars().map(|c| if crate::log::is_hostile(c) { ' ' } else { c }).collect()
}

/// Looks at the program, and does not run it.
///
/// # Errors
/// Never: what is wrong is part of the list.
pub async fn check(settings: &Exec, _context: &Context) -> Result<Vec<Checked>, Trouble> {
    let program = settings.command.first().map_or("", String::as_str);
    Ok(vec![match process::examine(program) {
        Ok(()) => Checked::good(format!("{program} can be run; it was not")),
        Err(problem) => Checked::bad(problem),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_text() {
        let facts = ["ban", "192.0.2.1", "{event}", "", "never", "5", "1"].map(str::to_owned);
        for (word, filled) in [
            ("{address}", "192.0.2.1"),
            ("--a={address}:{until}", "--a=192.0.2.1:never"),
            ("{jail}", "{event}"),
            ("{\"a\":\"{event}\"}", "{\"a\":\"ban\"}"),
            ("{since}", ""),
            ("{{address}}{", "{192.0.2.1}{"),
            ("$(x) ; {", "$(x) ; {"),
        ] {
            assert_eq!(fill(word, &facts), filled);
        }
        assert_eq!(variable("user-agent.x"), "USER_AGENT_X");
        assert_eq!(harmless("a\n\u{1b}[31m\u{202e}b"), "a  [31m b");
    }
}
