//! inotify: which directories are watched, what they say, and waiting for it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::Handler;
use super::event::{Event, NoWatch};
use super::position::Identity;
use crate::types::Timestamp;

/// More changed names than this are not kept apart: everything is looked at instead. So a reader that is held up for
/// an hour costs a few megabytes at most.
const MAX_NAMES: usize = 16_384;

/// After so long inotify is asked for again when there was none.
const RETRY: Duration = Duration::from_secs(60);

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Its content changed.
    Data,
    /// It was created, renamed, removed, or its owner or mode changed.
    Name,
}

/// What happened since the last time.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) names: HashMap<PathBuf, Change>,
    /// Something was missed: everything is to be looked at, and no watch can be relied on.
    pub(super) overflow: bool,
    pub(super) woken: bool,
}

/// Wakes a waiting [`Follower::turn`](super::Follower::turn) from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Inbox>);

impl Waker {
    /// The turn under way, or else the next one, does not wait.
    pub fn wake(&self) {
        self.0.add(|changes| changes.woken = true);
    }
}

#[derive(Debug, Default)]
struct Inbox {
    changes: Mutex<Changes>,
    arrived: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Changes> {
        // Nothing under the lock can be left half done.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, add: impl FnOnce(&mut Changes)) {
        add(&mut self.lock());
        self.arrived.notify_one();
    }

    /// Called on notify's own thread.
    fn hear(&self, heard: notify::Result<notify::Event>) {
        let event = match heard {
            Ok(event) if !event.need_rescan() => event,
            _ => return self.add(|changes| changes.overflow = true),
        };
        let change = match event.kind {
            // Opening and closing: our own reading would wake us for ever.
            EventKind::Access(_) => return,
            // Said once more after both halves were.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            EventKind::Modify(ModifyKind::Data(_)) => Change::Data,
            _ => Change::Name,
        };
        self.add(|changes| {
            for path in event.paths {
                if changes.names.len() >= MAX_NAMES {
                    changes.overflow = true;
                    return;
                }
                let known = changes.names.entry(path).or_insert(change);
                *known = change.max(*known);
            }
        });
    }
}

/// The watched directories.
#[derive(Debug)]
pub(super) struct Watch {
    inbox: Arc<Inbox>,
    wanted: bool,
    watcher: Option<RecommendedWatcher>,
    tried: Option<Timestamp>,
    told: bool,
    watched: HashMap<PathBuf, Identity>,
    refused: HashMap<PathBuf, Identity>,
}

impl Watch {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            inbox: Arc::default(),
            wanted,
            watcher: None,
            tried: None,
            told: false,
            watched: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.inbox))
    }

    /// Waits until something happens; `into` is emptied and takes it.
    pub(super) fn wait(&self, timeout: Duration, into: &mut Changes) {
        into.names.clear();
        into.overflow = false;
        into.woken = false;
        let deadline = Instant::now().checked_add(timeout);
        let mut changes = self.inbox.lock();
        while changes.names.is_empty() && !changes.overflow && !changes.woken {
            let left =
                deadline.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            changes =
                self.inbox.arrived.wait_timeout(changes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut *changes, into);
    }

    pub(super) fn is_watched(&self, directory: &Path) -> bool {
        self.watched.contains_key(directory)
    }

    pub(super) fn watched(&self) -> usize {
        self.watched.len()
    }

    /// The directory was removed or renamed: whatever is there now needs a new watch.
    pub(super) fn forget(&mut self, directory: &Path) {
        self.watched.remove(directory);
        if let Some(watcher) = &mut self.watcher {
            // It fails if the watch went with the directory, which is as good.
            let _ = watcher.unwatch(directory);
        }
    }

    /// No watch can be relied on.
    pub(super) fn forget_all(&mut self) {
        for directory in self.watched.keys().cloned().collect::<Vec<_>>() {
            self.forget(&directory);
        }
    }

    /// Makes the watched directories those given; says whether one came, in which case what happened before must be
    /// looked for again.
    pub(super) fn set(
        &mut self,
        wanted: &HashMap<PathBuf, Identity>,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> bool {
        if !self.open(now, handler) {
            return false;
        }
        let gone = self.watched.iter().filter(|&(path, identity)| wanted.get(path) != Some(identity));
        for directory in gone.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.forget(&directory);
        }
        self.refused.retain(|path, identity| wanted.get(path) == Some(identity));
        let mut came = false;
        for (directory, &identity) in wanted {
            if self.watched.contains_key(directory) {
                continue;
            }
            let Some(watcher) = &mut self.watcher else { break };
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.refused.remove(directory);
                    self.watched.insert(directory.clone(), identity);
                    came = true;
                }
                // Gone again: the next look will tell.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => {
                    if self.refused.insert(directory.clone(), identity).is_none() {
                        let text = error.to_string();
                        let why = match error.kind {
                            ErrorKind::MaxFilesWatch => NoWatch::Watches,
                            _ => NoWatch::Other(&text),
                        };
                        handler.event(Event::Polling { path: Some(directory), why });
                    }
                }
            }
        }
        came
    }

    /// Opens inotify if that is to be tried; whether it is open.
    fn open(&mut self, now: Timestamp, handler: &mut dyn Handler) -> bool {
        if self.watcher.is_some() || !self.wanted {
            return self.watcher.is_some();
        }
        if self.tried.is_some_and(|at| at <= now && now.since(at) < RETRY) {
            return false;
        }
        self.tried = Some(now);
        let inbox = Arc::clone(&self.inbox);
        match RecommendedWatcher::new(move |heard| inbox.hear(heard), notify::Config::default()) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.told = false;
            }
            Err(error) if !self.told => {
                self.told = true;
                let text = error.to_string();
                let why = match error.kind {
                    ErrorKind::Io(ref error)
                        if error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32) =>
                    {
                        NoWatch::Instances
                    }
                    _ => NoWatch::Other(&text),
                };
                handler.event(Event::Polling { path: None, why });
            }
            Err(_) => {}
        }
        self.watcher.is_some()
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, CreateKind, DataChange, Flag};

    use super::*;

    const DATA: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CREATE: EventKind = EventKind::Create(CreateKind::File);

    fn hear(watch: &Watch, kind: EventKind, path: &str) {
        watch.inbox.hear(Ok(notify::Event::new(kind).add_path(path.into())));
    }

    fn wait(watch: &Watch) -> Changes {
        let mut changes = Changes::default();
        watch.wait(Duration::ZERO, &mut changes);
        changes
    }

    #[test]
    fn a_name_is_kept_once_with_the_most_that_happened() {
        let watch = Watch::new(false);
        for (kind, path) in [(DATA, "/a"), (CREATE, "/a"), (DATA, "/a"), (DATA, "/b"), (DATA, "/b")] {
            hear(&watch, kind, path);
        }
        let changes = wait(&watch);
        let expected = [("/a".into(), Change::Name), ("/b".into(), Change::Data)];
        assert_eq!(changes.names, HashMap::from(expected));
        assert!(wait(&watch).names.is_empty());
    }

    #[test]
    fn our_own_reading_is_not_heard() {
        let watch = Watch::new(false);
        hear(&watch, EventKind::Access(AccessKind::Any), "/a");
        hear(&watch, EventKind::Modify(ModifyKind::Name(RenameMode::Both)), "/a");
        assert!(wait(&watch).names.is_empty());
    }

    #[test]
    fn what_is_missed_or_too_much_is_an_overflow() {
        let watch = Watch::new(false);
        watch.inbox.hear(Ok(notify::Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(wait(&watch).overflow);
        watch.inbox.hear(Err(notify::Error::generic("")));
        assert!(wait(&watch).overflow);
        for i in 0..=MAX_NAMES {
            hear(&watch, DATA, &format!("/{i}"));
        }
        let changes = wait(&watch);
        assert!(changes.overflow && changes.names.len() == MAX_NAMES);
        assert!(!wait(&watch).overflow);
    }

    #[test]
    fn watches_are_made_anew_after_an_overflow() {
        struct Nobody;
        impl Handler for Nobody {
            fn block(&mut self, _: &crate::follow::FileInfo, _: crate::follow::Lines<'_>) {}
            fn stamp(&mut self, _: &crate::follow::FileInfo, _: &[u8]) -> Option<Timestamp> {
                None
            }
            fn event(&mut self, _: Event<'_>) {}
        }
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::of(&directory.path().metadata().unwrap());
        let path = directory.path().canonicalize().unwrap();
        let wanted = HashMap::from([(path.clone(), identity)]);
        let mut watch = Watch::new(true);
        assert!(watch.set(&wanted, Timestamp::default(), &mut Nobody));
        assert!(!watch.set(&wanted, Timestamp::default(), &mut Nobody));
        watch.forget_all();
        assert!(!watch.is_watched(&path));
        assert!(watch.set(&wanted, Timestamp::default(), &mut Nobody));
        std::fs::write(path.join("a"), "").unwrap();
        let mut changes = Changes::default();
        watch.wait(Duration::from_secs(30), &mut changes);
        assert_eq!(changes.names.keys().next(), Some(&path.join("a")));
    }
}
