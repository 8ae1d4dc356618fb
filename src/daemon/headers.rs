//! Keeps header bans in line with the bans, beside the guard: whatever is wrong with them never holds a source ban up.

use std::time::Duration;

use anyhow::{Context, Result};
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::guard::{FIRST_RETRY, LAST_RETRY};
use super::shown;
use crate::clock;
use crate::config::Headers;
use crate::engine::Engine;
use crate::kernel::Layout;
use crate::kernel::backend::BackendKind;
use crate::kernel::header::{End, HeaderError, Heads, latest_end};
use crate::kernel::legacy::Look;
use crate::types::{Ban, Decision, JailId};

/// Why there are no header bans in an agent that only observes.
#[derive(Debug, thiserror::Error)]
#[error("observing: nothing is enforced")]
struct Observing;

/// The header bans, and how they fare.
pub(super) struct HeaderGuard {
    bans: Result<Heads>,
    /// Those whose bans hold in heads: a ban of some ports is by source alone.
    jails: HashSet<JailId>,
    /// When the kernel is asked again after a refusal, and how long that was put off.
    retry: Option<(Instant, Duration)>,
    /// What the log was told of last.
    told: Vec<String>,
    /// Packets in all, when they were counted, and how long that took.
    counted: Option<(Instant, Duration, u64)>,
}

/// Counting all packets of 100,000 bans takes 20 ms and more, and whoever watches the status asks often: counting is to take
/// at most one part in so many of the time.
const COUNTING: u32 = 20;

impl HeaderGuard {
    /// Opens the socket. Nothing is changed yet.
    pub(super) fn open(config: &Headers, layout: &Layout, backend: BackendKind) -> Self {
        if backend == BackendKind::Nobody {
            return Self {
                bans: Err(Observing.into()),
                jails: HashSet::new(),
                retry: None,
                told: Vec::new(),
                counted: None,
            };
        }
        let bans = Heads::open(config.clone(), layout, backend)
            .context("header bans need nf_tables, which cannot be opened");
        if let Err(e) = &bans {
            tracing::error!("{e:#}");
        }
        Self { bans, jails: jails(layout), retry: None, told: Vec::new(), counted: None }
    }

    /// The address of the socket, if there is one: changes announced with it are our own.
    pub(super) fn port_id(&self) -> Option<u32> {
        self.bans.as_ref().ok().and_then(|bans| bans.port_id().ok().flatten())
    }

    /// Takes another configuration; [`settle`](Self::settle) makes it so.
    pub(super) fn reconfigure(&mut self, config: &Headers, layout: &Layout) {
        if let Ok(bans) = &mut self.bans {
            bans.reconfigure(config, layout);
        }
        self.jails = jails(layout);
        self.told.clear();
    }

    /// Makes the kernel hold what `engine` says, whatever it holds now. A refusal is told and tried again.
    pub(super) async fn settle(&mut self, engine: &Engine) {
        let now = clock::now();
        let mut all: HashMap<IpNet, Vec<&Ban>> = HashMap::new();
        for ban in engine.bans().filter(|ban| self.jails.contains(&ban.jail)) {
            all.entry(ban.offender).or_default().push(ban);
        }
        let all: Vec<(IpNet, End)> = all
            .into_iter()
            .filter_map(|(net, bans)| Some((net, latest_end(bans.into_iter(), now)?)))
            .collect();
        let Ok(bans) = &mut self.bans else { return };
        let settled = bans.settle(&all, now).await;
        self.note(settled);
    }

    /// Carries out decisions that `engine` has made.
    pub(super) async fn carry_out(&mut self, decisions: &[Decision], engine: &Engine) {
        // Until the kernel takes everything, everything is written anew when it is asked again.
        if self.retry.is_some() {
            return;
        }
        let now = clock::now();
        let touched: HashSet<IpNet> = decisions
            .iter()
            .map(Decision::ban)
            .filter(|ban| self.jails.contains(&ban.jail))
            .map(|ban| ban.offender)
            .collect();
        if touched.is_empty() {
            return;
        }
        let end = |net: &IpNet| latest_end(self.jails.iter().filter_map(|jail| engine.ban(*jail, *net)), now);
        let changes: Vec<(IpNet, Option<End>)> = touched.iter().map(|net| (*net, end(net))).collect();
        let Ok(bans) = &mut self.bans else { return };
        let applied = bans.apply(&changes, now).await;
        self.note(applied);
    }

    /// When [`due`](Self::due) has something to do.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.retry.map(|(at, _)| at)
    }

    /// Asks the kernel again after a refusal, if it is time to; whether it was.
    pub(super) async fn due(&mut self, engine: &Engine) -> bool {
        if self.due_at().is_none_or(|at| at > Instant::now()) {
            return false;
        }
        self.settle(engine).await;
        true
    }

    /// Whether iptables-legacy looks into heads, so that nobody tells of changes by others.
    pub(super) fn is_legacy(&self) -> bool {
        self.bans.as_ref().is_ok_and(Heads::is_legacy)
    }

    /// Whether somebody has changed something of what nobody tells about.
    pub(super) async fn look(&mut self) -> Look {
        let Ok(bans) = &mut self.bans else { return Look::Fine };
        // What was refused is written anew anyway when the kernel is asked again.
        if self.retry.is_some() {
            return Look::Fine;
        }
        bans.look().await.unwrap_or_else(|e| {
            tracing::warn!("failed to look after the header bans: {e}");
            Look::Fine
        })
    }

    /// Packets stopped, by ban.
    pub(super) async fn packets(&mut self) -> HashMap<IpNet, u64> {
        let Ok(bans) = &mut self.bans else { return HashMap::new() };
        match bans.packets().await {
            Ok(packets) => packets.into_iter().collect(),
            Err(e) => {
                tracing::warn!("failed to count packets stopped by header: {e}");
                HashMap::new()
            }
        }
    }

    /// Packets stopped in all; where there are many bans, as of a moment ago.
    pub(super) async fn total(&mut self) -> u64 {
        let begin = Instant::now();
        if let Some((at, took, total)) = self.counted
            && begin - at < took * COUNTING
        {
            return total;
        }
        let Ok(bans) = &mut self.bans else { return 0 };
        let total = bans.total().await.unwrap_or_else(|e| {
            tracing::warn!("failed to count packets stopped by header: {e}");
            0
        });
        let end = Instant::now();
        // What is counted at once is counted anew each time.
        self.counted = Some((end, (end - begin).saturating_sub(Duration::from_millis(1)), total));
        total
    }

    /// Gives memory back that ended bans take.
    pub(super) fn sweep(&mut self) {
        let Ok(bans) = &mut self.bans else { return };
        if let Err(e) = bans.sweep(clock::now()) {
            tracing::warn!("failed to take ended bans out of the header matcher: {e}");
        }
    }

    /// The packets of one ban.
    pub(super) fn of_ban(&self, packets: &HashMap<IpNet, u64>, ban: &Ban) -> Option<u64> {
        packets.get(&ban.offender).copied().filter(|_| self.jails.contains(&ban.jail))
    }

    /// Removes all that is about headers.
    pub(super) async fn remove(&mut self) -> Result<()> {
        let Ok(bans) = &mut self.bans else { return Ok(()) };
        bans.remove().await.context("failed to remove the header bans")
    }

    /// What looks into heads; `off` when nothing does.
    pub(super) fn matcher(&self) -> &str {
        match &self.bans {
            Ok(bans) if bans.state().error.is_none() && !bans.state().matcher.is_empty() => {
                bans.state().matcher
            }
            _ => "off",
        }
    }

    /// For `status`.
    pub(super) fn status(&self, packets: u64) -> Value {
        let state = match &self.bans {
            Ok(bans) => bans.state(),
            Err(e) if e.is::<Observing>() => {
                return json!({ "matcher": "off", "reason": e.to_string(), "installed": 0, "packets": 0 });
            }
            Err(e) => return json!({ "matcher": "off", "error": format!("{e:#}") }),
        };
        let reason = |(count, why)| format!("{count} bans hold by source alone: {why}");
        let reasons: Vec<String> = state.left_out.reasons().map(reason).collect();
        json!({
            "matcher": state.matcher,
            "reason": state.why,
            "notes": state.notes,
            "installed": state.installed,
            "left_out": {
                "count": state.left_out.count(),
                "reasons": reasons,
                "examples": state.left_out.examples.iter().copied().map(shown).collect::<Vec<_>>(),
            },
            "packets": packets,
            "error": state.error,
        })
    }

    fn note(&mut self, result: Result<(), HeaderError>) {
        let Ok(bans) = &self.bans else { return };
        match result {
            Ok(()) => self.retry = None,
            Err(e) => {
                let wait = match self.retry {
                    _ if e.is_lasting() => LAST_RETRY,
                    Some((_, wait)) => (wait * 2).min(LAST_RETRY),
                    None => FIRST_RETRY,
                };
                self.retry = Some((Instant::now() + wait, wait));
            }
        }
        let state = bans.state();
        // Each thing once, not with every ban.
        let mut say = Vec::new();
        if let Some(error) = &state.error {
            say.push(format!(
                "header bans are not in force: {error}; bans by source are, and the agent keeps trying"
            ));
        }
        say.extend(state.left_out.reasons().map(|(_, why)| {
            format!("some bans hold by source alone, not in headers: {why} (see stockade status)")
        }));
        for warning in say.iter().filter(|warning| !self.told.contains(warning)) {
            tracing::warn!("{warning}");
        }
        if state.error.is_none() {
            let mut chosen = vec![match state.why.as_str() {
                "" => format!("header bans: matcher {}", state.matcher),
                why => format!("header bans: matcher {} ({why})", state.matcher),
            }];
            chosen.extend(state.notes.iter().cloned());
            for note in chosen.iter().filter(|note| !self.told.contains(note)) {
                tracing::info!("{note}");
            }
            say.extend(chosen);
        }
        self.told = say;
    }
}

fn jails(layout: &Layout) -> HashSet<JailId> {
    layout.scopes.first().into_iter().flat_map(|scope| scope.jails.iter().copied()).collect()
}
