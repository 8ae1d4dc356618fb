//! The marks of an earlier process whose files were not found yet.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::event::FileId;
use super::mark::Mark;
use super::position::Identity;
use crate::types::Timestamp;

/// Marks, by file and by path.
#[derive(Debug, Default)]
pub(super) struct Past {
    marks: HashMap<Identity, Pending>,
    paths: BTreeMap<PathBuf, Vec<Identity>>,
    /// The newest marked file that was found of each log, in the look that is under way.
    pub(super) newest: BTreeMap<PathBuf, Newest>,
}

/// The newest marked file of a log: what rotation made after it was never seen.
#[derive(Debug)]
pub(super) struct Newest {
    /// Under which number it was opened; `None` if none was found yet.
    pub(super) id: Option<FileId>,
    /// Where it is.
    pub(super) place: PathBuf,
    pub(super) modified: (i64, i64),
    /// Whether all of the log's marked files were found, under names that say which is the newest.
    pub(super) certain: bool,
}

impl Default for Newest {
    fn default() -> Self {
        Self { id: None, place: PathBuf::new(), modified: (0, 0), certain: true }
    }
}

/// A mark whose file was not found yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) mark: Mark,
    /// Since when its directory has been waited for.
    pub(super) since: Option<Timestamp>,
}

impl Past {
    /// Of several marks of one file the last one counts.
    pub(super) fn add(&mut self, mark: Mark) {
        self.put(Pending { mark, since: None });
    }

    pub(super) fn put(&mut self, pending: Pending) {
        let identity = pending.mark.identity();
        self.take(identity);
        self.paths.entry(pending.mark.path.clone()).or_default().push(identity);
        self.marks.insert(identity, pending);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub(super) fn take(&mut self, identity: Identity) -> Option<Pending> {
        let pending = self.marks.remove(&identity)?;
        if let Some(known) = self.paths.get_mut(&pending.mark.path) {
            known.retain(|known| *known != identity);
            if known.is_empty() {
                self.paths.remove(&pending.mark.path);
            }
        }
        Some(pending)
    }

    /// Which mark is that of the file that is at `path` now. Its device may have another number than before: that of
    /// some file systems changes with every mount.
    pub(super) fn of(&self, identity: Identity, path: &Path) -> Option<Identity> {
        if self.marks.contains_key(&identity) {
            return Some(identity);
        }
        self.paths.get(path)?.iter().find(|known| known.inode == identity.inode).copied()
    }

    /// All paths with marks.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.paths.keys().cloned().collect()
    }

    /// The marks of files that were last found at `path`.
    pub(super) fn at(&self, path: &Path) -> Vec<Identity> {
        self.paths.get(path).cloned().unwrap_or_default()
    }
}
