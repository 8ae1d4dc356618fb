//! What a service owes its manager: to say when it is up, to end when it is told to, to answer whoever asks.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{OFFENDER4, World, eventually, text};
use crate::{NPM_JAIL, SOON};

/// An agent of which more matters than that it answers.
struct Agent(Child);

impl Agent {
    /// Starts one on the server, with these variables.
    fn start(world: &World, variables: &[(&str, &str)]) -> Self {
        let config = world.dir().join("config.yaml");
        let log =
            fs::OpenOptions::new().create(true).append(true).open(world.dir().join("agent.log")).unwrap();
        let mut command =
            world.on_server(env!("CARGO_BIN_EXE_stockade"), &["run", "--config", config.to_str().unwrap()]);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    /// The exit code it ends with. One that had to end itself by force ends with 4, and after 0.9 seconds: 0 is in time.
    fn ended(&mut self, world: &World) -> i32 {
        let mut code = None;
        let ended = eventually(SOON, || {
            code = self.0.try_wait().unwrap();
            code.is_some()
        });
        assert!(ended, "it does not end\n{}", world.agent_log());
        code.unwrap().code().unwrap_or_else(|| panic!("{code:?}\n{}", world.agent_log()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn up(world: &World) {
    let up = eventually(SOON * 2, || world.stockade(&["ping"]).status.success());
    assert!(up, "{}", world.agent_log());
}

/// What the service manager is told next, but for status lines alone.
fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    loop {
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("nothing was told: {e}"));
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if !text.starts_with("STATUS=") && text != "WATCHDOG=1\n" {
            return text;
        }
    }
}

#[test]
fn the_service_manager_is_told() {
    let world = World::new();
    world.configure(NPM_JAIL);
    let path = world.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "600000")];
    let mut agent = Agent::start(&world, &variables);
    assert_eq!(heard(&socket), "READY=1\nSTATUS=1 jails, 0 bans, enforcing\n");
    // As soon as it says so, it is.
    assert_eq!(text(&world.stockade(&["ping"])), "pong\n");
    for _ in 0..3 {
        let mut buffer = [0; 64];
        let n = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"WATCHDOG=1\n");
    }
    let reloading = |text: &str| {
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::trim_end);
        time.is_some_and(|time| time.parse::<u64>().is_ok())
    };
    assert!(world.stockade(&["reload"]).status.success());
    assert!(reloading(&heard(&socket)));
    assert_eq!(heard(&socket), "READY=1\nSTATUS=1 jails, 0 bans, enforcing\n");
    // A mistake ends a reload, too: nobody waits for it for ever.
    world.write("config.yaml", "jails: { npm: { maxrety: 3 }, web: { findtime: soon } }\n");
    agent.signal(Signal::SIGHUP);
    assert!(reloading(&heard(&socket)));
    assert!(heard(&socket).starts_with("READY=1\n"));
    // Each mistake on a line of its own.
    let mistakes = || {
        let log = world.agent_log();
        log.lines().filter(|line| line.contains("ERROR") && line.contains("config.yaml:")).count()
    };
    assert!(eventually(SOON, || mistakes() >= 2), "{}", world.agent_log());
    agent.signal(Signal::SIGTERM);
    assert_eq!(heard(&socket), "STOPPING=1\n");
    assert_eq!(agent.ended(&world), 0);
}

#[test]
fn it_ends_when_it_is_told_to_whatever_it_does() {
    let world = World::new();
    let jail = "
headers: { matcher: off, proxy_protocol: false }
jails:
  app: { filter: app, logpath: DIR/app.log, from: start, maxretry: 1, bantime: 1h }
filters:
  app: { failregex: '^refused <HOST>$' }
";
    world.configure(jail);
    let mut log = String::new();
    for n in 0..400_000u32 {
        log += &format!("refused {}\n", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n));
    }
    world.write("app.log", &log);

    // Reading a backlog, with thousands of bans on their way, and with clients that do not get on with it: one asks half
    // a question, one does not read its answer.
    let mut agent = Agent::start(&world, &[]);
    up(&world);
    let control = world.dir().join("control.sock");
    let mut half = UnixStream::connect(&control).unwrap();
    half.write_all(b"{\"command\"").unwrap();
    let mut deaf = UnixStream::connect(&control).unwrap();
    let status = |world: &World| {
        serde_json::from_slice::<Value>(&world.stockade(&["status", "--json"]).stdout).unwrap_or_default()
    };
    let reading = eventually(SOON, || {
        let status = status(&world);
        status["reading"]["percent"].is_u64() && status["kernel"]["bans"].as_u64() > Some(1000)
    });
    assert!(reading, "{}\n{}", status(&world), world.agent_log());
    assert!(text(&world.stockade(&["status"])).contains("reading the backlog of "));
    deaf.write_all(b"{\"command\":\"bans\",\"jail\":null}\n").unwrap();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(&world), 0, "{}", world.agent_log());
    drop((half, deaf));
    assert!(!control.exists(), "the socket's file goes with the agent");

    // Starting: thousands of bans are to be taken over. Sooner or later in that.
    for ms in [0, 3, 30, 100, 300] {
        let mut agent = Agent::start(&world, &[]);
        // Before it listens, the signal ends it by itself.
        assert!(eventually(SOON, || control.exists()), "{}", world.agent_log());
        std::thread::sleep(Duration::from_millis(ms));
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.ended(&world), 0, "after {ms} ms: {}", world.agent_log());
    }
}

/// An agent with iptables-legacy and an ipset that does nothing while there is a file `hang`.
fn with_hanging_ipset(world: &World) -> String {
    let dir = world.dir().to_str().unwrap();
    let real =
        String::from_utf8(Command::new("sh").args(["-c", "command -v ipset"]).output().unwrap().stdout)
            .unwrap();
    let script =
        format!("#!/bin/sh\nwhile [ -e {dir}/hang ]; do sleep 0.02; done\nexec {} \"$@\"\n", real.trim());
    let ipset = world.write("ipset", &script);
    fs::set_permissions(ipset, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.configure(&format!("backend: legacy\n{NPM_JAIL}"));
    format!("{dir}:{}", std::env::var("PATH").unwrap())
}

#[test]
fn a_starting_agent_says_what_it_does() {
    let world = World::new();
    let path = with_hanging_ipset(&world);
    let hang = world.write("hang", "");
    let mut agent = Agent::start(&world, &[("PATH", &path)]);
    let says = |args: &[&str], what: &str| {
        let mut said = String::new();
        let right = eventually(SOON, || {
            said = text(&world.stockade(args));
            said.contains(what)
        });
        assert!(right, "{said}\n{}", world.agent_log());
    };
    says(&["status"], "starting: asking the kernel what it can do");
    let status: Value = serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["state"], "starting");
    let ping = world.stockade(&["ping"]);
    assert_eq!(
        (ping.status.code(), text(&ping).as_str()),
        (Some(1), "stockade: starting: asking the kernel what it can do\n")
    );
    // An order waits until it can be carried out.
    let mut order = world.on_server(env!("CARGO_BIN_EXE_stockade"), &["ban", "npm", OFFENDER4]);
    let mut order =
        order.env("STOCKADE_CONFIG", world.dir().join("config.yaml")).stdout(Stdio::piped()).spawn().unwrap();
    fs::remove_file(&hang).unwrap();
    assert!(order.wait().unwrap().success(), "{}", world.agent_log());
    let mut said = String::new();
    order.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("banned 203.0.113.66"), "{said}");
    assert!(world.stockade(&["ping"]).status.success());
    // One that hangs while it starts ends as well.
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(&world), 0);
    fs::write(&hang, "").unwrap();
    let mut agent = Agent::start(&world, &[("PATH", &path)]);
    says(&["status"], "starting: ");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(&world), 0, "{}", world.agent_log());
    fs::remove_file(&hang).unwrap();
}

#[test]
fn an_agent_that_is_stuck_ends_all_the_same() {
    let world = World::new();
    let path = with_hanging_ipset(&world);
    let hang = world.dir().join("hang");
    for (signals, told) in [(1, "not done within 900 ms"), (2, "told twice to end")] {
        let mut agent = Agent::start(&world, &[("PATH", &path)]);
        up(&world);
        fs::write(&hang, "").unwrap();
        let mut order = world.on_server(env!("CARGO_BIN_EXE_stockade"), &["ban", "npm", OFFENDER4]);
        let order = order.env("STOCKADE_CONFIG", world.dir().join("config.yaml")).stdout(Stdio::null());
        let mut order = order.stderr(Stdio::null()).spawn().unwrap();
        // It waits for ipset, and answers nobody.
        let waits = || {
            let agent = agent.0.id().to_string();
            Command::new("pgrep").args(["--parent", &agent, "-f", "ipset"]).output().unwrap().status.success()
        };
        assert!(eventually(SOON, waits), "{}", world.agent_log());
        agent.signal(Signal::SIGTERM);
        if signals == 2 {
            // Two signals of one kind that wait to be delivered are one.
            std::thread::sleep(Duration::from_millis(100));
            agent.signal(Signal::SIGINT);
        }
        assert_eq!(agent.ended(&world), 4, "{}", world.agent_log());
        assert!(world.agent_log().contains(told), "{}", world.agent_log());
        fs::remove_file(&hang).unwrap();
        assert_eq!(order.wait().unwrap().code(), Some(3), "the agent hung up");
    }
}

/// What the journal has is a line for each event, with its priority, whatever a file is called.
#[test]
fn the_journal_gets_a_line_for_each_event() {
    let world = World::new();
    world.configure(&NPM_JAIL.replace("proxy-host-*_access.log", "*_access.log"));
    world.write("a\n<3>forged\u{1b}[2J\u{202e}_access.log", "");
    let log = world.write("agent.log", "");
    let file = fs::metadata(log).unwrap();
    let (device, inode) =
        (std::os::unix::fs::MetadataExt::dev(&file), std::os::unix::fs::MetadataExt::ino(&file));
    let mut agent = Agent::start(&world, &[("JOURNAL_STREAM", &format!("{device}:{inode}"))]);
    up(&world);
    let following = "_access.log from byte 0 of 0";
    assert!(eventually(SOON, || world.agent_log().contains(following)), "{}", world.agent_log());
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended(&world), 0);
    let log = world.agent_log();
    assert!(log.lines().all(|line| line.starts_with("<6>") || line.starts_with("<4>")), "{log}");
    let line = log.lines().find(|line| line.contains(following)).unwrap();
    assert!(line.starts_with("<6>following /"), "{line}");
    assert!(line.contains("a\\n<3>forged\\x1b[2J\\u{202e}_access.log"), "{line}");
}

/// A kernel that refuses: who asks whether all is well is told no.
#[test]
fn an_agent_that_does_not_enforce_does_not_say_that_all_is_well() {
    let world = World::new();
    let path = with_hanging_ipset(&world);
    let broken = fs::read_to_string(world.dir().join("ipset")).unwrap();
    let _agent = Agent::start(&world, &[("PATH", &path)]);
    up(&world);
    world.write("ipset", "#!/bin/sh\necho 'no more' >&2\nexit 1\n");
    assert_eq!(world.stockade(&["ban", "npm", OFFENDER4]).status.code(), Some(4));
    let ping = world.stockade(&["ping"]);
    assert_eq!(ping.status.code(), Some(1), "{}", text(&ping));
    assert!(text(&ping).starts_with("stockade: not enforcing: "), "{}", text(&ping));
    world.write("ipset", &broken);
    up(&world);
}
