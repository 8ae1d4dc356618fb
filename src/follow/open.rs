//! Opening a file that is at a followed path.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::Handler;
use super::body::Body;
use super::entry::is_gone;
use super::event::{Attempt, Event, FileId, FileInfo};
use super::file::File;
use super::follower::Follower;
use super::kin::logs_of;
use super::mark::Mark;
use super::past::Pending;
use super::position::Identity;
use super::recent;
use crate::types::Timestamp;

impl Follower {
    /// The path has a file that is not open yet.
    pub(super) fn open(
        &mut self,
        path: &Path,
        expected: Identity,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) {
        // Not blocking, because a pipe may have taken the place of the file: opening that would wait for a writer.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let opened = opened.and_then(|handle| Ok((handle.metadata()?, handle)));
        let (metadata, handle) = match opened {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => return,
            Err(error) => return self.complain(path, Attempt::Open, &error, handler),
        };
        if !metadata.is_file() {
            return;
        }
        // Some stacked file systems say another device or inode of an open file than of its path. The path's is what is
        // compared later, so that is the one to be known by.
        let mut identity = Identity::of(&metadata);
        if identity != expected && fs::metadata(path).is_ok_and(|again| Identity::of(&again) == expected) {
            identity = expected;
        }
        if let Some(&id) = self.by_identity.get(&identity) {
            return self.bind(path, id);
        }
        let mut body = Body::Plain(handle);
        let size = metadata.len();
        let mut place = None;
        let mut former = None;
        if let Some(known) = self.past.of(identity, path)
            && let Some(pending) = self.past.take(known)
        {
            match pending.mark.fits(&mut body, size) {
                Ok(true) => place = Some(pending.mark.clone()),
                Ok(false) => self.replaced(path, &pending.mark, now, handler),
                Err(error) => {
                    self.past.put(pending);
                    return self.complain(path, Attempt::Read, &error, handler);
                }
            }
            former = Some(pending.mark);
        }
        let resumed = place.is_some();
        match self.begin(path, identity, body, size, (place, former.is_some()), now, handler) {
            Ok(Some(id)) => {
                self.bind(path, id);
                let Some(mark) = former else { return };
                if mark.identity() != identity {
                    // Under the number that its device has now it was told already.
                    self.drop_mark(&mark, handler);
                }
                if resumed {
                    self.resumed_at(&mark, (path, (metadata.mtime(), metadata.mtime_nsec())), id);
                }
            }
            Ok(None) => {}
            Err(error) => {
                if let Some(mark) = former {
                    self.past.put(Pending { mark, since: None });
                }
                self.complain(path, Attempt::Read, &error, handler);
            }
        }
    }

    /// Finds the place where a file is begun: where it was left, where the file was that it is a copy of, or as the
    /// sources say.
    #[expect(clippy::too_many_arguments, reason = "all that `open` knows of the file")]
    fn begin(
        &mut self,
        path: &Path,
        identity: Identity,
        body: Body,
        size: u64,
        (place, known): (Option<Mark>, bool),
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> io::Result<Option<FileId>> {
        let left = self.entries.get_mut(path).and_then(|entry| entry.left.take());
        let left = left.or_else(|| self.last_left(path));
        if !known && let Some(left) = left {
            let before = self.open_between(path, left, now, handler);
            if let Some(entry) = self.entries.get_mut(path) {
                entry.after = before;
            }
        }
        let original = self.original_of(path);
        if let Some(original) = original {
            self.look_at_original(original, now, handler)?;
            if let Some(&id) = self.by_identity.get(&identity) {
                // As the copy of a file that turned out to be emptied.
                self.bind(path, id);
                return Ok(None);
            }
        }
        let Some(entry) = self.entries.get(path) else { return Ok(None) };
        let (from, old, after) = (entry.from, entry.old, entry.after);
        let info =
            FileInfo { id: FileId(self.next_file), path: path.to_owned(), sources: entry.sources.clone() };
        let resumed = place.is_some();
        let mut mark = place.unwrap_or_else(|| Mark::beginning(path, identity));
        mark.is_at(identity);
        path.clone_into(&mut mark.path);
        let mut file = File::new(info, body, mark, now);
        file.learn_head()?;
        file.size = size;
        if resumed {
            file.resume();
        } else if known {
            file.may_begin_with_a_hole();
        }
        let copy = match original {
            Some(original) => self.begin_as_copy(&mut file, original, handler)?,
            None => false,
        };
        if !resumed && !copy {
            let info = file.info.clone();
            let found = match &file.body {
                Body::Plain(handle) => {
                    recent::begin(handle, size, from, now, &mut |line| handler.stamp(&info, line))?
                }
                Body::Packed(_) => recent::Begin::default(),
            };
            if found.blind {
                handler.event(Event::NoTimes { file: &info, offset: found.offset });
            }
            file.begin_at(found)?;
        }
        let offset = file.mark.position.offset;
        handler.event(Event::Followed { file: &file.info, offset, size });
        if old {
            file.backlog_up_to(size);
        }
        file.after = after;
        file.size = 0;
        self.next_file += 1;
        let id = self.admit(file, handler);
        self.note_last(path, id);
        if let Some(entry) = self.entries.get_mut(path) {
            entry.after = None;
        }
        Ok(Some(id))
    }

    /// A file that is found under a rotated name came after the one that was last at the log's path; what comes there
    /// next, comes after this one.
    fn note_last(&mut self, path: &Path, id: FileId) {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return };
        for log in logs_of(name) {
            if let Some(entry) = self.entries.get_mut(&directory.join(log))
                && entry.file.is_none()
                && entry.left.is_some()
            {
                entry.left = Some(id);
            }
        }
    }

    /// The file that left the path last and is still read.
    fn last_left(&self, path: &Path) -> Option<FileId> {
        let parting = self.parting.iter().filter_map(|id| self.files.get(id));
        parting.filter(|file| file.leaving && file.info.path == path).map(|file| file.info.id).max()
    }
}
