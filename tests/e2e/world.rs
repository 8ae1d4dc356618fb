//! Two hosts on one wire: a server with the agent on it, and a client with several addresses.
//!
//! Each world has its own pair of network namespaces, named after the process, and removes them again. Nothing is
//! sent anywhere but over their veth pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::confined;

/// The server's addresses.
pub(crate) const SERVER4: &str = "203.0.113.1";
pub(crate) const SERVER6: &str = "2001:db8:0:1::1";
/// The client's addresses: one that offends, one that does not. The IPv6 ones are in different /64 networks.
pub(crate) const OFFENDER4: &str = "203.0.113.66";
pub(crate) const INNOCENT4: &str = "203.0.113.77";
pub(crate) const OFFENDER6: &str = "2001:db8:0:66::1";
pub(crate) const NEIGHBOUR6: &str = "2001:db8:0:66::2";
pub(crate) const INNOCENT6: &str = "2001:db8:0:77::1";

pub(crate) struct World {
    server: String,
    client: String,
    dir: tempfile::TempDir,
    children: Vec<Child>,
    /// Drop-ins of the unit, and capabilities, that the agent is given besides.
    with: Vec<String>,
}

impl World {
    /// Makes the namespaces. Fails loudly where that is not possible: these tests are never skipped.
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the end-to-end tests make network namespaces: run tests/run as root"
        );
        let id = std::process::id();
        let world = Self {
            server: format!("stockade-s{id}"),
            client: format!("stockade-c{id}"),
            dir: tempfile::tempdir().unwrap(),
            children: Vec::new(),
            with: Vec::new(),
        };
        let (server, client) = (world.server.as_str(), world.client.as_str());
        let (wire_s, wire_c) = (format!("ss{id}"), format!("sc{id}"));
        for namespace in [server, client] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        ip(&["-n", server, "link", "add", &wire_s, "type", "veth", "peer", "name", &wire_c, "netns", client]);
        // A duplicate address check would delay IPv6 by seconds.
        for (namespace, wire, addresses) in [
            (server, &wire_s, vec![format!("{SERVER4}/24"), format!("{SERVER6}/32")]),
            (
                client,
                &wire_c,
                vec![
                    format!("{OFFENDER4}/24"),
                    format!("{INNOCENT4}/24"),
                    format!("{OFFENDER6}/32"),
                    format!("{NEIGHBOUR6}/32"),
                    format!("{INNOCENT6}/32"),
                ],
            ),
        ] {
            ip(&["-n", namespace, "link", "set", wire, "up"]);
            for address in &addresses {
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                ip(&[&["-n", namespace, "addr", "add", address, "dev", wire], nodad].concat());
            }
        }
        world
    }

    /// A private directory, gone with the world.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server's network namespace.
    pub(crate) fn server_name(&self) -> &str {
        &self.server
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A command that will run on the server.
    pub(crate) fn on_server(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.server, program]).args(args);
        command
    }

    /// Runs a command on the server and requires it to succeed.
    pub(crate) fn server(&self, program: &str, args: &[&str]) -> String {
        let out = self.on_server(program, args).output().unwrap();
        assert!(out.status.success(), "{program} {args:?}: {}", text(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Starts something on the server that ends with the world.
    pub(crate) fn start(&mut self, program: &str, args: &[&str], log: &str) {
        let command = self.on_server(program, args);
        self.spawn(command, log);
    }

    /// The same for what needs control groups, which `ip netns exec` hides; its process.
    pub(crate) fn start_with_groups(&mut self, program: &str, args: &[&str], log: &str) -> u32 {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.server)).arg(program).args(args);
        self.spawn(command, log)
    }

    fn spawn(&mut self, mut command: Command, log: &str) -> u32 {
        let log = fs::File::create(self.dir().join(log)).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// One request from `source`; the status code, or `None` when no connection comes about within a second.
    pub(crate) fn visit(&self, source: &str, path: &str) -> Option<u16> {
        self.visit_for(source, path, None)
    }

    /// The same for a `source` that is a proxy and speaks for somebody.
    pub(crate) fn visit_for(&self, source: &str, path: &str, client: Option<&str>) -> Option<u16> {
        let host = if source.contains(':') { format!("[{SERVER6}]") } else { SERVER4.to_owned() };
        let out = Command::new("ip")
            .args(["netns", "exec", &self.client, "curl", "--silent", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}", "--max-time", "1", "--interface", source])
            .args(
                client
                    .iter()
                    .flat_map(|client| ["--header".to_owned(), format!("X-Forwarded-For: {client}")]),
            )
            .arg(format!("http://{host}{path}"))
            .output()
            .unwrap();
        let code: u16 = String::from_utf8(out.stdout).unwrap().parse().unwrap();
        (code != 0).then_some(code)
    }

    /// Does something in a thread that is on the client.
    pub(crate) fn on_client(&self, what: impl FnOnce() + Send + 'static) {
        let namespace = fs::File::open(format!("/run/netns/{}", self.client)).unwrap();
        let there = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            what();
        });
        there.join().unwrap();
    }

    /// Runs the program itself on the server.
    pub(crate) fn stockade(&self, args: &[&str]) -> Output {
        let config = self.dir().join("config.yaml");
        self.on_server(env!("CARGO_BIN_EXE_stockade"), args).env("STOCKADE_CONFIG", config).output().unwrap()
    }

    /// Writes the configuration, starts the agent, and waits until it answers.
    pub(crate) fn start_agent(&mut self, jails: &str) {
        self.configure(jails);
        self.run_agent();
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, jails: &str) {
        let dir = self.dir().to_str().unwrap().to_owned();
        let config = format!(
            "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\nignoreip: [loopback, self]\n{}",
            jails.replace("DIR", &dir)
        );
        self.write("config.yaml", &config);
    }

    /// Starts the agent with the configuration that is there.
    pub(crate) fn run_agent(&mut self) {
        self.run_agent_by(&[]);
    }

    /// Gives the agent a drop-in of `packaging/systemd/examples`, or a capability, besides what the unit has.
    pub(crate) fn grant(&mut self, what: &str) {
        self.with.push(what.to_owned());
    }

    /// What runs the agent as its unit does.
    fn agent(&mut self) -> Vec<String> {
        let config = self.dir().join("config.yaml");
        let agent = [env!("CARGO_BIN_EXE_stockade"), "run", "--config", config.to_str().unwrap()];
        // Iptables of old need more, which is documented as a drop-in; the next agent needs it, too, to remove what is left there.
        if fs::read_to_string(&config).unwrap().contains(": legacy") {
            self.grant("legacy.conf");
        }
        confined::command(&agent, &self.with)
    }

    /// The same by way of another program, such as `unshare --net`.
    pub(crate) fn run_agent_by(&mut self, wrapper: &[&str]) {
        let agent = self.agent();
        let command: Vec<&str> = wrapper.iter().copied().chain(agent.iter().map(String::as_str)).collect();
        self.start(command[0], &command[1..], "agent.log");
        let answered = eventually(Duration::from_secs(10), || self.stockade(&["ping"]).status.success());
        assert!(answered, "the agent does not answer:\n{}", self.agent_log());
    }

    /// `kill -9` for the agent, which must be what was started last.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.children.pop().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub(crate) fn agent_log(&self) -> String {
        fs::read_to_string(self.dir().join("agent.log")).unwrap_or_default()
    }

    /// Our table as nft prints it.
    pub(crate) fn table(&self) -> String {
        text(&self.on_server("nft", &["list", "table", "inet", "stockade"]).output().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            // SIGTERM, so that nginx takes its workers along.
            if let Ok(pid) = i32::try_from(child.id()) {
                let _gone = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGTERM,
                );
            }
            drop(child.wait());
        }
        for namespace in [&self.server, &self.client] {
            drop(Command::new("ip").args(["netns", "del", namespace]).status());
        }
    }
}

pub(crate) fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().unwrap();
    assert!(out.status.success(), "ip {}: {}", args.join(" "), text(&out));
}

/// Both outputs of a command, for messages.
pub(crate) fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Whether `what` becomes true within `limit`.
pub(crate) fn eventually(limit: Duration, mut what: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if what() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
