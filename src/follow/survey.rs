//! Which paths the sources ask for, which directories are watched for them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Handler;
use super::entry::{Entry, forget_alias, is_gone};
use super::event::{Attempt, Event, FileId};
use super::follower::Follower;
use super::glob::{Directories, Pattern, is_compressed};
use super::source::{From, Source, SourceId};
use super::watch::Change;
use crate::types::Timestamp;

/// A path that a glob found and that is gone is remembered for so long, so that the file that takes it over counts as a
/// rotation.
const REMEMBER: Duration = Duration::from_secs(3600);

/// A source and what became of it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) source: Source,
    pub(super) pattern: Pattern,
    /// Whether it was looked for before: what it finds from then on is new.
    pub(super) scanned: bool,
    /// Whether it has nothing.
    pub(super) waiting: bool,
    pub(super) missing: Option<PathBuf>,
}

impl Watched {
    pub(super) fn new(source: Source) -> Self {
        let pattern = Pattern::parse(&source.pattern);
        Self { source, pattern, scanned: false, waiting: false, missing: None }
    }
}

/// In this directory a name that fits the pattern's part at `depth` matters to a source.
#[derive(Debug)]
pub(super) struct Interest {
    directory: PathBuf,
    source: usize,
    depth: usize,
}

impl Follower {
    /// Looks at everything.
    pub(super) fn scan(&mut self, now: Timestamp, handler: &mut dyn Handler) {
        // What comes into being between the look and the watch is only seen by another look. A few are enough, or the
        // next poll finds it.
        for _ in 0..8 {
            self.scan_due = false;
            self.scan_once(now, handler);
            if !self.set_watches(now, handler) {
                break;
            }
        }
        self.last_scan = Some(now);
        self.drop_entries(now, handler);
        self.tell_waiting(handler);
    }

    fn scan_once(&mut self, now: Timestamp, handler: &mut dyn Handler) {
        self.scans += 1;
        self.interests.clear();
        let mut directories = Directories::default();
        let mut unlisted = HashMap::new();
        for i in 0..self.sources.len() {
            let walk = self.sources[i].pattern.walk(&mut directories);
            for path in walk.candidates {
                self.candidate(path, i);
            }
            for (directory, depth) in walk.interests {
                if let Some((real, _)) = directories.find(&directory) {
                    let interests = self.interests.entry(real.clone()).or_default();
                    interests.push(Interest { directory, source: i, depth });
                }
            }
            for (directory, error) in walk.failed {
                let code = error.raw_os_error();
                if !is_gone(&error) && self.unlisted.get(&directory) != Some(&code) {
                    self.tell(Attempt::List, &directory, &error, handler);
                }
                self.unlisted.insert(directory.clone(), code);
                unlisted.insert(directory, code);
            }
            self.sources[i].missing = walk.missing;
            self.sources[i].scanned = true;
        }
        self.unlisted = unlisted;
        self.resume_marks(now, handler);
        for path in self.paths() {
            self.look(&path, now, handler);
        }
        self.enqueue_twins();
    }

    /// All paths, a log before its copies: those have longer names.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = self.entries.keys().cloned().collect();
        paths.sort_unstable_by_key(|path| path.as_os_str().len());
        paths
    }

    /// A name in a watched directory changed; says whether any source cares.
    pub(super) fn noticed(
        &mut self,
        path: &Path,
        change: Change,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> bool {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let Some(interests) = self.interests.get(directory) else { return false };
        let mut paths: Vec<(PathBuf, usize)> = Vec::new();
        let mut known = false;
        for interest in interests {
            let pattern = &self.sources[interest.source].pattern;
            if !pattern.fits(interest.depth, name) {
                continue;
            }
            if pattern.is_last(interest.depth) {
                known = true;
                paths.push((interest.directory.join(name), interest.source));
            } else if change == Change::Name {
                self.scan_due = true;
            }
        }
        for (path, source) in paths {
            self.candidate(path.clone(), source);
            self.look(&path, now, handler);
        }
        known
    }

    /// The path may lead to a file of the source.
    fn candidate(&mut self, path: PathBuf, source: usize) {
        let Watched { source, pattern, scanned, .. } = &self.sources[source];
        if pattern.ends_in_glob() && is_compressed(&path) {
            return;
        }
        // The successor of a file that is being left is new, too, whoever asks for it now.
        let left = || {
            let mut leaving = self.parting.iter().filter_map(|id| self.files.get(id));
            leaving.any(|file| file.leaving && file.info.path == path)
        };
        let is_new = *scanned || !self.entries.contains_key(&path) && left();
        let from = if is_new { From::Start } else { source.from };
        let scan = self.scans;
        let entry = self.entries.entry(path).or_insert_with(|| Entry::new(from, !is_new, scan));
        if entry.scan == scan && entry.file.is_none() {
            entry.from = entry.from.wider(from);
        }
        entry.named |= !pattern.ends_in_glob();
        if let Err(i) = entry.sources.binary_search(&source.id) {
            entry.sources.insert(i, source.id);
            if let Some(id) = entry.file {
                self.collect_sources(id);
            }
        }
    }

    /// Brings the watches in line with the sources and the files; says whether one came.
    pub(super) fn set_watches(&mut self, now: Timestamp, handler: &mut dyn Handler) -> bool {
        self.watches_due = false;
        let mut directories = Directories::default();
        let mut wanted = HashMap::new();
        let of_files = self.aliases.keys().filter_map(|path| path.parent());
        for directory in self.interests.keys().map(PathBuf::as_path).chain(of_files) {
            if wanted.contains_key(directory) {
                continue;
            }
            if let Some(&(_, identity)) = directories.find(directory) {
                wanted.insert(directory.to_owned(), identity);
            }
        }
        self.watch.set(&wanted, now, handler)
    }

    /// Finds out anew which sources ask for the known paths, after the sources changed.
    pub(super) fn assign_sources(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        for (path, entry) in &mut entries {
            entry.sources = self.asking_for(path);
        }
        self.entries = entries;
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            self.collect_sources(id);
        }
    }

    /// The sources whose pattern fits the path.
    pub(super) fn asking_for(&self, path: &Path) -> Vec<SourceId> {
        let fitting = self.sources.iter().filter(|watched| watched.pattern.fits_path(path));
        let mut ids: Vec<_> = fitting.map(|watched| watched.source.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Drops the paths that no source asks for any more, and their files.
    fn drop_entries(&mut self, now: Timestamp, handler: &mut dyn Handler) {
        let unwanted = self.entries.iter().filter(|(_, entry)| {
            let forgotten = entry.gone_since.is_some_and(|since| now.since(since) > REMEMBER);
            entry.sources.is_empty() || (!entry.named && !entry.present && entry.file.is_none() && forgotten)
        });
        for path in unwanted.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.unbind(&path);
            if let Some(entry) = self.entries.remove(&path) {
                forget_alias(&mut self.aliases, &entry.real, &path);
            }
        }
        let unwanted =
            self.files.values().filter(|file| file.info.sources.is_empty()).map(|file| file.info.id);
        for id in unwanted.collect::<Vec<_>>() {
            self.close(id, handler);
        }
    }

    /// Says of each source that has nothing that it has nothing, once.
    fn tell_waiting(&mut self, handler: &mut dyn Handler) {
        let mut found = HashSet::new();
        for entry in self.entries.values().filter(|entry| entry.present) {
            found.extend(entry.sources.iter().copied());
        }
        for watched in &mut self.sources {
            let waiting = !found.contains(&watched.source.id);
            if waiting && !watched.waiting {
                handler.event(Event::Waiting {
                    source: watched.source.id,
                    pattern: &watched.source.pattern,
                    missing: watched.missing.as_deref(),
                });
            }
            watched.waiting = waiting;
        }
    }

    /// Sums up which sources a file has: those of its paths, or of its last one when it has left them.
    pub(super) fn collect_sources(&mut self, id: FileId) {
        let Some(file) = self.files.get(&id) else { return };
        let sources = if file.paths.is_empty() {
            self.asking_for(&file.info.path)
        } else {
            let entries = file.paths.iter().filter_map(|path| self.entries.get(path));
            let mut sources: Vec<_> = entries.flat_map(|entry| entry.sources.iter().copied()).collect();
            sources.sort_unstable();
            sources.dedup();
            sources
        };
        if let Some(file) = self.files.get_mut(&id) {
            file.info.sources = sources;
        }
    }
}
