//! Why root, of all users, may not write somewhere.

use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Uid, User, geteuid};

/// What to do about a file that cannot be made or changed because its directory belongs to somebody else; empty where that is
/// not why. The agent keeps no capability to write where it is not at home, not even as root.
#[must_use]
pub fn hint(path: &Path, error: &Error) -> String {
    if error.kind() != ErrorKind::PermissionDenied {
        return String::new();
    }
    // The nearest that is there: what is below it cannot be made.
    let there = path.ancestors().find_map(|at| Some((at, std::fs::metadata(at).ok()?.uid())));
    match there {
        Some((at, owner)) if owner != geteuid().as_raw() => format!(
            "; {} belongs to {}, and the agent writes only where its own user may, also as root: run it as that user \
             (systemctl start stockade), or name another place",
            at.display(),
            name(owner)
        ),
        _ => String::new(),
    }
}

fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("the user {}", user.name),
        _ => format!("the user {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_could_write_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let denied = Error::from(ErrorKind::PermissionDenied);
        assert_eq!(hint(dir.path(), &denied), "", "one's own directory");
        assert_eq!(hint(Path::new("/proc/1/x"), &Error::from(ErrorKind::NotFound)), "");
        std::os::unix::fs::chown(dir.path(), Some(54321), None).unwrap();
        let told = hint(&dir.path().join("a/b"), &denied);
        assert!(
            told.starts_with(&format!("; {} belongs to the user 54321, and", dir.path().display())),
            "{told}"
        );
    }
}
