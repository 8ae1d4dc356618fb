//! What the kernel took is asked for again, and what is not there is noticed.

use std::process::Command;

use ipnet::IpNet;
use stockade::kernel::{Changes, Desired, Enforcer, Kind, Layout, SetId, Want};
use stockade::types::{JailId, Timestamp};

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

fn set(kind: Kind) -> SetId {
    SetId { scope: 0, kind }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn nft(args: &str) {
    let out = Command::new("nft").arg(args).output().unwrap();
    assert!(out.status.success(), "nft {args}: {}", crate::world::text(&out));
}

#[test]
fn what_is_not_there_is_named() {
    // The thread's own namespace; a test has a process of its own.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut enforcer = Enforcer::open(Layout::new([(JailId(0), "npm", &[][..], 64)])).unwrap();
        let end = Some(now().saturating_add(std::time::Duration::from_secs(3600)));
        let want = || Want { end, comment: "npm, 5 offenses, 2026-11-21T00:00:00Z".to_owned() };
        let all = [
            (Kind::Single4, "192.0.2.1/32"),
            (Kind::Single4, "192.0.2.2/32"),
            (Kind::Single6, "2001:db8::1/128"),
            (Kind::Prefix6(64), "2001:db8:0:66::/64"),
            (Kind::Nets4, "198.51.100.0/24"),
            (Kind::Nets6, "2001:db8:8000::/33"),
        ];
        let mut desired: Desired = all.iter().map(|(kind, n)| ((set(*kind), net(n)), want())).collect();
        // This one is about to run out: that it is gone means nothing.
        let soon = Want { end: Some(now().saturating_add(std::time::Duration::from_millis(5))), ..want() };
        desired.insert((set(Kind::Single4), net("192.0.2.9/32")), soon);
        let changes: Changes = enforcer.reconcile(&desired, now()).await.unwrap();
        let back = enforcer.read_back(&changes, now()).await.unwrap();
        assert_eq!((back.asked, &back.missing[..]), (6, &[][..]));

        for gone in [
            "delete element inet stockade banned4 { 192.0.2.2 }",
            "delete element inet stockade banned6_64 { 2001:db8:0:66:: }",
            "delete element inet stockade nets4 { 198.51.100.0/24 }",
        ] {
            nft(gone);
        }
        // There, but for another time: not what was decided.
        nft("delete element inet stockade banned6 { 2001:db8::1 }");
        nft("add element inet stockade banned6 { 2001:db8::1 timeout 1m }");
        let mut missing = enforcer.read_back(&changes, now()).await.unwrap().missing;
        missing.sort_unstable();
        let mut wanted = vec![
            (set(Kind::Single4), net("192.0.2.2/32")),
            (set(Kind::Prefix6(64)), net("2001:db8:0:66::/64")),
            (set(Kind::Nets4), net("198.51.100.0/24")),
            (set(Kind::Single6), net("2001:db8::1/128")),
        ];
        wanted.sort_unstable();
        assert_eq!(missing, wanted);

        nft("delete table inet stockade");
        assert_eq!(enforcer.read_back(&changes, now()).await.unwrap().missing.len(), 6);
    });
}

/// A burst costs some tens of milliseconds at most.
#[test]
fn a_burst_is_read_back_soon() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut enforcer = Enforcer::open(Layout::new([(JailId(0), "npm", &[][..], 64)])).unwrap();
        let comment = "npm, 5 offenses, 2026-11-21T00:00:00Z".to_owned();
        let want = Want { end: Some(now().saturating_add(std::time::Duration::from_secs(3600))), comment };
        for many in [10_000u32, 100_000] {
            let desired: Desired = (0..many)
                .map(|n| {
                    let a = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n);
                    ((set(Kind::Single4), net(&format!("{a}/32"))), want.clone())
                })
                .collect();
            let begin = std::time::Instant::now();
            let changes = enforcer.reconcile(&desired, now()).await.unwrap();
            let written = begin.elapsed();
            let back = enforcer.read_back(&changes, now()).await.unwrap();
            println!("{} written in {written:?}, read back in {:?}", back.asked, begin.elapsed() - written);
            assert!(back.missing.is_empty());
        }
    });
}
