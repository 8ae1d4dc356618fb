//! What a message says: about many events, bounded, and with nothing of a log in its headers.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use ipnet::IpNet;
use std::sync::Arc;

use super::text::{harmless, name, number};
use crate::daemon::shown;
use crate::sinks::event::{Banned, Event, EventKind};
use crate::sinks::evidence::Lines;
use crate::sinks::owner::Owner;
use crate::sinks::words;

/// So many offenders have a block of their own.
pub(super) const BLOCKS: usize = 200;
/// So many other events are told one by one.
const SINGLE: usize = 100;
/// A body is no longer than about this, in bytes; encoding makes it up to three times as long.
const BODY: usize = 256 << 10;
/// So much of a line of a log is shown, in bytes.
const LINE: usize = 1000;
/// So many jails are named in a subject.
const NAMED: usize = 6;

/// What was found out about offenders, to be shown with them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Lines from the jails' logs.
    pub(super) lines: Lines,
    /// Who owns their networks.
    pub(super) owners: HashMap<IpNet, Arc<Owner>>,
}

/// What the events come to.
#[derive(Debug, Default)]
struct Counts {
    bans: BTreeMap<String, u64>,
    unbans: BTreeMap<String, u64>,
    leaks: u64,
    errors: u64,
    starts: u64,
    stops: u64,
    /// Merged: starts, stops, leaks and errors.
    others: u64,
}

impl Counts {
    fn of(events: &[Arc<Event>]) -> Self {
        let mut counts = Self::default();
        for event in events {
            match &**event {
                Event::Ban(e) => *counts.bans.entry(name(&e.jail)).or_default() += 1,
                Event::Unban(e) => *counts.unbans.entry(name(&e.jail)).or_default() += 1,
                Event::Leak(_) => counts.leaks += 1,
                Event::Error(_) => counts.errors += 1,
                Event::Start(_) => counts.starts += 1,
                Event::Stop(_) => counts.stops += 1,
                Event::Merged(e) => {
                    for (own, more) in [(&mut counts.bans, &e.bans), (&mut counts.unbans, &e.unbans)] {
                        for (jail, n) in more {
                            *own.entry(name(jail)).or_default() += n;
                        }
                    }
                    counts.others += e.others;
                }
            }
        }
        counts
    }

    /// `3 bans (npm 2, sshd 1), 1 error`
    fn text(&self) -> String {
        let mut parts = Vec::new();
        for (counts, what) in [(&self.bans, "ban"), (&self.unbans, "ended ban")] {
            let all: u64 = counts.values().sum();
            if all > 0 {
                parts.push(format!("{} ({})", number(all, what), by_jail(counts)));
            }
        }
        for (n, what) in [(self.leaks, "leak"), (self.errors, "error"), (self.others, "other event")] {
            if n > 0 {
                parts.push(number(n, what));
            }
        }
        // A restart tells both, and what it is now comes last.
        match (self.starts, self.stops) {
            (0, 0) => {}
            (_, 0) => parts.push("started".to_owned()),
            (0, _) => parts.push("stopped".to_owned()),
            _ => parts.push("restarted".to_owned()),
        }
        parts.join(", ")
    }
}

/// `npm 2, sshd 1`: the busiest first.
fn by_jail(counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1));
    let mut text: Vec<String> = sorted.iter().take(NAMED).map(|(jail, n)| format!("{jail} {n}")).collect();
    if sorted.len() > NAMED {
        text.push(format!("{} more jails", sorted.len() - NAMED));
    }
    text.join(", ")
}

/// What the subject says: counts, names of jails, and of a single event the address.
pub(super) fn subject(prefix: &str, events: &[Arc<Event>]) -> String {
    let text = match events {
        [event] => match &**event {
            Event::Ban(e) => {
                let would = if e.observed { "would have " } else { "" };
                let what = if e.prolonged { "prolonged the ban of" } else { "banned" };
                format!("{} {would}{what} {}", name(&e.jail), shown(e.offender))
            }
            Event::Unban(e) => format!("{} unbanned {}", name(&e.jail), shown(e.offender)),
            Event::Leak(e) => format!("{}: {} is banned and comes through", name(&e.jail), shown(e.offender)),
            _ => Counts::of(events).text(),
        },
        _ => Counts::of(events).text(),
    };
    if prefix.is_empty() { text } else { format!("{prefix}: {text}") }
}

/// The body. With `found` it shows fields and lines of logs; without, nothing that an attacker has written.
pub(super) fn body(host: &str, events: &[Arc<Event>], found: Option<&Found>) -> String {
    let mut out = format!("stockade on {}", harmless(host, 100));
    let (first, last) = (events.iter().map(|e| e.at()).min(), events.iter().map(|e| latest(e)).max());
    if let (Some(first), Some(last)) = (first, last) {
        let _infallible = match first == last {
            true => write!(out, ", {first}"),
            false => write!(out, ", {first} to {last}"),
        };
    }
    let _infallible = writeln!(out, ": {}", Counts::of(events).text());
    if found.is_none() {
        out.push_str(
            "\nThe mail server refused a message with pieces of the log in it; this one is without them.\n",
        );
    }
    agent(events, &mut out);
    let blocks = blocks(events);
    let mut shown = 0;
    for block in blocks.iter().take(BLOCKS) {
        let text = block_text(block, found);
        if out.len() + text.len() > BODY {
            break;
        }
        out.push_str(&text);
        shown += 1;
    }
    if shown < blocks.len() {
        let more = number((blocks.len() - shown) as u64, "more offender");
        let _infallible = writeln!(out, "\n{more}, counted above; `stockade bans` lists them.");
    }
    out
}

fn latest(event: &Event) -> crate::types::Timestamp {
    match event {
        Event::Merged(e) => e.last,
        _ => event.at(),
    }
}

/// What is about no single ban: starts and stops, errors, leaks, and what was merged.
fn agent(events: &[Arc<Event>], out: &mut String) {
    let is_single = |e: &&Arc<Event>| !matches!(e.kind(), Some(EventKind::Ban | EventKind::Unban));
    let all = events.iter().filter(is_single).count();
    for (n, event) in events.iter().filter(is_single).take(SINGLE).enumerate() {
        if n == 0 {
            out.push('\n');
        }
        let text = match &**event {
            // It begins with its time.
            Event::Merged(_) => words::line(event),
            Event::Error(_) => format!("{}  error: {}", event.at(), words::line(event)),
            _ => format!("{}  {}", event.at(), words::line(event)),
        };
        out.push_str(&harmless(&text, LINE));
        out.push('\n');
    }
    if all > SINGLE {
        let _infallible = writeln!(out, "and {}", number((all - SINGLE) as u64, "other event"));
    }
}

/// What one jail did about one offender.
struct Block<'a> {
    offender: IpNet,
    events: Vec<&'a Event>,
    last: Option<&'a Banned>,
}

fn blocks(events: &[Arc<Event>]) -> Vec<Block<'_>> {
    let mut at: HashMap<(&str, IpNet), usize> = HashMap::new();
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for event in events {
        let (Some(EventKind::Ban | EventKind::Unban), Some(jail), Some(offender)) =
            (event.kind(), event.jail(), event.offender())
        else {
            continue;
        };
        let n = *at.entry((jail, offender)).or_insert(blocks.len());
        if n == blocks.len() {
            blocks.push(Block { offender, events: Vec::new(), last: None });
        }
        let Some(block) = blocks.get_mut(n) else { continue };
        block.events.push(event);
        if let Event::Ban(ban) = &**event {
            block.last = Some(ban);
        }
    }
    blocks
}

fn block_text(block: &Block<'_>, found: Option<&Found>) -> String {
    // Whoever comes back again and again is shown with the latest.
    const EVENTS: usize = 10;
    let mut out = format!("\n{}\n", shown(block.offender));
    let skipped = block.events.len().saturating_sub(EVENTS);
    if skipped > 0 {
        let _infallible = writeln!(out, "  {} before", number(skipped as u64, "event"));
    }
    for event in block.events.iter().skip(skipped) {
        let _infallible = writeln!(out, "  {}  {}", event.at(), harmless(&words::line(event), LINE));
    }
    let Some(found) = found else { return out };
    if let Some(owner) = found.owners.get(&block.offender) {
        let _infallible = writeln!(out, "  network: {owner}");
    }
    let Some(ban) = block.last else { return out };
    for (key, value) in ban.fields.iter().take(16) {
        let _infallible = writeln!(out, "  {}: {}", harmless(key, 40), harmless(value, Banned::FIELD));
    }
    let own = found.lines.get(&(ban.jail.clone(), ban.offender)).map(Vec::as_slice).unwrap_or_default();
    // The deciding line, unless it is among those that were found; it may have been cut.
    let known = own.iter().any(|line| !ban.line.is_empty() && line.starts_with(ban.line.as_str()));
    let deciding = Some(&ban.line).filter(|line| found.lines.wanted > 0 && !line.is_empty() && !known);
    if deciding.is_none() && own.is_empty() {
        return out;
    }
    out.push_str(if ban.offenses == 0 { "  reason:\n" } else { "  lines:\n" });
    for line in own.iter().chain(deciding) {
        // Behind a mark: no line of a log looks like one of ours.
        let _infallible = writeln!(out, "  | {}", harmless(line, LINE));
    }
    out
}
