//! Batches: what they do, and what a refused one says.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use nft::{
    Batch, Chain, ChainType, CommitError, Connection, Element, Expr, Family, Hook, KeyType, Reject, Rule,
    Set, Table, priority,
};

use crate::namespace::{enter, nft};

fn table() -> Table {
    Table::new(Family::Inet, "stockade")
}

fn banned4() -> Set {
    Set::new(&table(), "banned4", KeyType::Ipv4Addr).timeout()
}

/// The n-th of many addresses.
fn nth(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + n)
}

async fn conn_with(objects: impl FnOnce(&mut Batch)) -> Connection {
    let mut conn = Connection::open().unwrap();
    let mut batch = Batch::new();
    batch.add(table());
    objects(&mut batch);
    conn.commit(&batch).await.unwrap();
    conn
}

async fn refused(conn: &mut Connection, fill: impl FnOnce(&mut Batch)) -> CommitError {
    let mut batch = Batch::new();
    fill(&mut batch);
    conn.commit(&batch).await.expect_err("the batch should be refused")
}

#[test]
fn an_error_names_the_element_in_a_later_message() {
    enter(async {
        let set = banned4();
        let mut conn = conn_with(|b| {
            b.add(&set).add_elements(&set, [nth(4321)]);
        })
        .await;
        let error = refused(&mut conn, |b| {
            b.add_elements(&set, (90_000..90_010).map(nth));
            b.create_elements(&set, (0..5000).map(|n| Element::new(nth(n)).timeout(Duration::from_secs(9))));
        })
        .await;
        assert!(error.is_already_exists());
        let expected =
            "failed to create element 10.0.16.225 to set inet stockade banned4: File exists (os error 17)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(conn.elements(&set).await.unwrap().len(), 1, "nothing of the batch may be left");
    });
}

#[test]
fn an_error_names_the_missing_element_of_an_interval_set() {
    enter(async {
        let set = Set::new(&table(), "nets4", KeyType::Ipv4Addr).interval();
        let nets = |n: std::ops::Range<u32>| n.map(|n| IpNet::new(nth(n * 256).into(), 24).unwrap());
        let mut conn = conn_with(|b| {
            b.add(&set).add_elements(&set, nets(0..300)).add_elements(&set, nets(301..600));
        })
        .await;
        let error = refused(&mut conn, |b| {
            b.delete_elements(&set, nets(0..600));
        })
        .await;
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "failed to delete element 10.1.44.0/24 from set inet stockade nets4: No such file or directory (os error 2)"
        );
        assert_eq!(conn.elements(&set).await.unwrap().len(), 599);
    });
}

#[test]
fn an_error_names_the_object() {
    enter(async {
        let pre = Chain::new(&table(), "pre");
        let mut conn = conn_with(|b| {
            b.add(banned4()).add(&pre);
        })
        .await;
        let nowhere = Table::new(Family::Ip, "nowhere");
        let no = Set::new(&table(), "no", KeyType::Ipv4Addr);
        type Fill<'a> = &'a dyn Fn(&mut Batch);
        let cases: [(Fill<'_>, &str, i32); 8] = [
            (&|b| _ = b.create(table()), "create table inet stockade", libc::EEXIST),
            (&|b| _ = b.delete(&nowhere), "delete table ip nowhere", libc::ENOENT),
            (&|b| _ = b.add(Chain::new(&nowhere, "c")), "add chain ip nowhere c", libc::ENOENT),
            (&|b| _ = b.create(banned4()), "create set inet stockade banned4", libc::EEXIST),
            (
                &|b| _ = b.add(Set::new(&table(), "banned4", KeyType::Ipv6Addr)),
                "add set inet stockade banned4",
                libc::EEXIST,
            ),
            (
                &|b| _ = b.add(Rule::new(&pre).ip_saddr_in(&no).drop()),
                "add rule of chain inet stockade pre",
                libc::ENOENT,
            ),
            (&|b| _ = b.delete(Rule::new(&pre)), "delete rule of chain inet stockade pre", libc::ENOENT),
            (&|b| _ = b.flush(&no), "flush set inet stockade no", libc::ENOENT),
        ];
        for (fill, what, errno) in cases {
            let error = refused(&mut conn, fill).await;
            assert_eq!(error.errno(), Some(errno), "{what}");
            assert!(error.to_string().starts_with(&format!("failed to {what}: ")), "{error}");
        }
        // A rule without a handle must not have emptied the chain, nor anything else have changed.
        assert_eq!(conn.sets(&table()).await.unwrap().len(), 1);
    });
}

#[test]
fn what_does_not_fit_is_not_sent() {
    enter(async {
        let set = banned4();
        let mut conn = conn_with(|b| _ = b.add(&set)).await;
        let generation = conn.generation().await.unwrap();
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let error = refused(&mut conn, |b| _ = b.add_elements(&set, [six])).await;
        assert_eq!(
            error.to_string(),
            "failed to add element 2001:db8::1 to set inet stockade banned4: the key does not have the set's type"
        );
        let error = refused(&mut conn, |b| _ = b.delete_elements(&set, [net])).await;
        assert_eq!(
            error.to_string(),
            "failed to delete element 192.0.2.0/24 from set inet stockade banned4: a range or prefix needs a set with \
             the interval flag"
        );
        let error = refused(&mut conn, |b| _ = b.add(Table::new(Family::Ip, &"x".repeat(70_000)))).await;
        assert!(matches!(error, CommitError::Unwritable { .. }), "{error}");
        let error = refused(&mut conn, |b| _ = b.add(Table::new(Family::Ip, "a\0b"))).await;
        assert!(matches!(error, CommitError::Unwritable { .. }), "{error}");
        assert_eq!(conn.generation().await.unwrap(), generation);
    });
}

#[test]
fn a_hundred_thousand_elements_are_one_transaction() {
    enter(async {
        let set = banned4();
        let mut conn = conn_with(|b| _ = b.add(&set)).await;
        let before = conn.generation().await.unwrap();
        let mut batch = Batch::new();
        batch.add_elements(
            &set,
            (0..100_000).map(|n| {
                Element::new(nth(n))
                    .timeout(Duration::from_secs(3600))
                    .comment("seen in a log, and worth a comment")
            }),
        );
        conn.commit(&batch).await.unwrap();
        assert_eq!(conn.generation().await.unwrap(), before + 1);
        // The set is still growing its hash table, so that a single listing would have some twice and others not.
        let keys = conn.elements(&set).await.unwrap().into_iter().map(|e| e.key);
        assert!(keys.eq((0..100_000).map(|n| nft::Key::from(nth(n)))));
        let mut batch = Batch::new();
        batch.delete_elements(&set, (0..100_000).map(nth));
        conn.commit(&batch).await.unwrap();
        assert!(conn.elements(&set).await.unwrap().is_empty());
    });
}

#[test]
fn prolonging_is_delete_and_add() {
    enter(async {
        let set = banned4();
        let mut conn = conn_with(|b| {
            b.add(&set).add_elements(&set, [Element::new(nth(1)).timeout(Duration::from_secs(60))]);
        })
        .await;
        let mut batch = Batch::new();
        batch.delete_elements(&set, [nth(1)]);
        batch.add_elements(&set, [Element::new(nth(1)).timeout(Duration::from_secs(7200)).comment("again")]);
        conn.commit(&batch).await.unwrap();
        let elements = conn.elements(&set).await.unwrap();
        assert_eq!(elements.len(), 1);
        assert_eq!(elements[0].timeout, Some(Duration::from_secs(7200)));
        assert!(elements[0].expires > Some(Duration::from_secs(7100)));
        assert_eq!(elements[0].comment.as_deref(), Some("again"));
    });
}

#[test]
fn destroy_takes_what_is_there() {
    enter(async {
        let set = banned4();
        let mut conn = conn_with(|b| _ = b.add(&set).add_elements(&set, [nth(1), nth(2)])).await;
        let mut batch = Batch::new();
        batch.destroy_elements(&set, [nth(2), nth(3)]);
        batch.destroy(Chain::new(&table(), "no")).destroy(Table::new(Family::Ip, "no"));
        batch.destroy(Set::new(&table(), "no", KeyType::Ipv4Addr));
        conn.commit(&batch).await.unwrap();
        assert_eq!(conn.elements(&set).await.unwrap().len(), 1);
    });
}

#[test]
fn flush_empties_and_leaves() {
    enter(async {
        let (set, chain) = (banned4(), Chain::new(&table(), "pre"));
        let other = Chain::new(&table(), "other");
        let mut conn = conn_with(|b| {
            b.add(&set).add(&chain).add(&other).add_elements(&set, (0..10).map(nth));
            b.add(Rule::new(&chain).counter()).add(Rule::new(&chain).drop()).add(Rule::new(&other).drop());
        })
        .await;
        let mut batch = Batch::new();
        batch.flush(&set).flush(&chain);
        conn.commit(&batch).await.unwrap();
        assert!(conn.elements(&set).await.unwrap().is_empty());
        assert_eq!(conn.rules(&table()).await.unwrap().len(), 1);
        batch = Batch::new();
        batch.flush(table());
        conn.commit(&batch).await.unwrap();
        assert!(conn.rules(&table()).await.unwrap().is_empty());
        assert_eq!(conn.chains(&table()).await.unwrap().len(), 2);
    });
}

#[test]
fn no_elements_are_no_message() {
    enter(async {
        let set = banned4();
        let mut conn = conn_with(|b| _ = b.add(&set).add_elements(&set, [nth(1)])).await;
        let mut batch = Batch::new();
        batch.delete_elements(&set, [] as [Ipv4Addr; 0]);
        conn.commit(&batch).await.unwrap();
        assert_eq!(conn.elements(&set).await.unwrap().len(), 1);
    });
}

#[test]
fn a_stale_generation_refuses_the_batch() {
    enter(async {
        let mut conn = conn_with(|_| {}).await;
        let seen = conn.generation().await.unwrap();
        nft(&["add", "table", "ip", "other"]);
        let error = refused(&mut conn, |b| _ = b.only_on(seen).add(banned4())).await;
        assert!(error.is_stale(), "{error}");
        let now = conn.generation().await.unwrap();
        let mut batch = Batch::new();
        batch.only_on(now).add(banned4());
        conn.commit(&batch).await.unwrap();
    });
}

#[test]
fn a_probe_changes_nothing_and_judges_each() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        let generation = conn.generation().await.unwrap();
        let t = table();
        let set = banned4();
        let pre = Chain::new(&t, "pre").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
        let unknown = Expr::Raw { name: "nosuch".into(), data: [].into() };
        let mut batch = Batch::new();
        batch.add(&t).add(&set).add(&pre);
        batch.add(Rule::new(&pre).expr(unknown));
        batch.add_elements(&set, (0..3000).map(nth));
        batch.delete_elements(&set, [nth(9999)]);
        batch.add(Rule::new(&pre).ip_saddr_in(&set).reject(Reject::TcpReset));
        let results = conn.probe(&batch).await.unwrap();
        let errnos: Vec<_> = results.iter().map(|r| r.as_ref().err().map(|e| e.errno)).collect();
        assert_eq!(errnos, [None, None, None, Some(libc::ENOENT), None, Some(libc::ENOENT), None]);
        assert_eq!(conn.generation().await.unwrap(), generation);
        assert_eq!(nft(&["list", "ruleset"]), "");
        conn.commit(&Batch::new()).await.unwrap();
    });
}

#[test]
fn an_owned_table_is_ours_alone_and_persists() {
    enter(async {
        let mut owner = Connection::open().unwrap();
        let t = Table::new(Family::Inet, "mine").owner().persist();
        let mut batch = Batch::new();
        batch.add(&t).add(Set::new(&t, "s", KeyType::Ipv4Addr));
        owner.commit(&batch).await.unwrap();
        let mut other = Connection::open().unwrap();
        let error = refused(&mut other, |b| _ = b.delete(&t)).await;
        assert!(error.is_permission(), "{error}");
        nft(&["flush", "ruleset"]);
        let tables = other.tables().await.unwrap();
        assert_eq!(tables.len(), 1);
        assert!(tables[0].is_owned());
        drop(owner);
        // The next one takes it over with what is in it.
        let mut batch = Batch::new();
        batch.add(&t);
        other.commit(&batch).await.unwrap();
        assert_eq!(other.sets(&t).await.unwrap().len(), 1);
    });
}

#[test]
fn a_cancelled_call_disturbs_nobody() {
    enter(async {
        let set = banned4();
        let mut conn = conn_with(|b| _ = b.add(&set).add_elements(&set, (0..20_000).map(nth))).await;
        for _ in 0..3 {
            // A listing of many pieces, and a batch that fails: each is polled once and dropped.
            let mut listing = Box::pin(conn.elements(&set));
            let waker = std::task::Waker::noop();
            let mut context = std::task::Context::from_waker(waker);
            let _ = listing.as_mut().poll(&mut context);
            drop(listing);
            let mut batch = Batch::new();
            batch.create(&set);
            let mut commit = Box::pin(conn.commit(&batch));
            let _ = commit.as_mut().poll(&mut context);
            drop(commit);
        }
        assert_eq!(conn.elements(&set).await.unwrap().len(), 20_000);
        let mut batch = Batch::new();
        batch.flush(&set);
        conn.commit(&batch).await.unwrap();
    });
}

#[test]
fn without_privileges_it_says_so() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        // The socket remembers no rights: they are looked at when it is used.
        crate::namespace::drop_capabilities();
        let error = refused(&mut conn, |b| _ = b.add(table())).await;
        assert!(error.is_permission(), "{error}");
        assert_eq!(error.to_string(), "the kernel refused the batch: Operation not permitted (os error 1)");
        let mut batch = Batch::new();
        batch.add(table());
        assert!(conn.probe(&batch).await.unwrap_err().is_permission());
        let mut batch = Batch::new();
        let set = banned4();
        batch.add_elements(&set, (0..1_000_000).map(nth));
        let error = conn.commit(&batch).await.unwrap_err();
        let CommitError::TooLarge { bytes, limit } = error else { panic!("{error}") };
        assert!(bytes > limit && limit > 0, "{bytes} {limit}");
    });
}
