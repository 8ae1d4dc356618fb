//! The agent makes itself small, whoever starts it and as whom.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use super::journal::Journal;
use super::world::{INNOCENT4, OFFENDER4, OFFENDER6, World, eventually, text};
use super::{NPM_JAIL, SOON};

/// CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
const FOUR: u64 = 1 << 2 | 1 << 12 | 1 << 38 | 1 << 39;
const NET_RAW: u64 = 1 << 13;
const SYS_PTRACE: u64 = 1 << 19;
/// A user and a group that have no home here.
const NOBODY: u32 = 65534;

fn status(world: &World) -> serde_json::Value {
    serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap()
}

/// A line of `/proc/PID/status`, for each thread of the agent: they are all alike.
fn of_threads(world: &World, key: &str) -> String {
    let pid = status(world)["pid"].to_string();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut told: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap().trim().to_owned()
        })
        .collect();
    assert!(told.len() > 3, "{told:?}");
    told.dedup();
    assert_eq!(told.len(), 1, "{key} of the threads");
    told.remove(0)
}

fn capabilities(world: &World, set: &str) -> u64 {
    u64::from_str_radix(&of_threads(world, set), 16).unwrap()
}

/// What root's agent keeps here: without systemd-logind it looks into sshd.
fn kept() -> u64 {
    let logind = ["system", "sessions"].iter().all(|name| Path::new("/run/systemd").join(name).is_dir());
    if logind { FOUR } else { FOUR | SYS_PTRACE }
}

/// The agent as root with all that root may.
fn start_as_root(world: &mut World, jails: &str) {
    world.configure(jails);
    let config = world.dir().join("config.yaml");
    world.start(env!("CARGO_BIN_EXE_stockade"), &["run", "--config", config.to_str().unwrap()], "agent.log");
    let answered = eventually(SOON * 2, || world.stockade(&["ping"]).status.success());
    assert!(answered, "the agent does not answer:\n{}", world.agent_log());
}

fn write_lines(world: &World, who: &str) {
    let path = world.dir().join("proxy-host-1_access.log");
    let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
    log.write_all((super::docker::line(who) + "\n").repeat(5).as_bytes()).unwrap();
}

#[test]
fn an_agent_of_roots_keeps_what_it_needs_and_hands_on_nothing() {
    let mut world = World::new();
    start_as_root(&mut world, NPM_JAIL);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(capabilities(&world, set), kept(), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(capabilities(&world, set), 0, "{set}");
    }
    assert_eq!(of_threads(&world, "NoNewPrivs"), "1");
    let log = world.agent_log();
    let told = "capabilities kept: CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, ";
    assert!(log.contains(told) && log.contains("; what is run gets no others"), "{log}");
    write_lines(&world, OFFENDER4);
    assert!(eventually(SOON, || world.table().contains(OFFENDER4)), "{}", world.agent_log());
    // A program that comes with a reload has what was kept, and that is told.
    let config = world.dir().join("config.yaml");
    let text_before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text_before}\nsinks: {{ exec: {{ command: [/bin/true] }} }}\n")).unwrap();
    let reload = text(&world.stockade(&["reload"]));
    assert!(reload.contains("programs of exec run with the few rights that the agent kept"), "{reload}");
}

#[test]
fn programs_of_sinks_have_what_root_has_and_the_agent_does_not() {
    let mut world = World::new();
    let script =
        world.write("told", "#!/bin/sh\ngrep -E 'CapEff|NoNewPrivs' /proc/self/status >DIR/told.out\n");
    let dir = world.dir().to_str().unwrap().to_owned();
    fs::write(&script, fs::read_to_string(&script).unwrap().replace("DIR", &dir)).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    start_as_root(
        &mut world,
        &format!("sinks: {{ exec: {{ command: [{dir}/told] }} }}\ndefaults: {{ sinks: [exec] }}\n{NPM_JAIL}"),
    );
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    assert_eq!(capabilities(&world, "CapEff"), kept());
    assert_eq!(of_threads(&world, "CapBnd"), bounding);
    let log = world.agent_log();
    assert!(log.contains("programs are run for the sinks exec, with all that their user may have"), "{log}");
    write_lines(&world, OFFENDER4);
    let told = || fs::read_to_string(world.dir().join("told.out")).unwrap_or_default();
    assert!(eventually(SOON, || told().contains("NoNewPrivs")), "{}", world.agent_log());
    assert_eq!(told(), format!("CapEff:\t{bounding}\nNoNewPrivs:\t0\n"));
}

#[test]
fn raw_sockets_are_for_iptables_alone() {
    let mut world = World::new();
    start_as_root(&mut world, &format!("backend: legacy\n{NPM_JAIL}"));
    assert_eq!(capabilities(&world, "CapEff"), kept() | NET_RAW);
    assert_eq!(capabilities(&world, "CapAmb"), 0);
    assert!(world.stockade(&["ban", "npm", OFFENDER4]).status.success());
    assert!(world.server("ipset", &["list"]).contains(OFFENDER4));
    assert!(world.stockade(&["stop", "--flush"]).status.success());
}

/// As the unit has it: a user of its own, four capabilities, and files that belong to others.
#[test]
fn a_user_with_four_capabilities_bans_by_file_journal_and_header() {
    let mut world = World::new();
    let journal = Journal::start(&mut world);
    let state = world.dir().join("state");
    let run = world.dir().join("run");
    for dir in [&state, &run] {
        fs::create_dir(dir).unwrap();
        chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let log = world.dir().join("proxy-host-1_access.log");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, Permissions::from_mode(0o640)).unwrap();
    // Where an ordinary user may not look, the program lies elsewhere.
    let program = world.dir().join("stockade");
    fs::copy(env!("CARGO_BIN_EXE_stockade"), &program).unwrap();
    let dir = world.dir().to_str().unwrap().to_owned();
    fs::set_permissions(&dir, Permissions::from_mode(0o711)).unwrap();
    let config = format!(
        "paths: {{ state: {dir}/state, control: {dir}/run/control.sock }}\nignoreip: [loopback, self]\n\
         headers: {{ matcher: bpf }}\n{}  sshd: {{ filter: sshd, journal: [{{own}}], from: start, maxretry: 1, bantime: 1h }}\n",
        NPM_JAIL.replace("DIR", &dir)
    );
    let config = world.write("config.yaml", &config.replace("{own}", &super::journal::own()));
    fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
    let caps = "+net_admin,+bpf,+perfmon,+dac_read_search";
    let bounding = format!("-all,{caps}");
    let enter = journal.enter();
    let nobody = NOBODY.to_string();
    let words = [
        &enter[..],
        &[
            "setpriv",
            "--reuid",
            &nobody,
            "--regid",
            &nobody,
            "--clear-groups",
            "--inh-caps",
            caps,
            "--ambient-caps",
            caps,
        ]
        .map(str::to_owned),
        &[
            "--bounding-set",
            &bounding,
            program.to_str().unwrap(),
            "run",
            "--config",
            config.to_str().unwrap(),
        ]
        .map(str::to_owned),
    ]
    .concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    world.start(words[0], &words[1..], "agent.log");
    let answered = eventually(SOON * 2, || world.stockade(&["ping"]).status.success());
    assert!(answered, "the agent does not answer:\n{}", world.agent_log());

    assert_eq!(capabilities(&world, "CapEff"), FOUR);
    assert_eq!(capabilities(&world, "CapAmb"), 0);
    assert_eq!(of_threads(&world, "Uid"), format!("{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}"));
    write_lines(&world, OFFENDER4);
    assert!(eventually(SOON, || world.table().contains(OFFENDER4)), "{}", world.agent_log());
    assert_eq!(status(&world)["headers"]["matcher"], "bpf", "{}", world.agent_log());
    journal.log(&[
        ("SYSLOG_IDENTIFIER", "sshd"),
        ("MESSAGE", &format!("Failed password for root from {OFFENDER6} port 22 ssh2")),
    ]);
    let banned = || world.table().contains("2001:db8:0:66::");
    assert!(eventually(SOON, banned), "{}", world.agent_log());

    // Its journalctl may read, and nothing else.
    let pid = status(&world)["pid"].to_string();
    let out = Command::new("pgrep").args(["--parent", &pid, "journalctl"]).output().unwrap();
    let child = text(&out);
    let status = fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000004"), "{status}");

    // Root's own agent sees that this one is there, whoever it belongs to.
    let other = world.write("other.yaml", &format!("paths: {{ state: {dir}/2, control: {dir}/2.sock }}\n"));
    let out = world.on_server(env!("CARGO_BIN_EXE_stockade"), &["run", "--config", other.to_str().unwrap()]);
    let told = text(&{ out }.output().unwrap());
    assert!(told.contains(&format!("another agent (pid {pid}) enforces")), "{told}");
    assert!(!world.table().contains(INNOCENT4));
}

#[test]
fn root_is_told_why_it_may_not_write_where_another_user_is_at_home() {
    let mut world = World::new();
    let dir = world.dir().to_str().unwrap().to_owned();
    fs::create_dir(format!("{dir}/theirs")).unwrap();
    chown(format!("{dir}/theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    let paths = |state: &str, control: &str| {
        format!(
            "paths: {{ state: {dir}/{state}, control: {dir}/{control} }}\n{}",
            NPM_JAIL.replace("DIR", &dir)
        )
    };
    let config = world.write("config.yaml", &paths("state", "theirs/control.sock"));
    let run = ["run", "--config", config.to_str().unwrap()];
    let out = world.on_server(env!("CARGO_BIN_EXE_stockade"), &run).output().unwrap();
    let told = text(&out);
    let why = format!(
        "; {dir}/theirs belongs to the user nobody, and the agent writes only where its own user may"
    );
    assert!(out.status.code() == Some(4) && told.contains(&why), "{told}");
    // Without a ledger it bans all the same, and says what is missing.
    world.write("config.yaml", &paths("theirs/state", "control.sock"));
    world.start(env!("CARGO_BIN_EXE_stockade"), &run, "agent.log");
    assert!(eventually(SOON * 2, || world.stockade(&["ping"]).status.success()), "{}", world.agent_log());
    assert!(world.agent_log().contains(&why), "{}", world.agent_log());
}
