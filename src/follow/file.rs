//! One open file: reading what was added, noticing that it was begun anew.

use std::fs::{File as Handle, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use memchr::{memchr, memrchr};

use super::Handler;
use super::event::{Event, FileInfo};
use super::lines::{Lines, Tally};
use super::position::Position;
use super::recent::Begin;
use crate::types::Timestamp;

/// So many of a file's first bytes are remembered to tell that it was written anew in place.
const HEAD: usize = 64;

/// A followed file.
///
/// Nothing of a line that has no newline yet is kept: the offset stays at its first byte and it is read again. So the
/// offset is always a place from which reading can go on, even in another process, and a file at rest costs no memory.
#[derive(Debug)]
pub(super) struct File {
    pub(super) info: FileInfo,
    /// The paths that lead to it now; none once it was rotated away or deleted.
    pub(super) paths: Vec<PathBuf>,
    pub(super) position: Position,
    pub(super) size: u64,
    /// When it was last seen to grow, or when its path changed.
    pub(super) grew: Timestamp,
    /// Since when no path has led to it.
    pub(super) leaving: bool,
    /// Whether it was renamed and its last line, if it has no newline, is still to be handed over.
    pub(super) moved: bool,
    /// Whether it stands in the queue of files to be read.
    pub(super) queued: bool,
    /// Whether its last reading failed and that was said.
    pub(super) failed: bool,
    pub(super) deleted: bool,
    pub(super) counts: Counts,
    handle: Handle,
    modified: (i64, i64),
    head: Head,
    /// The offset is inside an over-long line.
    in_long_line: bool,
    /// The offset is inside a line that began before the place where the file was begun.
    in_old_line: bool,
    /// The file was truncated: NULs that follow are a hole left by a writer that does not append.
    in_hole: bool,
    backlog_end: u64,
}

/// What a status tells of a file, counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) lines: u64,
    pub(super) skipped_long: u64,
    pub(super) truncations: u64,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: [u8; HEAD],
    length: usize,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_line: usize,
    /// Bytes of one file in one turn.
    pub(super) budget: usize,
}

/// What a reading did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) bytes: usize,
    /// There is more; the budget ended first.
    pub(super) more: bool,
}

impl File {
    pub(super) fn new(
        info: FileInfo,
        handle: Handle,
        position: Position,
        begin: Begin,
        now: Timestamp,
    ) -> Self {
        Self {
            info,
            paths: Vec::new(),
            position,
            size: 0,
            grew: now,
            leaving: false,
            moved: false,
            queued: false,
            failed: false,
            deleted: false,
            counts: Counts::default(),
            handle,
            modified: (0, 0),
            head: Head { bytes: [0; HEAD], length: 0 },
            in_long_line: false,
            in_old_line: begin.inside_line,
            in_hole: false,
            backlog_end: 0,
        }
    }

    /// What is in the file now is backlog.
    pub(super) fn backlog_up_to(&mut self, size: u64) {
        self.backlog_end = size;
    }

    /// Whether `metadata`, just asked for, shows that there may be something to read.
    ///
    /// A time stamp that is nearly now proves nothing: its clock ticks a few hundred times a second, and what is
    /// written within a tick of the last look has the same.
    pub(super) fn may_have_changed(&self, metadata: &Metadata, now: Timestamp) -> bool {
        metadata.len() != self.size
            || (metadata.mtime(), metadata.mtime_nsec()) != self.modified
            || now.as_millis() / 1000 - metadata.mtime() < 2
    }

    /// Hands over the complete lines that were added.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        limits: Limits,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> io::Result<Progress> {
        self.look(now, handler)?;
        let mut progress = Progress::default();
        while progress.bytes < limits.budget {
            let n = read_at(&self.handle, buffer, self.position.offset)?;
            progress.bytes += n;
            progress.more = n == buffer.len();
            self.take(&buffer[..n], limits.max_line, handler);
            if !progress.more {
                break;
            }
        }
        if self.head.length < HEAD && self.head.length as u64 != self.position.offset {
            self.new_head()?;
        }
        Ok(progress)
    }

    /// Hands over the last line although it has no newline, because none will come.
    pub(super) fn finish(
        &mut self,
        buffer: &mut [u8],
        limits: Limits,
        handler: &mut dyn Handler,
    ) -> io::Result<()> {
        let n = read_at(&self.handle, buffer, self.position.offset)?;
        let rest = &buffer[..n];
        if self.in_long_line {
            self.counts.skipped_long += 1;
        } else if !rest.is_empty() && !self.in_old_line {
            self.deliver(rest, self.position.offset, limits.max_line, handler);
        }
        self.in_long_line = false;
        self.in_old_line = false;
        self.position.offset += n as u64;
        Ok(())
    }

    /// Notes whether the file has any name left.
    pub(super) fn look_for_deletion(&mut self) {
        self.deleted = self.handle.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
    }

    /// Whether the end of the file is in the middle of a line that was not handed over.
    pub(super) fn holds_back(&self) -> bool {
        self.in_long_line || self.size > self.position.offset
    }

    /// Looks at size and first bytes, and begins again if the file was.
    fn look(&mut self, now: Timestamp, handler: &mut dyn Handler) -> io::Result<()> {
        let metadata = self.handle.metadata()?;
        let size = metadata.len();
        if size != self.size || now < self.grew {
            self.grew = now;
        }
        self.size = size;
        self.modified = (metadata.mtime(), metadata.mtime_nsec());
        self.deleted = metadata.nlink() == 0;
        let was_at = self.position.offset;
        if size < was_at {
            self.begin_again(0);
        } else if let Some(first) = self.new_head()? {
            // A writer that does not append goes on at its own place: what is before it is a hole.
            self.begin_again(if first == 0 { was_at } else { 0 });
        } else {
            return Ok(());
        }
        self.counts.truncations += 1;
        handler.event(Event::Truncated { file: &self.info, was_at, size });
        Ok(())
    }

    fn begin_again(&mut self, offset: u64) {
        self.position.offset = offset;
        self.head.length = 0;
        self.in_long_line = false;
        self.in_old_line = false;
        self.in_hole = true;
        self.backlog_end = 0;
    }

    /// Compares the first bytes with those known and remembers more of them; the first byte if they are others now.
    fn new_head(&mut self) -> io::Result<Option<u8>> {
        let mut bytes = [0; HEAD];
        let wanted = HEAD.min(usize::try_from(self.position.offset).unwrap_or(HEAD));
        if wanted == 0 {
            return Ok(None);
        }
        let length = read_at(&self.handle, &mut bytes[..wanted], 0)?;
        let known = &self.head.bytes[..self.head.length];
        if !bytes[..length].starts_with(known) {
            return Ok(Some(bytes[0]));
        }
        self.head = Head { bytes, length };
        Ok(None)
    }

    /// Takes what was read at the offset: hands over the whole lines, leaves the rest for the next time.
    fn take(&mut self, read: &[u8], max_line: usize, handler: &mut dyn Handler) {
        let mut rest = read;
        if self.in_hole {
            let hole = rest.iter().take_while(|&&byte| byte == 0).count();
            rest = &rest[hole..];
            self.position.offset += hole as u64;
            self.in_hole = rest.is_empty();
        }
        if self.in_long_line || self.in_old_line {
            let end = memchr(b'\n', rest).map(|i| i + 1);
            self.position.offset += end.unwrap_or(rest.len()) as u64;
            let Some(end) = end else { return };
            self.counts.skipped_long += u64::from(self.in_long_line);
            self.in_long_line = false;
            self.in_old_line = false;
            rest = &rest[end..];
        }
        let whole = memrchr(b'\n', rest).map_or(0, |i| i + 1);
        if whole > 0 {
            let offset = self.position.offset;
            self.position.offset += whole as u64;
            self.deliver(&rest[..whole], offset, max_line, handler);
        }
        let begun = rest.len() - whole;
        if begun > max_line {
            self.in_long_line = true;
            self.position.offset += begun as u64;
        }
    }

    fn deliver(&mut self, block: &[u8], offset: u64, max_line: usize, handler: &mut dyn Handler) {
        let tally = Tally::default();
        let behind = self.size.saturating_sub(offset + block.len() as u64);
        let lines = Lines::new(block, offset, max_line, &tally).backlog(offset >= self.backlog_end, behind);
        handler.block(&self.info, lines);
        self.counts.lines += tally.lines.get();
        self.counts.skipped_long += tally.skipped_long.get();
    }
}

/// One read; a short one means that there was no more.
fn read_at(handle: &Handle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match handle.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
