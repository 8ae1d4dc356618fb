//! The offenders' own lines, found again at the ends of the jails' logs: for people who want to see why.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::fcntl::OFlag;
use regex::bytes::Regex;

use crate::daemon::jails::{Jails, Ready};
use crate::filter::Trust;
use crate::follow::matching_files;
use crate::types::Timestamp;

/// So much of a log's end is read, in bytes.
const TAIL: u64 = 8 << 20;
/// So much is read for one jail, in bytes.
const JAIL: u64 = 64 << 20;
/// So much of a line is kept, in bytes.
const LINE: usize = 2048;
/// The clock is looked at after so many lines.
const LOOK: usize = 64;

/// Whose lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose filter found them.
    pub jail: String,
    /// An address, a prefix or a network.
    pub offender: IpNet,
    /// Later lines are not what it was banned for.
    pub until: Timestamp,
}

/// Lines by jail and offender, the oldest first.
#[derive(Debug, Default)]
pub struct Lines {
    /// So many of each were wanted.
    pub wanted: usize,
    found: HashMap<(String, IpNet), Vec<String>>,
}

impl Deref for Lines {
    type Target = HashMap<(String, IpNet), Vec<String>>;

    fn deref(&self) -> &Self::Target {
        &self.found
    }
}

impl Lines {
    /// None were looked for.
    #[must_use]
    pub fn none(wanted: usize) -> Self {
        Self { wanted, found: HashMap::new() }
    }
}

/// Looks for up to `count` lines of each, the last ones, in one pass over the end of each log. It blocks, for as long as
/// `patience` at most: what was found until then is the answer. Sources besides files are not looked at.
#[must_use]
pub fn find(jails: &Jails, wanted: &[Wanted], count: usize, now: Timestamp, patience: Duration) -> Lines {
    let end = Instant::now() + patience;
    let mut lines = Lines::none(count);
    for ready in &jails.jails {
        let of_jail: Vec<&Wanted> = wanted.iter().filter(|w| w.jail == ready.jail.name).collect();
        if of_jail.is_empty() || count == 0 {
            continue;
        }
        let mut search = Search::new(ready, &jails.trust, &of_jail, count, now, end);
        search.run();
        for (net, mut found) in search.found {
            found.reverse();
            lines.found.insert((ready.jail.name.clone(), net), found);
        }
    }
    lines
}

/// A pass over one jail's logs.
struct Search<'a> {
    ready: &'a Ready,
    trust: &'a Trust,
    wanted: &'a [&'a Wanted],
    count: usize,
    now: Timestamp,
    end: Instant,
    /// Finds the lines that may be somebody's; `None`: each may be.
    maybe: Option<Regex>,
    found: HashMap<IpNet, Vec<String>>,
    /// Bytes that may still be read.
    left: u64,
    lines: usize,
}

impl<'a> Search<'a> {
    fn new(
        ready: &'a Ready,
        trust: &'a Trust,
        wanted: &'a [&'a Wanted],
        count: usize,
        now: Timestamp,
        end: Instant,
    ) -> Self {
        // An IPv4 address is written in one way, so that a search for all of them at once spares the filter most lines.
        let single = |w: &&&Wanted| matches!(w.offender, IpNet::V4(net) if net.prefix_len() == 32);
        let texts: Vec<String> =
            wanted.iter().filter(single).map(|w| regex::escape(&w.offender.addr().to_string())).collect();
        let maybe = (texts.len() == wanted.len()).then(|| Regex::new(&texts.join("|")).ok()).flatten();
        Self { ready, trust, wanted, count, now, end, maybe, found: HashMap::new(), left: JAIL, lines: 0 }
    }

    fn run(&mut self) {
        for path in logs(&self.ready.jail.logpath) {
            if self.is_done() || self.left == 0 {
                return;
            }
            // What cannot be read is the follower's to complain about.
            drop(self.file(&path));
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Reads a log's end, and that of the file it was rotated to where the log is short.
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let (file, size) = open(path)?;
        let read = self.tail(&file, size, TAIL.min(self.left))?;
        if read < TAIL && !self.is_done() {
            let mut rotated = path.as_os_str().to_owned();
            rotated.push(".1");
            if let Ok((file, size)) = open(Path::new(&rotated)) {
                self.tail(&file, size, (TAIL - read).min(self.left))?;
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.is_late()
            || self.wanted.iter().all(|w| self.found.get(&w.offender).is_some_and(|f| f.len() >= self.count))
    }

    /// How much of the end was looked at.
    fn tail(&mut self, file: &File, size: u64, most: u64) -> io::Result<u64> {
        let length = size.min(most);
        let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
        let mut read = 0;
        // The log may become shorter meanwhile.
        while let Some(rest) = text.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, size - length + read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        text.truncate(read);
        self.left = self.left.saturating_sub(length);
        // The first line is whole only where the file begins with it.
        let mut text = match memchr::memchr(b'\n', &text) {
            Some(end) if length < size => text.get(end + 1..).unwrap_or_default(),
            None if length < size => return Ok(length),
            _ => &text,
        };
        // What has no end yet is being written.
        text = memchr::memrchr(b'\n', text).and_then(|end| text.get(..end)).unwrap_or_default();
        for line in rlines(text) {
            self.lines += 1;
            if self.lines.is_multiple_of(LOOK) && self.is_done() {
                break;
            }
            self.line(line);
        }
        Ok(length)
    }

    fn line(&mut self, line: &[u8]) {
        if self.maybe.as_ref().is_some_and(|maybe| !maybe.is_match(line)) {
            return;
        }
        let seen = self.ready.filter.examine(line, self.now, self.trust);
        let Some(who) = seen.who.and_then(crate::filter::Attribution::offender) else { return };
        for wanted in self.wanted.iter().filter(|w| w.offender.contains(&who)) {
            let found = self.found.entry(wanted.offender).or_default();
            if found.len() < self.count && seen.at.is_none_or(|at| at <= wanted.until) {
                let line = line.get(..LINE.min(line.len())).unwrap_or_default();
                found.push(String::from_utf8_lossy(line).into_owned());
            }
        }
    }
}

/// The lines of `text`, the last one first.
fn rlines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match memchr::memrchr(b'\n', text) {
            Some(at) => {
                rest = text.get(..at);
                text.get(at + 1..)
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// The files of these patterns, the one that was written last first.
fn logs(patterns: &[String]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = patterns.iter().flat_map(|pattern| matching_files(pattern).0).collect();
    files.sort_unstable();
    files.dedup();
    let time = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    files.sort_by_cached_key(|path| std::cmp::Reverse(time(path)));
    files
}

/// Opens a regular file as the follower does: a pipe in its place is not waited for.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok((file, metadata.len()))
}
