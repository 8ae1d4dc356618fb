//! Logs of the last day as plain lines, whatever they are kept as: a file, one that was rotated or compressed, dockerd's
//! records, systemd's journal. Bounded in bytes and in time.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use flate2::read::MultiGzDecoder;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::finding::{LogFile, shown};
use crate::source::Shape;
use crate::source::docker::Decoder;
use crate::source::journal::{Child, ChildError, Entry, Matches, Start};
use crate::types::Timestamp;

/// So many bytes are read of one file, the last; of one that is compressed, the first.
const FILE: u64 = 256 << 20;
/// A record of dockerd's is no longer.
const RECORD: u64 = 1 << 20;
/// journalctl has told what there is when it says nothing for so long.
const SILENCE: u16 = 500;

/// What bounds all readings together.
#[derive(Debug)]
pub(super) struct Bounds {
    /// So many bytes may be read yet.
    pub(super) bytes: u64,
    /// Nothing is read after this moment.
    pub(super) until: Instant,
    /// What was left out, in words.
    pub(super) left_out: Vec<String>,
}

impl Bounds {
    fn leave_out(&mut self, what: String) {
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }
}

/// A log to be read.
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) reader: Box<dyn Read>,
}

/// The file, and what rotation made of it, as far as something was written since.
pub(super) fn files(log: &LogFile, since: SystemTime, bounds: &Rc<RefCell<Bounds>>) -> Vec<Input> {
    let parent = log.path.parent().unwrap_or_else(|| Path::new(""));
    let name = log.path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    let names = log.tree.list(parent).unwrap_or_default();
    let mut found = Vec::new();
    for other in names {
        let Some(rest) = other.as_encoded_bytes().strip_prefix(name.as_slice()) else { continue };
        if !is_rotated(rest) {
            continue;
        }
        let path = parent.join(&other);
        match open(log, &path, since, bounds) {
            Ok(input) => found.extend(input),
            Err(e) => bounds.borrow_mut().leave_out(format!("{}: {e}", shown(&log.tree.path().join(&path)))),
        }
    }
    found
}

/// Behind the log's own name: nothing, or a number or a date, compressed perhaps.
fn is_rotated(rest: &[u8]) -> bool {
    let rest = rest.strip_suffix(b".gz").unwrap_or(rest);
    match rest.split_first() {
        None => true,
        Some((b'.' | b'-', number)) => {
            !number.is_empty() && number.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        }
        Some(_) => false,
    }
}

fn open(
    log: &LogFile,
    path: &Path,
    since: SystemTime,
    bounds: &Rc<RefCell<Bounds>>,
) -> io::Result<Option<Input>> {
    let (mut file, place) = log.tree.open(path)?;
    let meta = file.metadata()?;
    if meta.modified()? < since {
        return Ok(None);
    }
    let most = FILE.min(bounds.borrow().bytes);
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let mut size = meta.len();
    let mut reader: Box<dyn Read> = if compressed {
        Box::new(MultiGzDecoder::new(BufReader::new(file)))
    } else {
        if size > most {
            let told = format!("{}: all but the last {} MiB", shown(&place), most >> 20);
            bounds.borrow_mut().leave_out(told);
            file.seek(SeekFrom::Start(size - most))?;
            size = most;
            Box::new(whole_lines(file)?)
        } else {
            Box::new(file)
        }
    };
    reader = Box::new(Bounded { reader, left: most, bounds: Rc::clone(bounds), path: place.clone() });
    if log.docker {
        reader = Box::new(Records::new(reader));
    }
    Ok(Some(Input { path: place, size, reader }))
}

/// From the next line on.
fn whole_lines(file: File) -> io::Result<BufReader<File>> {
    let mut reader = BufReader::new(file);
    reader.skip_until(b'\n')?;
    Ok(reader)
}

/// Gives no more than it may.
struct Bounded {
    reader: Box<dyn Read>,
    left: u64,
    bounds: Rc<RefCell<Bounds>>,
    path: PathBuf,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bounds = self.bounds.borrow_mut();
        if Instant::now() > bounds.until {
            bounds.leave_out(format!("{}: its rest, for want of time", shown(&self.path)));
            return Ok(0);
        }
        let most = usize::try_from(self.left.min(bounds.bytes)).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            bounds.leave_out(format!("{}: its rest, because it is too much", shown(&self.path)));
            return Ok(0);
        }
        let n = self.reader.read(&mut buffer[..most])?;
        self.left -= n as u64;
        bounds.bytes -= n as u64;
        Ok(n)
    }
}

/// Lines that are made one by one, read as bytes.
struct Made<M> {
    make: M,
    line: Vec<u8>,
    given: usize,
}

impl<M: FnMut(&mut Vec<u8>) -> io::Result<bool>> Read for Made<M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.line.len() {
            self.line.clear();
            self.given = 0;
            if !(self.make)(&mut self.line)? {
                return Ok(0);
            }
            self.line.push(b'\n');
        }
        let n = buffer.len().min(self.line.len() - self.given);
        buffer[..n].copy_from_slice(&self.line[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// The lines in dockerd's records.
struct Records;

impl Records {
    #[expect(clippy::new_ret_no_self, reason = "what it is made of is nobody's business")]
    fn new(reader: Box<dyn Read>) -> impl Read {
        let mut reader = BufReader::new(reader);
        let mut decoder = Decoder::new(64 << 10);
        let mut record = Vec::new();
        let make = move |line: &mut Vec<u8>| {
            loop {
                record.clear();
                if (&mut reader).take(RECORD).read_until(b'\n', &mut record)? == 0 {
                    return Ok(false);
                }
                if let Some(found) = decoder.record(&record) {
                    line.extend_from_slice(found.text);
                    return Ok(true);
                }
            }
        };
        Made { make, line: Vec::new(), given: 0 }
    }
}

/// What the journal holds since then.
pub(super) fn journal(
    matches: &Matches,
    directory: Option<&Path>,
    shape: Shape,
    since: Timestamp,
    bounds: &Rc<RefCell<Bounds>>,
) -> Result<Input, ChildError> {
    let start = Start::Since(since.as_millis().saturating_mul(1000));
    let mut child = Child::follow(matches, &start, directory, 1 << 20)?;
    let mut rendered = Vec::new();
    let bounds = Rc::clone(bounds);
    let make = move |line: &mut Vec<u8>| {
        loop {
            while let Some(text) = child.line() {
                if let Ok(entry) = Entry::parse(text)
                    && let Some(message) = &entry.message
                {
                    entry.render(message, shape, &mut rendered);
                    line.extend_from_slice(&rendered);
                    return Ok(true);
                }
            }
            if Instant::now() > bounds.borrow().until {
                bounds.borrow_mut().leave_out("the journal: its rest, for want of time".to_owned());
                return Ok(false);
            }
            let [entries, _] = child.outputs();
            let mut ready = [PollFd::new(entries, PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(SILENCE))? == 0 {
                return Ok(false);
            }
            if child.hear()? == crate::source::journal::Heard::End {
                return Ok(false);
            }
        }
    };
    let reader = Box::new(Made { make, line: Vec::new(), given: 0 });
    Ok(Input { path: PathBuf::from("the journal"), size: 0, reader })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rotation_makes_is_told_from_other_logs() {
        for rest in ["", ".1", ".2.gz", "-20261121", "-20261121.gz", ".2026-11-21", ".gz"] {
            assert!(is_rotated(rest.as_bytes()), "{rest}");
        }
        for rest in ["x", ".old", ".1.bz2", "-", ".", ".1~"] {
            assert!(!is_rotated(rest.as_bytes()), "{rest}");
        }
    }
}
