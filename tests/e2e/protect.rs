//! Nobody who must not be locked out is banned: by hand it is refused, by a log it is told.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::SOON;
use crate::world::{INNOCENT4, OFFENDER4, OFFENDER6, SERVER4, SERVER6, World, eventually, ip, text};

/// `self` is not in ignoreip: what protects is what the host is, not what the configuration says.
const JAIL: &str = "
jails:
  app:
    filter: app
    logpath: DIR/app.log
    from: start
    maxretry: 3
    findtime: 60s
    bantime: 1h
filters:
  app: { failregex: '^refused <HOST>$' }
";

fn configure(world: &World) {
    let dir = world.dir().to_str().unwrap();
    let jail = JAIL.replace("DIR", dir);
    let paths = format!(
        "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\nignoreip: [loopback]\ntrusted_proxies: [loopback]\n"
    );
    world.write("config.yaml", &format!("{paths}headers: {{ matcher: off, proxy_protocol: false }}\n{jail}"));
}

fn offend(world: &World, who: &str) {
    let path = world.dir().join("app.log");
    let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
    log.write_all(format!("refused {who}\n").repeat(3).as_bytes()).unwrap();
}

fn jail(world: &World) -> Value {
    let status = world.stockade(&["status", "--json"]);
    serde_json::from_slice::<Value>(&status.stdout).unwrap()["jails"][0].clone()
}

/// Who is banned, sorted.
fn banned(world: &World) -> Vec<String> {
    let bans = world.stockade(&["bans", "--json"]);
    let bans: Value = serde_json::from_slice(&bans.stdout).unwrap();
    let mut who: Vec<String> =
        bans.as_array().unwrap().iter().map(|ban| ban["offender"].as_str().unwrap().to_owned()).collect();
    who.sort();
    who
}

#[test]
fn the_host_what_it_depends_on_and_who_is_logged_in_are_not_banned() {
    let mut world = World::new();
    let id = std::process::id();
    let server = format!("stockade-s{id}");
    // A gateway, a container network as Docker makes it, and DNS servers; somebody is logged in from INNOCENT4.
    world.server("ip", &["route", "add", "default", "via", "203.0.113.254"]);
    let bridge = "br-0123456789ab";
    ip(&["-n", &server, "link", "add", bridge, "type", "bridge"]);
    ip(&["-n", &server, "addr", "add", "172.18.0.1/16", "dev", bridge]);
    let resolv = world.write("resolv.conf", "nameserver 127.0.0.53\n");
    // The record of a process that lives, and one of a process that does not.
    let sleep = world.on_server("sleep", &["600"]).stdin(Stdio::null()).spawn().unwrap();
    let mut login = Ending(sleep);
    let records = [record(login.0.id(), INNOCENT4), record(4_000_000_000 >> 2, "198.51.100.99")];
    fs::write(world.dir().join("utmp"), records.concat()).unwrap();
    world.write("resolved.conf", "nameserver 198.51.100.53\nnameserver 2001:db8:53::53\n");
    configure(&world);
    let dir = world.dir().to_str().unwrap().to_owned();
    let resolv = resolv.to_str().unwrap();
    // A /run and an /etc/resolv.conf of its own.
    let around = format!(
        "mount --bind {resolv} /etc/resolv.conf && mount -t tmpfs tmpfs /run && cp {dir}/utmp /run/utmp && \
         mkdir -p /run/systemd/resolve && cp {dir}/resolved.conf /run/systemd/resolve/resolv.conf && exec \"$@\""
    );
    world.run_agent_by(&["unshare", "--mount", "sh", "-c", &around, "sh"]);

    let protected = [
        (SERVER4, "203.0.113.1 is this host's own address"),
        (SERVER6, "2001:db8:0:1::1 is this host's own address"),
        ("203.0.113.254", "203.0.113.254 is a gateway of this host"),
        ("198.51.100.53", "198.51.100.53 is a DNS server (/run/systemd/resolve/resolv.conf)"),
        ("2001:db8:53::53", "2001:db8:53::53 is a DNS server (/run/systemd/resolve/resolv.conf)"),
        ("172.18.7.7", "172.18.7.7 lies in the Docker network br-0123456789ab"),
        (INNOCENT4, "203.0.113.77 has a login session of root on pts/0 right now"),
    ];
    for (address, why) in protected {
        let out = world.stockade(&["ban", "app", address]);
        assert_eq!(out.status.code(), Some(1), "{}", text(&out));
        assert_eq!(text(&out), format!("stockade: {why}; use --force to ban it all the same\n"));
    }
    let wide = world.stockade(&["ban", "app", "203.0.112.0/22"]);
    assert!(
        text(&wide).contains("203.0.112.0/22 holds 203.0.113.1, which is this host's own"),
        "{}",
        text(&wide)
    );
    assert!(banned(&world).is_empty());

    // By the log the same ones are spared, told once each, and counted; others are banned.
    for _ in 0..2 {
        protected.iter().for_each(|(address, _)| offend(&world, address));
    }
    offend(&world, OFFENDER4);
    // In the /64 of the host: its address alone.
    offend(&world, "2001:db8:0:1::99");
    offend(&world, "198.51.100.99");
    let all = ["198.51.100.99", "2001:db8:0:1::99", OFFENDER4];
    assert!(eventually(SOON, || banned(&world) == all), "{:?}\n{}", banned(&world), world.agent_log());
    // Of six offenses each, four are the third or later.
    assert_eq!(jail(&world)["refused"], 4 * protected.len(), "{}", jail(&world));
    assert_eq!(jail(&world)["refusals"].as_array().unwrap().len(), 5, "{}", jail(&world));
    let log = world.agent_log();
    for (address, why) in protected {
        let told = format!("not banned: {why}. To ban it all the same: stockade ban app {address} --force");
        assert_eq!(log.matches(&told).count(), 1, "{log}");
    }
    let status = text(&world.stockade(&["status"]));
    assert!(
        status.contains("28 offenses that would have banned somebody who must not be locked out"),
        "{status}"
    );

    // Whose process has ended is not logged in, whatever utmp says.
    login.end();
    let out = world.stockade(&["ban", "app", INNOCENT4]);
    assert!(out.status.success(), "{}", text(&out));

    // Forced is forced, also after a restart; what the agent finds in the kernel and was not forced goes.
    assert!(world.stockade(&["ban", "app", "203.0.113.254", "--force"]).status.success());
    assert!(world.table().contains("203.0.113.254"), "{}", world.table());
    let foreign = "add element inet stockade banned4 { 203.0.113.1 timeout 1h comment \"app, 3 offenses, 2026-01-01T00:00:00Z\" }";
    assert!(world.stockade(&["stop"]).status.success());
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    world.server("nft", &[foreign]);
    world.run_agent();
    assert!(world.table().contains("203.0.113.254"), "{}\n{}", world.table(), world.agent_log());
    assert!(banned(&world).contains(&"203.0.113.254".to_owned()), "{}", world.agent_log());
    assert!(!banned(&world).contains(&SERVER4.to_owned()));
    assert!(
        world
            .agent_log()
            .contains("lifting the ban of 203.0.113.1 in app: 203.0.113.1 is this host's own address"),
        "{}",
        world.agent_log()
    );
}

/// `struct utmp` of utmp(5), as glibc on 64-bit Linux writes it.
fn record(pid: u32, address: &str) -> Vec<u8> {
    let mut bytes = vec![0; 384];
    bytes[0..2].copy_from_slice(&7i16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&pid.to_ne_bytes());
    bytes[8..13].copy_from_slice(b"pts/0");
    bytes[44..48].copy_from_slice(b"root");
    bytes[348..352].copy_from_slice(&address.parse::<std::net::Ipv4Addr>().unwrap().octets());
    bytes
}

/// A child that ends with the test.
struct Ending(Child);

impl Ending {
    fn end(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.end();
    }
}

/// A real sshd on the server, that lets root in by a key, on port 2222.
fn start_sshd(world: &mut World) {
    // This machine has no systemd-logind to tell of sessions.
    world.grant("CAP_SYS_PTRACE");
    let dir = world.dir().to_str().unwrap().to_owned();
    for key in ["host", "user"] {
        let path = format!("{dir}/{key}");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]).status();
        assert!(made.unwrap().success(), "is openssh-server installed? tests/run does that");
    }
    // What sshd demands before it starts.
    fs::create_dir_all("/run/sshd").unwrap();
    let config = format!(
        "Port 2222\nHostKey {dir}/host\nPidFile none\nAuthorizedKeysFile {dir}/user.pub\nStrictModes no\n\
         PermitRootLogin yes\nUsePAM no\nLoginGraceTime 60\nUseDNS no\nClientAliveInterval 5\nClientAliveCountMax 2\n"
    );
    let config = world.write("sshd_config", &config);
    world.start("/usr/sbin/sshd", &["-D", "-e", "-f", config.to_str().unwrap()], "sshd.log");
}

/// ssh(1) from one of the client's addresses.
fn ssh(world: &World, source: &str, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("stockade-c{}", std::process::id()), "ssh", "-p", "2222", "-i"]);
    command.arg(world.dir().join("user")).args(["-b", source]);
    for option in
        ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"]
    {
        command.args(["-o", option]);
    }
    command.arg(format!("root@{}", if source.contains(':') { SERVER6 } else { SERVER4 })).args(args);
    command
}

/// Somebody who guesses passwords has an established connection, too.
#[test]
fn who_is_logged_in_by_ssh_is_not_banned_and_who_only_connects_is() {
    let mut world = World::new();
    configure(&world);
    start_sshd(&mut world);
    world.run_agent();
    let logged_in = eventually(SOON, || ssh(&world, OFFENDER4, &["true"]).output().unwrap().status.success());
    assert!(logged_in, "{}", fs::read_to_string(world.dir().join("sshd.log")).unwrap());

    // A connection that has not proved who it is.
    let mut guess = Command::new("ip");
    guess.args(["netns", "exec", &format!("stockade-c{}", std::process::id()), "bash", "-c"]);
    guess.arg(format!("exec 3<>/dev/tcp/{SERVER4}/2222 && read -r -u 3 line && echo \"$line\" && sleep 600"));
    let mut guessing = Ending(guess.stdout(Stdio::piped()).spawn().unwrap());
    let mut banner = [0; 4];
    std::io::Read::read_exact(guessing.0.stdout.as_mut().unwrap(), &mut banner).unwrap();
    assert_eq!(&banner, b"SSH-");
    let peer = peer_of_guess(&world);
    offend(&world, &peer);
    assert!(eventually(SOON, || banned(&world) == [peer.as_str()]), "{}\n{}", peer, world.agent_log());
    guessing.end();
    assert!(world.stockade(&["unban", "--all"]).status.success());

    // A session without a terminal, one that only forwards a port, and one over IPv6.
    for (source, args) in
        [(OFFENDER4, &["sleep", "600"][..]), (OFFENDER6, &["sleep", "600"]), (INNOCENT4, &["-N"])]
    {
        let args: Vec<&str> = args.to_vec();
        // `-N` is an option: it stands before the host.
        let mut command =
            if args == ["-N"] { with_option(ssh(&world, source, &[])) } else { ssh(&world, source, &args) };
        let mut session = Ending(command.stdin(Stdio::null()).spawn().unwrap());
        // As sshd itself shows that it has let somebody in.
        let title = if args == ["-N"] { "sshd: root" } else { "sshd: root@notty" };
        let known = eventually(SOON, || has_process(title));
        assert!(known, "{}", fs::read_to_string(world.dir().join("sshd.log")).unwrap());
        let out = world.stockade(&["ban", "app", source]);
        let refused = format!(
            "{source} has a login session of root on ssh right now; use --force to ban it all the same"
        );
        assert!(text(&out).contains(&refused), "{}\n{}", text(&out), world.agent_log());
        offend(&world, source);
        let told = format!("not banned: {source} has a login session of root on ssh right now");
        assert!(eventually(SOON, || world.agent_log().contains(&told)), "{}", world.agent_log());
        assert!(banned(&world).is_empty(), "{:?}", banned(&world));
        session.end();
        // Who has logged out may be banned.
        let gone = eventually(SOON, || world.stockade(&["ban", "app", source]).status.success());
        assert!(gone, "{}", text(&world.stockade(&["ban", "app", source])));
        // Until somebody logs in from there again; a ban of other ports does not keep them from it.
        assert!(world.stockade(&["unban", "--all"]).status.success());
    }
}

/// Whether such a process runs on the server, of all those on this machine.
fn has_process(title: &str) -> bool {
    let server = format!("stockade-s{}", std::process::id());
    let pids = Command::new("ip").args(["netns", "pids", &server]).output().unwrap();
    let line = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text(&pids).lines().any(|pid| line(pid).split('\0').next() == Some(title))
}

fn with_option(command: Command) -> Command {
    let mut args: Vec<std::ffi::OsString> = command.get_args().map(ToOwned::to_owned).collect();
    args.insert(args.len() - 1, "-N".into());
    let mut with = Command::new(command.get_program());
    with.args(args);
    with
}

/// The address that bash chose for its connection.
fn peer_of_guess(world: &World) -> String {
    let table = world.server("ss", &["-Htn", "state", "established", "sport", "=", ":2222"]);
    let peer = table.split_whitespace().last().unwrap_or_else(|| panic!("no connection: {table}"));
    peer.rsplit_once(':').unwrap().0.to_owned()
}

/// A ban of web ports does not keep somebody from logging in; who does is let in everywhere.
#[test]
fn who_logs_in_is_let_in() {
    let mut world = World::new();
    configure(&world);
    let config = fs::read_to_string(world.dir().join("config.yaml")).unwrap();
    world.write("config.yaml", &config.replace("    bantime: 1h", "    bantime: 1h\n    ports: [80]"));
    start_sshd(&mut world);
    world.run_agent();
    offend(&world, OFFENDER4);
    assert!(eventually(SOON, || banned(&world) == [OFFENDER4]), "{}", world.agent_log());
    let mut session = Ending(ssh(&world, OFFENDER4, &["sleep", "600"]).stdin(Stdio::null()).spawn().unwrap());
    // Whatever makes the agent look: here, an offense of somebody else.
    let lifted = eventually(SOON * 2, || {
        offend(&world, "198.51.100.1");
        std::thread::sleep(Duration::from_millis(300));
        !banned(&world).contains(&OFFENDER4.to_owned())
    });
    assert!(lifted, "{}", world.agent_log());
    assert!(!world.table().contains(OFFENDER4), "{}", world.table());
    let told = "lift the ban of 203.0.113.66: 203.0.113.66 has a login session of root on ssh right now";
    assert!(world.agent_log().contains(told), "{}", world.agent_log());
    session.end();
}
