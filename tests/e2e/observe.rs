//! What only observes decides and tells everything, and nothing of it is enforced.

use serde_json::Value;

use crate::world::{INNOCENT4, OFFENDER4, OFFENDER6, World, eventually, text};
use crate::{NPM_JAIL, SOON, nginx};

fn json(world: &World, args: &[&str]) -> Value {
    let out = world.stockade(args);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)))
}

/// Visits a page that is not there ten times; none of that is stopped.
fn offend(world: &World, source: &str) {
    for n in 0..10 {
        assert_eq!(world.visit(source, &format!("/wp-login.php?{n}")), Some(404), "{}", world.agent_log());
    }
}

#[test]
fn a_jail_that_observes_tells_and_does_not_enforce_until_it_is_to() {
    let mut world = World::new();
    nginx::start(&mut world);
    let observing = NPM_JAIL.replace("    bantime: 1h", "    bantime: 1h\n    observe: true");
    world.start_agent(&observing);
    offend(&world, OFFENDER4);
    let told = || world.agent_log().contains("would ban 203.0.113.66");
    assert!(eventually(SOON, told), "{}", world.agent_log());
    let bans = json(&world, &["bans", "--json"]);
    assert_eq!((&bans[0]["offender"], &bans[0]["observed"]), (&OFFENDER4.into(), &true.into()), "{bans}");
    assert!(text(&world.stockade(&["bans"])).contains("npm (observed)"));
    let status = json(&world, &["status", "--json"]);
    assert_eq!((&status["state"], &status["jails"][0]["observed"]), (&"enforcing".into(), &true.into()));
    assert!(text(&world.stockade(&["status"])).contains("its bans are decided and told, not enforced"));
    assert!(!world.table().contains(OFFENDER4), "{}", world.table());
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200));
    // By hand, too.
    let out = world.stockade(&["ban", "npm", OFFENDER6]);
    assert!(text(&out).contains("npm only observes: this is not enforced"), "{}", text(&out));
    assert_eq!(world.visit(OFFENDER6, "/"), Some(200));
    // What comes in spite of a ban that is none is no leak.
    offend(&world, OFFENDER4);
    assert!(eventually(SOON, || json(&world, &["status", "--json"])["jails"][0]["already_banned"].as_u64()
        >= Some(10)));
    assert_eq!(json(&world, &["status", "--json"])["leaks"]["count"], 0);
    let checked = world.stockade(&["check"]);
    assert!(text(&checked).contains("observe: true"), "{}", text(&checked));

    // A reload puts them in force, another takes them out again, and none is forgotten.
    world.configure(NPM_JAIL);
    assert!(world.stockade(&["reload"]).status.success());
    assert_eq!(world.visit(OFFENDER4, "/"), None, "{}", world.table());
    assert_eq!(world.visit(OFFENDER6, "/"), None);
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
    world.configure(&observing);
    assert!(world.stockade(&["reload"]).status.success());
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "{}", world.table());
    assert_eq!(json(&world, &["bans", "--json"]).as_array().unwrap().len(), 2);
    let out = world.stockade(&["unban", OFFENDER4]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(world.agent_log().contains("would unban 203.0.113.66"), "{}", world.agent_log());
}

/// The configuration of an agent of an ordinary user, beside the one that is there.
fn observe(world: &mut World, as_nobody: bool) {
    let dir = world.dir().to_str().unwrap().to_owned();
    let config = format!(
        "paths: {{ state: {dir}/own/state, control: {dir}/own/control.sock }}\nignoreip: [loopback]\n{}",
        NPM_JAIL.replace("DIR", &dir)
    );
    let config = world.write("observe.yaml", &config);
    let own = world.dir().join("own");
    std::fs::create_dir(&own).unwrap();
    // Logs of this world are for everybody.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.dir(), open).unwrap();
    if as_nobody {
        std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    }
    // Where an ordinary user may not look, the program lies elsewhere.
    let program = world.dir().join("stockade");
    std::fs::copy(env!("CARGO_BIN_EXE_stockade"), &program).unwrap();
    let (program, config) = (program.to_str().unwrap(), config.to_str().unwrap());
    let run = [program, "run", "--observe", "--config", config];
    if as_nobody {
        let who = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        world.start(who[0], &[&who[1..], &run].concat(), "agent.log");
    } else {
        world.start(run[0], &run[1..], "agent.log");
    }
}

fn ask(world: &World, args: &[&str]) -> std::process::Output {
    let config = world.dir().join("observe.yaml");
    let args = [args, &["--config", config.to_str().unwrap()]].concat();
    world.on_server(env!("CARGO_BIN_EXE_stockade"), &args).output().unwrap()
}

#[test]
fn an_agent_that_observes_needs_no_rights_and_touches_nothing() {
    let mut world = World::new();
    nginx::start(&mut world);
    observe(&mut world, true);
    let up = || ask(&world, &["ping"]).status.success();
    assert!(eventually(SOON * 2, up), "{}", world.agent_log());
    assert_eq!(text(&ask(&world, &["ping"])), "pong (observing: nothing is enforced)\n");
    offend(&world, OFFENDER4);
    let told = || world.agent_log().contains("would ban 203.0.113.66");
    assert!(eventually(SOON, told), "{}", world.agent_log());
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200));
    let status = text(&ask(&world, &["status"]));
    assert!(status.contains("observing: everything is decided and told, nothing is enforced"), "{status}");
    assert!(status.contains("matcher off (observing: nothing is enforced)"), "{status}");
    assert!(text(&ask(&world, &["bans"])).contains("npm (observed)"));
    assert_eq!(world.server("nft", &["list", "ruleset"]), "");
    assert!(world.agent_log().contains("cannot be seen"), "{}", world.agent_log());
    // After a reload it still only observes.
    assert!(ask(&world, &["reload"]).status.success(), "{}", world.agent_log());
    assert!(text(&ask(&world, &["ban", "npm", INNOCENT4])).contains("only observes"));
    assert!(ask(&world, &["stop", "--flush"]).status.success());
    assert_eq!(world.server("nft", &["list", "ruleset"]), "");
    // What it would have banned is not what the next agent bans.
    let left = std::fs::read_dir(world.dir().join("own")).unwrap();
    assert_eq!(left.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0, "a ledger was made");
}

#[test]
fn bans_of_an_agent_that_enforced_stay_as_they_are() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);
    assert!(world.stockade(&["ban", "npm", OFFENDER4]).status.success());
    let before = crate::without_counts(&world.table());
    // Beside it, and after it.
    observe(&mut world, false);
    assert!(eventually(SOON, || ask(&world, &["ping"]).status.success()), "{}", world.agent_log());
    let told = "table inet stockade holds bans of an agent that enforces, or did: they stay in force";
    assert!(world.agent_log().contains(told), "{}", world.agent_log());
    assert!(world.stockade(&["stop"]).status.success());
    assert!(ask(&world, &["stop", "--flush"]).status.success());
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    // How long they last is told to the millisecond.
    let words = |table: &str| table.split(' ').filter(|word| !word.contains("ms")).count();
    assert_eq!(words(&crate::without_counts(&world.table())), words(&before), "{}", world.table());
}
