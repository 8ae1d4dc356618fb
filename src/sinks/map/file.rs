//! A file that is replaced as a whole: whoever opens it finds the one before or the one after, never a part.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use tokio::sync::OwnedMutexGuard;

use super::super::trouble::Trouble;

/// What follows the file's name, after a dot before it, in names of our own beside it.
const OURS: &str = ".stockade-";
/// The last good file, while a new one is tried.
const LAST_GOOD: &str = "last-good";

/// Where a file is: links were followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    directory: PathBuf,
    name: OsString,
    /// Both together.
    path: PathBuf,
}

impl Place {
    /// Follows links, as far as only root or this user can have made them: in `/tmp` a link to `/etc/shadow` is anybody's.
    pub(super) fn find(path: &Path) -> Result<Self, Trouble> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Trouble::refused(format!("{} is no file", path.display())));
        };
        let place = match fs::symlink_metadata(path) {
            Ok(link) if link.is_symlink() => {
                let mode = fs::metadata(directory).map_err(|e| failed("look at", directory, &e))?.mode();
                let own = nix::unistd::geteuid().as_raw();
                if mode & 0o002 != 0 || (link.uid() != 0 && link.uid() != own) {
                    return Err(Trouble::refused(format!(
                        "{} is a symbolic link that others can make lead anywhere; name the file itself",
                        path.display()
                    )));
                }
                let real = path.canonicalize().map_err(|e| {
                    failed("follow the symbolic link", path, &e)
                        .context("it leads nowhere; make the file it is to lead to")
                })?;
                let parts = real.parent().zip(real.file_name()).map(|(d, n)| (d.to_owned(), n.to_owned()));
                parts.ok_or_else(|| Trouble::refused(format!("{} leads to no file", path.display())))?
            }
            Ok(_) | Err(_) => {
                let directory =
                    directory.canonicalize().map_err(|e| failed("find the directory", directory, &e))?;
                (directory, name.to_owned())
            }
        };
        let (directory, name) = place;
        let path = directory.join(&name);
        match fs::symlink_metadata(&path) {
            Ok(file) if !file.is_file() => Err(Trouble::refused(format!(
                "{} is no regular file; name one, or a place where there is none yet",
                path.display()
            ))),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("look at", &path, &e)),
            _ => Ok(Self { directory, name, path }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there, and whether it could be replaced: for `stockade check`.
    pub(super) fn examine(&self) -> Result<String, String> {
        let (path, directory) = (self.path.display(), self.directory.display());
        let mode = fs::metadata(&self.directory).map_err(|e| format!("{directory}: {e}"))?.mode();
        if let Err(e) = access(&self.directory, AccessFlags::W_OK | AccessFlags::X_OK) {
            return Err(failed("write into", &self.directory, &e.into()).message);
        }
        if mode & 0o002 != 0 {
            return Err(format!("anybody may write into {directory}, and so replace {path}; chmod o-w it"));
        }
        let Ok(file) = fs::metadata(&self.path) else {
            return Ok(format!("{path} is not there yet, and can be written"));
        };
        if file.mode() & 0o002 != 0 {
            return Err(format!(
                "anybody may change {path} (mode {:04o}); chmod o-w it",
                file.mode() & 0o7777
            ));
        }
        if is_mount(&self.path, &file, &self.directory) {
            return Err(self.not_replaced(&ErrorKind::ResourceBusy.into()).message);
        }
        Ok(format!(
            "{path} can be replaced; owner {}:{} and mode {:04o} stay",
            file.uid(),
            file.gid(),
            file.mode() & 0o7777
        ))
    }

    /// What is in it; `None` when it is not there.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>, Trouble> {
        match fs::read(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("read", &self.path, &e)),
        }
    }

    /// Removes what an agent has left behind that ended in the middle; the last good file of one that was trying another is put
    /// back.
    pub(super) fn tidy(&self) -> Result<(), Trouble> {
        let prefix = self.ours("");
        let entries = fs::read_dir(&self.directory).map_err(|e| failed("look into", &self.directory, &e))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
                continue;
            }
            let path = entry.path();
            if name == self.ours(LAST_GOOD) && self.is_trusted(&path) {
                self.put_back(&path).map_err(|e| failed("put back", &self.path, &e))?;
            } else {
                drop(fs::remove_file(&path));
            }
        }
        Ok(())
    }

    /// Whether nobody can have put it there who could not write the file itself.
    fn is_trusted(&self, path: &Path) -> bool {
        let own = nix::unistd::geteuid().as_raw();
        let of_file = fs::symlink_metadata(&self.path).map(|file| file.uid()).ok();
        fs::symlink_metadata(path)
            .is_ok_and(|file| file.is_file() && (file.uid() == own || Some(file.uid()) == of_file))
    }

    fn put_back(&self, last_good: &Path) -> io::Result<()> {
        match fs::rename(last_good, &self.path) {
            // What is a mount was not replaced either.
            Err(e) if e.kind() == ErrorKind::ResourceBusy => return fs::remove_file(last_good),
            renamed => renamed?,
        }
        // Two names of one file stay two when the one is renamed to the other.
        drop(fs::remove_file(last_good));
        self.sync()
    }

    /// Puts `text` in its place. Owner and mode stay; `mode` is that of a file that was not there.
    pub(super) fn write(&self, text: &[u8], mode: u32) -> Result<(), Trouble> {
        let temporary = self.temporary(text, mode)?;
        let done = fs::rename(&temporary, &self.path);
        if done.is_err() {
            drop(fs::remove_file(&temporary));
        }
        done.and_then(|()| self.sync()).map_err(|e| self.not_replaced(&e))
    }

    /// As [`Self::write`], on trial: the file before, or `empty` where there was none, is put back unless the new one is
    /// [kept](Trial::keep). `alone` is held as long.
    pub(super) fn attempt(
        &self,
        text: &[u8],
        empty: &[u8],
        mode: u32,
        alone: OwnedMutexGuard<()>,
    ) -> Result<Trial, Trouble> {
        if !self.path.exists() {
            // An empty file is a valid one, and a server that is told to include it would not start without it.
            self.write(empty, mode)?;
        }
        let last_good = self.directory.join(self.ours(LAST_GOOD));
        if fs::hard_link(&self.path, &last_good).is_err() {
            // Some file systems have no links, and a system may not let us link to what is not ours.
            let before = self.read()?.unwrap_or_default();
            let copy = self.temporary(&before, mode)?;
            fs::rename(&copy, &last_good).map_err(|e| failed("keep a copy of", &self.path, &e))?;
        }
        // Dropped from here on, it puts back.
        let trial = Trial { place: self.clone(), last_good: Some(last_good), _alone: alone };
        match self.write(text, mode) {
            Ok(()) => Ok(trial),
            Err(trouble) => {
                // What was not replaced (a mount cannot be) need not be put back, and often cannot be either.
                if self.read().ok().flatten().is_none_or(|there| there != text) {
                    trial.keep();
                }
                Err(trouble)
            }
        }
    }

    /// A new file beside the real one, on the disk, with its owner and mode.
    fn temporary(&self, text: &[u8], mode: u32) -> Result<PathBuf, Trouble> {
        let like = fs::symlink_metadata(&self.path).ok().filter(fs::Metadata::is_file);
        let path = self.directory.join(self.ours(&format!("{:016x}", RandomState::new().hash_one(0))));
        // It must not be there, not even as a link.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.map_err(|e| failed("write into", &self.directory, &e))?;
        let fill = |file: &mut File| -> Result<(), Trouble> {
            let failed = |e: io::Error| failed("write", &path, &e);
            file.write_all(text).map_err(failed)?;
            if let Some(like) = &like {
                let made = file.metadata().map_err(failed)?;
                if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
                    fchown(&*file, Some(like.uid()), Some(like.gid())).map_err(|e| {
                        Trouble::refused(format!(
                            "failed to keep the owner {}:{} of {}: {e}; give the file to the user that stockade runs as",
                            like.uid(),
                            like.gid(),
                            self.path.display()
                        ))
                    })?;
                }
            }
            let mode = like.as_ref().map_or(mode, |like| like.mode() & 0o7777);
            file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
            file.sync_all().map_err(failed)
        };
        match fill(&mut file) {
            Ok(()) => Ok(path),
            Err(trouble) => {
                drop(fs::remove_file(&path));
                Err(trouble)
            }
        }
    }

    fn ours(&self, rest: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(OsStr::new(OURS));
        name.push(rest);
        name
    }

    /// Until the directory is on the disk, so is not the new name in it.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn not_replaced(&self, e: &io::Error) -> Trouble {
        let path = self.path.display();
        if e.kind() == ErrorKind::ResourceBusy {
            return Trouble::refused(format!(
                "failed to replace {path}: it is a mount of its own, as when Docker mounts a single file; mount its directory instead"
            ));
        }
        failed("replace", &self.path, e)
    }
}

/// A new file on trial.
#[derive(Debug)]
pub(super) struct Trial {
    place: Place,
    last_good: Option<PathBuf>,
    _alone: OwnedMutexGuard<()>,
}

impl Trial {
    /// The new file is good.
    pub(super) fn keep(mut self) {
        if let Some(last_good) = self.last_good.take() {
            drop(fs::remove_file(last_good));
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(last_good) = self.last_good.take()
            && let Err(e) = self.place.put_back(&last_good)
        {
            tracing::error!(
                "failed to put the last good {} back from {}: {e}",
                self.place.path.display(),
                last_good.display()
            );
        }
    }
}

/// Whether something is mounted on a file: as `/proc/thread-self/mountinfo` has it, where blanks and the like are octal.
fn is_mount(path: &Path, file: &fs::Metadata, directory: &Path) -> bool {
    // Another file system than the directory's is a sign; a file of the same one can be mounted, too.
    let other = fs::metadata(directory).is_ok_and(|directory| directory.dev() != file.dev());
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let octal = |text: &str| {
        text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
    };
    other || mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| Path::new(&octal(at)) == path)
}

/// What could not be done with a file, and what usually helps.
fn failed(what: &str, path: &Path, e: &io::Error) -> Trouble {
    let hint = match e.kind() {
        ErrorKind::NotFound => "; make it first",
        ErrorKind::PermissionDenied => "; give the user that stockade runs as the right to write there",
        ErrorKind::ReadOnlyFilesystem => {
            "; mount it for writing (a container's volume without :ro; systemd: ReadWritePaths=)"
        }
        _ => "",
    };
    Trouble::later(format!("failed to {what} {}: {e}{hint}", path.display()))
}

#[cfg(test)]
mod tests;
