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

/// One host has all addresses of the client: what it asks its neighbours in the name of a banned one goes unanswered, for
/// the others too. So it asks before.
fn ask_neighbours(world: &World) {
    assert_eq!(world.visit(INNOCENT6, "/"), Some(200));
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
    ask_neighbours(&world);
    ban(&world, &["203.0.113.64/28", "2001:db8:0:60::/60", "--for", "1h"]);
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
    assert!(world.stockade(&["unban", "203.0.113.64/28", "2001:db8:0:60::/60"]).status.success());
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

/// The agent, with programs of the test's own in front of the real ones.
fn start_with(world: &mut World, programs: &[(&str, &str)], config: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = world.dir().to_str().unwrap().to_owned();
    for (name, script) in programs {
        let path = world.write(name, &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = format!(
        "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\nignoreip: [loopback, self]\n{}",
        config.replace("DIR", &dir)
    );
    let config = world.write("config.yaml", &config);
    let path = format!("PATH={dir}:{}", std::env::var("PATH").unwrap());
    assert_eq!(config, world.dir().join("config.yaml"));
    world.grant("legacy.conf");
    world.run_agent_by(&["env", &path]);
}

fn restart(world: &mut World, change: impl Fn(&str) -> String) {
    assert!(world.stockade(&["stop"]).status.success());
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &change(&config));
    world.run_agent();
}

fn banned(world: &World) -> Vec<(String, String, String)> {
    let bans: serde_json::Value =
        serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("never").to_owned();
    let all = bans.as_array().unwrap().iter();
    // To the minute: a time that is left is told in whole seconds.
    let minute = |until: String| until.get(..16).unwrap_or(&until).to_owned();
    let mut all: Vec<_> =
        all.map(|ban| (word(&ban["offender"]), word(&ban["jail"]), minute(word(&ban["until"])))).collect();
    all.sort();
    all
}

#[test]
fn a_start_takes_over_what_a_stop_left_and_a_flush_leaves_nothing() {
    let mut world = World::new();
    nginx::start(&mut world);
    for args in [
        ["-t", "filter", "-A", "INPUT", "-s", "192.0.2.9", "-j", "DROP"].as_slice(),
        &["-t", "raw", "-A", "PREROUTING", "-s", "192.0.2.9", "-j", "ACCEPT"],
        &["-t", "raw", "-N", "STOCKADES"],
    ] {
        world.server("iptables-legacy", args);
    }
    world.server("ipset", &["create", "stockade_mine", "hash:ip"]);
    for (table, chain) in [("raw", "PREROUTING"), ("filter", "OUTPUT")] {
        world.server("ip6tables-legacy", &["-t", table, "-A", chain, "-j", "ACCEPT"]);
    }
    let before = everything(&world);
    world.start_agent(&jail().replace("from: start", "from: end"));
    ask_neighbours(&world);
    ban(&world, &[OFFENDER4, "2001:db8:0:66::/64", "198.51.100.0/24", "--for", "2h"]);
    // Further away than an ipset can say, and without an end.
    ban(&world, &["192.0.2.1", "--for", "90d"]);
    ban(&world, &["192.0.2.2", "--for", "permanent"]);
    let bans = banned(&world);
    assert_eq!(bans.len(), 5);
    for change in [
        |config: &str| config.to_owned(),
        |config: &str| config.replace("bantime: 1h", "bantime: 1h\n    ipv6_prefix: 56\n    ports: [http]"),
        // To nf_tables and back.
        |config: &str| config.replace("backend: legacy", "backend: nft"),
        |config: &str| config.replace("backend: nft", "backend: legacy"),
    ] {
        restart(&mut world, change);
        assert_eq!(banned(&world), bans, "{}", world.agent_log());
        for (offender, innocent) in [(OFFENDER4, INNOCENT4), (OFFENDER6, INNOCENT6)] {
            assert_eq!(world.visit(offender, "/"), None, "{}", everything(&world));
            assert_eq!(world.visit(innocent, "/"), Some(200), "{}", everything(&world));
        }
        let legacy = world.stockade(&["status"]);
        let legacy = text(&legacy).contains("backend legacy");
        assert_eq!(everything(&world).contains("banned4"), legacy, "{}", everything(&world));
        assert_eq!(world.server("nft", &["list", "ruleset"]).contains("stockade"), !legacy);
    }
    let out = world.stockade(&["stop", "--flush"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    assert_eq!(everything(&world), before);
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "stop --flush lifts every ban");
}

#[test]
fn a_jail_with_ports_blocks_only_those() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&jail().replace("bantime: 1h", "bantime: 1h\n    ports: [ssh, 8000-8010]"));
    ban(&world, &[OFFENDER4, OFFENDER6]);
    assert_eq!((world.visit(OFFENDER4, "/"), world.visit(OFFENDER6, "/")), (Some(200), Some(200)));
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &config.replace("[ssh, 8000-8010]", "[http]"));
    let out = world.stockade(&["reload"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(
        (world.visit(OFFENDER4, "/"), world.visit(OFFENDER6, "/")),
        (None, None),
        "{}",
        everything(&world)
    );
    assert_eq!((world.visit(INNOCENT4, "/"), world.visit(INNOCENT6, "/")), (Some(200), Some(200)));
}

/// `iptables-legacy-save` on a kernel without the raw table.
const NO_RAW: &str = r#"[ "$3" != raw ] || { echo "can't initialize iptables table \`raw': Table does not exist" >&2; exit 3; }"#;

#[test]
fn without_a_raw_table_the_filter_table_does_it_and_docker_cannot_undo_it() {
    let mut world = World::new();
    nginx::start(&mut world);
    let programs = ["iptables-legacy-save", "ip6tables-legacy-save"]
        .map(|name| (name, format!("{NO_RAW}\nexec /usr/sbin/{name} \"$@\"")));
    let programs = programs.each_ref().map(|(name, script)| (*name, script.as_str()));
    start_with(&mut world, &programs, &jail().replace("bantime: 1h", "bantime: 1h\n    ports: [http]"));
    assert!(status(&world)["kernel"]["reason"].as_str().unwrap().contains("table filter"));
    ban(&world, &[OFFENDER4, OFFENDER6]);
    assert_eq!(
        (world.visit(OFFENDER4, "/"), world.visit(OFFENDER6, "/")),
        (None, None),
        "{}",
        everything(&world)
    );
    assert_eq!((world.visit(INNOCENT4, "/"), world.visit(INNOCENT6, "/")), (Some(200), Some(200)));

    // A port of the host that leads to port 80 of a container is another port than the banned one.
    let nat = [
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "8081",
        "-j",
        "REDIRECT",
        "--to-ports",
        "80",
    ];
    world.server("iptables-legacy", &nat);
    let dialed = std::process::Command::new("ip")
        .args([
            "netns",
            "exec",
            &format!("stockade-c{}", std::process::id()),
            "curl",
            "-s",
            "-m",
            "1",
            "-o",
            "/dev/null",
        ])
        .args([
            "-w",
            "%{http_code}",
            "--interface",
            OFFENDER4,
            &format!("http://{}:8081/", crate::world::SERVER4),
        ])
        .output()
        .unwrap();
    assert_eq!(text(&dialed), "200", "what the client dialed counts");

    // Docker starts.
    for args in ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-I FORWARD -j DOCKER-USER"] {
        world.server("iptables-legacy", &args.split(' ').collect::<Vec<_>>());
    }
    let rules = |chain: &str| {
        let all = world.server("iptables-legacy", &["-S", chain]);
        all.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = |chain: &str| {
        let of_chain = rules(chain);
        let theirs =
            of_chain.iter().position(|rule| !rule.contains(" -j STOCKADE")).unwrap_or(of_chain.len());
        of_chain[..theirs].contains(&format!("-A {chain} -j STOCKADE"))
    };
    let repaired = eventually(LOOK, || ours("DOCKER-USER") && ours("FORWARD"));
    assert!(repaired, "{}\n{}", everything(&world), world.agent_log());
    assert!(world.stockade(&["stop", "--flush"]).status.success());
    assert!(eventually(SOON, || !everything(&world).contains("STOCKADE")), "{}", everything(&world));
    assert_eq!(rules("DOCKER-USER"), ["-A DOCKER-USER -j RETURN"]);
}

#[test]
fn without_ipv6_tables_ipv4_bans_hold_and_the_gap_is_told() {
    let mut world = World::new();
    nginx::start(&mut world);
    let no = "echo 'modprobe: FATAL: Module ip6_tables not found' >&2; exit 3";
    start_with(&mut world, &[("ip6tables-legacy-save", no)], &jail());
    ban(&world, &[OFFENDER4, OFFENDER6, "2001:db8:0:66::/64"]);
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    let status = status(&world);
    assert_eq!(status["state"], "enforcing");
    let problem = status["kernel"]["problem"].as_str().unwrap();
    assert!(problem.contains("IPv6 offenders are not banned") && problem.contains("ip6_tables"), "{problem}");
    assert!(world.agent_log().contains(problem));
}

#[test]
fn a_full_set_is_told_and_the_others_go_on() {
    let mut world = World::new();
    nginx::start(&mut world);
    let small =
        ["create", "stockade_banned4", "hash:ip", "maxelem", "2", "timeout", "0", "counters", "comment"];
    world.server("ipset", &small);
    world.start_agent(&jail());
    ban(&world, &["192.0.2.1", "192.0.2.2"]);
    ban(&world, &["192.0.2.3", OFFENDER4, OFFENDER6]);
    assert_eq!(world.visit(OFFENDER6, "/"), None, "another set is not concerned");
    let problem = status(&world)["kernel"]["problem"].clone();
    assert_eq!(
        problem,
        "2 bans are not in force: the ipset stockade_banned4 is full",
        "{}",
        world.agent_log()
    );
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let mut world = World::new();
    world.grant("legacy.conf");
    world.write("config.yaml", &format!("backend: legacy\n{}", NPM_JAIL.replace("DIR", "/tmp")));
    let no =
        world.write("ipset", "#!/bin/sh\necho 'ipset v7.17: Cannot open session to kernel.' >&2; exit 1\n");
    std::fs::set_permissions(&no, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", world.dir().display(), std::env::var("PATH").unwrap());
    let run = |world: &World| {
        let config = world.dir().join("config.yaml");
        let args = [&path, env!("CARGO_BIN_EXE_stockade"), "run", "--config", config.to_str().unwrap()];
        let control = format!("paths: {{ control: {0}/c.sock, state: {0}/s }}\n", world.dir().display());
        let text = std::fs::read_to_string(&config).unwrap();
        if !text.contains("paths:") {
            std::fs::write(&config, format!("{control}{text}")).unwrap();
        }
        world.on_server("env", &args).output().unwrap()
    };
    let out = run(&world);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(
        text(&out).contains("`backend: legacy` cannot be: ") && text(&out).contains("Cannot open session"),
        "{}",
        text(&out)
    );

    // A table of ours that belongs to somebody else: nf_tables cannot be used.
    let fifo = world.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let shell = format!("exec nft -i < {}", fifo.display());
    world.start("sh", &["-c", &shell], "owner.log");
    let mut owner = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    std::io::Write::write_all(&mut owner, b"add table inet stockade { flags owner; }\n").unwrap();
    assert!(eventually(SOON, || world.table().contains("owner")), "{}", world.table());
    for (backend, words) in [
        ("nft", vec!["`backend: nft` cannot be: ", "Operation not permitted"]),
        (
            "auto",
            vec!["nothing here can enforce bans", "nf_tables: ", "iptables-legacy: ", "Cannot open session"],
        ),
    ] {
        let config = world.dir().join("config.yaml");
        let text_of = std::fs::read_to_string(&config).unwrap();
        let line = text_of.lines().find(|line| line.starts_with("backend")).unwrap().to_owned();
        std::fs::write(&config, text_of.replace(&line, &format!("backend: {backend}"))).unwrap();
        let out = run(&world);
        assert_eq!(out.status.code(), Some(4), "{}", text(&out));
        for word in words {
            assert!(text(&out).contains(word), "{word}: {}", text(&out));
        }
    }
    // With a working ipset `auto` takes the other one, and says why.
    std::fs::remove_file(no).unwrap();
    world.start_agent(NPM_JAIL);
    let kernel = &status(&world)["kernel"];
    assert_eq!(kernel["backend"], "legacy");
    assert!(kernel["reason"].as_str().unwrap().starts_with("nf_tables cannot be used ("), "{kernel}");
    assert!(world.agent_log().contains("nf_tables cannot be used ("), "{}", world.agent_log());
}
