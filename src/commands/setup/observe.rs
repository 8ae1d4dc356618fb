//! `setup --observe`: the last day's logs, run through the jails that were just proposed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use ipnet::IpNet;

use super::finding::Findings;
use super::input::{self, Bounds, Input};
use super::person::Person;
use crate::clock;
use crate::commands::log::Log;
use crate::commands::replay::{Replay, Stream};
use crate::config::Config;
use crate::daemon::jails::{Jails, Registry};
use crate::daemon::{printable, shown};
use crate::types::{Decision, JailId, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// So much is read in all, and so long.
const BYTES: u64 = 1 << 30;
const TIME: Duration = Duration::from_secs(60);
/// So many offenders are shown, and so much of a line.
const SHOWN: usize = 10;
const LINE: usize = 110;

/// What would have happened.
#[derive(Debug, Default)]
pub(super) struct Observation {
    files: usize,
    lines: u64,
    jails: BTreeMap<String, Tally>,
    offenders: HashMap<(IpNet, JailId), Offender>,
    names: Vec<String>,
    left_out: Vec<String>,
}

#[derive(Debug, Default)]
struct Tally {
    offenses: u64,
    bans: u64,
    unattributable: u64,
}

#[derive(Debug, Default)]
struct Offender {
    bans: u64,
    offenses: u64,
    first: Timestamp,
    line: Vec<u8>,
}

/// Runs the last day's logs through the jails.
pub(super) fn observe(config: &Config, findings: &Findings) -> Result<Observation> {
    let mut registry = Registry::default();
    let jails = Jails::new(config, &mut registry)?;
    let since = clock::now().saturating_sub(DAY);
    let modified = SystemTime::now() - DAY;
    let bounds =
        Rc::new(RefCell::new(Bounds { bytes: BYTES, until: Instant::now() + TIME, left_out: Vec::new() }));
    let mut streams = Vec::new();
    let mut of = Vec::new();
    for (kind, sources) in &findings.jails {
        let Some(ready) = jails.find(kind.jail()) else { continue };
        let mut inputs: Vec<Input> =
            sources.files.iter().flat_map(|log| input::files(log, modified, &bounds)).collect();
        if let Some(matches) = &ready.jail.journal {
            match input::journal(matches, jails.options.journal.as_deref(), ready.shape, since, &bounds) {
                Ok(journal) => inputs.push(journal),
                Err(e) => bounds.borrow_mut().left_out.push(format!("the journal: {e}")),
            }
        }
        for input in inputs {
            let log = Log::of(&input.path, input.reader, input.size, config.limits.line);
            streams.push(Stream::new(log, &[ready], &jails, config.limits.line).since(since));
            of.push(ready.jail.name.clone());
        }
    }
    let mut found =
        Observation { files: streams.len(), names: registry.names().to_vec(), ..Observation::default() };
    let mut replay = Replay::new(config, &jails, streams);
    while replay.step(|decision, _| found.take(decision))? {}
    for (stream, jail) in replay.streams.iter().zip(of) {
        found.lines += stream.lines;
        let tally = found.jails.entry(jail).or_default();
        tally.offenses += stream.offenses;
        tally.unattributable += stream.unattributable;
    }
    found.left_out = std::mem::take(&mut bounds.borrow_mut().left_out);
    Ok(found)
}

impl Observation {
    fn take(&mut self, decision: &Decision) {
        let Decision::Ban(ban) = decision else { return };
        let name = self.names.get(usize::from(ban.jail.0)).cloned().unwrap_or_default();
        self.jails.entry(name).or_default().bans += 1;
        let offender = self.offenders.entry((ban.offender, ban.jail)).or_default();
        if offender.bans == 0 {
            offender.first = ban.since;
        }
        offender.bans += 1;
        offender.offenses += u64::from(ban.offenses);
        offender.line.clear();
        offender.line.extend_from_slice(&ban.evidence);
    }

    /// For the terminal.
    pub(super) fn told(&self, people: &[Person]) -> String {
        let mut out = String::new();
        let bans: u64 = self.offenders.values().map(|offender| offender.bans).sum();
        let _ = writeln!(
            out,
            "The last day's logs ({} files with {} lines): {} offenders would have been banned, {bans} times in all.",
            self.files,
            self.lines,
            self.offenders.len()
        );
        for (name, tally) in &self.jails {
            let _ = write!(out, "  {name}: {} offenses, {} bans", tally.offenses, tally.bans);
            if tally.unattributable > 0 {
                let _ = write!(
                    out,
                    "; {} more came only from trusted proxies: nobody to ban",
                    tally.unattributable
                );
            }
            out.push('\n');
        }
        let mut top: Vec<_> = self.offenders.iter().collect();
        top.sort_by(|(a, x), (b, y)| (y.bans, y.offenses, a).cmp(&(x.bans, x.offenses, b)));
        if !top.is_empty() {
            let _ = writeln!(
                out,
                "\n  {:<24} {:>5} {:>9}  {:<20}  jail",
                "offender", "bans", "offenses", "first ban"
            );
        }
        for ((offender, jail), of) in top.iter().take(SHOWN) {
            let name = self.names.get(usize::from(jail.0)).map_or("?", String::as_str);
            let first = Timestamp::from_secs(of.first.as_millis() / 1000);
            let _ = writeln!(
                out,
                "  {:<24} {:>5} {:>9}  {first:<20}  {name}",
                shown(*offender),
                of.bans,
                of.offenses
            );
            let line: String = printable(&of.line).chars().take(LINE).collect();
            let _ = writeln!(out, "    {line}");
        }
        if top.len() > SHOWN {
            let _ = writeln!(out, "  and {} more", top.len() - SHOWN);
        }
        for person in people {
            if top.iter().any(|((offender, _), _)| offender.contains(&person.address)) {
                let _ = writeln!(
                    out,
                    "\nNOTE: {} is among them, and {}: have it never banned (`ignoreip`).",
                    person.address, person.how
                );
            }
        }
        if !self.left_out.is_empty() {
            out.push_str("\nLeft out:\n");
        }
        for what in &self.left_out {
            let _ = writeln!(out, "  {}", printable(what.as_bytes()));
        }
        out
    }
}
