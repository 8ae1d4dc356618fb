//! Keeps the kernel in line with the bans: carries decisions out, notices what others change, repairs, tries again.

use std::time::Duration;

use anyhow::{Context, Result};
use nft::{Event, Family, Watcher};
use tokio::time::Instant;

use super::jails::Registry;
use crate::clock;
use crate::engine::Engine;
use crate::kernel::{Changes, Counts, Enforcer, Layout, desired, parse_comment, ruleset, want};
use crate::types::{Ban, Decision, Timestamp};

/// After a refusal the kernel is asked again so soon, then at twice the distance each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The enforcer, and how it fares.
pub(super) struct Guard {
    enforcer: Enforcer,
    watcher: Watcher,
    /// Something of ours was touched in the transaction that is being announced.
    touched: bool,
    retry: Option<(Instant, Duration)>,
    /// Changes by others that were repaired.
    pub(super) repairs: u64,
    /// What the last one was.
    pub(super) last_repair: Option<String>,
    /// What the kernel refused last, until it succeeds.
    pub(super) error: Option<String>,
}

impl Guard {
    /// Opens the sockets. Nothing is changed yet.
    pub(super) fn open(layout: Layout) -> Result<Self> {
        let enforcer = Enforcer::open(layout).context("failed to open nf_tables")?;
        let mut watcher = Watcher::open()
            .context("failed to watch nf_tables (run it as root, or grant CAP_NET_ADMIN; is nf_tables in this kernel?)")?;
        watcher.ignore(enforcer.port_id().context("failed to open nf_tables")?);
        Ok(Self {
            enforcer,
            watcher,
            touched: false,
            retry: None,
            repairs: 0,
            last_repair: None,
            error: None,
        })
    }

    /// Takes over the bans that an agent before us left in the kernel: how many. What it cannot take over (its jail is
    /// gone, its address is now allowed, somebody else wrote it) the next [`settle`](Self::settle) removes.
    pub(super) async fn take_over(&mut self, engine: &mut Engine, registry: &Registry) -> Result<usize> {
        let held = self.enforcer.held(clock::now()).await.context("failed to list the bans in the kernel")?;
        let mut taken = 0;
        for (_, element) in held {
            let Some((jail, offenses, since)) = parse_comment(&element.comment) else { continue };
            let Some(jail) = registry.find(jail) else { continue };
            let evidence = Box::from(&b"found in the kernel"[..]);
            let ban = Ban { jail, offender: element.net, since, until: element.end, offenses, evidence };
            taken += usize::from(engine.adopt(ban));
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
        self.note(settled)
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
    /// Cancel-safe.
    pub(super) async fn changed(&mut self) -> String {
        loop {
            match self.watcher.next().await {
                Ok(Event::Committed { comm, pid, .. }) => {
                    if std::mem::take(&mut self.touched) {
                        return format!("changed by {comm} (pid {pid})");
                    }
                }
                Ok(Event::Overrun) => return "out of sight for a moment: notifications were lost".to_owned(),
                Ok(Event::Added { subject, .. } | Event::Removed { subject, .. }) => {
                    self.touched |= subject.table() == Some((Family::Inet, ruleset::TABLE));
                }
                Err(e) => {
                    tracing::warn!("failed to hear what others change in nf_tables: {e}");
                    tokio::time::sleep(FIRST_RETRY).await;
                    return "out of sight for a moment: the notification socket failed".to_owned();
                }
            }
        }
    }

    /// Repairs what [`changed`](Self::changed) told.
    pub(super) async fn repair(&mut self, who: String, engine: &Engine, registry: &Registry) {
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

    /// When the kernel should be asked again; `None` while all is well.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry.map(|(at, _)| at)
    }

    /// Whether the kernel holds what it should, as far as we know.
    pub(super) fn is_settled(&self) -> bool {
        self.retry.is_none()
    }

    /// Packets stopped, by element; empty when the kernel does not tell.
    pub(super) async fn held(&mut self, now: Timestamp) -> Vec<crate::kernel::Held> {
        let held = self.enforcer.held(now).await.unwrap_or_default();
        held.into_iter().map(|(_, element)| element).collect()
    }

    /// Removes the table.
    pub(super) async fn remove(&mut self) -> Result<()> {
        self.enforcer.remove().await.context("failed to remove table inet stockade")
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
