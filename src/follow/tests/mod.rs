//! Each behaviour on real files in a directory of its own. Time is given; inotify is off unless a test is about it, so
//! that every turn looks at everything.

mod model;
mod notified;
mod reading;
mod rotation;
mod sources;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// What came, in order.
#[derive(Default)]
struct Record {
    lines: Vec<(FileId, Vec<u8>)>,
    /// File, offset of its first line, live, sources.
    blocks: Vec<(FileId, u64, bool, Vec<SourceId>)>,
    events: Vec<String>,
    opened: Vec<(FileId, PathBuf)>,
}

impl Handler for Record {
    fn block(&mut self, file: &FileInfo, lines: Lines<'_>) {
        self.blocks.push((file.id, lines.offset(), lines.live(), file.sources.clone()));
        self.lines.extend(lines.map(|line| (file.id, line.to_vec())));
    }

    /// Lines are `<seconds> text`.
    fn stamp(&mut self, _: &FileInfo, line: &[u8]) -> Option<Timestamp> {
        let text = std::str::from_utf8(line).ok()?;
        Some(Timestamp::from_secs(text.split(' ').next()?.parse().ok()?))
    }

    fn event(&mut self, event: Event<'_>) {
        if let Event::Followed { file, .. } = &event {
            self.opened.push((file.id, file.path.clone()));
        }
        self.events.push(event.to_string());
    }
}

/// A directory, a follower of some of it, and what came.
struct Scene {
    directory: tempfile::TempDir,
    follower: Follower,
    record: Record,
    now: Timestamp,
}

impl Scene {
    fn new(sources: &[(&str, From)]) -> Self {
        Self::with(Options::default(), sources)
    }

    fn with(options: Options, sources: &[(&str, From)]) -> Self {
        let options = Options { poll: Duration::ZERO, inotify: false, ..options };
        let mut scene = Self {
            directory: tempfile::tempdir().unwrap(),
            follower: Follower::new(options),
            record: Record::default(),
            now: Timestamp::from_secs(1_000_000),
        };
        scene.set_sources(sources);
        scene
    }

    fn set_sources(&mut self, sources: &[(&str, From)]) {
        let named = sources.iter().zip(0..).map(|(&(pattern, from), id)| Source {
            id: SourceId(id),
            pattern: self.path(pattern).to_str().unwrap().to_owned(),
            from,
        });
        self.follower.set_sources(&named.collect::<Vec<_>>());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) -> File {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
        file
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Turns until nothing is left to read; the lines that came, with `|` after each.
    fn turn(&mut self) -> String {
        let before = self.record.lines.len();
        while self.follower.turn(self.now, Duration::ZERO, &mut self.record).pending {}
        self.record.lines[before..].iter().map(|(_, line)| String::from_utf8_lossy(line) + "|").collect()
    }

    /// The same, so many seconds later.
    fn later(&mut self, seconds: u64) -> String {
        self.now = self.now.saturating_add(Duration::from_secs(seconds));
        self.turn()
    }

    /// How many events since the beginning say this of the file.
    fn said(&self, name: &str, what: &str) -> usize {
        let path = self.path(name).display().to_string();
        self.record.events.iter().filter(|event| event.contains(&path) && event.contains(what)).count()
    }

    fn status(&self, name: &str) -> FileStatus {
        let path = self.path(name);
        self.follower.status().files.into_iter().find(|file| file.path == path && !file.leaving).unwrap()
    }
}
