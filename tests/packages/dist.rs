//! What `packaging/build` made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The version that Cargo.toml gives.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The top of the source tree.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory with the packages.
pub(crate) fn dist() -> PathBuf {
    top().join("target/dist")
}

/// The one file in `dir` whose name begins and ends so.
pub(crate) fn the_file(dir: &Path, begin: &str, end: &str) -> PathBuf {
    let names: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(begin) && name.ends_with(end)
        })
        .collect();
    assert_eq!(
        names.len(),
        1,
        "there must be one {begin}*{end} in {}: run packaging/build first",
        dir.display()
    );
    names[0].clone()
}

/// The package for Debian.
pub(crate) fn deb() -> PathBuf {
    the_file(&dist(), &format!("stockade_{VERSION}-1_"), ".deb")
}

/// The package for Fedora and its kin.
pub(crate) fn rpm() -> PathBuf {
    the_file(&dist(), &format!("stockade-{VERSION}-1."), ".rpm")
}

/// The tarball.
pub(crate) fn tarball() -> PathBuf {
    the_file(&dist(), &format!("stockade-{VERSION}-"), "-linux.tar.gz")
}

/// Packs the same binary as another version.
pub(crate) fn pack_as(version: &str, kind: &str, output: &Path) {
    let mut build = Command::new(top().join("packaging/build"));
    build.args(["--no-compile", "--fast", "--version", version, "--only", kind, "--output"]).arg(output);
    run(&mut build);
}

/// Runs a command that must succeed; what it wrote to its standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let out =
        command.output().unwrap_or_else(|e| panic!("{command:?} cannot be run (tests/run installs it): {e}"));
    assert!(out.status.success(), "{command:?}: {}", text(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// Both outputs of a command.
pub(crate) fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
