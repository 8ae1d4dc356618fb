//! The images, as files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{target, text};

const MB: u64 = 1_000_000;

/// The archive that ends like this.
fn archive(end: &str) -> PathBuf {
    let dist = target().join("dist");
    let mut found: Vec<PathBuf> = fs::read_dir(&dist)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(end)))
        .collect();
    assert_eq!(found.len(), 1, "not one {end} in {}: run packaging/build first ({found:?})", dist.display());
    found.remove(0)
}

fn sh(commands: &str, args: &[&Path]) -> String {
    let out = Command::new("bash").args(["-euc", commands, "bash"]).args(args).output().unwrap();
    assert!(out.status.success(), "{commands}\n{}", text(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// The names and sizes of the files in the image.
fn content(archive: &Path) -> Vec<(String, u64)> {
    let listed = sh(
        "tar --extract --gzip --to-stdout --wildcards --file=\"$1\" '*/layer.tar' | tar --list --verbose --numeric-owner",
        &[archive],
    );
    let fields = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(words[1], "0/0", "somebody's of the machine it was made on: {line}");
        (words[5].trim_start_matches('.').to_owned(), words[2].parse().unwrap())
    };
    listed.lines().map(fields).collect()
}

#[test]
fn images_are_small() {
    for (end, most) in [("-container.tar.gz", 12), ("-container-legacy.tar.gz", 25)] {
        let archive = archive(end);
        let pulled = fs::metadata(&archive).unwrap().len();
        let unpacked: u64 = content(&archive).iter().map(|(_, size)| size).sum();
        eprintln!("{}: {pulled} bytes, {unpacked} unpacked", archive.display());
        assert!(pulled < most * MB, "{} has {pulled} bytes", archive.display());
        assert!(unpacked < most * MB, "{} has {unpacked} bytes unpacked", archive.display());
    }
}

#[test]
fn images_hold_what_they_need_and_its_licences() {
    let plain = content(&archive("-container.tar.gz"));
    let has = |content: &[(String, u64)], name: &str| content.iter().any(|(path, _)| path == name);
    for wanted in [
        "/usr/bin/stockade",
        "/etc/stockade/config.yaml",
        "/etc/stockade/traefik.yaml",
        "/etc/ssl/certs/ca-certificates.crt",
        "/usr/share/zoneinfo/Europe/Berlin",
        "/usr/share/doc/ca-certificates/copyright",
        "/usr/share/doc/stockade/LICENSE-MIT",
        "/data/",
    ] {
        assert!(has(&plain, wanted), "no {wanted}");
    }
    let programs: Vec<_> =
        plain.iter().filter(|(path, _)| path.contains("bin/") && !path.ends_with('/')).collect();
    assert_eq!(programs.len(), 1, "nothing but our program can be run: {programs:?}");
    let legacy = content(&archive("-container-legacy.tar.gz"));
    for package in ["iptables", "ipset", "libc6"] {
        assert!(has(&legacy, &format!("/usr/share/doc/{package}/copyright")), "no licence of {package}");
    }
}

/// The same files make the same image, wherever and whenever.
#[test]
fn images_are_the_same_when_made_again() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir_in(target()).unwrap();
    let made = sh(
        "cd \"$2\"
        tar --extract --gzip --to-stdout --wildcards --file=\"$3\" '*/layer.tar' | tar --extract ./usr/bin/stockade
        for n in 1 2; do
            SOURCE_DATE_EPOCH=1700000000 \"$1\"/packaging/container/image usr/bin/stockade \"$2\"/$n 1.2.3 >/dev/null
            (cd $n && sha256sum -- *)
        done",
        &[top, dir.path(), &archive("-container.tar.gz")],
    );
    let lines: Vec<&str> = made.lines().collect();
    assert_eq!(lines.len(), 4, "{made}");
    assert_eq!(lines[..2], lines[2..], "{made}");
}
