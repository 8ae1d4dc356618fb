//! What enforcement costs those who are not banned, and how fast it is: real nginx behind a real nginx over veth, the
//! real agent, each figure as a ratio to no firewall in the same run.
//!
//! `cargo bench --bench enforce` (as root; needs nginx and iproute2). Loads are bounded: about two minutes, on
//! namespaces that go with this process. Nothing fails on a figure, because a shared machine is no referee.

#[path = "support/net.rs"]
mod net;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use stockade::kernel::header::BpfMatcher;

use net::Net;

const BIN: &str = env!("CARGO_BIN_EXE_stockade");
/// Pairs of measurements, one without and one with a firewall.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 16;
const UPLOAD: usize = 1 << 31;
const UPLOAD_PORT: u16 = 8080;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut net = Net::new()?;
    net.start_web(dir.path())?;
    net.swallow(UPLOAD_PORT)?;
    std::thread::sleep(Duration::from_millis(500));
    matcher()?;
    let rate = |net: &Net| net::requests(net, CONNECTIONS, ROUND);
    let bulk = |net: &Net| net::upload(net, UPLOAD_PORT, UPLOAD);
    for (what, bans, headers, measure, unit, aim) in [
        ("requests, agent without bans", 0, "auto", &rate as &dyn Fn(&Net) -> Result<f64>, 1.0, "0.97"),
        ("requests, 100,000 source bans", 100_000, "off", &rate, 1.0, "0.97"),
        ("requests, 10,000 header bans", 10_000, "bpf", &rate, 1.0, "0.9"),
        ("upload (MB/s), 10,000 header bans", 10_000, "bpf", &bulk, 1e6, "0.95"),
    ] {
        compare(&net, dir.path(), what, bans, headers, measure, unit, aim)?;
    }
    let begin = Instant::now();
    net.on_host(BIN, &["check", "--config"])
        .arg(configuration(dir.path(), "auto")?)
        .stdout(Stdio::null())
        .status()?;
    report("check", &format!("{:.0} ms", begin.elapsed().as_secs_f64() * 1e3), "under 1000 ms");
    Ok(())
}

fn report(what: &str, figure: &str, aim: &str) {
    println!("{what:<44} {figure:>34}   aim: {aim}");
}

/// Without and with the agent in turns, so that what else the machine does hits both; the median of the ratios.
#[expect(clippy::too_many_arguments, reason = "one row of the table in main")]
fn compare(
    net: &Net,
    dir: &Path,
    what: &str,
    bans: u32,
    headers: &str,
    measure: &dyn Fn(&Net) -> Result<f64>,
    unit: f64,
    aim: &str,
) -> Result<()> {
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    measure(net)?;
    for _ in 0..ROUNDS {
        let without = measure(net)?;
        let agent = Agent::start(net, dir, headers)?;
        agent.ban(net, bans)?;
        let with = measure(net)?;
        agent.stop(net)?;
        ratios.push(with / without);
        rates.push(without);
    }
    ratios.sort_by(f64::total_cmp);
    rates.sort_by(f64::total_cmp);
    let figure = format!(
        "{:.2} ({:.2}–{:.2}) of {:.0}",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1],
        rates[ROUNDS / 2] / unit
    );
    report(what, &figure, &format!("{aim} or more"));
    Ok(())
}

/// The matcher by itself: what a ban costs, what a packet costs.
fn matcher() -> Result<()> {
    let names: Vec<String> = ["x-real-ip", "x-forwarded-for", "cf-connecting-ip"].map(str::to_owned).into();
    let begin = Instant::now();
    let mut matcher = BpfMatcher::load(&names, &BTreeSet::from([64]))?;
    report(
        "program proven, compiled and loaded",
        &format!("{:.1} ms", begin.elapsed().as_secs_f64() * 1e3),
        "under 300 ms",
    );
    let offender = |n: u32| (IpNet::from(IpAddr::from(Ipv4Addr::from(0x2d00_0000 + n))), None);
    matcher.insert(&(0..10_000).map(offender).collect::<Vec<_>>())?;
    let begin = Instant::now();
    for n in 10_000..11_000 {
        matcher.insert(&[offender(n)])?;
    }
    report(
        "one header ban more, 10,000 present",
        &format!("{:.1} µs", begin.elapsed().as_secs_f64() * 1e3),
        "under 50 µs",
    );
    let begin = Instant::now();
    matcher.insert(&(11_000..111_000).map(offender).collect::<Vec<_>>())?;
    report(
        "100,000 header bans at once",
        &format!("{:.0} ms", begin.elapsed().as_secs_f64() * 1e3),
        "under 300 ms",
    );
    let browser = "Host: app.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 \
                   Firefox/133.0\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nAccept-Encoding: \
                   gzip, deflate\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nX-Real-IP: \
                   192.0.2.2\r\n\r\n";
    for (what, payload) in [
        ("a packet without payload", String::new()),
        ("a head of 380 bytes", format!("GET / HTTP/1.1\r\n{browser}")),
        ("a head of 3 KB", format!("GET /{} HTTP/1.1\r\n{browser}", "a".repeat(2600))),
        ("1.4 KB of upload", "the quick brown fox jumps over the lazy dog and ".repeat(29)),
    ] {
        let run = matcher.dry_run(&packet(payload.as_bytes()), 20_000)?;
        report(&format!("matcher on {what}"), &format!("{} ns", run.nanoseconds), "under 1000 ns");
    }
    Ok(())
}

/// A TCP packet over IPv4, from its IP header on.
fn packet(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((payload.len() as u16 + 40).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

fn configuration(dir: &Path, headers: &str) -> Result<std::path::PathBuf> {
    let path = dir.join("config.yaml");
    let dir = dir.display();
    fs::write(
        &path,
        format!(
            "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\nignoreip: [loopback, self]\n\
             headers: {{ matcher: {headers} }}\n\
             jails: {{ bench: {{ filter: npm-forceful-browsing, logpath: {dir}/none.log, bantime: 1h }} }}\n"
        ),
    )?;
    Ok(path)
}

struct Agent {
    child: Child,
    config: std::path::PathBuf,
}

impl Agent {
    fn start(net: &Net, dir: &Path, headers: &str) -> Result<Self> {
        let config = configuration(dir, headers)?;
        let log = fs::File::create(dir.join("agent.log"))?;
        let mut command = net.on_host(BIN, &["run", "--config"]);
        let child = command.arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let agent = Self { child, config };
        let begin = Instant::now();
        while !agent.call(net, &["ping"])? {
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(fs::read_to_string(dir.join("agent.log"))?.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(agent)
    }

    fn call(&self, net: &Net, args: &[&str]) -> Result<bool> {
        let mut command: Command = net.on_host(BIN, args);
        command.env("STOCKADE_CONFIG", &self.config).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status()?.success())
    }

    fn ban(&self, net: &Net, bans: u32) -> Result<()> {
        let all: Vec<String> = (0..bans).map(|n| Ipv4Addr::from(0x2d00_0000 + n).to_string()).collect();
        for some in all.chunks(10_000) {
            let args: Vec<&str> =
                ["ban", "bench"].into_iter().chain(some.iter().map(String::as_str)).collect();
            if !self.call(net, &args)? {
                return Err("failed to ban".into());
            }
        }
        Ok(())
    }

    fn stop(mut self, net: &Net) -> Result<()> {
        self.call(net, &["stop", "--flush"])?;
        self.child.wait()?;
        Ok(())
    }
}
