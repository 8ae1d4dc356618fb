//! Keeps the kernel in line with the bans: carries decisions out, notices what others change, repairs, tries again.

use std::time::Duration;

use anyhow::{Context, Result};
use hashbrown::HashMap;
use ipnet::IpNet;
use nft::{Event, Family, Watcher};
use tokio::time::Instant;

use super::headers::HeaderGuard;
use super::jails::Registry;
use super::shown;
use crate::clock;
use crate::config::Headers;
use crate::engine::Engine;
use crate::kernel::{Changes, Counts, Enforcer, Layout, SetId, desired, parse_comment, ruleset, want};
use crate::types::{Ban, Decision, Timestamp};

/// After a refusal the kernel is asked again so soon, then at twice the distance each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Two repairs are at least so far apart, lest two agents (or a script) and we drive each other round.
const BETWEEN_REPAIRS: Duration = Duration::from_millis(100);

/// The enforcer, and how it fares.
pub(super) struct Guard {
    enforcer: Enforcer,
    /// Bans in request heads.
    pub(super) headers: HeaderGuard,
    watcher: Watcher,
    /// Something of ours was touched in the transaction that is being announced.
    touched: bool,
    /// The notification socket failed: it is asked again then.
    deaf: Option<Instant>,
    /// When the kernel is asked again after a refusal, and how long that was put off.
    retry: Option<(Instant, Duration)>,
    /// A repair that has to wait, and what for.
    waiting_repair: Option<(Instant, String)>,
    last_repair_at: Option<Instant>,
    /// Changes by others that were repaired.
    pub(super) repairs: u64,
    /// What the last one was.
    pub(super) last_repair: Option<String>,
    /// What the kernel refused last, until it succeeds.
    pub(super) error: Option<String>,
}

impl Guard {
    /// Opens the sockets. Nothing is changed yet.
    pub(super) fn open(layout: Layout, headers: &Headers) -> Result<Self> {
        let headers = HeaderGuard::open(headers, &layout);
        let enforcer = Enforcer::open(layout).context("failed to open nf_tables")?;
        let mut watcher = Watcher::open()
            .context("failed to watch nf_tables (run it as root, or grant CAP_NET_ADMIN; is nf_tables in this kernel?)")?;
        watcher.ignore(enforcer.port_id().context("failed to open nf_tables")?);
        if let Some(port) = headers.port_id() {
            watcher.ignore(port);
        }
        Ok(Self {
            enforcer,
            headers,
            watcher,
            touched: false,
            deaf: None,
            retry: None,
            waiting_repair: None,
            last_repair_at: None,
            repairs: 0,
            last_repair: None,
            error: None,
        })
    }

    /// Takes over the bans that an agent before us left in the kernel: how many. What it cannot take over (its jail is
    /// gone, its address is now allowed, somebody else wrote it) is told, and the next [`settle`](Self::settle) removes it.
    pub(super) async fn take_over(&mut self, engine: &mut Engine, registry: &Registry) -> Result<usize> {
        let held =
            self.enforcer.left_behind(clock::now()).await.context("failed to list the bans in the kernel")?;
        let mut taken = 0;
        for element in held {
            let Some((jail, offenses, since)) = parse_comment(&element.comment) else {
                tracing::warn!(
                    "{} in table inet stockade is not of our making: removing it",
                    shown(element.net)
                );
                continue;
            };
            let Some(id) = registry.find(jail) else {
                tracing::warn!("lifting the ban of {}: there is no jail {jail} any more", shown(element.net));
                continue;
            };
            let evidence = Box::from(&b"found in the kernel"[..]);
            let ban = Ban { jail: id, offender: element.net, since, until: element.end, offenses, evidence };
            if engine.adopt(ban) {
                taken += 1;
            } else {
                tracing::warn!(
                    "lifting the ban of {} in {jail}: ignoreip says it is never banned",
                    shown(element.net)
                );
            }
        }
        Ok(taken)
    }

    /// Makes the kernel hold what `engine` says, whatever it holds now.
    pub(super) async fn settle(&mut self, engine: &Engine, registry: &Registry) -> Result<Counts> {
        let now = clock::now();
        let name = |id| registry.name(id).map(str::to_owned);
        let desired = desired(self.enforcer.layout(), engine.bans(), &name, now);
        let settled =
            self.enforcer.reconcile(&desired, now).await.context("failed to bring nf_tables in line");
        let settled = self.note(settled);
        self.headers.settle(engine).await;
        settled
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
        let applied = self.enforcer.apply(&changes, now).await.context("failed to write bans to nf_tables");
        if let Err(e) = self.note(applied) {
            tracing::error!("{e:#}; trying again");
        }
    }

    /// Waits until somebody else has changed our table (or may have), and says who, to be read after "nf_tables was".
    /// Cancel-safe: nothing is kept over an await but in `self`.
    pub(super) async fn changed(&mut self) -> String {
        loop {
            if let Some(until) = self.deaf {
                tokio::time::sleep_until(until).await;
                self.deaf = None;
                return "out of sight for a moment: the notification socket failed".to_owned();
            }
            match self.watcher.next().await {
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

    /// Repairs what [`changed`](Self::changed) told: at once, or, if somebody keeps changing things, a few times a second, so
    /// that neither they nor we can keep the agent from its work.
    pub(super) async fn repair(&mut self, who: String, engine: &Engine, registry: &Registry) {
        let now = Instant::now();
        if let Some(next) = self.last_repair_at.map(|at| at + BETWEEN_REPAIRS).filter(|next| *next > now) {
            self.waiting_repair = Some((next, who));
            return;
        }
        self.last_repair_at = Some(now);
        match self.settle(engine, registry).await {
            Ok(counts) => {
                tracing::warn!(
                    added = counts.added,
                    removed = counts.removed,
                    changed = counts.changed,
                    "nf_tables was {who}; repaired"
                );
                self.repairs += 1;
                self.last_repair = Some(who);
            }
            Err(e) => tracing::error!("nf_tables was {who}: {e:#}; trying again"),
        }
    }

    /// Does what [`due_at`](Self::due_at) was about.
    pub(super) async fn due(&mut self, engine: &Engine, registry: &Registry) {
        if self.headers.due(engine).await {
            return;
        }
        if let Some((_, who)) = self.waiting_repair.take() {
            self.repair(who, engine, registry).await;
            return;
        }
        match self.settle(engine, registry).await {
            Ok(_) => tracing::info!("nf_tables is in line again"),
            Err(e) => tracing::error!("{e:#}; trying again"),
        }
    }

    /// When there is something to do: to ask the kernel again after a refusal, or a repair that had to wait; `None` while all
    /// is well.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let retry = self.retry.map(|(at, _)| at);
        let repair = self.waiting_repair.as_ref().map(|(at, _)| *at);
        retry.into_iter().chain(repair).chain(self.headers.due_at()).min()
    }

    /// Whether the kernel holds what it should, as far as we know.
    pub(super) fn is_settled(&self) -> bool {
        self.retry.is_none()
    }

    /// Packets stopped, by set and element.
    pub(super) async fn packets(&mut self, now: Timestamp) -> HashMap<(SetId, IpNet), u64> {
        match self.enforcer.held(now).await {
            Ok(held) => {
                held.into_iter().filter_map(|(set, held)| Some(((set, held.net), held.packets?))).collect()
            }
            Err(e) => {
                tracing::warn!("failed to count stopped packets: {e}");
                HashMap::new()
            }
        }
    }

    /// Where a ban's element stands.
    pub(super) fn place(&self, ban: &Ban) -> Option<SetId> {
        self.enforcer.layout().place(ban.jail, ban.offender)
    }

    /// Removes the table.
    pub(super) async fn remove(&mut self) -> Result<()> {
        let removed = self.enforcer.remove().await.context("failed to remove table inet stockade");
        removed.and(self.headers.remove().await)
    }

    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => (self.error, self.retry) = (None, None),
            Err(e) => {
                let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LAST_RETRY));
                self.retry = Some((Instant::now() + wait, wait));
                self.error = Some(format!("{e:#}"));
            }
        }
        result
    }
}
