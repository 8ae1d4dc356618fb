//! A place in a file, in a form that outlives the process.

use std::path::PathBuf;

use super::position::Position;

/// How far a file has been handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where it was last found.
    pub path: PathBuf,
    /// Which file, and how much of it is done.
    pub position: Position,
    /// Its first bytes, at most 64; none only while it is empty.
    pub head: Box<[u8]>,
    /// What the offset is inside of.
    pub inside: Inside,
    /// The bytes just before the offset, at most 64; none if they are not known, in which case `head` must do.
    pub tail: Box<[u8]>,
}

/// What an offset may be inside of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inside {
    /// It is the first byte of a line.
    #[default]
    Nothing,
    /// A line that is too long and left out.
    LongLine,
    /// A line that began before the place where the file was begun.
    OldLine,
}

impl Mark {
    /// The same file, between two lines at this offset.
    #[must_use]
    pub fn at(&self, offset: u64) -> Self {
        Self { position: Position { offset, ..self.position }, inside: Inside::Nothing, ..self.clone() }
    }
}
