//! The same binary gives the same packages, wherever the tree lies and whoever packs it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::dist::{dist, run, text, top};

#[test]
fn another_checkout_gives_the_same_bytes() {
    let other = tempfile::tempdir().unwrap();
    // The files that git knows, as they are here, and what git tells about the commit.
    let files = run(Command::new("git").args(["ls-files", "--cached", "-z"]).current_dir(top()));
    let mut copy = Command::new("cp");
    copy.arg("--parents").args(files.split('\0').filter(|file| top().join(file).is_file())).arg(other.path());
    run(copy.current_dir(top()));
    fs::create_dir_all(other.path().join("target/dist")).unwrap();
    fs::copy(dist().join("stockade"), other.path().join("target/dist/stockade")).unwrap();
    let time = run(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(top()));
    let here = tempfile::tempdir().unwrap();
    let there = other.path().join("target/packed");
    for (tree, output) in [(top(), here.path()), (other.path(), there.as_path())] {
        run(Command::new(tree.join("packaging/build"))
            .args(["--no-compile", "--fast", "--only", "deb,rpm,tar", "--output"])
            .arg(output)
            .env("SOURCE_DATE_EPOCH", time.trim()));
    }
    let sums = |dir: &Path| fs::read_to_string(dir.join("SHA256SUMS")).unwrap();
    let sums = (sums(here.path()), sums(&there));
    assert_eq!(sums.0.lines().count(), 3, "{}", sums.0);
    assert_eq!(sums.0, sums.1, "here and there");
}

#[test]
fn what_is_missing_is_named_and_nothing_is_installed() {
    // A machine with the tools of every machine, and none of ours.
    let bin = tempfile::tempdir().unwrap();
    for tool in ["bash", "dirname", "readlink", "sed", "uname", "tar", "gzip", "sha256sum", "flock"] {
        let path = run(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
        std::os::unix::fs::symlink(path.trim(), bin.path().join(tool)).unwrap();
    }
    let out = Command::new("bash")
        .arg(top().join("packaging/build"))
        .env("PATH", bin.path())
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap();
    let told = text(&out);
    assert_eq!(out.status.code(), Some(1), "{told}");
    for told_of in [
        "cargo: a Rust toolchain",
        "apt-get install musl-tools",
        "cargo install --locked cargo-deb@",
        "cargo install --locked cargo-generate-rpm@",
        "SOURCE_DATE_EPOCH=SECONDS",
    ] {
        assert!(told.contains(told_of), "{told_of} is not in:\n{told}");
    }
}
