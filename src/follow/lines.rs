//! A block of whole lines, taken apart.

use std::cell::Cell;

/// What a block held, counted whether or not the handler looked at it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) lines: Cell<u64>,
    pub(super) skipped_long: Cell<u64>,
}

/// Whole lines of one file, one after the other.
///
/// Iterating gives each line without its `\n` and without one `\r` before it. Any bytes may stand in a line: it need
/// not be UTF-8 and may hold NUL. A line longer than the limit is left out and counted. Lines that are not iterated
/// over count as read.
#[derive(Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    offset: u64,
    max_line: usize,
    live: bool,
    behind: u64,
    lines: u64,
    skipped_long: u64,
    tally: &'a Tally,
}

impl<'a> Lines<'a> {
    pub(super) fn new(block: &'a [u8], offset: u64, max_line: usize, tally: &'a Tally) -> Self {
        Self { rest: block, offset, max_line, live: true, behind: 0, lines: 0, skipped_long: 0, tally }
    }

    pub(super) fn backlog(mut self, live: bool, behind: u64) -> Self {
        self.live = live;
        self.behind = behind;
        self
    }

    /// Where in the file the next line begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether these lines were written after the file was first looked at. Lines that were already there are
    /// backlog: read late, and told apart so that nobody is alarmed by what is long past.
    #[must_use]
    pub fn live(&self) -> bool {
        self.live
    }

    /// How many bytes of the file still come after this block, as far as was known when it was read.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.behind
    }

    /// The lines that were not iterated over yet as they stand in the file, over-long ones included: for a search
    /// over the whole block at once.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (length, step) = match memchr::memchr(b'\n', self.rest) {
                Some(i) => (i, i + 1),
                // Only the last line of a file that is gone for good has no newline.
                None => (self.rest.len(), self.rest.len()),
            };
            let (line, rest) = (&self.rest[..length], &self.rest[step..]);
            self.rest = rest;
            self.offset += step as u64;
            if length > self.max_line {
                self.skipped_long += 1;
                continue;
            }
            self.lines += 1;
            return Some(line.strip_suffix(b"\r").unwrap_or(line));
        }
        None
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
        self.tally.lines.set(self.tally.lines.get() + self.lines);
        self.tally.skipped_long.set(self.tally.skipped_long.get() + self.skipped_long);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(block: &[u8], max: usize) -> (Vec<Vec<u8>>, u64, u64) {
        let tally = Tally::default();
        let got = Lines::new(block, 0, max, &tally).map(<[u8]>::to_vec).collect();
        (got, tally.lines.get(), tally.skipped_long.get())
    }

    #[test]
    fn a_block_is_taken_apart() {
        let (got, n, long) = lines(b"a\r\n\nb\0\xff\n\r\r\n", 10);
        assert_eq!(got, [&b"a"[..], b"", b"b\0\xff", b"\r"]);
        assert_eq!((n, long), (4, 0));
    }

    #[test]
    fn the_limit_is_the_length_without_the_newline() {
        let (got, n, long) = lines(b"1234\n12345\n123\n", 4);
        assert_eq!(got, [&b"1234"[..], b"123"]);
        assert_eq!((n, long), (2, 1));
    }

    #[test]
    fn a_last_line_needs_no_newline() {
        assert_eq!(lines(b"a\nb", 4).0, [b"a", b"b"]);
    }

    #[test]
    fn what_is_not_looked_at_is_counted() {
        let tally = Tally::default();
        let mut some = Lines::new(b"a\nb\n12345\nc\n", 100, 4, &tally);
        assert_eq!(some.next(), Some(&b"a"[..]));
        assert_eq!((some.offset(), some.as_bytes()), (102, &b"b\n12345\nc\n"[..]));
        drop(some);
        assert_eq!((tally.lines.get(), tally.skipped_long.get()), (3, 1));
    }
}
