//! How far a file was handed over, in a form that outlives the process.

use std::io;
use std::path::{Path, PathBuf};

use super::body::Body;
use super::position::{Identity, Position};

/// So many of a file's first bytes, and so many before the offset, tell it from another one.
pub(super) const HEAD: usize = 64;

/// How far a file has been handed over, in a form that outlives the process.
///
/// Device and inode say which file it is only as long as it exists: a file that is made after it was deleted may get
/// the same inode, and some file systems have another device number after each mount. So the file's own bytes decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where it was last found. Of a file that was rotated away: the followed path that it left.
    pub path: PathBuf,
    /// Which file, and how far.
    pub position: Position,
    /// The file's first bytes, at most 64; fewer only while it has no more, none only while it is empty.
    pub head: Box<[u8]>,
    /// What the offset is inside of.
    pub inside: Inside,
    /// The bytes just before the offset, at most 64; none if they are not known, in which case `head` must do. They
    /// tell logs apart that all begin with the same words.
    pub tail: Box<[u8]>,
}

/// What an offset is inside of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inside {
    /// Nothing: the next byte is a line's first.
    #[default]
    Nothing,
    /// A line that is over-long and being skipped.
    LongLine,
    /// A line that began before the place where the file was begun.
    OldLine,
}

impl Mark {
    /// The same file, between two lines at this offset: where a batch is cut in the middle of a block.
    #[must_use]
    pub fn at(&self, offset: u64) -> Self {
        if offset == self.position.offset {
            return self.clone();
        }
        Self {
            path: self.path.clone(),
            position: Position { offset, ..self.position },
            head: self.head.clone(),
            inside: Inside::Nothing,
            tail: Box::default(),
        }
    }

    /// The beginning of a file of which nothing is known.
    pub(super) fn beginning(path: &Path, identity: Identity) -> Self {
        let Identity { dev, inode } = identity;
        Self {
            path: path.to_owned(),
            position: Position { dev, inode, offset: 0 },
            head: Box::default(),
            inside: Inside::Nothing,
            tail: Box::default(),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity { dev: self.position.dev, inode: self.position.inode }
    }

    pub(super) fn is_at(&mut self, identity: Identity) {
        self.position.dev = identity.dev;
        self.position.inode = identity.inode;
    }

    /// Whether what begins so and has so many bytes can be what was marked. Of a packed file, whose size is not known
    /// and whose bytes before the offset are not at hand, only the first bytes are compared.
    pub(super) fn fits(&self, body: &mut Body, size: u64) -> io::Result<bool> {
        let plain = !body.is_packed();
        if plain && (size < self.position.offset || size < self.head.len() as u64) {
            return Ok(false);
        }
        // What a hostile ledger says may be longer than any mark of ours.
        let (Some(mut head), Some(before)) =
            (room(self.head.len()), self.position.offset.checked_sub(self.tail.len() as u64))
        else {
            return Ok(false);
        };
        let n = body.read_at(&mut head, 0)?;
        if head[..n] != *self.head {
            return Ok(false);
        }
        if !plain || self.tail.is_empty() {
            return Ok(true);
        }
        let Some(mut tail) = room(self.tail.len()) else { return Ok(false) };
        let n = body.read_at(&mut tail, before)?;
        Ok(tail[..n] == *self.tail)
    }
}

fn room(length: usize) -> Option<Vec<u8>> {
    (length <= HEAD).then(|| vec![0; length])
}

/// Makes `known` these bytes, in its own memory if they are as many.
pub(super) fn replace(known: &mut Box<[u8]>, bytes: &[u8]) {
    if known.len() == bytes.len() {
        known.copy_from_slice(bytes);
    } else {
        *known = bytes.into();
    }
}
