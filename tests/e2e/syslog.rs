//! Messages of syslog, from the programs that send them: logger(1) and nginx.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;

use crate::journal::status;
use crate::world::{INNOCENT4, OFFENDER4, World, eventually, text};
use crate::{SOON, nginx};

fn failed(address: &str) -> String {
    format!("Failed password for root from {address} port 40022 ssh2")
}

fn logger(world: &World, args: &[&str], message: &str) {
    let out = world.on_server("logger", args).args(["--tag", "sshd", "--id=12", message]).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
}

fn listening(world: &World) -> Value {
    status(world)["jails"][0]["listen"][0].clone()
}

fn until_listening(world: &World) {
    assert!(eventually(SOON, || listening(world)["listening"] == true), "{}", world.agent_log());
}

#[test]
fn what_logger_sends_bans() {
    let mut world = World::new();
    nginx::start(&mut world);
    world.start_agent(
        "
jails:
  sshd: { listen: [udp://127.0.0.1:5514, unix://DIR/syslog.sock], maxretry: 4, bantime: 1h }
",
    );
    until_listening(&world);
    let path = world.dir().join("syslog.sock");
    assert!(eventually(SOON, || path.exists()));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o666);
    let socket = path.to_str().unwrap();
    let udp = ["--udp", "--server", "127.0.0.1", "--port", "5514"];
    // A message is one line, whatever stands in it.
    let forged = format!("<38>{} vm sshd[1]: {}", jiff::Timestamp::now(), failed(INNOCENT4));
    let sender = UnixDatagram::unbound().unwrap();
    for _ in 0..5 {
        sender.send_to(format!("<38>Nov 21 07:00:00 sshd[1]: Accepted\n{forged}").as_bytes(), &path).unwrap();
        sender.send_to(format!("<38>Nov 21 07:00:00 app: {forged}").as_bytes(), &path).unwrap();
    }
    logger(&world, &[&udp[..], &["--rfc3164"]].concat(), &failed(OFFENDER4));
    logger(&world, &[&udp[..], &["--rfc5424"]].concat(), &failed(OFFENDER4));
    logger(&world, &["--socket", socket], &failed(OFFENDER4));
    assert!(eventually(SOON, || status(&world)["jails"][0]["offenses"] == 3), "{:#}", status(&world));
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "three offenses are not four");
    logger(&world, &["--socket", socket], &failed(OFFENDER4));
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/").is_none()), "{}", world.agent_log());
    assert!(!world.table().contains(INNOCENT4), "{}", world.table());
    // The listeners' threads tell about themselves once a second.
    let told = || text(&world.stockade(&["status"])).contains("listen    udp://127.0.0.1:5514: 2 messages\n");
    assert!(eventually(SOON, told), "{}", text(&world.stockade(&["status"])));
    assert!(world.stockade(&["stop"]).status.success());
    assert!(eventually(SOON, || !path.exists()), "the socket's file stays");
}

#[test]
fn what_nginx_sends_bans() {
    let mut world = World::new();
    let dir = world.dir().display().to_string();
    let config = format!(
        "pid {dir}/nginx.pid; error_log {dir}/nginx_error.log; worker_processes 1; user root;
events {{ worker_connections 64; }}
http {{ {}
server {{
    listen 80;
    set $server \"-\";
    access_log syslog:server=127.0.0.1:5514,tag=npm,nohostname proxy;
    access_log syslog:server=unix:{dir}/syslog.sock,facility=auth combined;
    location = / {{ return 200 'hello'; }}
    location / {{ return 404; }}
}} }}",
        nginx::FORMATS
    );
    let config = world.write("nginx.conf", &config);
    world.start_agent(
        "
jails:
  npm: { filter: npm-404, listen: udp://127.0.0.1:5514, maxretry: 5, findtime: 60s, bantime: 1h }
  mine: { filter: mine, listen: DIR/syslog.sock, render: message, maxretry: 1000 }
  shaped: { filter: shaped, listen: DIR/syslog.sock, maxretry: 1000 }
filters:
  mine: { failregex: '^<HOST> - - .* 404 ' }
  shaped: { failregex: '^\\S+ nginx: <HOST> - - ' }
",
    );
    until_listening(&world);
    assert!(eventually(SOON, || world.dir().join("syslog.sock").exists()));
    world.start("nginx", &["-c", config.to_str().unwrap(), "-g", "daemon off;"], "nginx.out");
    assert!(eventually(SOON, || world.visit(INNOCENT4, "/") == Some(200)));
    assert_eq!(crate::visits_until_blocked(&world, OFFENDER4), 5, "{}", world.agent_log());
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
    let seen = eventually(SOON, || {
        let jails = status(&world)["jails"].clone();
        jails[1]["offenses"] == 5 && jails[2]["offenses"].as_u64() >= Some(6)
    });
    assert!(seen, "patterns are given what `render` says: {:#}", status(&world));
}

#[test]
fn a_reload_loses_no_message() {
    let mut world = World::new();
    let jail = "jails:\n  sshd: { listen: [udp://127.0.0.1:5514], maxretry: 100000 }\n";
    world.start_agent(jail);
    until_listening(&world);
    // In the server's namespace: a shell that sends as fast as it can in one connection.
    let script = format!(
        "for n in $(seq 2000); do echo \"<38>Nov 21 07:00:00 vm sshd[1]: {}\"; done >/dev/udp/127.0.0.1/5514",
        failed(OFFENDER4)
    );
    let mut sender = world.on_server("bash", &["-c", &script]).spawn().unwrap();
    for n in 0..10 {
        world.configure(&jail.replace("100000", &format!("10000{n}")));
        let out = world.stockade(&["reload"]);
        assert!(out.status.success(), "{}", text(&out));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(sender.wait().unwrap().success());
    let all = eventually(SOON, || listening(&world)["received"] == 2000);
    assert!(all, "{:#}", listening(&world));
    assert_eq!(status(&world)["jails"][0]["offenses"], 2000);
    // A place that is no longer named is free again.
    world.configure(&jail.replace("5514", "5515"));
    assert!(world.stockade(&["reload"]).status.success());
    assert!(
        eventually(SOON, || listening(&world)["address"] == "udp://127.0.0.1:5515"),
        "{:#}",
        listening(&world)
    );
    let log = world.agent_log();
    assert_eq!(log.matches("listening at udp://127.0.0.1:5514").count(), 1, "{log}");
}

#[test]
fn a_place_that_is_taken_is_told_and_taken_later() {
    let mut world = World::new();
    let path = world.dir().join("syslog.sock");
    let other = UnixDatagram::bind(&path).unwrap();
    world.start_agent(
        "jails:\n  sshd: { listen: [DIR/syslog.sock], maxretry: 1 }\nsyslog: { mode: '0600' }\n",
    );
    let told = eventually(SOON, || {
        listening(&world)["problem"]
            .as_str()
            .is_some_and(|p| p.contains("another program listens there already"))
    });
    assert!(told, "{:#}", listening(&world));
    drop(other);
    until_listening(&world);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(format!("<38>sshd[1]: {}", failed(OFFENDER4)).as_bytes(), &path).unwrap();
    assert!(eventually(SOON, || world.table().contains(OFFENDER4)), "{}", world.agent_log());
    // Somebody cleans up.
    std::fs::remove_file(&path).unwrap();
    assert!(eventually(SOON, || path.exists()), "{}", world.agent_log());
}

#[test]
fn others_may_send_only_where_it_says_so() {
    let mut world = World::new();
    let open = format!("jails:\n  sshd: {{ listen: 'udp://{}:5514', maxretry: 1 }}\n", crate::world::SERVER4);
    world.configure(&open);
    let out = world.stockade(&["check"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(text(&out).contains("can be reached from elsewhere"), "{}", text(&out));
    world.start_agent(&format!("syslog: {{ senders: [{INNOCENT4}] }}\n{open}"));
    until_listening(&world);
    for from in [OFFENDER4, INNOCENT4] {
        let message = format!("<38>sshd[1]: {}", failed("198.51.100.7"));
        world.on_client(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(message.as_bytes(), (crate::world::SERVER4, 5514)).unwrap();
        });
        assert!(eventually(SOON, || listening(&world)["received"].as_u64() >= Some(1)));
        let banned = eventually(Duration::from_millis(if from == OFFENDER4 { 300 } else { 5000 }), || {
            world.table().contains("198.51.100.7")
        });
        assert_eq!(banned, from == INNOCENT4, "{from}: {:#}", listening(&world));
    }
    assert_eq!(listening(&world)["refused"], 1);
}
