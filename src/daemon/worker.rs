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

use super::batch::{Batch, FULL};
use super::jails::Ready;
use super::snapshot::{FileState, JailLines, Snapshot};
use crate::clock;
use crate::config;
use crate::filter::{Attribution, Matcher, Trust};
use crate::follow::{
    Event, FileId, FileInfo, Follower, From, Handler, Lines, Options, Source, SourceId, Waker,
};
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
            if !turn.pending || now.since(self.last_snapshot) >= SNAPSHOT {
                self.last_snapshot = now;
                let snapshot = self.reader.snapshot(&follower);
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
    /// Which jail's which pattern each source is; a number is never given to another one.
    sources: Vec<(JailId, String)>,
    /// What each file is matched against.
    files: HashMap<FileId, Watched>,
    lines: HashMap<JailId, JailLines>,
}

/// A file's matcher remembers the lines before: one may be the second half of a line that a client broke in two.
struct Watched {
    matcher: Matcher,
    jails: Vec<JailId>,
    sources: Vec<SourceId>,
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
            files: HashMap::new(),
            lines: HashMap::new(),
        }
    }

    /// Takes over a plan; what is to be followed for it.
    fn plan(&mut self, plan: Plan) -> Vec<Source> {
        self.trust = plan.trust;
        self.jails = plan.jails;
        self.files.clear();
        self.lines.retain(|id, _| self.jails.iter().any(|ready| ready.id == *id));
        let mut sources = Vec::new();
        for ready in &self.jails {
            self.lines.entry(ready.id).or_default();
            for pattern in &ready.jail.logpath {
                let known = self.sources.iter().position(|(id, p)| *id == ready.id && p == pattern);
                let n = known.unwrap_or_else(|| {
                    self.sources.push((ready.id, pattern.clone()));
                    self.sources.len() - 1
                });
                let from = match ready.jail.from {
                    config::From::Recent => From::Recent(ready.jail.findtime),
                    config::From::Start => From::Start,
                    config::From::End => From::End,
                };
                let id = SourceId(u32::try_from(n).unwrap_or(u32::MAX));
                sources.push(Source { id, pattern: pattern.clone(), from });
            }
        }
        sources
    }

    fn watched(&mut self, file: &FileInfo) -> &mut Watched {
        // A file gets other sources when another pattern comes to match it.
        if self.files.get(&file.id).is_none_or(|watched| watched.sources != file.sources) {
            let jails = self.jails_of(&file.sources);
            let members = self.jails.iter().filter(|ready| jails.contains(&ready.id));
            let members = members.map(|r| (r.id, Arc::clone(&r.filter), Arc::clone(&self.trust))).collect();
            let watched = Watched { matcher: Matcher::new(members), jails, sources: file.sources.clone() };
            self.files.insert(file.id, watched);
        }
        self.files.entry(file.id).or_insert_with(|| Watched {
            matcher: Matcher::new(Vec::new()),
            jails: Vec::new(),
            sources: Vec::new(),
        })
    }

    fn jails_of(&self, sources: &[SourceId]) -> Vec<JailId> {
        let wanted = |ready: &&Ready| sources.iter().any(|source| self.jail_of(*source) == Some(ready.id));
        self.jails.iter().filter(wanted).map(|ready| ready.id).collect()
    }

    fn jail_of(&self, source: SourceId) -> Option<JailId> {
        self.sources.get(usize::try_from(source.0).ok()?).map(|(id, _)| *id)
    }

    fn hand_over(&mut self) {
        if self.batch.len() > 0 && self.batches.blocking_send(std::mem::take(&mut self.batch)).is_err() {
            self.closed = true;
        }
    }

    fn snapshot(&self, follower: &Follower) -> Snapshot {
        let status = follower.status();
        let files = status
            .files
            .into_iter()
            .map(|status| FileState { jails: self.jails_of(&status.sources), status });
        let waiting = status
            .sources
            .into_iter()
            .filter_map(|source| Some((self.jail_of(source.id)?, source.waiting_for?)));
        Snapshot { files: files.collect(), waiting: waiting.collect(), lines: self.lines.clone() }
    }
}

impl Handler for Reader {
    fn block(&mut self, file: &FileInfo, lines: Lines<'_>) {
        let now = self.now;
        self.watched(file);
        let Some(watched) = self.files.get_mut(&file.id) else { return };
        let before = watched.matcher.counts();
        for line in lines {
            let mut full = false;
            watched.matcher.line(line, now, |hit| match hit.who {
                Attribution::Offender(offender) | Attribution::Behind { offender, .. } => {
                    self.batch.push(hit.jail, offender, hit.who.peer(), hit.at, hit.line);
                    full = self.batch.len() >= FULL;
                    if let Some(lines) = self.lines.get_mut(&hit.jail) {
                        lines.offenses += 1;
                    }
                }
                Attribution::Unattributable { peer } => {
                    if let Some(lines) = self.lines.get_mut(&hit.jail) {
                        lines.unattributable += 1;
                        lines.last_peer = peer.or(lines.last_peer);
                    }
                }
            });
            if full && self.batches.blocking_send(std::mem::take(&mut self.batch)).is_err() {
                self.closed = true;
                return;
            }
        }
        let counts = watched.matcher.counts();
        for id in &watched.jails {
            let Some(lines) = self.lines.get_mut(id) else { continue };
            lines.lines += counts.lines - before.lines;
            lines.missed += counts.missed - before.missed;
            lines.ignored += counts.ignored - before.ignored;
            lines.rate.add(counts.lines - before.lines, now);
        }
    }

    fn stamp(&mut self, file: &FileInfo, line: &[u8]) -> Option<Timestamp> {
        let now = self.now;
        self.watched(file).matcher.stamp(line, now)
    }

    fn before(&mut self, file: &FileInfo, line: &[u8]) {
        let now = self.now;
        self.watched(file).matcher.line(line, now, |_| {});
    }

    fn event(&mut self, event: Event<'_>) {
        match &event {
            Event::Closed { file } => {
                self.files.remove(&file.id);
                tracing::info!("{event}");
            }
            Event::Failed { .. }
            | Event::NotFollowed { .. }
            | Event::Lost { .. }
            | Event::Polling { .. }
            | Event::NoTimes { .. } => {
                tracing::warn!("{event}");
            }
            _ => tracing::info!("{event}"),
        }
    }
}
