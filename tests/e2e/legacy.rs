//! Bans through iptables-legacy and ipset, with real traffic, over IPv4 and IPv6.

use std::time::Duration;

use crate::world::{INNOCENT4, INNOCENT6, NEIGHBOUR6, OFFENDER4, OFFENDER6, World, eventually, text};
use crate::{NPM_JAIL, SOON, nginx, visits_until_blocked};

/// The agent looks every five seconds.
const LOOK: Duration = Duration::from_secs(12);

fn jail() -> String {
    format!("backend: legacy\n{NPM_JAIL}")
}

/// All rules and sets, without what changes by itself.
fn everything(world: &World) -> String {
    let mut all = String::new();
    for save in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        all.push_str(&world.server(save, &[]));
    }
    all.push_str(&world.server("ipset", &["save"]));
    let kept = all.lines().filter(|line| !line.starts_with('#'));
    let without_counters = kept.map(|line| line.split(" [").next().unwrap_or_default());
    without_counters.collect::<Vec<_>>().join("\n")
}

fn status(world: &World) -> serde_json::Value {
    serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap()
}

fn ban(world: &World, args: &[&str]) {
    let out = world.stockade(&[&["ban", "npm"], args].concat());
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn offenders_are_blocked_over_ipv4_and_ipv6_and_let_in_again() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&jail());
    let kernel = &status(&world)["kernel"];
    assert_eq!((&kernel["backend"], &kernel["problem"]), (&"legacy".into(), &serde_json::Value::Null));
    assert!(kernel["reason"].as_str().unwrap().contains("table raw"), "{kernel}");
    assert!(!world.server("nft", &["list", "ruleset"]).contains("stockade"), "nothing in nf_tables");

    for (offender, innocent) in [(OFFENDER4, INNOCENT4), (OFFENDER6, INNOCENT6)] {
        assert_eq!(world.visit(offender, "/"), Some(200));
        assert_eq!(visits_until_blocked(&world, offender), 5, "{}", world.agent_log());
        assert_eq!(world.visit(innocent, "/"), Some(200), "an innocent address gets through");
        let bans: serde_json::Value =
            serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
        assert!(bans[0]["packets"].as_u64() > Some(0), "{bans}");
        assert_eq!(world.visit(NEIGHBOUR6, "/"), if offender == OFFENDER4 { Some(200) } else { None });
        let out = world.stockade(&["unban", offender]);
        assert!(out.status.success(), "{}", text(&out));
        assert_eq!(world.visit(offender, "/"), Some(200), "unban restores access");
    }
}

#[test]
fn short_bans_end_by_themselves_also_without_an_agent() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&jail());
    ban(&world, &[OFFENDER4, OFFENDER6, "--for", "4s"]);
    assert_eq!((world.visit(OFFENDER4, "/"), world.visit(OFFENDER6, "/")), (None, None));
    assert!(world.stockade(&["stop"]).status.success());
    for offender in [OFFENDER4, OFFENDER6] {
        assert!(eventually(SOON, || world.visit(offender, "/") == Some(200)), "{}", everything(&world));
    }
}

#[test]
fn networks_that_overlap_and_change_block_all_the_while() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&jail());
    ban(&world, &["203.0.113.64/28", "2001:db8:0:60::/59", "--for", "1h"]);
    // Inside it and with another end: the wider one is split.
    ban(&world, &["203.0.113.64/29", "198.51.100.0/24", "--for", "permanent"]);
    let blocked = |what: &str| {
        assert_eq!(world.visit(OFFENDER4, "/"), None, "{what}: {}", everything(&world));
        assert_eq!(world.visit(INNOCENT4, "/"), None, "{what}: {}", everything(&world));
        assert_eq!(world.visit(OFFENDER6, "/"), None, "{what}: {}", everything(&world));
        assert_eq!(world.visit(INNOCENT6, "/"), Some(200), "{what}: {}", everything(&world));
    };
    blocked("banned");
    assert!(
        everything(&world).contains("add stockade_nets4 203.0.113.72/29 timeout"),
        "{}",
        everything(&world)
    );
    assert!(world.stockade(&["unban", "203.0.113.64/29"]).status.success());
    blocked("the narrower one lifted");
    assert!(
        everything(&world).contains("add stockade_nets4 203.0.113.64/28 timeout"),
        "{}",
        everything(&world)
    );
    assert!(world.stockade(&["unban", "203.0.113.64/28", "2001:db8:0:60::/59"]).status.success());
    for visitor in [OFFENDER4, INNOCENT4, OFFENDER6] {
        assert_eq!(world.visit(visitor, "/"), Some(200), "{}", everything(&world));
    }
}

#[test]
fn what_others_break_is_repaired_and_counted() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&jail());
    ban(&world, &[OFFENDER4, "2001:db8:0:66::/64", "198.51.100.0/24", "--for", "permanent"]);
    let before = everything(&world);
    for (n, breaks) in [
        vec![
            vec!["iptables-legacy", "-t", "raw", "-I", "PREROUTING", "-j", "STOCKADE"],
            vec!["ip6tables-legacy", "-t", "raw", "-D", "PREROUTING", "-j", "STOCKADE"],
        ],
        vec![vec!["iptables-legacy", "-t", "raw", "-I", "STOCKADE", "-j", "RETURN"]],
        vec![
            vec!["ipset", "del", "stockade_banned4", OFFENDER4],
            vec!["ipset", "add", "stockade_nets4", "192.0.2.0/24"],
        ],
        vec![
            vec!["iptables-legacy", "-t", "raw", "-F"],
            vec!["iptables-legacy", "-t", "raw", "-X"],
            vec!["ip6tables-legacy", "-t", "raw", "-F"],
            vec!["ip6tables-legacy", "-t", "raw", "-X"],
            vec!["ipset", "destroy"],
        ],
    ]
    .into_iter()
    .enumerate()
    {
        for args in &breaks {
            world.server(args[0], &args[1..]);
        }
        let repaired = eventually(LOOK, || {
            status(&world)["kernel"]["repairs"].as_u64() == Some(u64::try_from(n).unwrap() + 1)
        });
        assert!(repaired, "{breaks:?}: {}", world.agent_log());
        assert_eq!(sorted(&everything(&world)), sorted(&before), "{breaks:?}\n{}", world.agent_log());
        assert_eq!(world.visit(OFFENDER4, "/"), None, "{breaks:?}");
        assert_eq!(world.visit(OFFENDER6, "/"), None, "{breaks:?}");
        assert_eq!(world.visit(INNOCENT4, "/"), Some(200), "{breaks:?}");
    }
}

/// A hash's order and random seed are its own, and the packets it stopped change.
fn sorted(everything: &str) -> Vec<String> {
    let mut lines: Vec<String> = everything
        .lines()
        .map(|line| {
            let line = line.split(" bucketsize ").next().unwrap_or_default();
            let mut words: Vec<&str> = line.split(' ').collect();
            if let Some(at) = words.iter().position(|word| *word == "packets") {
                words.drain(at..at + 4);
            }
            words.join(" ")
        })
        .collect();
    lines.sort();
    lines
}
