//! A running agent, seen from outside: what it answers and how soon, what memory it takes, what it tells the kernel.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nft::{Event, Subject, Watcher};
use serde_json::Value;

use crate::Result;

const BIN: &str = env!("CARGO_BIN_EXE_stockade");
/// Nothing here takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// How often the control socket is asked while something is under way.
const ASK: Duration = Duration::from_millis(20);

/// A running agent.
pub(crate) struct Agent {
    child: Child,
    dir: PathBuf,
    /// From its start to its first answer.
    pub(crate) started_in: Duration,
}

impl Agent {
    /// Starts it with the configuration in `dir`, and waits until it answers.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("agent.log"))?;
        let begin = Instant::now();
        let child = Command::new(BIN)
            .args(["run", "--config"])
            .arg(dir.join("config.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut agent = Self { child, dir: dir.to_owned(), started_in: Duration::ZERO };
        while agent.ask("ping").is_err() {
            if begin.elapsed() > LIMIT || agent.child.try_wait()?.is_some() {
                return Err(fs::read_to_string(dir.join("agent.log"))?.into());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        agent.started_in = begin.elapsed();
        Ok(agent)
    }

    /// One request without arguments.
    pub(crate) fn ask(&self, verb: &str) -> Result<Value> {
        ask(&self.dir, verb)
    }

    /// The state of its only jail, and the rest.
    pub(crate) fn status(&self) -> Result<(Value, Value)> {
        let mut status = self.ask("status")?;
        let jail = status["jails"][0].take();
        Ok((jail, status))
    }

    /// Waits until the jail's `key` is at least `n`.
    pub(crate) fn until(&self, key: &str, n: u64) -> Result<Value> {
        let end = Instant::now() + LIMIT;
        loop {
            let (jail, _) = self.status()?;
            if jail[key].as_u64().is_some_and(|have| have >= n) {
                return Ok(jail);
            }
            if Instant::now() > end {
                return Err(format!("{key} is {} and not {n}", jail[key]).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A figure from /proc/PID/status in MiB: `VmRSS` now, `VmHWM` the most there ever was.
    pub(crate) fn memory(&self, what: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|l| l.starts_with(what)).ok_or("no such figure")?;
        let kilobytes: f64 = line.split_ascii_whitespace().nth(1).ok_or("no figure")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    /// Ends it with a signal; how long that took.
    pub(crate) fn end(mut self, signal: nix::sys::signal::Signal) -> Result<Duration> {
        let begin = Instant::now();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        self.child.wait()?;
        Ok(begin.elapsed())
    }

    /// Asks for the status over and over from another thread.
    pub(crate) fn probe(&self) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, stopped) = (self.dir.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut answers = Vec::new();
            for n in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let begin = Instant::now();
                if ask(&dir, if n.is_multiple_of(2) { "ping" } else { "status" }).is_ok() {
                    answers.push(begin.elapsed());
                }
                std::thread::sleep(ASK);
            }
            answers
        });
        Probe { stop, thread }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // After an error nobody else ends it; one that has ended is no matter.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn ask(dir: &Path, verb: &str) -> Result<Value> {
    let mut socket = UnixStream::connect(dir.join("control.sock"))?;
    socket.set_read_timeout(Some(LIMIT))?;
    writeln!(socket, "{}", serde_json::json!({ "command": verb }))?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    let mut answer: Value = serde_json::from_str(&line)?;
    match answer["ok"].take() {
        Value::Null => Err(line.into()),
        value => Ok(value),
    }
}

/// Somebody who asks all the time.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probe {
    /// How long the answers took: the median, the 99th percentile and the longest.
    pub(crate) fn end(self) -> Result<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = self.thread.join().map_err(|_| "the probe panicked")?;
        answers.sort();
        let at =
            |share: usize| answers.get((answers.len() * share / 100).min(answers.len().saturating_sub(1)));
        let ms = |d: Option<&Duration>| d.map_or(0.0, |d| d.as_secs_f64() * 1e3);
        Ok(format!("{:.1} / {:.0} / {:.0} ms", ms(at(50)), ms(at(99)), ms(answers.last())))
    }
}

/// The elements that the kernel announces.
pub(crate) struct Bans(Watcher);

impl Bans {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Watcher::open()?))
    }

    /// The next `count` elements, as they are announced.
    pub(crate) async fn next(&mut self, count: usize) -> Result<Vec<Vec<u8>>> {
        let mut seen = Vec::with_capacity(count);
        let end = tokio::time::Instant::now() + LIMIT;
        while seen.len() < count {
            let event = tokio::time::timeout_at(end, self.0.next()).await??;
            if let Event::Added { subject: Subject::Elements { keys, .. }, .. } = event {
                seen.extend(keys.iter().map(|key| key.to_vec()));
            }
        }
        Ok(seen)
    }
}

/// An empty file, or one that is there.
pub(crate) fn touch(path: &Path) -> Result<File> {
    Ok(fs::OpenOptions::new().create(true).append(true).open(path)?)
}
