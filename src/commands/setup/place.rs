//! Putting the file in its place: whole or not at all, and what was there is kept.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Root writes it, its group may read it. It holds no secrets (those have files of their own), but it says whom nobody watches.
/// The service's user reads it by CAP_DAC_READ_SEARCH.
const MODE: u32 = 0o640;

/// Writes `text` to `path`; where what was there is kept, if something was.
pub(super) fn write(path: &Path, text: &str) -> Result<Option<PathBuf>> {
    // Through a link to what it leads to: the link is somebody's choice.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    if !directory.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&directory);
        made.with_context(|| format!("failed to make {}", directory.display()))?;
    }
    let before = match fs::metadata(&target) {
        Ok(meta) if meta.is_file() => Some(meta),
        Ok(_) => bail!("{} is no regular file: name another with --config", target.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e).with_context(|| format!("failed to look at {}", target.display())),
    };
    let temporary = beside(&target, &format!("new.{}", std::process::id()));
    let written = fill(&temporary, text, before.as_ref());
    let done = written.and_then(|()| {
        let kept = before.is_some().then(|| keep(&target)).transpose()?;
        fs::rename(&temporary, &target).inspect_err(|_| {
            // The file is still there under its own name.
            if let Some(kept) = &kept {
                let _ = fs::remove_file(kept);
            }
        })?;
        Ok(kept)
    });
    let kept = done.map_err(|e| {
        // Whatever is left of it; that it could not be made is what is told.
        let _ = fs::remove_file(&temporary);
        let hint = match e.kind() {
            io::ErrorKind::PermissionDenied => " (run it as root, or name another file with --config)",
            io::ErrorKind::ReadOnlyFilesystem => {
                " (what is mounted there may not be written: run setup without --yes, and put what it prints there)"
            }
            io::ErrorKind::ResourceBusy => " (it is a mount of its own: mount its directory instead)",
            _ => "",
        };
        anyhow::anyhow!("failed to write {}: {e}{hint}", target.display())
    })?;
    // The name is on disk when the directory is; an old kernel may refuse that for some file systems.
    let _ = File::open(&directory).and_then(|directory| directory.sync_all());
    Ok(kept)
}

fn fill(path: &Path, text: &str, before: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(before) = before {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
    }
    let mode = before.map_or(MODE, |before| before.mode() & 0o777);
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Gives what is there a second name, so that it stays as it is, owner and mode too.
fn keep(path: &Path) -> io::Result<PathBuf> {
    let stamp = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
    for n in 1..100 {
        let name = if n == 1 { format!("{stamp}.old") } else { format!("{stamp}-{n}.old") };
        let other = beside(path, &name);
        match fs::hard_link(path, &other) {
            Ok(()) => return Ok(other),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // A file system without hard links.
            Err(_) => {
                let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&other)?;
                io::copy(&mut File::open(path)?, &mut copy)?;
                copy.set_permissions(fs::metadata(path)?.permissions())?;
                copy.sync_all()?;
                return Ok(other);
            }
        }
    }
    Err(io::Error::other("there are a hundred older ones of this second"))
}

/// `config.yaml` and `old`: `config.yaml.old`.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(end);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_was_there_is_kept_and_a_new_file_is_for_root_and_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/stockade/config.yaml");
        assert_eq!(write(&path, "one").unwrap(), None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        let kept = [write(&path, "two").unwrap().unwrap(), write(&path, "three").unwrap().unwrap()];
        assert_eq!(
            (text(&path), text(&kept[0]), text(&kept[1])),
            ("three".into(), "one".into(), "two".into())
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o604);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 3, "nothing else is left behind");
    }

    #[test]
    fn a_link_stays_one_and_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.yaml"), dir.path().join("config.yaml"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink("real.yaml", &link).unwrap();
        write(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(text(&real), "new");
        let error = write(dir.path(), "x").unwrap_err().to_string();
        assert!(error.contains("is no regular file"), "{error}");
    }
}
