//! The follower's thread: reads what is new, matches it, hands offenses over.
//!
//! Reading and matching are work for a CPU, so they have a thread of their own. It hands batches over a bounded channel:
//! when the engine or the kernel is slow it waits, and the lines wait in their files. Nothing is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::batch::Batch;
use super::jails::Ready;
use super::snapshot::{FileState, JailLines, Snapshot};
use crate::clock;
use crate::filter::{Attribution, Matcher, Trust};
use crate::follow::{Event, FileInfo, Follower, Handler, Lines, Options, Source, SourceId, Waker};
use crate::types::{JailId, Timestamp};

/// How long a turn waits for news. A poll of the follower's own is the safety net; this only bounds how old the
/// snapshot gets.
const TURN: Duration = Duration::from_secs(1);
/// The snapshot is renewed at most so often while lines keep coming.
const SNAPSHOT: Duration = Duration::from_millis(200);

/// What to follow, and for whom.
pub(super) struct Plan {
    pub(super) jails: Vec<Ready>,
    pub(super) trust: Arc<Trust>,
}

/// The thread, from outside.
pub(super) struct Worker {
    plan: Arc<Mutex<Option<Plan>>>,
    snapshot: Arc<Mutex<Snapshot>>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. Its batches come out of the receiver, which ends when the thread does.
    pub(super) fn start(plan: Plan, options: Options) -> Result<(Self, mpsc::Receiver<Batch>)> {
        let (batches, receiver) = mpsc::channel(8);
        let follower = Follower::new(options);
        let waker = follower.waker();
        let plan = Arc::new(Mutex::new(Some(plan)));
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut inside = Inside {
            plan: Arc::clone(&plan),
            snapshot: Arc::clone(&snapshot),
            stop: Arc::clone(&stop),
            reader: Reader::new(batches),
            last_snapshot: Timestamp::default(),
        };
        let thread = std::thread::Builder::new()
            .name("follow".to_owned())
            .spawn(move || inside.run(follower))
            .context("failed to start the follower's thread")?;
        Ok((Self { plan, snapshot, stop, waker, thread: Some(thread) }, receiver))
    }

    /// Has it follow something else from now on. Files that stay keep their positions.
    pub(super) fn replan(&self, plan: Plan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        self.waker.wake();
    }

    /// How things stand, a fraction of a second ago.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it. The receiver must be dropped or drained, or a full channel would hold the thread for ever.
    pub(super) fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the follower's thread panicked");
        }
    }
}

struct Inside {
    plan: Arc<Mutex<Option<Plan>>>,
    snapshot: Arc<Mutex<Snapshot>>,
    stop: Arc<AtomicBool>,
    reader: Reader,
    last_snapshot: Timestamp,
}

impl Inside {
    fn run(&mut self, mut follower: Follower) {
        while !self.stop.load(Ordering::Relaxed) {
            let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(plan) = plan {
                follower.set_sources(&self.reader.plan(plan));
            }
            self.reader.now = clock::now();
            let turn = follower.turn(self.reader.now, TURN, &mut self.reader);
            self.reader.hand_over();
            if self.reader.closed {
                return;
            }
            let now = clock::now();
            if !turn.more || now.since(self.last_snapshot) >= SNAPSHOT {
                self.last_snapshot = now;
                let snapshot = self.reader.snapshot(&follower, now);
                *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
            }
        }
    }
}

/// Turns blocks of lines into batches of offenses.
struct Reader {
    batches: mpsc::Sender<Batch>,
    batch: Batch,
    closed: bool,
    now: Timestamp,
    trust: Arc<Trust>,
    jails: Vec<Ready>,
    /// The jail of each source.
    sources: Vec<JailId>,
    /// One matcher for each set of jails that have a file in common.
    matchers: HashMap<Vec<SourceId>, Matcher>,
    lines: HashMap<JailId, JailLines>,
}

impl Reader {
    fn new(batches: mpsc::Sender<Batch>) -> Self {
        Self {
            batches,
            batch: Batch::default(),
            closed: false,
            now: clock::now(),
            trust: Arc::new(Trust::new(Vec::new())),
            jails: Vec::new(),
            sources: Vec::new(),
            matchers: HashMap::new(),
            lines: HashMap::new(),
        }
    }

    fn plan(&mut self, plan: Plan) -> Vec<Source> {
        let mut sources = Vec::new();
        self.sources.clear();
        self.matchers.clear();
        for ready in &plan.jails {
            for pattern in &ready.jail.logpath {
                let id = SourceId(u32::try_from(self.sources.len()).unwrap_or(u32::MAX));
                self.sources.push(ready.id);
                sources.push(Source { id, pattern: pattern.clone(), from: ready.jail.from });
            }
        }
        self.trust = plan.trust;
        self.jails = plan.jails;
        self.lines.retain(|id, _| self.jails.iter().any(|ready| ready.id == *id));
        sources
    }

    fn matcher(&mut self, file: &FileInfo) -> &mut Matcher {
        let (jails, sources, trust) = (&self.jails, &self.sources, &self.trust);
        // Looked up by slice: nothing is allocated for a file seen before.
        if !self.matchers.contains_key(file.sources.as_slice()) {
            let wanted = |ready: &&Ready| {
                file.sources.iter().any(|s| sources.get(s.0 as usize).is_some_and(|id| *id == ready.id))
            };
            let members = jails.iter().filter(wanted).map(|r| (r.id, Arc::clone(&r.filter), Arc::clone(trust)));
            self.matchers.insert(file.sources.clone(), Matcher::new(members.collect()));
        }
        self.matchers.entry(file.sources.clone()).or_insert_with(|| Matcher::new(Vec::new()))
    }

    fn hand_over(&mut self) {
        if !self.batch.is_empty() && self.batches.blocking_send(std::mem::take(&mut self.batch)).is_err() {
            self.closed = true;
        }
    }

    fn snapshot(&mut self, follower: &Follower, now: Timestamp) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let _ = (follower, now, FileState::default());
        snapshot.lines = self.lines.clone();
        snapshot
    }
}

impl Handler for Reader {
    fn block(&mut self, file: &FileInfo, lines: Lines<'_>) {
        let _ = (file, lines, Attribution::offender);
    }

    fn stamp(&mut self, file: &FileInfo, line: &[u8]) -> Option<Timestamp> {
        let now = self.now;
        self.matcher(file).stamp(line, now)
    }

    fn event(&mut self, event: Event<'_>) {
        tracing::info!("{event}");
    }
}
