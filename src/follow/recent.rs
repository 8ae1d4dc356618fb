//! Where to begin a file that was never followed before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::{memchr, memrchr};

use super::source::From;
use crate::types::Timestamp;

/// So much is read at each step of the search, in bytes: more than a line, so that one without a time is passed over.
const PROBE: usize = 64 * 1024;

/// So much of its end is read of a file whose lines have no time, in bytes.
const BLIND: u64 = 1024 * 1024;

/// Where a file is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begin {
    /// The offset in bytes.
    pub(super) offset: u64,
    /// Whether the offset is inside a line: what comes before the next newline is not a line.
    pub(super) inside_line: bool,
    /// Whether recent lines were asked for but no line had a time.
    pub(super) blind: bool,
}

/// Finds the place in a file of `size` bytes.
pub(super) fn begin(
    file: &File,
    size: u64,
    from: From,
    now: Timestamp,
    stamp: &mut dyn FnMut(&[u8]) -> Option<Timestamp>,
) -> io::Result<Begin> {
    match from {
        From::Start => Ok(Begin::default()),
        From::End => end(file, size),
        From::Recent(window) => recent(file, size, now.saturating_sub(window), stamp),
    }
}

/// After the last newline: a line that is just being written is still to come.
fn end(file: &File, size: u64) -> io::Result<Begin> {
    let mut buffer = vec![0; PROBE];
    let start = size.saturating_sub(PROBE as u64);
    let got = read(file, &mut buffer, start)?;
    Ok(match memrchr(b'\n', got) {
        Some(i) => Begin { offset: start + i as u64 + 1, ..Begin::default() },
        None if start == 0 => Begin::default(),
        None => Begin { offset: start + got.len() as u64, inside_line: true, blind: false },
    })
}

/// Bisects for the first line that is not older than `cutoff`.
///
/// Times in a log ascend, or nearly so. `low` is always a line's first byte, and what is before it is too old or has no
/// time; a place without a time brings `high` down, so that too much is read rather than too little.
fn recent(
    file: &File,
    size: u64,
    cutoff: Timestamp,
    stamp: &mut dyn FnMut(&[u8]) -> Option<Timestamp>,
) -> io::Result<Begin> {
    let mut buffer = vec![0; PROBE];
    let (mut low, mut high) = (0, size);
    let (mut seen_line, mut seen_time) = (false, false);
    while high.saturating_sub(low) > PROBE as u64 {
        let middle = low + (high - low) / 2;
        let mut lines = Lines { bytes: read(file, &mut buffer, middle)?, next: middle };
        // The first is most likely the rest of a line.
        lines.next();
        let found =
            lines.inspect(|_| seen_line = true).find_map(|line| Some((stamp(line.bytes)?, line.next)));
        seen_time |= found.is_some();
        match found {
            Some((at, next)) if at < cutoff => low = next,
            _ => high = middle,
        }
    }
    // What is left is at most one probe.
    for line in (Lines { bytes: read(file, &mut buffer, low)?, next: low }) {
        seen_line = true;
        if let Some(at) = stamp(line.bytes) {
            seen_time = true;
            if at >= cutoff {
                return Ok(Begin { offset: line.start, ..Begin::default() });
            }
            low = line.next;
        }
    }
    if seen_time || !seen_line && size <= PROBE as u64 {
        return Ok(Begin { offset: low, ..Begin::default() });
    }
    Ok(Begin { blind: true, ..forward(file, &mut buffer, size.saturating_sub(BLIND))? })
}

/// The first line that begins at or after `start`.
fn forward(file: &File, buffer: &mut [u8], start: u64) -> io::Result<Begin> {
    let Some(before) = start.checked_sub(1) else { return Ok(Begin::default()) };
    let got = read(file, buffer, before)?;
    Ok(match memchr(b'\n', got) {
        Some(i) => Begin { offset: before + i as u64 + 1, ..Begin::default() },
        None => Begin { offset: before + got.len() as u64, inside_line: true, blind: false },
    })
}

/// Fills as much of the buffer as the file has from `offset` on.
fn read<'b>(file: &File, buffer: &'b mut [u8], offset: u64) -> io::Result<&'b [u8]> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..got])
}

/// Complete lines with their places; what follows the last newline is no line yet.
struct Lines<'a> {
    bytes: &'a [u8],
    next: u64,
}

struct Line<'a> {
    bytes: &'a [u8],
    start: u64,
    next: u64,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let end = memchr(b'\n', self.bytes)?;
        let line = &self.bytes[..end];
        let start = self.next;
        self.bytes = &self.bytes[end + 1..];
        self.next = start + end as u64 + 1;
        Some(Line { bytes: line.strip_suffix(b"\r").unwrap_or(line), start, next: self.next })
    }
}

#[cfg(test)]
mod tests;
