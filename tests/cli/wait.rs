//! `run --wait`: what is wrong is told, and waited out. No agent ever begins here: nothing of this host is touched.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn mistakes_are_told_and_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    let control = dir.path().join("control.sock");
    let broken = |jail: &str| {
        std::fs::write(
            &config,
            format!("paths: {{ control: {} }}\njails: {{ {jail} }}\n", control.display()),
        )
        .unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    broken("npm-404: { logpath: relative }");
    let stockade = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
        command.args(args).env("STOCKADE_CONFIG", &config).stdin(Stdio::null());
        command
    };
    let mut agent = stockade(&["run", "--wait"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(agent.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut until = |part: &str| said.by_ref().find(|line| line.contains(part)).unwrap();
    until("logpath");
    assert!(until("nobody is banned").contains("to be corrected"));
    let ping = stockade(&["ping"]).output().unwrap();
    let told = String::from_utf8_lossy(&ping.stderr);
    assert_eq!(ping.status.code(), Some(1), "{told}");
    assert!(told.contains("logpath") && told.contains("nobody is banned"), "{told}");
    assert_eq!(stockade(&["bans"]).output().unwrap().status.code(), Some(3));
    // Another mistake is told, too; the same one is not told again.
    broken("npm-404: { logpth: /var/log/x }");
    until("logpth");
    std::fs::remove_file(&config).unwrap();
    until("waiting for");

    let ends = Instant::now();
    assert!(Command::new("kill").arg(agent.id().to_string()).status().unwrap().success());
    assert!(agent.wait().unwrap().success(), "told to end is no failure");
    assert!(ends.elapsed() < Duration::from_secs(2));
    assert!(!control.exists(), "the socket stays behind");
}

#[test]
fn without_it_a_missing_configuration_is_the_end() {
    let out = Command::new(env!("CARGO_BIN_EXE_stockade"))
        .args(["run", "--config", "/nonexistent/stockade.yaml"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
}
