//! Elements asked for by their keys: those that are there, and those that are not.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nft::{Batch, Connection, Element, Family, Key, KeyType, Set, Table};

use crate::namespace::enter;

fn table() -> Table {
    Table::new(Family::Inet, "t")
}

fn key(n: u32) -> Key {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

#[test]
fn what_is_there_is_told_from_what_is_not() {
    enter(async {
        let set = Set::new(&table(), "s", KeyType::Ipv4Addr).timeout().counter();
        let mut conn = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.add(table()).add(&set);
        // Every third is missing, and then a long stretch is there, and then one is missing.
        let is_there = |n: u32| n < 300 && !n.is_multiple_of(3) || (300..999).contains(&n);
        let there = (0..1000).filter(|n| is_there(*n));
        batch.add_elements(
            &set,
            there.map(|n| Element::new(key(n)).timeout(Duration::from_secs(3600)).comment("why")),
        );
        conn.commit(&batch).await.unwrap();
        let keys: Vec<Key> = (0..1000).map(key).collect();
        let found = conn.get(&set, &keys).await.unwrap();
        for (n, element) in (0..1000).zip(&found) {
            let Some(element) = element.as_ref().filter(|_| is_there(n)) else {
                assert!(element.is_none() && !is_there(n), "{n}: {element:?}");
                continue;
            };
            assert_eq!(element.key, key(n));
            assert_eq!(element.comment.as_deref(), Some("why"));
            assert!(element.expires.unwrap() > Duration::from_secs(3590), "{element:?}");
            assert_eq!(element.counter.unwrap().packets, 0);
        }
        // Nothing of an answer is left in the socket for the next question.
        assert_eq!(conn.elements(&set).await.unwrap().len(), 899);
        assert!(conn.get(&set, &[]).await.unwrap().is_empty());
        let odd = conn.get(&set, &[Ipv6Addr::LOCALHOST.into(), key(1)]).await.unwrap();
        assert!(odd[0].is_none() && odd[1].is_some(), "a key of another type is not there: {odd:?}");
    });
}

#[test]
fn what_has_run_out_is_not_there() {
    enter(async {
        let set = Set::new(&table(), "s", KeyType::Ipv4Addr).timeout();
        let mut conn = Connection::open().unwrap();
        let mut batch = Batch::new();
        let short = Element::new(key(1)).timeout(Duration::from_millis(50));
        batch.add(table()).add(&set).add_elements(&set, [short, Element::new(key(2))]);
        conn.commit(&batch).await.unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while conn.get(&set, &[key(1)]).await.unwrap()[0].is_some() {
            assert!(Instant::now() < end, "it never ran out");
        }
        assert!(conn.get(&set, &[key(1), key(2)]).await.unwrap()[1].is_some());
    });
}

#[test]
fn of_a_set_that_is_not_there_nothing_is() {
    enter(async {
        let set = Set::new(&table(), "s", KeyType::Ipv4Addr);
        let mut conn = Connection::open().unwrap();
        assert_eq!(conn.get(&set, &[key(1), key(2)]).await.unwrap(), [None, None]);
        let nets = Set::new(&table(), "n", KeyType::Ipv4Addr).interval();
        assert_eq!(conn.get(&nets, &[key(1)]).await.unwrap(), [None]);
    });
}

#[test]
fn an_interval_is_found_as_it_was_put_in() {
    enter(async {
        let set = Set::new(&table(), "n", KeyType::Ipv4Addr).interval().timeout();
        let mut conn = Connection::open().unwrap();
        let net = |text: &str| Key::from(text.parse::<IpNet>().unwrap());
        let mut batch = Batch::new();
        batch.add(table()).add(&set).add_elements(&set, [net("192.0.2.0/24"), net("198.51.100.0/25")]);
        conn.commit(&batch).await.unwrap();
        let asked = ["192.0.2.0/24", "192.0.2.0/25", "198.51.100.0/25", "203.0.113.0/24"].map(net);
        let found: Vec<bool> = conn.get(&set, &asked).await.unwrap().iter().map(Option::is_some).collect();
        assert_eq!(found, [true, false, true, false]);
    });
}

#[test]
fn many_are_told_soon() {
    enter(async {
        let set = Set::new(&table(), "s", KeyType::Ipv6Addr).timeout().counter();
        let mut conn = Connection::open().unwrap();
        let keys: Vec<Key> =
            (0..100_000u128).map(|n| Ipv6Addr::from_bits(0x2001_0db8 << 96 | n << 64).into()).collect();
        let mut batch = Batch::new();
        batch.add(table()).add(&set);
        let elements = keys.iter().map(|k| Element::new(k.clone()).timeout(Duration::from_secs(3600)));
        batch.add_elements(&set, elements.map(|e| e.comment("npm, 5 offenses, 2026-11-21T01:02:03Z")));
        conn.commit(&batch).await.unwrap();
        for many in [1, 100, 10_000, 100_000] {
            let begin = Instant::now();
            let found = conn.get(&set, &keys[..many]).await.unwrap();
            println!("{many} of 100,000 elements read back in {:?}", begin.elapsed());
            assert_eq!(found.iter().flatten().count(), many);
        }
        let mut batch = Batch::new();
        batch.flush(&set);
        conn.commit(&batch).await.unwrap();
        let begin = Instant::now();
        assert_eq!(conn.get(&set, &keys[..10_000]).await.unwrap().iter().flatten().count(), 0);
        println!("10,000 found missing in {:?}", begin.elapsed());
    });
}
