//! The unit and its drop-ins, judged by systemd's own tools. What runs under them is judged by all other tests: see `confined`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::text;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");
/// The exposure that systemd-analyze may tell, of 10.
const WORST: f64 = 2.0;

/// The unit with these drop-ins, in a directory of its own, starting a program that is there.
fn unit(dir: &Path, drop_ins: &[PathBuf]) -> PathBuf {
    let unit = fs::read_to_string(Path::new(UNITS).join("stockade.service")).unwrap();
    let installed = "/usr/bin/stockade";
    assert_eq!(unit.matches(installed).count(), 2, "ExecStart= and ExecReload=");
    let path = dir.join("stockade.service");
    fs::write(&path, unit.replace(installed, env!("CARGO_BIN_EXE_stockade"))).unwrap();
    let beside = dir.join("stockade.service.d");
    fs::create_dir_all(&beside).unwrap();
    for drop_in in drop_ins {
        fs::copy(drop_in, beside.join(drop_in.file_name().unwrap())).unwrap();
    }
    path
}

fn examples() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(Path::new(UNITS).join("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() >= 3, "{found:?}");
    found
}

fn analyze(args: &[&str]) -> String {
    let out = Command::new("systemd-analyze").args(["--no-pager"]).args(args).output();
    let out = out.expect("systemd-analyze is missing: tests/run installs the package systemd");
    let told = text(&out);
    assert!(out.status.success(), "systemd-analyze {args:?}: {told}");
    told
}

/// `→ Overall exposure level for stockade.service: 2.0 OK`
fn exposure(unit: &Path) -> f64 {
    let told = analyze(&["security", "--offline=yes", unit.to_str().unwrap()]);
    let line = told.lines().find(|line| line.contains("Overall exposure level")).expect(&told);
    let figure = line.rsplit_once("stockade.service: ").expect(line).1.split(' ').next().unwrap();
    figure.parse().expect(line)
}

#[test]
fn the_exposure_is_low_and_the_documentation_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let exposure = exposure(&unit(dir.path(), &[]));
    assert!(exposure <= WORST, "systemd-analyze security: {exposure}");
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).unwrap();
    // Versions of systemd weigh a little differently.
    assert!(
        docs.contains(&format!("exposure level {WORST:.1}")),
        "docs/security.md does not tell the figure"
    );
}

#[test]
fn systemd_knows_every_key() {
    let mut cases = vec![Vec::new()];
    cases.extend(examples().into_iter().map(|example| vec![example]));
    for drop_ins in cases {
        let dir = tempfile::tempdir().unwrap();
        let unit = unit(dir.path(), &drop_ins);
        // A unit it names and this machine lacks (modprobe@ in a container) is none of ours.
        let told = analyze(&["verify", "--man=no", "--recursive-errors=no", unit.to_str().unwrap()]);
        let ours: Vec<&str> = told.lines().filter(|line| line.contains("stockade")).collect();
        assert!(ours.is_empty(), "{drop_ins:?}: {ours:?}");
    }
}

/// What says how an example is installed is true of its name.
#[test]
fn examples_say_how_they_are_installed() {
    for example in examples() {
        let name = example.file_name().unwrap().to_str().unwrap().to_owned();
        let said = format!("#     install -D -m 644 {name} /etc/systemd/system/stockade.service.d/{name}\n");
        assert!(fs::read_to_string(&example).unwrap().contains(&said), "{name}");
    }
}

#[test]
fn the_user_and_the_directory_are_made() {
    let root = tempfile::tempdir().unwrap();
    let at = format!("--root={}", root.path().display());
    fs::create_dir(root.path().join("etc")).unwrap();
    for (tool, argument) in [("sysusers", "--no-pager"), ("tmpfiles", "--create")] {
        let place = root.path().join(format!("usr/lib/{tool}.d"));
        fs::create_dir_all(&place).unwrap();
        fs::copy(Path::new(UNITS).join(format!("stockade.{tool}")), place.join("stockade.conf")).unwrap();
        let out = Command::new(format!("systemd-{tool}")).args([&at, argument]).output().expect(tool);
        assert!(out.status.success(), "systemd-{tool}: {}", text(&out));
    }
    let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
    assert!(
        read("etc/passwd").contains("stockade firewall agent:/var/lib/stockade:"),
        "{}",
        read("etc/passwd")
    );
    for group in ["adm:", "systemd-journal:"] {
        let groups = read("etc/group");
        let line = groups.lines().find(|line| line.starts_with(group)).expect(&groups);
        assert!(line.ends_with(":stockade"), "{groups}");
    }
    assert!(root.path().join("etc/stockade").is_dir());
}
