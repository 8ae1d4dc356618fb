//! The agent: one loop that hears of offenses, orders, signals, timers and changes in the kernel, one after the other.

mod batch;
mod guard;
mod headers;
pub mod jails;
mod leaks;
mod orders;
mod rate;
mod requests;
mod signals;
mod snapshot;
mod status;
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
use self::leaks::Leaks;
pub(crate) use self::requests::printable;
use self::signals::{Ask, Signals};
use self::worker::{Plan, Worker};
use crate::clock;
use crate::commands::load;
use crate::config::Config;
use crate::config::duration::{Shown, ShownBanTime};
use crate::control::{self, Call, Server};
use crate::engine::{Engine, Limits, Verdict};
use crate::follow::Options;
use crate::host;
use crate::kernel::backend;
use crate::types::{Decision, JailId, Timestamp};

/// A timer is set for at most so long: the clock may jump, and the kernel ends bans by itself meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// A clock that is off by more was set, or the machine slept.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// So many requests may wait while the agent is busy.
const CALLS: usize = 16;

/// Runs the agent in the foreground until a signal or `stockade stop` ends it.
///
/// # Errors
/// A configuration with mistakes, another agent, or a kernel that does not let us.
pub fn run(path: &Path) -> Result<()> {
    let config = load(path)?;
    crate::log::init(&config.log);
    raise_file_limit();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    run_with(path, config)
}

/// Runs the agent with a configuration that was read from `path`, which a reload reads again.
///
/// # Errors
/// As [`run`].
pub fn run_with(path: &Path, config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (calls, orders) = mpsc::channel(CALLS);
        let server = Server::bind(&config.paths.control).await?;
        let alone = control::Alone::claim().await?;
        let mut signals = Signals::new().context("failed to listen to signals")?;
        let (mut agent, batches) = Agent::start(path, config).await?;
        // Only an agent that enforces answers: who pings it may rely on that.
        let server = tokio::spawn(server.serve(calls));
        let ended = agent.work(&mut signals, batches, orders).await;
        server.abort();
        // Wait for it, so that the socket's file is gone when we are.
        drop(server.await);
        let stopped = agent.end().await;
        drop(alone);
        ended.and(stopped)
    })
}

/// Everything the agent knows.
struct Agent {
    path: PathBuf,
    config: Config,
    registry: Registry,
    jails: Jails,
    engine: Engine,
    guard: Guard,
    worker: Option<Worker>,
    started: Timestamp,
    last_bans: HashMap<JailId, (IpNet, Timestamp)>,
    told: HashMap<JailId, Told>,
    leaks: Leaks,
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
    async fn start(path: &Path, config: Config) -> Result<(Self, mpsc::Receiver<Batch>)> {
        let mut registry = Registry::default();
        let jails = Jails::new(&config, &mut registry)?;
        for warning in &jails.warnings {
            tracing::warn!("{warning}");
        }
        let now = clock::now();
        let mut engine = Engine::new(Limits { offenders: config.limits.offenders, history: config.limits.history });
        engine.set_allowlist(jails.allowlist.clone(), now);
        for ready in &jails.jails {
            engine.set_jail(ready.id, ready.policy.clone(), now);
        }
        let choice = backend::choose(config.backend, &jails.layout()).await?;
        let mut guard = Guard::open(choice, jails.layout(), &config.headers).await?;
        let taken = guard.take_over(&mut engine, &registry).await?;
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
        let options = Options { max_line: config.limits.line, ..Options::default() };
        let (worker, batches) = Worker::start(plan(&jails), options)?;
        let agent = Self {
            path: path.to_owned(),
            config,
            registry,
            jails,
            engine,
            guard,
            worker: Some(worker),
            started: now,
            last_bans: HashMap::new(),
            told: HashMap::new(),
            leaks: Leaks::default(),
            looked: Instant::now(),
            own: host::own_networks()?,
            clocks: (clock::now(), Instant::now()),
            stop: None,
        };
        Ok((agent, batches))
    }

    async fn work(
        &mut self,
        signals: &mut Signals,
        mut batches: mpsc::Receiver<Batch>,
        mut calls: mpsc::Receiver<Call>,
    ) -> Result<()> {
        while self.stop.is_none() {
            let (timer, due) = (self.timer(), self.guard.due_at());
            tokio::select! {
                // In this order: what somebody broke is mended before new bans are written into it.
                biased;
                ask = signals.next() => self.signal(ask).await,
                who = self.guard.changed() => self.guard.repair(who, &self.engine, &self.registry).await,
                () = until(due) => self.guard.due(&self.engine, &self.registry).await,
                Some((request, reply)) = calls.recv() => self.request(request, reply).await,
                batch = batches.recv() => {
                    let Some(batch) = batch else { anyhow::bail!("the follower's thread has ended") };
                    self.offenses(&batch);
                    self.tell_leaks().await;
                }
                () = tokio::time::sleep_until(timer) => self.engine.timeout(clock::now()),
            }
            self.carry_out().await;
            self.mind_the_clock().await;
            if self.looked.elapsed() >= LONGEST_SLEEP {
                self.looked = Instant::now();
                self.look_around();
                self.guard.headers.sweep();
                self.look_at_the_host().await;
            }
        }
        Ok(())
    }

    /// Ends the follower, and the bans if that was asked for.
    async fn end(mut self) -> Result<()> {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
        let Some(stop) = self.stop.take() else { return Ok(()) };
        let bans = self.engine.bans().count();
        let removed = if stop.flush { self.guard.remove().await } else { Ok(()) };
        let response = requests::stopped(bans, &removed);
        if let Some(reply) = stop.reply {
            // Who asked may have gone.
            drop(reply.send(response));
            // The connection's task must still write it.
            tokio::time::sleep(Duration::from_millis(20)).await;
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
                if let Err(e) = self.reload().await {
                    tracing::error!("{e:#}; the old configuration stays in force");
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
            if self.engine.offense(offense, now) == Verdict::AlreadyBanned
                && let (Some(peer), Some(whole)) = (batch.carried_by(n), whole)
            {
                self.leaks.see(&self.engine, &offense, peer, now, whole, self.config.leaks.grace);
            }
        }
    }

    /// Says of each new cause of leaks what would stop it.
    async fn tell_leaks(&mut self) {
        if !self.leaks.is_news() {
            return;
        }
        let packets = self.guard.packets(clock::now()).await;
        let namespace = leaks::namespace();
        for (jail, way, cause) in self.leaks.untold() {
            let covering = self.engine.bans_of(jail, cause.offender);
            let stopped = covering.map(|ban| packets.of(ban)).fold(None, |sum, n| match (sum, n) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            });
            let running = self.jails.jails.iter().find(|ready| ready.id == jail);
            let ports = running.map_or(&[][..], |ready| &ready.jail.ports);
            let matcher = self.guard.headers.matcher();
            let advice = way.advice(&leaks::Facts { ports, stopped, namespace, matcher });
            let jail = self.registry.name(jail).unwrap_or("?");
            tracing::warn!(
                jail,
                "{} is banned, but its requests still come {}: {advice}. (Told once; `stockade status` counts them)",
                cause.offender,
                way.told()
            );
            cause.advice = Some(advice);
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
        let held = crate::log::hold();
        for decision in &decisions {
            let ban = decision.ban();
            if let Decision::Ban(_) = decision {
                self.last_bans.insert(ban.jail, (ban.offender, ban.since));
            }
            let jail = self.registry.name(ban.jail).unwrap_or("?");
            let offender = shown(ban.offender);
            let until = ban.until.map_or_else(|| "permanent".to_owned(), |until| until.to_string());
            if let Decision::Unban(_, reason) = decision {
                tracing::info!(jail, reason = reason.word(), "unban {offender}");
                continue;
            }
            tracing::info!(jail, until, offenses = ban.offenses, "{} {offender}", decision.word());
        }
        drop(held);
        decisions
    }

    /// Reads the configuration again. All of it is checked before anything is changed.
    async fn reload(&mut self) -> Result<Vec<String>> {
        let config = load(&self.path)?;
        let jails = Jails::new(&config, &mut self.registry)?;
        let mut warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        warnings.extend(jails.warnings.iter().cloned());
        let running = &self.config;
        if (&config.paths, config.backend, config.limits, config.log)
            != (&running.paths, running.backend, running.limits, running.log)
        {
            warnings.push("backend, paths, limits and log take effect at the next start".to_owned());
        }
        self.guard.headers.reconfigure(&config.headers, &jails.layout());
        let reshaped = self.adopt(&jails).await;
        if let Err(e) = reshaped {
            tracing::error!("{e:#}; trying again");
            warnings.push(format!("the kernel is not in line with it yet: {e:#}; the agent keeps trying"));
        }
        let Config { backend, paths, limits, log, .. } = self.config.clone();
        (self.jails, self.config) = (jails, Config { backend, paths, limits, log, ..config });
        self.told.clear();
        self.leaks.begin_anew();
        tracing::info!(jails = self.jails.jails.len(), "configuration read again");
        Ok(warnings)
    }

    /// Puts other jails in the place of those that run.
    async fn adopt(&mut self, jails: &Jails) -> Result<()> {
        let now = clock::now();
        self.engine.set_allowlist(jails.allowlist.clone(), now);
        for gone in self.jails.jails.iter().filter(|old| jails.find(&old.jail.name).is_none()) {
            self.engine.remove_jail(gone.id, now);
        }
        for ready in &jails.jails {
            self.engine.set_jail(ready.id, ready.policy.clone(), now);
        }
        if let Some(worker) = &self.worker {
            worker.replan(plan(jails));
        }
        self.guard.reshape(jails.layout(), &self.engine, &self.registry).await.map(drop)
    }

    /// `ignoreip: [self]` means what the host is now: addresses come and go with DHCP, VPNs and container networks.
    async fn look_at_the_host(&mut self) {
        let refreshed = host::own_networks().map_err(Into::into).and_then(|own| {
            if own == self.own {
                return Ok(None);
            }
            self.own = own;
            Jails::new(&self.config, &mut self.registry).map(Some)
        });
        match refreshed {
            Ok(None) => {}
            Ok(Some(jails)) => {
                tracing::info!("the host's own addresses have changed: `self` means them now");
                if let Err(e) = self.adopt(&jails).await {
                    tracing::error!("{e:#}; trying again");
                }
                self.jails = jails;
                self.carry_out().await;
            }
            Err(e) => tracing::warn!("{e:#}: `self` stays what it was"),
        }
    }

    /// Says, once of each jail and kind, what keeps it from banning.
    fn look_around(&mut self) {
        let Some(worker) = &self.worker else { return };
        let mut lines = worker.snapshot().lines;
        for ready in &self.jails.jails {
            let stats = self.engine.stats(ready.id, clock::now()).unwrap_or_default();
            let told = self.told.entry(ready.id).or_default();
            let blind = lines.remove(&ready.id).and_then(|lines| lines.warning());
            let forgotten = (stats.forgotten > 0).then(|| {
                "more addresses offend than limits.offenders lets be remembered: the least recent are forgotten".to_owned()
            });
            let early = (stats.future_clamped > 0).then(|| {
                "lines are stamped in the future: is the log's time zone another one (see timezone)?"
                    .to_owned()
            });
            let late = (stats.too_old > 0).then(|| {
                "bans were over before their lines were read: the log was read late, or is stamped in the past (see \
                 timezone)"
                    .to_owned()
            });
            for (seen, warning) in told.each().zip([blind, forgotten, early, late]) {
                let Some(warning) = warning.filter(|_| !*seen) else { continue };
                tracing::warn!(jail = ready.jail.name, "{warning}");
                *seen = true;
            }
        }
    }
}

/// What was said of a jail already: it is blind, forgets, is early, is late.
#[derive(Debug, Default)]
struct Told([bool; 4]);

impl Told {
    fn each(&mut self) -> impl Iterator<Item = &mut bool> {
        self.0.iter_mut()
    }
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
    Plan { jails: jails.jails.clone(), trust: std::sync::Arc::clone(&jails.trust) }
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
    format!("{} in {}, banned for {}", jail.maxretry, Shown(jail.findtime), ShownBanTime(jail.bantime))
}
