//! Where a file is begun: at a place that was found in it, where it was left, or at its start once more.

use std::io;
use std::path::{Path, PathBuf};

use super::Handler;
use super::event::Event;
use super::file::File;
use super::mark::{HEAD, Inside, Mark, replace};
use super::recent::Begin;

/// A file was emptied or written anew in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anew {
    /// Its writer does not append but goes on at its own place: what is before it is a hole.
    pub(super) hole: bool,
    /// When it was written last, as far as was known before.
    pub(super) modified: (i64, i64),
}

/// What a look at a file's first bytes showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// They are those known.
    Known,
    /// There are more of them now.
    Longer,
    /// They are others; the first of them, if there is any.
    Other(Option<u8>),
}

impl File {
    /// Is begun at a place that was found in it.
    pub(super) fn begin_at(&mut self, begin: Begin) -> io::Result<()> {
        self.mark.position.offset = begin.offset;
        self.mark.inside = if begin.inside_line { Inside::OldLine } else { Inside::Nothing };
        let mut tail = [0; HEAD];
        let before = begin.offset.saturating_sub(HEAD as u64);
        let length = usize::try_from(begin.offset - before).unwrap_or(HEAD);
        let n = self.body.read_at(&mut tail[..length], before)?;
        replace(&mut self.mark.tail, &tail[..n]);
        Ok(())
    }

    /// It is begun where it was left, not where a line is known to begin.
    pub(super) fn resume(&mut self) {
        self.resumed = true;
        self.in_hole = self.mark.head.first().is_none_or(|&first| first == 0);
    }

    /// It was written anew since it was last read: it may begin with a hole.
    pub(super) fn may_begin_with_a_hole(&mut self) {
        self.in_hole = true;
    }

    /// Begins again after it was truncated.
    pub(super) fn begin_again(&mut self, anew: Anew, handler: &mut dyn Handler) -> io::Result<()> {
        let was_at = self.mark.position.offset;
        if !anew.hole {
            self.mark.position.offset = 0;
        }
        self.mark.head = Box::default();
        self.mark.tail = Box::default();
        self.mark.inside = Inside::Nothing;
        self.in_hole = true;
        self.resumed = false;
        self.backlog_end = 0;
        self.caught_up = false;
        self.counts.truncations += 1;
        let learned = self.learn_head();
        handler.event(Event::Truncated { file: &self.info, was_at, size: self.size });
        self.tell_mark(handler);
        learned.map(|_| ())
    }

    /// Is passed over up to the place of `mark`, another file with the same beginning; its own place is never before.
    pub(super) fn skip_to(&mut self, mark: &Mark, handler: &mut dyn Handler) -> io::Result<()> {
        let offset = mark.position.offset.min(self.size);
        if offset <= self.mark.position.offset || self.body.is_packed() {
            return Ok(());
        }
        let mut tail = [0; HEAD];
        let before = offset.saturating_sub(HEAD as u64);
        let length = usize::try_from(offset - before).unwrap_or(HEAD);
        let n = self.body.read_at(&mut tail[..length], before)?;
        self.mark.position.offset = offset;
        self.mark.inside = if offset == mark.position.offset {
            mark.inside
        } else if tail[..n].last() == Some(&b'\n') {
            Inside::Nothing
        } else {
            // It ends in the middle of a line that the other one had whole.
            Inside::OldLine
        };
        replace(&mut self.mark.tail, &tail[..n]);
        self.resumed = true;
        self.tell_mark(handler);
        Ok(())
    }

    /// The path under which it was last found, in its mark too.
    pub(super) fn set_path(&mut self, path: &Path) -> PathBuf {
        path.clone_into(&mut self.mark.path);
        std::mem::replace(&mut self.info.path, path.to_owned())
    }

    /// Compares the first bytes with those known and remembers more of them.
    pub(super) fn learn_head(&mut self) -> io::Result<Head> {
        let mut bytes = [0; HEAD];
        let n = self.body.read_at(&mut bytes, 0)?;
        let bytes = &bytes[..n];
        Ok(if !bytes.starts_with(&self.mark.head) {
            Head::Other(bytes.first().copied())
        } else if n > self.mark.head.len() {
            self.mark.head = bytes.into();
            Head::Longer
        } else {
            Head::Known
        })
    }
}
