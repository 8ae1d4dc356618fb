//! The file, written and read again; and what may happen to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::engine::{Changed, Changes, Open, Record, RecordChange};
use crate::follow::{Inside, Mark, Position};
use crate::ledger::{Checkpoint, Ledger, Loaded, Outcome, Store};
use crate::sinks::event::{Event, Fault};
use crate::sinks::outbox::Row;
use crate::types::{Ban, JailId, Timestamp};

const NAME: &str = "stockade.db";

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn ban(jail: u16, offender: &str) -> Ban {
    Ban {
        jail: JailId(jail),
        offender: offender.parse().unwrap(),
        since: time(5),
        until: (jail == 0).then(|| time(i64::MAX)),
        offenses: 7,
        evidence: b"GET /\xff\0".as_slice().into(),
        forced: jail == 1,
    }
}

fn open(jail: u16, offender: &str, heard: i64) -> Open {
    Open {
        jail: JailId(jail),
        offender: offender.parse().unwrap(),
        heard: time(heard),
        floor: (heard > 1).then(|| time(-3)),
        times: (0..heard).map(time).collect(),
    }
}

fn record(jail: Option<u16>, end: Option<i64>) -> Record {
    Record {
        jail: jail.map(JailId),
        offender: "2001:db8::/56".parse().unwrap(),
        count: u32::MAX,
        last: time(6),
        last_end: end.map(time),
    }
}

fn mark(inode: u64, offset: u64) -> Mark {
    Mark {
        path: "/var/log/\u{fc}.log".into(),
        position: Position { dev: u64::MAX, inode, offset },
        head: b"head\n".as_slice().into(),
        inside: Inside::LongLine,
        tail: b"tail".as_slice().into(),
    }
}

fn nothing() -> Checkpoint {
    fn none<T>() -> Changed<T> {
        Changed { all: false, gone: Vec::new(), now: Vec::new() }
    }
    Checkpoint {
        at: time(9),
        jails: vec!["a".to_owned(), "b".to_owned()],
        changes: Changes { bans: none(), windows: none(), history: Vec::new(), all_history: false },
        all_sources: false,
        files: Vec::new(),
        cursors: Vec::new(),
        outbox: Default::default(),
    }
}

fn something() -> Checkpoint {
    let mut checkpoint = nothing();
    checkpoint.changes.bans.now = vec![ban(0, "192.0.2.1/32"), ban(1, "2001:db8::/64")];
    checkpoint.changes.windows.now = vec![open(0, "192.0.2.2/32", 4), open(1, "192.0.2.2/32", 1)];
    checkpoint.changes.history =
        vec![RecordChange::Noted(record(None, None)), RecordChange::Noted(record(Some(1), Some(77)))];
    checkpoint.files = vec![((u64::MAX, 1), Some(mark(1, u64::MAX))), ((u64::MAX, 2), Some(mark(2, 0)))];
    checkpoint.cursors = vec![("journal:x".to_owned(), Some("s=1".to_owned()))];
    checkpoint.outbox.put = vec![row(7, "a"), row(9, "b \u{fc}")];
    checkpoint
}

fn row(id: u64, message: &str) -> Row {
    let event = Event::Error(Fault { at: time(1_795_000_000_001), message: message.to_owned() });
    Row { id, sink: "telegram".into(), event: event.into() }
}

/// As the process after the next gives numbers: the other way round.
fn other_numbers(name: &str) -> Option<JailId> {
    ["b", "a"].iter().position(|known| *known == name).map(|n| JailId(u16::try_from(n).unwrap()))
}

fn write(state: &Path, checkpoint: &Checkpoint) {
    let (mut store, _) = Store::open(state, &other_numbers).unwrap();
    store.write(checkpoint).unwrap();
    store.close();
}

fn read(state: &Path) -> Loaded {
    let (store, loaded) = Store::open(state, &other_numbers).unwrap();
    store.close();
    loaded
}

#[test]
fn what_was_written_is_read() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &something());
    let loaded = read(state.path());
    let mut bans = loaded.bans;
    bans.sort_by_key(|ban| ban.jail);
    let renumbered = |mut ban: Ban| {
        ban.jail = JailId(1 - ban.jail.0);
        ban
    };
    assert_eq!(bans, [renumbered(ban(1, "2001:db8::/64")), renumbered(ban(0, "192.0.2.1/32"))]);
    // Who was heard from last comes last.
    assert_eq!(loaded.windows, [open(0, "192.0.2.2/32", 1), open(1, "192.0.2.2/32", 4)]);
    assert_eq!(loaded.history, [record(None, None), record(Some(0), Some(77))]);
    assert_eq!(loaded.files, [mark(1, u64::MAX), mark(2, 0)]);
    assert_eq!(loaded.cursors["journal:x"], "s=1");
    assert_eq!(loaded.outbox, [row(7, "a"), row(9, "b \u{fc}")]);
    assert_eq!(loaded.strangers, 0);
    assert_eq!(loaded.seed, read(state.path()).seed);
}

/// In a container `/var/lib/stockade` is a link to where the state is mounted.
#[test]
fn the_directory_may_be_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("data"), dir.path().join("state"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    write(&link, &something());
    assert!(real.join(NAME).is_file());
    assert_eq!(read(&real).bans, read(&link).bans);
    assert!(!read(&link).bans.is_empty());
    // The file itself may not: it would be somebody else's.
    fs::rename(real.join(NAME), dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), real.join(NAME)).unwrap();
    assert!(Store::open(&link, &other_numbers).is_err());
}

#[test]
fn changes_go_by_gone_first() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &something());
    let mut next = nothing();
    let key = (JailId(0), "192.0.2.1/32".parse().unwrap());
    next.changes.bans.gone = vec![key, (JailId(1), "2001:db8::/64".parse().unwrap())];
    next.changes.bans.now = vec![Ban { offenses: 99, ..ban(0, "192.0.2.1/32") }];
    let offender = record(None, None).offender;
    next.changes.history = vec![RecordChange::Forgotten { jail: None, offender }];
    next.files = vec![((u64::MAX, 1), None)];
    next.cursors = vec![("journal:x".to_owned(), None)];
    next.outbox.gone = vec![7];
    next.outbox.put = vec![row(9, "merged"), row(10, "new")];
    write(state.path(), &next);
    let loaded = read(state.path());
    assert_eq!(loaded.bans.iter().map(|ban| ban.offenses).collect::<Vec<_>>(), [99]);
    assert_eq!((loaded.files, loaded.cursors.len()), (vec![mark(2, 0)], 0));
    assert_eq!(loaded.windows.len(), 2);
    assert_eq!(loaded.history, [record(Some(0), Some(77))]);
    assert_eq!(loaded.outbox, [row(9, "merged"), row(10, "new")]);

    let mut everything = nothing();
    (everything.changes.bans.all, everything.changes.windows.all, everything.all_sources) =
        (true, true, true);
    everything.changes.windows.now = vec![open(0, "192.0.2.9/32", 1)];
    (everything.outbox.all, everything.outbox.put) = (true, vec![row(1, "x")]);
    write(state.path(), &everything);
    let loaded = read(state.path());
    assert_eq!((loaded.bans.len(), loaded.windows.len(), loaded.files.len()), (0, 1, 0));
    assert_eq!(loaded.outbox, [row(1, "x")]);
}

/// What the first version wrote, and an event that only a later one knows.
#[test]
fn an_earlier_versions_file_becomes_todays() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &something());
    let connection = rusqlite::Connection::open(state.path().join(NAME)).unwrap();
    connection.execute_batch("DROP TABLE outbox; PRAGMA user_version = 1").unwrap();
    drop(connection);
    let loaded = read(state.path());
    assert_eq!((loaded.bans.len(), loaded.windows.len(), loaded.outbox.len()), (2, 2, 0));
    write(state.path(), &something());
    let connection = rusqlite::Connection::open(state.path().join(NAME)).unwrap();
    connection.execute("UPDATE outbox SET event = '{\"event\":\"new\"}' WHERE id = 7", []).unwrap();
    drop(connection);
    assert_eq!(read(state.path()).outbox, [row(9, "b \u{fc}")]);
}

#[test]
fn what_belongs_to_no_jail_is_left_out_and_dropped() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &something());
    let only_b = |name: &str| (name == "b").then_some(JailId(0));
    let (mut store, loaded) = Store::open(state.path(), &only_b).unwrap();
    assert_eq!((loaded.bans.len(), loaded.windows.len(), loaded.strangers), (1, 1, 2));
    assert_eq!(store.forget_strangers(&["b".to_owned()], time(0)).unwrap(), 2);
    // What is known of repeaters stays for a while, should the jail come back.
    assert_eq!(store.forget_strangers(&[], time(0)).unwrap(), 2);
    assert_eq!(store.forget_strangers(&[], time(40 * 86_400_000)).unwrap(), 1);
    store.close();
    let loaded = read(state.path());
    assert_eq!((loaded.bans.len(), loaded.history), (0, vec![record(None, None)]));
}

#[test]
fn it_is_for_us_alone() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("new/deeper");
    write(&state, &something());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(NAME))), (0o700, 0o600));
    fs::set_permissions(state.join(NAME), fs::Permissions::from_mode(0o644)).unwrap();
    let (store, _) = Store::open(&state, &other_numbers).unwrap();
    assert_eq!(mode(&state.join(NAME)), 0o600);
    assert_eq!(mode(&state.join("stockade.db-wal")), 0o600);
    // Not to be shared: the second agent is told so.
    let second = Store::open(&state, &other_numbers).unwrap_err().to_string();
    assert!(second.contains("another program uses it"), "{second}");
    store.close();
}

#[test]
fn nothing_but_a_file_is_opened() {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join(NAME)).unwrap();
    let error = Store::open(state.path(), &other_numbers).unwrap_err().to_string();
    assert!(error.ends_with("stockade.db is not a regular file: take it away"), "{error}");
    fs::remove_dir(state.path().join(NAME)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", state.path().join(NAME)).unwrap();
    assert!(
        Store::open(state.path(), &other_numbers).unwrap_err().to_string().contains("not a regular file")
    );
}

/// Runs `checkpoint` through the thread.
fn through(state: &Path, checkpoint: Checkpoint) -> (Loaded, Option<String>, Outcome) {
    let jails = ["b".to_owned(), "a".to_owned()];
    let (mut ledger, loaded, problem) = Ledger::start(state, &jails, &other_numbers).unwrap();
    ledger.write(checkpoint);
    assert!(ledger.is_busy());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(ledger.outcome());
    ledger.close().join().unwrap();
    (loaded, problem, outcome)
}

fn everything() -> Checkpoint {
    let mut checkpoint = something();
    (checkpoint.changes.bans.all, checkpoint.changes.windows.all, checkpoint.all_sources) =
        (true, true, true);
    checkpoint
}

/// Wherever a page is overwritten: at worst the file is set aside, and the next one takes everything.
#[test]
fn damage_is_set_aside_and_costs_nothing_but_the_past() {
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), &something());
    let bytes = fs::read(whole.path().join(NAME)).unwrap();
    let page = 4096;
    for (n, damage) in bytes.chunks(page).enumerate() {
        for garbage in [0xff, 0, 0x55] {
            let state = tempfile::tempdir().unwrap();
            let mut bad = bytes.clone();
            bad[n * page..n * page + damage.len()].fill(garbage);
            fs::write(state.path().join(NAME), &bad).unwrap();
            let (_, problem, outcome) = through(state.path(), everything());
            let outcome = match outcome {
                Outcome::Written(_) => Outcome::Written(super::Size::default()),
                // Found when it was written to: the next one must hold everything.
                Outcome::Failed(_) => through(state.path(), everything()).2,
            };
            assert!(matches!(outcome, Outcome::Written(_)), "page {n}, {garbage:#x}: {outcome:?}");
            if let Some(problem) = problem {
                assert!(problem.contains("set aside as"), "{problem}");
            }
            assert_eq!(read(state.path()).bans.len(), 2, "page {n}, {garbage:#x}");
        }
    }
}

#[test]
fn what_is_no_database_is_set_aside_and_only_two_are_kept() {
    let state = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        fs::write(state.path().join(NAME), "what is this\n".repeat(1000)).unwrap();
        let (loaded, problem, outcome) = through(state.path(), everything());
        assert!(loaded.bans.is_empty() && problem.is_some(), "{problem:?}");
        assert!(matches!(outcome, Outcome::Written(_)), "{outcome:?}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let names =
        fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("damaged")).count(), 2);
}

#[test]
fn tables_that_are_missing_are_damage() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &something());
    let connection = rusqlite::Connection::open(state.path().join(NAME)).unwrap();
    connection.execute_batch("DROP TABLE windows").unwrap();
    drop(connection);
    let (_, problem, outcome) = through(state.path(), everything());
    assert!(problem.unwrap().contains("set aside as"));
    assert!(matches!(outcome, Outcome::Written(_)));
}

#[test]
fn a_later_versions_file_is_left_alone() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &something());
    let connection = rusqlite::Connection::open(state.path().join(NAME)).unwrap();
    connection.pragma_update(None, "user_version", 1000).unwrap();
    drop(connection);
    let (_, problem, outcome) = through(state.path(), something());
    let problem = problem.unwrap();
    assert!(problem.contains("later version of stockade (its schema is 1000"), "{problem}");
    assert!(matches!(outcome, Outcome::Failed(_)));
}

/// A full file system: what cannot be written is told, and can be when there is room again.
#[test]
fn a_full_disk_is_told() {
    let state = tempfile::tempdir().unwrap();
    write(state.path(), &something());
    let (mut store, _) = Store::open(state.path(), &other_numbers).unwrap();
    store.limit_pages(12);
    let mut much = something();
    much.changes.bans.now =
        (0..2000u32).map(|n| ban(0, &format!("10.0.{}.{}/32", n / 256, n % 256))).collect();
    let error = store.write(&much).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
    store.limit_pages(100_000);
    store.write(&much).unwrap();
    store.close();
    assert_eq!(read(state.path()).bans.len(), 2002);
}

#[test]
fn what_is_free_is_given_back() {
    let state = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(state.path(), &other_numbers).unwrap();
    let mut much = nothing();
    let ban = |n: u32| Ban {
        evidence: vec![b'x'; 200].into(),
        ..ban(0, &format!("10.0.{}.{}/32", n >> 8, n & 255))
    };
    much.changes.bans.now = (0..40_000).map(ban).collect();
    store.write(&much).unwrap();
    let full = store.tidy().unwrap();
    let mut none = nothing();
    none.changes.bans.all = true;
    store.write(&none).unwrap();
    let mut size = full;
    for _ in 0..20 {
        size = store.tidy().unwrap();
    }
    assert!(full > 5_000_000 && size < full / 2 + 4_500_000 && size < full, "{full} to {size}");
    store.close();
}
