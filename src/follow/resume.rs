//! Going on where an earlier process was.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Handler;
use super::entry::is_gone;
use super::event::{Attempt, Event, FileId, FileInfo};
use super::follower::Follower;
use super::kin::Generation;
use super::mark::{Inside, Mark};
use super::position::{Identity, Position};
use super::rest::{Search, candidate, homes};
use super::source::From;
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

    /// Finds the marked files: first those at followed paths, then what is left of those that were rotated away.
    pub(super) fn resume_marks(&mut self, now: Timestamp, handler: &mut dyn Handler) {
        if self.past.is_empty() || self.sources.is_empty() {
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
    }

    /// The files that were last found at `path` and are at no followed path now.
    fn resume_left(&mut self, path: &Path, now: Timestamp, handler: &mut dyn Handler) {
        let wanted = !self.asking_for(path).is_empty();
        let mut found = Vec::new();
        let mut all = true;
        for identity in self.past.at(path) {
            let Some(mut pending) = self.past.take(identity) else { continue };
            if !wanted {
                self.drop_mark(&pending.mark, handler);
                continue;
            }
            match self.find_rest(&pending.mark) {
                Search::Found(rest) => found.push((rest, pending.mark)),
                Search::Unknown(place, error)
                    if !is_gone_or_unmounted(&error)
                        || pending.since.is_none_or(|since| now.since(since) < WAIT) =>
                {
                    all = false;
                    if pending.since.is_none() && !is_gone_or_unmounted(&error) {
                        self.tell(Attempt::Open, &place, &error, handler);
                    }
                    // A clock that was set back begins the waiting anew.
                    pending.since = Some(pending.since.filter(|since| *since <= now).unwrap_or(now));
                    self.past.put(pending);
                }
                Search::Unknown(..) => {
                    all = false;
                    self.lose(&pending.mark, None, handler);
                }
                Search::Nothing(within) => {
                    all = false;
                    self.lose(&pending.mark, within.as_deref(), handler);
                }
            }
        }
        if !wanted {
            return;
        }
        found.sort_by_key(|(rest, _)| rest.modified);
        let mut last = None;
        for (rest, mark) in found {
            let (place, modified, identity) = (rest.path.clone(), rest.modified, rest.identity);
            let after = last.as_ref().map(|(_, _, id)| *id);
            let id = self.open_rest(*rest, &mark, after, now, handler);
            if identity != mark.identity() {
                self.drop_mark(&mark, handler);
            }
            last = Some((place, modified, id));
        }
        let current = self.entries.get(path).and_then(|entry| entry.file);
        let last = match last {
            // The log itself was marked, so nothing came between.
            Some((_, _, id)) if current.is_some() || !all => Some(id),
            Some((place, modified, id)) => Some(self.open_unseen(path, (&place, modified), id, now, handler)),
            None => None,
        };
        self.succeed(path, last);
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
        let last = match self.find_copy(mark, None) {
            Search::Found(rest) => {
                let (place, modified) = (rest.path.clone(), rest.modified);
                let id = self.open_rest(*rest, mark, None, now, handler);
                Some(self.open_unseen(&mark.path, (&place, modified), id, now, handler))
            }
            Search::Nothing(within) => {
                let offset = mark.position.offset;
                handler.event(Event::Lost { path: &mark.path, offset, within: within.as_deref() });
                None
            }
            Search::Unknown(..) => None,
        };
        self.succeed(&mark.path, last);
        if let Some(entry) = self.entries.get_mut(path) {
            entry.from = From::Start;
        }
    }

    /// Opens the rotated files that came after the one at `base` and were never seen: they were begun and rotated away
    /// while nobody looked. Only what certainly is one counts: it has the log's name with a number or date that says
    /// that it is newer, and was written later. Says which one is the last to be read.
    fn open_unseen(
        &mut self,
        log: &Path,
        base: (&Path, (i64, i64)),
        id: FileId,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> FileId {
        let mut unseen: Vec<(Generation, PathBuf)> = Vec::new();
        for (directory, name) in homes(log) {
            let Some(known) = base.0.strip_prefix(&directory).ok() else { continue };
            let log = name.as_bytes();
            let Some(known) = Generation::of(log, known.as_os_str().as_bytes()) else { continue };
            let Ok(listing) = self.listings.of(&directory) else { continue };
            for name in listing.kin(&name) {
                if let Some(generation) = Generation::of(log, name.as_bytes())
                    && generation != Generation::Current
                    && generation.is_newer_than(&known) == Some(true)
                {
                    unseen.push((generation, directory.join(name)));
                }
            }
            break;
        }
        unseen.sort_by(|a, b| Generation::by_age(&a.0, &b.0).then_with(|| a.1.cmp(&b.1)));
        // While it is being compressed it is there twice.
        unseen.dedup_by(|b, a| a.0 == b.0);
        let mut last = id;
        for (_, path) in unseen {
            let found = match candidate(path.clone(), self.keep()) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    self.tell(Attempt::Open, &path, &error, handler);
                    continue;
                }
            };
            let known = self.by_identity.contains_key(&found.identity)
                || self.past.of(found.identity, &found.path).is_some();
            if known || found.modified < base.1 {
                continue;
            }
            let Identity { dev, inode } = found.identity;
            let begin = Mark {
                path: log.to_owned(),
                position: Position { dev, inode, offset: 0 },
                head: Box::default(),
                inside: Inside::Nothing,
                tail: Box::default(),
            };
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

/// Whether the error says that the directory is not there, or is not the one that will be.
fn is_gone_or_unmounted(error: &std::io::Error) -> bool {
    is_gone(error) || error.kind() == std::io::ErrorKind::NotFound
}
