//! The agent: one loop that hears of offenses, orders, signals, timers and changes in the kernel, one after the other.

mod batch;
mod containers;
mod guard;
mod headers;
pub mod jails;
mod keeper;
mod leaks;
mod life;
mod lookout;
mod notify;
mod observe;
mod orders;
mod patience;
mod phase;
mod pulse;
pub mod ranges;
mod rate;
mod reader;
mod refusals;
mod reload;
mod requests;
mod shield;
mod signals;
mod snapshot;
mod sources;
mod status;
mod telling;
mod worker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use self::batch::Batch;
use self::guard::Guard;
use self::jails::{Jails, Registry};
use self::keeper::Keeper;
use self::leaks::Leaks;
use self::lookout::Told;
use self::notify::{Follower, Notifier, Watchdog};
use self::phase::Phase;
use self::reader::Plan;
pub(crate) use self::requests::printable;
use self::shield::Shield;
use self::signals::{Ask, Signals};
use self::telling::Deciding;
use self::worker::Worker;
use crate::budget;
use crate::clock;
use crate::commands::load;
use crate::config::Config;
use crate::config::duration::{Shown, ShownBanTime};
use crate::confine;
use crate::control::{self, Call};
use crate::engine::{Command, Engine, Unban, Verdict};
use crate::follow::Options;
use crate::host::{self, Places};
use crate::kernel::backend;
use crate::sinks::{Context as SinkContext, Sinks};
use crate::types::{Decision, JailId, Timestamp, UnbanReason};

/// A timer is set for at most so long: the clock may jump, and the kernel ends bans by itself meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// A clock that is off by more was set, or the machine slept.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// So many bytes are read before the follower tells how far it is.
const TURN_BUDGET: usize = 2 << 20;
/// So many requests may wait while the agent is busy.
const CALLS: usize = 16;

/// Runs the agent in the foreground until a signal or `stockade stop` ends it. One that is to `observe` enforces nothing; one
/// that is to `wait` does so until there is a configuration without mistakes.
///
/// # Errors
/// A configuration with mistakes, another agent, or a kernel that does not let us.
pub fn run(path: &Path, observe: bool, wait: bool) -> Result<()> {
    let config = if wait { patience::wait_for(path)? } else { Some(load(path)?) };
    let Some(config) = config else { return Ok(()) };
    crate::log::init(&config.log);
    raise_file_limit();
    confine::confine(&config, observe);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    run_with(path, config, observe)
}

/// Runs the agent with a configuration that was read from `path`, which a reload reads again.
///
/// # Errors
/// As [`run`].
pub fn run_with(path: &Path, config: Config, observe: bool) -> Result<()> {
    let signals = Signals::listen(&config.paths.control).context("failed to listen to signals")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(life::live(path, config, observe, signals));
    // Nothing that still runs in a thread of the runtime is worth waiting for.
    runtime.shutdown_background();
    ended
}

/// Everything the agent knows.
struct Agent {
    path: PathBuf,
    config: Config,
    registry: Registry,
    jails: Jails,
    engine: Engine,
    guard: Guard,
    keeper: Keeper,
    worker: Option<Worker>,
    started: Timestamp,
    last_bans: HashMap<JailId, (IpNet, Timestamp)>,
    told: HashMap<JailId, Told>,
    leaks: Leaks,
    refresher: Option<ranges::Refresher>,
    /// Whom a ban must not hit at the moment.
    shield: Shield,
    notifier: Notifier,
    watchdog: Watchdog,
    /// Who hears of decisions after the kernel.
    sinks: Sinks,
    /// The lines that decided what is not carried out yet.
    deciding: Deciding,
    /// What was logged as an error.
    errors: telling::Errors,
    /// Nothing is enforced, whatever the configuration says.
    observing: bool,
    looked: Instant,
    /// The host's own networks, as `self` means them.
    own: Vec<IpNet>,
    /// The time of day and the steady clock, as of the last turn.
    clocks: (Timestamp, Instant),
    stop: Option<Stop>,
}

/// How the agent is to end.
struct Stop {
    flush: bool,
    reply: Option<tokio::sync::oneshot::Sender<control::Response>>,
}

impl Agent {
    async fn start(
        path: &Path,
        mut config: Config,
        observing: bool,
        phase: &Phase,
        calls: mpsc::Sender<Call>,
    ) -> Result<(Self, mpsc::Receiver<Batch>)> {
        phase.set("compiling the filters");
        if observing {
            config.observe_all();
        }
        let mut registry = Registry::default();
        let jails = Jails::new(&config, &mut registry)?;
        for warning in &jails.warnings {
            tracing::warn!("{warning}");
        }
        let now = clock::now();
        let (limits, told) = budget::limits(&config);
        for told in told {
            tracing::warn!("{told}");
        }
        let mut engine = Engine::new(limits);
        engine.set_allowlist(jails.allowlist.clone(), now);
        for ready in &jails.jails {
            engine.set_jail(ready.id, ready.policy.clone(), now);
        }
        phase.set("looking around on the host");
        let shield = Shield::start(Places::default())?;
        engine.set_protected(shield.look().protected, now);
        phase.set("reading the ledger");
        let state = &config.paths.state;
        let (mut keeper, mut loaded) = if observing {
            Keeper::forgetful(state)
        } else {
            Keeper::open(state, &registry).context("failed to start the ledger's thread")?
        };
        let left = std::mem::take(&mut loaded.outbox);
        let places = keeper.restore(&mut engine, loaded, &registry);
        phase.set("asking the kernel what it can do");
        let choice = if observing {
            observe::tell_what_is_left().await;
            observe::choice()
        } else {
            backend::choose(config.backend, &jails.layout()).await?
        };
        phase.set(format!("taking over the bans in {}", choice.backend.place()));
        let mut guard = Guard::open(choice, jails.layout(), &config.headers).await?;
        let taken = guard.take_over(&mut engine, &registry).await?;
        phase.set(format!("bringing {} in line with {taken} bans", guard.choice.backend.place()));
        let counts = guard.settle(&engine, &registry).await?;
        tracing::info!(
            jails = jails.jails.len(),
            bans = taken,
            removed = counts.removed,
            backend = guard.choice.backend.word(),
            "{} is up: {}",
            guard.choice.backend.place(),
            guard.choice.why
        );
        let configured = if observing { &[][..] } else { &config.sinks };
        let sinks = Sinks::start(configured, SinkContext::of(&config, Some(calls)), left)
            .context("failed to start the thread of the sinks")?;
        sinks.set_jails(&jails);
        let options =
            Options { max_line: config.limits.line, turn_budget: TURN_BUDGET, ..Options::default() };
        phase.set("opening the logs");
        let (worker, batches) = Worker::start(plan(&jails), options, places.files, places.cursors).await?;
        let mut agent = Self {
            path: path.to_owned(),
            config,
            registry,
            jails,
            engine,
            guard,
            keeper,
            worker: Some(worker),
            started: now,
            last_bans: HashMap::new(),
            told: HashMap::new(),
            leaks: Leaks::default(),
            shield,
            notifier: phase.notifier().clone(),
            watchdog: Watchdog::from_env(),
            sinks,
            deciding: Deciding::default(),
            errors: telling::Errors::begin(),
            observing,
            looked: Instant::now(),
            own: host::own_networks()?,
            refresher: None,
            clocks: (clock::now(), Instant::now()),
            stop: None,
        };
        agent.leaks.know(&agent.jails.cloudflare);
        ranges::Refresher::reconfigure(&mut agent.refresher, &agent.config);
        Ok((agent, batches))
    }

    async fn work(
        &mut self,
        signals: &mut Signals,
        mut batches: mpsc::Receiver<Batch>,
        mut calls: mpsc::Receiver<Call>,
    ) -> Result<()> {
        while self.stop.is_none() {
            let (timer, due, feed) = (self.timer(), self.guard.due_at(), self.watchdog.due_at());
            let checkpoint = self.keeper.due_at(&self.engine, &self.sinks);
            tokio::select! {
                // In this order: what somebody broke is mended before new bans are written into it.
                biased;
                ask = signals.next() => self.signal(ask).await,
                who = self.guard.changed() => self.guard.repair(who, &self.engine, &self.registry).await,
                () = until(due) => self.guard.due(&self.engine, &self.registry).await,
                Some((request, reply)) = calls.recv() => self.request(request, reply).await,
                outcome = self.keeper.outcome() => self.keeper.note(outcome, &mut self.sinks),
                () = until(checkpoint) => {
                    self.keeper.write(&mut self.engine, &self.registry, &mut self.sinks);
                }
                () = tokio::time::sleep_until(timer) => self.engine.timeout(clock::now()),
                batch = batches.recv() => {
                    let Some(mut batch) = batch else { anyhow::bail!("the follower's thread has ended") };
                    if batch.has_offenses() {
                        self.raise_shield().await;
                    }
                    self.offenses(&batch);
                    self.keeper.absorb(&mut batch.progress);
                    self.tell_leaks().await;
                }
                () = self.shield.changed() => self.heed_shield(),
                () = self.sinks.told() => self.sinks.note_told(),
                error = self.errors.next() => self.tell_error(error),
                () = until(feed) => {}
            }
            self.carry_out().await;
            let silent = self.worker.as_ref().map_or(Duration::ZERO, Worker::silent);
            let follower = Follower { silent, waits_for_us: batches.capacity() == 0 };
            self.watchdog.feed(&self.notifier, follower);
            self.mind_the_clock().await;
            // In a flood there is always a next batch, and this loop would never wait: without this nobody would look
            // whether sockets and signals have news, or somebody has broken the table.
            tokio::task::yield_now().await;
            if self.looked.elapsed() >= LONGEST_SLEEP {
                self.looked = Instant::now();
                self.look_around();
                self.guard.headers.sweep();
                self.look_at_the_host().await;
                self.shield.ask();
                self.notifier.status(&self.summary());
            }
        }
        Ok(())
    }

    /// What it does, in a line.
    fn summary(&self) -> String {
        let (jails, bans) = (self.jails.jails.len(), self.engine.bans().count());
        let word = match self.guard.state() {
            "observing" => "observed, nothing is enforced",
            state => state,
        };
        format!("{jails} jails, {bans} bans, {word}")
    }

    /// Ends the follower, and the bans if that was asked for.
    async fn end(mut self) -> Result<()> {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
        let begun = Instant::now();
        let stop = self.stop.take();
        let flush = stop.as_ref().is_some_and(|stop| stop.flush);
        let bans = self.engine.bans().filter(|ban| !self.jails.observed(ban.jail)).count();
        if flush {
            // What is lifted must not come back at the next start.
            let all = Command::Unban { what: Unban::All, jail: None };
            if let Err(e) = self.engine.command(all, clock::now()) {
                tracing::error!("{e}");
            }
        }
        if stop.is_some() {
            self.tell_stop(bans, flush);
        }
        let mut written = self.keeper.flush(&mut self.engine, &self.registry, &mut self.sinks).await;
        let removed = if flush { self.guard.remove().await } else { Ok(()) };
        let unfinished = self.end_sinks(begun, flush, written).await;
        if written {
            // What was told last need not be told again.
            written = self.keeper.flush(&mut self.engine, &self.registry, &mut self.sinks).await;
        }
        if !written {
            tracing::warn!(
                "stopping without having written everything to the ledger: the next start reads some lines once more"
            );
        }
        self.keeper.close().await;
        let Some(stop) = stop else { return Ok(()) };
        let response = requests::stopped(bans, &removed, &unfinished);
        if let Some(reply) = stop.reply {
            // Who asked may have gone.
            drop(reply.send(response));
            control::linger().await;
        }
        tracing::info!(bans, flushed = stop.flush, "stopped");
        removed
    }

    fn timer(&self) -> Instant {
        let longest = Instant::now() + LONGEST_SLEEP;
        match self.engine.poll_timeout() {
            Some(at) => longest.min(Instant::now() + at.since(clock::now())),
            None => longest,
        }
    }

    async fn signal(&mut self, ask: Ask) {
        match ask {
            Ask::Stop => self.stop = Some(Stop { flush: false, reply: None }),
            Ask::Reload => {
                // Every mistake on a line of its own.
                if let Err(e) = self.reload().await {
                    tell_mistakes(&e);
                }
            }
        }
    }

    /// Bans end by the time of day, elements by a count that knows neither of a clock that was set nor of a suspended
    /// machine. When the two part, the elements are given their ends anew.
    async fn mind_the_clock(&mut self) {
        let (wall, steady) = (clock::now(), Instant::now());
        let (wall_before, steady_before) = std::mem::replace(&mut self.clocks, (wall, steady));
        let expected = wall_before.saturating_add(steady - steady_before);
        if wall.since(expected).max(expected.since(wall)) < CLOCK_STEP {
            return;
        }
        tracing::warn!("the clock went from {expected} to {wall}: giving all bans their ends anew");
        self.engine.timeout(wall);
        self.carry_out().await;
        if let Err(e) = self.guard.settle(&self.engine, &self.registry).await {
            tracing::error!("{e:#}; trying again");
        }
    }

    fn offenses(&mut self, batch: &Batch) {
        let now = clock::now();
        let whole = self.guard.whole_since();
        for n in 0..batch.len() {
            let Some(offense) = batch.get(n, now) else { continue };
            match self.engine.offense(offense, now) {
                Verdict::Banned if !self.sinks.is_empty() => self.deciding.note(&offense),
                Verdict::Refused => self.refuse(&offense),
                Verdict::AlreadyBanned if !self.jails.observed(offense.jail) => {
                    let (Some(peer), Some(whole)) = (batch.carried_by(n), whole) else { continue };
                    self.leaks.see(&self.engine, &offense, peer, now, whole, self.config.leaks.grace);
                }
                _ => {}
            }
        }
    }

    /// Tells the kernel what was decided, and the log; returns it.
    async fn carry_out(&mut self) -> Vec<Decision> {
        let decisions: Vec<Decision> = std::iter::from_fn(|| self.engine.poll_decision()).collect();
        self.guard.carry_out(&decisions, &self.engine, &self.registry).await;
        self.guard.headers.carry_out(&decisions, &self.engine).await;
        if decisions.is_empty() {
            return decisions;
        }
        self.tell_decisions(&decisions);
        let held = crate::log::hold();
        for decision in &decisions {
            let ban = decision.ban();
            if let Decision::Ban(_) = decision {
                self.last_bans.insert(ban.jail, (ban.offender, ban.since));
            }
            let jail = self.registry.name(ban.jail).unwrap_or("?");
            let offender = shown(ban.offender);
            let would = if self.jails.observed(ban.jail) { "would " } else { "" };
            let until = ban.until.map_or_else(|| "permanent".to_owned(), |until| until.to_string());
            if let Decision::Unban(_, reason) = decision {
                tracing::info!(jail, reason = reason.word(), "{would}unban {offender}");
                if let (UnbanReason::Protected, Some(why)) =
                    (reason, self.engine.protected().told(ban.offender))
                {
                    tracing::warn!(jail, "{would}lift the ban of {offender}: {why}");
                }
                continue;
            }
            let word = decision.word();
            tracing::info!(jail, until, offenses = ban.offenses, "{would}{word} {offender}");
        }
        drop(held);
        decisions
    }
}

/// Says why a configuration was not taken: each mistake on a line of its own.
fn tell_mistakes(error: &anyhow::Error) {
    for line in format!("{error:#}").lines().filter(|line| !line.trim().is_empty()) {
        tracing::error!("{line}");
    }
    tracing::error!("the old configuration stays in force");
}

/// Every followed file is an open one, and the usual soft limit of 1024 is for programs that use select(2).
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        tracing::warn!("failed to raise the limit of open files: {e}");
    }
}

/// Waits until then; for ever when there is no then.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn plan(jails: &Jails) -> Plan {
    let (trust, options) = (std::sync::Arc::clone(&jails.trust), std::sync::Arc::clone(&jails.options));
    Plan { jails: jails.jails.clone(), trust, options }
}

/// An offender as people write it: a single address without its length.
pub(crate) fn shown(offender: IpNet) -> String {
    if offender.prefix_len() == offender.max_prefix_len() {
        offender.addr().to_string()
    } else {
        offender.to_string()
    }
}

/// A policy in a few words: `15 in 1m, banned for 10m`.
pub(crate) fn policy(jail: &crate::config::Jail) -> String {
    let more = if jail.escalation.is_some() { ", repeaters for longer" } else { "" };
    format!("{} in {}, banned for {}{more}", jail.maxretry, Shown(jail.findtime), ShownBanTime(jail.bantime))
}
