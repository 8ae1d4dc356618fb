//! Going on where an earlier process was.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Handler;
use super::entry::{Entry, is_gone};
use super::event::{Attempt, Event, FileId, FileInfo};
use super::follower::Follower;
use super::kin::{Generation, logs_of};
use super::mark::Mark;
use super::position::Identity;
use super::rest::{Found, Search, candidate, homes};
use super::source::From;
use super::twin::{Likeness, compare};
use crate::types::Timestamp;

/// A directory that is not there (a volume that is mounted later) is waited for so long before its marks are dropped.
const WAIT: Duration = Duration::from_secs(3600);

impl Follower {
    /// Takes over where an earlier process was: the latest mark of each of its files. To be called before the first
    /// turn, whose sources say which of them are still wanted; the others are dropped.
    ///
    /// A mark that is dropped or becomes another file's is told once more under a number of its own, and then as
    /// `None`, so that whoever keeps marks can let go of it.
    pub fn resume(&mut self, marks: Vec<Mark>) {
        for mark in marks {
            self.past.add(mark);
        }
    }

    /// Finds the marked files: first those at followed paths, then what is left of those that were rotated away, and
    /// then what came after them.
    pub(super) fn resume_marks(&mut self, now: Timestamp, handler: &mut dyn Handler) {
        if self.past.is_empty() && self.past.newest.is_empty() || self.sources.is_empty() {
            return;
        }
        for path in self.paths() {
            if self.entries.get(&path).is_some_and(|entry| entry.file.is_none())
                && let Ok(metadata) = fs::metadata(&path)
                && self.past.of(Identity::of(&metadata), &path).is_some()
            {
                self.look(&path, now, handler);
            }
        }
        for path in self.past.paths() {
            self.resume_left(&path, now, handler);
        }
        for (log, newest) in std::mem::take(&mut self.past.newest) {
            let mut last = newest.id;
            // If the log itself was marked nothing came between.
            if let Some(id) = newest.id
                && newest.certain
                && self.entries.get(&log).is_none_or(|entry| entry.file.is_none())
            {
                last = Some(self.open_unseen(&log, (&newest.place, newest.modified), id, now, handler));
            }
            self.succeed(&log, last);
        }
    }

    /// The files that were last found at `path` and are at no followed path now.
    fn resume_left(&mut self, path: &Path, now: Timestamp, handler: &mut dyn Handler) {
        let wanted = !self.asking_for(path).is_empty();
        let mut found = Vec::new();
        for identity in self.past.at(path) {
            let Some(mut pending) = self.past.take(identity) else { continue };
            if !wanted {
                self.drop_mark(&pending.mark, handler);
                continue;
            }
            match self.find_rest(&pending.mark) {
                Search::Found(rest) => {
                    found.push((rest, pending.mark));
                    continue;
                }
                Search::Unknown(place, error)
                    if !is_gone_or_unmounted(&error)
                        || pending.since.is_none_or(|since| now.since(since) < WAIT) =>
                {
                    if pending.since.is_none() && !is_gone_or_unmounted(&error) {
                        self.tell(Attempt::Open, &place, &error, handler);
                    }
                    // A clock that was set back begins the waiting anew.
                    pending.since = Some(pending.since.filter(|since| *since <= now).unwrap_or(now));
                    self.past.put(pending);
                }
                Search::Unknown(..) => self.lose(&pending.mark, None, handler),
                Search::Nothing(within) => self.lose(&pending.mark, within.as_deref(), handler),
            }
            self.past.newest.entry(path.to_owned()).or_default().certain = false;
        }
        found.sort_by_key(|(rest, _)| rest.modified);
        let mut after = None;
        for (rest, mark) in found {
            let (place, modified, identity) = (rest.path.clone(), rest.modified, rest.identity);
            let id = self.open_rest(*rest, &mark, after, now, handler);
            if identity != mark.identity() {
                self.drop_mark(&mark, handler);
            }
            self.resumed_at(&mark, (&place, modified), id);
            after = Some(id);
        }
    }

    /// Has the path remembered as one that was followed, if it is asked for at all: whatever is found there is new.
    fn remembers(&mut self, path: &Path) -> bool {
        if self.entries.contains_key(path) {
            return true;
        }
        let sources = self.asking_for(path);
        if sources.is_empty() {
            return false;
        }
        let mut entry = Entry::new(From::Start, false, self.scans);
        entry.sources = sources;
        self.entries.insert(path.to_owned(), entry);
        true
    }

    /// A marked file was found at `place`, which tells of the logs that it may be a rotated file of, that what is at
    /// their paths now came later.
    pub(super) fn resumed_at(&mut self, mark: &Mark, (place, modified): (&Path, (i64, i64)), id: FileId) {
        let (Some(directory), Some(name)) = (place.parent(), place.file_name()) else { return };
        let mut logs: Vec<_> = logs_of(name).iter().map(|log| directory.join(log)).collect();
        logs.retain(|log| *log != mark.path && self.remembers(log));
        if self.remembers(&mark.path) {
            logs.push(mark.path.clone());
        }
        for log in logs.into_iter().filter(|log| log != place) {
            let newest = self.past.newest.entry(log.clone()).or_default();
            let known = generation(&log, &newest.place);
            let newer = match (newest.id, generation(&log, place), known) {
                (None, generation, _) => {
                    newest.certain &= generation.is_some();
                    true
                }
                (_, Some(this), Some(known)) => this.is_newer_than(&known).unwrap_or_else(|| {
                    newest.certain = false;
                    false
                }),
                _ => {
                    newest.certain = false;
                    false
                }
            };
            if newer {
                newest.id = Some(id);
                newest.modified = modified;
                place.clone_into(&mut newest.place);
            }
        }
    }

    /// What is at `path` now is not what was marked there: it came into being since, and is read whole, after what was
    /// there before.
    fn succeed(&mut self, path: &Path, before: Option<FileId>) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        match entry.file {
            None => {
                entry.from = From::Start;
                entry.after = before;
            }
            Some(id) => {
                if let Some(file) = self.files.get_mut(&id)
                    && file.after.is_none()
                    && before != Some(id)
                {
                    file.after = before;
                }
            }
        }
    }

    /// The file that is opened at `path` is not what the mark says, although device and inode are: it was emptied or
    /// written anew in place, or another file got the inode of a deleted one. What was left to be read of the old
    /// content is looked for.
    pub(super) fn replaced(&mut self, path: &Path, mark: &Mark, now: Timestamp, handler: &mut dyn Handler) {
        let mut last = None;
        match self.find_copy(mark, None) {
            Search::Found(rest) => {
                let (place, modified) = (rest.path.clone(), rest.modified);
                let id = self.open_rest(*rest, mark, None, now, handler);
                if path == mark.path {
                    last = Some(self.open_unseen(path, (&place, modified), id, now, handler));
                } else {
                    // Whether anything came in between is seen when all marks of that log were looked at.
                    self.resumed_at(mark, (&place, modified), id);
                }
            }
            Search::Nothing(within) => {
                let offset = mark.position.offset;
                handler.event(Event::Lost { path: &mark.path, offset, within: within.as_deref() });
                self.past.newest.entry(mark.path.clone()).or_default().certain = false;
            }
            Search::Unknown(..) => {}
        }
        if path == mark.path {
            self.succeed(path, last);
        }
        if let Some(entry) = self.entries.get_mut(path) {
            entry.from = From::Start;
        }
    }

    /// Another file is about to be opened where `left` was. What came in between is opened first, so that at no moment
    /// the last one is known and what was before it is not. Says what is to be read first.
    pub(super) fn open_between(
        &mut self,
        path: &Path,
        left: FileId,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> Option<FileId> {
        let identity = self.files.get(&left)?.mark.identity();
        let (directory, name) = homes(path).pop()?;
        let is_there = |place: &Path| {
            let metadata = fs::metadata(place).ok().filter(|found| Identity::of(found) == identity)?;
            Some((metadata.mtime(), metadata.mtime_nsec()))
        };
        // Where it most likely is, so that the directory need not be listed for each of a thousand logs.
        for suffix in [OsStr::new(".1"), &self.suffix] {
            let mut likely = name.clone();
            likely.push(suffix);
            if !suffix.is_empty() && is_there(&directory.join(likely)).is_some() {
                return Some(left);
            }
        }
        let place =
            self.listings.of(&directory).ok()?.by_inode(identity.inode).map(|name| directory.join(name));
        let (place, modified) = match place.and_then(|place| Some((is_there(&place)?, place))) {
            Some((modified, place)) => (place, modified),
            // It may have been compressed already.
            None => {
                let mark = self.files.get(&left)?.mark.clone();
                match self.find_copy(&mark, None) {
                    Search::Found(found) => (found.path, found.modified),
                    Search::Nothing(_) | Search::Unknown(..) => return Some(left),
                }
            }
        };
        let found = place.file_name().unwrap_or_default().as_bytes();
        if let Some(suffix) = found.strip_prefix(name.as_bytes()) {
            self.suffix = OsStr::from_bytes(suffix).to_owned();
        }
        Some(self.open_unseen(path, (&place, modified), left, now, handler))
    }

    /// Opens the rotated files that came after the one at `base` and were never seen: they were begun and rotated away
    /// while nobody looked. Only what certainly is one counts: it has the log's name with a number or date that says
    /// that it is newer, and was written later. Says which one is the last to be read.
    pub(super) fn open_unseen(
        &mut self,
        log: &Path,
        base: (&Path, (i64, i64)),
        id: FileId,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> FileId {
        let mut unseen: Vec<(Generation, PathBuf)> = Vec::new();
        let home = homes(log).into_iter().find(|home| base.0.parent() == Some(&home.0));
        if let (Some((directory, name)), Some(known)) = (home, generation(log, base.0))
            && known != Generation::Current
            && let Ok(listing) = self.listings.of(&directory)
        {
            for other in listing.kin(&name) {
                if let Some(generation) = Generation::of(name.as_bytes(), other.as_bytes())
                    && generation != Generation::Current
                    && generation.is_newer_than(&known) == Some(true)
                {
                    unseen.push((generation, directory.join(other)));
                }
            }
        }
        unseen.sort_by(|a, b| Generation::by_age(&a.0, &b.0).then_with(|| a.1.cmp(&b.1)));
        // While it is being compressed it is there twice.
        unseen.dedup_by(|b, a| a.0 == b.0);
        let mut last = id;
        for (_, path) in unseen {
            let mut found = match candidate(path.clone(), self.keep()) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    self.tell(Attempt::Open, &path, &error, handler);
                    continue;
                }
            };
            let known = self.by_identity.contains_key(&found.identity)
                || self.past.of(found.identity, &found.path).is_some();
            if known || found.modified < base.1 || is_copy_of_log(&mut found, log) {
                continue;
            }
            let begin = Mark::beginning(log, found.identity);
            last = self.open_rest(found, &begin, Some(last), now, handler);
        }
        last
    }

    /// Tells that what was left of a marked file cannot be read any more, and forgets it.
    fn lose(&mut self, mark: &Mark, within: Option<&Path>, handler: &mut dyn Handler) {
        handler.event(Event::Lost { path: &mark.path, offset: mark.position.offset, within });
        self.drop_mark(mark, handler);
    }

    /// Has whoever keeps the mark forget it.
    pub(super) fn drop_mark(&mut self, mark: &Mark, handler: &mut dyn Handler) {
        let info = FileInfo { id: self.new_id(), path: mark.path.clone(), sources: Vec::new() };
        handler.mark(&info, Some(mark));
        handler.mark(&info, None);
    }
}

/// Which rotation of the log the file at `place` is.
fn generation(log: &Path, place: &Path) -> Option<Generation> {
    let home = homes(log).into_iter().find(|home| place.parent() == Some(&home.0))?;
    Generation::of(home.1.as_bytes(), place.file_name()?.as_bytes())
}

/// Whether the file is empty or holds nothing but the first part of what is in the log now: a copy, to be followed by
/// the log's being emptied. Then it will be found as that.
fn is_copy_of_log(found: &mut Found, log: &Path) -> bool {
    if found.body.is_packed() {
        return false;
    }
    let Ok(Some(mut current)) = candidate(log.to_owned(), 0) else { return found.size == 0 };
    let place = found.size;
    compare((&mut found.body, found.size), (&mut current.body, current.size), place)
        .is_ok_and(|likeness| likeness == Likeness::Copy)
}

/// Whether the error says that the directory is not there, or is not the one that will be.
fn is_gone_or_unmounted(error: &std::io::Error) -> bool {
    is_gone(error) || error.kind() == std::io::ErrorKind::NotFound
}
