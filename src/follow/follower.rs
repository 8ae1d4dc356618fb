//! The follower's turn: wait, look at what changed, read, let go of what is done.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Handler;
use super::entry::Entry;
use super::event::{Attempt, Event, FileId};
use super::file::{File, Limits};
use super::listing::Listings;
use super::mark::HEAD;
use super::past::Past;
use super::position::Identity;
use super::source::Source;
use super::survey::{Interest, Watched};
use super::watch::{Change, Changes, Waker, Watch};
use crate::types::Timestamp;

/// So much is read at once, in bytes: large enough that the system call does not matter, small enough for the cache.
const BUFFER: usize = 256 * 1024;

/// How to follow. [`Options::default`] is right outside of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// After so long everything is looked at even if inotify said nothing (1 s). Zero: in every turn.
    pub poll: Duration,
    /// Whether to use inotify (yes). Without it changes are seen by polling alone.
    pub inotify: bool,
    /// A file that was deleted, or renamed and replaced by another, is closed when nobody wrote to it for so long (5 s).
    pub linger: Duration,
    /// A file that was renamed while nothing took its place is closed after so long (1 h): its writer may never reopen.
    pub linger_unreplaced: Duration,
    /// The longest line that is handed over, in bytes without its newline (64 KiB; at most half a megabyte).
    pub max_line: usize,
    /// At most so much of one file is read before the others have their turn, in bytes (1 MiB).
    pub file_budget: usize,
    /// At most so much is read in one turn, in bytes (16 MiB), so that the caller is back soon.
    pub turn_budget: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            inotify: true,
            linger: Duration::from_secs(5),
            linger_unreplaced: Duration::from_secs(3600),
            max_line: 64 * 1024,
            file_budget: 1024 * 1024,
            turn_budget: 16 * 1024 * 1024,
        }
    }
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// How much was read, in bytes.
    pub bytes: u64,
    /// More is there to be read: the next turn will not wait.
    pub pending: bool,
    /// A [`Waker`] ended the wait.
    pub woken: bool,
}

/// Follows files. See the [module](super) for what it promises.
#[derive(Debug)]
pub struct Follower {
    pub(super) options: Options,
    pub(super) sources: Vec<Watched>,
    /// Every path that is, or may come to be, a followed file.
    pub(super) entries: HashMap<PathBuf, Entry>,
    /// Paths free of symbolic links, as inotify says them, to the paths above.
    pub(super) aliases: HashMap<PathBuf, Vec<PathBuf>>,
    /// Directories free of symbolic links, and whose names in them matter.
    pub(super) interests: HashMap<PathBuf, Vec<Interest>>,
    /// Directories that cannot be listed, and the error that was told.
    pub(super) unlisted: HashMap<PathBuf, Option<i32>>,
    /// No file can be opened because too many are, and that was told.
    pub(super) exhausted: bool,
    pub(super) files: HashMap<FileId, File>,
    pub(super) by_identity: HashMap<Identity, FileId>,
    pub(super) next_file: u32,
    /// Files that lost a path since files were last settled.
    pub(super) orphans: Vec<FileId>,
    /// Files that were renamed or deleted and are still to be finished.
    pub(super) parting: Vec<FileId>,
    pub(super) watch: Watch,
    pub(super) scans: u64,
    pub(super) last_scan: Option<Timestamp>,
    /// Everything is to be looked at, whatever the time.
    pub(super) scan_due: bool,
    /// The watches do not fit the files any more.
    pub(super) watches_due: bool,
    /// Where an earlier process was, as far as those files were not found yet.
    pub(super) past: Past,
    /// Directories that were listed in this turn.
    pub(super) listings: Listings,
    /// What was added to the name of a log that was rotated last, other than `.1`.
    pub(super) suffix: OsString,
    /// The one compressed file that is being unpacked: one at a time, because each takes memory.
    pub(super) unpacking: Option<FileId>,
    pub(super) queue: VecDeque<FileId>,
    changes: Changes,
    pub(super) buffer: Vec<u8>,
}

impl Follower {
    /// A follower of nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::with_buffer(options, BUFFER)
    }

    /// With a buffer of at least so many bytes.
    pub(super) fn with_buffer(options: Options, buffer: usize) -> Self {
        let max_line = options.max_line.min(512 * 1024);
        Self {
            options: Options { max_line, ..options },
            sources: Vec::new(),
            entries: HashMap::new(),
            aliases: HashMap::new(),
            interests: HashMap::new(),
            unlisted: HashMap::new(),
            exhausted: false,
            files: HashMap::new(),
            by_identity: HashMap::new(),
            next_file: 0,
            orphans: Vec::new(),
            parting: Vec::new(),
            watch: Watch::new(options.inotify),
            scans: 0,
            last_scan: None,
            scan_due: true,
            watches_due: false,
            past: Past::default(),
            listings: Listings::default(),
            suffix: OsString::new(),
            unpacking: None,
            queue: VecDeque::new(),
            changes: Changes::default(),
            // What fills it without a newline must be over-long, beside the bytes before the offset.
            buffer: vec![0; buffer.max(max_line + 2 + HEAD)],
        }
    }

    /// Makes these the sources, from the next turn on. Files that are still wanted stay open where they are; a source
    /// that was there before, with the same number and pattern, is not begun again.
    pub fn set_sources(&mut self, sources: &[Source]) {
        let mut before = std::mem::take(&mut self.sources);
        self.sources = sources
            .iter()
            .map(|source| {
                let known = before
                    .iter()
                    .position(|known| known.source.id == source.id && known.source.pattern == source.pattern);
                match known {
                    Some(i) => Watched { source: source.clone(), ..before.swap_remove(i) },
                    None => Watched::new(source.clone()),
                }
            })
            .collect();
        self.assign_sources();
        self.scan_due = true;
    }

    /// Opens what the sources name, and reads nothing yet: whatever is written from now on is not missed, wherever a file
    /// is begun.
    pub fn prepare(&mut self, now: Timestamp, handler: &mut impl Handler) {
        self.scan(now, handler);
        // The first turn settles what became of files that were renamed meanwhile.
        self.scan_due = true;
    }

    /// Wakes a turn from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.watch.waker()
    }

    /// Waits until something happened, but not longer than `timeout` or until it is time to poll; then looks at what
    /// changed and reads. `now` is the time of day, by which recent lines are found and waiting is measured.
    pub fn turn(&mut self, now: Timestamp, timeout: Duration, handler: &mut impl Handler) -> Turn {
        let handler: &mut dyn Handler = handler;
        let until_poll = match self.last_scan {
            // A clock that was set back must not stop the polling.
            Some(last) if last <= now && !self.scan_due => self.options.poll.saturating_sub(now.since(last)),
            _ => Duration::ZERO,
        };
        let timeout = if self.queue.is_empty() { timeout.min(until_poll) } else { Duration::ZERO };
        let mut changes = std::mem::take(&mut self.changes);
        self.watch.wait(timeout, &mut changes);
        if changes.overflow {
            self.watch.forget_all();
            self.scan_due = true;
        }
        for (path, &change) in &changes.names {
            self.changed(path, change, now, handler);
        }
        let woken = changes.woken;
        self.changes = changes;

        if self.scan_due || until_poll.is_zero() {
            self.scan(now, handler);
            for i in 0..self.parting.len() {
                self.enqueue(self.parting[i]);
            }
        } else if self.watches_due {
            self.set_watches(now, handler);
        }
        self.settle(now, handler);
        let bytes = self.read(now, handler);
        self.part(now, handler);
        self.listings.clear();
        Turn { bytes, pending: !self.queue.is_empty() || self.scan_due, woken }
    }

    /// inotify said that something happened to `path`.
    fn changed(&mut self, path: &Path, change: Change, now: Timestamp, handler: &mut dyn Handler) {
        if change == Change::Name && self.watch.is_watched(path) {
            self.watch.forget(path);
            self.scan_due = true;
        }
        let mut known = false;
        if let Some(paths) = self.aliases.get(path) {
            known = true;
            if change == Change::Data {
                let files: Vec<_> = paths.iter().filter_map(|path| self.entries.get(path)?.file).collect();
                files.into_iter().for_each(|id| self.enqueue(id));
            } else {
                for path in paths.clone() {
                    self.look(&path, now, handler);
                }
            }
        }
        if !known || change == Change::Name {
            known |= self.noticed(path, change, now, handler);
        }
        if !known {
            // A name that nobody asked for may be the new one of a file that was rotated away.
            for i in 0..self.parting.len() {
                self.enqueue(self.parting[i]);
            }
        }
    }

    /// Finishes the files that were renamed or deleted and are quiet by now.
    fn part(&mut self, now: Timestamp, handler: &mut dyn Handler) {
        let mut i = 0;
        while i < self.parting.len() {
            if self.has_parted(self.parting[i], now, handler) {
                self.parting.swap_remove(i);
            } else {
                i += 1;
            }
        }
    }

    /// Whether nothing is left to do for a file that was renamed or deleted.
    fn has_parted(&mut self, id: FileId, now: Timestamp, handler: &mut dyn Handler) -> bool {
        let Some(file) = self.files.get(&id) else { return true };
        if file.queued {
            return false;
        }
        let replaced = || self.entries.get(&file.info.path).is_some_and(|entry| entry.file.is_some());
        let linger = if file.body.is_packed() && file.caught_up {
            Duration::ZERO
        } else if !file.leaving || file.deleted || replaced() {
            self.options.linger
        } else {
            self.options.linger_unreplaced.max(self.options.linger)
        };
        if now.since(file.grew) < linger {
            return false;
        }
        // Once more, because it may have been last looked at a while ago.
        let size = file.size;
        self.read_file(id, now, handler);
        let limits = self.limits();
        let Some(file) = self.files.get_mut(&id) else { return true };
        if file.queued || file.size != size || file.failed && file.body.is_packed() {
            return false;
        }
        if (file.leaving || file.moved)
            && file.twin.is_none()
            && file.holds_back()
            && let Err(error) = file.finish(&mut self.buffer, limits, handler)
        {
            handler.event(Event::Failed { attempt: Attempt::Read, path: &file.info.path, error: &error });
        }
        file.moved = false;
        if file.leaving {
            self.close(id, handler);
        }
        true
    }

    /// Lets go of a file for good.
    pub(super) fn close(&mut self, id: FileId, handler: &mut dyn Handler) {
        if let Some(file) = self.files.remove(&id) {
            let identity = file.mark.identity();
            if self.by_identity.get(&identity) == Some(&id) {
                self.by_identity.remove(&identity);
            }
            if self.unpacking == Some(id) {
                self.unpacking = None;
            }
            handler.event(Event::Closed { file: &file.info });
            handler.mark(&file.info, None);
        }
    }

    /// Makes a file one of those that are open, and tells where it is begun.
    pub(super) fn admit(&mut self, file: File, handler: &mut dyn Handler) -> FileId {
        let id = file.info.id;
        file.tell_mark(handler);
        self.exhausted = false;
        self.by_identity.insert(file.mark.identity(), id);
        self.files.insert(id, file);
        id
    }

    /// A number for a file.
    pub(super) fn new_id(&mut self) -> FileId {
        let id = FileId(self.next_file);
        self.next_file += 1;
        id
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { max_line: self.options.max_line, budget: self.options.file_budget }
    }
}
