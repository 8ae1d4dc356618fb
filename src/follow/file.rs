//! One open file: reading what was added, noticing that it was begun anew.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use memchr::{memchr, memrchr};

use super::Handler;
use super::begin::{Anew, Head};
use super::body::Body;
use super::event::{FileId, FileInfo};
use super::lines::{Lines, Tally};
use super::mark::{HEAD, Inside, Mark, replace};
use crate::types::Timestamp;

/// A followed file.
///
/// Nothing of a line that has no newline yet is kept: the offset stays at its first byte and it is read again. So the
/// offset is always a place from which reading can go on, even in another process, and a file at rest costs no memory.
#[derive(Debug)]
pub(super) struct File {
    pub(super) info: FileInfo,
    /// The paths that lead to it now; none once it was rotated away or deleted.
    pub(super) paths: Vec<PathBuf>,
    /// Which file it is and how far it was handed over, as it was last told.
    pub(super) mark: Mark,
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
    /// Whether all that it holds was read, the last time.
    pub(super) caught_up: bool,
    /// What was written before it and is read first.
    pub(super) after: Option<FileId>,
    /// It began as a copy of this file, which is read; so it is passed over as far as that one was read.
    pub(super) twin: Option<FileId>,
    pub(super) counts: Counts,
    pub(super) body: Body,
    pub(super) modified: (i64, i64),
    /// It is begun where an earlier process ended, so its line before is to be told first.
    pub(super) resumed: bool,
    /// The file was truncated: NULs that follow are a hole left by a writer that does not append.
    pub(super) in_hole: bool,
    pub(super) backlog_end: u64,
}

/// What a status tells of a file, counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) lines: u64,
    pub(super) skipped_long: u64,
    pub(super) truncations: u64,
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
    /// It is not what was read before: it is to be begun again.
    pub(super) anew: Option<Anew>,
}

impl File {
    pub(super) fn new(info: FileInfo, body: Body, mark: Mark, now: Timestamp) -> Self {
        Self {
            info,
            paths: Vec::new(),
            mark,
            size: 0,
            grew: now,
            leaving: false,
            moved: false,
            queued: false,
            failed: false,
            deleted: false,
            caught_up: false,
            after: None,
            twin: None,
            counts: Counts::default(),
            body,
            modified: (0, 0),
            resumed: false,
            in_hole: false,
            backlog_end: 0,
        }
    }

    /// What is in the file now is backlog.
    pub(super) fn backlog_up_to(&mut self, size: u64) {
        self.backlog_end = size;
    }

    /// Tells how far it was handed over.
    pub(super) fn tell_mark(&self, handler: &mut dyn Handler) {
        handler.mark(&self.info, Some(&self.mark));
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
        let mut progress = Progress { anew: self.look(now, handler)?, ..Progress::default() };
        if progress.anew.is_some() {
            return Ok(progress);
        }
        if let Body::Packed(unpacker) = &mut self.body {
            let (done, reached) = unpacker.advance(self.mark.position.offset, limits.budget)?;
            progress.bytes += done;
            if !reached {
                progress.more = true;
                return Ok(progress);
            }
        }
        if std::mem::take(&mut self.resumed) {
            self.tell_line_before(buffer, limits.max_line, handler)?;
        }
        while progress.bytes < limits.budget {
            // The bytes before the offset once more: they show whether it is still the same file.
            let back = self.mark.tail.len();
            let from = self.mark.position.offset - back as u64;
            let n = self.body.read_at(buffer, from)?;
            if !buffer[..n].starts_with(&self.mark.tail) {
                progress.anew = Some(Anew { hole: false, modified: self.modified });
                return Ok(progress);
            }
            progress.bytes += n - back;
            progress.more = n == buffer.len();
            self.take(&buffer[..n], back, limits.max_line, handler);
            if !progress.more {
                break;
            }
        }
        if self.body.is_packed() {
            self.size = self.mark.position.offset;
        }
        self.caught_up = !progress.more;
        Ok(progress)
    }

    /// Hands over the last line although it has no newline, because none will come.
    pub(super) fn finish(
        &mut self,
        buffer: &mut [u8],
        limits: Limits,
        handler: &mut dyn Handler,
    ) -> io::Result<()> {
        let n = self.body.read_at(buffer, self.mark.position.offset)?;
        let rest = &buffer[..n];
        if self.mark.inside == Inside::LongLine {
            self.counts.skipped_long += 1;
        } else if !rest.is_empty() && self.mark.inside == Inside::Nothing {
            self.deliver(rest, self.mark.position.offset, limits.max_line, handler);
        }
        if n > 0 || self.mark.inside != Inside::Nothing {
            self.mark.inside = Inside::Nothing;
            self.mark.position.offset += n as u64;
            replace(&mut self.mark.tail, &rest[n.saturating_sub(HEAD)..]);
            self.tell_mark(handler);
        }
        Ok(())
    }

    /// Notes whether the file has any name left.
    pub(super) fn look_for_deletion(&mut self) {
        self.deleted = self.body.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
    }

    /// Whether the end of the file is in the middle of a line that was not handed over.
    pub(super) fn holds_back(&self) -> bool {
        self.body.is_packed() || self.mark.inside == Inside::LongLine || self.size > self.mark.position.offset
    }

    /// Looks at size and first bytes; says whether the file was begun anew.
    pub(super) fn look(&mut self, now: Timestamp, handler: &mut dyn Handler) -> io::Result<Option<Anew>> {
        if self.body.is_packed() {
            return Ok(None);
        }
        let metadata = self.body.metadata()?;
        let size = metadata.len();
        if size != self.size || now < self.grew {
            self.grew = now;
        }
        self.size = size;
        let modified = std::mem::replace(&mut self.modified, (metadata.mtime(), metadata.mtime_nsec()));
        self.deleted = metadata.nlink() == 0;
        if size < self.mark.position.offset {
            return Ok(Some(Anew { hole: false, modified }));
        }
        Ok(match self.learn_head()? {
            Head::Known => None,
            Head::Longer => {
                self.tell_mark(handler);
                None
            }
            Head::Other(first) => Some(Anew { hole: first == Some(0), modified }),
        })
    }

    /// Tells the complete line before the offset, which an earlier process had.
    fn tell_line_before(
        &mut self,
        buffer: &mut [u8],
        max_line: usize,
        handler: &mut dyn Handler,
    ) -> io::Result<()> {
        let offset = self.mark.position.offset;
        let length = buffer.len().min(max_line + 2).min(usize::try_from(offset).unwrap_or(usize::MAX));
        if length == 0 || self.mark.inside != Inside::Nothing {
            return Ok(());
        }
        let start = offset - length as u64;
        let n = self.body.read_at(&mut buffer[..length], start)?;
        let Some(rest) = buffer[..n].strip_suffix(b"\n").filter(|_| n == length) else { return Ok(()) };
        let line = match memrchr(b'\n', rest) {
            Some(i) => &rest[i + 1..],
            None if start == 0 => rest,
            None => return Ok(()),
        };
        if line.len() <= max_line {
            handler.before(&self.info, line.strip_suffix(b"\r").unwrap_or(line));
        }
        Ok(())
    }

    /// Takes what was read, of which the first `back` bytes are those before the offset: hands over the whole lines,
    /// leaves the rest for the next time.
    fn take(&mut self, read: &[u8], back: usize, max_line: usize, handler: &mut dyn Handler) {
        let before = (self.mark.position.offset, self.mark.inside);
        self.take_lines(&read[back..], max_line, handler);
        if before != (self.mark.position.offset, self.mark.inside) {
            let taken = usize::try_from(self.mark.position.offset - before.0).unwrap_or(0);
            let done = &read[..back + taken];
            replace(&mut self.mark.tail, &done[done.len().saturating_sub(HEAD)..]);
            self.tell_mark(handler);
        }
    }

    fn take_lines(&mut self, read: &[u8], max_line: usize, handler: &mut dyn Handler) {
        let mut rest = read;
        if self.in_hole {
            let hole = rest.iter().take_while(|&&byte| byte == 0).count();
            rest = &rest[hole..];
            self.mark.position.offset += hole as u64;
            self.in_hole = rest.is_empty();
        }
        if self.mark.inside != Inside::Nothing {
            let end = memchr(b'\n', rest).map(|i| i + 1);
            self.mark.position.offset += end.unwrap_or(rest.len()) as u64;
            let Some(end) = end else { return };
            self.counts.skipped_long += u64::from(self.mark.inside == Inside::LongLine);
            self.mark.inside = Inside::Nothing;
            rest = &rest[end..];
        }
        let whole = memrchr(b'\n', rest).map_or(0, |i| i + 1);
        if whole > 0 {
            let offset = self.mark.position.offset;
            self.mark.position.offset += whole as u64;
            self.deliver(&rest[..whole], offset, max_line, handler);
        }
        let begun = rest.len() - whole;
        if begun > max_line {
            self.mark.inside = Inside::LongLine;
            self.mark.position.offset += begun as u64;
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
