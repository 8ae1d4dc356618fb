//! `stockade verify` against an agent's own table, and against a table that is broken.

use std::process::Output;

use serde_json::Value;

use crate::world::{OFFENDER4, World, text};

const JAILS: &str = "
headers: { matcher: MATCHER }
jails:
  web:
    filter: npm-404
    logpath: DIR/web.log
  ssh:
    filter: sshd
    logpath: DIR/ssh.log
    ports: [22, 2222]
";

fn with_agent(matcher: &str) -> World {
    let mut world = World::new();
    world.write("web.log", "");
    world.write("ssh.log", "");
    world.start_agent(&JAILS.replace("MATCHER", matcher));
    world
}

fn ban(world: &World, jail: &str, offender: &str) {
    let out = world.stockade(&["ban", jail, offender]);
    assert!(out.status.success(), "{}", text(&out));
}

fn verify(world: &World, address: &str) -> (i32, Value) {
    let out: Output = world.stockade(&["verify", "--json", address]);
    let said = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)));
    (out.status.code().unwrap(), said)
}

/// The verdicts about source, ports and headers.
fn verdicts(said: &Value) -> String {
    format!("{} {} {}", said["source"]["verdict"], said["source"]["ports"], said["headers"]["verdict"])
}

fn proven(matcher: &str, rule: impl Fn(&Value) -> bool) {
    let world = with_agent(matcher);
    for (ban_, tried) in [
        ("203.0.113.66", "203.0.113.66"),
        ("2001:db8:0:66::1", "2001:db8:0:66:1234::2"),
        ("198.51.100.0/24", "198.51.100.77"),
        ("2001:db8:99::/48", "2001:db8:99:1::/64"),
    ] {
        let (code, said) = verify(&world, tried);
        assert_eq!(verdicts(&said), r#""not blocked" [] "not blocked""#, "{said}");
        assert_eq!((code, &said["blocked"]), (1, &Value::Bool(false)), "{said}");
        ban(&world, "web", ban_);
        let (code, said) = verify(&world, tried);
        assert_eq!(verdicts(&said), r#""blocked" "all" "blocked""#, "{said}");
        assert_eq!((code, &said["blocked"]), (0, &Value::Bool(true)), "{said}");
        assert_eq!(said["source"]["elements"][0]["jail"], "web", "{said}");
        assert!(said["source"]["elements"][0]["packets"].as_u64().unwrap() > 0, "{said}");
        assert_eq!(said["headers"]["tried"].as_array().unwrap().len(), 6, "three names, two ways: {said}");
        assert!(rule(&said["headers"]["rules"][0]), "{said}");
    }
}

#[test]
fn verify_proves_bans_with_the_string_matcher() {
    proven("string", |rule| rule["chain"].as_str().is_some_and(|chain| chain.starts_with("header_ban_")));
}

#[test]
fn verify_proves_bans_with_the_bpf_matcher() {
    proven("bpf", |rule| rule["comment"].as_str().is_some_and(|comment| comment.starts_with("bpf program ")));
}

#[test]
fn verify_names_the_ports_of_a_ban() {
    let world = with_agent("string");
    ban(&world, "ssh", OFFENDER4);
    let (code, said) = verify(&world, OFFENDER4);
    assert_eq!(verdicts(&said), r#""blocked" [22,2222] "not blocked""#, "{said}");
    assert_eq!(code, 0);
    let out = world.stockade(&["verify", OFFENDER4]);
    assert!(text(&out).contains("blocked on ports 22, 2222 and on no other"), "{}", text(&out));
}

#[test]
fn verify_is_about_packets_and_not_about_sets() {
    let world = World::new();
    assert_eq!(world.stockade(&["verify", "203.0.113.66"]).status.code(), Some(2), "no configuration");
    world.write("config.yaml", "{}");
    let (code, said) = verify(&world, "203.0.113.66");
    assert_eq!((code, &said["installed"]), (1, &Value::Bool(false)), "{said}");
    // The element is there, and no rule asks for it.
    let table = "table inet stockade {
        set banned4 { type ipv4_addr; flags timeout; elements = { 203.0.113.66 timeout 1h } }
        chain prerouting { type filter hook prerouting priority raw; policy accept; }
    }";
    let script = world.write("broken.nft", table).to_str().unwrap().to_owned();
    world.server("nft", &["-f", &script]);
    let out = world.stockade(&["verify", "203.0.113.66"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("although there is 203.0.113.66 in set banned4"), "{}", text(&out));
    assert!(text(&out).contains("no rule looks into request heads"), "{}", text(&out));
    // Everybody is blocked: that the address is, too, shows nothing.
    world.server("nft", &["add rule inet stockade prerouting drop"]);
    let (code, said) = verify(&world, "203.0.113.66");
    assert_eq!(verdicts(&said), r#""cannot tell" [] "cannot tell""#, "{said}");
    assert_eq!((code, &said["blocked"]), (4, &Value::Null), "{said}");
    assert!(said["source"]["why"].as_str().unwrap().starts_with("a harmless address"), "{said}");
}

#[test]
fn verify_leaves_nothing_behind() {
    let world = with_agent("string");
    ban(&world, "web", OFFENDER4);
    let look = || {
        let listed = world.server("nft", &["-s", "list", "ruleset"]);
        let links = world.server("ip", &["-o", "link"]);
        // Times run on.
        let listed: Vec<&str> = listed.lines().filter(|line| !line.contains("expires")).collect();
        (listed.join("\n"), links)
    };
    let before = look();
    assert_eq!(verify(&world, OFFENDER4).0, 0);
    assert_eq!(look(), before);
}
