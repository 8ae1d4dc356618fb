//! What the agent does when there is too much of everything, measured from outside: the real binary, the real kernel, a
//! network namespace of its own. The clock and hostile content are in `tests/e2e/floods.rs`: there is nothing to measure.
//!
//! `cargo bench --bench floods [NAME...]` (as root; 1.5 GB of disk for the long line). Prints one line per figure with what
//! is aimed at; nothing fails on a figure, because a shared machine is no referee.

#[path = "support/npm.rs"]
mod npm;
#[path = "support/process.rs"]
mod process;

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::{Agent, Bans};

/// Written at once.
const CHUNK: u64 = 10_000;
/// The bound that the agent is given.
const MEMORY: &str = "under 256 MB";
const SOON: &str = "under 100 ms";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // Everything below happens in namespaces that go with this process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|e| format!("failed to make a network namespace: {e} (run it as root)"))?;
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name);
    for (name, run) in [
        ("offenders", offenders as fn(&Path) -> Result<()>),
        ("bans", bans),
        ("fast", fast),
        ("line", long_line),
        ("files", many_files),
        ("manners", manners),
    ] {
        if wanted(name) {
            in_dir(run)?;
        }
    }
    if wanted("burst") {
        in_dir(|dir| runtime.block_on(burst(dir)))?;
    }
    Ok(())
}

fn in_dir(run: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let done = run(dir.path());
    if let Err(e) = &done {
        eprintln!("{e}\n{}", fs::read_to_string(dir.path().join("agent.log")).unwrap_or_default());
    }
    // The next one begins with nothing.
    std::process::Command::new("nft").args(["flush", "ruleset"]).status()?;
    done
}

fn report(what: &str, figure: &str, aim: &str) {
    println!("{what:<66} {figure:>22}   aim: {aim}");
}

fn megabytes(figure: f64) -> String {
    format!("{figure:.1} MB")
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

/// A million addresses, one offense each: nobody is banned, everybody must be counted.
fn offenders(dir: &Path) -> Result<()> {
    flood(dir, "1,000,000 offenders, 1 of 15 offenses each", 15, "log: { level: info }")
}

/// A million addresses, each banned at once: more than may be remembered.
fn bans(dir: &Path) -> Result<()> {
    flood(dir, "1,000,000 bans wanted (maxretry 1)", 1, "log: { level: warn }")?;
    Ok(())
}

fn flood(dir: &Path, what: &str, maxretry: usize, more: &str) -> Result<()> {
    const MANY: u64 = 1_000_000;
    configure(dir, "live.log", maxretry, more)?;
    let mut log = process::touch(&dir.join("live.log"))?;
    let agent = Agent::start(dir)?;
    let probe = agent.probe();
    let begin = Instant::now();
    let mut text = String::new();
    for chunk in 0..MANY / CHUNK {
        text.clear();
        offend(&mut text, chunk * CHUNK..(chunk + 1) * CHUNK, 1);
        log.write_all(text.as_bytes())?;
    }
    let jail = agent.until("offenses", MANY)?;
    report(&format!("{what}: all counted after"), &format!("{:.1} s", begin.elapsed().as_secs_f64()), "60 s");
    report("  answers meanwhile: median / p99 / longest", &probe.end()?, SOON);
    report("  most memory", &megabytes(agent.memory("VmHWM")?), MEMORY);
    report(
        "  forgotten / bans now / in all / crowded out",
        &format!(
            "{} / {} / {} / {}",
            jail["forgotten"], jail["bans"], jail["bans_total"], jail["crowded_out"]
        ),
        "said",
    );
    std::thread::sleep(Duration::from_secs(2));
    let (_, status) = agent.status()?;
    report(
        "  ledger, and its last checkpoint",
        &format!("{} B, {} ms", status["ledger"]["bytes"], status["ledger"]["milliseconds"]),
        "-",
    );
    report("  SIGTERM to its end", &ms(agent.end(Signal::SIGTERM)?), "1 s");
    Ok(())
}

/// 10,000 bans decided by one write: when the last is in the kernel, and whether they came in order.
async fn burst(dir: &Path) -> Result<()> {
    configure(dir, "live.log", 1, "log: { level: info }")?;
    let mut log = process::touch(&dir.join("live.log"))?;
    let agent = Agent::start(dir)?;
    let mut kernel = Bans::new()?;
    let mut text = String::new();
    for n in 0..10_000 {
        line(&mut text, &now(), &format!("46.0.{}.{}", n >> 8, n & 255), 404);
    }
    let probe = agent.probe();
    let begin = Instant::now();
    log.write_all(text.as_bytes())?;
    let keys = kernel.next(10_000).await?;
    report("10,000 bans in one burst: all in the kernel after", &ms(begin.elapsed()), "0.2 s");
    report("  in the order of their lines", if keys.is_sorted() { "yes" } else { "no" }, "yes");
    report("  answers meanwhile: median / p99 / longest", &probe.end()?, SOON);
    agent.end(Signal::SIGTERM)?;
    Ok(())
}

/// A log on a tmpfs that grows at 200 MB/s, nearly all of it innocent.
fn fast(dir: &Path) -> Result<()> {
    const SECONDS: u64 = 5;
    const PER_TURN: u64 = 2_000_000;
    let shm = tempfile::tempdir_in("/dev/shm")?;
    let path = shm.path().join("live.log");
    configure(dir, path.to_str().ok_or("odd path")?, 15, "log: { level: info }")?;
    let mut log = process::touch(&path)?;
    let agent = Agent::start(dir)?;
    let mut text = String::new();
    while (text.len() as u64) < PER_TURN {
        line(&mut text, &now(), "80.1.2.3", 200);
    }
    let probe = agent.probe();
    let begin = Instant::now();
    // A hundred turns a second.
    for n in 1..=SECONDS * 100 {
        log.write_all(text.as_bytes())?;
        std::thread::sleep((Duration::from_millis(10) * u32::try_from(n)?).saturating_sub(begin.elapsed()));
    }
    let took = begin.elapsed().as_secs_f64();
    let (jail, _) = agent.status()?;
    let written = text.len() as u64 * SECONDS * 100;
    let behind = written - jail["files"][0]["position"].as_u64().ok_or("no position")?;
    report("a log growing: rate", &format!("{:.0} MB/s", written as f64 / took / 1e6), "200 MB/s");
    report(
        "  behind at its end (as of the status)",
        &format!("{:.1} MB", behind as f64 / 1e6),
        "under 1 s of it",
    );
    let caught = Instant::now();
    let lines = text.lines().count() as u64 * SECONDS * 100;
    agent.until("lines", lines)?;
    report("  all read after another", &ms(caught.elapsed()), "-");
    report("  answers meanwhile: median / p99 / longest", &probe.end()?, SOON);
    report("  most memory", &megabytes(agent.memory("VmHWM")?), "under 64 MB");
    agent.end(Signal::SIGTERM)?;
    Ok(())
}

/// A line of a gigabyte without an end, then its end and a line that bans.
fn long_line(dir: &Path) -> Result<()> {
    configure(dir, "live.log", 1, "log: { level: info }")?;
    let mut log = process::touch(&dir.join("live.log"))?;
    let agent = Agent::start(dir)?;
    let piece = vec![b'x'; 16 << 20];
    let begin = Instant::now();
    for _ in 0..64 {
        log.write_all(&piece)?;
    }
    let mut text = "\n".to_owned();
    line(&mut text, &now(), "46.0.0.1", 404);
    log.write_all(text.as_bytes())?;
    let jail = agent.until("bans", 1)?;
    report(
        "one line of 1 GiB: the ban of the line after it",
        &format!("{:.1} s", begin.elapsed().as_secs_f64()),
        "-",
    );
    report("  skipped lines", &jail["files"][0]["skipped"].to_string(), "1");
    report("  most memory", &megabytes(agent.memory("VmHWM")?), "under 64 MB");
    agent.end(Signal::SIGTERM)?;
    Ok(())
}

/// 2,000 files, each of which is written to.
fn many_files(dir: &Path) -> Result<()> {
    const FILES: u64 = 2_000;
    configure(dir, "many-*.log", 1, "log: { level: warn }")?;
    for n in 0..FILES {
        process::touch(&dir.join(format!("many-{n}.log")))?;
    }
    let agent = Agent::start(dir)?;
    let probe = agent.probe();
    report("2,000 files: start to the first answer", &ms(agent.started_in), "200 ms");
    while agent.status()?.0["files"].as_array().map_or(0, Vec::len) < usize::try_from(FILES)? {
        std::thread::sleep(Duration::from_millis(5));
    }
    let begin = Instant::now();
    for n in 0..FILES {
        let mut text = String::new();
        line(&mut text, &now(), &format!("46.0.{}.{}", n >> 8, n & 255), 404);
        process::touch(&dir.join(format!("many-{n}.log")))?.write_all(text.as_bytes())?;
    }
    agent.until("bans", FILES)?;
    report("  a line in each: all banned after", &ms(begin.elapsed()), "1 s");
    report("  answers meanwhile: median / p99 / longest", &probe.end()?, SOON);
    report("  most memory", &megabytes(agent.memory("VmHWM")?), "under 64 MB");
    report("  SIGTERM to its end", &ms(agent.end(Signal::SIGTERM)?), "100 ms");
    Ok(())
}

/// How it comes and goes with bans.
fn manners(dir: &Path) -> Result<()> {
    configure(dir, "live.log", 1, "log: { level: warn }")?;
    let mut log = process::touch(&dir.join("live.log"))?;
    let mut agent = Agent::start(dir)?;
    report("start to the first answer, no bans", &ms(agent.started_in), "-");
    report("  memory", &megabytes(agent.memory("VmRSS")?), "under 12 MB");
    for (many, memory) in [(10_000, "under 30 MB"), (100_000, "under 64 MB")] {
        let mut text = String::new();
        offend(&mut text, 0..many, 1);
        log.write_all(text.as_bytes())?;
        // Those of the round before are known.
        agent.until("bans", many)?;
        std::thread::sleep(Duration::from_secs(2));
        report(&format!("{many} bans: memory"), &megabytes(agent.memory("VmRSS")?), memory);
        report("  most memory", &megabytes(agent.memory("VmHWM")?), MEMORY);
        let aim = if many == 10_000 { "200 ms" } else { "-" };
        report("  SIGTERM to its end", &ms(agent.end(Signal::SIGTERM)?), "100 ms");
        agent = Agent::start(dir)?;
        report("  start to the first answer, all in the kernel", &ms(agent.started_in), aim);
        agent.until("bans", many)?;
        agent.end(Signal::SIGKILL)?;
        agent = Agent::start(dir)?;
        report("  the same after kill -9", &ms(agent.started_in), aim);
        agent.end(Signal::SIGTERM)?;
        std::process::Command::new("nft").args(["flush", "ruleset"]).status()?;
        agent = Agent::start(dir)?;
        report("  the same, the kernel having lost them (a reboot)", &ms(agent.started_in), aim);
        agent.until("bans", many)?;
        report("  memory after it", &megabytes(agent.memory("VmRSS")?), memory);
        report("  most memory", &megabytes(agent.memory("VmHWM")?), MEMORY);
    }
    agent.end(Signal::SIGTERM)?;
    Ok(())
}

/// `each` offenses, now, by these attackers.
fn offend(text: &mut String, attackers: std::ops::Range<u64>, each: usize) {
    let stamp = now();
    for n in attackers {
        for _ in 0..each {
            line(text, &stamp, &npm::attacker(n), 404);
        }
    }
}

fn line(text: &mut String, stamp: &str, client: &str, status: u16) {
    npm::line(text, stamp, status, "/wp-login.php", client, "zgrab/0.x", 154);
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

fn configure(dir: &Path, log: &str, maxretry: usize, more: &str) -> Result<()> {
    let log = dir.join(log);
    let mut text = String::new();
    writeln!(
        text,
        "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\n{more}\n\
         ignoreip: [loopback, private]\n\
         jails:\n  bench:\n    filter: npm-forceful-browsing\n    logpath: {log}\n    from: end\n    \
         maxretry: {maxretry}\n    findtime: 1h\n    bantime: 2h",
        dir = dir.display(),
        log = log.display(),
    )?;
    fs::write(dir.join("config.yaml"), text)?;
    Ok(())
}
