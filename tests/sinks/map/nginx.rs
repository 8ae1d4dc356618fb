//! nginx.

use std::fs;
use std::path::Path;

use stockade::types::JailId;

use super::server::{Server, directory, free_port};
use super::{end, snippet};
use crate::support::{names, net, start, status, until, want};

const OWN: &str = "/etc/nginx/stockade";

/// nginx with these snippets, and an empty `more.conf` that it includes too.
fn nginx(dir: &Path, http: &str) -> Server {
    let d = dir.display();
    let port = free_port();
    let (http, server) = (snippet(http, OWN, dir), snippet("nginx server", OWN, dir));
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "pid {d}/nginx.pid; error_log {d}/error.log; worker_processes 1; daemon off; {user}
events {{ worker_connections 64; }}
http {{
access_log off;
client_body_temp_path {d}/body; proxy_temp_path {d}/proxy; fastcgi_temp_path {d}/fastcgi;
uwsgi_temp_path {d}/uwsgi; scgi_temp_path {d}/scgi;
include {d}/more.conf;
{http}
server {{
    listen 127.0.0.1:{port};
    {server}
    location / {{ return 200 $remote_addr; }}
}}
}}
"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    fs::write(dir.join("more.conf"), "").unwrap();
    fs::write(dir.join("banned.conf"), "").unwrap();
    Server::start(
        dir,
        port,
        &["/usr/sbin/nginx", "-c", &format!("{d}/nginx.conf"), "-e", &format!("{d}/error.log")],
    )
}

fn sink(dir: &Path, more: &str) -> String {
    let d = dir.display();
    let nginx = format!("/usr/sbin/nginx, -c, {d}/nginx.conf, -e, {d}/error.log");
    format!(
        "  map: {{ path: {d}/banned.conf, interval: 1s, test: [{nginx}, -t], reload: [{nginx}, -s, reload], {more} }}"
    )
}

#[test]
fn who_is_banned_gets_nothing_others_pass_and_an_unban_restores() {
    let dir = directory();
    let server = nginx(dir.path(), "nginx http");
    let mut sinks = start(&sink(dir.path(), "format: nginx-geo"), dir.path());
    let map = names(&["map"]);
    let told = || sinks.value().to_string();
    let text = || fs::read_to_string(dir.path().join("banned.conf")).unwrap();
    assert_eq!(server.page("192.0.2.1"), (200, "192.0.2.1".to_owned()), "the real client is seen");
    sinks.ban(&map, net("192.0.2.1"), &want(1));
    sinks.ban(&map, net("192.0.2.1"), &want(2));
    sinks.ban(&map, net("2001:db8:0:1::/64"), &want(1));
    sinks.ban(&map, net("198.51.100.0/24"), &want(1));
    for (address, code) in [
        ("192.0.2.1", 444),
        ("2001:db8:0:1:a:b:c:d", 444),
        ("2001:db8:0:2::1", 200),
        ("198.51.100.255", 444),
        ("192.0.2.10", 200),
        ("::ffff:192.0.2.1", 444),
    ] {
        server.expect(address, code, told);
    }
    // One of two jails.
    sinks.unban(&map, net("192.0.2.1"), JailId(1));
    sinks.unban(&map, net("2001:db8:0:1::/64"), JailId(1));
    server.expect("2001:db8:0:1:a:b:c:d", 200, told);
    // A worker of before the reload may still answer for a moment.
    server.expect("192.0.2.1", 444, told);
    until(told, || text().contains("192.0.2.1/32 1;") && !text().contains("2001:"));
    sinks.unban(&map, net("192.0.2.1"), JailId(2));
    server.expect("192.0.2.1", 200, told);
    server.expect("198.51.100.7", 444, told);
    until(told, || status(&sinks, "map")["state"] == "ok");
    let shown = status(&sinks, "map");
    assert_eq!(
        (&shown["file"]["entries"], &shown["left_out"], &shown["state"]),
        (&1.into(), &0.into(), &"ok".into())
    );
    assert!(shown["reload"]["result"].as_str().unwrap().contains("exit status: 0"), "{shown}");

    // At the end nobody is banned any more, and nobody is waited for.
    assert_eq!(end(&mut sinks), Vec::<String>::new());
    assert_eq!(text(), "# written by stockade; do not edit: it is overwritten\n");
    server.expect("198.51.100.7", 200, text);
}

#[test]
fn a_map_by_text_has_the_addresses_as_nginx_prints_them() {
    let dir = directory();
    let server = nginx(dir.path(), "nginx map");
    // Behind the proxy of the other snippet.
    fs::write(
        dir.path().join("more.conf"),
        "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; map_hash_bucket_size 128;",
    )
    .unwrap();
    let sinks = start(&sink(dir.path(), "format: nginx-map, value: banned"), dir.path());
    let map = names(&["map"]);
    let banned = [
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8:0:1:1:1:1:1",
        "2001:0:0:1::1",
        "2001:db8:1:2:3:4:5:6",
        "2001:db8::1:0:0:1",
        "::1:2:3:4",
        "::192.0.2.7",
        "fe80::",
    ];
    banned.iter().for_each(|address| sinks.ban(&map, net(address), &want(1)));
    sinks.ban(&map, net("2001:db8:7::/64"), &want(1));
    for address in banned.iter().chain(&["::ffff:192.0.2.1", "2001:DB8:0:0:0:0:0:1"]) {
        server.expect(address, 444, || sinks.value().to_string());
    }
    assert_eq!(server.page("2001:db8::2"), (200, "2001:db8::2".to_owned()));
    assert_eq!(server.visit("2001:db8:7::1"), 200);
    assert_eq!(status(&sinks, "map")["left_out"], 1);
}

#[test]
fn what_nginx_cannot_read_is_taken_back_and_tried_again() {
    let dir = directory();
    let server = nginx(dir.path(), "nginx http");
    let sinks = start(&sink(dir.path(), "format: nginx-geo"), dir.path());
    let map = names(&["map"]);
    let told = || sinks.value().to_string();
    let file = || fs::read_to_string(dir.path().join("banned.conf")).unwrap();
    sinks.ban(&map, net("192.0.2.1"), &want(1));
    server.expect("192.0.2.1", 444, told);
    until(told, || status(&sinks, "map")["state"] == "ok");
    let good = file();
    let reloads = status(&sinks, "map")["reloads"].clone();

    fs::write(dir.path().join("more.conf"), "nonsense on;").unwrap();
    sinks.ban(&map, net("192.0.2.2"), &want(1));
    until(told, || status(&sinks, "map")["state"] == "failing");
    let error = status(&sinks, "map")["last_error"]["message"].as_str().unwrap().to_owned();
    assert!(
        error.contains("-t` failed: exit status: 1: ") && error.contains("unknown directive \"nonsense\""),
        "{error}"
    );
    assert!(error.ends_with("banned.conf is the last good one again"), "{error}");
    assert_eq!((file(), &status(&sinks, "map")["reloads"]), (good, &reloads), "it was reloaded");
    // It runs on with the last good one.
    server.expect("192.0.2.1", 444, told);
    assert_eq!(server.visit("192.0.2.2"), 200);
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.contains(".stockade-")), "{names:?}");

    fs::write(dir.path().join("more.conf"), "").unwrap();
    server.expect("192.0.2.2", 444, told);
    until(told, || status(&sinks, "map")["state"] == "ok");
}

#[test]
fn where_nginx_does_not_run_the_last_good_file_stays() {
    let dir = directory();
    let mut server = nginx(dir.path(), "nginx http");
    server.stop();
    let sinks = start(&sink(dir.path(), "format: nginx-geo"), dir.path());
    sinks.ban(&names(&["map"]), net("192.0.2.1"), &want(1));
    let error = || status(&sinks, "map")["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    until(|| sinks.value().to_string(), || error().contains("-s reload` failed: exit status: 1: "));
    assert!(!fs::read_to_string(dir.path().join("banned.conf")).unwrap().contains("192.0.2.1"));
}

#[test]
fn ten_thousand_bans_are_one_file() {
    let dir = directory();
    let server = nginx(dir.path(), "nginx http");
    let sinks = start(&sink(dir.path(), "format: nginx-geo"), dir.path());
    for n in 0..10_000 {
        sinks.ban(&names(&["map"]), net(&format!("10.1.{}.{}", n / 256, n % 256)), &want(1));
    }
    server.expect("10.1.39.15", 444, || status(&sinks, "map").to_string());
    server.expect("10.1.0.0", 444, || status(&sinks, "map").to_string());
    assert_eq!(server.visit("10.1.39.16"), 200);
}
