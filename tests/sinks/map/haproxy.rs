//! HAProxy and its runtime socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use stockade::sinks::Context;
use stockade::types::JailId;

use super::server::{Server, directory, free_port};
use super::{check, snippet};
use crate::support::{config, names, net, start, status, until, want};

const OWN: &str = "/etc/haproxy/stockade";

fn haproxy(dir: &Path, name: &str) -> Server {
    let port = free_port();
    let socket = dir.join("admin.sock");
    let global = snippet("haproxy global", "/run/haproxy/admin.sock", &socket);
    let frontend = snippet(name, OWN, dir);
    let config = format!(
        "global
{global}
defaults
mode http
timeout client 10s
timeout server 10s
timeout connect 10s
frontend f
bind 127.0.0.1:{port}
{frontend}
http-request return status 200 content-type text/plain lf-string %[src]
"
    );
    fs::write(dir.join("haproxy.cfg"), config).unwrap();
    for file in ["banned.map", "banned.acl"] {
        fs::write(dir.join(file), "").unwrap();
    }
    run(dir, port)
}

fn run(dir: &Path, port: u16) -> Server {
    Server::start(dir, port, &["/usr/sbin/haproxy", "-db", "-f", dir.join("haproxy.cfg").to_str().unwrap()])
}

fn sink(dir: &Path, format: &str) -> String {
    let d = dir.display();
    let file = format.replace("haproxy-", "banned.");
    format!("  map: {{ format: {format}, path: {d}/{file}, socket: {d}/admin.sock, interval: 1s }}")
}

/// A line at the socket, by somebody else.
fn say(dir: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(dir.join("admin.sock")).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn bans_go_into_its_memory_and_into_the_file() {
    for (format, name) in [("haproxy-map", "haproxy map"), ("haproxy-acl", "haproxy acl")] {
        let dir = directory();
        let server = haproxy(dir.path(), name);
        let sinks = start(&sink(dir.path(), format), dir.path());
        let map = names(&["map"]);
        let told = || sinks.value().to_string();
        assert_eq!(server.page("192.0.2.1"), (200, "192.0.2.1".to_owned()), "the real client is seen");
        for address in ["192.0.2.1", "198.51.100.0/24", "2001:db8:7::/64"] {
            sinks.ban(&map, net(address), &want(1));
        }
        for address in ["192.0.2.1", "198.51.100.200", "2001:db8:7::1"] {
            server.expect(address, 403, told);
        }
        assert_eq!((server.visit("192.0.2.10"), server.visit("2001:db8:8::1")), (200, 200));
        sinks.unban(&map, net("192.0.2.1"), JailId(1));
        server.expect("192.0.2.1", 200, told);
        assert_eq!(server.visit("198.51.100.1"), 403);
        let file = dir.path().join(format.replace("haproxy-", "banned."));
        let value = if format == "haproxy-map" { " 1" } else { "" };
        let wanted = format!(
            "# written by stockade; do not edit: it is overwritten\n198.51.100.0/24{value}\n2001:db8:7::/64{value}\n"
        );
        until(
            || format!("{}{}", fs::read_to_string(&file).unwrap(), told()),
            || fs::read_to_string(&file).unwrap() == wanted,
        );
        until(told, || status(&sinks, "map")["state"] == "ok");
    }
}

#[test]
fn what_it_has_already_is_compared() {
    let dir = directory();
    let server = haproxy(dir.path(), "haproxy map");
    let file = dir.path().join("banned.map");
    let map = |key: &str, value: &str| say(dir.path(), &format!("add map {} {key} {value}", file.display()));
    // Left from before: one that is wanted, one with another value, one that nobody wants, one spelt otherwise.
    for (key, value) in [("192.0.2.1", "1"), ("192.0.2.2", "x"), ("192.0.2.3", "1"), ("192.0.2.4/32", "1")] {
        assert_eq!(map(key, value), "\n");
    }
    let text = sink(dir.path(), "haproxy-map");
    let context = Context { state: dir.path().to_owned(), ..Context::default() };
    let sinks = stockade::sinks::Sinks::start(&config(&text).sinks, context, Vec::new()).unwrap();
    sinks.show(|_| ["192.0.2.1", "192.0.2.2", "192.0.2.4"].map(|a| (net(a), want(1))).into());
    let held = || {
        let text = say(dir.path(), &format!("show map {}", file.display()));
        let mut held: Vec<String> =
            text.lines().filter_map(|line| line.split_once(' ').map(|(_, entry)| entry.to_owned())).collect();
        held.sort();
        held
    };
    let told = || format!("{:?} {}", held(), sinks.value());
    until(told, || held() == ["192.0.2.1 1", "192.0.2.2 1", "192.0.2.4 1"]);
    assert_eq!((server.visit("192.0.2.4"), server.visit("192.0.2.3")), (403, 200));
}

#[test]
fn another_process_is_noticed_and_given_everything() {
    let dir = directory();
    let mut server = haproxy(dir.path(), "haproxy map");
    let sinks = start(&sink(dir.path(), "haproxy-map"), dir.path());
    let map = names(&["map"]);
    let told = || sinks.value().to_string();
    sinks.ban(&map, net("192.0.2.1"), &want(1));
    server.expect("192.0.2.1", 403, told);
    let file = dir.path().join("banned.map");
    until(told, || fs::read_to_string(&file).unwrap().contains("192.0.2.1"));
    until(told, || status(&sinks, "map")["state"] == "ok");
    server.stop();
    // As if it had begun before the file was written.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, "").unwrap();
    let config = fs::read_to_string(dir.path().join("haproxy.cfg")).unwrap();
    let port = config.lines().find_map(|l| l.strip_prefix("bind 127.0.0.1:")).unwrap().parse().unwrap();
    let server = run(dir.path(), port);
    fs::write(&file, text).unwrap();
    assert_eq!(server.visit("192.0.2.1"), 200);
    sinks.ban(&map, net("192.0.2.2"), &want(1));
    server.expect("192.0.2.2", 403, told);
    server.expect("192.0.2.1", 403, told);
}

#[test]
fn ten_thousand_bans_come_and_go() {
    let dir = directory();
    let server = haproxy(dir.path(), "haproxy acl");
    let sinks = start(&sink(dir.path(), "haproxy-acl"), dir.path());
    let address = |n: u32| format!("10.1.{}.{}", n / 256, n % 256);
    let held =
        || say(dir.path(), &format!("show acl {}/banned.acl", dir.path().display())).trim().lines().count();
    sinks.show(|_| (0..10_000).map(|n| (net(&address(n)), want(1))).collect());
    until(|| format!("{} {}", held(), status(&sinks, "map")), || held() == 10_000);
    assert_eq!((server.visit(&address(9_999)), server.visit(&address(10_000))), (403, 200));
    sinks.show(|_| vec![(net(&address(7)), want(1))]);
    until(|| format!("{} {}", held(), status(&sinks, "map")), || held() == 1);
    assert_eq!((server.visit(&address(9_999)), server.visit(&address(7))), (200, 403));
}

#[test]
fn what_is_wrong_with_the_socket_is_told() {
    let dir = directory();
    let mut server = haproxy(dir.path(), "haproxy map");
    let told = check(&sink(dir.path(), "haproxy-map"));
    assert!(told.iter().all(|c| c.good), "{told:?}");
    assert!(told[1].text.starts_with("HAProxy 2.") && told[1].text.contains("has 0 entries of"), "{told:?}");
    // The list is not used in this configuration.
    let told = check(&sink(dir.path(), "haproxy-acl"));
    assert!(
        !told[1].good && told[1].text.contains("does not use") && told[1].text.contains("set `map` to"),
        "{told:?}"
    );
    server.stop();
    let sinks = start(&sink(dir.path(), "haproxy-map"), dir.path());
    sinks.ban(&names(&["map"]), net("192.0.2.1"), &want(1));
    let error = || status(&sinks, "map")["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    until(|| sinks.value().to_string(), || error().contains("does it run, with `stats socket"));
    // For its next start.
    let file = dir.path().join("banned.map");
    until(|| sinks.value().to_string(), || fs::read_to_string(&file).unwrap().contains("192.0.2.1 1\n"));

    let config = fs::read_to_string(dir.path().join("haproxy.cfg")).unwrap();
    fs::write(dir.path().join("haproxy.cfg"), config.replace("level admin", "level user")).unwrap();
    let port = config.lines().find_map(|l| l.strip_prefix("bind 127.0.0.1:")).unwrap().parse().unwrap();
    let server = run(dir.path(), port);
    assert_eq!(server.visit("192.0.2.1"), 403, "it has read the file");
    until(|| sinks.value().to_string(), || error().contains("level admin"));
}
