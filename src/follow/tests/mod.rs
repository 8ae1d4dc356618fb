//! Each behaviour on real files in a directory of its own. Time is given; inotify is off unless a test is about it, so
//! that every turn looks at everything.

mod copies;
mod hostile;
mod model;
mod notified;
mod reading;
mod restarts;
mod resuming;
mod rotation;
mod sources;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// What came, in order.
#[derive(Default)]
struct Record {
    lines: Vec<(FileId, Vec<u8>)>,
    /// File, offset of its first line, live, sources.
    blocks: Vec<(FileId, u64, bool, Vec<SourceId>)>,
    events: Vec<String>,
    opened: Vec<(FileId, PathBuf)>,
    before: Vec<(FileId, Vec<u8>)>,
    ledger: Ledger,
    /// So many lines and marks more are taken; what comes then finds that the process is dead.
    life: Option<usize>,
}

/// The latest mark of each file, as somebody would keep them who knows them by device and inode.
#[derive(Default)]
struct Ledger {
    marks: BTreeMap<(u64, u64), Mark>,
    files: BTreeMap<FileId, (u64, u64)>,
}

impl Ledger {
    fn note(&mut self, file: FileId, mark: Option<&Mark>) {
        let key = mark.map(|mark| (mark.position.dev, mark.position.inode));
        let former = match key {
            Some(key) => self.files.insert(file, key),
            None => self.files.remove(&file),
        };
        if let Some(former) = former.filter(|former| Some(*former) != key) {
            self.marks.remove(&former);
        }
        if let (Some(key), Some(mark)) = (key, mark) {
            self.marks.insert(key, mark.clone());
        }
    }

    fn of(&self, file: FileId) -> Option<&Mark> {
        self.marks.get(self.files.get(&file)?)
    }
}

impl Record {
    fn lives(&mut self) -> bool {
        match &mut self.life {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl Handler for Record {
    fn block(&mut self, file: &FileInfo, mut lines: Lines<'_>) {
        let known = self.ledger.of(file.id).cloned().or_else(|| {
            assert_eq!(self.life, Some(0), "a file is marked before its first line");
            None
        });
        if self.life != Some(0) {
            self.blocks.push((file.id, lines.offset(), lines.live(), file.sources.clone()));
        }
        while let Some(line) = lines.next() {
            if self.lives() {
                self.lines.push((file.id, line.to_vec()));
                // A batch may end after any line.
                if self.life.is_some()
                    && let Some(known) = &known
                {
                    self.ledger.note(file.id, Some(&known.at(lines.offset())));
                }
            }
        }
    }

    fn mark(&mut self, file: &FileInfo, mark: Option<&Mark>) {
        if self.lives() {
            self.ledger.note(file.id, mark);
        }
    }

    fn before(&mut self, file: &FileInfo, line: &[u8]) {
        self.before.push((file.id, line.to_vec()));
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
    options: Options,
    sources: Vec<Source>,
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
            options,
            sources: Vec::new(),
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
        self.sources = named.collect();
        self.follower.set_sources(&self.sources);
    }

    /// The process ends; what was marked is kept.
    fn stop(&mut self) {
        self.record.ledger.files.clear();
        self.follower = Follower::new(self.options);
    }

    /// The next one begins with these marks.
    fn start(&mut self) {
        self.stop();
        self.follower.set_sources(&self.sources);
        self.follower.resume(self.record.ledger.marks.values().cloned().collect());
    }

    /// The path, offset and head of each mark.
    fn marks(&self) -> Vec<(String, u64, String)> {
        let root = self.directory.path();
        let told = self.record.ledger.marks.values().map(|mark| {
            let path = mark.path.strip_prefix(root).unwrap().display().to_string();
            (path, mark.position.offset, String::from_utf8_lossy(&mark.head).into_owned())
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    }

    /// Copies a log and empties it, as `copytruncate` does.
    fn copy_and_truncate(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
        File::options().write(true).open(self.path(from)).unwrap().set_len(0).unwrap();
    }

    /// Compresses a file, as gzip does.
    fn gzip(&self, name: &str) {
        let to = format!("{name}.gz");
        let mut encoder = GzEncoder::new(File::create(self.path(&to)).unwrap(), Compression::fast());
        encoder.write_all(&fs::read(self.path(name)).unwrap()).unwrap();
        let file = encoder.finish().unwrap();
        file.set_modified(fs::metadata(self.path(name)).unwrap().modified().unwrap()).unwrap();
        self.remove(name);
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
