//! Reading the files in the queue, each one's share, those first that were written first.

use std::io;
use std::os::unix::fs::MetadataExt;

use super::Handler;
use super::body::Body;
use super::event::{Attempt, Event, FileId};
use super::file::File;
use super::follower::Follower;
use super::mark::HEAD;
use crate::types::Timestamp;

impl Follower {
    /// Puts the file in the queue of those to be read.
    pub(super) fn enqueue(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id)
            && !file.queued
        {
            file.queued = true;
            self.queue.push_back(id);
        }
    }

    /// Reads the files in the queue, each one's share, until this turn's share is used up.
    pub(super) fn read(&mut self, now: Timestamp, handler: &mut dyn Handler) -> u64 {
        let mut bytes = 0;
        for _ in 0..self.queue.len() {
            if bytes >= self.options.turn_budget {
                break;
            }
            let Some(id) = self.queue.pop_front() else { break };
            bytes += self.read_file(id, now, handler);
        }
        bytes as u64
    }

    pub(super) fn read_file(&mut self, id: FileId, now: Timestamp, handler: &mut dyn Handler) -> usize {
        let limits = self.limits();
        let Some(file) = self.files.get_mut(&id) else { return 0 };
        file.queued = false;
        if file.body.is_packed() && self.unpacking.is_some_and(|other| other != id) {
            self.enqueue(id);
            return 0;
        }
        if let Some(first) = file.after
            && self.is_awaited(first)
        {
            self.enqueue(first);
            self.enqueue(id);
            return 0;
        }
        if self.is_twin(id, now, handler) {
            return 0;
        }
        let Some(file) = self.files.get_mut(&id) else { return 0 };
        file.after = None;
        let packed = file.body.is_packed();
        match file.read(&mut self.buffer, limits, now, handler) {
            Ok(progress) => {
                file.failed = false;
                if packed {
                    self.unpacking = progress.more.then_some(id);
                }
                if let Some(anew) = progress.anew {
                    self.begin_again(id, anew, now, handler);
                } else if progress.more {
                    self.enqueue(id);
                }
                progress.bytes
            }
            Err(error) if packed => {
                self.unpacking = None;
                self.failed_to_unpack(id, &error, now, handler);
                0
            }
            Err(error) => {
                self.failed_to_read(id, &error, handler);
                0
            }
        }
    }

    /// Tried again with the next poll, not at once.
    pub(super) fn failed_to_read(&mut self, id: FileId, error: &io::Error, handler: &mut dyn Handler) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if !std::mem::replace(&mut file.failed, true) {
            handler.event(Event::Failed { attempt: Attempt::Read, path: &file.info.path, error });
        }
    }

    /// A compressed file is damaged, or not written to its end yet.
    fn failed_to_unpack(&mut self, id: FileId, error: &io::Error, now: Timestamp, handler: &mut dyn Handler) {
        self.rest(id);
        let Some(file) = self.files.get_mut(&id) else { return };
        let modified = file.body.metadata().map_or((0, 0), |found| (found.mtime(), found.mtime_nsec()));
        if std::mem::replace(&mut file.modified, modified) != modified {
            file.grew = now;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof && now.since(file.grew) < self.options.linger {
            file.failed = true;
            return;
        }
        let (path, offset) = (file.info.path.clone(), file.mark.position.offset);
        handler.event(Event::Failed { attempt: Attempt::Unpack, path: &path, error });
        handler.event(Event::Lost { path: &path, offset, within: None });
        self.close(id, handler);
    }

    /// Whether there is something to be read of this file before those that came after it.
    fn is_awaited(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|file| !file.caught_up && !file.failed)
    }

    /// How much of what was unpacked must be at hand, in bytes: the line before the offset.
    pub(super) fn keep(&self) -> usize {
        self.options.max_line + 2 + HEAD
    }

    /// Lets go of the memory for unpacking that a file has for nothing.
    pub(super) fn rest(&mut self, id: FileId) {
        if let Some(File { body: Body::Packed(unpacker), .. }) = self.files.get_mut(&id) {
            unpacker.rest();
        }
    }
}
