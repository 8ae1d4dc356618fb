//! The follower's thread: reads what is new, matches it, hands offenses over.
//!
//! Reading and matching are work for a CPU, so they have a thread of their own. It hands batches over a bounded channel:
//! when the engine or the kernel is slow it waits, and the lines wait in their files. Nothing is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

use super::batch::Batch;
use super::containers::Containers;
use super::pulse::Pulse;
use super::reader::{Plan, Reader};
use super::snapshot::Snapshot;
use super::sources::Sources;
use crate::clock;
use crate::follow::{Follower, Mark, Options, Waker};
use crate::types::Timestamp;

/// How long a turn waits for news. A poll of the follower's own is the safety net; this only bounds how old the
/// snapshot gets.
const TURN: Duration = Duration::from_secs(1);
/// The snapshot is renewed at most so often while lines keep coming.
const SNAPSHOT: Duration = Duration::from_millis(200);

/// So long a start waits for the logs to be opened.
const OPENING: Duration = Duration::from_secs(5);

/// A thread that was told to end has ended by then; one that is stuck in a read ends with the process.
const END: Duration = Duration::from_millis(300);

/// The thread, from outside.
pub(super) struct Worker {
    plan: Arc<Mutex<Option<Plan>>>,
    snapshot: Arc<Mutex<Snapshot>>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    pulse: Arc<Pulse>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread and waits until it has opened what is to be followed, but not for long: a file system may hang. It
    /// goes on where an earlier process has left `marks` (of files) and `cursors` (of sources that say
    /// themselves where they are). Its batches come out of the receiver, which ends when the thread does.
    pub(super) async fn start(
        plan: Plan,
        options: Options,
        marks: Vec<Mark>,
        cursors: HashMap<String, String>,
    ) -> Result<(Self, mpsc::Receiver<Batch>)> {
        let (batches, receiver) = mpsc::channel(8);
        let mut follower = Follower::new(options);
        follower.resume(marks);
        let waker = follower.waker();
        let plan = Arc::new(Mutex::new(Some(plan)));
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let pulse = Arc::new(Pulse::default());
        let (opened, all_opened) = oneshot::channel();
        let mut inside = Inside {
            plan: Arc::clone(&plan),
            snapshot: Arc::clone(&snapshot),
            stop: Arc::clone(&stop),
            sources: Sources::new(batches.clone(), cursors),
            reader: Reader::new(batches, options.max_line, Arc::clone(&pulse)),
            containers: Containers::default(),
            opened: Some(opened),
            last_snapshot: Timestamp::default(),
        };
        let thread = std::thread::Builder::new()
            .name("follow".to_owned())
            .spawn(move || inside.run(follower))
            .context("failed to start the follower's thread")?;
        // An agent that says it is ready must not miss what is written then, also where files are begun at their end.
        if tokio::time::timeout(OPENING, all_opened).await.is_err() {
            tracing::warn!(
                "the logs are not open yet (a file system that does not answer?): going on meanwhile"
            );
        }
        Ok((Self { plan, snapshot, stop, waker, pulse, thread: Some(thread) }, receiver))
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

    /// How long ago it gave a sign of life.
    pub(super) fn silent(&self) -> Duration {
        self.pulse.silent()
    }

    /// Ends it. The receiver must be dropped or drained, or a full channel would hold the thread for ever.
    pub(super) fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        let Some(thread) = self.thread.take() else { return };
        let end = Instant::now() + END;
        while !thread.is_finished() {
            if Instant::now() > end {
                tracing::warn!(
                    "the follower's thread is stuck (a file system that does not answer?): left behind"
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.join().is_err() {
            tracing::error!("the follower's thread panicked");
        }
    }
}

struct Inside {
    plan: Arc<Mutex<Option<Plan>>>,
    snapshot: Arc<Mutex<Snapshot>>,
    stop: Arc<AtomicBool>,
    reader: Reader,
    /// The threads of sources besides files.
    sources: Sources,
    containers: Containers,
    /// To be told once when the files of the first plan are open.
    opened: Option<oneshot::Sender<()>>,
    last_snapshot: Timestamp,
}

impl Inside {
    fn run(&mut self, mut follower: Follower) {
        while !self.stop.load(Ordering::Relaxed) {
            let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.reader.now = clock::now();
            if let Some(plan) = plan {
                self.sources.plan(plan.clone());
                self.containers.plan(&plan);
                follower.set_sources(&self.reader.plan(plan));
            }
            if let Some(found) = self.containers.look(self.reader.now) {
                follower.set_sources(&self.reader.follow_containers(found.logs));
                self.sources.follow_containers(found.journals);
            }
            self.reader.pulse.beat();
            if let Some(opened) = self.opened.take() {
                follower.prepare(self.reader.now, &mut self.reader);
                // Who waited for it may have given up.
                let _gone = opened.send(());
            }
            let turn = follower.turn(self.reader.now, TURN, &mut self.reader);
            self.reader.hand_over();
            if self.reader.closed {
                break;
            }
            let now = clock::now();
            if !turn.pending || now.since(self.last_snapshot) >= SNAPSHOT {
                self.last_snapshot = now;
                let mut snapshot = self.reader.snapshot(&follower);
                self.containers.tell(&mut snapshot);
                self.sources.tell(&mut snapshot, now);
                *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
            }
        }
    }
}
