//! Keeps the ledger in step: gathers how far the sources were read, takes checkpoints, tries again.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::batch::Progress;
use super::jails::Registry;
use super::shown;
use crate::clock;
use crate::engine::Engine;
use crate::follow::{FileId, Mark};
use crate::ledger::{Checkpoint, Ledger, Loaded, Outcome, Size};
use crate::sinks::Sinks;

/// Checkpoints are at least so far apart. After a crash so much is read and decided once more, at most.
const PACE: Duration = Duration::from_millis(100);
/// After a failure the ledger is asked again so soon, then at twice the distance each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Who gives an order waits at most so long for its being written down: a disk may hang.
const PATIENCE: Duration = Duration::from_millis(500);

/// The ledger, and what is still to be written to it.
pub(super) struct Keeper {
    /// None: nothing is remembered, and nothing was.
    ledger: Option<Ledger>,
    /// All files and how far they were read with everything the engine has heard, by device and inode.
    files: HashMap<(u64, u64), Mark>,
    ids: HashMap<FileId, (u64, u64)>,
    cursors: HashMap<String, String>,
    changed_files: HashSet<(u64, u64)>,
    changed_cursors: HashSet<String>,
    /// The ledger knows nothing that holds: everything is to be written.
    all: bool,
    path: PathBuf,
    written_at: Instant,
    retry: Option<(Instant, Duration)>,
    /// Why the ledger could not be used last, until it can.
    pub(super) problem: Option<String>,
    /// The file, as of the last checkpoint.
    pub(super) size: Size,
    /// Checkpoints that were written.
    pub(super) checkpoints: u64,
}

/// Where the sources were left.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) files: Vec<Mark>,
    pub(super) cursors: HashMap<String, String>,
}

impl Keeper {
    /// Remembers nothing: for an agent that only observes. What it decides must not be enforced by the next one, and how
    /// far it read is nothing to one that enforces, which may run beside it.
    pub(super) fn forgetful(state: &Path) -> (Self, Loaded) {
        (Self::with(None, state, None), Loaded::default())
    }

    /// Opens the ledger in `state`. Besides: what an earlier agent left.
    pub(super) fn open(state: &Path, registry: &Registry) -> std::io::Result<(Self, Loaded)> {
        let (ledger, loaded, problem) = Ledger::start(state, registry.names(), &|name| registry.find(name))?;
        if let Some(problem) = &problem {
            tracing::error!("{problem}");
        }
        let mut keeper = Self::with(Some(ledger), state, problem);
        keeper.cursors.clone_from(&loaded.cursors);
        for mark in &loaded.files {
            keeper.files.insert((mark.position.dev, mark.position.inode), mark.clone());
        }
        Ok((keeper, loaded))
    }

    fn with(ledger: Option<Ledger>, state: &Path, problem: Option<String>) -> Self {
        Self {
            ledger,
            files: HashMap::new(),
            ids: HashMap::new(),
            cursors: HashMap::new(),
            changed_files: HashSet::new(),
            changed_cursors: HashSet::new(),
            all: problem.is_some(),
            path: state.to_owned(),
            written_at: Instant::now(),
            retry: None,
            problem,
            size: Size::default(),
            checkpoints: 0,
        }
    }

    /// Has the engine continue where another agent was; where the sources are to be read on.
    pub(super) fn restore(&mut self, engine: &mut Engine, loaded: Loaded, registry: &Registry) -> Places {
        if self.ledger.is_none() {
            return Places::default();
        }
        engine.set_seed(loaded.seed);
        engine.remember_changes();
        engine.restore_history(loaded.history);
        let refused = engine.restore(loaded.bans, loaded.windows, clock::now());
        for ban in &refused {
            let jail = registry.name(ban.jail).unwrap_or("?");
            let why = engine.protected().told(ban.offender);
            let why = why.unwrap_or_else(|| "ignoreip says it is never banned".to_owned());
            tracing::warn!("lifting the ban of {} in {jail}: {why}", shown(ban.offender));
        }
        // Also where some of what was written found no room.
        if refused.is_empty() && engine.crowded_out_in_all() == 0 {
            engine.is_known();
        }
        Places { files: loaded.files, cursors: loaded.cursors }
    }

    /// Notes how far the sources were read with the offenses the engine has just been given.
    pub(super) fn absorb(&mut self, progress: &mut Vec<Progress>) {
        for progress in progress.drain(..) {
            match progress {
                Progress::File { id, mark: Some(mark) } => {
                    let key = (mark.position.dev, mark.position.inode);
                    // The file it stood for may have another number by now.
                    if let Some(before) = self.ids.insert(id, key).filter(|before| *before != key) {
                        self.files.remove(&before);
                        self.changed_files.insert(before);
                    }
                    self.files.insert(key, mark);
                    self.changed_files.insert(key);
                }
                Progress::File { id, mark: None } => {
                    if let Some(key) = self.ids.remove(&id) {
                        self.files.remove(&key);
                        self.changed_files.insert(key);
                    }
                }
                Progress::Cursor { source, cursor } => {
                    self.cursors.insert(source.clone(), cursor);
                    self.changed_cursors.insert(source);
                }
            }
        }
    }

    /// When the next checkpoint is to be taken; `None` while there is nothing to write, or the last one is being written.
    pub(super) fn due_at(&self, engine: &Engine, sinks: &Sinks) -> Option<Instant> {
        let clean = !self.all
            && self.changed_files.is_empty()
            && self.changed_cursors.is_empty()
            && engine.is_unchanged()
            && sinks.is_clean();
        if clean || self.ledger.as_ref().is_none_or(Ledger::is_busy) {
            return None;
        }
        Some(self.retry.map_or(self.written_at + PACE, |(at, _)| at))
    }

    /// Takes a checkpoint: everything that the engine decided, how far the sources were read for it, and what is to be told
    /// of it.
    pub(super) fn write(&mut self, engine: &mut Engine, registry: &Registry, sinks: &mut Sinks) {
        if self.ledger.as_ref().is_none_or(Ledger::is_busy) {
            return;
        }
        if self.all {
            engine.remember_changes();
            self.changed_files = self.files.keys().copied().collect();
            self.changed_cursors = self.cursors.keys().cloned().collect();
        }
        let files = self.changed_files.drain().map(|key| (key, self.files.get(&key).cloned()));
        let cursors = self.changed_cursors.drain().map(|source| {
            let cursor = self.cursors.get(&source).cloned();
            (source, cursor)
        });
        let outbox = sinks.to_write(self.all);
        let checkpoint = Checkpoint {
            at: clock::now(),
            jails: registry.names().to_vec(),
            changes: engine.changes(),
            all_sources: std::mem::take(&mut self.all),
            files: files.collect(),
            cursors: cursors.collect(),
            outbox,
        };
        if let Some(ledger) = &mut self.ledger {
            ledger.write(checkpoint);
        }
        self.written_at = Instant::now();
    }

    /// Waits until the checkpoint that is being written is; for ever if there is none. Cancel-safe.
    pub(super) async fn outcome(&mut self) -> Outcome {
        match &mut self.ledger {
            Some(ledger) => ledger.outcome().await,
            None => std::future::pending().await,
        }
    }

    /// Does what the outcome asks for. What is to be told may be told now: it is written, or cannot be.
    pub(super) fn note(&mut self, outcome: Outcome, sinks: &mut Sinks) {
        sinks.release();
        match outcome {
            Outcome::Written(size) => {
                if self.problem.take().is_some() {
                    tracing::info!("the ledger can be written again; nothing was lost");
                }
                self.retry = None;
                self.size = size;
                self.checkpoints += 1;
            }
            Outcome::Failed(problem) => {
                if self.problem.as_ref() != Some(&problem) {
                    tracing::error!(
                        "{problem}; bans are in force all the same, but a crash would lose what is not written"
                    );
                }
                let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (wait * 2).min(LAST_RETRY));
                self.retry = Some((Instant::now() + wait, wait));
                self.problem = Some(problem);
                // What that checkpoint held is gone.
                self.all = true;
            }
        }
    }

    /// Has everything written that the engine knows, and waits for it, but not for long. Whether it is written.
    pub(super) async fn flush(
        &mut self,
        engine: &mut Engine,
        registry: &Registry,
        sinks: &mut Sinks,
    ) -> bool {
        let end = Instant::now() + PATIENCE;
        let before = self.checkpoints;
        if self.ledger.as_ref().is_some_and(Ledger::is_busy) && !self.wait(end, sinks).await {
            return false;
        }
        if self.due_at(engine, sinks).is_none() {
            return true;
        }
        self.write(engine, registry, sinks);
        self.wait(end, sinks).await && self.checkpoints > before
    }

    async fn wait(&mut self, end: Instant, sinks: &mut Sinks) -> bool {
        match tokio::time::timeout_at(end, self.outcome()).await {
            Ok(outcome) => {
                self.note(outcome, sinks);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether nothing is ever written.
    pub(super) fn is_forgetful(&self) -> bool {
        self.ledger.is_none()
    }

    /// What `status` tells.
    pub(super) fn value(&self) -> Value {
        json!({
            "path": self.path,
            "state": match (&self.ledger, &self.problem) {
                (None, _) => "off while observing",
                (Some(_), None) => "remembering",
                (Some(_), Some(_)) => "not remembering",
            },
            "problem": self.problem,
            "bytes": self.size.bytes,
            "checkpoints": self.checkpoints,
            "milliseconds": self.size.took.as_millis(),
            "files": self.files.len(),
        })
    }

    /// Ends the ledger's thread, in order if the disk lets it: who stops an agent does not wait for that.
    pub(super) async fn close(self) {
        let Some(ledger) = self.ledger else { return };
        let closing = ledger.close();
        let end = Instant::now() + PATIENCE;
        while !closing.is_finished() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
