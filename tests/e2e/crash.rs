//! `kill -9` at any moment: the next agent goes on as if nothing had happened.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, eventually};

const SOON: Duration = Duration::from_secs(20);

/// Two logs: one is rotated by renaming, the other by copying and truncating. Short bans come again and again, and the third is
/// long: a ban that counted twice, or not, would show in who is banned.
const JAILS: &str = "
filters:
  bad: { failregex: '^bad <HOST>$' }
jails:
  renamed: { filter: bad, logpath: DIR/renamed.log, from: start, maxretry: 7, findtime: 1h, bantime: 1d }
  copied: { filter: bad, logpath: DIR/copied.log, from: start, maxretry: 5, findtime: 1h, bantime: 1d }
  brief:
    filter: bad
    logpath: DIR/renamed.log
    from: start
    maxretry: 3
    findtime: 20s
    bantime: 1s
    escalation: { multipliers: [1, 1, 86400] }
";

/// A log and everything that was ever written to it.
struct Log {
    path: PathBuf,
    file: File,
    all: Vec<u8>,
    rotations: u32,
}

impl Log {
    fn new(path: PathBuf) -> Self {
        let file = append(&path);
        Self { path, file, all: Vec::new(), rotations: 0 }
    }

    fn write(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
        self.all.extend_from_slice(text.as_bytes());
    }

    /// As logrotate without `copytruncate`, with dates in the names. Nothing is thrown away: a slow machine's agent may be
    /// several rotations behind.
    fn rename(&mut self) {
        self.rotations += 1;
        fs::rename(&self.path, numbered(&self.path, self.rotations)).unwrap();
        self.file = append(&self.path);
    }

    /// As logrotate with `copytruncate`; the writer holds its breath, so nothing is lost between the two.
    fn copy_and_truncate(&mut self) {
        self.rotations += 1;
        fs::copy(&self.path, numbered(&self.path, self.rotations)).unwrap();
        self.file.set_len(0).unwrap();
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    format!("{}-202611{n:02}", path.display()).into()
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// What is banned at the end: jail and offender to since, until and offenses.
type Bans = BTreeMap<(String, String), (String, String, u64)>;

fn key(value: &Value) -> (String, String) {
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    (text("jail"), text("offender"))
}

/// Milliseconds since the epoch.
fn ms(value: &Value) -> i64 {
    value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// Short bans end while the test looks.
fn is_long(ban: &Value, since: &str) -> bool {
    ms(&ban["until"]) - ms(&ban[since]) > 3_600_000
}

fn agent_says(world: &World) -> Bans {
    let out = world.stockade(&["bans", "--json"]);
    let list: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    list.iter()
        .filter(|ban| is_long(ban, "since"))
        .map(|ban| {
            (
                key(ban),
                (
                    ms(&ban["since"]).to_string(),
                    ms(&ban["until"]).to_string(),
                    ban["offenses"].as_u64().unwrap(),
                ),
            )
        })
        .collect()
}

fn replay_says(world: &World, log: &Path, jail: &str) -> Vec<Value> {
    let out = world.stockade(&["replay", "--jail", jail, log.to_str().unwrap(), "--json"]);
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|v: &Value| v["decision"] != Value::Null)
        .collect()
}

/// The last agent's story without the bans.
fn tail(log: &str) -> String {
    let told = |line: &&str| !line.contains(" unban ") && !line.contains(" ban ");
    let lines: Vec<&str> = log.lines().filter(told).collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[test]
fn a_killed_agent_counts_nothing_twice_and_forgets_nothing() {
    let mut world = World::new();
    let dir = world.dir().to_owned();
    let logs = [Log::new(dir.join("renamed.log")), Log::new(dir.join("copied.log"))];
    let logs = Arc::new(Mutex::new(logs));
    world.start_agent(JAILS);
    let done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (logs, done) = (Arc::clone(&logs), Arc::clone(&done));
        move || {
            // A number that looks random and is the same in each run.
            let mut state = 0x9e37_79b9_u32;
            let mut random = move |below: u32| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state % below
            };
            let mut turn = 0u32;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                let mut logs = logs.lock().unwrap();
                for (n, log) in logs.iter_mut().enumerate() {
                    let mut text = String::new();
                    for _ in 0..random(40) {
                        // Few of many offend often: the counts of most stay open until the end.
                        let many = if random(3) == 0 { 40 } else { 4000 };
                        let who = random(many);
                        let at = now();
                        text += &format!(
                            "{at} bad 198.{}.{}.{}\n{at} good 203.0.113.9\n",
                            18 + n,
                            who >> 8,
                            who & 255
                        );
                    }
                    // Sometimes the pen stops in the middle of a line.
                    let cut = text.len().saturating_sub(usize::try_from(random(30)).unwrap());
                    log.write(&text[..cut]);
                    log.file.flush().unwrap();
                    if random(4) == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    log.write(&text[cut..]);
                }
                if turn.is_multiple_of(307) {
                    logs[0].rename();
                }
                if turn.is_multiple_of(401) {
                    logs[1].copy_and_truncate();
                }
                drop(logs);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    for round in 0..14_u64 {
        std::thread::sleep(Duration::from_millis(20 + round * 83 % 410));
        world.kill_agent();
        // Away for a while: rotations pass unseen.
        std::thread::sleep(Duration::from_millis(round * 67 % 300));
        world.run_agent();
    }
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let mut logs = logs.lock().unwrap();
    for log in logs.iter_mut() {
        let at = now();
        log.write(&format!("{at} bad 192.0.2.99\n").repeat(7));
    }
    let caught_up = || {
        let bans = agent_says(&world);
        ["renamed", "copied"]
            .iter()
            .all(|jail| bans.contains_key(&((*jail).to_owned(), "192.0.2.99".to_owned())))
    };
    assert!(eventually(SOON, caught_up), "the agent did not read to the end\n{}", world.agent_log());
    let mut expected = Bans::new();
    let mut brief = 0;
    for log in logs.iter() {
        let whole = dir.join("whole").join(log.path.file_name().unwrap());
        fs::create_dir_all(whole.parent().unwrap()).unwrap();
        fs::write(&whole, &log.all).unwrap();
        let jail = log.path.file_stem().unwrap().to_str().unwrap();
        let others: &[&str] = if jail == "renamed" { &["brief"] } else { &[] };
        for jail in others.iter().chain([&jail]) {
            let decisions = replay_says(&world, &whole, jail);
            for ban in decisions.iter().filter(|v| v["decision"] == "ban" && is_long(v, "at")) {
                let value = (
                    ms(&ban["at"]).to_string(),
                    ms(&ban["until"]).to_string(),
                    ban["offenses"].as_u64().unwrap(),
                );
                expected.insert(key(ban), value);
                brief += usize::from(*jail == "brief");
            }
        }
    }
    assert!(expected.len() > 80, "too few bans to prove anything: {}", expected.len());
    let got = agent_says(&world);
    let wrong: Vec<_> = expected
        .iter()
        .filter(|(key, value)| got.get(*key) != Some(*value))
        .map(|(key, value)| format!("{key:?}: expected {value:?}, is {:?}", got.get(key)))
        .chain(
            got.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key:?}: not expected")),
        )
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} bans differ:\n{}\n{}",
        wrong.len(),
        expected.len(),
        wrong[..wrong.len().min(20)].join("\n"),
        tail(&world.agent_log())
    );
    assert!(brief > 20, "too few repeaters to prove anything: {brief}");
    // And the kernel holds them.
    let table = world.table();
    for (_, offender) in expected.keys() {
        assert!(table.contains(offender.as_str()), "{offender} is not in the kernel");
    }
}

/// What was ordered and answered is remembered, however soon the agent dies.
#[test]
fn an_order_that_was_answered_outlives_a_kill() {
    let mut world = World::new();
    fs::write(world.dir().join("renamed.log"), "").unwrap();
    world.start_agent(JAILS);
    let told = |world: &World, args: &[&str]| {
        let out = world.stockade(args);
        assert!(out.status.success(), "{args:?}: {}", crate::world::text(&out));
    };
    for round in 0..3 {
        let (stays, goes) = (format!("198.51.100.{round}"), format!("198.51.100.1{round}"));
        told(&world, &["ban", "renamed", &stays, &goes, "--for", "2h", "--reason", "a test"]);
        told(&world, &["unban", &goes]);
        world.kill_agent();
        world.run_agent();
        let bans: Vec<Value> = serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
        let find = |who: &str| bans.iter().find(|ban| ban["offender"] == who);
        assert_eq!(find(&stays).unwrap()["evidence"], "a test");
        assert_eq!(find(&goes), None);
    }
    assert_eq!(world.table().matches("renamed").count(), 3, "{}", world.table());
}

/// The kernel forgets everything at a reboot, the ledger does not.
#[test]
fn bans_survive_a_reboot() {
    let mut world = World::new();
    fs::write(world.dir().join("renamed.log"), "").unwrap();
    world.start_agent(JAILS);
    assert!(
        world
            .stockade(&["ban", "renamed", "198.51.100.7", "2001:db8:7::1", "--for", "permanent"])
            .status
            .success()
    );
    world.kill_agent();
    world.server("nft", &["flush", "ruleset"]);
    world.run_agent();
    let table = world.table();
    assert!(table.contains("198.51.100.7") && table.contains("2001:db8:7::"), "{table}");
    // What is flushed away with the agent does not come back.
    assert!(world.stockade(&["stop", "--flush"]).status.success());
    world.run_agent();
    assert!(!world.table().contains("198.51.100.7"), "{}", world.table());
}
