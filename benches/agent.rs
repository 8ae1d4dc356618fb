//! The whole program, measured from outside: the real binary, the real kernel, a network namespace of its own.
//!
//! `cargo bench --bench agent` (as root). Prints one line per figure with what is aimed at; nothing fails on a figure,
//! because a shared machine is no referee.

#[path = "support/corpus.rs"]
mod corpus;
#[path = "support/npm.rs"]
mod npm;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nft::{Event, Subject, Watcher};

const BIN: &str = env!("CARGO_BIN_EXE_stockade");
const LINES: u64 = 2_000_000;
const DRAIN: u64 = 100_000;
const SINGLE_BANS: u64 = 200;
const MASS: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // Everything below happens in a namespace that goes with this process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|e| format!("failed to make a network namespace: {e} (run it as root)"))?;
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    replay(dir.path())?;
    runtime.block_on(live(dir.path()))
}

fn report(what: &str, figure: &str, aim: &str) {
    println!("{what:<58} {figure:>18}   aim: {aim}");
}

/// `stockade replay` over a file in the page cache: the whole process, start to end.
fn replay(dir: &Path) -> Result<()> {
    let corpus = corpus::corpus(LINES);
    let log = dir.join("replay.log");
    fs::write(&log, &corpus.text)?;
    let config = configuration(dir, "unused.log")?;
    let mut times = Vec::new();
    let mut banned = 0;
    for _ in 0..5 {
        let begin = Instant::now();
        let out = Command::new(BIN).args(["replay", "--json", "--config"]).arg(&config).arg(&log).output()?;
        times.push(begin.elapsed());
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into());
        }
        let mut offenders: Vec<String> = String::from_utf8(out.stdout)?
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|d| d["decision"] == "ban")
            .map(|d| d["offender"].to_string())
            .collect();
        offenders.sort();
        offenders.dedup();
        banned = offenders.len();
    }
    times.sort();
    let median = times[times.len() / 2].as_secs_f64();
    let rate = LINES as f64 / median / 1e6;
    report("replay, 2 million NPM lines, one core", &format!("{rate:.1} M lines/s"), "5 or more");
    report("  offenders found / in the log", &format!("{banned} / {}", corpus.offenders), "equal");
    fs::remove_file(log)?;
    Ok(())
}

async fn live(dir: &Path) -> Result<()> {
    let log = dir.join("live.log");
    File::create(&log)?;
    let agent = Agent::start(dir, "live.log")?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    report("resident memory, idle", &megabytes(agent.resident()?), "under 12 MB");
    let mut watch = Bans::new()?;
    let mut out = OpenOptions::new().append(true).open(&log)?;

    // The latency of one ban: all but the deciding line, a pause, then that line.
    let mut latencies = Vec::new();
    for n in 0..SINGLE_BANS {
        let lines = offenses(n);
        let cut = lines.len() / corpus::MAXRETRY * (corpus::MAXRETRY - 1);
        let cut = lines[..cut].rfind('\n').map_or(0, |at| at + 1);
        out.write_all(&lines.as_bytes()[..cut])?;
        tokio::time::sleep(Duration::from_millis(20 + n % 17)).await;
        let begin = Instant::now();
        out.write_all(&lines.as_bytes()[cut..])?;
        watch.until(1).await?;
        latencies.push(begin.elapsed());
    }
    latencies.sort();
    let at = |share: usize| format!("{:.2} ms", latencies[latencies.len() * share / 100].as_secs_f64() * 1e3);
    report("deciding line written to kernel's notification, p50", &at(50), "under 1 ms");
    report("  p99", &at(99), "under 5 ms");

    // The rate at which a running agent reads: many lines in one write, the last of them decides a ban.
    let mut rates = Vec::new();
    for round in 0..5 {
        let mut text = harmless(DRAIN);
        text.push_str(&offenses(50_000 + round));
        let begin = Instant::now();
        out.write_all(text.as_bytes())?;
        watch.until(1).await?;
        rates.push(DRAIN as f64 / begin.elapsed().as_secs_f64() / 1e6);
    }
    rates.sort_by(f64::total_cmp);
    report("live drain, 100,000 lines in one write", &format!("{:.1} M lines/s", rates[2]), "2 or more");

    // Many bans from one burst.
    let burst: String = (100_000..100_000 + MASS).map(offenses).collect();
    let begin = Instant::now();
    out.write_all(burst.as_bytes())?;
    watch.until(MASS).await?;
    report(
        "10,000 bans from one burst, all in the kernel",
        &format!("{:.3} s", begin.elapsed().as_secs_f64()),
        "0.2 s",
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    report("resident memory with 10,000 bans", &megabytes(agent.resident()?), "under 30 MB");

    // Somebody flushes everything; nft's own start and work are part of the time.
    let begin = Instant::now();
    let flushed = Command::new("nft").args(["flush", "ruleset"]).status();
    match flushed {
        Ok(status) if status.success() => {
            watch.until(MASS).await?;
            let repaired = format!("{:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
            report("nft flush ruleset to 10,000 bans back in force", &repaired, "100 ms");
        }
        _ => report("nft flush ruleset to 10,000 bans back in force", "not run: no nft", "100 ms"),
    }

    let begin = Instant::now();
    agent.stop()?;
    report("stop", &format!("{:.0} ms", begin.elapsed().as_secs_f64() * 1e3), "100 ms");
    let begin = Instant::now();
    let agent = Agent::start(dir, "live.log")?;
    report(
        "start to answering, 10,000 bans taken over",
        &format!("{:.0} ms", begin.elapsed().as_secs_f64() * 1e3),
        "200 ms",
    );
    agent.stop()
}

/// As many offenses, now, as ban attacker `n`.
fn offenses(n: u64) -> String {
    let stamp = now();
    let mut text = String::new();
    for _ in 0..corpus::MAXRETRY {
        npm::line(&mut text, &stamp, 404, "/wp-login.php", &npm::attacker(n), "zgrab/0.x", 154);
    }
    text
}

/// Lines of which one in ten is an offense, from so many addresses that none is banned.
fn harmless(lines: u64) -> String {
    let stamp = now();
    let mut numbers = corpus::Numbers(7);
    let mut text = String::new();
    for n in 0..lines {
        let (status, client) = match n % 10 {
            0 => (404, format!("24.{}.{}.1", (n / 10) >> 8 & 255, (n / 10) & 255)),
            _ => (200, format!("80.1.{}.9", numbers.below(250))),
        };
        npm::line(
            &mut text,
            &stamp,
            status,
            "/a/page",
            &client,
            "Mozilla/5.0 (X11; Linux x86_64)",
            numbers.below(9999),
        );
    }
    text
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

fn megabytes(kilobytes: u64) -> String {
    format!("{:.1} MB", kilobytes as f64 / 1024.0)
}

fn configuration(dir: &Path, log: &str) -> Result<PathBuf> {
    let path = dir.join("config.yaml");
    let dir = dir.display();
    fs::write(
        &path,
        format!(
            "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\n\
             ignoreip: [loopback, private]\n\
             jails:\n  bench:\n    filter: npm-forceful-browsing\n    logpath: {dir}/{log}\n    from: end\n    \
             maxretry: {}\n    findtime: {}s\n    bantime: 2h\n",
            corpus::MAXRETRY,
            corpus::FINDTIME
        ),
    )?;
    Ok(path)
}

/// A running agent.
struct Agent {
    child: Child,
    config: PathBuf,
}

impl Agent {
    fn start(dir: &Path, log: &str) -> Result<Self> {
        let config = configuration(dir, log)?;
        let out = File::create(dir.join("agent.log"))?;
        let child = Command::new(BIN)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let agent = Self { child, config };
        let end = Instant::now() + LIMIT;
        while !agent.ask("ping")? {
            if Instant::now() > end {
                return Err(fs::read_to_string(dir.join("agent.log"))?.into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(agent)
    }

    fn ask(&self, verb: &str) -> Result<bool> {
        let out = Command::new(BIN).args([verb, "--config"]).arg(&self.config).output()?;
        Ok(out.status.success())
    }

    /// Kilobytes.
    fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_ascii_whitespace().nth(1).ok_or("no VmRSS")?.parse()?)
    }

    fn stop(mut self) -> Result<()> {
        self.ask("stop")?;
        self.child.wait()?;
        Ok(())
    }
}

/// Counts the elements that the kernel announces.
struct Bans(Watcher);

impl Bans {
    fn new() -> Result<Self> {
        Ok(Self(Watcher::open()?))
    }

    async fn until(&mut self, count: u64) -> Result<()> {
        let mut seen = 0;
        let end = tokio::time::Instant::now() + LIMIT;
        while seen < count {
            let event = tokio::time::timeout_at(end, self.0.next()).await??;
            if let Event::Added { subject: Subject::Elements { keys, .. }, .. } = event {
                seen += keys.len() as u64;
            }
        }
        Ok(())
    }
}
