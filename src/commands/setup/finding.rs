//! What was found on the host, and what is to be told about it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use super::dialect::Kind;
use super::tree::Tree;
use crate::daemon::printable;

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What there is to follow.
    pub(super) jails: BTreeMap<Kind, Sources>,
    /// Why Cloudflare is thought to be in front.
    pub(super) cloudflare: Vec<String>,
    /// Why a tunnel of Cloudflare's is thought to be there.
    pub(super) tunnel: Vec<String>,
    /// Where Docker keeps its files, if it is here.
    pub(super) docker: Option<PathBuf>,
    /// Where the journal is, if it is not where journald keeps it.
    pub(super) journal: Option<PathBuf>,
    /// For the terminal, not for the file: what is not proposed, and why.
    pub(super) notes: Vec<String>,
    /// What may not be read.
    pub(super) denied: Vec<PathBuf>,
}

/// Where a jail's lines come from.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Paths and globs.
    pub(super) logpath: Vec<Found>,
    /// Names of containers.
    pub(super) docker: Vec<Found>,
    /// Entries of the journal.
    pub(super) journal: Vec<Found>,
    /// What is wrong, and what to do.
    pub(super) heed: Vec<String>,
    /// The files behind `logpath` and `docker`, as they are now.
    pub(super) files: Vec<LogFile>,
}

/// A source, and how it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// As the configuration names it.
    pub(super) text: String,
    /// In words.
    pub(super) how: String,
}

/// A file that can be opened again in the same way.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) tree: Rc<Tree>,
    /// Within the tree.
    pub(super) path: PathBuf,
    /// dockerd's own records, with the container's lines in them.
    pub(super) docker: bool,
}

impl Findings {
    /// Adds a file or a glob to a jail, once.
    pub(super) fn path(&mut self, kind: Kind, text: String, how: String, files: Vec<LogFile>) {
        let sources = self.jails.entry(kind).or_default();
        if sources.logpath.iter().all(|found| found.text != text) {
            sources.logpath.push(Found { text, how });
            sources.files.extend(files);
        }
    }

    /// Adds a container to a jail.
    pub(super) fn container(&mut self, kind: Kind, name: &str, how: String, file: Option<LogFile>) {
        let sources = self.jails.entry(kind).or_default();
        sources.docker.push(Found { text: name.to_owned(), how });
        sources.files.extend(file);
    }

    /// Adds something to do about a jail, once.
    pub(super) fn heed(&mut self, kind: Kind, text: String) {
        let heed = &mut self.jails.entry(kind).or_default().heed;
        if !heed.contains(&text) {
            heed.push(text);
        }
    }

    /// Adds something to tell, once.
    pub(super) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// What could not be looked at; that something is not there is nothing to tell.
    pub(super) fn failed(&mut self, path: &Path, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
            io::ErrorKind::PermissionDenied => {
                if !self.denied.iter().any(|denied| denied == path) {
                    self.denied.push(path.to_owned());
                }
            }
            _ if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => self.note(format!(
                "{}: not looked at, because links in what a container can write lead wherever the container says",
                shown(path)
            )),
            _ => self.note(format!("{}: {error}", shown(path))),
        }
    }
}

/// A path for people.
pub(super) fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// How long ago, as exactly as it matters.
pub(super) fn age(modified: SystemTime) -> String {
    let passed = SystemTime::now().duration_since(modified).unwrap_or_default().as_secs();
    match passed / 3600 {
        0 => "within the last hour".to_owned(),
        1 => "an hour ago".to_owned(),
        hours @ 2..48 => format!("{hours} hours ago"),
        hours => format!("{} days ago", hours / 24),
    }
}
