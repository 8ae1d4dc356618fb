//! What others do to the ruleset, by mistake or not: it is repaired within a moment, counted and reported.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{INNOCENT4, OFFENDER4, OFFENDER6, World, eventually, text};
use crate::{NPM_JAIL, SOON, nginx, without_counts};

fn status(world: &World) -> Value {
    serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap()
}

fn repairs(world: &World) -> u64 {
    status(world)["kernel"]["repairs"].as_u64().unwrap()
}

/// A world with an agent and bans of every kind, without an end, so that the table is the same at any time.
fn with_bans() -> World {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);
    let bans =
        ["ban", "npm", OFFENDER4, OFFENDER6, "198.51.100.0/24", "2001:db8:9::/48", "--for", "permanent"];
    let out = world.stockade(&bans);
    assert!(out.status.success(), "{}", text(&out));
    world
}

/// What the table holds, in whatever order its objects were made and whatever was counted.
fn content(world: &World) -> Vec<String> {
    let mut lines: Vec<String> = world.table().lines().map(without_counts).collect();
    // The order of rules does not matter either: all of them drop.
    lines.sort();
    lines
}

/// Runs a script of nft and waits until the table is what it was; how long that took.
fn broken_and_repaired(world: &World, script: &str) -> Duration {
    let (before, repairs_before) = (content(world), repairs(world));
    let path = world.write("break.nft", script);
    let begin = Instant::now();
    world.server("nft", &["-f", path.to_str().unwrap()]);
    let repaired = eventually(SOON, || content(world) == before);
    let took = begin.elapsed();
    assert!(repaired, "after {script}:\n{}\n{}", world.table(), world.agent_log());
    let mut now = Value::Null;
    let counted = eventually(SOON, || {
        now = status(world)["kernel"].clone();
        now["repairs"].as_u64() > Some(repairs_before)
    });
    assert!(counted, "{script} was not counted: {now}\n{}", world.agent_log());
    assert!(now["last_repair"].as_str().unwrap().starts_with("changed by nft (pid "), "{now}");
    assert!(world.agent_log().contains("repaired"), "{}", world.agent_log());
    took
}

#[test]
fn whatever_somebody_breaks_is_repaired() {
    let world = with_bans();
    let t = "inet stockade";
    let rules = world.server("nft", &["-a", "list", "chain", "inet", "stockade", "prerouting"]);
    assert!(rules.contains("@banned4 drop"), "{rules}");
    for script in [
        "flush ruleset".to_owned(),
        format!("delete table {t}"),
        // Leaves the sets: a flush as iptables understands it.
        format!("flush table {t}"),
        format!("flush set {t} banned4"),
        format!("flush set {t} nets4"),
        format!("delete element {t} banned4 {{ {OFFENDER4} }}"),
        format!("delete element {t} banned6_64 {{ 2001:db8:0:66:: }}"),
        format!("delete element {t} nets4 {{ 198.51.100.0/24 }}"),
        format!("flush chain {t} prerouting"),
        format!("flush chain {t} prerouting; delete chain {t} prerouting"),
        format!("flush chain {t} prerouting; delete set {t} banned4"),
        format!(
            "flush chain {t} prerouting; delete set {t} banned4; add set {t} banned4 {{ type ipv6_addr; }}"
        ),
        format!(
            "flush chain {t} prerouting; delete set {t} nets4; add set {t} nets4 {{ type ipv4_addr; flags timeout; }}"
        ),
        format!("insert rule {t} prerouting accept"),
        format!("insert rule {t} prerouting ip saddr {INNOCENT4} drop"),
        format!("rename chain {t} prerouting elsewhere"),
        // There, but never called.
        format!("add table {t} {{ flags dormant; }}"),
        // Everybody is banned.
        format!("add chain {t} prerouting {{ policy drop; }}"),
        format!("add element {t} banned4 {{ * }}"),
        // Called too late, or elsewhere.
        format!(
            "delete chain {t} prerouting; add chain {t} prerouting {{ type filter hook prerouting priority 300; }}"
        ),
        format!(
            "delete chain {t} prerouting; add chain {t} prerouting {{ type filter hook output priority raw; }}"
        ),
        format!("delete chain {t} prerouting; add chain {t} prerouting"),
        // The ban would end by itself.
        format!(
            "delete element {t} banned4 {{ {OFFENDER4} }}; add element {t} banned4 {{ {OFFENDER4} timeout 1h }}"
        ),
        format!("add element {t} nets4 {{ 198.51.99.0-198.51.99.9 }}"),
        format!("add chain {t} theirs; add rule {t} theirs drop"),
        format!("add set {t} theirs {{ type ipv4_addr; }}"),
    ] {
        // A base chain cannot be deleted while it has rules.
        let script = script.replace("delete chain", "flush chain inet stockade prerouting; delete chain");
        let took = broken_and_repaired(&world, &script);
        println!("{:4} ms, nft's own work included: {script}", took.as_millis());
        assert_eq!(world.visit(INNOCENT4, "/"), Some(200), "after {script}: {}", world.table());
        assert_eq!(world.visit(OFFENDER4, "/"), None, "after {script}: {}", world.table());
    }
    assert_eq!(world.visit(OFFENDER6, "/"), None, "{}", world.table());
}

/// An administrator's `/etc/nftables.conf` made by `nft list ruleset`, loaded again: with `flush ruleset` on top as Debian has
/// it, and without, when every rule is there twice.
#[test]
fn a_saved_ruleset_that_is_loaded_again_is_repaired() {
    let world = with_bans();
    let saved = world.server("nft", &["list", "ruleset"]);
    // Meanwhile a ban is lifted and another one made: the file is out of date.
    for args in [["unban", "198.51.100.0/24"].as_slice(), &["ban", "npm", "192.0.2.77", "--for", "permanent"]]
    {
        assert!(world.stockade(args).status.success());
    }
    for script in
        [saved.clone(), format!("flush ruleset\n{saved}"), format!("delete table inet stockade\n{saved}")]
    {
        let took = broken_and_repaired(&world, &script);
        println!("{:4} ms: a saved ruleset of {} lines", took.as_millis(), script.lines().count());
        assert!(
            !world.table().contains("198.51.100.0/24"),
            "what was lifted stays lifted: {}",
            world.table()
        );
        assert_eq!(world.visit(OFFENDER4, "/"), None);
    }
    // A ban with an end still has it.
    assert!(world.stockade(&["ban", "npm", "192.0.2.78", "--for", "2h"]).status.success());
    let until = |world: &World| {
        let bans: Value = serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
        bans.as_array().unwrap().iter().find(|ban| ban["offender"] == "192.0.2.78").unwrap()["until"].clone()
    };
    let (before, repairs_before) = (until(&world), repairs(&world));
    let saved = world.server("nft", &["list", "ruleset"]);
    let path = world.write("saved.nft", &format!("flush ruleset\n{saved}"));
    world.server("nft", &["-f", path.to_str().unwrap()]);
    assert!(eventually(SOON, || repairs(&world) > repairs_before), "{}", world.agent_log());
    assert_eq!(until(&world), before);
    let table = world.table();
    let line = table.lines().find(|line| line.contains("192.0.2.78")).unwrap();
    assert!(line.contains("expires 1h59m"), "{line}");
}

/// firewalld, ufw and Docker remove and make their own tables, several transactions in a row. Ours is none of their
/// business, nor theirs ours.
#[test]
fn the_reload_of_another_firewall_is_not_our_business() {
    let world = with_bans();
    let before = content(&world);
    let others = "table inet firewalld { chain filter_INPUT { type filter hook input priority 10; policy accept; \
                  ct state established,related accept; }; }\n";
    let reload = world.write("reload.nft", &format!("{others}delete table inet firewalld\n{others}"));
    for _ in 0..10 {
        world.server("nft", &["-f", reload.to_str().unwrap()]);
        assert_eq!(world.visit(OFFENDER4, "/"), None);
    }
    assert_eq!(repairs(&world), 0, "{}", world.agent_log());
    assert_eq!(content(&world), before);
    assert!(world.server("nft", &["list", "tables"]).contains("firewalld"));
    // One that takes everything down first, as a `flush ruleset` at its start does, is one repair.
    broken_and_repaired(&world, &format!("flush ruleset\n{others}"));
    assert!(world.server("nft", &["list", "tables"]).contains("firewalld"));
}

/// A table as an agent before left it: so many bans, the n-th of address 10.0.0.0 + n.
fn table_with(world: &World, bans: u32) -> String {
    let printed = world.stockade(&["check", "--print-ruleset"]);
    assert!(printed.status.success(), "{}", text(&printed));
    let mut script = String::from_utf8(printed.stdout).unwrap();
    let comment = "npm, 5 offenses, 2026-11-21T00:00:00Z";
    script.push_str("\nadd element inet stockade banned4 { ");
    for n in 0..bans {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n);
        write!(script, "{address} timeout 5h comment \"{comment}\",").unwrap();
    }
    script.push_str(" }\n");
    script
}

fn count_bans(world: &World) -> usize {
    let bans: Value = serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
    bans.as_array().unwrap().len()
}

#[test]
fn a_hundred_thousand_bans_are_taken_over_and_put_back() {
    const BANS: u32 = 100_000;
    let mut world = World::new();
    nginx::start(&mut world);
    // Only for its configuration.
    world.start_agent(&NPM_JAIL.replace("from: start", "from: end"));
    assert!(world.stockade(&["stop", "--flush"]).status.success());
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    let path = world.write("many.nft", &table_with(&world, BANS));
    world.server("nft", &["-f", path.to_str().unwrap()]);

    let begin = Instant::now();
    world.run_agent();
    println!("{BANS} bans taken over {} ms after the start", begin.elapsed().as_millis());
    assert_eq!(count_bans(&world), BANS as usize, "{}", world.agent_log());
    assert!(world.agent_log().contains(&format!("bans={BANS}")), "{}", world.agent_log());
    assert!(world.stockade(&["ban", "npm", OFFENDER4]).status.success());
    assert_eq!(world.visit(OFFENDER4, "/"), None);

    let begin = Instant::now();
    world.server("nft", &["flush", "ruleset"]);
    assert!(eventually(SOON, || repairs(&world) > 0), "{}", world.agent_log());
    println!("{BANS} bans put back within {} ms", begin.elapsed().as_millis());
    assert_eq!(world.table().matches("npm, ").count(), BANS as usize + 1);
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
}

/// More notifications than the socket holds, while the agent does not get to read them: the kernel drops them and says so
/// (ENOBUFS), and the agent compares everything, since nobody knows what was among them.
#[test]
fn lost_notifications_are_a_full_comparison() {
    let world = with_bans();
    let before = content(&world);
    let agent = status(&world)["pid"].as_i64().unwrap();
    let agent = Pid::from_raw(i32::try_from(agent).unwrap());
    let mut flood = "table ip flood { set s { type ipv4_addr; }; }\nadd element ip flood s { ".to_owned();
    for n in 0..60_000_u32 {
        write!(flood, "{},", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n)).unwrap();
    }
    flood.push_str(" }\n");
    let flood = world.write("flood.nft", &flood);
    kill(agent, Signal::SIGSTOP).unwrap();
    for _ in 0..3 {
        world.server("nft", &["-f", flood.to_str().unwrap()]);
        world.server("nft", &["delete", "table", "ip", "flood"]);
    }
    // Lost among the others.
    world.server("nft", &["delete", "table", "inet", "stockade"]);
    kill(agent, Signal::SIGCONT).unwrap();
    assert!(eventually(SOON, || content(&world) == before), "{}", world.agent_log());
    assert!(
        eventually(SOON, || world.agent_log().contains("notifications were lost")),
        "{}",
        world.agent_log()
    );
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    // And it hears again.
    broken_and_repaired(&world, "flush ruleset");
}

/// Without CAP_NET_ADMIN in the host's user namespace (a rootless container) the socket keeps its small buffer: a large batch
/// is sent in parts.
#[test]
fn batches_larger_than_the_socket_may_be_are_sent_in_parts() {
    // The kernel lets everybody have twice this limit, and an element with so long a name in its comment takes 130 bytes.
    let jail = "a-long-name-".repeat(5);
    let limit: u32 = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap().trim().parse().unwrap();
    let bans = 2 * limit / 100;
    let mut world = World::new();
    let dir = world.dir().to_str().unwrap().to_owned();
    let config = format!(
        "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\nignoreip: [loopback]\nlog: {{ level: debug }}\n{}",
        NPM_JAIL.replace("DIR", &dir).replace("  npm:", &format!("  {jail}:"))
    );
    world.write("config.yaml", &config);
    // The agent in a user and network namespace of its own, within the server's.
    let program = env!("CARGO_BIN_EXE_stockade");
    let arguments = ["--map-root-user", "--net", program, "run", "--config", &format!("{dir}/config.yaml")];
    world.start("unshare", &arguments, "agent.log");
    assert!(
        eventually(Duration::from_secs(10), || world.stockade(&["ping"]).status.success()),
        "{}",
        world.agent_log()
    );
    let agent = status(&world)["pid"].to_string();
    let nft = |script: &str| {
        let mut child = Command::new("nsenter")
            .args(["--target", &agent, "--user", "--net", "--preserve-credentials", "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{script}");
        String::from_utf8(out.stdout).unwrap()
    };
    // As many as fit a command line, a few times.
    let offenders: Vec<String> =
        (0..bans).map(|n| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string()).collect();
    for some in offenders.chunks(10_000) {
        let mut args = vec!["ban", jail.as_str()];
        args.extend(some.iter().map(String::as_str));
        let out = world.stockade(&args);
        assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stderr), world.agent_log());
    }
    let listed = |table: &str| table.matches("-, 0 offenses").count();
    assert_eq!(listed(&nft("list table inet stockade\n")), bans as usize);
    // All at once.
    nft("flush ruleset\n");
    let mut table = String::new();
    let restored = eventually(SOON, || {
        table = nft("list ruleset\n");
        listed(&table) == bans as usize
    });
    assert!(restored, "{} of {bans}\n{}", listed(&table), world.agent_log());
    assert!(
        world.agent_log().contains("a batch is larger than the socket may be"),
        "the test proves nothing: {}",
        world.agent_log()
    );
    assert!(eventually(SOON, || repairs(&world) > 0), "{}", world.agent_log());
    assert_eq!(status(&world)["state"], "enforcing");
}
