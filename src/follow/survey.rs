//! Which path leads to which file.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Handler;
use super::event::{Attempt, Event, FileId, FileInfo, Unfit};
use super::file::File;
use super::follower::Follower;
use super::glob::{Directories, Pattern, is_compressed};
use super::position::{Identity, Position};
use super::recent;
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

/// A path that is, or may come to be, a followed file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) file: Option<FileId>,
    /// How many times another file took the path.
    pub(super) rotations: u64,
    sources: Vec<SourceId>,
    from: From,
    /// Whether it may have been there before it was first looked for.
    old: bool,
    /// The scan that found it.
    scan: u64,
    /// Written so in the configuration, not found by a glob.
    named: bool,
    present: bool,
    gone_since: Option<Timestamp>,
    had_file: bool,
    said: Option<Said>,
    /// The path without symbolic links, as inotify says it, when a file was last there. Kept while it is gone: the next
    /// one will most likely come into being at the same place.
    real: PathBuf,
}

/// A trouble that was told and is not told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Unfit(Unfit),
    Error(Option<i32>),
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
                    handler.event(Event::Failed { attempt: Attempt::List, path: &directory, error: &error });
                }
                self.unlisted.insert(directory.clone(), code);
                unlisted.insert(directory, code);
            }
            self.sources[i].missing = walk.missing;
            self.sources[i].scanned = true;
        }
        self.unlisted = unlisted;
        for path in self.entries.keys().cloned().collect::<Vec<_>>() {
            self.look(&path, now, handler);
        }
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
        let from = if *scanned { From::Start } else { source.from };
        let scan = self.scans;
        let entry = self.entries.entry(path).or_insert_with(|| Entry {
            file: None,
            rotations: 0,
            sources: Vec::new(),
            from,
            old: !scanned,
            scan,
            named: false,
            present: false,
            gone_since: None,
            had_file: false,
            said: None,
            real: PathBuf::new(),
        });
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

    /// Looks where the path leads now.
    pub(super) fn look(&mut self, path: &Path, now: Timestamp, handler: &mut dyn Handler) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_gone(&error) => {
                entry.present = false;
                entry.gone_since.get_or_insert(now);
                entry.said = None;
                entry.from = From::Start;
                entry.old = false;
                return self.unbind(path);
            }
            Err(error) => return self.complain(path, Attempt::Open, &error, handler),
        };
        entry.present = true;
        entry.gone_since = None;
        if let Some(what) = unfit(&metadata, path) {
            let said = Some(Said::Unfit(what));
            if entry.said != said && (entry.named || what != Unfit::Directory) {
                handler.event(Event::NotFollowed { path, what });
            }
            entry.said = said;
            return self.unbind(path);
        }
        let identity = Identity::of(&metadata);
        let id = self.by_identity.get(&identity).copied();
        if let Some(id) = id
            && entry.file == Some(id)
        {
            let file = self.files.get(&id);
            if file.is_some_and(|file| file.failed || file.may_have_changed(&metadata, now)) {
                self.enqueue(id);
            }
            return;
        }
        self.unbind(path);
        match id {
            Some(id) => self.bind(path, id),
            None => self.open(path, identity, now, handler),
        }
    }

    /// The path has a file that is not open yet.
    fn open(&mut self, path: &Path, expected: Identity, now: Timestamp, handler: &mut dyn Handler) {
        // Not blocking, because a pipe may have taken the place of the file: opening that would wait for a writer.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let opened = opened.and_then(|handle| Ok((handle.metadata()?, handle)));
        let (metadata, handle) = match opened {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => return,
            Err(error) => return self.complain(path, Attempt::Open, &error, handler),
        };
        if !metadata.is_file() {
            return;
        }
        // Some stacked file systems say another device or inode of an open file than of its path. The path's is what is
        // compared later, so that is the one to be known by.
        let mut identity = Identity::of(&metadata);
        if identity != expected && fs::metadata(path).is_ok_and(|again| Identity::of(&again) == expected) {
            identity = expected;
        }
        if let Some(&id) = self.by_identity.get(&identity) {
            return self.bind(path, id);
        }
        let Some(entry) = self.entries.get_mut(path) else { return };
        let id = FileId(self.next_file);
        let info = FileInfo { id, path: path.to_owned(), sources: entry.sources.clone() };
        let size = metadata.len();
        let begin = recent::begin(&handle, size, entry.from, now, &mut |line| handler.stamp(&info, line));
        let begin = match begin {
            Ok(begin) => begin,
            Err(error) => return self.complain(path, Attempt::Read, &error, handler),
        };
        if begin.blind {
            handler.event(Event::NoTimes { file: &info, offset: begin.offset });
        }
        handler.event(Event::Followed { file: &info, offset: begin.offset, size });
        let position = Position { dev: identity.dev, inode: identity.inode, offset: begin.offset };
        let mut file = File::new(info, handle, position, begin, now);
        if entry.old {
            file.backlog_up_to(size);
        }
        self.next_file += 1;
        self.files.insert(id, file);
        self.by_identity.insert(identity, id);
        self.bind(path, id);
    }

    /// The path leads to this file from now on.
    fn bind(&mut self, path: &Path, id: FileId) {
        let (Some(entry), Some(file)) = (self.entries.get_mut(path), self.files.get_mut(&id)) else { return };
        entry.file = Some(id);
        entry.said = None;
        entry.rotations += u64::from(entry.had_file);
        entry.had_file = true;
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.watches_due |= real.parent().is_some_and(|directory| !self.watch.is_watched(directory));
        if entry.real != real {
            let before = std::mem::replace(&mut entry.real, real.clone());
            forget_alias(&mut self.aliases, &before, path);
            self.aliases.entry(real).or_default().push(path.to_owned());
        }
        file.paths.push(path.to_owned());
        if file.leaving || !file.paths.contains(&file.info.path) {
            file.leaving = false;
            self.orphans.push(id);
        }
        self.collect_sources(id);
        self.enqueue(id);
    }

    /// The path leads to no file, or another one, from now on.
    fn unbind(&mut self, path: &Path) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        let Some(id) = entry.file.take() else { return };
        entry.from = From::Start;
        entry.old = false;
        if let Some(file) = self.files.get_mut(&id) {
            file.paths.retain(|known| known != path);
            self.orphans.push(id);
        }
        // Before the file that takes the path over.
        self.enqueue(id);
    }

    /// Decides about the files whose paths changed, once all paths were looked at: was it a rename within the sources,
    /// or did the file leave them?
    pub(super) fn settle(&mut self, now: Timestamp, handler: &mut dyn Handler) {
        for id in std::mem::take(&mut self.orphans) {
            let Some(file) = self.files.get_mut(&id) else { continue };
            if let Some(path) = file.paths.first() {
                if file.paths.contains(&file.info.path) {
                    continue;
                }
                let from = std::mem::replace(&mut file.info.path, path.clone());
                file.moved = true;
                handler.event(Event::Moved { file: &file.info, from: &from });
            } else if file.leaving {
                continue;
            } else {
                file.leaving = true;
                file.look_for_deletion();
                handler.event(if file.deleted {
                    Event::Deleted { file: &file.info }
                } else {
                    Event::Rotated { file: &file.info }
                });
            }
            file.grew = now;
            if !self.parting.contains(&id) {
                self.parting.push(id);
            }
            self.collect_sources(id);
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

    /// Takes the sources that are gone off paths and files.
    pub(super) fn forget_unwanted(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        for (path, entry) in &mut entries {
            entry.sources.retain(|&id| self.wants(id, path));
        }
        self.entries = entries;
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            self.collect_sources(id);
        }
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

    /// Sums up which sources a file has. One that has left its paths keeps those that still ask for its last one.
    fn collect_sources(&mut self, id: FileId) {
        let Some(file) = self.files.get(&id) else { return };
        let mut sources: Vec<SourceId> = if file.paths.is_empty() {
            file.info.sources.iter().copied().filter(|&source| self.wants(source, &file.info.path)).collect()
        } else {
            let entries = file.paths.iter().filter_map(|path| self.entries.get(path));
            entries.flat_map(|entry| entry.sources.iter().copied()).collect()
        };
        sources.sort_unstable();
        sources.dedup();
        if let Some(file) = self.files.get_mut(&id) {
            file.info.sources = sources;
        }
    }

    /// Tells a trouble with a path, unless it was told.
    fn complain(&mut self, path: &Path, attempt: Attempt, error: &io::Error, handler: &mut dyn Handler) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        entry.present = true;
        let said = Some(Said::Error(error.raw_os_error()));
        if entry.said != said {
            entry.said = said;
            handler.event(Event::Failed { attempt, path, error });
        }
    }
}

/// The path is not reached through `real` any more.
fn forget_alias(aliases: &mut HashMap<PathBuf, Vec<PathBuf>>, real: &Path, path: &Path) {
    if let Some(paths) = aliases.get_mut(real) {
        paths.retain(|known| known != path);
        if paths.is_empty() {
            aliases.remove(real);
        }
    }
}

/// Whether the error says that nothing is there, which is no trouble.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENOTDIR))
}

/// Why what is there cannot be followed, if so.
fn unfit(metadata: &fs::Metadata, path: &Path) -> Option<Unfit> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Some(Unfit::Directory)
    } else if kind.is_fifo() {
        Some(Unfit::Pipe)
    } else if kind.is_socket() {
        Some(Unfit::Socket)
    } else if !kind.is_file() {
        Some(Unfit::Device)
    } else {
        is_compressed(path).then_some(Unfit::Compressed)
    }
}
