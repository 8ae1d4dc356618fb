//! Too much of everything: memory stays bounded, bans reach the kernel, what was given up is told. The figures are in
//! `benches/floods.rs`; here nothing depends on how fast the machine is.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, eventually, text};

/// Machines are slow, and an agent that hangs is found all the same.
const LONG: Duration = Duration::from_secs(90);

/// One line, one ban; the line's time is its arrival.
const JAIL: &str = "
filters:
  bad: { failregex: '^bad <HOST>$' }
jails:
  bad: { filter: bad, logpath: DIR/bad*.log, from: start, maxretry: 1, findtime: 1h, bantime: 1d }
";

fn status(world: &World) -> Value {
    let out = world.stockade(&["status", "--json"]);
    assert!(out.status.success(), "{}\n{}", text(&out), world.agent_log());
    serde_json::from_slice(&out.stdout).unwrap()
}

fn jail(world: &World, key: &str) -> u64 {
    status(world)["jails"][0][key].as_u64().unwrap_or_else(|| panic!("no {key}: {}", status(world)))
}

/// The most memory the agent ever had, in MiB: VmHWM in proc_pid_status(5).
fn most_memory(world: &World) -> u64 {
    let pid = status(world)["pid"].as_u64().unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn append(world: &World, name: &str, bytes: &[u8]) {
    let path = world.dir().join(name);
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn bad(n: u32) -> String {
    format!("bad {}\n", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n))
}

fn bans_are(world: &World, n: u64) {
    assert!(eventually(LONG, || jail(world, "bans") == n), "{}\n{}", status(world), world.agent_log());
}

fn in_kernel(world: &World, address: &str) -> bool {
    world
        .on_server("nft", &["get", "element", "inet", "stockade", "banned4", &format!("{{ {address} }}")])
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
fn a_flood_of_bans_makes_room_for_itself_in_bounded_memory() {
    const MANY: u32 = 150_000;
    let mut world = World::new();
    world.start_agent(&format!("limits: {{ memory: 64M }}\nlog: {{ level: warn }}\n{JAIL}"));
    // Neither an order nor what has no end makes room.
    for order in [&["198.51.100.1", "--for", "1h"], &["198.51.100.2", "--for", "permanent"]] {
        let out = world.stockade(&[&["ban", "bad"], &order[..]].concat());
        assert!(out.status.success(), "{}", text(&out));
    }
    for chunk in 0..MANY / 10_000 {
        let lines: String = (chunk * 10_000..(chunk + 1) * 10_000).map(bad).collect();
        append(&world, "bad.log", lines.as_bytes());
        // It answers meanwhile.
        assert!(world.stockade(&["ping"]).status.success(), "{}", world.agent_log());
    }
    assert!(eventually(LONG, || jail(&world, "offenses") == u64::from(MANY)), "{}", status(&world));
    let bans = jail(&world, "bans");
    assert!(bans < u64::from(MANY) / 4, "{bans} bans in 64 MB");
    assert_eq!(jail(&world, "crowded_out") + bans, u64::from(MANY) + 2);
    assert!(most_memory(&world) < 64, "{} MB", most_memory(&world));
    // All that is banned is in the kernel, and nothing else.
    let table = world.table();
    let elements = table.matches(" offenses, ").count();
    assert_eq!(elements as u64, bans);
    for kept in ["198.51.100.1", "198.51.100.2", bad(MANY - 1).trim_start_matches("bad ").trim()] {
        assert!(in_kernel(&world, kept), "{kept} is gone");
    }
    assert!(eventually(LONG, || world.agent_log().contains("more bans than limits.memory has room for")));
    let told = world.agent_log().matches("more bans than limits.memory").count();
    assert_eq!(told, 1, "{}", world.agent_log());
}

#[test]
fn a_line_without_an_end_is_skipped_and_counted() {
    let mut world = World::new();
    world.start_agent(JAIL);
    let piece = vec![b'x'; 4 << 20];
    for _ in 0..50 {
        append(&world, "bad.log", &piece);
    }
    append(&world, "bad.log", format!("\n{}", bad(1)).as_bytes());
    bans_are(&world, 1);
    assert_eq!(status(&world)["jails"][0]["files"][0]["skipped"], 1);
    assert!(most_memory(&world) < 64, "{} MB", most_memory(&world));
}

#[test]
fn two_thousand_files_are_followed() {
    const FILES: u32 = 2_000;
    let mut world = World::new();
    for n in 0..FILES {
        append(&world, &format!("bad-{n}.log"), b"");
    }
    world.start_agent(&format!("log: {{ level: warn }}\n{JAIL}"));
    let files = || status(&world)["jails"][0]["files"].as_array().unwrap().len();
    assert!(eventually(LONG, || files() == FILES as usize), "{} files\n{}", files(), world.agent_log());
    for n in 0..FILES {
        append(&world, &format!("bad-{n}.log"), bad(n).as_bytes());
    }
    bans_are(&world, FILES.into());
    assert!(most_memory(&world) < 64, "{} MB", most_memory(&world));
}

#[test]
fn hostile_bytes_harm_nobody() {
    let mut world = World::new();
    world.start_agent(JAIL);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&[0; 5_000]);
    bytes.extend_from_slice(b"\nbad \x1b[2J\x1b]0;owned\x07 \xff\xfe\n");
    bytes.extend_from_slice(&[b"bad ".as_slice(), &[b'9'; 65_536 - 5], b"\n"].concat());
    bytes.extend_from_slice(&[b"bad ".as_slice(), &[b'9'; 65_536], b"\n"].concat());
    bytes.extend_from_slice(b"\r\n\r\r\n\n\n");
    // Each from somebody who is never banned, and none twice.
    for n in 0..20_000_u32 {
        bytes.extend_from_slice(format!("bad 127.{}.{}.{}\n", n >> 16, n >> 8 & 255, n & 255).as_bytes());
    }
    append(&world, "bad.log", &bytes);
    append(&world, "bad.log", bad(1).as_bytes());
    bans_are(&world, 1);
    assert_eq!(status(&world)["jails"][0]["files"][0]["skipped"], 1, "a line of more than limits.line");
    assert!(!world.agent_log().contains('\x1b'), "{:?}", world.agent_log());
    assert!(most_memory(&world) < 64, "{} MB", most_memory(&world));
}

/// A world whose agents keep their state in a tmpfs of this size. The mount is this thread's and its children's alone.
fn with_small_disk(options: &str) -> (World, PathBuf) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    run("mount", &["--make-rprivate", "/"]);
    let world = World::new();
    let state = world.dir().join("state");
    fs::create_dir(&state).unwrap();
    run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", state.to_str().unwrap()]);
    (world, state)
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", text(&out));
}

fn remembers(world: &World, yes: bool) -> bool {
    let state = if yes { "remembering" } else { "not remembering" };
    eventually(LONG, || status(world)["ledger"]["state"] == state)
}

/// Kills the agent, takes its bans out of the kernel, and starts another one, which has only the ledger.
fn again_from_the_ledger(world: &mut World) {
    world.kill_agent();
    world.server("nft", &["delete", "table", "inet", "stockade"]);
    world.run_agent();
}

#[test]
fn a_full_disk_holds_up_no_ban_and_is_made_up_for() {
    let (mut world, state) = with_small_disk("size=2m");
    world.start_agent(JAIL);
    append(&world, "bad.log", bad(1).as_bytes());
    bans_are(&world, 1);
    // Somebody fills the disk.
    let mut ballast = OpenOptions::new().create(true).append(true).open(state.join("ballast")).unwrap();
    while ballast.write_all(&[b'x'; 4096]).is_ok() {}
    let many: String = (2..=2_000).map(bad).collect();
    append(&world, "bad.log", many.as_bytes());
    bans_are(&world, 2_000);
    assert!(in_kernel(&world, "11.0.7.208"), "{}", world.agent_log());
    assert!(remembers(&world, false), "{}", status(&world));
    assert!(
        status(&world)["ledger"]["problem"].as_str().unwrap().contains("free some space"),
        "{}",
        status(&world)
    );
    // What is open keeps its room.
    drop(ballast);
    fs::remove_file(state.join("ballast")).unwrap();
    assert!(remembers(&world, true), "{}", status(&world));
    again_from_the_ledger(&mut world);
    bans_are(&world, 2_000);
    // None of its lines counts twice.
    assert_eq!(jail(&world, "offenses"), 0, "{}", world.agent_log());
    run("umount", &["--lazy", state.to_str().unwrap()]);
}

#[test]
fn a_disk_that_may_not_be_written_holds_up_no_ban() {
    let (mut world, state) = with_small_disk("size=2m,ro");
    let disk = state.to_str().unwrap().to_owned();
    world.start_agent(JAIL);
    append(&world, "bad.log", bad(1).as_bytes());
    bans_are(&world, 1);
    assert!(remembers(&world, false), "{}", status(&world));
    // `ip netns exec` gives each program a mount namespace of its own, a copy of this one.
    let pid = status(&world)["pid"].to_string();
    run("nsenter", &["--mount", "--target", &pid, "mount", "-o", "remount,rw", &disk]);
    run("mount", &["-o", "remount,rw", &disk]);
    assert!(remembers(&world, true), "{}", status(&world));
    again_from_the_ledger(&mut world);
    bans_are(&world, 1);
    run("umount", &["--lazy", &disk]);
}

#[test]
fn a_damaged_ledger_is_set_aside_and_a_new_one_begun() {
    let mut world = World::new();
    world.start_agent(JAIL);
    append(&world, "bad.log", bad(1).as_bytes());
    bans_are(&world, 1);
    world.kill_agent();
    let state = world.dir().join("state");
    let ledger = state.join("stockade.db");
    fs::write(&ledger, vec![0x55; 20_000]).unwrap();
    // Else everything is in there, and nothing is lost.
    fs::remove_file(state.join("stockade.db-wal")).unwrap();
    world.run_agent();
    // The kernel still knew it.
    bans_are(&world, 1);
    assert!(world.agent_log().contains("set aside"), "{}", world.agent_log());
    let aside = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().contains("damaged")
    };
    assert!(fs::read_dir(&state).unwrap().any(aside));
    assert!(remembers(&world, true), "{}", status(&world));
    again_from_the_ledger(&mut world);
    bans_are(&world, 1);
}

/// The time that an element of `banned4` has left, in seconds, as nft tells it: `expires 59m58s12ms`.
fn left(world: &World, address: &str) -> Option<u64> {
    let table = world.table();
    let after = table.split_once(address)?.1.split_once("expires ")?.1;
    let word: String = after.chars().take_while(char::is_ascii_alphanumeric).collect();
    let (mut seconds, mut number) = (0, String::new());
    let mut rest = word.as_str();
    while let Some(c) = rest.chars().next() {
        rest = &rest[1..];
        match c {
            '0'..='9' => number.push(c),
            'm' if rest.starts_with('s') => break,
            unit => {
                let each = match unit {
                    'd' => 86_400,
                    'h' => 3_600,
                    'm' => 60,
                    _ => 1,
                };
                seconds += each * number.parse::<u64>().unwrap();
                number.clear();
            }
        }
    }
    Some(seconds)
}

#[test]
fn when_the_clock_jumps_an_hour_bans_end_when_they_should() {
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| fs::exists(path).unwrap())
        .expect("libfaketime is not installed: run tests/run, or install the package faketime");
    let world = World::new();
    let clock = world.write("clock", "+0");
    let jump = |offset: &str| {
        // In one step, as a clock is set.
        let new = clock.with_extension("new");
        fs::write(&new, offset).unwrap();
        fs::rename(&new, &clock).unwrap();
    };
    let mut agent = vec![
        "env".to_owned(),
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    world.configure(JAIL);
    let config = world.dir().join("config.yaml");
    agent.extend([env!("CARGO_BIN_EXE_stockade"), "run", "--config"].map(str::to_owned));
    agent.push(config.to_str().unwrap().to_owned());
    let args: Vec<&str> = agent.iter().map(String::as_str).collect();
    let log = fs::File::create(world.dir().join("agent.log")).unwrap();
    let mut child =
        world.on_server(args[0], &args[1..]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    assert!(eventually(LONG, || world.stockade(&["ping"]).status.success()), "{}", world.agent_log());
    for (address, time) in [("198.51.100.30", "30m"), ("198.51.100.120", "2h")] {
        assert!(world.stockade(&["ban", "bad", address, "--for", time]).status.success());
    }
    let about = |address: &str, minutes: u64| {
        let near = || left(&world, address).is_some_and(|left| left.abs_diff(minutes * 60) < 120);
        assert!(eventually(LONG, near), "{address}: {:?}\n{}", left(&world, address), world.agent_log());
    };
    about("198.51.100.120", 120);
    jump("+3600");
    // What is over by the new clock is over; what is not has so much less to go.
    about("198.51.100.120", 60);
    assert!(eventually(LONG, || !in_kernel(&world, "198.51.100.30")), "{}", world.agent_log());
    append(&world, "bad.log", bad(1).as_bytes());
    bans_are(&world, 2);
    about("11.0.0.1", 24 * 60);
    jump("+0");
    about("198.51.100.120", 120);
    about("11.0.0.1", 25 * 60);
    append(&world, "bad.log", bad(2).as_bytes());
    bans_are(&world, 3);
    about("11.0.0.2", 24 * 60);
    assert_eq!(
        world.agent_log().matches("giving all bans their ends anew").count(),
        2,
        "{}",
        world.agent_log()
    );
    assert!(world.stockade(&["stop"]).status.success());
    assert!(child.wait().unwrap().success());
}
