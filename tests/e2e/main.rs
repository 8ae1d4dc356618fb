//! The main job against the real things: a real nginx, the real agent, the real kernel, two namespaces on a wire.
//!
//! They need root, `ip`, `nft`, `iptables-legacy`, `ipset`, `nginx`, `faketime` and `curl`; `tests/run` installs what is missing.
//! Nothing is skipped.
#![expect(clippy::unwrap_used, reason = "what a test relies on and does not find fails the test")]

mod boot;
mod check;
mod confine;
mod confined;
mod crash;
mod docker;
mod escalation;
mod floods;
mod hammer;
mod headers;
mod hops;
#[path = "../support/http.rs"]
mod http;
mod journal;
mod leaks;
mod legacy;
mod legacy_headers;
mod manners;
mod nginx;
mod observe;
mod packets;
mod parts;
mod protect;
mod read_back;
mod reload;
mod robust;
mod setup;
mod sinks;
mod stop;
mod syslog;
mod unit;
mod verify;
mod world;

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, SystemTime};

use world::{INNOCENT4, INNOCENT6, NEIGHBOUR6, OFFENDER4, OFFENDER6, World, eventually, text};

const SOON: Duration = Duration::from_secs(5);

const NPM_JAIL: &str = "
jails:
  npm:
    filter: npm-forceful-browsing
    logpath: DIR/proxy-host-*_access.log
    from: start
    maxretry: 5
    findtime: 60s
    bantime: 1h
";

/// Visits a page that is not there until the connection fails; how many answers came before.
fn visits_until_blocked(world: &World, source: &str) -> u32 {
    for n in 0..50 {
        match world.visit(source, &format!("/wp-login.php?{n}")) {
            Some(404) => {}
            None => return n,
            Some(other) => panic!("status {other} for a page that is not there"),
        }
        // The ban follows within milliseconds; without this pause several requests would be through before it.
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{source} was never blocked\n{}\n{}", world.agent_log(), world.table());
}

#[test]
fn nginx_offenders_are_blocked_over_ipv4_and_ipv6_and_let_in_again() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);

    for (offender, innocent, element) in
        [(OFFENDER4, INNOCENT4, OFFENDER4), (OFFENDER6, INNOCENT6, "2001:db8:0:66::")]
    {
        assert_eq!(world.visit(offender, "/"), Some(200));
        assert_eq!(visits_until_blocked(&world, offender), 5, "maxretry is 5\n{}", world.agent_log());
        assert!(world.table().contains(element), "{}", world.table());
        assert_eq!(world.visit(innocent, "/"), Some(200), "an innocent address gets through");

        let out = world.stockade(&["unban", offender]);
        assert!(out.status.success(), "{}", text(&out));
        assert!(!world.table().contains(element), "{}", world.table());
        assert_eq!(world.visit(offender, "/"), Some(200), "unban restores access");
    }
}

#[test]
fn an_ipv6_ban_covers_the_prefix() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);
    assert_eq!(world.visit(NEIGHBOUR6, "/"), Some(200));
    visits_until_blocked(&world, OFFENDER6);
    assert_eq!(world.visit(NEIGHBOUR6, "/"), None, "the neighbour in the same /64 is the same subscriber");
    assert_eq!(world.visit(INNOCENT6, "/"), Some(200));
}

#[test]
fn a_short_ban_ends_by_itself() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&NPM_JAIL.replace("bantime: 1h", "bantime: 3s"));
    visits_until_blocked(&world, OFFENDER4);
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/") == Some(200)), "{}", world.table());
    let bans = world.stockade(&["bans", "--json"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&bans.stdout).unwrap(), serde_json::json!([]));
}

#[test]
fn a_user_agent_that_imitates_a_log_line_bans_nobody_else() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);
    let forged = format!("x\" [Client {INNOCENT4}] [Length 1] [Gzip -] [Sent-to a] \"x\" \"-");
    for _ in 0..10 {
        // The path is found, so the visit itself is no offense.
        let out = std::process::Command::new("ip")
            .args([
                "netns",
                "exec",
                &format!("stockade-c{}", std::process::id()),
                "curl",
                "-s",
                "-o",
                "/dev/null",
            ])
            .args(["--interface", OFFENDER4, "-A", &forged, &format!("http://{}/", world::SERVER4)])
            .output()
            .unwrap();
        assert!(out.status.success());
    }
    visits_until_blocked(&world, OFFENDER4);
    assert!(!world.table().contains(INNOCENT4), "{}", world.table());
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
}

/// One line as Traefik writes it for a request that it answered itself with 404.
fn traefik_line(client: &str) -> String {
    let now = jiff::Timestamp::now();
    let address = if client.contains(':') { format!("[{client}]:40022") } else { format!("{client}:40022") };
    format!(
        r#"{{"ClientAddr":"{address}","ClientHost":"{client}","ClientPort":"40022","ClientUsername":"-","DownstreamContentSize":19,"DownstreamStatus":404,"Duration":72313,"OriginContentSize":0,"OriginDuration":0,"OriginStatus":0,"Overhead":72313,"RequestAddr":"app.example.org","RequestContentSize":0,"RequestCount":41,"RequestHost":"app.example.org","RequestMethod":"GET","RequestPath":"/.git/config","RequestPort":"-","RequestProtocol":"HTTP/2.0","RequestScheme":"https","RetryAttempts":0,"StartLocal":"{now}","StartUTC":"{now}","entryPointName":"websecure","level":"info","msg":"","request_User-Agent":"curl/8.7.1","time":"{now}"}}"#
    ) + "\n"
}

#[test]
fn traefik_json_offenders_are_blocked() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(
        "
jails:
  traefik:
    filter: traefik-forceful-browsing
    logpath: DIR/access.json
    maxretry: 3
    findtime: 60s
    bantime: 1h
",
    );
    // The log appears only now, as on a first start of Traefik.
    let mut log = OpenOptions::new().create(true).append(true).open(world.dir().join("access.json")).unwrap();
    for (offender, innocent) in [(OFFENDER4, INNOCENT4), (OFFENDER6, INNOCENT6)] {
        for n in 0..3 {
            assert_eq!(world.visit(offender, "/"), Some(200), "two offenses are not three");
            log.write_all(traefik_line(offender).as_bytes()).unwrap();
            if n == 0 {
                log.write_all(traefik_line(innocent).as_bytes()).unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(eventually(SOON, || world.visit(offender, "/").is_none()), "{}", world.agent_log());
        assert_eq!(world.visit(innocent, "/"), Some(200));
        assert!(world.stockade(&["unban", offender]).status.success());
        assert_eq!(world.visit(offender, "/"), Some(200));
    }
}

/// Waits until our table holds `what`, and says how long that took.
fn until_listed(world: &World, what: &str) -> Duration {
    let begin = SystemTime::now();
    assert!(eventually(SOON, || world.table().contains(what)), "{}\n{}", world.table(), world.agent_log());
    begin.elapsed().unwrap()
}

#[test]
fn a_flush_by_somebody_else_is_repaired() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);
    let out = world.stockade(&[
        "ban",
        "npm",
        OFFENDER4,
        "2001:db8:0:66::/64",
        "198.51.100.0/24",
        "--for",
        "permanent",
    ]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    let before = world.table();

    for (program, args) in [
        ("nft", vec!["flush", "ruleset"]),
        ("nft", vec!["delete", "table", "inet", "stockade"]),
        ("nft", vec!["flush", "set", "inet", "stockade", "banned4"]),
        ("nft", vec!["flush", "chain", "inet", "stockade", "prerouting"]),
        ("nft", vec!["delete", "element", "inet", "stockade", "banned4", "{ 203.0.113.66 }"]),
    ] {
        world.server(program, &args);
        until_listed(&world, OFFENDER4);
        assert!(eventually(SOON, || world.visit(OFFENDER4, "/").is_none()), "{args:?}: {}", world.table());
        assert_eq!(without_counts(&world.table()), without_counts(&before), "after nft {}", args.join(" "));
        assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
    }
}

/// What does not depend on how many packets were stopped.
fn without_counts(table: &str) -> String {
    let mut words = table.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "packets" | "bytes" => drop(words.next()),
            word => kept.push(word),
        }
    }
    kept.join(" ")
}

#[test]
fn a_stop_leaves_bans_in_place_and_a_start_takes_them_over() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);
    visits_until_blocked(&world, OFFENDER4);
    let out = world.stockade(&["stop"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    assert_eq!(world.visit(OFFENDER4, "/"), None, "a stop leaves bans in place");
    let left = world.table();

    // `from: end`, so that the ban can only come from the kernel, not from reading the log again.
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &config.replace("from: start", "from: end"));
    world.run_agent();
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    let bans: serde_json::Value =
        serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
    assert_eq!(bans[0]["offender"], OFFENDER4, "{bans}");
    assert_eq!(bans[0]["jail"], "npm");
    assert_eq!(bans[0]["offenses"], 5);
    assert!(left.contains("npm") && world.table().contains("npm"), "the element says which jail");

    let out = world.stockade(&["stop", "--flush"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(eventually(SOON, || !world.server("nft", &["list", "ruleset"]).contains("stockade")));
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "stop --flush lifts every ban");
}

#[test]
fn a_jail_with_ports_blocks_only_those() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&NPM_JAIL.replace("bantime: 1h", "bantime: 1h\n    ports: [ssh, 8000-8010]"));
    let out = world.stockade(&["ban", "npm", OFFENDER4]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "port 80 is not banned");
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &config.replace("[ssh, 8000-8010]", "[http]"));
    let out = world.stockade(&["reload"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(world.visit(OFFENDER4, "/"), None, "now it is\n{}", world.table());
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
}

#[test]
fn a_reload_with_a_mistake_keeps_the_old_configuration() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(NPM_JAIL);
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &config.replace("maxretry", "maxrety"));
    let out = world.stockade(&["reload"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(text(&out).contains("maxretry"), "the mistake comes back to the caller: {}", text(&out));
    assert!(world.stockade(&["bans"]).status.success(), "the agent stays reachable meanwhile");
    assert_eq!(visits_until_blocked(&world, OFFENDER4), 5);

    // A good one that frees the offender.
    world
        .write("config.yaml", &config.replace("[loopback, self]", &format!("[loopback, self, {OFFENDER4}]")));
    let out = world.stockade(&["reload"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/") == Some(200)), "{}", world.table());
}

#[test]
fn the_kernel_lists_what_check_prints() {
    let mut world = World::new();
    world.start_agent(&format!(
        "headers: {{ matcher: string }}{NPM_JAIL}  ssh:
    filter: sshd
    logpath: DIR/auth.log
    ports: [ssh, 2222]
    ipv6_prefix: 56
"
    ));
    let printed = world.stockade(&["check", "--print-ruleset"]);
    assert!(printed.status.success(), "{}", text(&printed));
    let list = |family| world.server("nft", &["list", "table", family, "stockade"]);
    let listed = list("inet") + &list("bridge");
    assert_eq!(listed, String::from_utf8(printed.stdout).unwrap());
    assert_eq!(listed, include_str!("../golden/ports.nft"), "as an administrator can read it");
}

#[test]
fn status_tells_at_a_glance() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(
        &NPM_JAIL
            .replace("    from:", "      - DIR/not-yet.log\n    from:")
            .replace("logpath: DIR/proxy-host-*_access.log", "logpath:\n      - DIR/proxy-host-*_access.log"),
    );
    visits_until_blocked(&world, OFFENDER4);
    let mut status = serde_json::Value::Null;
    let told = eventually(SOON, || {
        status = serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap();
        // The follower tells about itself a few times a second.
        status["jails"][0]["lines"].as_u64() >= Some(6)
    });
    assert!(told, "{status:#}");
    let jail = &status["jails"][0];
    assert_eq!(status["state"], "enforcing");
    assert_eq!(jail["offenses"], 5);
    assert_eq!(jail["bans"], 1);
    assert_eq!(jail["last_ban"]["offender"], OFFENDER4);
    assert_eq!(jail["files"].as_array().unwrap().len(), 1);
    assert_eq!(jail["files"][0]["behind"], 0);
    assert!(jail["waiting"][0].as_str().unwrap().ends_with("not-yet.log"), "{jail:#}");
    let text = String::from_utf8(world.stockade(&["status", "npm"]).stdout).unwrap();
    assert!(text.contains(&format!("bans      1 now, 1 in all, last {OFFENDER4}")), "{text}");
    assert_eq!(world.stockade(&["status", "nginx"]).status.code(), Some(1), "there is no such jail");
}

#[test]
fn what_may_not_be_banned_is_refused_unless_forced() {
    let mut world = World::new();
    world.start_agent(NPM_JAIL);
    let refused = world.stockade(&["ban", "npm", world::SERVER4]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(
        text(&refused).contains("203.0.113.1 is this host's own address; use --force"),
        "{}",
        text(&refused)
    );
    assert!(!world.table().contains("elements"), "{}", world.table());
    let forced = world.stockade(&["ban", "npm", "198.51.100.0/24", "--reason", "a \"test\"", "--for", "2h"]);
    assert!(forced.status.success(), "{}", text(&forced));
    let bans: serde_json::Value =
        serde_json::from_slice(&world.stockade(&["bans", "--json"]).stdout).unwrap();
    assert_eq!(
        (&bans[0]["offender"], &bans[0]["evidence"]),
        (&"198.51.100.0/24".into(), &"a \"test\"".into())
    );
    for (args, code) in [
        (vec!["ban", "npm", "nowhere"], 2),
        (vec!["ban", "none", OFFENDER4], 1),
        (vec!["unban", "--jail", "none", OFFENDER4], 1),
        (vec!["bans", "--jail", "none"], 1),
        (vec!["status", "none"], 1),
        (vec!["ban", "npm", OFFENDER4, "--for", "soon"], 2),
        (vec!["unban", OFFENDER4], 1),
        (vec!["unban", "198.51.100.0/24"], 0),
    ] {
        let out = world.stockade(&args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
    }
    let second = world.stockade(&["run"]);
    assert_eq!(second.status.code(), Some(4), "{}", text(&second));
    assert!(text(&second).contains("another agent already answers"), "{}", text(&second));
    // Another socket does not make it another host.
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    let other = world.write("other.yaml", &config.replace("control.sock", "other.sock"));
    let third = world.stockade(&["run", "--config", other.to_str().unwrap()]);
    assert_eq!(third.status.code(), Some(4), "{}", text(&third));
    assert!(text(&third).contains("in this network namespace already"), "{}", text(&third));
}

/// Stops the agent, changes its configuration, starts it again.
fn restart(world: &mut World, change: impl Fn(&str) -> String) {
    assert!(world.stockade(&["stop"]).status.success());
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    let config = std::fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &change(&config));
    world.run_agent();
}

/// The bans that reached another shape of the table stayed there for good, and came back when they had been lifted.
#[test]
fn bans_survive_a_change_of_the_tables_shape() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(&NPM_JAIL.replace("from: start", "from: end"));
    let out = world.stockade(&["ban", "npm", OFFENDER6, OFFENDER4, "198.51.100.0/24"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(world.table().contains("banned6_64"));

    restart(&mut world, |config| {
        config.replace("bantime: 1h", "bantime: 1h\n    ipv6_prefix: 56\n    ports: [http]")
    });
    let table = world.table();
    assert!(!table.contains("set banned6_64") && table.contains("198.51.100.0/24"), "{table}");
    for (offender, innocent) in [(OFFENDER4, INNOCENT4), (OFFENDER6, INNOCENT6)] {
        assert_eq!(world.visit(offender, "/"), None, "{table}\n{}", world.agent_log());
        assert_eq!(world.visit(innocent, "/"), Some(200));
    }
    assert!(world.stockade(&["unban", "--all"]).status.success());
    restart(&mut world, |config| config.replace("    ports: [http]", ""));
    assert!(!world.table().contains("elements"), "what was lifted stays lifted: {}", world.table());
}

/// `my-ssh` and `my_ssh` once shared a set, and so the wrong port was closed.
#[test]
fn jails_with_names_alike_close_their_own_ports() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(
        "
jails:
  my-web: { filter: npm-404, logpath: DIR/a.log, ports: [http] }
  my_web: { filter: npm-404, logpath: DIR/b.log, ports: [8080] }
",
    );
    for (jail, offender) in [("my-web", OFFENDER4), ("my_web", INNOCENT4)] {
        let out = world.stockade(&["ban", jail, offender]);
        assert!(out.status.success(), "{}", text(&out));
    }
    assert_eq!(world.visit(OFFENDER4, "/"), None);
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200), "only port 8080 is closed to it");
    world.server("nft", &["flush", "ruleset"]);
    until_listed(&world, OFFENDER4);
    assert_eq!(world.visit(OFFENDER4, "/"), None);
}

#[test]
fn what_others_put_into_our_table_is_removed() {
    let mut world = World::new();
    world.start_agent(NPM_JAIL);
    let before = world.table();
    for args in [
        ["add", "element", "inet", "stockade", "nets4", "{ 198.51.100.3-198.51.100.9 }"].as_slice(),
        &["add", "element", "inet", "stockade", "banned4", "{ 198.51.100.3 timeout 1h }"],
        &["add", "set", "inet", "stockade", "theirs", "{ type ipv4_addr; }"],
        &["add", "rule", "inet", "stockade", "prerouting", "accept"],
        &["insert", "rule", "inet", "stockade", "prerouting", "tcp", "dport", "22", "accept"],
    ] {
        world.server("nft", args);
        assert!(eventually(SOON, || world.table() == before), "{args:?}: {}", world.table());
    }
}
