//! Keeps the kernel in line with the bans: carries decisions out, notices what others change, repairs, tries again.

use std::time::Duration;

use anyhow::{Context, Result};
use nft::{Event, Family, Watcher};
use tokio::time::Instant;

use super::headers::HeaderGuard;
use super::jails::Registry;
use super::shown;
use crate::clock;
use crate::config::Headers;
use crate::engine::Engine;
use crate::kernel::backend::BackendKind;
use crate::kernel::legacy::Look;
use crate::kernel::{
    Backend, Changes, Choice, Counts, Layout, Packets, desired, is_forced, parse_comment, ruleset, want,
};
use crate::types::{Ban, Decision, Evidence, FOUND, Timestamp};

/// After a refusal the kernel is asked again so soon, then at twice the distance each time.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(250);
pub(super) const LAST_RETRY: Duration = Duration::from_secs(60);
/// Two repairs are at least so far apart, lest two agents (or a script) and we drive each other round. Half of the time
/// within which what somebody broke is mended.
const BETWEEN_REPAIRS: Duration = Duration::from_millis(50);

/// How often what nobody tells about is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What there is to do about changes by others.
pub(super) enum Noticed {
    /// Somebody changed something of ours: what, to be read after "nf_tables was".
    Changed(String),
    /// It is time to look.
    LookDue,
}

/// The enforcer, and how it fares.
pub(super) struct Guard {
    enforcer: Backend,
    /// Which backend that is, and why.
    pub(super) choice: Choice,
    /// Where an agent with another backend left bans.
    former: Option<Backend>,
    /// Bans in request heads.
    pub(super) headers: HeaderGuard,
    /// Tells of changes by others in nf_tables; there is none where we have nothing there.
    watcher: Option<Watcher>,
    /// When what nobody tells about is looked at.
    next_look: Instant,
    /// Something of ours was touched in the transaction that is being announced.
    touched: bool,
    /// The notification socket failed: it is asked again then.
    deaf: Option<Instant>,
    /// When the kernel is asked again after a refusal, and how long that was put off.
    retry: Option<(Instant, Duration)>,
    /// A repair that has to wait, and what for.
    waiting_repair: Option<(Instant, BackendKind, String)>,
    last_repair_at: Option<Instant>,
    /// Since when the kernel has held what it should, as far as we know.
    whole_since: Timestamp,
    /// Changes by others that were repaired.
    pub(super) repairs: u64,
    /// What the last one was.
    pub(super) last_repair: Option<String>,
    /// Elements that were read back after they were written.
    pub(super) read_back: u64,
    /// Those that were not there, although the kernel had taken them.
    pub(super) missing: u64,
    /// What the kernel refused last, until it succeeds.
    pub(super) error: Option<String>,
}

impl Guard {
    /// Opens the sockets. Nothing is changed yet.
    pub(super) async fn open(choice: Choice, layout: Layout, headers: &Headers) -> Result<Self> {
        let failed = || format!("failed to open {}", choice.backend.name());
        let headers = HeaderGuard::open(headers, &layout, choice.backend);
        let enforcer = Backend::open(choice.backend, layout).await.with_context(failed)?;
        let mut ports: Vec<u32> = headers.port_id().into_iter().collect();
        if let Backend::Nft(nft) = &enforcer {
            ports.push(nft.port_id().with_context(failed)?);
        }
        let mut watcher = None;
        if !ports.is_empty() {
            let nft = watcher.insert(Watcher::open().context(
                "failed to watch nf_tables (run it as root, or grant CAP_NET_ADMIN; is nf_tables in this kernel?)",
            )?);
            ports.into_iter().for_each(|port| nft.ignore(port));
        }
        if let Some(problem) = enforcer.problem() {
            tracing::warn!("{problem}");
        }
        let former = enforcer.former().await;
        Ok(Self {
            enforcer,
            choice,
            former,
            headers,
            watcher,
            next_look: Instant::now() + LOOK,
            touched: false,
            deaf: None,
            retry: None,
            waiting_repair: None,
            last_repair_at: None,
            whole_since: clock::now(),
            repairs: 0,
            last_repair: None,
            read_back: 0,
            missing: 0,
            error: None,
        })
    }

    /// Takes over the bans that an agent before us left in the kernel: how many. What it cannot take over (its jail is
    /// gone, its address is now allowed, somebody else wrote it) is told, and the next [`settle`](Self::settle) removes it.
    pub(super) async fn take_over(&mut self, engine: &mut Engine, registry: &Registry) -> Result<usize> {
        let mut held = Vec::new();
        for backend in self.former.iter_mut().chain([&mut self.enforcer]) {
            let left = backend.left_behind(clock::now()).await;
            held.extend(
                left.with_context(|| format!("failed to list the bans in {}", backend.kind().place()))?,
            );
        }
        let mut taken = 0;
        for element in held {
            let Some((jail, offenses, since)) = parse_comment(&element.comment) else {
                tracing::warn!(
                    "{} in {} is not of our making: removing it",
                    shown(element.net),
                    self.choice.backend.place()
                );
                continue;
            };
            let Some(id) = registry.find(jail) else {
                tracing::warn!("lifting the ban of {}: there is no jail {jail} any more", shown(element.net));
                continue;
            };
            // The agent before us crashed after it had lifted this ban, and before the kernel heard of it.
            if engine.is_over(id, element.net, since) {
                continue;
            }
            let evidence = Evidence::from(FOUND);
            let forced = is_forced(&element.comment);
            let (offender, until) = (element.net, element.end);
            let ban = Ban { jail: id, offender, since, until, offenses, evidence, forced };
            if engine.adopt_found(ban) {
                taken += 1;
            } else {
                let why = engine.protected().told(offender);
                let why = why.unwrap_or_else(|| "ignoreip says it is never banned".to_owned());
                tracing::warn!("lifting the ban of {} in {jail}: {why}", shown(offender));
            }
        }
        Ok(taken)
    }

    /// Makes the kernel hold what `engine` says, whatever it holds now.
    pub(super) async fn settle(&mut self, engine: &Engine, registry: &Registry) -> Result<Counts> {
        let now = clock::now();
        let name = |id| registry.name(id).map(str::to_owned);
        let desired = desired(self.enforcer.layout(), engine.bans(), &name, now);
        let failed = || format!("failed to bring {} in line", self.choice.backend.name());
        let settled = self.enforcer.reconcile(&desired, now).await.with_context(failed);
        let settled = match settled {
            Ok(changes) => match self.read_back(&changes).await {
                Ok(0) => Ok(changes.counts()),
                Ok(n) => Err(anyhow::anyhow!(
                    "{n} elements are not in {} although it took them (does something else remove them?)",
                    self.choice.backend.name()
                )),
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        if settled.is_ok()
            && let Some(mut former) = self.former.take()
        {
            let place = former.kind().place();
            match former.remove().await {
                Ok(()) => tracing::info!("removed what another backend had left in {place}"),
                Err(e) => tracing::warn!("failed to remove what another backend had left in {place}: {e}"),
            }
        }
        let settled = self.note(settled);
        self.headers.settle(engine).await;
        settled
    }

    /// Asks the kernel for what it has just taken: how much of it is not there.
    async fn read_back(&mut self, changes: &Changes) -> Result<usize> {
        let back = self.enforcer.read_back(changes, clock::now()).await;
        let back = back.context("failed to read back what was written to nf_tables")?;
        self.read_back += u64::try_from(back.asked).unwrap_or(u64::MAX);
        self.missing += u64::try_from(back.missing.len()).unwrap_or(u64::MAX);
        if let Some((_, net)) = back.missing.first() {
            let n = back.missing.len();
            tracing::warn!(missing = n, "the kernel took {} but does not hold it", shown(*net));
        }
        Ok(back.missing.len())
    }

    /// Takes another shape of the table, and settles.
    pub(super) async fn reshape(
        &mut self,
        layout: Layout,
        engine: &Engine,
        registry: &Registry,
    ) -> Result<Counts> {
        self.enforcer.set_layout(layout);
        self.settle(engine, registry).await
    }

    /// Carries out decisions that `engine` has made. A refusal is remembered and tried again, not returned: the bans
    /// are not lost.
    pub(super) async fn carry_out(&mut self, decisions: &[Decision], engine: &Engine, registry: &Registry) {
        if decisions.is_empty() || self.retry.is_some() {
            return;
        }
        let now = clock::now();
        let name = |id| registry.name(id).map(str::to_owned);
        let layout = self.enforcer.layout();
        let changes = Changes::after(
            decisions,
            layout,
            |set, net| {
                let jails = &layout.scopes.get(set.scope)?.jails;
                want(jails.iter().filter_map(|jail| engine.ban(*jail, net)), &name, now)
            },
            |set| {
                let all = desired(
                    layout,
                    engine.bans().filter(|b| layout.place(b.jail, b.offender) == Some(set)),
                    &name,
                    now,
                );
                all.into_iter().map(|((_, net), want)| (net, want)).collect()
            },
        );
        let failed = || format!("failed to write bans to {}", self.choice.backend.name());
        let applied = self.enforcer.apply(&changes, now).await.with_context(failed);
        if let Err(e) = self.note(applied) {
            tracing::error!("{e:#}; trying again");
            return;
        }
        let back = self.read_back(&changes).await;
        match self.note(back) {
            Ok(0) => {}
            // Somebody was quicker than we, or the kernel is not what it says: the whole table is compared.
            Ok(_) => {
                if let Err(e) = self.settle(engine, registry).await {
                    tracing::error!("{e:#}; trying again");
                }
            }
            Err(e) => tracing::error!("{e:#}; trying again"),
        }
    }

    /// Waits until somebody else has changed something of ours (or may have), or until it is time to look.
    /// Cancel-safe: nothing is kept over an await but in `self`.
    pub(super) async fn changed(&mut self) -> Noticed {
        let looks = self.choice.backend == BackendKind::Legacy || self.headers.is_legacy();
        let look_at = looks.then_some(self.next_look);
        tokio::select! {
            biased;
            who = self.heard() => Noticed::Changed(who),
            () = super::until(look_at) => Noticed::LookDue,
        }
    }

    /// Who changed our tables in nf_tables.
    async fn heard(&mut self) -> String {
        let Some(watcher) = &mut self.watcher else { return std::future::pending().await };
        loop {
            if let Some(until) = self.deaf {
                tokio::time::sleep_until(until).await;
                self.deaf = None;
                return "out of sight for a moment: the notification socket failed".to_owned();
            }
            match watcher.next().await {
                Ok(Event::Committed { comm, pid, .. }) => {
                    if std::mem::take(&mut self.touched) {
                        return format!("changed by {comm} (pid {pid})");
                    }
                }
                Ok(Event::Overrun) => {
                    self.touched = false;
                    return "out of sight for a moment: notifications were lost".to_owned();
                }
                Ok(Event::Added { subject, .. } | Event::Removed { subject, .. }) => {
                    self.touched |=
                        matches!(subject.table(), Some((Family::Inet | Family::Bridge, ruleset::TABLE)));
                }
                Err(e) => {
                    tracing::warn!("failed to hear what others change in nf_tables: {e}");
                    self.deaf = Some(Instant::now() + FIRST_RETRY);
                }
            }
        }
    }

    /// Does what [`changed`](Self::changed) told.
    pub(super) async fn repair(&mut self, noticed: Noticed, engine: &Engine, registry: &Registry) {
        match noticed {
            Noticed::Changed(who) => self.mend(BackendKind::Nft, who, engine, registry).await,
            Noticed::LookDue => self.look(engine, registry).await,
        }
    }

    async fn look(&mut self, engine: &Engine, registry: &Registry) {
        // While the kernel refuses, everything is written anew anyway when it is asked again.
        let look = if self.retry.is_none() { self.enforcer.look(clock::now()).await } else { Ok(Look::Fine) };
        let look = match look {
            Ok(Look::Fine) => Ok(self.headers.look().await),
            look => look,
        };
        match look {
            Ok(Look::Fine) => {}
            Ok(Look::Changed(who)) => self.mend(BackendKind::Legacy, who, engine, registry).await,
            Ok(Look::Due) => {
                if let Err(e) = self.settle(engine, registry).await {
                    tracing::error!("{e:#}; trying again");
                }
            }
            Err(e) => tracing::warn!("failed to look after {}: {e}", self.choice.backend.name()),
        }
        // After it: however long a look takes, there is as much time between two.
        self.next_look = Instant::now() + LOOK;
    }

    /// Repairs what was changed: at once, or, if somebody keeps changing things, a few times a second, so
    /// that neither they nor we can keep the agent from its work.
    async fn mend(&mut self, what: BackendKind, who: String, engine: &Engine, registry: &Registry) {
        let now = Instant::now();
        if let Some(next) = self.last_repair_at.map(|at| at + BETWEEN_REPAIRS).filter(|next| *next > now) {
            self.waiting_repair = Some((next, what, who));
            return;
        }
        self.last_repair_at = Some(now);
        match self.settle(engine, registry).await {
            Ok(counts) => {
                tracing::warn!(
                    added = counts.added,
                    removed = counts.removed,
                    changed = counts.changed,
                    ms = now.elapsed().as_millis(),
                    "{} was {who}; repaired",
                    what.name()
                );
                self.repairs += 1;
                self.whole_since = clock::now();
                self.last_repair = Some(who);
            }
            Err(e) => tracing::error!("{} was {who}: {e:#}; trying again", what.name()),
        }
    }

    /// Does what [`due_at`](Self::due_at) was about.
    pub(super) async fn due(&mut self, engine: &Engine, registry: &Registry) {
        if self.headers.due(engine).await {
            return;
        }
        if let Some((_, what, who)) = self.waiting_repair.take() {
            self.mend(what, who, engine, registry).await;
            return;
        }
        match self.settle(engine, registry).await {
            Ok(_) => tracing::info!("{} is in line again", self.choice.backend.name()),
            Err(e) => tracing::error!("{e:#}; trying again"),
        }
    }

    /// When there is something to do: to ask the kernel again after a refusal, or a repair that had to wait; `None` while all
    /// is well.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let retry = self.retry.map(|(at, _)| at);
        let repair = self.waiting_repair.as_ref().map(|(at, ..)| *at);
        retry.into_iter().chain(repair).chain(self.headers.due_at()).min()
    }

    /// How it stands, in a word or two.
    pub(super) fn state(&self) -> &'static str {
        match self.choice.backend {
            BackendKind::Nobody => "observing",
            _ if self.is_settled() => "enforcing",
            _ => "not enforcing",
        }
    }

    /// Whether the kernel holds what it should, as far as we know.
    pub(super) fn is_settled(&self) -> bool {
        self.retry.is_none()
    }

    /// Since when the kernel has held what it should, as far as we know; `None` while it does not.
    pub(super) fn whole_since(&self) -> Option<Timestamp> {
        (self.is_settled() && self.waiting_repair.is_none()).then_some(self.whole_since)
    }

    /// Packets stopped, ban by ban.
    pub(super) async fn packets(&mut self, now: Timestamp) -> Packets {
        match self.enforcer.held(now).await {
            Ok(held) => Packets::new(self.enforcer.layout().clone(), held),
            Err(e) => {
                tracing::warn!("failed to count stopped packets: {e}");
                Packets::default()
            }
        }
    }

    /// What is not in force though nothing was refused.
    pub(super) fn problem(&self) -> Option<&str> {
        self.enforcer.problem()
    }

    /// Removes everything of ours.
    pub(super) async fn remove(&mut self) -> Result<()> {
        let place = self.choice.backend.place();
        let removed = self.enforcer.remove().await.with_context(|| format!("failed to remove {place}"));
        removed.and(self.headers.remove().await)
    }

    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => {
                if self.retry.is_some() {
                    self.whole_since = clock::now();
                }
                (self.error, self.retry) = (None, None);
            }
            Err(e) => {
                let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LAST_RETRY));
                self.retry = Some((Instant::now() + wait, wait));
                self.error = Some(format!("{e:#}"));
            }
        }
        result
    }
}
