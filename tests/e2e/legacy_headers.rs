//! Header bans through iptables-legacy, with a real proxy: its packets come from itself, and whom it speaks for stands in
//! the request head alone.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use stockade::config::{HeaderAction, Headers};
use stockade::kernel::legacy::{LegacyHeaders, Look};
use stockade::types::Timestamp;

use crate::SOON;
use crate::world::{self, INNOCENT4, INNOCENT6, NEIGHBOUR6, OFFENDER4, OFFENDER6, World, eventually, text};

type Ban = (ipnet::IpNet, Option<Timestamp>);

/// nginx in front of an application on the same host, which it reaches over IPv4 (`/`) and over IPv6 (`/6/`).
fn start_proxy(world: &mut World) {
    let dir = world.dir().to_str().unwrap().to_owned();
    let config = format!(
        "pid {dir}/nginx.pid; error_log {dir}/nginx_error.log; worker_processes 1; user root;
events {{ worker_connections 256; }}
http {{
access_log off;
client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
proxy_read_timeout 500ms; proxy_http_version 1.1; proxy_set_header Connection '';
proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
client_max_body_size 64m; large_client_header_buffers 4 16k;
upstream four {{ server 127.0.0.1:8080 max_fails=0; keepalive 4; }}
upstream six {{ server [::1]:8080 max_fails=0; keepalive 4; }}
server {{
    listen 80; listen [::]:80;
    location / {{ proxy_pass http://four; }}
    location /6/ {{ proxy_pass http://six/; }}
}}
server {{ listen 127.0.0.1:8080; listen [::1]:8080; return 200 'hello'; }}
}}
"
    );
    let config = world.write("nginx.conf", &config);
    world.start("nginx", &["-c", config.to_str().unwrap(), "-g", "daemon off;"], "nginx.out");
    assert!(eventually(SOON, || world.visit(INNOCENT4, "/") == Some(200)));
}

/// Moves this thread, and what it starts, to the server.
fn enter() {
    let namespace = File::open(format!("/run/netns/stockade-s{}", std::process::id())).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

fn bans(nets: &[&str], time: Option<u64>) -> Vec<Ban> {
    let end = time.map(|seconds| now().saturating_add(Duration::from_secs(seconds)));
    nets.iter().map(|net| (net.parse().unwrap(), end)).collect()
}

/// A request of the client with a header of its own; the status code.
fn visit_with(header: &str, path: &str) -> Option<u16> {
    let out = Command::new("ip")
        .args([
            "netns",
            "exec",
            &format!("stockade-c{}", std::process::id()),
            "curl",
            "-s",
            "-o",
            "/dev/null",
        ])
        .args(["-w", "%{http_code}", "-m", "2", "--interface", INNOCENT4, "-H", header])
        .arg(format!("http://{}{path}", world::SERVER4))
        .output()
        .unwrap();
    Some(String::from_utf8(out.stdout).unwrap().parse().unwrap()).filter(|code| *code != 0)
}

fn saved(world: &World) -> String {
    let mut all = world.server("iptables-legacy-save", &["-t", "filter"]);
    all.push_str(&world.server("ip6tables-legacy-save", &["-t", "filter"]));
    let kept = all.lines().filter(|line| !line.starts_with('#'));
    kept.map(|line| line.split(" [").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_banned_visitor_of_a_proxy_is_stopped_and_no_other() {
    let mut world = World::new();
    start_proxy(&mut world);
    enter();
    runtime().block_on(async {
        for (action, stopped) in [(HeaderAction::Reset, Some(502)), (HeaderAction::Drop, Some(504))] {
            let headers = Headers { action, ..Headers::default() };
            let mut matcher = LegacyHeaders::open(headers).await.unwrap();
            assert_eq!(matcher.notes().next(), None);
            let all = bans(&[&format!("{OFFENDER4}/32"), "2001:db8:0:66::/64"], Some(3600));
            matcher.settle(all, now()).await.unwrap();
            assert_eq!(matcher.installed(), 2);
            for path in ["/", "/6/"] {
                for offender in [OFFENDER4, OFFENDER6, NEIGHBOUR6] {
                    assert_eq!(world.visit(offender, path), stopped, "{offender} {path}\n{}", saved(&world));
                }
                for innocent in [INNOCENT4, INNOCENT6] {
                    assert_eq!(world.visit(innocent, path), Some(200), "{innocent} {path}");
                }
            }
            // In a list, in another header, in lower case, behind a long request line; at the door of the proxy, too.
            let long = format!("/?{}", "x".repeat(3000));
            for (header, path) in [
                (format!("x-forwarded-for: 10.9.9.9, {OFFENDER4},192.0.2.1"), "/"),
                (format!("CF-Connecting-IP: {}", OFFENDER6.to_uppercase()), "/"),
                (format!("X-Forwarded-For: [{OFFENDER6}]:4711"), "/"),
                (format!("X-Real-IP: ::ffff:{OFFENDER4}"), long.as_str()),
            ] {
                let got = visit_with(&header, path);
                assert_eq!(got, None, "{header}");
            }
            for header in [
                format!("X-Forwarded-For: {OFFENDER4}7"),
                format!("X-Forwarded-For: 1{OFFENDER4}"),
                "X-Forwarded-For: 2001:db8:0:660::1".to_owned(),
            ] {
                assert_eq!(visit_with(&header, "/"), Some(200), "{header}");
            }
            // One is lifted, the other stays.
            matcher.apply([(format!("{OFFENDER4}/32").parse().unwrap(), None)], now()).await.unwrap();
            assert_eq!(world.visit(OFFENDER4, "/"), Some(200));
            assert_eq!(world.visit(OFFENDER6, "/"), stopped);
            matcher.remove().await.unwrap();
            assert_eq!(world.visit(OFFENDER6, "/"), Some(200));
        }
    });
}

#[test]
fn a_header_ban_ends_by_itself_without_an_agent() {
    let mut world = World::new();
    start_proxy(&mut world);
    enter();
    runtime().block_on(async {
        let mut matcher = LegacyHeaders::open(Headers::default()).await.unwrap();
        let all = bans(&[&format!("{OFFENDER4}/32"), "2001:db8:0:66::/64"], Some(3));
        matcher.settle(all, now()).await.unwrap();
        assert_eq!((world.visit(OFFENDER4, "/"), world.visit(OFFENDER6, "/")), (Some(502), Some(502)));
        // Nobody touches the rules any more.
        for offender in [OFFENDER4, OFFENDER6] {
            assert!(eventually(SOON, || world.visit(offender, "/") == Some(200)), "{}", saved(&world));
        }
    });
}

#[test]
fn all_jumps_are_made_repaired_and_removed_and_nothing_of_others_is_touched() {
    let world = World::new();
    enter();
    for (program, rules) in [
        ("iptables-legacy", vec!["-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN"]),
        ("ip6tables-legacy", vec!["-A INPUT -p icmpv6 -j ACCEPT", "-P FORWARD DROP"]),
    ] {
        for rule in rules {
            world.server(program, &rule.split(' ').collect::<Vec<_>>());
        }
    }
    world.server(
        "iptables-legacy",
        &["-A", "INPUT", "-m", "comment", "--comment", "a -j STOCKADE_HEADERS \"b\"", "-j", "ACCEPT"],
    );
    let before = saved(&world);
    runtime().block_on(async {
        let mut matcher = LegacyHeaders::open(Headers::default()).await.unwrap();
        assert_eq!(saved(&world), before, "asking the kernel leaves nothing");
        matcher.settle(bans(&["192.0.2.1/32"], None), now()).await.unwrap();
        let settled = saved(&world);
        for chain in ["INPUT", "FORWARD", "OUTPUT", "DOCKER-USER"] {
            let first = settled.lines().find(|line| line.starts_with(&format!("-A {chain} "))).unwrap();
            assert_eq!(first, format!("-A {chain} -j STOCKADE_HEADERS"));
        }
        assert_eq!(matcher.look().await.unwrap(), Look::Fine);
        for breaks in [
            "-t filter -F STOCKADE_H_0",
            "-t filter -D DOCKER-USER -j STOCKADE_HEADERS",
            "-t filter -I INPUT -j ACCEPT",
            "-t filter -D STOCKADE_HEADERS 1",
        ] {
            world.server("iptables-legacy", &breaks.split(' ').collect::<Vec<_>>());
            assert!(matches!(matcher.look().await.unwrap(), Look::Changed(_)), "{breaks}");
            matcher.settle(bans(&["192.0.2.1/32"], None), now()).await.unwrap();
            assert_eq!(matcher.look().await.unwrap(), Look::Fine, "{breaks}");
            let admins = "\n-A INPUT -j ACCEPT";
            let again = saved(&world).replacen(admins, "", usize::from(breaks.ends_with("INPUT -j ACCEPT")));
            if breaks.ends_with("INPUT -j ACCEPT") {
                world.server("iptables-legacy", &["-D", "INPUT", "-j", "ACCEPT"]);
            }
            assert_eq!(again, settled, "{breaks}");
        }
        // A new agent over what an old one left.
        let mut next = LegacyHeaders::open(Headers::default()).await.unwrap();
        next.settle(bans(&["192.0.2.1/32"], None), now()).await.unwrap();
        assert_eq!(saved(&world), settled);
        next.remove().await.unwrap();
        assert_eq!(saved(&world), before);
    });
}

/// What a packet that is forwarded to a container carries.
#[test]
fn requests_to_a_container_are_looked_into() {
    let world = World::new();
    let id = std::process::id();
    let container = Container::new(id);
    let client = format!("stockade-c{id}");
    ip(&["-n", &client, "route", "add", "198.51.100.0/24", "via", world::SERVER4]);
    world.server("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
    let dir = world.dir().to_str().unwrap().to_owned();
    let config = format!(
        "pid {dir}/app.pid; error_log {dir}/app_error.log; user root; events {{}}
http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi; server {{ listen 80; return 200 'hello'; }} }}
"
    );
    let config = world.write("app.conf", &config);
    let mut app = Command::new("ip")
        .args(["netns", "exec", &container.0, "nginx", "-c", config.to_str().unwrap(), "-g", "daemon off;"])
        .spawn()
        .unwrap();
    let visit = |header: &str| {
        let out = Command::new("ip")
            .args([
                "netns",
                "exec",
                &client,
                "curl",
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-m",
                "1",
            ])
            .args(["-H", header, "http://198.51.100.2/"])
            .output()
            .unwrap();
        text(&out)
    };
    assert!(eventually(SOON, || visit("A: b") == "200"));
    enter();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime().block_on(async {
            let mut matcher = LegacyHeaders::open(Headers::default()).await.unwrap();
            matcher.settle(bans(&["192.0.2.1/32"], None), now()).await.unwrap();
            assert_eq!(visit("X-Forwarded-For: 192.0.2.1"), "000", "{}", saved(&world));
            assert_eq!(visit("X-Forwarded-For: 192.0.2.11"), "200");
        });
    }));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(app.id().try_into().unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    app.wait().unwrap();
    ended.unwrap();
}

/// A namespace behind the server, gone with the test.
struct Container(String);

impl Container {
    fn new(id: u32) -> Self {
        let (name, server) = (format!("stockade-a{id}"), format!("stockade-s{id}"));
        ip(&["netns", "add", &name]);
        let container = Self(name);
        let name = &container.0;
        let (host, inside) = (format!("sh{id}"), format!("sa{id}"));
        ip(&["-n", &server, "link", "add", &host, "type", "veth", "peer", "name", &inside, "netns", name]);
        ip(&["-n", &server, "addr", "add", "198.51.100.1/24", "dev", &host]);
        ip(&["-n", &server, "link", "set", &host, "up"]);
        ip(&["-n", name, "addr", "add", "198.51.100.2/24", "dev", &inside]);
        ip(&["-n", name, "link", "set", &inside, "up"]);
        ip(&["-n", name, "route", "add", "default", "via", "198.51.100.1"]);
        container
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).status());
    }
}

fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().unwrap();
    assert!(out.status.success(), "ip {}: {}", args.join(" "), text(&out));
}

/// The agent itself, with every pair of a backend and iptables-legacy as what looks into heads.
#[test]
fn an_agent_bans_in_heads_whatever_bans_by_source() {
    let mut world = World::new();
    start_proxy(&mut world);
    let config = |backend: &str, rest: &str| format!("backend: {backend}\n{rest}{}", crate::NPM_JAIL);
    world.start_agent(&config("nft", "headers: { matcher: legacy }"));
    let status = |world: &World| -> serde_json::Value {
        serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap()
    };
    // The proxy is a neighbour of this test's only in heads: by source these bans hit nobody, for what is visited comes
    // from 127.0.0.1.
    let banned = ["192.0.2.1", "2001:db8:9:9::/64"];
    let out = world.stockade(&[&["ban", "npm"][..], &banned, &["--for", "1h"]].concat());
    assert!(out.status.success(), "{}", text(&out));
    let blocked = |world: &World, what: &str| {
        for header in ["X-Forwarded-For: 192.0.2.1", "X-Real-IP: 2001:db8:9:9::77"] {
            assert_eq!(visit_with(header, "/"), None, "{what}: {header}\n{}", saved(world));
        }
        assert_eq!(visit_with("X-Forwarded-For: 192.0.2.2", "/"), Some(200), "{what}");
        let status = status(world);
        assert_eq!(
            (&status["headers"]["matcher"], &status["headers"]["installed"]),
            (&"legacy".into(), &2.into())
        );
        assert_eq!(status["headers"]["error"], serde_json::Value::Null);
        assert!(status["headers"]["packets"].as_u64() >= Some(2), "{status:#}");
    };
    blocked(&world, "nft");
    world.server("iptables-legacy", &["-F", "STOCKADE_HEADS"]);
    let repaired = eventually(Duration::from_secs(12), || status(&world)["kernel"]["repairs"] == 1);
    assert!(repaired, "{}", world.agent_log());
    blocked(&world, "repaired");

    let restart = |world: &mut World, config: &str| {
        assert!(world.stockade(&["stop"]).status.success());
        assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
        world.start_agent(config);
    };
    restart(&mut world, &config("legacy", ""));
    blocked(&world, "legacy");
    assert!(!world.server("nft", &["list", "ruleset"]).contains("stockade"), "nothing in nf_tables");
    let out = world.stockade(&["unban", "192.0.2.1"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(visit_with("X-Forwarded-For: 192.0.2.1", "/"), Some(200));

    // Another matcher: nothing stays behind.
    restart(&mut world, &config("nft", "headers: { matcher: off }"));
    assert!(!saved(&world).contains("STOCKADE"), "{}", saved(&world));
    restart(&mut world, &config("nft", "headers: { matcher: legacy }"));
    assert!(saved(&world).contains("STOCKADE_H_0"), "{}", saved(&world));
    assert!(world.stockade(&["stop", "--flush"]).status.success());
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    assert!(!saved(&world).contains("STOCKADE"), "{}", saved(&world));
    assert!(!world.server("nft", &["list", "ruleset"]).contains("stockade"));
}
