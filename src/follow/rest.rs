//! Finding the file in which the rest of a log's lines is, after the log was renamed, copied and emptied, or compressed.
//!
//! A rotated log keeps its inode, a copy does not, and a compressed one does not even keep its bytes; so what is looked
//! for are the first bytes and those before the offset, under names that rotation makes of the log's.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::Handler;
use super::begin::Anew;
use super::body::Body;
use super::entry::is_gone;
use super::event::{Event, FileId, FileInfo};
use super::file::File;
use super::follower::Follower;
use super::glob::is_compressed;
use super::kin::{Generation, is_kin, logs_of};
use super::mark::{HEAD, Mark};
use super::position::Identity;
use super::unpack::Unpacker;
use crate::types::Timestamp;

/// A file that has what is looked for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) modified: (i64, i64),
    pub(super) size: u64,
    pub(super) body: Body,
}

/// What came of a search.
#[derive(Debug)]
pub(super) enum Search {
    Found(Box<Found>),
    /// It is not there. A file that may hold the lines, but cannot be read.
    Nothing(Option<PathBuf>),
    /// It could not be looked for: the directory is not there yet, or may not be listed, or the file may not be opened.
    Unknown(PathBuf, io::Error),
}

impl Follower {
    /// Looks for a marked file that is not at a followed path: first by its inode, then by what it holds.
    pub(super) fn find_rest(&mut self, mark: &Mark) -> Search {
        let search = self.search_rest(mark);
        let found = matches!(search, Search::Found(_));
        if found || !self.listings.distrust() { search } else { self.search_rest(mark) }
    }

    fn search_rest(&mut self, mark: &Mark) -> Search {
        let homes = homes(&mark.path);
        let elsewhere = self.interests.keys().filter(|path| homes.iter().all(|home| home.0 != **path));
        let elsewhere: Vec<_> = elsewhere.cloned().collect();
        let mut unknown = None;
        for (i, directory) in homes.iter().map(|home| &home.0).chain(&elsewhere).enumerate() {
            let listing = match self.listings.of(directory) {
                Ok(listing) => listing,
                Err(error) => {
                    if i < homes.len() {
                        unknown.get_or_insert_with(|| (directory.clone(), error));
                    }
                    continue;
                }
            };
            if i < homes.len() && listing.dev != mark.position.dev {
                // What should be mounted there may not be yet.
                let error = io::Error::from(io::ErrorKind::NotFound);
                unknown.get_or_insert_with(|| (directory.clone(), error));
            }
            let Some(name) = listing.by_inode(mark.position.inode) else { continue };
            let path = directory.join(name);
            // Nothing but the inode tells of a file that was empty.
            if mark.head.is_empty() && !homes.iter().any(|home| is_kin(home.1.as_bytes(), name.as_bytes())) {
                continue;
            }
            match candidate(path, self.keep()).and_then(|found| fitting(found, mark)) {
                Ok(Some(found)) if !mark.head.is_empty() || found.identity == mark.identity() => {
                    return Search::Found(Box::new(found));
                }
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => unknown = Some((directory.join(name_of(mark)), error)),
            }
        }
        match (self.search_copy(mark, None), unknown) {
            (Search::Nothing(_), Some((path, error))) => Search::Unknown(path, error),
            (search, _) => search,
        }
    }

    /// Looks for a copy of the marked file, or for what it was compressed into: another file that begins with the same
    /// bytes and, where that can be seen, has the same bytes before the offset. The one written last, if several do;
    /// none from before `since`, when the file is known to have been written itself.
    pub(super) fn find_copy(&mut self, mark: &Mark, since: Option<(i64, i64)>) -> Search {
        let search = self.search_copy(mark, since);
        let found = matches!(search, Search::Found(_));
        if found || !self.listings.distrust() { search } else { self.search_copy(mark, since) }
    }

    fn search_copy(&mut self, mark: &Mark, since: Option<(i64, i64)>) -> Search {
        let mut best: Option<Found> = None;
        let mut unreadable: Option<((i64, i64), PathBuf)> = None;
        if mark.head.is_empty() {
            return Search::Nothing(None);
        }
        let keep = self.keep();
        for (directory, log) in logs_at(&mark.path) {
            let Ok(listing) = self.listings.of(&directory) else { continue };
            for name in listing.kin(&log) {
                let path = directory.join(name);
                let Ok(metadata) = fs::metadata(&path) else { continue };
                let modified = (metadata.mtime(), metadata.mtime_nsec());
                let identity = Identity::of(&metadata);
                // Some file systems count in steps of two seconds.
                let too_old = since.is_some_and(|since| modified.0 + 2 < since.0);
                if !metadata.is_file() || too_old || identity == mark.identity() {
                    continue;
                }
                if is_compressed(&path) && path.extension().is_none_or(|extension| extension != "gz") {
                    if unreadable.as_ref().is_none_or(|known| known.0 < modified) {
                        unreadable = Some((modified, path));
                    }
                    continue;
                }
                // What took the log's own place is most likely its successor, unless it is the same beyond doubt.
                if *name == *log && (mark.head.len() < HEAD || mark.tail.len() < HEAD) {
                    continue;
                }
                if best.as_ref().is_some_and(|best| best.modified >= modified) {
                    continue;
                }
                if let Ok(Some(found)) = candidate(path, keep).and_then(|found| fitting(found, mark)) {
                    best = Some(found);
                }
            }
        }
        match best {
            Some(found) => Search::Found(Box::new(found)),
            None => Search::Nothing(unreadable.map(|known| known.1)),
        }
    }

    /// Opens a file to be read from the mark's place on, in the name of the log that it was; says under which number.
    pub(super) fn open_rest(
        &mut self,
        found: Found,
        mark: &Mark,
        after: Option<FileId>,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> FileId {
        let Found { path, identity, size, mut body, .. } = found;
        if let Some(&id) = self.by_identity.get(&identity) {
            // It is followed already: what was read of the original is not read again.
            if let Some(file) = self.files.get_mut(&id)
                && let Err(error) = file.look(now, handler).and_then(|_| file.skip_to(mark, handler))
            {
                self.failed_to_read(id, &error, handler);
            }
            self.enqueue(id);
            return id;
        }
        let mut place = mark.clone();
        if let Some(own) = self.past.take(identity)
            && own.mark.position.offset > place.position.offset
            && own.mark.fits(&mut body, size).unwrap_or(false)
        {
            place = own.mark;
        }
        place.is_at(identity);
        let followed = !body.is_packed() && self.entries.contains_key(&path);
        (if followed { &path } else { &mark.path }).clone_into(&mut place.path);
        let id = self.new_id();
        let info = FileInfo { id, path: place.path.clone(), sources: self.asking_for(&place.path) };
        let size = if body.is_packed() { None } else { Some(size) };
        let offset = place.position.offset;
        handler.event(Event::Leftover { file: &info, found: &path, offset, size });
        let mut file = File::new(info, body, place, now);
        file.backlog_up_to(size.unwrap_or(u64::MAX));
        file.after = after;
        file.leaving = !followed;
        file.resume();
        // What cannot be read now is told when it is read.
        let _ = file.learn_head();
        self.admit(file, handler);
        self.rest(id);
        if followed {
            self.bind(&path, id);
        } else {
            self.parting.push(id);
            self.enqueue(id);
        }
        id
    }

    /// An open file was emptied or written anew in place. What was not read of it by then is in a copy, if somebody
    /// made one (`copytruncate`).
    pub(super) fn begin_again(&mut self, id: FileId, anew: Anew, now: Timestamp, handler: &mut dyn Handler) {
        let Some(file) = self.files.get(&id) else { return };
        if file.body.is_packed() {
            // It is not what was looked for after all.
            let (path, offset) = (file.info.path.clone(), file.mark.position.offset);
            handler.event(Event::Lost { path: &path, offset, within: None });
            return self.close(id, handler);
        }
        let (mark, after) = (file.mark.clone(), file.after);
        // Each is told its place before this one's is told anew: at no point does a line belong to none or to two.
        self.let_twins_go(&mark, id, now, handler);
        let copy = match self.find_copy(&mark, Some(anew.modified)) {
            Search::Found(found) => {
                let (place, modified) = (found.path.clone(), found.modified);
                let first = self.open_rest(*found, &mark, after, now, handler);
                // It may have been emptied more than once.
                Some(self.open_unseen(&mark.path, (&place, modified), first, now, handler))
            }
            Search::Nothing(_) | Search::Unknown(..) => after,
        };
        let Some(file) = self.files.get_mut(&id) else { return };
        file.after = copy.filter(|copy| *copy != id);
        if let Err(error) = file.begin_again(anew, handler) {
            self.failed_to_read(id, &error, handler);
        }
        self.enqueue(id);
    }
}

/// Where a log's rotated files are, and what its name is there: beside it, and beside what it is a link to.
pub(super) fn homes(path: &Path) -> Vec<(PathBuf, OsString)> {
    let linked = || Some(path.parent()?.join(fs::read_link(path).ok()?));
    let real = fs::canonicalize(path).ok().or_else(linked);
    let mut homes: Vec<(PathBuf, OsString)> = Vec::new();
    for path in [Some(path), real.as_deref()].into_iter().flatten() {
        if let (Some(directory), Some(name)) = (path.parent(), path.file_name())
            && homes.iter().all(|home| home.0 != directory || home.1 != name)
        {
            homes.push((directory.to_owned(), name.to_owned()));
        }
    }
    homes
}

/// The same, and which log it is a rotated file of, if a glob found it under such a name: it may have another by now.
fn logs_at(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut logs = Vec::new();
    for (directory, name) in homes(path) {
        let bytes = name.as_bytes();
        for log in logs_of(&name) {
            if Generation::of(log.as_bytes(), bytes).is_some() {
                logs.push((directory.clone(), log));
            }
        }
        logs.push((directory, name));
    }
    logs
}

fn name_of(mark: &Mark) -> &Path {
    mark.path.file_name().map_or_else(|| Path::new(""), Path::new)
}

/// The file at a path, opened; `None` if it is none that can be read.
pub(super) fn candidate(path: PathBuf, keep: usize) -> io::Result<Option<Found>> {
    let metadata = fs::metadata(&path)?;
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    if !metadata.is_file() || is_compressed(&path) && !packed {
        return Ok(None);
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let handle = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path)?;
    Ok(Some(Found {
        path,
        identity: Identity::of(&metadata),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        size: metadata.len(),
        body: if packed { Body::Packed(Box::new(Unpacker::new(handle, keep))) } else { Body::Plain(handle) },
    }))
}

fn fitting(found: Option<Found>, mark: &Mark) -> io::Result<Option<Found>> {
    let Some(mut found) = found else { return Ok(None) };
    match mark.fits(&mut found.body, found.size) {
        Ok(fits) => Ok(fits.then_some(found)),
        // Not compressed by gzip, whatever its name says.
        Err(_) if found.body.is_packed() => Ok(None),
        Err(error) => Err(error),
    }
}
