//! What the distributions' own tools say of the packages, and what is in them.

use std::process::Command;

use crate::dist::{VERSION, deb, rpm, run, tarball, text, top};

#[test]
fn lintian_finds_no_error() {
    let out = Command::new("lintian")
        .args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"])
        .arg(deb())
        .output()
        .expect("lintian cannot be run: tests/run installs it");
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn rpmlint_finds_no_error() {
    let out = Command::new("rpmlint")
        .arg("--config")
        .arg(top().join("packaging/rpm/rpmlint.toml"))
        .arg(rpm())
        .output()
        .expect("rpmlint cannot be run: tests/run installs it");
    assert!(out.status.success() && text(&out).contains(" 0 errors"), "{}", text(&out));
}

/// What every package must have; the places differ.
const EVERYWHERE: [&str; 12] = [
    "/usr/bin/stockade",
    "/etc/stockade/config.yaml",
    "/usr/lib/systemd/system/stockade.service",
    "/usr/lib/sysusers.d/stockade.conf",
    "/usr/lib/tmpfiles.d/stockade.conf",
    "/usr/share/man/man8/stockade.8.gz",
    "/usr/share/man/man5/stockade.yaml.5.gz",
    "/usr/share/bash-completion/completions/stockade",
    "/usr/share/fish/vendor_completions.d/stockade.fish",
    "/usr/share/doc/stockade/README.md",
    "/usr/share/doc/stockade/install.md",
    "/third-party-licenses.gz",
];

#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = std::fs::read_to_string(top().join("packaging/deb/changelog")).unwrap();
    assert!(changelog.starts_with(&format!("stockade ({VERSION}-1) ")), "{changelog}");
}

#[test]
fn nothing_is_left_out() {
    let deb = run(Command::new("dpkg-deb").arg("--contents").arg(deb()));
    let rpm = run(Command::new("rpm").args(["--query", "--package", "--list"]).arg(rpm()));
    for file in EVERYWHERE {
        assert!(deb.lines().any(|line| line.ends_with(file)), "{file} is not in the .deb:\n{deb}");
        assert!(rpm.lines().any(|line| line.ends_with(file)), "{file} is not in the .rpm:\n{rpm}");
    }
    for file in ["/copyright", "/changelog.Debian.gz", "/vendor-completions/_stockade"] {
        assert!(deb.lines().any(|line| line.ends_with(file)), "{file} is not in the .deb:\n{deb}");
    }
    for file in ["/site-functions/_stockade", "/LICENSE-MIT", "/LICENSE-APACHE"] {
        assert!(rpm.lines().any(|line| line.ends_with(file)), "{file} is not in the .rpm:\n{rpm}");
    }
    let config = run(Command::new("rpm")
        .args(["--query", "--package", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\\n]"])
        .arg(crate::dist::rpm()));
    assert!(
        config.lines().any(|line| line == "/etc/stockade/config.yaml cn"),
        "config(noreplace):\n{config}"
    );

    let tar = run(Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--file"])
        .arg(tarball()));
    let mut names = Vec::new();
    let mut times = std::collections::BTreeSet::new();
    for line in tar.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "0/0", "{line}");
        times.insert((words[3], words[4]));
        names.push(words[5]);
    }
    assert_eq!(times.len(), 1, "one time for all: {times:?}");
    assert!(names.is_sorted(), "{names:?}");
    for file in [
        "/stockade",
        "/config.yaml",
        "/LICENSE-MIT",
        "/THIRD-PARTY-LICENSES",
        "/systemd/stockade.service",
        "/man/stockade.8",
        "/completions/bash",
    ] {
        assert!(names.iter().any(|name| name.ends_with(file)), "{file} is not in the tarball: {names:?}");
    }
}
