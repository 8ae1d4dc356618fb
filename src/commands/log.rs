//! Logs that are read once from beginning to end: whole lines, block by block.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Large enough that the system calls do not count, small enough for a core's own cache.
const BLOCK: usize = 256 << 10;

/// What every file of gzip begins with (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A log, or standard input.
pub(super) struct Log {
    path: PathBuf,
    input: Box<dyn Read>,
    size: u64,
    buffer: Vec<u8>,
    /// What of the buffer is filled.
    filled: usize,
    /// What of the buffer was given out.
    given: usize,
    longest: usize,
    /// In the middle of a line that is too long.
    skipping: bool,
    ended: bool,
    /// Bytes read.
    pub(super) read: u64,
    /// Lines left out because they were too long.
    pub(super) skipped: u64,
}

impl Log {
    /// Opens `path`, or standard input for `-`. Lines of more than `longest` bytes are left out and counted.
    pub(super) fn open(path: &Path, longest: usize) -> Result<Self> {
        let (input, size): (Box<dyn Read>, u64) = if path == Path::new("-") {
            (Box::new(io::stdin().lock()), 0)
        } else {
            let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
            let meta = file.metadata().with_context(|| format!("failed to open {}", path.display()))?;
            anyhow::ensure!(!meta.is_dir(), "{} is a directory: name the logs in it", path.display());
            (Box::new(file), meta.len())
        };
        Ok(Self::of(path, input, size, longest))
    }

    /// What `input` gives, about `size` bytes, which errors call `path`.
    pub(super) fn of(path: &Path, input: Box<dyn Read>, size: u64, longest: usize) -> Self {
        Self {
            path: path.to_owned(),
            input,
            size,
            buffer: vec![0; BLOCK.max(longest * 2)],
            filled: 0,
            given: 0,
            longest,
            skipping: false,
            ended: false,
            read: 0,
            skipped: 0,
        }
    }

    /// Its size when it was opened, in bytes; 0 when unknown.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The next whole lines, each with its newline (the last of the file perhaps without); `None` at the end.
    pub(super) fn block(&mut self) -> Result<Option<&[u8]>> {
        loop {
            self.buffer.copy_within(self.given..self.filled, 0);
            self.filled -= self.given;
            self.given = 0;
            if self.ended {
                let rest = if self.skipping { 0 } else { self.filled };
                self.filled = 0;
                return Ok((rest > 0).then(|| &self.buffer[..rest]));
            }
            self.fill()?;
            let mut begin = 0;
            if self.skipping {
                match memchr::memchr(b'\n', &self.buffer[..self.filled]) {
                    Some(end) => (begin, self.skipping) = (end + 1, false),
                    None => self.given = self.filled,
                }
            }
            match memchr::memrchr(b'\n', &self.buffer[begin..self.filled]) {
                Some(last) => {
                    self.given = begin + last + 1;
                    return Ok(Some(&self.buffer[begin..begin + last + 1]));
                }
                None if self.skipping => {}
                None if self.filled - begin > self.longest => {
                    self.skipped += 1;
                    self.skipping = true;
                    self.given = self.filled;
                }
                None => self.given = begin,
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        while !self.ended {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    if self.read == 0 && self.buffer.starts_with(&GZIP) {
                        let file = self.path.display();
                        bail!("{file} is compressed: use `zcat {file} | stockade ... -`");
                    }
                    self.filled += n;
                    self.read += n as u64;
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).with_context(|| format!("failed to read {}", self.path.display())),
            }
        }
        Ok(())
    }
}

/// The lines of a block without their ends, those that are too long left out.
pub(super) fn lines(block: &[u8], longest: usize) -> impl Iterator<Item = &[u8]> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', block).chain((block.last() != Some(&b'\n')).then_some(block.len()));
    ends.filter_map(move |end| {
        let line = &block[begin..end];
        begin = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (line.len() <= longest).then_some(line)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &[u8], longest: usize) -> (Vec<Vec<u8>>, u64) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let mut log = Log::open(file.path(), longest).unwrap();
        // A small buffer, so that lines cross its end.
        log.buffer = vec![0; longest * 2];
        let mut all = Vec::new();
        while let Some(block) = log.block().unwrap() {
            all.extend(lines(block, longest).map(<[u8]>::to_vec));
        }
        (all, log.skipped)
    }

    #[test]
    fn lines_cross_blocks_and_the_last_needs_no_newline() {
        let text: Vec<String> = (0..101).map(|n| "x".repeat(n % 9)).collect();
        let (got, skipped) = read(text.join("\n").as_bytes(), 8);
        let want: Vec<Vec<u8>> = text.iter().map(|l| l.clone().into_bytes()).collect();
        assert_eq!((got, skipped), (want, 0));
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_whole() {
        let text = format!("a\n{}\nb\r\n{}", "y".repeat(100), "z".repeat(100));
        let (got, skipped) = read(text.as_bytes(), 8);
        assert_eq!(got, [b"a", b"b"]);
        assert_eq!(skipped, 2);
    }

    #[test]
    fn a_directory_is_no_log() {
        let error = Log::open(Path::new("/"), 8).err().unwrap();
        assert_eq!(error.to_string(), "/ is a directory: name the logs in it");
    }
}
