//! A directory that is looked into without being led out of it.
//!
//! Two kinds: the host's own files, below `/` or the directory that stands for it, where symbolic links lead wherever they
//! say, but never out of it; and what a container can write, where none is followed, because whoever is in the container
//! says where it leads.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

/// As many links as the kernel follows.
const LINKS: usize = 40;
/// So many names of a directory are looked at, in the order of their names.
const NAMES: usize = 4096;
/// No more are read, of a directory that holds more.
const NAMES_READ: usize = 100_000;

/// See above.
#[derive(Debug)]
pub(super) struct Tree {
    directory: OwnedFd,
    path: PathBuf,
    links: bool,
    /// Directories in it that containers can write: no link in them is followed, whichever way one comes there.
    shared: RefCell<Vec<PathBuf>>,
}

/// Something in it.
struct Place {
    handle: OwnedFd,
    /// Where it is, without links.
    path: PathBuf,
}

impl Tree {
    /// The host's files, below `path`.
    pub(super) fn host(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let directory = open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { directory, path, links: true, shared: RefCell::default() })
    }

    /// What a container can write: the directory itself is found as the host's files are, and no link in it is followed.
    pub(super) fn shared(&self, path: &Path) -> io::Result<Self> {
        let place = self.walk(path)?;
        let is_directory = fs::metadata(handle(&place.handle))?.is_dir();
        is_directory
            .then_some(Self {
                directory: place.handle,
                path: place.path,
                links: false,
                shared: RefCell::default(),
            })
            .ok_or_else(|| io::Error::from(Errno::ENOTDIR))
    }

    /// Has links in this directory not be followed any more. One that is not there has none.
    pub(super) fn share(&self, path: &Path) {
        if let Ok(place) = self.find(path) {
            self.shared.borrow_mut().push(place);
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where `path` is, without links; an error if it is not there.
    pub(super) fn find(&self, path: &Path) -> io::Result<PathBuf> {
        self.walk(path).map(|place| place.path)
    }

    /// Whether there is something, whatever it is.
    pub(super) fn has(&self, path: &str) -> bool {
        self.walk(Path::new(path)).is_ok()
    }

    /// A regular file, opened for reading, and where it is.
    pub(super) fn open(&self, path: &Path) -> io::Result<(File, PathBuf)> {
        let place = self.walk(path)?;
        // Looked at before it is opened: opening a device or a pipe does things. What was looked at is what is opened.
        let own = handle(&place.handle);
        let kind = fs::metadata(&own)?.file_type();
        if kind.is_dir() {
            return Err(Errno::EISDIR.into());
        }
        if !kind.is_file() || kind.is_fifo() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok((File::open(own)?, place.path))
    }

    /// The names in a directory, sorted.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let place = self.walk(path)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(handle(&place.handle))?.take(NAMES_READ) {
            names.push(entry?.file_name());
        }
        names.sort_unstable();
        names.truncate(NAMES);
        Ok(names)
    }

    /// Goes to `path`, name by name, from this directory on.
    fn walk(&self, path: &Path) -> io::Result<Place> {
        let mut way: Vec<(OwnedFd, OsString)> = Vec::new();
        let mut ahead: VecDeque<OsString> = names(path);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                way.pop();
                continue;
            }
            let next = {
                let here = way.last().map_or_else(|| self.directory.as_fd(), |(handle, _)| handle.as_fd());
                step(here, &name)?
            };
            let target = match readlinkat(&next, "") {
                Ok(target) => target,
                // What is no link.
                Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => {
                    way.push((next, name));
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            links += 1;
            if !self.links || links > LINKS || self.is_shared(&way) {
                return Err(Errno::ELOOP.into());
            }
            let target = PathBuf::from(target);
            if target.is_absolute() {
                way.clear();
            }
            for name in names(&target).into_iter().rev() {
                ahead.push_front(name);
            }
        }
        let mut path = self.path.clone();
        path.extend(way.iter().map(|(_, name)| name));
        let handle = match way.pop() {
            Some((handle, _)) => handle,
            None => self.directory.try_clone()?,
        };
        Ok(Place { handle, path })
    }
}

impl Tree {
    /// Whether what is at the end of this way can be written by a container.
    fn is_shared(&self, way: &[(OwnedFd, OsString)]) -> bool {
        let shared = self.shared.borrow();
        let mut path = self.path.clone();
        path.extend(way.iter().map(|(_, name)| name));
        shared.iter().any(|root| path.starts_with(root))
    }
}

fn step(here: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(here, name, flags, Mode::empty())?)
}

/// The names of a path; `..` is one of them.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// By this path it is opened anew, and nothing else can be.
fn handle(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn text(tree: &Tree, path: &str) -> io::Result<String> {
        let mut text = String::new();
        tree.open(Path::new(path))?.0.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn links_of_the_host_stay_below_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("srv/logs")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        fs::write(root.join("srv/logs/a.log"), "a").unwrap();
        symlink("/srv/logs", root.join("var/log")).unwrap();
        symlink("../../../../etc/passwd", root.join("srv/out")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let tree = Tree::host(&root).unwrap();
        assert_eq!(text(&tree, "/var/log/a.log").unwrap(), "a");
        assert_eq!(tree.find(Path::new("/var/log/../logs/a.log")).unwrap(), root.join("srv/logs/a.log"));
        assert_eq!(tree.list(Path::new("/var/log")).unwrap(), ["a.log"]);
        // There is no etc/passwd below it, and what is outside is not reached.
        assert_eq!(text(&tree, "/srv/out").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(text(&tree, "/loop").unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
        assert!(tree.open(Path::new("/srv")).is_err());
        // What a container can write leads nowhere, also for who comes there by the host's own paths.
        symlink("a.log", root.join("srv/logs/link.log")).unwrap();
        assert_eq!(text(&tree, "/var/log/link.log").unwrap(), "a");
        tree.share(Path::new("/var/log"));
        assert_eq!(text(&tree, "/var/log/link.log").unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
        assert_eq!(text(&tree, "/var/log/a.log").unwrap(), "a");
        assert!(tree.has("/srv") && !tree.has("/nowhere"));
    }

    #[test]
    fn nothing_follows_a_containers_links() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("volume/logs")).unwrap();
        fs::write(root.join("secret"), "s").unwrap();
        fs::write(root.join("volume/logs/real.log"), "r").unwrap();
        symlink("/secret", root.join("volume/logs/access.log")).unwrap();
        symlink("real.log", root.join("volume/logs/other.log")).unwrap();
        symlink("/", root.join("volume/root")).unwrap();
        symlink("volume", root.join("data")).unwrap();
        nix::unistd::mkfifo(&root.join("volume/logs/pipe.log"), Mode::S_IRWXU).unwrap();
        let tree = Tree::host(&root).unwrap().shared(Path::new("/data")).unwrap();
        assert_eq!(tree.path(), root.join("volume"));
        assert_eq!(text(&tree, "logs/real.log").unwrap(), "r");
        for path in ["logs/access.log", "logs/other.log", "root/secret", "../secret", "logs/pipe.log"] {
            assert!(text(&tree, path).is_err(), "{path}");
        }
    }
}
