//! systemd's own journald, in a mount namespace with a journal of its own.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::SOON;
use crate::world::{INNOCENT4, OFFENDER4, World, eventually, text};

/// A mount namespace whose journal is its own, and the journald in it.
pub(crate) struct Journal {
    holder: u32,
    journald: u32,
}

impl Journal {
    pub(crate) fn start(world: &mut World) -> Self {
        assert!(
            fs::exists("/usr/lib/systemd/systemd-journald").unwrap(),
            "there is no systemd-journald: tests/run installs the package systemd"
        );
        let script = "mount -t tmpfs tmpfs /run/log 2>/dev/null || { mkdir -p /run/log && mount -t tmpfs tmpfs /run/log; }
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/log/journal
exec sleep infinity";
        let holder = world.start_with_groups(
            "unshare",
            &["--mount", "--propagation", "private", "sh", "-c", script],
            "holder.log",
        );
        let made = format!("/proc/{holder}/root/run/log/journal");
        assert!(eventually(SOON, || fs::exists(&made).unwrap_or(false)), "no namespace for a journal");
        let mut journal = Self { holder, journald: 0 };
        journal.run(world);
        journal
    }

    /// Starts journald.
    fn run(&mut self, world: &mut World) {
        let socket = self.path("systemd/journal/socket");
        drop(fs::remove_file(&socket));
        let enter = self.enter();
        self.journald = world.start_with_groups(
            "nsenter",
            &[enter[1].as_str(), "/usr/lib/systemd/systemd-journald"],
            "journald.log",
        );
        let up = eventually(SOON, || UnixDatagram::unbound().unwrap().connect(&socket).is_ok());
        let log = fs::read_to_string(world.dir().join("journald.log")).unwrap();
        assert!(up, "journald does not listen at {socket}: {log}");
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/root/run/{name}", self.holder)
    }

    /// What puts a command in front of it into the namespace.
    pub(crate) fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", self.holder)]
    }

    fn run_agent(&self, world: &mut World) {
        let enter = self.enter();
        world.run_agent_by(&[&enter[0], &enter[1]]);
    }

    /// Logs an entry as this process, by journald's native protocol (systemd's JOURNAL_NATIVE_PROTOCOL.md).
    pub(crate) fn log(&self, fields: &[(&str, &str)]) {
        let mut datagram = Vec::new();
        for (name, value) in fields {
            datagram.extend_from_slice(name.as_bytes());
            datagram.push(b'\n');
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            datagram.extend_from_slice(value.as_bytes());
            datagram.push(b'\n');
        }
        let socket = UnixDatagram::unbound().unwrap();
        let path = self.path("systemd/journal/socket");
        let sent = eventually(SOON, || socket.send_to(&datagram, &path).is_ok());
        assert!(sent, "journald takes no entry");
    }

    /// Logs an entry as another program (logger) and user.
    pub(crate) fn log_as_other(&self, user: u32, fields: &[(&str, &str)]) {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let enter = self.enter();
        let out = Command::new(&enter[0])
            .args([&enter[1], "setpriv", &format!("--reuid={user}"), "--clear-groups"])
            .args(["sh", "-c", "printf %s \"$0\" | logger --journald", &lines])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", text(&out));
    }

    fn ssh(&self, message: &str) {
        self.log(&[("SYSLOG_IDENTIFIER", "sshd"), ("SYSLOG_PID", "99"), ("MESSAGE", message)]);
    }

    fn kill(&self, signal: Signal) {
        kill(Pid::from_raw(self.journald.try_into().unwrap()), signal).unwrap();
    }
}

/// What the test itself logs: nobody else is this program.
pub(crate) fn own() -> String {
    format!("_EXE={}", fs::read_link("/proc/self/exe").unwrap().display())
}

fn failed(address: &str) -> String {
    format!("Failed password for root from {address} port 40022 ssh2")
}

fn jail(maxretry: u32) -> String {
    format!("jails:\n  sshd: {{ journal: '{}', maxretry: {maxretry}, findtime: 1h, bantime: 1h }}\n", own())
}

pub(crate) fn status(world: &World) -> Value {
    serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap_or_default()
}

/// The agent's journalctl.
fn child(world: &World) -> Option<i32> {
    let agent = status(world)["pid"].as_i64()?;
    let children = fs::read_dir(format!("/proc/{agent}/task")).ok()?.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    });
    children.into_iter().find(|pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "journalctl")
    })
}

#[test]
fn offenders_in_the_journal_are_blocked_and_nobody_else() {
    let mut world = World::new();
    crate::nginx::start(&mut world);
    let journal = Journal::start(&mut world);
    // Before the agent is there: it is recent.
    journal.ssh(&failed(OFFENDER4));
    world.configure(&jail(3));
    journal.run_agent(&mut world);

    // One entry is one line, whatever stands in it, and nobody else's entry is sshd's.
    let forged = format!("{} vm sshd[1]: {}", jiff::Timestamp::now(), failed(INNOCENT4));
    for _ in 0..5 {
        journal.ssh(&format!("Accepted password for x\n{forged}"));
        journal.ssh(&format!("Accepted password for x\r{forged}"));
        journal.log(&[("SYSLOG_IDENTIFIER", &format!("sshd[1]: {}", failed(INNOCENT4))), ("MESSAGE", "x")]);
        journal.log(&[
            ("SYSLOG_IDENTIFIER", "sshd"),
            ("MESSAGE", &failed(INNOCENT4)),
            ("MESSAGE", &failed("198.51.100.9")),
        ]);
        journal.log_as_other(0, &[("SYSLOG_IDENTIFIER", "sshd"), ("MESSAGE", &failed(INNOCENT4))]);
    }
    journal.ssh(&failed(OFFENDER4));
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "two offenses are not three");
    journal.ssh(&failed(OFFENDER4));
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/").is_none()), "{}", world.agent_log());
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200), "{}", world.table());
    assert!(!world.table().contains(INNOCENT4), "{}", world.table());

    let mut told = Value::Null;
    let seen = eventually(SOON, || {
        told = status(&world)["jails"][0].clone();
        told["offenses"] == 3 && told["journal"][0]["entries"].as_u64() >= Some(23)
    });
    assert!(seen, "{told:#}");
    assert_eq!((&told["journal"][0]["match"], &told["journal"][0]["problem"]), (&own().into(), &Value::Null));
    let for_people = text(&world.stockade(&["status"]));
    assert!(for_people.contains(&format!("journal   {}: ", own())), "{for_people}");
}

/// Each entry counts once and none is left out, whatever happens between them: the last of `WANTED` bans, and not one before.
#[test]
fn the_journal_is_read_once_through_rotations_and_restarts() {
    const WANTED: u32 = 14;
    let mut world = World::new();
    let mut journal = Journal::start(&mut world);
    world.configure(&jail(WANTED));
    let mut sent = 0;
    let mut send = |journal: &Journal, n: u32| {
        for _ in 0..n {
            journal.ssh(&failed(OFFENDER4));
            sent += 1;
        }
        sent
    };
    let read = |world: &World, n: u64| {
        let enough =
            eventually(SOON, || status(world)["jails"][0]["journal"][0]["entries"].as_u64() >= Some(n));
        assert!(enough, "{:#}\n{}", status(world), world.agent_log());
    };
    send(&journal, 2);
    journal.run_agent(&mut world);
    read(&world, 2);

    let enter = journal.enter();
    let rotate = || {
        let out = Command::new(&enter[0]).args([&enter[1], "journalctl", "--rotate"]).output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
    };
    rotate();
    send(&journal, 2);
    read(&world, 4);

    // The child is killed, while entries come.
    let first = child(&world).unwrap();
    send(&journal, 1);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    send(&journal, 1);
    read(&world, 6);
    assert!(eventually(SOON, || child(&world).is_some_and(|pid| pid != first)), "{}", world.agent_log());

    // journald ends, in order and not.
    for (signal, n) in [(Signal::SIGTERM, 7), (Signal::SIGKILL, 8)] {
        journal.kill(signal);
        journal.run(&mut world);
        send(&journal, 1);
        // What journald itself has not written yet when it is killed is nowhere.
        read(&world, n);
    }

    // The agent is stopped, and killed. Its child does not outlive it.
    for stop in [true, false] {
        // The cursor goes into the ledger within a second or two.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let (agent, orphan) = (status(&world)["pid"].as_i64().unwrap(), child(&world).unwrap());
        if stop {
            assert!(world.stockade(&["stop"]).status.success());
        } else {
            kill(Pid::from_raw(agent.try_into().unwrap()), Signal::SIGKILL).unwrap();
        }
        let gone = |pid: i64| !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false);
        assert!(eventually(SOON, || gone(agent) && gone(orphan.into())), "journalctl outlives the agent");
        send(&journal, 1);
        rotate();
        send(&journal, 1);
        journal.run_agent(&mut world);
        read(&world, 2);
    }
    assert!(!world.table().contains(OFFENDER4), "an entry counted twice:\n{}", world.agent_log());
    let all = send(&journal, 2);
    assert_eq!(all, WANTED);
    assert!(
        eventually(SOON, || world.table().contains(OFFENDER4)),
        "an entry was lost:\n{}",
        world.agent_log()
    );
    let bans: Value = serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
    assert_eq!(bans[0]["offenses"], WANTED, "{bans:#}");
}

/// journalctl's `--after-cursor` leaves out an entry when the one it names is gone.
#[test]
fn an_entry_that_was_rotated_away_takes_no_other_with_it() {
    let mut world = World::new();
    let journal = Journal::start(&mut world);
    world.configure(&jail(3));
    journal.run_agent(&mut world);
    journal.ssh(&failed(OFFENDER4));
    assert!(eventually(SOON, || status(&world)["jails"][0]["journal"][0]["entries"] == 1));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(world.stockade(&["stop"]).status.success());
    let enter = journal.enter();
    let run = |args: &[&str]| {
        let out = Command::new(&enter[0]).arg(&enter[1]).args(args).output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
    };
    run(&["journalctl", "--rotate"]);
    run(&["sh", "-c", "rm /run/log/journal/*/*@*"]);
    journal.ssh(&failed(OFFENDER4));
    journal.run_agent(&mut world);
    let told = eventually(SOON, || world.agent_log().contains("does not hold the entry any more"));
    assert!(told, "{}", world.agent_log());
    journal.ssh(&failed(OFFENDER4));
    assert!(eventually(SOON, || world.table().contains(OFFENDER4)), "{}", world.agent_log());
}

#[test]
fn a_reload_leaves_the_child_alone() {
    let mut world = World::new();
    let journal = Journal::start(&mut world);
    world.configure(&jail(3));
    journal.run_agent(&mut world);
    journal.ssh(&failed(OFFENDER4));
    assert!(eventually(SOON, || status(&world)["jails"][0]["journal"][0]["entries"] == 1));
    let before = child(&world).unwrap();
    world.configure(
        &(jail(3) + &format!("  other: {{ filter: sshd, journal: '{}', maxretry: 50 }}\n", own())),
    );
    assert!(world.stockade(&["reload"]).status.success());
    journal.ssh(&failed(OFFENDER4));
    assert!(eventually(SOON, || status(&world)["jails"][1]["offenses"] == 1), "{:#}", status(&world));
    assert_eq!(child(&world), Some(before), "two jails with the same matches share a child");
    // Other matches, and back: it goes on behind what it had read.
    world.configure(&jail(3).replace("_EXE", "_UID=0 _EXE"));
    assert!(world.stockade(&["reload"]).status.success());
    assert!(eventually(SOON, || child(&world).is_some_and(|pid| pid != before)));
    world.configure(&jail(3));
    assert!(world.stockade(&["reload"]).status.success());
    std::thread::sleep(std::time::Duration::from_millis(300));
    journal.ssh("Accepted password for x");
    assert!(
        eventually(SOON, || status(&world)["jails"][0]["journal"][0]["entries"] == 1),
        "{:#}",
        status(&world)
    );
}

#[test]
fn what_is_missing_is_told_and_waited_for() {
    let mut world = World::new();
    crate::nginx::start(&mut world);
    let dir = world.dir().display().to_string();
    world.start_agent(&format!(
        "journal: {{ directory: DIR/journal }}\n{}  npm: {{ filter: npm-404, logpath: DIR/proxy-host-*_access.log, maxretry: 3 }}\n",
        jail(3)
    ));
    let told = eventually(SOON, || {
        let problem = status(&world)["jails"][0]["journal"][0]["problem"].clone();
        problem.as_str().is_some_and(|p| p.starts_with(&format!("there is no journal in {dir}/journal")))
    });
    assert!(told, "{:#}", status(&world));
    // The others go on.
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/x").is_none()), "{}", world.agent_log());
    let check = text(&world.stockade(&["check"]));
    assert!(check.contains("there is no journal in"), "{check}");
}
