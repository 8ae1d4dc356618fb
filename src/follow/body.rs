//! What a file's bytes are read from: the file itself, or the stream that unpacks it.

use std::fs::{File as Handle, Metadata};
use std::io;
use std::os::unix::fs::FileExt;

use super::unpack::Unpacker;

/// A file's bytes.
#[derive(Debug)]
pub(super) enum Body {
    Plain(Handle),
    /// Compressed by gzip after it was rotated away: offsets are those of what was compressed.
    Packed(Box<Unpacker>),
}

impl Body {
    pub(super) fn is_packed(&self) -> bool {
        matches!(self, Self::Packed(_))
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        match self {
            Self::Plain(handle) => handle.metadata(),
            Self::Packed(unpacker) => unpacker.metadata(),
        }
    }

    /// Fills the buffer from `offset` on; less means that there was no more.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(handle) => read_at(handle, buffer, offset),
            Self::Packed(unpacker) => unpacker.read_at(buffer, offset),
        }
    }
}

/// One read; a short one means that there was no more.
pub(super) fn read_at(handle: &Handle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match handle.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Beyond what the kernel can count is beyond the end.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(0),
            done => return done,
        }
    }
}
