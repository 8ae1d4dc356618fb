//! Whatever others do to nf_tables, the bans are soon in force again, and it is told.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{INNOCENT4, OFFENDER4, OFFENDER6, World, eventually, text};
use crate::{NPM_JAIL, SOON, nginx, without_counts};

fn kernel(world: &World) -> Value {
    let status = world.stockade(&["status", "--json"]);
    serde_json::from_slice::<Value>(&status.stdout).unwrap()["kernel"].clone()
}

fn repairs(world: &World) -> u64 {
    kernel(world)["repairs"].as_u64().unwrap()
}

/// Feeds a script to `nft -f`.
fn nft_file(world: &World, script: &str) {
    let file = world.write("script.nft", script);
    world.server("nft", &["-f", file.to_str().unwrap()]);
}

/// nft(8) cannot read rules about request heads back that it has listed itself: `nft -f` of a ruleset that was saved
/// with them fails as a whole. So these tests are without them; see headers.rs for how those are repaired.
const NO_HEADERS: &str = "headers: { matcher: off, proxy_protocol: false }\n";

/// A world with an agent and bans of every kind.
fn world() -> World {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&format!("{NO_HEADERS}{NPM_JAIL}"));
    let out = world.stockade(&[
        "ban",
        "npm",
        OFFENDER4,
        OFFENDER6,
        "2001:db8:5::1/128",
        "198.51.100.0/24",
        "2001:db8:8000::/33",
        "--for",
        "permanent",
    ]);
    assert!(out.status.success(), "{}", text(&out));
    world
}

/// A set that was made anew stands behind the others.
fn sorted(table: &str) -> Vec<String> {
    let mut words: Vec<String> = without_counts(table).split(' ').map(str::to_owned).collect();
    words.sort_unstable();
    words
}

/// Does it, and waits until the table is as `before` and that was counted.
fn repaired(world: &World, before: &str, what: &str, harm: impl FnOnce()) {
    let known = repairs(world);
    let begin = Instant::now();
    harm();
    let done = begin.elapsed();
    let mut table = String::new();
    let whole = eventually(SOON, || {
        table = world.table();
        sorted(&table) == sorted(before)
    });
    assert!(whole, "{what}: {table}\n{}", world.agent_log());
    println!("{what}: repaired {:?} after it was done", begin.elapsed() - done);
    assert!(eventually(SOON, || repairs(world) > known), "{what}: not counted\n{}", world.agent_log());
    assert!(kernel(world)["last_repair"].as_str().unwrap().contains("nft"), "{}", kernel(world));
    assert_eq!(world.visit(OFFENDER4, "/"), None, "{what}");
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200), "{what}");
}

#[test]
fn a_saved_ruleset_that_is_loaded_again_changes_nothing() {
    let world = world();
    let before = without_counts(&world.table());
    let saved = world.server("nft", &["list", "ruleset"]);
    // On top of what is there, every rule is there twice; lifted bans come back.
    repaired(&world, &before, "nft -f", || nft_file(&world, &saved));
    assert!(world.stockade(&["unban", "2001:db8:5::1/128"]).status.success());
    let before = without_counts(&world.table());
    repaired(&world, &before, "flush ruleset; nft -f", || {
        nft_file(&world, &format!("flush ruleset\n{saved}"));
    });
    // A ban with an end keeps it.
    assert!(world.stockade(&["ban", "npm", "192.0.2.78", "--for", "2h"]).status.success());
    let saved = format!("flush ruleset\n{}", world.server("nft", &["list", "ruleset"]));
    let known = repairs(&world);
    nft_file(&world, &saved);
    assert!(eventually(SOON, || repairs(&world) > known), "{}", world.agent_log());
    let table = world.table();
    let line = table.lines().find(|line| line.contains("192.0.2.78")).unwrap();
    assert!(line.contains("expires 1h59m"), "{line}");
    assert!(world.stockade(&["unban", "192.0.2.78"]).status.success());
    repaired(&world, &before, "an older ruleset", || {
        nft_file(&world, "flush ruleset\ntable inet stockade { set banned4 { type ipv6_addr; }; }");
    });
}

#[test]
fn whatever_is_broken_is_mended() {
    let world = world();
    let before = without_counts(&world.table());
    let again =
        |chain: &str| format!("delete chain inet stockade prerouting; add chain inet stockade {chain}");
    for script in [
        "flush ruleset",
        "delete table inet stockade",
        // As iptables understands a flush: the sets stay.
        "flush table inet stockade",
        "flush set inet stockade banned4",
        "flush set inet stockade nets4",
        "delete element inet stockade banned4 { 203.0.113.66 }",
        "delete element inet stockade banned6_64 { 2001:db8:0:66:: }",
        "delete element inet stockade nets4 { 198.51.100.0/24 }",
        "delete chain inet stockade prerouting",
        "flush chain inet stockade prerouting; delete set inet stockade banned4",
        "add table inet stockade { flags dormant; }",
        // Everybody is banned.
        "add chain inet stockade prerouting { policy drop; }",
        "add element inet stockade banned4 { * }",
        "insert rule inet stockade prerouting accept",
        "insert rule inet stockade prerouting ip saddr 203.0.113.77 drop",
        // Called by another name, too late, elsewhere, or not at all.
        "rename chain inet stockade prerouting elsewhere",
        &again("prerouting { type filter hook prerouting priority 300; }"),
        &again("prerouting { type filter hook output priority raw; }"),
        &again("prerouting"),
        // There, but of another kind.
        "flush chain inet stockade prerouting; delete set inet stockade banned4; \
         add set inet stockade banned4 { type ipv6_addr; }",
        "flush chain inet stockade prerouting; delete set inet stockade nets4; \
         add set inet stockade nets4 { type ipv4_addr; flags timeout; }",
        // The ban would end by itself.
        "delete element inet stockade banned4 { 203.0.113.66 }; \
         add element inet stockade banned4 { 203.0.113.66 timeout 1h }",
        "add element inet stockade nets4 { 198.51.99.0-198.51.99.9 }",
        "add chain inet stockade theirs; add rule inet stockade theirs drop",
        "add set inet stockade theirs { type ipv4_addr; }",
    ] {
        // A base chain cannot be deleted while it has rules.
        let script = script.replace("delete chain", "flush chain inet stockade prerouting; delete chain");
        repaired(&world, &before, &script, || nft_file(&world, &script.replace("; delete", "\ndelete")));
    }
    // One rule, by its number.
    let listing = world.server("nft", &["-a", "list", "chain", "inet", "stockade", "prerouting"]);
    let rule = listing.lines().find(|line| line.contains("@banned4")).unwrap();
    let handle = rule.rsplit(' ').next().unwrap();
    repaired(&world, &before, "delete rule", || {
        nft_file(&world, &format!("delete rule inet stockade prerouting handle {handle}"));
    });
    assert_eq!(world.visit(OFFENDER6, "/"), None);
}

/// As firewalld, ufw and Docker do when they are reloaded: their own tables come and go, and ours stays as it is.
#[test]
fn a_reload_of_another_firewall_leaves_us_alone() {
    let world = world();
    let before = without_counts(&world.table());
    for _ in 0..5 {
        nft_file(
            &world,
            "table inet firewalld\ndelete table inet firewalld\ntable inet firewalld {
                chain pre { type filter hook prerouting priority -310; policy accept; accept; }
                chain in { type filter hook input priority 10; policy accept; ct state new accept; }
            }\ntable ip filter { chain INPUT { type filter hook input priority 0; accept; }; }
            flush table ip filter\ndelete table ip filter",
        );
        assert_eq!(world.visit(OFFENDER4, "/"), None);
        assert_eq!(world.visit(OFFENDER6, "/"), None);
        assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
    }
    assert_eq!(without_counts(&world.table()), before);
    assert_eq!(repairs(&world), 0, "nothing of ours was touched\n{}", world.agent_log());
}

/// A table as another agent left it, or as a saved ruleset brought it back at boot.
#[test]
fn a_hundred_thousand_bans_are_taken_over() {
    const MANY: u32 = 100_000;
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&format!("{NO_HEADERS}{}", NPM_JAIL.replace("from: start", "from: end")));
    let table = world.table();
    assert!(world.stockade(&["stop"]).status.success());
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    let comment = "npm, 5 offenses, 2026-11-21T00:00:00Z";
    let mut script = format!("flush ruleset\n{table}\nadd element inet stockade banned4 {{\n");
    for n in 0..MANY {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n);
        script += &format!("{address} timeout 1h comment \"{comment}\",\n");
    }
    script += &format!("{OFFENDER4} timeout 1h comment \"{comment}\" }}\n");
    nft_file(&world, &script);
    let begin = Instant::now();
    world.run_agent();
    println!("{MANY} bans taken over in {:?}", begin.elapsed());
    assert_eq!(kernel(&world)["bans"], MANY + 1, "{}", world.agent_log());
    assert_eq!(kernel(&world)["missing"], 0);
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    // All of them lost at once: a batch many times larger than a socket's buffer.
    let begin = Instant::now();
    world.server("nft", &["flush", "ruleset"]);
    let back = eventually(SOON * 4, || world.visit(OFFENDER4, "/").is_none());
    assert!(back, "{}", world.agent_log());
    println!("all written again in less than {:?} (to which a visit belongs)", begin.elapsed());
    assert!(eventually(SOON * 4, || kernel(&world)["repairs"] == 1), "{}", kernel(&world));
    assert!(kernel(&world)["read_back"].as_u64() > Some(u64::from(MANY)), "{}", kernel(&world));
    assert_eq!((&kernel(&world)["missing"], &kernel(&world)["error"]), (&0.into(), &Value::Null));
}

/// While nobody reads them, notifications overflow: what was lost with them is found by comparing everything.
#[test]
fn lost_notifications_are_made_up_for() {
    let world = world();
    let before = without_counts(&world.table());
    let pid = serde_json::from_slice::<Value>(&world.stockade(&["status", "--json"]).stdout).unwrap()["pid"]
        .clone();
    let signal =
        |name: &str| assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    signal("-STOP");
    // Every element is a notification: the socket's buffer holds a fraction of these.
    let mut script = "table inet flood { set s { type ipv4_addr; }; }\n".to_owned();
    script += "add element inet flood s {\n";
    for n in 0..150_000u32 {
        script += &format!("{},\n", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n));
    }
    script += "255.0.0.1 }\n";
    nft_file(&world, &script);
    nft_file(&world, "delete table inet flood\ndelete table inet stockade");
    signal("-CONT");
    let whole = eventually(SOON * 2, || without_counts(&world.table()) == before);
    assert!(whole, "{}\n{}", world.table(), world.agent_log());
    let lost =
        eventually(SOON, || kernel(&world)["last_repair"].to_string().contains("notifications were lost"));
    assert!(lost, "{}\n{}", kernel(&world), world.agent_log());
    assert_eq!(world.visit(OFFENDER4, "/"), None);
}

/// Somebody who commits all the time makes the kernel break listings off (EINTR) and the agent begin them anew.
#[test]
fn a_ruleset_that_never_rests_is_still_repaired() {
    let world = world();
    let before = without_counts(&world.table());
    let busy = "while :; do nft 'add table inet busy; delete table inet busy'; done";
    let mut other = world.on_server("sh", &["-c", busy]).stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..5 {
        world.server("nft", &["delete", "table", "inet", "stockade"]);
        let whole = eventually(SOON, || without_counts(&world.table()) == before);
        assert!(whole, "{}\n{}", world.table(), world.agent_log());
        std::thread::sleep(Duration::from_millis(20));
    }
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    assert_eq!(kernel(&world)["error"], Value::Null);
}
