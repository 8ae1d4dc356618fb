//! What a ban costs, over the socket that stays open and through nft(8).
//!
//! `cargo bench -p stockade-nft`. Runs in a network namespace of its own, as root or not.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nft::{Batch, Connection, Element, Family, KeyType, Set, Table, Watcher};

const MANY: u32 = 100_000;

fn main() {
    // `cargo test --benches` and nextest ask for a list of tests: there is none.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    enter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

/// A new network namespace, so that nothing here can touch the host's ruleset.
fn enter() {
    // SAFETY: these take no pointers.
    let (uid, gid, r) = unsafe {
        let (uid, gid) = (libc::geteuid(), libc::getegid());
        let user = if uid == 0 { 0 } else { libc::CLONE_NEWUSER };
        (uid, gid, libc::unshare(libc::CLONE_NEWNET | user))
    };
    assert_eq!(r, 0, "a network namespace is needed: {}", std::io::Error::last_os_error());
    if uid != 0 {
        // Root in the new user namespace, or `nft` loses its rights when it is started.
        let maps = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {uid} 1")),
            ("gid_map", format!("0 {gid} 1")),
        ];
        for (file, text) in maps {
            std::fs::write(format!("/proc/self/{file}"), text).expect("the maps can be written");
        }
    }
}

fn table() -> Table {
    Table::new(Family::Inet, "bench")
}

fn banned4() -> Set {
    Set::new(&table(), "banned4", KeyType::Ipv4Addr).timeout()
}

fn ban(n: u32) -> Element {
    Element::new(Ipv4Addr::from_bits(0x0a00_0000 + n)).timeout(Duration::from_secs(3600))
}

async fn fresh() -> Connection {
    fresh_with(banned4()).await
}

async fn fresh_with(set: Set) -> Connection {
    let mut conn = Connection::open().expect("a socket");
    let mut batch = Batch::new();
    batch.destroy(table()).add(table()).add(set);
    conn.commit(&batch).await.expect("an empty set");
    conn
}

async fn run() {
    println!("{:<58} {:>10} {:>10}", "", "p50", "p99");
    let mut conn = fresh().await;
    singles("one ban, empty set", &mut conn, 0, 20_000).await;
    let mut conn = fresh().await;
    bulk(&mut conn, MANY as usize).await;
    singles("one ban, 100,000 in the set", &mut conn, MANY, 20_000).await;
    watched().await;
    if nft_is_there() {
        spawned(200);
    }

    println!("\n{:<58} {:>10} {:>10}", "100,000 elements with timeout", "", "each");
    for per_batch in [1000, 10_000, MANY as usize] {
        let mut conn = fresh().await;
        let took = bulk(&mut conn, per_batch).await;
        total(&format!("added, {per_batch} a batch"), took);
    }
    // The kernel makes its hash table for the size the set may have, instead of growing it from four.
    for per_batch in [1000, MANY as usize] {
        let mut conn = fresh_with(banned4().size(MANY)).await;
        let took = bulk(&mut conn, per_batch).await;
        total(&format!("added to a set with a size, {per_batch} a batch"), took);
    }
    // Every counter is memory of every processor.
    let mut conn = fresh_with(banned4().counter()).await;
    let took = bulk(&mut conn, 1000).await;
    total("added to a set with counters, 1000 a batch", took);
    // The table is rebuilt in the background after it has grown; a listing waits for that.
    let mut conn = fresh().await;
    bulk(&mut conn, MANY as usize).await;
    conn.elements(&banned4()).await.expect("a listing");
    let start = Instant::now();
    let listed = conn.elements(&banned4()).await.expect("a listing");
    total("listed", start.elapsed());
    assert_eq!(listed.len(), MANY as usize);
    if nft_is_there() {
        let start = Instant::now();
        nft(&["list", "set", "inet", "bench", "banned4"], "");
        total("listed by nft", start.elapsed());
    }
    let mut batch = Batch::new();
    batch.delete_elements(&banned4(), (0..MANY).map(ban));
    let start = Instant::now();
    conn.commit(&batch).await.expect("they are there");
    total("removed, one batch", start.elapsed());
    if nft_is_there() {
        fresh().await;
        let mut script = Batch::new();
        script.add_elements(&banned4(), (0..MANY).map(ban));
        let script = script.to_string();
        let start = Instant::now();
        nft(&["-f", "-"], &script);
        total("added by nft -f", start.elapsed());
    }
}

async fn singles(what: &str, conn: &mut Connection, from: u32, n: u32) {
    let set = banned4();
    let mut times = Vec::with_capacity(n as usize);
    for i in from..from + n {
        let start = Instant::now();
        let mut batch = Batch::new();
        batch.add_elements(&set, [ban(i)]);
        conn.commit(&batch).await.expect("a new address");
        times.push(start.elapsed());
    }
    percentiles(what, times);
}

/// With a watcher that skips our own changes: what the agent does.
async fn watched() {
    let mut conn = fresh().await;
    let mut watcher = Watcher::open().expect("a socket");
    watcher.ignore(conn.port_id().expect("a port"));
    let events = tokio::spawn(async move { while watcher.next().await.is_ok() {} });
    let mut times = Vec::new();
    for i in 0..5000 {
        let start = Instant::now();
        let mut batch = Batch::new();
        batch.add_elements(&banned4(), [ban(i)]);
        conn.commit(&batch).await.expect("a new address");
        times.push(start.elapsed());
        tokio::task::yield_now().await;
    }
    events.abort();
    percentiles("one ban, while a watcher listens", times);
}

fn spawned(n: u32) {
    let mut times = Vec::new();
    for i in 0..n {
        let element = format!("{{ {} }}", ban(MANY + 50_000 + i));
        let start = Instant::now();
        nft(&["add", "element", "inet", "bench", "banned4", &element], "");
        times.push(start.elapsed());
    }
    percentiles("one ban, a process `nft add element`", times);
}

async fn bulk(conn: &mut Connection, per_batch: usize) -> Duration {
    let bans: Vec<Element> = (0..MANY).map(ban).collect();
    let start = Instant::now();
    for part in bans.chunks(per_batch) {
        let mut batch = Batch::new();
        batch.add_elements(&banned4(), part.iter().cloned());
        conn.commit(&batch).await.expect("room");
    }
    start.elapsed()
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e6;
    println!("{what:<58} {:>7.1} µs {:>7.1} µs", at(50), at(99));
}

fn total(what: &str, took: Duration) {
    println!(
        "{what:<58} {:>7.1} ms {:>7.2} µs",
        took.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e6 / f64::from(MANY)
    );
}

fn nft_is_there() -> bool {
    Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn nft(args: &[&str], input: &str) {
    use std::io::Write as _;
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("nft starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("nft reads");
    assert!(child.wait().expect("nft ends").success(), "nft {args:?}");
}
