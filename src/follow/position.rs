//! The place in a file up to which its lines were handed over.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Which file, and how much of it is done.
///
/// A file is known by device and inode, not by its name: that is what survives a rename. While the follower holds the
/// file open the pair cannot be given to another file; a place that is kept longer than that needs the file's first
/// bytes beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The device the file is on (`st_dev`).
    pub dev: u64,
    /// Its inode number there (`st_ino`).
    pub inode: u64,
    /// Bytes from the beginning: the first byte of the first line that was not handed over, or a byte inside a line
    /// that is over-long and being skipped.
    pub offset: u64,
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), inode: metadata.ino() }
    }
}
