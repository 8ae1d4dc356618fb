//! How fast lines are handed over, beside the least that must be done: reading the file and finding its newlines.
//!
//! Prints both and their ratio for a file of 1 GB that is in the page cache, and then how long after a write its line
//! is there. `cargo bench --bench follow`; fails when following is less than half as fast as reading.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use stockade::follow::{Event, FileInfo, Follower, From, Handler, Lines, Options, Source, SourceId};
use stockade::types::Timestamp;

const SIZE: u64 = 1_000_000_000;
const LINE: usize = 250;
const ROUNDS: usize = 5;
const WRITES: usize = 2_000;

#[derive(Default)]
struct Count {
    lines: u64,
    bytes: u64,
    first: u64,
}

impl Handler for Count {
    fn block(&mut self, _: &FileInfo, lines: Lines<'_>) {
        for line in lines {
            self.lines += 1;
            self.bytes += line.len() as u64;
            // Something that depends on the line itself, so that it is really handed over.
            self.first = self.first.wrapping_add(line.first().copied().map_or(0, u64::from));
        }
    }

    fn stamp(&mut self, _: &FileInfo, _: &[u8]) -> Option<Timestamp> {
        None
    }

    fn event(&mut self, _: Event<'_>) {}
}

fn main() -> io::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("access.log");
    let lines = fill(&path)?;
    let (mut plain, mut followed) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        plain = plain.min(read_plainly(&path, lines)?);
        followed = followed.min(follow(&path, lines));
    }
    for (what, time) in [("read and memchr", plain), ("follow", followed)] {
        let seconds = time.as_secs_f64();
        let (rate, mega) = (lines as f64 / seconds / 1e6, SIZE as f64 / seconds / 1e6);
        println!("{what:16} {seconds:6.3} s {rate:6.1} M lines/s {mega:6.0} MB/s");
    }
    let ratio = plain.as_secs_f64() / followed.as_secs_f64();
    println!("ratio            {ratio:6.2} (at least 0.50)");
    let mut delays = delays(&directory.path().join("live.log"))?;
    delays.sort_unstable();
    let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!("from write to line: median {:.0} µs, 90 % {:.0} µs, 99 % {:.0} µs", at(0.5), at(0.9), at(0.99));
    Ok(if ratio >= 0.5 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the file; how many lines it has.
fn fill(path: &Path) -> io::Result<u64> {
    let mut block = Vec::new();
    for i in 0..4000 {
        let head =
            format!("203.0.113.{} - - [21/Nov/2026:02:01:10 +0000] \"GET /{i} HTTP/1.1\" 404 153", i % 250);
        writeln!(block, "{head:x<width$}", width = LINE - 1)?;
    }
    let mut file = File::create(path)?;
    let blocks = SIZE / block.len() as u64;
    for _ in 0..blocks {
        file.write_all(&block)?;
    }
    Ok(blocks * 4000)
}

fn read_plainly(path: &Path, lines: u64) -> io::Result<Duration> {
    let start = Instant::now();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut found = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        found += memchr::memchr_iter(b'\n', &buffer[..n]).count() as u64;
    }
    assert_eq!(found, lines);
    Ok(start.elapsed())
}

fn follow(path: &Path, lines: u64) -> Duration {
    let mut follower = follower(path);
    let mut count = Count::default();
    let start = Instant::now();
    while count.lines < lines {
        follower.turn(Timestamp::from_secs(0), Duration::from_secs(1), &mut count);
    }
    let time = start.elapsed();
    assert_eq!((count.lines, count.bytes), (lines, lines * (LINE as u64 - 1)));
    std::hint::black_box(count.first);
    time
}

/// How long after each write its line is handed over. The writer waits for it, and then a little more: the follower
/// is at rest when the next line comes.
fn delays(path: &Path) -> io::Result<Vec<Duration>> {
    let mut follower = follower(path);
    let mut count = Count::default();
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let (go, wait) = mpsc::channel();
    let (tell, written) = mpsc::channel();
    let writer = thread::spawn(move || {
        while wait.recv().is_ok() {
            thread::sleep(Duration::from_micros(300));
            let before = Instant::now();
            let done =
                file.write_all(b"203.0.113.7 - - [21/Nov/2026:02:01:10 +0000] \"GET / HTTP/1.1\" 404 153\n");
            if done.is_err() || tell.send(before).is_err() {
                break;
            }
        }
    });
    let mut delays = Vec::with_capacity(WRITES);
    follower.turn(Timestamp::from_secs(0), Duration::ZERO, &mut count);
    for i in 1..=WRITES as u64 {
        go.send(()).map_err(io::Error::other)?;
        while count.lines < i {
            follower.turn(Timestamp::from_secs(0), Duration::from_secs(10), &mut count);
        }
        let now = Instant::now();
        delays.push(now.duration_since(written.recv().map_err(io::Error::other)?));
    }
    drop(go);
    writer.join().map_err(|_| io::Error::other("the writer failed"))?;
    Ok(delays)
}

fn follower(path: &Path) -> Follower {
    let mut follower = Follower::new(Options::default());
    let pattern = path.display().to_string();
    follower.set_sources(&[Source { id: SourceId(0), pattern, from: From::Start }]);
    follower
}
