//! What the follower has to say besides lines.

use std::fmt;
use std::io;
use std::path::Path;

use super::source::SourceId;

/// A followed file, as its lines' receiver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its number: one per opened file, so the file that takes a name over after a rotation has another.
    pub id: FileId,
    /// Where it was last found.
    pub path: std::path::PathBuf,
    /// The sources that match it, in ascending order.
    pub sources: Vec<SourceId>,
}

/// An opened file's number; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// Something happened that a log line or a status may tell. `Display` says it in one sentence, with what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file was opened and is read from `offset` on.
    Followed {
        /// The file.
        file: &'a FileInfo,
        /// Where it is begun, in bytes.
        offset: u64,
        /// Its size when it was opened, in bytes.
        size: u64,
    },
    /// Nothing there yet that the source names. Said once; it is waited for.
    Waiting {
        /// The source.
        source: SourceId,
        /// Its pattern.
        pattern: &'a str,
        /// The first part of the path that does not exist; `None` when only a glob found nothing.
        missing: Option<&'a Path>,
    },
    /// The file was renamed to something that no source names. It is read on until its writer has left it.
    Rotated {
        /// The file, under its former path.
        file: &'a FileInfo,
    },
    /// The file was renamed to something that a source names: it is read on from where it was.
    Moved {
        /// The file, under its new path.
        file: &'a FileInfo,
        /// Its former path.
        from: &'a Path,
    },
    /// The file was deleted. It is read on until its writer has left it.
    Deleted {
        /// The file.
        file: &'a FileInfo,
    },
    /// The file was emptied or written anew in place, and is begun again.
    Truncated {
        /// The file.
        file: &'a FileInfo,
        /// How far it had been read, in bytes.
        was_at: u64,
        /// How long it was when this was noticed, in bytes.
        size: u64,
    },
    /// The rest of a log's lines is read from the file that it became: it was rotated while nobody looked, or copied and
    /// emptied.
    Leftover {
        /// The file, under the log's path.
        file: &'a FileInfo,
        /// Where it is now.
        found: &'a Path,
        /// Where it is begun, in bytes.
        offset: u64,
        /// Its size, in bytes; `None` of a compressed one.
        size: Option<u64>,
    },
    /// A log is gone, or was written anew, and what may have been written to it since it was read last is nowhere to be
    /// found.
    Lost {
        /// The log.
        path: &'a Path,
        /// How far it had been read, in bytes.
        offset: u64,
        /// A file that may hold the lines but is compressed in a way that is not read.
        within: Option<&'a Path>,
    },
    /// The file was read to its end and closed: it was rotated away or deleted, or is no longer wanted.
    Closed {
        /// The file.
        file: &'a FileInfo,
    },
    /// A path that leads to something that cannot be followed. Said once.
    NotFollowed {
        /// The path.
        path: &'a Path,
        /// What is there.
        what: Unfit,
    },
    /// A file to be begun at its recent lines has none with a time that the formats understand; its end is read.
    NoTimes {
        /// The file.
        file: &'a FileInfo,
        /// Where it is begun instead, in bytes.
        offset: u64,
    },
    /// Something could not be done with one file or directory. Said once until it works; it is tried again.
    Failed {
        /// What was tried.
        attempt: Attempt,
        /// With what.
        path: &'a Path,
        /// How it failed.
        error: &'a io::Error,
    },
    /// The kernel gives no (more) inotify watches. Polling goes on.
    Polling {
        /// The directory, if it is about one; otherwise all.
        path: Option<&'a Path>,
        /// Why.
        why: NoWatch<'a>,
    },
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// To open a file or ask about it.
    Open,
    /// To read it.
    Read,
    /// To unpack what was compressed.
    Unpack,
    /// To list a directory.
    List,
}

/// Why a path is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A directory.
    Directory,
    /// A pipe.
    Pipe,
    /// A terminal, `/dev/null` or the like.
    Device,
    /// A socket.
    Socket,
    /// Compressed, judging by its name.
    Compressed,
}

/// Why there is no inotify watch.
#[derive(Clone, Copy, Debug)]
pub enum NoWatch<'a> {
    /// `fs.inotify.max_user_instances` is reached.
    Instances,
    /// `fs.inotify.max_user_watches` is reached.
    Watches,
    /// Something else.
    Other(&'a str),
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Followed { file, offset, size } => {
                write!(f, "following {} from byte {offset} of {size}", file.path.display())
            }
            Self::Waiting { pattern, missing: Some(missing), .. } => {
                write!(f, "waiting for {}, which does not exist yet", missing.display())?;
                if Path::new(pattern) == *missing { Ok(()) } else { write!(f, " (for {pattern})") }
            }
            Self::Waiting { pattern, missing: None, .. } => {
                write!(f, "waiting for a file that matches {pattern}")
            }
            Self::Rotated { file } => write!(f, "{} was rotated away", file.path.display()),
            Self::Moved { file, from } => write!(f, "{} is now {}", from.display(), file.path.display()),
            Self::Deleted { file } => write!(f, "{} was deleted", file.path.display()),
            Self::Truncated { file, was_at, size } => write!(
                f,
                "{} was truncated: read up to byte {was_at}, now {size} long; beginning again",
                file.path.display()
            ),
            Self::Leftover { file, found, offset, size } => {
                write!(
                    f,
                    "reading the rest of {} in {}, from byte {offset}",
                    file.path.display(),
                    found.display()
                )?;
                size.map_or(Ok(()), |size| write!(f, " of {size}"))
            }
            Self::Lost { path, offset, within } => {
                write!(
                    f,
                    "what was written to {} after byte {offset} and before it was rotated away is lost: ",
                    path.display()
                )?;
                match within {
                    Some(within) => write!(
                        f,
                        "it may be in {}, which is compressed in a way that is not read; let logrotate use \
                         delaycompress, or gzip",
                        within.display()
                    ),
                    None => f.write_str(
                        "there is no renamed, copied or gzip-compressed file beside it that begins as it did",
                    ),
                }
            }
            Self::Closed { file } => write!(f, "{} is done and closed", file.path.display()),
            Self::NotFollowed { path, what } => {
                write!(f, "not following {}: it is {}; {}", path.display(), what.noun(), what.advice())
            }
            Self::NoTimes { file, offset } => write!(
                f,
                "found no time in the lines of {}, so cannot tell which are recent: beginning at byte {offset}; \
                 check that the filter's format fits this log",
                file.path.display()
            ),
            Self::Failed { attempt, path, error } => {
                write!(f, "failed to {} {}: {error}; {}", attempt.verb(), path.display(), advice(error))
            }
            Self::Polling { path, why } => {
                match path {
                    Some(path) => write!(f, "no inotify watch for {}", path.display())?,
                    None => write!(f, "no inotify")?,
                }
                match why {
                    NoWatch::Instances => write!(
                        f,
                        ": the limit of instances (or of the agent's open files) is reached; \
                         raise it with sysctl fs.inotify.max_user_instances"
                    )?,
                    NoWatch::Watches => write!(
                        f,
                        ": the limit of watches is reached; raise it with sysctl fs.inotify.max_user_watches"
                    )?,
                    NoWatch::Other(text) => write!(f, ": {text}")?,
                }
                f.write_str("; polling until then")
            }
        }
    }
}

impl Attempt {
    fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Unpack => "unpack",
            Self::List => "list",
        }
    }
}

impl Unfit {
    fn noun(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::Pipe => "a pipe",
            Self::Device => "a device",
            Self::Socket => "a socket",
            Self::Compressed => "compressed",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Directory => "name the files in it, as in /var/log/nginx/*.log",
            Self::Pipe | Self::Device | Self::Socket => {
                "let the program write its log to a regular file (container images often link it to /dev/stdout)"
            }
            Self::Compressed => "name the log itself",
        }
    }
}

/// What to do about an error, in words.
fn advice(error: &io::Error) -> &'static str {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => {
            "let the agent read the file and enter its directories (owner, group or ACL; SELinux or AppArmor)"
        }
        Some(Errno::EMFILE) => "raise the agent's limit of open files (LimitNOFILE= in its unit, ulimit -n)",
        Some(Errno::ENFILE) => "raise the system's limit of open files (sysctl fs.file-max)",
        Some(Errno::ELOOP) => "a symbolic link leads to itself: correct it",
        Some(Errno::EIO) => "check the disk (dmesg); trying again",
        _ => "trying again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_what_to_do() {
        let denied = io::Error::from_raw_os_error(13);
        let said =
            Event::Failed { attempt: Attempt::Open, path: Path::new("/x.log"), error: &denied }.to_string();
        assert!(
            said.starts_with("failed to open /x.log: Permission denied (os error 13); let the agent"),
            "{said}"
        );
        let said = Event::Polling { path: None, why: NoWatch::Instances }.to_string();
        assert!(said.contains("sysctl fs.inotify.max_user_instances; polling"), "{said}");
        let said = Event::Polling { path: Some(Path::new("/l")), why: NoWatch::Watches }.to_string();
        assert!(said.starts_with("no inotify watch for /l:") && said.contains("max_user_watches"), "{said}");
        let said =
            Event::Waiting { source: SourceId(1), pattern: "/a/*.log", missing: Some(Path::new("/a")) }
                .to_string();
        assert_eq!(said, "waiting for /a, which does not exist yet (for /a/*.log)");
        let said = Event::Waiting { source: SourceId(1), pattern: "/a/x", missing: Some(Path::new("/a/x")) }
            .to_string();
        assert_eq!(said, "waiting for /a/x, which does not exist yet");
    }
}
