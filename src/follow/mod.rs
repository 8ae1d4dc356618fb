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
//! - A log that is copied and emptied (`copytruncate`) is read on in its copy, if that is beside it, begins with the
//!   log's name and has the log's first bytes and those before the place up to which it was read. A glob that matches
//!   the copy, too, does not read it twice.
//! - What rotation made of a log is read before what took its place, also when it happened several times since the log
//!   was looked at: files beside it with a number or a date that is newer than that of the one that was read last, and
//!   that were written since. Compressed by gzip they are unpacked, one at a time and in pieces.
//! - A line is handed over when its newline is there, or when the file is gone for good.
//! - No line is longer than the limit, and no part of a longer one is taken for a line.
//! - One file's troubles are told and tried again; they stop no other file.
//!
//! # Marks
//!
//! All of that holds over the end of the process, too, even by `kill -9`, if the next one is given the marks that this
//! one told ([`Handler::mark`], [`Follower::resume`]). Whoever keeps them must keep, at one moment, everything that
//! came of some calls and the latest mark of each file by then: then no line is counted twice and none is missed,
//! whatever that moment is. What makes it so:
//!
//! - A file is marked when it is opened, before its first line, with its first bytes; then after each block, and
//!   whenever its place, its path or what is known of its first bytes changes. So a batch that ends in the middle of a
//!   block is at [`Mark::at`] the line, of the mark before that block.
//! - What holds the older lines is marked first: the copy, at the place up to which the log was read, before the log is
//!   marked as emptied; what is left of a rotated log, before what took its place.
//! - A file is marked as done (`None`) after its last line, never at a rename.
//! - A file that was rotated away keeps the path that it left, by which its sources are known.
//!
//! A mark is believed when first bytes, length and the bytes before the offset are right; device and inode only say
//! where to look first. When they are not right, the file was emptied or replaced: what was left is looked for in a
//! copy, and what is there now is read from its start. A mark that leads nowhere is told as lost and dropped, as is,
//! without a word, one that no source asks for; while its directory is not there it is kept for an hour, and while it
//! cannot be looked at as long as need be.
//!
//! # What does not
//!
//! - What is written to a log after its copy was made and before it is emptied is lost, as with any reader, and a line
//!   that the emptying breaks in two comes as two. So is what a log held that was emptied without a copy, or was seen
//!   only while it was empty and emptied once more by then.
//! - What was rotated away and then deleted, moved to another directory or compressed otherwise than by gzip before it
//!   was looked at is lost; that is told if it was followed. A log that is by turns renamed and copied may be mistaken.
//! - A file that has a followed name only between two turns is not seen if its name does not say which log it was, or if
//!   the one before it is gone.
//! - A log that nobody opened again within an hour of its renaming is forgotten; what appears at its place is begun, by
//!   the next process, as its source says. So is a log that appeared while no process ran and has no marked forebear.
//! - A copy is told by its bytes: logs that begin alike for 64 bytes and are alike before the offset, too, are taken for
//!   one another when one of them was emptied; for compressed ones the first 64 bytes must do.
//! - NULs where a file continues after a truncation are taken for the hole that a writer leaves who does not append.

mod begin;
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
mod open;
mod past;
mod position;
mod reading;
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

    /// The place of `file` changed: it was opened, its lines up to there were handed over, or it was renamed or emptied.
    /// `None`: it is done with and to be forgotten; which mark that means is known from an earlier call with the same
    /// number. See [Marks](self#marks).
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
