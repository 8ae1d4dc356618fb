//! `stockade replay`: jails over old logs, in the logs' own time.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ipnet::IpNet;
use serde_json::json;

use super::log::{Log, lines};
use super::{Failure, load};
use crate::budget;
use crate::cli::exit;
use crate::clock;
use crate::config::Config;
use crate::daemon::jails::{Jails, Ready, Registry};
use crate::daemon::{Batch, printable, shown};
use crate::engine::Engine;
use crate::filter::Matcher;
use crate::follow::pattern_matches;
use crate::types::{Decision, Offense, Timestamp};

/// On a terminal, progress is shown so often.
const PROGRESS: Duration = Duration::from_millis(100);

/// Replays `logs` and prints what would have been decided.
pub(super) fn run(config: &Path, logs: &[PathBuf], only: Option<&str>, json: bool) -> Result<()> {
    let config = load(config)?;
    let mut registry = Registry::default();
    let jails = Jails::new(&config, &mut registry)?;
    if let Some(name) = only.filter(|name| jails.find(name).is_none()) {
        bail!(Failure::new(exit::NO, format!("there is no jail {name:?} in the configuration")));
    }
    let mut streams = Vec::new();
    for path in logs {
        let chosen = choose(&jails, path, only);
        streams.push(Stream::new(Log::open(path, config.limits.line)?, &chosen, &jails, config.limits.line));
    }
    let mut report = Report::new(json, &registry, &streams);
    let mut replay = Replay::new(&config, &jails, streams);
    let mut written = Ok(());
    while replay.step(|decision, now| {
        if written.is_ok() {
            written = report.decision(decision, now);
        }
    })? {
        std::mem::replace(&mut written, Ok(()))?;
        report.progress(&replay.streams);
    }
    report.summary(&replay.streams)
}

/// Jails that are run over old logs.
pub(super) struct Replay {
    engine: Engine,
    /// In log time.
    now: Timestamp,
    pub(super) streams: Vec<Stream>,
}

impl Replay {
    pub(super) fn new(config: &Config, jails: &Jails, streams: Vec<Stream>) -> Self {
        let mut engine = Engine::new(budget::limits(config).0);
        engine.set_allowlist(jails.allowlist.clone(), Timestamp::default());
        for ready in &jails.jails {
            engine.set_jail(ready.id, ready.policy.clone(), Timestamp::default());
        }
        Self { engine, now: Timestamp::default(), streams }
    }

    /// Goes on for a while, and gives out what is decided and when; `false` when all logs have ended.
    pub(super) fn step(&mut self, mut take: impl FnMut(&Decision, Timestamp)) -> Result<bool> {
        // Several logs are merged by time, as they were written: one address may offend in all of them.
        let Some(next) = earliest(&mut self.streams)? else { return Ok(false) };
        let others =
            self.streams.iter().enumerate().filter(|(n, _)| *n != next).filter_map(|(_, s)| s.head());
        let until = others.min();
        let (engine, now) = (&mut self.engine, &mut self.now);
        self.streams[next].feed(until, |offense| {
            // In log time nothing is ever too late, and time does not run backwards where a log's stamps do.
            *now = (*now).max(offense.at);
            engine.offense(offense, *now);
            while let Some(decision) = engine.poll_decision() {
                take(&decision, *now);
            }
        });
        Ok(true)
    }
}

/// The stream with the earliest offense, each read on as far as needed; `None` when all have ended.
fn earliest(streams: &mut [Stream]) -> Result<Option<usize>> {
    let mut first: Option<(Timestamp, usize)> = None;
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.refill()?;
        if let Some(at) = stream.head().filter(|at| first.is_none_or(|(earlier, _)| *at < earlier)) {
            first = Some((at, n));
        }
    }
    Ok(first.map(|(_, n)| n))
}

/// The jails whose log this is: those that name it, else all; or the one asked for.
fn choose<'a>(jails: &'a Jails, path: &Path, only: Option<&str>) -> Vec<&'a Ready> {
    if let Some(name) = only {
        return jails.find(name).into_iter().collect();
    }
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named: Vec<&Ready> =
        jails.jails.iter().filter(|r| r.jail.logpath.iter().any(|p| pattern_matches(p, &full))).collect();
    if named.is_empty() { jails.jails.iter().collect() } else { named }
}

/// One log, read as far as needed.
pub(super) struct Stream {
    pub(super) log: Log,
    longest: usize,
    matcher: Matcher,
    /// For stamps that lack a year.
    today: Timestamp,
    batch: Batch,
    /// The next offense of the batch.
    next: usize,
    /// The time of the last offense, for lines without one.
    last: Timestamp,
    /// What is older is left out.
    since: Timestamp,
    pub(super) lines: u64,
    pub(super) offenses: u64,
    pub(super) unattributable: u64,
    ended: bool,
}

impl Stream {
    pub(super) fn new(log: Log, chosen: &[&Ready], jails: &Jails, longest: usize) -> Self {
        let members =
            chosen.iter().map(|r| (r.id, Arc::clone(&r.filter), Arc::clone(&jails.trust))).collect();
        Self {
            log,
            longest,
            matcher: Matcher::new(members),
            today: clock::now(),
            batch: Batch::default(),
            next: 0,
            last: Timestamp::default(),
            since: Timestamp::from_millis(i64::MIN),
            lines: 0,
            offenses: 0,
            unattributable: 0,
            ended: false,
        }
    }

    /// Has it leave out what happened before.
    pub(super) fn since(mut self, since: Timestamp) -> Self {
        self.since = since;
        self
    }

    /// The time of the next offense.
    fn head(&self) -> Option<Timestamp> {
        self.batch.get(self.next, self.last).map(|offense| offense.at)
    }

    /// Reads on until there is an offense, or the log ends.
    fn refill(&mut self) -> Result<()> {
        while self.next >= self.batch.len() && !self.ended {
            self.batch.clear();
            self.next = 0;
            let Some(block) = self.log.block()? else {
                self.ended = true;
                return Ok(());
            };
            for line in lines(block, self.longest) {
                self.lines += 1;
                self.matcher.line(line, self.today, |hit| match hit.who.offender() {
                    _ if hit.at.is_some_and(|at| at < self.since) => {}
                    Some(offender) => {
                        self.offenses += 1;
                        self.batch.push(hit.jail, offender, hit.who.peer(), hit.at, hit.line);
                    }
                    None => self.unattributable += 1,
                });
            }
        }
        Ok(())
    }

    /// Gives out the offenses of the batch up to the time `until`, at least one.
    fn feed(&mut self, until: Option<Timestamp>, mut take: impl FnMut(Offense<'_>)) {
        while let Some(offense) = self.batch.get(self.next, self.last) {
            self.last = offense.at;
            take(offense);
            self.next += 1;
            if until.is_some_and(|until| self.head().is_some_and(|at| at > until)) {
                return;
            }
        }
    }
}

/// What is printed.
struct Report<'a> {
    out: BufWriter<io::Stdout>,
    json: bool,
    registry: &'a Registry,
    bans: u64,
    banned: hashbrown::HashSet<IpNet>,
    size: u64,
    shown: Option<Instant>,
}

impl<'a> Report<'a> {
    fn new(json: bool, registry: &'a Registry, streams: &[Stream]) -> Self {
        let shown = io::stderr().is_terminal().then(Instant::now);
        Self {
            out: BufWriter::new(io::stdout()),
            json,
            registry,
            bans: 0,
            banned: hashbrown::HashSet::new(),
            size: streams.iter().map(|s| s.log.size()).sum(),
            shown,
        }
    }

    fn decision(&mut self, decision: &Decision, now: Timestamp) -> Result<()> {
        let ban = decision.ban();
        let jail = self.registry.name(ban.jail).unwrap_or("?");
        let at = match decision {
            Decision::Ban(ban) | Decision::Prolong(ban) => ban.since,
            Decision::Unban(ban, _) => ban.until.unwrap_or(now),
        };
        if let Decision::Ban(ban) = decision {
            self.bans += 1;
            self.banned.insert(ban.offender);
        }
        let until = ban.until.map(|until| until.to_string());
        if self.json {
            let value = json!({
                "at": at.to_string(), "decision": decision.word(), "jail": jail, "offender": shown(ban.offender),
                "offenses": ban.offenses, "until": until,
            });
            writeln!(self.out, "{value}")?;
        } else if !matches!(decision, Decision::Unban(..)) {
            let until = until.as_deref().unwrap_or("lifted by hand");
            let evidence = printable(&ban.evidence);
            let (word, offender, offenses) = (decision.word(), shown(ban.offender), ban.offenses);
            writeln!(
                self.out,
                "{at} {word} {offender} in {jail} until {until}, {offenses} offenses, the last: {evidence}"
            )?;
        }
        Ok(())
    }

    fn progress(&mut self, streams: &[Stream]) {
        if self.shown.is_none_or(|at| at.elapsed() < PROGRESS) {
            return;
        }
        self.shown = Some(Instant::now());
        let read: u64 = streams.iter().map(|s| s.log.read).sum();
        let share =
            (read * 100).checked_div(self.size).map_or_else(String::new, |n| format!("{} %, ", n.min(100)));
        eprint!("\r{share}{} MiB read, {} bans \x1b[K", read >> 20, self.bans);
    }

    fn summary(mut self, streams: &[Stream]) -> Result<()> {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
        let sum = |of: fn(&Stream) -> u64| streams.iter().map(of).sum::<u64>();
        let (lines, offenses) = (sum(|s| s.lines), sum(|s| s.offenses));
        let (unattributable, skipped) = (sum(|s| s.unattributable), sum(|s| s.log.skipped));
        let (bans, banned) = (self.bans, self.banned.len());
        if self.json {
            let value = json!({
                "lines": lines, "offenses": offenses, "unattributable": unattributable, "too_long": skipped,
                "bans": bans, "offenders": banned,
            });
            writeln!(self.out, "{value}")?;
        } else {
            writeln!(self.out, "{lines} lines, {offenses} offenses, {bans} bans of {banned} offenders")?;
            if unattributable > 0 {
                writeln!(
                    self.out,
                    "{unattributable} offenses came only from trusted proxies: nobody to ban"
                )?;
            }
            if skipped > 0 {
                writeln!(self.out, "{skipped} lines were too long (limits.line)")?;
            }
        }
        self.out.flush()?;
        Ok(())
    }
}
