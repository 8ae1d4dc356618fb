//! Repeaters and their neighbours, in the kernel.

use std::fs::OpenOptions;
use std::io::Write;

use super::world::{INNOCENT6, NEIGHBOUR6, OFFENDER4, OFFENDER6, World, eventually, text};
use super::{SOON, nginx, traefik_line};

const JAIL: &str = "
escalation: { multipliers: [1, 60], neighbours: { after: 3, ipv6: [60] } }
jails:
  traefik:
    filter: traefik-forceful-browsing
    logpath: DIR/access.json
    maxretry: 1
    bantime: 2s
";

/// The /60 of the offender's /64, whose other /64 are the ones that offend. The server's own address, which is never
/// banned, is in the same /56 and in another /60.
#[test]
fn many_offenders_of_a_prefix_close_it() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&JAIL.replace("2s", "1h"));
    let mut log = OpenOptions::new().create(true).append(true).open(world.dir().join("access.json")).unwrap();
    for n in 1..=2 {
        log.write_all(traefik_line(&format!("2001:db8:0:6{n}::1")).as_bytes()).unwrap();
    }
    assert!(eventually(SOON, || world.table().contains("2001:db8:0:62::")), "{}", world.agent_log());
    assert_eq!(world.visit(OFFENDER6, "/"), Some(200), "two are not three");
    log.write_all(traefik_line("2001:db8:0:6f::1").as_bytes()).unwrap();
    assert!(eventually(SOON, || world.visit(OFFENDER6, "/").is_none()), "{}", world.table());
    assert_eq!(world.visit(NEIGHBOUR6, "/"), None);
    assert_eq!(world.visit(INNOCENT6, "/"), Some(200), "it is in the next /60");
    let set = world.server("nft", &["list", "set", "inet", "stockade", "banned6_60"]);
    assert!(set.contains("2001:db8:0:60::") && !set.contains("flags interval"), "{set}");

    let bans: serde_json::Value =
        serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
    assert!(bans.to_string().contains("3 neighbours banned, last: "), "{bans:#}");
    let lifted = world.stockade(&["unban", "2001:db8:0:60::/60"]);
    assert!(lifted.status.success(), "{}", text(&lifted));
    assert_eq!(world.visit(OFFENDER6, "/"), Some(200));
}

#[test]
fn the_second_ban_lasts_longer() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(JAIL);
    let mut log = OpenOptions::new().create(true).append(true).open(world.dir().join("access.json")).unwrap();
    log.write_all(traefik_line(OFFENDER4).as_bytes()).unwrap();
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/").is_none()), "{}", world.agent_log());
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/") == Some(200)), "{}", world.table());
    log.write_all(traefik_line(OFFENDER4).as_bytes()).unwrap();
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/").is_none()), "{}", world.agent_log());
    // What passed between the line and the kernel is off.
    let table = world.table();
    assert!(
        [" timeout 2m ", " timeout 1m59s", " timeout 1m58s"].iter().any(|t| table.contains(t)),
        "{table}"
    );
    let status = String::from_utf8(world.stockade(&["status"]).stdout).unwrap();
    assert!(status.contains("1 bans longer than bantime, of repeaters"), "{status}");
}
