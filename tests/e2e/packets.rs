//! `bans` says how many packets each ban stopped, whatever set its element is in.

use serde_json::Value;

use crate::nginx;
use crate::world::{INNOCENT4, NEIGHBOUR6, OFFENDER4, OFFENDER6, World, text};

const JAILS: &str = "
jails:
  npm: { filter: npm-404, logpath: DIR/a.log }
  web: { filter: npm-404, logpath: DIR/b.log, ports: [http], ipv6_prefix: 60 }
";

/// The packets of the ban of `offender` in `jail`.
fn packets(world: &World, jail: &str, offender: &str) -> u64 {
    let out = world.stockade(&["bans", "--json"]);
    let bans: Value = serde_json::from_slice(&out.stdout).unwrap();
    let mut bans = bans.as_array().unwrap().iter();
    let ban = bans.find(|ban| ban["offender"] == offender && ban["jail"] == jail);
    ban.and_then(|ban| ban["packets"].as_u64()).unwrap_or_else(|| panic!("{offender} {jail}: {}", text(&out)))
}

fn ban(world: &World, args: &[&str]) {
    let out = world.stockade(&[&["ban"], args].concat());
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn packets_are_counted_in_every_kind_of_set() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(JAILS);
    for (jail, given, offender, visitor) in [
        ("npm", OFFENDER4, OFFENDER4, OFFENDER4),
        ("npm", OFFENDER6, "2001:db8:0:66::/64", NEIGHBOUR6),
        ("npm", "2001:db8:0:66::1/128", OFFENDER6, OFFENDER6),
        ("npm", "203.0.113.64/28", "203.0.113.64/28", OFFENDER4),
        ("npm", "2001:db8:0:66::/63", "2001:db8:0:66::/63", OFFENDER6),
        ("web", OFFENDER4, OFFENDER4, OFFENDER4),
        ("web", OFFENDER6, "2001:db8:0:60::/60", NEIGHBOUR6),
        ("web", "203.0.113.64/28", "203.0.113.64/28", OFFENDER4),
        ("web", "2001:db8:0:66::/63", "2001:db8:0:66::/63", OFFENDER6),
    ] {
        ban(&world, &[jail, given]);
        assert_eq!(packets(&world, jail, offender), 0, "{jail} {given}");
        assert_eq!(world.visit(visitor, "/"), None, "{jail} {given}: {}", world.table());
        assert!(packets(&world, jail, offender) > 0, "{jail} {given}: {}", world.table());
        assert!(world.stockade(&["unban", "--all"]).status.success());
    }
}

#[test]
fn a_network_that_was_split_counts_what_its_pieces_stopped() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(JAILS);
    ban(&world, &["npm", "203.0.113.64/27", "--for", "1h"]);
    // Another end: the wider network is cut into pieces around it.
    ban(&world, &["npm", "203.0.113.64/30", "--for", "permanent"]);
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    let (wide, narrow) =
        (packets(&world, "npm", "203.0.113.64/27"), packets(&world, "npm", "203.0.113.64/30"));
    assert!(narrow > 0 && wide == narrow, "{wide} {narrow}: {}", world.table());
    assert_eq!(world.visit(INNOCENT4, "/"), None, "it is in the /27 alone");
    let (wider, same) =
        (packets(&world, "npm", "203.0.113.64/27"), packets(&world, "npm", "203.0.113.64/30"));
    assert!(same == narrow && wider > wide, "{wider} {same}: {}", world.table());
}
