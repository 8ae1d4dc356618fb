//! What the follower can tell about itself.

use std::path::PathBuf;

use super::event::FileId;
use super::follower::Follower;
use super::position::Position;
use super::source::SourceId;

/// How following goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The open files, in the order in which they were opened.
    pub files: Vec<FileStatus>,
    /// The sources, in the order in which they were given.
    pub sources: Vec<SourceStatus>,
    /// How many directories inotify watches; without any, changes are only seen by polling.
    pub watched: usize,
}

/// How one open file is doing. Counts begin when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Its number.
    pub id: FileId,
    /// Where it was last found.
    pub path: PathBuf,
    /// The sources that match it.
    pub sources: Vec<SourceId>,
    /// Which file it is and how far it was read.
    pub position: Position,
    /// Its size when last looked at, in bytes.
    pub size: u64,
    /// How much of that was not handed over: what waits to be read, or a line without a newline yet. In bytes.
    pub behind: u64,
    /// Lines handed over.
    pub lines: u64,
    /// Lines left out because they were too long.
    pub skipped_long: u64,
    /// How many times another file took this one's path before.
    pub rotations: u64,
    /// How many times it was emptied or written anew in place.
    pub truncations: u64,
    /// Whether it was rotated away or deleted and is only read to its end.
    pub leaving: bool,
}

/// What one source has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its number.
    pub id: SourceId,
    /// Its pattern.
    pub pattern: String,
    /// What is being waited for, when it has no file: the first part of its path that does not exist, or its pattern.
    pub waiting_for: Option<String>,
}

impl Follower {
    /// How following goes, as of the last turn.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut files: Vec<_> = self
            .files
            .values()
            .map(|file| FileStatus {
                id: file.info.id,
                path: file.info.path.clone(),
                sources: file.info.sources.clone(),
                position: file.mark.position,
                size: file.size,
                behind: file.size.saturating_sub(file.mark.position.offset),
                lines: file.counts.lines,
                skipped_long: file.counts.skipped_long,
                rotations: self.entries.get(&file.info.path).map_or(0, |entry| entry.rotations),
                truncations: file.counts.truncations,
                leaving: file.leaving,
            })
            .collect();
        files.sort_unstable_by_key(|file| file.id);
        let sources = self.sources.iter().map(|source| SourceStatus {
            id: source.source.id,
            pattern: source.source.pattern.clone(),
            waiting_for: source.waiting.then(|| {
                source
                    .missing
                    .as_ref()
                    .map_or_else(|| source.source.pattern.clone(), |path| path.display().to_string())
            }),
        });
        Status { files, sources: sources.collect(), watched: self.watch.watched() }
    }
}
