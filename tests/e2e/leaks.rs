//! Bans that do not stop what they should: the agent notices, and says why.

use serde_json::Value;

use crate::world::{INNOCENT4, OFFENDER4, World, eventually, text};
use crate::{NPM_JAIL, SOON, nginx};

const BEHIND_A_PROXY: &str = "
trusted_proxies: [loopback, 203.0.113.77]
leaks: { grace: 1s }
headers: { matcher: off, proxy_protocol: off }
jails:
  app:
    filter: app
    logpath: DIR/app.json
    from: end
    maxretry: 3
    findtime: 60s
    bantime: 1h
filters:
  app: { format: json, time: .ts, peer: .remote, forwarded: .xff, match: { .status: 404 } }
";

fn leaks(world: &World) -> Value {
    let status = world.stockade(&["status", "--json"]);
    serde_json::from_slice::<Value>(&status.stdout).unwrap()["leaks"].clone()
}

/// How often the agent has warned of a leak.
fn warnings(world: &World) -> usize {
    world.agent_log().matches("requests still come").count()
}

#[test]
fn a_banned_client_behind_a_proxy_leaks_and_the_proxy_is_named() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(BEHIND_A_PROXY);
    // INNOCENT4 is the proxy. Two clients behind it: one is banned by its own offenses, one by a network.
    for n in 0..3 {
        assert_eq!(world.visit_for(INNOCENT4, &format!("/{n}"), Some("198.51.100.9")), Some(404));
    }
    assert!(eventually(SOON, || world.table().contains("198.51.100.9")), "{}", world.agent_log());
    let out = world.stockade(&["ban", "app", "192.0.2.0/24"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(leaks(&world)["count"], 0, "what led to the ban is no leak");
    assert_eq!(warnings(&world), 0);

    let seen = eventually(SOON, || {
        world.visit_for(INNOCENT4, "/again", Some("198.51.100.9"));
        leaks(&world)["count"].as_u64() >= Some(3)
    });
    assert!(seen, "{}", world.agent_log());
    let before = leaks(&world)["count"].as_u64();
    world.visit_for(INNOCENT4, "/again", Some("192.0.2.7, 203.0.113.77"));
    let mut now = Value::Null;
    let more = eventually(SOON, || {
        now = leaks(&world);
        now["count"].as_u64() > before
    });
    assert!(more, "also of an offender that a network bans: {now:#}");
    let causes = now["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 1, "{now:#}");
    let cause = &causes[0];
    assert_eq!((&cause["jail"], &cause["peer"]), (&"app".into(), &INNOCENT4.into()));
    assert_eq!(cause["last_offender"], "192.0.2.7");
    let advice = cause["advice"].as_str().unwrap();
    assert!(advice.contains("header bans") && advice.contains("in the proxy itself"), "{advice}");
    assert_eq!(warnings(&world), 1, "once per cause: {}", world.agent_log());
    let status = text(&world.stockade(&["status"]));
    assert!(status.contains(&format!("app, {INNOCENT4}: ")), "{status}");
    assert!(status.contains("offenses in spite of a ban"), "{status}");
}

#[test]
fn an_agent_in_another_network_namespace_says_so() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.configure(&format!("leaks: {{ grace: 1s }}\n{NPM_JAIL}"));
    world.run_agent_by(&["unshare", "--net"]);
    let seen = eventually(SOON * 2, || {
        assert_eq!(world.visit(OFFENDER4, "/wp-login.php"), Some(404), "no rule is where the traffic is");
        leaks(&world)["count"].as_u64() >= Some(3)
    });
    assert!(seen, "{}", world.agent_log());
    let now = leaks(&world);
    let cause = &now["causes"][0];
    assert_eq!((&cause["peer"], &cause["last_offender"]), (&"direct".into(), &OFFENDER4.into()));
    let advice = cause["advice"].as_str().unwrap();
    assert!(advice.contains("network namespace") && advice.contains("network_mode: host"), "{advice}");
    assert_eq!(warnings(&world), 1, "{}", world.agent_log());
}

#[test]
fn a_ban_of_other_ports_says_so() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&format!(
        "leaks: {{ grace: 1s }}\n{}",
        NPM_JAIL.replace("bantime: 1h", "bantime: 1h\n    ports: [ssh]")
    ));
    let seen = eventually(SOON * 2, || {
        world.visit(OFFENDER4, "/wp-login.php");
        leaks(&world)["count"].as_u64() >= Some(1)
    });
    assert!(seen, "{}", world.agent_log());
    let advice = leaks(&world)["causes"][0]["advice"].to_string();
    assert!(advice.contains("close port 22 only"), "{advice}");
    assert!(advice.contains("has not stopped one packet"), "{advice}");
}
