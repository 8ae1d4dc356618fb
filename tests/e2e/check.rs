//! `stockade check` with all rights of the host's root, and as an ordinary user without any.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use serde_json::Value;

use crate::world::{World, text};

/// A jail over a log that only root may read.
fn configure(world: &World) {
    let dir = world.dir().display();
    world.write(
        "config.yaml",
        &format!("jails:\n  npm:\n    filter: npm-404\n    logpath: {dir}/secret.log\n"),
    );
    let log = world.write("secret.log", "");
    fs::set_permissions(log, fs::Permissions::from_mode(0o600)).unwrap();
}

fn told(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(out)))
}

fn of<'v>(told: &'v Value, list: &str, key: &str, name: &str) -> &'v Value {
    told[list].as_array().unwrap().iter().find(|entry| entry[key] == name).unwrap()
}

#[test]
fn root_may_have_everything() {
    let world = World::new();
    configure(&world);
    let out = world.stockade(&["check", "--json"]);
    let told = told(&out);
    assert_eq!(out.status.code(), Some(0), "{told:#}");
    assert_eq!(of(&told, "features", "feature", "bpf-load")["available"], true, "{told:#}");
    assert_eq!(
        (&told["backend"]["chosen"], &told["header_matcher"]["chosen"]),
        (&"nft".into(), &"bpf".into())
    );
    for capability in ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"] {
        assert_eq!(of(&told, "findings", "what", capability)["mark"], "ok", "{told:#}");
    }
    assert!(of(&told, "findings", "what", "network")["told"].as_str().unwrap().starts_with("not the host's"));
}

#[test]
fn without_capabilities_it_says_which_are_missing_for_what() {
    let world = World::new();
    configure(&world);
    let run = |drop: &str| {
        let program = env!("CARGO_BIN_EXE_stockade");
        told(
            &world
                .on_server("setpriv", &[drop, program, "check", "--json", "--config", &config(&world)])
                .output()
                .unwrap(),
        )
    };
    let without = run("--bounding-set=-bpf,-perfmon,-sys_admin");
    assert_eq!(of(&without, "features", "feature", "bpf-load")["reason"], "without CAP_BPF and CAP_PERFMON");
    assert_eq!(without["header_matcher"]["chosen"], "string", "{without:#}");
    assert_eq!(of(&without, "findings", "what", "CAP_BPF")["mark"], "!!");
    assert_eq!(without["ok"], true, "string does it too: {without:#}");
}

fn config(world: &World) -> String {
    world.dir().join("config.yaml").display().to_string()
}

#[test]
fn an_ordinary_user_is_told_what_could_be_seen() {
    let world = World::new();
    configure(&world);
    // Where the tests are built nobody else may be let in.
    let program = world.dir().join("stockade");
    fs::copy(env!("CARGO_BIN_EXE_stockade"), &program).unwrap();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command: Command =
        world.on_server("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let out = command.arg(program).args(["check", "--json", "--config", &config(&world)]).output().unwrap();
    let told = told(&out);
    assert_eq!(out.status.code(), Some(1), "{told:#}");
    assert_eq!(of(&told, "findings", "what", "CAP_NET_ADMIN")["mark"], "NO");
    assert_eq!(of(&told, "findings", "what", "before our hook")["mark"], "??");
    let logs = of(&told, "findings", "what", "logs");
    assert_eq!(logs["ok"], false);
    assert!(logs["told"].as_str().unwrap().contains("secret.log: Permission denied"), "{logs:#}");
    assert_eq!(of(&told, "findings", "what", "CAP_DAC_READ_SEARCH")["mark"], "!!");
}
