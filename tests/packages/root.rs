//! The root of a Debian, made once and kept in `target/test-roots`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::{run, top};

/// Another number makes it anew.
const VERSION: u32 = 1;
const SUITE: &str = "bookworm";
/// What the tests need on it. Of that, the packages need systemd and adduser.
const PACKAGES: &str =
    "adduser,ca-certificates,init-system-helpers,iproute2,nftables,procps,rpm,systemd,systemd-sysv";

/// The directory of the root, which nobody must change: [`Machine`](crate::machine::Machine) lays its own on top.
pub(crate) fn debian() -> PathBuf {
    let roots = top().join("target/test-roots");
    fs::create_dir_all(&roots).unwrap();
    let root = roots.join(format!("{SUITE}-{VERSION}"));
    // Tests run at the same time; one makes it, the others wait.
    let lock = File::create(roots.join("lock")).unwrap();
    lock.lock().unwrap();
    if !root.is_dir() {
        make(&root);
    }
    root
}

fn make(root: &Path) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "a Debian can only be made and booted by root: run tests/run as root"
    );
    let begun = root.with_extension("begun");
    drop(fs::remove_dir_all(&begun));
    // It extracts with apt and does not wait for the disk: a quarter of debootstrap's time.
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
        .arg(&begun)
        .arg(mirror()));
    fs::rename(&begun, root).unwrap();
}

/// Where this host has its own packages from, if it is a Debian.
fn mirror() -> String {
    let lists =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().map(|entry| entry.unwrap().path());
    lists
        .chain([PathBuf::from("/etc/apt/sources.list")])
        .filter_map(|list| fs::read_to_string(list).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .find(|word| word.trim_end_matches('/').ends_with("/debian") && word.starts_with("http"))
        .unwrap_or_else(|| "http://deb.debian.org/debian".to_owned())
}
