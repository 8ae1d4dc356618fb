//! With inotify, and a poll so slow that it cannot help: what does not come by itself does not come.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::*;

/// Only to end a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

impl Scene {
    fn notified(sources: &[(&str, From)]) -> Self {
        let options = Options { poll: Duration::from_secs(1_000_000), ..Options::default() };
        let mut scene = Self::with(options, &[]);
        scene.follower = Follower::new(options);
        scene.set_sources(sources);
        scene.turn();
        scene
    }

    /// Turns until so many lines came in all.
    fn until(&mut self, lines: usize) {
        let end = Instant::now() + PATIENCE;
        while self.record.lines.len() < lines {
            assert!(Instant::now() < end, "{lines} lines expected, {} came", self.record.lines.len());
            self.follower.turn(self.now, Duration::from_millis(100), &mut self.record);
        }
        self.turn();
        assert_eq!(self.record.lines.len(), lines);
    }
}

#[test]
fn writes_renames_and_new_files_are_noticed() {
    let mut scene = Scene::notified(&[("*.log", From::Start)]);
    let mut old = scene.append("a.log", "1\n");
    scene.until(1);
    old.write_all(b"2\n").unwrap();
    scene.until(2);
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", "3\n");
    scene.until(3);
    // The old one under its new name, which no source asks for.
    old.write_all(b"4\n").unwrap();
    scene.until(4);
    scene.append("b.log", "5\n");
    scene.until(5);
    scene.remove("b.log");
    scene.append("b.log", "6\n");
    scene.until(6);
    scene.append("b.log", "7\n");
    scene.until(7);
}

#[test]
fn directories_that_come_and_go_are_noticed() {
    let mut scene = Scene::notified(&[("x/y/a.log", From::Start), ("g/*/b.log", From::Start)]);
    fs::create_dir(scene.path("x")).unwrap();
    fs::create_dir(scene.path("x/y")).unwrap();
    scene.append("x/y/a.log", "1\n");
    scene.until(1);
    fs::create_dir_all(scene.path("g/1")).unwrap();
    scene.append("g/1/b.log", "2\n");
    scene.until(2);
    fs::create_dir_all(scene.path("g/2")).unwrap();
    scene.append("g/2/b.log", "3\n");
    scene.until(3);
    // Replaced by another directory of the same name.
    scene.rename("x/y", "x/z");
    fs::create_dir(scene.path("x/y")).unwrap();
    scene.append("x/y/a.log", "4\n");
    scene.until(4);
    scene.append("x/y/a.log", "5\n");
    scene.until(5);
    fs::remove_dir_all(scene.path("x")).unwrap();
    fs::create_dir_all(scene.path("x/y")).unwrap();
    scene.append("x/y/a.log", "6\n");
    scene.until(6);
}

#[test]
fn the_target_of_a_link_is_watched() {
    let mut scene = Scene::notified(&[("link.log", From::Start)]);
    fs::create_dir(scene.path("real")).unwrap();
    scene.append("real/a.log", "1\n");
    symlink("real/a.log", scene.path("link.log")).unwrap();
    scene.until(1);
    scene.append("real/a.log", "2\n");
    scene.until(2);
    scene.rename("real/a.log", "real/a.log.1");
    let end = Instant::now() + PATIENCE;
    while scene.said("link.log", "rotated away") == 0 {
        assert!(Instant::now() < end, "{:?}", scene.record.events);
        scene.follower.turn(scene.now, Duration::from_millis(100), &mut scene.record);
    }
    scene.append("real/a.log", "3\n");
    scene.until(3);
    scene.append("real/a.log", "4\n");
    scene.until(4);
}

#[test]
fn a_waker_ends_the_wait() {
    let mut scene = Scene::notified(&[]);
    let waker = scene.follower.waker();
    thread::spawn(move || waker.wake());
    assert!(scene.follower.turn(scene.now, PATIENCE, &mut scene.record).woken);
    assert!(!scene.follower.turn(scene.now, Duration::ZERO, &mut scene.record).woken);
}

#[test]
fn reading_does_not_wake_itself() {
    let mut scene = Scene::notified(&[("*.log", From::Start)]);
    scene.append("a.log", "1\n");
    scene.until(1);
    let scans = scene.follower.scans;
    for _ in 0..10 {
        scene.follower.turn(scene.now, Duration::from_millis(1), &mut scene.record);
    }
    assert_eq!(scene.follower.scans, scans, "a quiet directory is not looked at again");
}

/// A writer that rotates while it writes, and goes on in the old file for a while. It waits before the next rotation
/// until the new file was seen: a log that comes and goes unseen cannot be followed.
#[test]
fn nothing_is_lost_or_doubled_while_rotating() {
    const ROUNDS: usize = 6;
    const LINES: usize = 500;
    let mut scene = Scene::notified(&[("a.log", From::Start)]);
    let directory = scene.directory.path().to_owned();
    let (seen, wait) = mpsc::channel();
    let writer = thread::spawn(move || {
        let open = || OpenOptions::new().append(true).create(true).open(directory.join("a.log")).unwrap();
        let mut file = open();
        for round in 0..ROUNDS {
            for i in 0..LINES {
                if i == 200 {
                    wait.recv().unwrap();
                    fs::rename(directory.join("a.log"), directory.join(format!("a.log.{round}"))).unwrap();
                }
                if i == 300 {
                    // The new file is there, but the line begun in the old one is completed there.
                    file.write_all(b"written in ").unwrap();
                    let new = open();
                    file.write_all(b"pieces\n").unwrap();
                    file = new;
                }
                file.write_all(format!("{round} {i}\n").as_bytes()).unwrap();
            }
        }
    });
    let end = Instant::now() + PATIENCE;
    let mut told = 0;
    while scene.record.lines.len() < ROUNDS * (LINES + 1) {
        assert!(Instant::now() < end, "{} lines came", scene.record.lines.len());
        scene.follower.turn(scene.now, Duration::from_millis(100), &mut scene.record);
        while told < scene.record.opened.len() {
            told += 1;
            let _ = seen.send(());
        }
    }
    writer.join().unwrap();
    scene.turn();
    let mut pieces = 0;
    let mut got = Vec::new();
    for (_, line) in &scene.record.lines {
        if line == b"written in pieces" {
            pieces += 1;
        } else {
            got.push(String::from_utf8(line.clone()).unwrap());
        }
    }
    assert_eq!(pieces, ROUNDS);
    let mut wanted: Vec<_> = (0..ROUNDS).flat_map(|r| (0..LINES).map(move |i| format!("{r} {i}"))).collect();
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted);
}

/// Set in a process that may not have what is named.
const WITHOUT: &str = "STOCKADE_TEST_WITHOUT_INOTIFY";

#[test]
fn polling_goes_on_when_inotify_is_exhausted() {
    let mut scene = Scene::with(Options::default(), &[]);
    scene.follower = Follower::new(Options::default());
    scene.set_sources(&[("a.log", From::Start)]);
    scene.append("a.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    scene.append("a.log", "2\n");
    assert_eq!(scene.later(1), "2|");
    scene.append("b", "3\n");
    scene.rename("b", "a.log");
    assert_eq!(scene.later(1), "3|");
    scene.later(100);
    let Ok(without) = std::env::var(WITHOUT) else {
        // Again, in a namespace of users that has its own limits, both of which are nothing.
        for (limit, named) in [("instances", "no inotify: "), ("watches", "no inotify watch for ")] {
            let script = format!("echo 0 > /proc/sys/user/max_inotify_{limit} && exec \"$@\"");
            let output = Command::new("unshare")
                .args(["-r", "sh", "-c", &script, "sh"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "follow::tests::notified::polling_goes_on_when_inotify_is_exhausted"])
                .env(WITHOUT, format!("{named}|sysctl fs.inotify.max_user_{limit}"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{limit}: {said}{output:?}");
        }
        return;
    };
    let (named, sysctl) = without.split_once('|').unwrap();
    let said = scene.record.events.iter().filter(|event| event.starts_with(named) && event.contains(sysctl));
    assert_eq!(said.count(), 1, "{:?}", scene.record.events);
}
