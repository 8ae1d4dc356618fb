//! What is in a directory, listed once however many files are looked for in it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::kin::{is_kin, stem};

/// A directory that was changed so shortly before it was listed may have been changed once more since, without its time
/// showing it: clocks of file systems tick a few hundred times a second at most, some once in two seconds.
const TICK: Duration = Duration::from_millis(2500);

/// A directory's names.
#[derive(Debug)]
pub(super) struct Listing {
    /// In the order of their bytes.
    names: Vec<OsString>,
    inodes: HashMap<u64, OsString>,
    pub(super) dev: u64,
    /// When it was changed last.
    changed: (i64, i64),
    /// Whether a later change would show in that.
    settled: bool,
}

/// Directories that were listed already: however many files are looked for in one, it is listed once as long as it does
/// not change.
#[derive(Debug, Default)]
pub(super) struct Listings(HashMap<PathBuf, Listing>);

impl Listings {
    /// The directory's names as they are now, or were a moment ago.
    pub(super) fn of(&mut self, directory: &Path) -> io::Result<&Listing> {
        let metadata = fs::metadata(directory)?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        if self.0.get(directory).is_none_or(|known| known.changed != changed) {
            self.0.insert(directory.to_owned(), Listing::of(directory, &metadata)?);
        }
        self.0.get(directory).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Has those listed anew of which it is not certain that they are as they were; says whether there are any.
    pub(super) fn distrust(&mut self) -> bool {
        let before = self.0.len();
        self.0.retain(|_, listing| listing.settled);
        self.0.len() < before
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Listing {
    fn of(directory: &Path, metadata: &fs::Metadata) -> io::Result<Self> {
        let mut names = Vec::new();
        let mut inodes = HashMap::new();
        let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            inodes.insert(entry.ino(), entry.file_name());
            names.push(entry.file_name());
        }
        names.sort_unstable();
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        let settled = age.is_some_and(|age| age > TICK);
        Ok(Self { names, inodes, dev: metadata.dev(), changed, settled })
    }

    /// The name of the file with this inode.
    pub(super) fn by_inode(&self, inode: u64) -> Option<&OsStr> {
        self.inodes.get(&inode).map(OsString::as_os_str)
    }

    /// The log itself and all names that rotation may have given to it.
    pub(super) fn kin<'a>(&'a self, log: &'a OsStr) -> impl Iterator<Item = &'a OsStr> {
        let stem = stem(log.as_bytes());
        let first = self.names.partition_point(|name| name.as_bytes() < stem);
        let from_there = self.names[first..].iter().map(OsString::as_os_str);
        from_there
            .take_while(move |name| name.as_bytes().starts_with(stem))
            .filter(move |name| is_kin(log.as_bytes(), name.as_bytes()))
    }
}
