//! A proxy, an application behind it, and the agent's host between them.
//!
//! ```text
//! visitor ──── proxy ──── host ──── app
//!                └── a bridge on the host ──┘
//! ```
//! Visitors reach the proxy past the host, so that only the proxy's packets pass it, in which the visitor is in the head.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::world::{eventually, ip, text};

/// The application as the proxy reaches it: routed through the host, and on the host's bridge.
pub(crate) const ROUTED4: &str = "10.2.0.2";
pub(crate) const ROUTED6: &str = "fd00:2::2";
pub(crate) const BRIDGED4: &str = "10.3.0.2";
pub(crate) const BRIDGED6: &str = "fd00:3::2";
/// The host itself, which has an application too.
pub(crate) const HOST4: &str = "10.1.0.1";

/// Where visitors come to the proxy, and the ports at which it passes them on to each of the above.
const PROXY4: &str = "203.0.113.1";
const PROXY6: &str = "2001:db8:0:1::1";
pub(crate) const WAYS: [(&str, u16); 4] =
    [(ROUTED4, 8001), (ROUTED6, 8002), (BRIDGED4, 8003), (BRIDGED6, 8004)];

/// So long an answer is waited for; an application in the next namespace takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(400);

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Reset,
    Silence,
}

pub(crate) struct Hops {
    names: [String; 4],
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Hops {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the end-to-end tests make network namespaces: run tests/run as root"
        );
        let id = std::process::id();
        let names = ["v", "p", "h", "a"].map(|name| format!("stockade-{name}{id}"));
        let hops = Self { names, dir: tempfile::tempdir().unwrap(), children: Vec::new() };
        let [visitor, proxy, host, app] = hops.names.each_ref().map(String::as_str);
        for name in &hops.names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        wire(visitor, "v0", proxy, "v1");
        wire(proxy, "p0", host, "p1");
        wire(app, "a0", host, "a1");
        wire(proxy, "b0", host, "b1");
        wire(app, "c0", host, "c1");
        ip(&["-n", host, "link", "add", "br0", "type", "bridge"]);
        for port in ["b1", "c1"] {
            ip(&["-n", host, "link", "set", port, "master", "br0"]);
        }
        ip(&["-n", host, "link", "set", "br0", "up"]);
        for (name, device, addresses) in [
            (proxy, "v1", &[PROXY4, PROXY6][..]),
            (visitor, "v0", &["203.0.113.66", "203.0.113.77", "2001:db8:0:66::1", "2001:db8:0:77::1"]),
            (proxy, "p0", &["10.1.0.2", "fd00:1::2"]),
            (host, "p1", &[HOST4, "fd00:1::1"]),
            (host, "a1", &["10.2.0.1", "fd00:2::1"]),
            (app, "a0", &[ROUTED4, ROUTED6]),
            (host, "br0", &["10.3.0.1", "fd00:3::1"]),
            (proxy, "b0", &["10.3.0.3", "fd00:3::3"]),
            (app, "c0", &[BRIDGED4, BRIDGED6]),
        ] {
            for address in addresses {
                let length = match (address.contains(':'), address.starts_with("2001:")) {
                    (true, true) => 32,
                    (true, false) => 64,
                    (false, _) => 24,
                };
                let address = format!("{address}/{length}");
                // A duplicate address check would delay IPv6 by seconds.
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                ip(&[&["-n", name, "addr", "add", &address, "dev", device], nodad].concat());
            }
        }
        for (name, to, via) in [
            (proxy, "10.2.0.0/24", "10.1.0.1"),
            (proxy, "fd00:2::/64", "fd00:1::1"),
            (app, "10.1.0.0/24", "10.2.0.1"),
            (app, "fd00:1::/64", "fd00:2::1"),
        ] {
            ip(&["-n", name, "route", "add", to, "via", via]);
        }
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            hops.set(setting, 1);
        }
        hops
    }

    /// A private directory, gone with the namespaces.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sets what sysctl(8) sets, on the host.
    pub(crate) fn set(&self, setting: &str, value: u8) {
        inside(&self.names[2], || fs::write(format!("/proc/sys/{setting}"), value.to_string()).unwrap());
    }

    fn command(&self, name: &str, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, program]).args(args);
        command.env("TZ", "UTC").env("STOCKADE_CONFIG", self.dir().join("config.yaml"));
        command
    }

    fn start(&mut self, name: usize, program: &str, args: &[&str], log: &str) {
        let log = File::create(self.dir().join(log)).unwrap();
        let mut command = self.command(&self.names[name], program, args);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.children.push(command.spawn().unwrap());
    }

    /// Runs a command on the host and requires it to succeed.
    pub(crate) fn host(&self, program: &str, args: &[&str]) -> String {
        let out = self.command(&self.names[2], program, args).output().unwrap();
        assert!(out.status.success(), "{program} {args:?}: {}", text(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    pub(crate) fn stockade(&self, args: &[&str]) -> Output {
        self.command(&self.names[2], env!("CARGO_BIN_EXE_stockade"), args).output().unwrap()
    }

    /// Runs the program and requires it to succeed.
    pub(crate) fn said(&self, args: &[&str]) -> String {
        self.host(env!("CARGO_BIN_EXE_stockade"), args)
    }

    pub(crate) fn ban(&self, offenders: &[&str]) {
        self.said(&[&["ban", "web"], offenders].concat());
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.said(&["status", "--json"])).unwrap()
    }

    /// Starts a real nginx as the application, as one of the host's own, and as the proxy.
    pub(crate) fn start_nginx(&mut self) {
        let app = "server { listen 80; listen [::]:80; listen 8080 proxy_protocol; listen [::]:8080 proxy_protocol; \
                   location / { return 200 hello; } }";
        let mut proxy = String::new();
        for (to, port) in WAYS {
            let to = if to.contains(':') { format!("[{to}]") } else { to.to_owned() };
            proxy.push_str(&format!(
                "server {{ listen {PROXY4}:{port}; listen [{PROXY6}]:{port}; location / {{ proxy_pass http://{to}:80; \
                 proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
                 proxy_read_timeout 300ms; proxy_next_upstream off; }} }}\n"
            ));
        }
        for (name, which, servers) in [(3, "app", app), (2, "own", app), (1, "proxy", proxy.as_str())] {
            let dir = self.dir().join(which);
            fs::create_dir(&dir).unwrap();
            let dir = dir.display();
            let config = format!(
                "pid {dir}/pid; error_log {dir}/error.log; worker_processes 1; user root;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;
uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5; large_client_header_buffers 4 16k;
{servers} }}"
            );
            let path = self.dir().join(format!("{which}.conf"));
            fs::write(&path, config).unwrap();
            self.start(
                name,
                "nginx",
                &["-c", path.to_str().unwrap(), "-g", "daemon off;"],
                &format!("{which}.out"),
            );
        }
        let up = eventually(Duration::from_secs(10), || {
            WAYS.iter().all(|(_, port)| self.visit("203.0.113.77", *port) == 200)
                && self.request(HOST4, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == Outcome::Answered
        });
        assert!(up, "nginx does not answer: {}", fs::read_to_string(self.dir().join("proxy.out")).unwrap());
    }

    /// Starts the agent on the host with this in its configuration, and waits until it answers.
    pub(crate) fn start_agent(&mut self, headers: &str) {
        self.configure(headers);
        self.run_agent();
    }

    pub(crate) fn run_agent(&mut self) {
        self.run_agent_as(&[]);
    }

    /// The same, by way of another program.
    pub(crate) fn run_agent_as(&mut self, by: &[&str]) {
        let command = [by, &[env!("CARGO_BIN_EXE_stockade"), "run"]].concat();
        self.start(2, command[0], &command[1..], "agent.log");
        let answered = eventually(Duration::from_secs(10), || self.stockade(&["ping"]).status.success());
        assert!(answered, "the agent does not answer:\n{}", self.agent_log());
    }

    /// Writes the configuration: a jail of all ports, and one of some.
    pub(crate) fn configure(&self, headers: &str) {
        let dir = self.dir().display();
        let jail = "filter: npm-404, logpath: /var/log/stockade-none.log, bantime: 1h";
        let config = format!(
            "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\nignoreip: [loopback]\n{headers}\n\
             jails:\n  web: {{ {jail} }}\n  some: {{ {jail}, ports: [81] }}\n"
        );
        fs::write(self.dir().join("config.yaml"), config).unwrap();
    }

    /// Kills the agent, which has no time to say good-bye.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.children.pop().unwrap();
        // `ip netns exec` becomes the program it runs.
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub(crate) fn agent_log(&self) -> String {
        fs::read_to_string(self.dir().join("agent.log")).unwrap_or_default()
    }

    /// Everything there is to see when a test fails.
    pub(crate) fn seen(&self) -> String {
        let tables = self.command(&self.names[2], "nft", &["list", "ruleset"]).output().unwrap();
        format!("{}\n{}", text(&tables), self.agent_log())
    }

    /// One request of a visitor through the proxy; the status code.
    pub(crate) fn visit(&self, source: &str, port: u16) -> u16 {
        let host = if source.contains(':') { format!("[{PROXY6}]") } else { PROXY4.to_owned() };
        let url = format!("http://{host}:{port}/");
        let args = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "2", "--interface", source, &url];
        let out = self.command(&self.names[0], "curl", &args).output().unwrap();
        String::from_utf8(out.stdout).unwrap().parse().unwrap()
    }

    /// Sends this from the proxy to port 80, as one segment where it fits one.
    pub(crate) fn request(&self, to: &str, head: &[u8]) -> Outcome {
        inside(&self.names[1], || exchange(to, 80, &[head]))
    }

    /// The same, one request after the other on one connection.
    pub(crate) fn requests(&self, to: &str, heads: &[&[u8]]) -> Vec<Outcome> {
        inside(&self.names[1], || {
            let mut stream = connect(to, 80);
            heads.iter().map(|head| ask(&mut stream, &[head])).collect()
        })
    }

    /// The same, in several segments.
    pub(crate) fn request_in_parts(&self, to: &str, parts: &[&[u8]]) -> Outcome {
        inside(&self.names[1], || exchange(to, 80, parts))
    }

    /// The same to port 8080, which speaks the PROXY protocol.
    pub(crate) fn request_by_proxy_protocol(&self, to: &str, head: &[u8]) -> Outcome {
        inside(&self.names[1], || exchange(to, 8080, &[head]))
    }

    /// From the host, as a proxy on it would.
    pub(crate) fn request_from_host(&self, to: &str, head: &[u8]) -> Outcome {
        inside(&self.names[2], || exchange(to, 80, &[head]))
    }
}

impl Drop for Hops {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Ok(pid) = i32::try_from(child.id()) {
                // SIGTERM, so that nginx takes its workers along.
                let _gone = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGTERM,
                );
            }
            drop(child.wait());
        }
        for name in &self.names {
            drop(Command::new("ip").args(["netns", "del", name]).status());
        }
    }
}

fn wire(a: &str, device_a: &str, b: &str, device_b: &str) {
    ip(&["-n", a, "link", "add", device_a, "type", "veth", "peer", "name", device_b, "netns", b]);
    ip(&["-n", a, "link", "set", device_a, "up"]);
    ip(&["-n", b, "link", "set", device_b, "up"]);
}

/// Does this in a namespace, in a thread of its own: others stay where they are.
fn inside<T: Send>(name: &str, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = File::open(format!("/run/netns/{name}")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            what()
        });
        thread.join().unwrap()
    })
}

fn exchange(to: &str, port: u16, parts: &[&[u8]]) -> Outcome {
    ask(&mut connect(to, port), parts)
}

fn connect(to: &str, port: u16) -> TcpStream {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, parts: &[&[u8]]) -> Outcome {
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Err(e) = stream.write_all(part) {
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}");
            return Outcome::Reset;
        }
    }
    let mut answer = [0; 1024];
    match stream.read(&mut answer) {
        Ok(n) => {
            let text = String::from_utf8_lossy(&answer[..n]);
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            Outcome::Answered
        }
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Outcome::Reset,
        Err(e) => {
            assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}");
            Outcome::Silence
        }
    }
}
