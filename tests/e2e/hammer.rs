//! Somebody commits without pause, to a table of their own: our bans get into the kernel nevertheless.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use nft::{Batch, Connection, Family, Table};
use stockade::kernel::{Desired, Enforcer, Kind, Layout, SetId, Want};
use stockade::types::{JailId, Timestamp};

const BANS: u32 = 50_000;
const SET: SetId = SetId { scope: 0, kind: Kind::Single4 };

fn in_an_hour() -> Timestamp {
    now().saturating_add(Duration::from_secs(3600))
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// So many bans, all of the same end.
fn bans(count: u32, end: Timestamp) -> Desired {
    let want = Want { end: Some(end), comment: "npm, 5 offenses, 2026-11-21T00:00:00Z".to_owned() };
    let net = |n| IpNet::V4(Ipv4Net::from(Ipv4Addr::from_bits(0x0a00_0000 + n)));
    (0..count).map(|n| ((SET, net(n)), want.clone())).collect()
}

/// Commits until told to stop; how often that was.
fn hammer(stop: &AtomicBool) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open().unwrap();
        let table = Table::new(Family::Ip, "hammer");
        let mut commits = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut batch = Batch::new();
            batch.add(&table).delete(&table);
            connection.commit(&batch).await.unwrap();
            commits += 1;
        }
        commits
    })
}

#[test]
fn a_restless_ruleset_keeps_no_ban_out() {
    // The thread's own namespace, and that of the threads it starts; a test has a process of its own.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let end = in_an_hour();
        let mut enforcer = Enforcer::open(Layout::new([(JailId(0), "npm", &[][..], 64)])).unwrap();
        enforcer.reconcile(&bans(BANS, end), now()).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let hammering = std::thread::spawn(move || hammer(&stopped));
        // A ban more, one less, and what is there cannot be listed in one piece.
        for count in [BANS + 1, BANS - 1] {
            let begin = Instant::now();
            let changes = enforcer.reconcile(&bans(count, end), now()).await.unwrap();
            let back = enforcer.read_back(&changes, now()).await.unwrap();
            assert_eq!(back.missing, []);
            println!("{count} bans brought in line in {} ms", begin.elapsed().as_millis());
        }
        stop.store(true, Ordering::Relaxed);
        println!("{} commits meanwhile", hammering.join().unwrap());
        let held = enforcer.held(now()).await.unwrap();
        assert_eq!(held.len(), BANS as usize - 1);
        // In peace only the difference is written.
        let counts = enforcer.reconcile(&bans(BANS, end), now()).await.unwrap().counts();
        assert_eq!((counts.added, counts.removed, counts.changed), (1, 0, 0));
    });
}

/// What a starting agent lists once is good for its first comparison, unless somebody changed it meanwhile.
#[test]
fn what_was_found_is_compared_only_while_it_is_true() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let end = in_an_hour();
        let layout = || Layout::new([(JailId(0), "npm", &[][..], 64)]);
        Enforcer::open(layout()).unwrap().reconcile(&bans(3, end), now()).await.unwrap();
        for script in [None, Some("flush set inet stockade banned4")] {
            let mut enforcer = Enforcer::open(layout()).unwrap();
            assert_eq!(enforcer.left_behind(now()).await.unwrap().len(), 3);
            if let Some(script) = script {
                assert!(std::process::Command::new("nft").arg(script).status().unwrap().success());
            }
            let counts = enforcer.reconcile(&bans(3, end), now()).await.unwrap().counts();
            assert_eq!(counts.added, if script.is_some() { 3 } else { 0 });
            assert_eq!(enforcer.held(now()).await.unwrap().len(), 3);
        }
    });
}
