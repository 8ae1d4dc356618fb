//! journalctl as a child: started without a shell, read line by line, gone when we are.
//!
//! It ends by itself when nobody reads its standard output any more: while it follows it watches that for a hang-up (measured
//! with systemd 252), so it does not outlive an agent that was killed.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::entry::{Entry, FIELDS};
use super::matches::Matches;
use crate::confine;
use crate::types::Timestamp;

/// Where it is looked for. Not in `PATH`: what runs as root is not for others to name.
const PLACES: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/current-system/sw/bin"];
/// Where journald keeps its files (systemd-journald.service(8)).
const JOURNALS: [&str; 2] = ["/run/log/journal", "/var/log/journal"];
/// So much is read at once.
const BLOCK: usize = 64 * 1024;
/// So much of what it says against us is kept, the last.
const COMPLAINT_MAX: usize = 400;
/// What has closed its output has so long to end.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Asking for the last entry may take so long.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is no journalctl.
    #[error("there is no journalctl in {} (install the package systemd, or follow a file with `logpath:`)", PLACES.join(", "))]
    Missing,
    /// There is no journal.
    #[error(
        "there is no journal in {0} (does systemd-journald run? in a container, mount the host's journal and name its place in `journal: {{ directory: … }}`)"
    )]
    NoJournal(String),
    /// It could not be started.
    #[error("failed to run {}: {source}", .program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("journalctl: {0}")]
    Failed(String),
}

/// Where in the journal to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the entry with this cursor, which was read already; if it is gone, at the one that comes next.
    At(String),
    /// At the first entry that is not older; in microseconds since the epoch.
    Since(i64),
    /// At the beginning.
    Oldest,
}

/// A running journalctl.
#[derive(Debug)]
pub(crate) struct Child {
    child: std::process::Child,
    stdout: ChildStdout,
    stderr: ChildStderr,
    /// What was read and not yet given out begins at `given`.
    buffer: Vec<u8>,
    given: usize,
    longest: usize,
    skipping: bool,
    /// Lines left out because they were too long.
    pub(crate) skipped: u64,
    complaint: Vec<u8>,
}

/// What a reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Something,
    /// It has closed its standard output: it has ended, or will.
    End,
}

impl Child {
    /// Has it follow the journal. Entries of more than `longest` bytes, as it writes them, are left out.
    ///
    /// # Errors
    /// When there is no journalctl, or no journal.
    pub(crate) fn follow(
        matches: &Matches,
        start: &Start,
        directory: Option<&Path>,
        longest: usize,
    ) -> Result<Self, ChildError> {
        let mut command = command(directory)?;
        // Without --no-tail it would begin ten entries from the end. A cursor is asked for, and not what comes after it: when
        // the entry is gone, --after-cursor leaves out the one that is the next (measured with systemd 252).
        command.args(["--follow", "--no-tail", "--all"]).arg(format!("--output-fields={FIELDS}"));
        match start {
            Start::At(cursor) => drop(command.arg(format!("--cursor={cursor}"))),
            Start::Since(at) => {
                let at = (*at).max(0);
                command.arg(format!("--since=@{}.{:06}", at / 1_000_000, at % 1_000_000));
            }
            Start::Oldest => {}
        }
        match machine().filter(|_| directory.is_none()) {
            // Without --merge it follows nothing but what it takes for this boot: entries from before a reboot would be missed, and
            // all of them in a container that has the one of its manager before its eyes (measured with systemd 252). It merges
            // what other machines have sent here, too.
            Some(machine) => command.arg("--merge").args(matches.arguments_on(&machine)),
            None => command.args(matches.arguments()),
        };
        let program = PathBuf::from(command.get_program());
        let failed = |source| ChildError::Run { program: program.clone(), source };
        let child = spawn(&mut command).map_err(failed)?;
        Self::of(child, longest).ok_or_else(|| failed(io::Error::other("it has no standard output")))
    }

    /// A program that runs and whose outputs are pipes; entries longer than `longest` bytes are left out.
    fn of(mut child: std::process::Child, longest: usize) -> Option<Self> {
        let (stdout, stderr) = (child.stdout.take()?, child.stderr.take()?);
        Some(Self {
            child,
            stdout,
            stderr,
            buffer: Vec::new(),
            given: 0,
            longest,
            skipping: false,
            skipped: 0,
            complaint: Vec::new(),
        })
    }

    /// To be waited for: its entries, and what it complains about.
    pub(crate) fn outputs(&self) -> [BorrowedFd<'_>; 2] {
        [self.stdout.as_fd(), self.stderr.as_fd()]
    }

    /// Reads entries once; waits when there are none.
    pub(crate) fn hear(&mut self) -> io::Result<Heard> {
        self.buffer.drain(..self.given);
        self.given = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + BLOCK, 0);
        let read = self.stdout.read(&mut self.buffer[filled..]);
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Ok(Heard::End),
            Ok(_) => Ok(Heard::Something),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Heard::Something),
            Err(e) => Err(e),
        }
    }

    /// Reads complaints once; waits when there are none.
    pub(crate) fn hear_complaint(&mut self) -> io::Result<Heard> {
        let mut block = [0; 1024];
        let n = self.stderr.read(&mut block)?;
        self.complaint.extend_from_slice(&block[..n]);
        let more = self.complaint.len().saturating_sub(COMPLAINT_MAX);
        self.complaint.drain(..more);
        Ok(if n == 0 { Heard::End } else { Heard::Something })
    }

    /// The next whole line of what was read.
    pub(crate) fn line(&mut self) -> Option<&[u8]> {
        loop {
            let rest = &self.buffer[self.given..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                if rest.len() > self.longest {
                    self.skipping = true;
                    self.buffer.clear();
                    self.given = 0;
                }
                return None;
            };
            let begin = self.given;
            self.given += end + 1;
            if std::mem::take(&mut self.skipping) || end > self.longest {
                self.skipped += 1;
                continue;
            }
            return Some(&self.buffer[begin..begin + end]);
        }
    }

    /// How it ended: what it complained about, or else its exit status. It is ended if it has not.
    pub(crate) fn end(mut self) -> String {
        // It closes its output a moment before it has ended; if it has closed it for another reason, it is of no use.
        let until = Instant::now() + LAST_WORDS;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(self.child.kill());
        while matches!(self.hear_complaint(), Ok(Heard::Something)) {}
        let status = self.child.wait();
        let complaint = told(&self.complaint);
        match status {
            _ if !complaint.is_empty() => complaint,
            Ok(status) => format!("it ended ({status})"),
            Err(e) => format!("it ended ({e})"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The directories that hold journals now, each known by device and inode. When they change, journalctl is started anew:
/// it looks for them only once.
pub(crate) fn roots(directory: Option<&Path>) -> Vec<(u64, u64)> {
    let of = |path: &Path| {
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir).map(|m| (m.dev(), m.ino()))
    };
    match directory {
        Some(directory) => of(directory).into_iter().collect(),
        None => JOURNALS.iter().filter_map(|path| of(Path::new(path))).collect(),
    }
}

/// Why the journal cannot be read at all, if so.
///
/// # Errors
/// That is what it returns.
pub fn missing_journal(directory: Option<&Path>) -> Result<(), ChildError> {
    if roots(directory).is_empty() {
        let places =
            directory.map_or_else(|| JOURNALS.join(" or "), |directory| directory.display().to_string());
        return Err(ChildError::NoJournal(places));
    }
    find().map(drop)
}

/// When the last entry that fits was written; `None` when none fits.
///
/// # Errors
/// When the journal cannot be read.
pub fn last_entry(matches: &Matches, directory: Option<&Path>) -> Result<Option<Timestamp>, ChildError> {
    missing_journal(directory)?;
    let mut command = command(directory)?;
    command.arg("--lines=1").args(matches.arguments());
    let program = PathBuf::from(command.get_program());
    let failed = |source| ChildError::Run { program: program.clone(), source };
    let mut child = spawn(&mut command).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    while child.try_wait().map_err(failed)?.is_none() {
        if Instant::now() > until {
            drop(child.kill());
            drop(child.wait());
            return Err(ChildError::Failed(format!("it does not answer within {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().map_err(failed)?;
    if !out.status.success() {
        return Err(ChildError::Failed(told(&out.stderr)));
    }
    Ok(out.stdout.split(|b| *b == b'\n').find_map(|line| Some(Entry::parse(line).ok()?.time())))
}

/// How journald calls this machine (machine-id(5)).
fn machine() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?.trim().to_owned();
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

fn find() -> Result<PathBuf, ChildError> {
    let paths = PLACES.iter().map(|place| Path::new(place).join("journalctl"));
    paths.into_iter().find(|path| path.is_file()).ok_or(ChildError::Missing)
}

/// What every call has.
fn command(directory: Option<&Path>) -> Result<Command, ChildError> {
    if let Err(e @ ChildError::NoJournal(_)) = missing_journal(directory) {
        return Err(e);
    }
    let mut command = Command::new(find()?);
    command.args(["--output=json", "--no-pager", "--quiet"]);
    if let Some(directory) = directory {
        let mut argument = std::ffi::OsString::from("--directory=");
        argument.push(directory);
        command.arg(argument);
    }
    // A group of its own: what is typed at the terminal of an agent in the foreground is not for it.
    command.env_clear().env("LC_ALL", "C").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Starts it, with what it needs to read journals and nothing else of what the agent may.
fn spawn(command: &mut Command) -> io::Result<std::process::Child> {
    let _lent = confine::lend(confine::JOURNALCTL);
    command.spawn()
}

/// One line of what it said.
fn told(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that prints `text` in place of journalctl.
    fn child(text: &str, longest: usize) -> Child {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut command = Command::new("cat");
        command.stdin(file.reopen().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Child::of(command.spawn().unwrap(), longest).unwrap()
    }

    #[test]
    fn no_part_of_a_long_entry_is_an_entry() {
        let long = "x".repeat(3 * BLOCK);
        let mut child = child(&format!("one\n{long}\ntwo\n12345\nrest"), 4);
        let mut got = Vec::new();
        while child.hear().unwrap() == Heard::Something {
            while let Some(line) = child.line() {
                got.push(String::from_utf8(line.to_vec()).unwrap());
            }
            assert!(child.buffer.len() <= BLOCK + 5, "memory is bounded");
        }
        assert_eq!(got, ["one", "two"]);
        assert_eq!(child.skipped, 2);
        assert_eq!(child.end(), "it ended (exit status: 0)");
    }

    #[test]
    fn a_place_without_a_journal_is_told() {
        let told = missing_journal(Some(Path::new("/nonexistent"))).unwrap_err().to_string();
        assert!(
            told.starts_with("there is no journal in /nonexistent (does systemd-journald run?"),
            "{told}"
        );
    }

    #[test]
    fn complaints_are_one_line() {
        assert_eq!(told(b"Failed to seek\n\n  Hint: x \n"), "Failed to seek; Hint: x");
    }
}
