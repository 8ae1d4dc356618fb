//! Which path leads to which file.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::Handler;
use super::event::{Attempt, Event, FileId, Unfit};
use super::follower::Follower;
use super::glob::is_compressed;
use super::position::Identity;
use super::source::{From, SourceId};
use crate::types::Timestamp;

/// A path that is, or may come to be, a followed file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) file: Option<FileId>,
    /// How many times another file took the path.
    pub(super) rotations: u64,
    pub(super) sources: Vec<SourceId>,
    pub(super) from: From,
    /// Whether it may have been there before it was first looked for.
    pub(super) old: bool,
    /// The scan that found it.
    pub(super) scan: u64,
    /// Written so in the configuration, not found by a glob.
    pub(super) named: bool,
    pub(super) present: bool,
    pub(super) gone_since: Option<Timestamp>,
    /// What is to be read before the file that is found here next.
    pub(super) after: Option<FileId>,
    /// The file that was here before.
    pub(super) left: Option<FileId>,
    had_file: bool,
    said: Option<Said>,
    /// The path without symbolic links, as inotify says it, when a file was last there. Kept while it is gone: the next
    /// one will most likely come into being at the same place.
    pub(super) real: PathBuf,
}

/// A trouble that was told and is not told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Unfit(Unfit),
    Error(Option<i32>),
}

impl Entry {
    pub(super) fn new(from: From, old: bool, scan: u64) -> Self {
        Self {
            file: None,
            rotations: 0,
            sources: Vec::new(),
            from,
            old,
            scan,
            named: false,
            present: false,
            gone_since: None,
            after: None,
            left: None,
            had_file: false,
            said: None,
            real: PathBuf::new(),
        }
    }
}

impl Follower {
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

    /// The path leads to this file from now on.
    pub(super) fn bind(&mut self, path: &Path, id: FileId) {
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
    pub(super) fn unbind(&mut self, path: &Path) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        let Some(id) = entry.file.take() else { return };
        entry.from = From::Start;
        entry.old = false;
        entry.left = Some(id);
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
                let path = path.clone();
                let from = file.set_path(&path);
                file.moved = true;
                handler.event(Event::Moved { file: &file.info, from: &from });
                file.tell_mark(handler);
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

    /// Tells a trouble with a path, unless it was told.
    pub(super) fn complain(
        &mut self,
        path: &Path,
        attempt: Attempt,
        error: &io::Error,
        handler: &mut dyn Handler,
    ) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        entry.present = true;
        let said = Some(Said::Error(error.raw_os_error()));
        if entry.said == said {
            return;
        }
        entry.said = said;
        self.tell(attempt, path, error, handler);
    }

    /// Tells a trouble. Too many open files is one trouble, not one for each file.
    pub(super) fn tell(
        &mut self,
        attempt: Attempt,
        path: &Path,
        error: &io::Error,
        handler: &mut dyn Handler,
    ) {
        let exhausted =
            matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE));
        if !exhausted || !std::mem::replace(&mut self.exhausted, true) {
            handler.event(Event::Failed { attempt, path, error });
        }
    }
}

/// The path is not reached through `real` any more.
pub(super) fn forget_alias(aliases: &mut HashMap<PathBuf, Vec<PathBuf>>, real: &Path, path: &Path) {
    if let Some(paths) = aliases.get_mut(real) {
        paths.retain(|known| known != path);
        if paths.is_empty() {
            aliases.remove(real);
        }
    }
}

/// Whether the error says that nothing is there, which is no trouble.
pub(super) fn is_gone(error: &io::Error) -> bool {
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
