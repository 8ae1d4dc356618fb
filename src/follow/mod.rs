//! From files to lines.
//!
//! A [`Follower`] is given sources (paths and globs) and hands the lines that are added to the files they match to a
//! [`Handler`], in blocks of whole lines. It belongs to one thread, which calls [`Follower::turn`] in a loop; nothing
//! is read while the handler is busy, because the log is on disk and waits.
//!
//! ```text
//!  sources ─► glob: which paths, which directories
//!                │                    │
//!                │                    └─► watch: inotify on the directories ──► names that changed ─┐
//!                ▼                                                                                  │
//!             survey, entry: path ─► file (device, inode) ◄── all paths, once per poll interval ◄───┤
//!                │   opened, renamed, deleted                                                       │
//!                ▼                                                                                  │
//!             file: read what was added ◄── queue of files to be read ◄─────────────────────────────┘
//!                └─► lines ─► handler
//! ```
//!
//! # What holds
//!
//! - A file is what device and inode say, whatever its names are. It is read once, also when several sources or names
//!   lead to it, and each of its complete lines is handed over once and in order.
//! - A file that is renamed or deleted is read on until nobody has written to it for a while, so a writer that has not
//!   reopened its log yet loses nothing.
//! - A line is handed over when its newline is there, or when the file is gone for good.
//! - No line is longer than the limit, and no part of a longer one is taken for a line.
//! - One file's troubles are told and tried again; they stop no other file.
//!
//! # What does not
//!
//! - What was written just before a truncation (`copytruncate`) and not read by then is lost, as is a last line without
//!   newline. A glob that matches the copy, too, reads those lines once more: name the log, not its copies.
//! - A file that has a followed name only between two turns is never seen.
//! - NULs where a file continues after a truncation are taken for the hole that a writer leaves who does not append.

mod body;
mod entry;
mod event;
mod file;
mod follower;
mod glob;
mod kin;
mod lines;
mod listing;
mod mark;
mod past;
mod position;
mod recent;
mod rest;
mod resume;
mod source;
mod status;
mod survey;
mod twin;
mod unpack;
mod watch;

#[cfg(test)]
mod tests;

pub use event::{Attempt, Event, FileId, FileInfo, NoWatch, Unfit};
pub use follower::{Follower, Options, Turn};
pub use glob::{matching_files, pattern_matches};
pub use lines::Lines;
pub use mark::{Inside, Mark};
pub use position::Position;
pub use source::{From, Source, SourceId};
pub use status::{FileStatus, SourceStatus, Status};
pub use watch::Waker;

use crate::types::Timestamp;

/// What the follower's findings go to.
pub trait Handler {
    /// Takes lines that were added to `file`.
    fn block(&mut self, file: &FileInfo, lines: Lines<'_>);

    /// The time of a line, if it has one. Asked only to find the place in a file from which its lines are recent.
    fn stamp(&mut self, file: &FileInfo, line: &[u8]) -> Option<Timestamp>;

    /// The place of `file` changed: it was opened, or its lines up to there were handed over. The latest mark of each
    /// file, kept together with what came of the lines before it, is what [`Follower::resume`] takes in the next
    /// process. `None`: the file is done with, and its mark is to be forgotten.
    fn mark(&mut self, file: &FileInfo, mark: Option<&Mark>) {
        let _ = (file, mark);
    }

    /// The last line that an earlier process was handed of a file that is resumed now, because what a line means may
    /// depend on the one before it. It counts as nothing else.
    fn before(&mut self, file: &FileInfo, line: &[u8]) {
        let _ = (file, line);
    }

    /// Is told what happened besides.
    fn event(&mut self, event: Event<'_>);
}
