use std::os::unix::fs::{chown, symlink};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::Mutex;

use super::super::super::trouble::TroubleKind;
use super::*;

/// A directory with the file `map`, and its place.
fn with(text: Option<&str>) -> (TempDir, Place) {
    let dir = tempfile::tempdir().unwrap();
    if let Some(text) = text {
        fs::write(dir.path().join("map"), text).unwrap();
    }
    let place = Place::find(&dir.path().join("map")).unwrap();
    (dir, place)
}

fn alone() -> OwnedMutexGuard<()> {
    Arc::new(Mutex::new(())).try_lock_owned().unwrap()
}

fn text(place: &Place) -> String {
    String::from_utf8(place.read().unwrap().unwrap()).unwrap()
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn it_is_replaced_and_owner_and_mode_stay() {
    let (dir, place) = with(Some("before"));
    fs::set_permissions(place.path(), Permissions::from_mode(0o640)).unwrap();
    // As root another owner can be kept; as somebody else there is only one.
    let root = nix::unistd::geteuid().is_root();
    if root {
        chown(place.path(), Some(12_345), Some(54_321)).unwrap();
    }
    let before = fs::metadata(place.path()).unwrap();
    let mut open = File::open(place.path()).unwrap();
    place.write(b"after", 0o600).unwrap();
    let after = fs::metadata(place.path()).unwrap();
    assert_eq!(text(&place), "after");
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
    assert!(!root || (after.uid(), after.gid()) == (12_345, 54_321));
    assert_ne!(after.ino(), before.ino(), "it was written into");
    let mut old = String::new();
    io::Read::read_to_string(&mut open, &mut old).unwrap();
    assert_eq!(old, "before", "who had it open reads on");
    assert_eq!(names(&dir), ["map"]);
}

#[test]
fn a_new_file_has_the_mode_that_is_asked_for_whatever_the_umask() {
    let (_dir, place) = with(None);
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    place.write(b"x", 0o644).unwrap();
    nix::sys::stat::umask(before);
    assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn a_trial_puts_back_what_was_there_unless_it_is_kept() {
    for before in [Some("before"), None] {
        let (dir, place) = with(before);
        let put_back = before.unwrap_or("empty");
        let trial = place.attempt(b"new", b"empty", 0o644, alone()).unwrap();
        assert_eq!(text(&place), "new");
        drop(trial);
        assert_eq!((text(&place).as_str(), names(&dir)), (put_back, vec!["map".to_owned()]));
        place.attempt(b"newer", b"empty", 0o644, alone()).unwrap().keep();
        assert_eq!((text(&place).as_str(), names(&dir)), ("newer", vec!["map".to_owned()]));
    }
}

#[test]
fn what_a_crash_left_behind_is_tidied_up() {
    let (dir, place) = with(Some("on trial"));
    fs::write(dir.path().join(".map.stockade-0123456789abcdef"), "half").unwrap();
    fs::write(dir.path().join(".map.stockade-last-good"), "good").unwrap();
    fs::write(dir.path().join(".other.stockade-1"), "of another sink").unwrap();
    place.tidy().unwrap();
    assert_eq!(text(&place), "good");
    assert_eq!(names(&dir), [".other.stockade-1", "map"]);
    // It crashed before the new file was in place: both names are of one file.
    fs::hard_link(place.path(), dir.path().join(".map.stockade-last-good")).unwrap();
    place.tidy().unwrap();
    assert_eq!((text(&place).as_str(), names(&dir).len()), ("good", 2));
    // Somebody else's is not believed.
    symlink("/etc/passwd", dir.path().join(".map.stockade-last-good")).unwrap();
    place.tidy().unwrap();
    assert_eq!((text(&place).as_str(), names(&dir).len()), ("good", 2));
}

#[test]
fn links_are_followed_only_where_others_cannot_make_them() {
    let (dir, place) = with(Some("x"));
    let link = dir.path().join("link");
    symlink("map", &link).unwrap();
    let found = Place::find(&link).unwrap();
    assert_eq!(found, place);
    found.write(b"through", 0o600).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(text(&place), "through");

    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
    let trouble = Place::find(&link).unwrap_err();
    assert!(
        trouble.kind == TroubleKind::Refused && trouble.message.contains("is a symbolic link that others"),
        "{trouble}"
    );
    // The file itself may be there.
    assert!(Place::find(place.path()).is_ok());
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();

    let nowhere = dir.path().join("nowhere");
    symlink("/nonexistent/x", &nowhere).unwrap();
    assert!(Place::find(&nowhere).unwrap_err().message.contains("it leads nowhere"));
}

#[test]
fn what_cannot_be_a_file_is_told() {
    let (dir, _) = with(None);
    let message = |path: &Path| Place::find(path).unwrap_err().message;
    assert!(message(dir.path()).contains("is no regular file"));
    let gone = dir.path().join("gone/map");
    let text = message(&gone);
    assert!(text.starts_with("failed to find the directory") && text.ends_with("; make it first"), "{text}");
    let under_file = dir.path().join("file");
    fs::write(&under_file, "").unwrap();
    assert!(message(&under_file.join("map")).contains("Not a directory"));
}

/// As Docker does with `-v FILE:FILE`, in a mount namespace of this test's own thread.
#[test]
fn a_file_that_is_a_mount_is_told_to_be_one() {
    let (dir, place) = with(Some("inside"));
    fs::write(dir.path().join("outside"), "outside").unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("this test needs root, to mount a file");
    let mount =
        |words: &[&str]| assert!(std::process::Command::new("mount").args(words).status().unwrap().success());
    mount(&["--make-rprivate", "/"]);
    mount(&["--bind", dir.path().join("outside").to_str().unwrap(), place.path().to_str().unwrap()]);
    let trouble = place.write(b"new", 0o644).unwrap_err();
    assert!(trouble.message.ends_with("mount its directory instead"), "{trouble}");
    assert_eq!(text(&place), "outside");
    assert_eq!(names(&dir), ["map", "outside"]);
    assert_eq!(place.examine().unwrap_err(), trouble.message);
    let trouble = place.attempt(b"new", b"", 0o644, alone()).unwrap_err();
    assert!(trouble.message.ends_with("mount its directory instead"), "{trouble}");
    assert_eq!(names(&dir), ["map", "outside"]);
}
