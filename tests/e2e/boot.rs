//! The unit and its drop-ins under a systemd that is process 1: this machine's own files under an overlay, in namespaces.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::world::text;

/// What `boot/inside.sh` tries: a step that it does not come to is no success.
const STEPS: usize = 35;

#[test]
fn the_unit_and_its_drop_ins_do_what_they_are_for() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let host = top.join("tests/e2e/boot/host.sh");
    let units = top.join("packaging/systemd");
    let out = Command::new("bash")
        .args([&host, dir.path(), Path::new(env!("CARGO_BIN_EXE_stockade")), &units])
        .output()
        .unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    let told = read("told");
    let console = read("console");
    assert!(out.status.success() && !told.is_empty(), "systemd did not come up: {}\n{console}", text(&out));
    assert!(!told.contains("FAILED"), "{told}");
    let steps = told.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(steps, STEPS, "{told}\n{console}");
}
