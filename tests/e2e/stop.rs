//! `stockade stop --flush` where no agent runs: what one has left goes all the same.

use crate::world::{OFFENDER4, OFFENDER6, World, text};

const JAIL: &str = "jails:\n  npm: { filter: npm-404, logpath: DIR/none.log }\n  ssh: { filter: sshd, logpath: DIR/none.log, ports: [ssh] }\n";

/// Bans by source and in heads, and an agent that is gone.
fn left_alone(jails: &str) -> World {
    let mut world = World::new();
    world.start_agent(jails);
    for (jail, offender) in [("npm", OFFENDER4), ("npm", OFFENDER6), ("ssh", OFFENDER4)] {
        let out = world.stockade(&["ban", jail, offender, "--for", "1h"]);
        assert!(out.status.success(), "{}", text(&out));
    }
    world
}

fn flush(world: &World) -> (Option<i32>, String) {
    let out = world.stockade(&["stop", "--flush"]);
    (out.status.code(), text(&out))
}

#[test]
fn a_flush_without_an_agent_removes_what_one_left() {
    let mut world = left_alone(JAIL);
    // Killed: its socket is still there, and nobody listens.
    world.kill_agent();
    let ruleset = world.server("nft", &["list", "ruleset"]);
    assert!(ruleset.contains("table inet stockade") && ruleset.contains(OFFENDER4), "{ruleset}");
    assert_eq!(
        flush(&world),
        (
            Some(0),
            "3 bans taken out of the ledger\nno agent runs; 3 bans lifted, the table is gone\n".to_owned()
        )
    );
    assert_eq!(world.server("nft", &["list", "ruleset"]), "");
    assert_eq!(flush(&world), (Some(0), "no agent runs, and there is no table\n".to_owned()));
    // The next one does not bring them back.
    world.run_agent();
    assert_eq!(text(&world.stockade(&["bans", "--json"])).trim(), "[]");
}

#[test]
fn a_flush_needs_no_configuration_that_is_right() {
    let mut world = left_alone(JAIL);
    world.stockade(&["stop"]);
    world.kill_agent();
    world.write("config.yaml", "jails: { npm: { filter: no-such-filter } }\npaths: { state: /nonexistent, control: /nonexistent/s }\n");
    let (code, said) = flush(&world);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(world.server("nft", &["list", "ruleset"]), "");
}

#[test]
fn a_flush_does_not_fight_an_agent_with_another_socket() {
    let world = left_alone(JAIL);
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &config.replace("control.sock", "other.sock"));
    let (code, said) = flush(&world);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("An agent runs all the same (pid "), "{said}");
    assert!(world.table().contains(OFFENDER4));
}

#[test]
fn a_flush_without_an_agent_empties_iptables_legacy_too() {
    let mut world = left_alone(&format!("backend: legacy\nheaders: {{ matcher: legacy }}\n{JAIL}"));
    world.kill_agent();
    assert!(world.server("ipset", &["list", "-name"]).contains("stockade"));
    let (code, said) = flush(&world);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("no agent runs; 3 bans lifted, the table is gone\n"), "{said}");
    assert_eq!(world.server("ipset", &["list", "-name"]), "");
    for save in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        assert!(!world.server(save, &[]).contains("stockade"));
    }
}
