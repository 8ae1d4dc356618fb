//! Another configuration while logs are being written: nothing that stays is touched.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, eventually, text};

const SOON: Duration = Duration::from_secs(10);

fn jails(extra: &str, ignoreip: &str) -> String {
    format!(
        "
filters:
  bad: {{ failregex: '^bad <HOST>$' }}
  worse: {{ failregex: '^worse <HOST>$' }}
defaults: {{ filter: bad, logpath: DIR/a.log, from: start, findtime: 1h, bantime: 1h, ignoreip: [{ignoreip}] }}
jails:
  stays: {{ maxretry: 3 }}
  counts: {{ filter: worse, maxretry: 1000000 }}
{extra}"
    )
}

fn status(world: &World) -> Value {
    serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap()
}

fn jail<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["jails"].as_array().unwrap().iter().find(|jail| jail["jail"] == name).unwrap()
}

fn bans(world: &World, jail: &str) -> Vec<String> {
    let list: Vec<Value> =
        serde_json::from_slice(&world.stockade(&["bans", "--jail", jail, "--json"]).stdout).unwrap();
    list.iter().map(|ban| ban["offender"].as_str().unwrap().to_owned()).collect()
}

fn reload(world: &mut World, config: &str) -> String {
    world.configure(config);
    let out = world.stockade(&["reload"]);
    assert!(out.status.success(), "{}", text(&out));
    text(&out)
}

fn write(world: &World, line: &str) {
    let mut log = OpenOptions::new().create(true).append(true).open(world.dir().join("a.log")).unwrap();
    writeln!(log, "{} {line}", jiff::Timestamp::now()).unwrap();
}

#[test]
fn no_line_is_lost_over_reloads_under_load() {
    let mut world = World::new();
    fs::write(world.dir().join("a.log"), "").unwrap();
    world.start_agent(&jails("", ""));
    let (done, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = std::thread::spawn({
        let (done, written) = (Arc::clone(&done), Arc::clone(&written));
        let mut log = OpenOptions::new().append(true).open(world.dir().join("a.log")).unwrap();
        move || {
            while !done.load(Ordering::Relaxed) {
                let at = jiff::Timestamp::now();
                log.write_all(format!("{at} worse 192.0.2.9\n").repeat(50).as_bytes()).unwrap();
                written.fetch_add(50, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    for round in 0..20 {
        let extra = format!("  other{}: {{ logpath: DIR/b{round}.log }}\n", round % 3);
        reload(&mut world, &jails(&extra, ""));
        std::thread::sleep(Duration::from_millis(15));
    }
    done.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let written = written.load(Ordering::Relaxed);
    let counted = || jail(&status(&world), "counts")["offenses"].as_u64().unwrap();
    assert!(eventually(SOON, || counted() >= written), "{} of {written}", counted());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(counted(), written);
}

#[test]
fn a_reload_touches_nothing_but_what_it_changes() {
    let mut world = World::new();
    fs::write(world.dir().join("a.log"), "").unwrap();
    let other = "  other: { maxretry: 2 }\n";
    world.start_agent(&jails(other, ""));
    for who in ["198.51.100.1", "198.51.100.2"] {
        for _ in 0..3 {
            write(&world, &format!("bad {who}"));
        }
    }
    // Two of three: on the way.
    write(&world, "bad 198.51.100.3");
    assert!(eventually(SOON, || bans(&world, "stays").len() == 2 && bans(&world, "other").len() == 2));
    let before = status(&world);

    // A jail goes, and with it its bans; one comes; one is changed.
    let told = reload(&mut world, &jails("  new: { maxretry: 1 }\n", ""));
    assert!(told.contains("lifted"), "{told}");
    assert_eq!(bans(&world, "stays").len(), 2);
    let table = world.table();
    assert!(table.contains("198.51.100.1") && !table.contains("other,"), "{table}");
    let (stays, file) = (jail(&before, "stays").clone(), jail(&status(&world), "stays").clone());
    assert_eq!(stays["files"][0]["position"], file["files"][0]["position"]);
    assert_eq!(stays["lines"], file["lines"]);

    // Counts go on: the third offense of three.
    write(&world, "bad 198.51.100.3");
    assert!(eventually(SOON, || bans(&world, "new") == ["198.51.100.3"]));
    assert_eq!(bans(&world, "stays").len(), 2);
    write(&world, "bad 198.51.100.3");
    assert!(eventually(SOON, || bans(&world, "stays").len() == 3));

    // Who is now allowed is let in again, and nobody else.
    let told = reload(&mut world, &jails("  new: { maxretry: 1 }\n", "198.51.100.2"));
    assert!(told.contains("1 ban lifted"), "{told}");
    assert_eq!(bans(&world, "stays"), ["198.51.100.1", "198.51.100.3"]);
    assert!(!world.table().contains("198.51.100.2 "), "{}", world.table());

    // A mistake changes nothing, and is told to whom asked.
    world.configure(&jails("  new: { maxretry: none }\n", ""));
    let out = world.stockade(&["reload"]);
    assert_eq!(out.status.code(), Some(2));
    let told = text(&out);
    assert!(told.contains("jails.new.maxretry") && told.contains("the old configuration stays"), "{told}");
    assert_eq!(bans(&world, "stays").len(), 2);

    // After a crash, too, all is as the last configuration that held said.
    world.configure(&jails("  new: { maxretry: 1 }\n", "198.51.100.2"));
    world.kill_agent();
    world.run_agent();
    assert_eq!(bans(&world, "stays"), ["198.51.100.1", "198.51.100.3"]);
    assert_eq!(bans(&world, "new"), ["198.51.100.3"]);
}
