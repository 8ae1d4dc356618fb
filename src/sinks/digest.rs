//! One message about many events: every one is counted in it, and the first of each jail are named.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::IpNet;

use super::event::Event;
use super::template::{Escape, tidy};
use super::words;
use crate::daemon::shown;
use crate::types::Timestamp;

/// So many offenders of a jail are named.
const NAMED: usize = 8;
/// So many other events are told in their own words.
const TOLD: usize = 6;
/// Each in so many bytes.
const WORDS: usize = 200;

/// What happened in one jail.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    first: Vec<IpNet>,
}

/// Of a kind, by jail.
type Tallies = BTreeMap<String, Tally>;

#[derive(Debug, Default)]
struct Sum<'a> {
    bans: Tallies,
    /// Of jails that only observe.
    observed: Tallies,
    unbans: Tallies,
    others: Vec<&'a Event>,
    /// Other events that were merged, and of which nothing else is known.
    merged: u64,
    /// From when to when.
    span: Option<(Timestamp, Timestamp)>,
}

/// A message about `events` of at most `budget` bytes (at least 1000), escaped.
pub(super) fn text(events: &[Arc<Event>], host: &str, escape: Escape, budget: usize) -> String {
    let mut sum = Sum::default();
    events.iter().for_each(|event| sum.add(event));
    let mut out = sum.head(host, escape);
    for (one, many, tallies) in [
        ("ban", "bans", &sum.bans),
        ("ban that was only observed", "bans that were only observed", &sum.observed),
        ("ended ban", "ended bans", &sum.unbans),
    ] {
        section(&mut out, escape, (one, many), tallies, budget);
    }
    sum.tell_others(&mut out, escape, budget);
    out
}

impl<'a> Sum<'a> {
    fn add(&mut self, event: &'a Event) {
        let (from, to) = match event {
            Event::Merged(merged) => (merged.at, merged.last),
            _ => (event.at(), event.at()),
        };
        self.span = Some(self.span.map_or((from, to), |(first, last)| (first.min(from), last.max(to))));
        match event {
            Event::Ban(ban) => {
                let bans = if ban.observed { &mut self.observed } else { &mut self.bans };
                bans.entry(ban.jail.clone()).or_default().add(ban.offender);
            }
            Event::Unban(unban) => {
                self.unbans.entry(unban.jail.clone()).or_default().add(unban.offender);
            }
            Event::Merged(merged) => {
                for (own, others) in [(&mut self.bans, &merged.bans), (&mut self.unbans, &merged.unbans)] {
                    for (jail, count) in others {
                        own.entry(jail.clone()).or_default().count += count;
                    }
                }
                self.merged += merged.others;
            }
            Event::Start(_) | Event::Stop(_) | Event::Leak(_) | Event::Error(_) => self.others.push(event),
        }
    }

    fn head(&self, host: &str, escape: Escape) -> String {
        let all = |tallies: &Tallies| tallies.values().map(|tally| tally.count).sum::<u64>();
        let count = all(&self.bans)
            + all(&self.observed)
            + all(&self.unbans)
            + self.others.len() as u64
            + self.merged;
        let (first, last) = self.span.unwrap_or_default();
        let second = |at: Timestamp| Timestamp::from_secs(at.as_millis().div_euclid(1000));
        let name = escape.bold(&tidy(host, 100));
        let head = format!("{count} events from {} to {}", second(first), second(last));
        format!("{name}: {}", escape.escape(&head))
    }

    fn tell_others(&self, out: &mut String, escape: Escape, budget: usize) {
        let mut told = 0;
        for event in self.others.iter().take(TOLD) {
            let line = escape.value(&words::line(event), WORDS);
            if out.len() + line.len() + 60 > budget {
                break;
            }
            out.push('\n');
            out.push_str(&line);
            told += 1;
        }
        let left = (self.others.len() - told) as u64 + self.merged;
        if left > 0 {
            let line = format!("{left} other events (see the agent's log)");
            let _infallible = write!(out, "\n{}", escape.escape(&line));
        }
    }
}

impl Tally {
    fn add(&mut self, offender: IpNet) {
        self.count += 1;
        if self.first.len() < NAMED && !self.first.contains(&offender) {
            self.first.push(offender);
        }
    }
}

/// Events of one kind: how many, and by which jail.
fn section(out: &mut String, escape: Escape, (one, many): (&str, &str), tallies: &Tallies, budget: usize) {
    let all: u64 = tallies.values().map(|tally| tally.count).sum();
    if all == 0 {
        return;
    }
    let _infallible =
        write!(out, "\n{}", escape.bold(&format!("{all} {}", if all == 1 { one } else { many })));
    // What comes after this section needs a place too.
    let end = out.len() + (budget.saturating_sub(out.len()) * 2 / 3);
    let (mut jails, mut left) = (tallies.len(), all);
    // The busiest first: of the others there may be only the number.
    let mut order: Vec<_> = tallies.iter().collect();
    order.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.count));
    for (jail, tally) in order {
        let mut line = format!("{} {}", tidy(jail, 64), tally.count);
        let mut named = 0;
        for (nth, offender) in tally.first.iter().enumerate() {
            let offender = shown(*offender);
            if out.len() + line.len() * 2 + offender.len() * 2 + 80 > end {
                break;
            }
            line.push_str(if nth == 0 { ": " } else { ", " });
            line.push_str(&offender);
            named += 1;
        }
        let more = tally.count.saturating_sub(named);
        if named > 0 && more > 0 {
            let _infallible = write!(line, " and {more} more");
        }
        let line = escape.escape(&line);
        if out.len() + line.len() + 60 > end {
            break;
        }
        out.push('\n');
        out.push_str(&line);
        jails -= 1;
        left -= tally.count;
    }
    if left > 0 {
        let line = format!("{left} in {jails} other jails");
        let _infallible = write!(out, "\n{}", escape.escape(&line));
    }
}

#[cfg(test)]
mod tests;
