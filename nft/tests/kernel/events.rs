//! What others do is told, with their name; what we do is told apart.

use std::net::Ipv4Addr;
use std::time::Duration;

use nft::{Batch, Chain, Connection, Event, Family, KeyType, Rule, Set, Subject, Table, Watcher};

use crate::namespace::{enter, nft};

fn table() -> Table {
    Table::new(Family::Inet, "t")
}

fn set() -> Set {
    Set::new(&table(), "s", KeyType::Ipv4Addr)
}

/// Up to the end of the transaction.
async fn transaction(watcher: &mut Watcher) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        events.push(event.expect("an event within ten seconds").unwrap());
        if matches!(events.last(), Some(Event::Committed { .. } | Event::Overrun)) {
            return events;
        }
    }
}

fn elements(keys: &[[u8; 4]]) -> Subject {
    Subject::Elements {
        family: Family::Inet,
        table: "t".into(),
        set: "s".into(),
        keys: keys.iter().map(|k| (&k[..]).into()).collect(),
    }
}

#[test]
fn others_are_told_with_their_name() {
    enter(async {
        let mut watcher = Watcher::open().unwrap();
        nft(&["add table inet t { set s { type ipv4_addr; }; chain c { }; }"]);
        let made = transaction(&mut watcher).await;
        let Some(Event::Committed { port, generation, pid, comm }) = made.last() else { panic!("{made:?}") };
        assert_eq!(comm, "nft");
        assert_ne!(*pid, std::process::id());
        let subjects: Vec<_> = made
            .iter()
            .filter_map(|e| match e {
                Event::Added { port: by, subject } => {
                    assert_eq!(by, port);
                    Some(subject.clone())
                }
                _ => None,
            })
            .collect();
        let (family, t) = (Family::Inet, std::sync::Arc::<str>::from("t"));
        assert_eq!(
            subjects,
            [
                Subject::Table { family, table: t.clone() },
                Subject::Chain { family, table: t.clone(), chain: "c".into() },
                Subject::Set { family, table: t.clone(), set: "s".into() },
            ]
        );
        assert!(subjects.iter().all(|s| s.table() == Some((family, "t"))));
        assert_eq!(Connection::open().unwrap().generation().await.unwrap(), *generation);

        nft(&["add element inet t s { 192.0.2.1, 192.0.2.2 }"]);
        let added = transaction(&mut watcher).await;
        let keys = |events: &[Event]| {
            let mut keys: Vec<Ipv4Addr> = events
                .iter()
                .filter_map(|e| match e {
                    Event::Added { subject: Subject::Elements { keys, .. }, .. }
                    | Event::Removed { subject: Subject::Elements { keys, .. }, .. } => Some(keys.clone()),
                    _ => None,
                })
                .flatten()
                .map(|k| <[u8; 4]>::try_from(&*k).unwrap().into())
                .collect();
            keys.sort();
            keys
        };
        let both = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        assert_eq!(keys(&added), both);
        nft(&["add rule inet t c drop"]);
        let rule = transaction(&mut watcher).await;
        assert!(
            matches!(&rule[0], Event::Added { subject: Subject::Rule { chain, handle, .. }, .. } if &**chain == "c" && *handle > 0),
            "{rule:?}"
        );
        nft(&["delete element inet t s { 192.0.2.1 }"]);
        let removed = transaction(&mut watcher).await;
        assert!(
            matches!(&removed[0], Event::Removed { subject, .. } if *subject == elements(&[[192, 0, 2, 1]]))
        );
    });
}

#[test]
fn a_flush_of_the_ruleset_is_seen() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.add(table()).add(set()).add(Chain::new(&table(), "c"));
        conn.commit(&batch).await.unwrap();
        let mut watcher = Watcher::open().unwrap();
        watcher.ignore(conn.port_id().unwrap());
        nft(&["flush", "ruleset"]);
        let events = transaction(&mut watcher).await;
        let gone = Subject::Table { family: Family::Inet, table: "t".into() };
        assert!(
            events.iter().any(|e| matches!(e, Event::Removed { subject, .. } if *subject == gone)),
            "{events:?}"
        );
        assert!(matches!(events.last(), Some(Event::Committed { comm, .. }) if comm == "nft"));
    });
}

#[test]
fn our_own_changes_are_told_apart() {
    enter(async {
        let mut all = Watcher::open().unwrap();
        let mut foreign = Watcher::open().unwrap();
        let mut conn = Connection::open().unwrap();
        let port = conn.port_id().unwrap();
        foreign.ignore(port);
        let chain = Chain::new(&table(), "c");
        let mut batch = Batch::new();
        batch.add(table()).add(set()).add(&chain).add(Rule::new(&chain).drop());
        batch.add_elements(&set(), [Ipv4Addr::LOCALHOST]);
        conn.commit(&batch).await.unwrap();
        for event in transaction(&mut all).await {
            let by = match event {
                Event::Added { port, .. } | Event::Removed { port, .. } | Event::Committed { port, .. } => {
                    port
                }
                Event::Overrun => panic!("nothing is lost"),
            };
            assert_eq!(by, port);
        }
        // The first thing the other one hears is what nft does.
        nft(&["add table ip u"]);
        let events = transaction(&mut foreign).await;
        let first = Subject::Table { family: Family::Ip, table: "u".into() };
        assert!(matches!(&events[0], Event::Added { subject, .. } if *subject == first), "{events:?}");
    });
}

#[test]
fn an_overrun_is_an_event_and_not_the_end() {
    enter(async {
        let mut watcher = Watcher::open().unwrap();
        let mut conn = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.add(table()).add(set());
        conn.commit(&batch).await.unwrap();
        fill(&mut conn).await;
        assert_eq!(transaction(&mut watcher).await, [Event::Overrun]);
        // From now on nothing is lost again.
        nft(&["add table ip u"]);
        let events = transaction(&mut watcher).await;
        let first = Subject::Table { family: Family::Ip, table: "u".into() };
        assert!(matches!(&events[0], Event::Added { subject, .. } if *subject == first), "{events:?}");
    });
}

#[test]
fn our_own_changes_cause_no_overrun() {
    enter(async {
        let mut watcher = Watcher::open().unwrap();
        let mut conn = Connection::open().unwrap();
        let mut others = Connection::open().unwrap();
        // More than one, so that each is found.
        watcher.ignore(1);
        watcher.ignore(conn.port_id().unwrap());
        watcher.ignore(2);
        let mut batch = Batch::new();
        batch.add(table()).add(set());
        conn.commit(&batch).await.unwrap();
        fill(&mut conn).await;
        let mut batch = Batch::new();
        batch.add(Table::new(Family::Ip, "u"));
        others.commit(&batch).await.unwrap();
        let events = transaction(&mut watcher).await;
        let first = Subject::Table { family: Family::Ip, table: "u".into() };
        assert!(matches!(&events[0], Event::Added { subject, .. } if *subject == first), "{events:?}");
    });
}

/// Far more than a receive buffer holds, while nobody reads.
async fn fill(conn: &mut Connection) {
    for round in 0..10u32 {
        let mut batch = Batch::new();
        batch.add_elements(&set(), (0..40_000).map(|n| Ipv4Addr::from_bits((round << 24) + n)));
        conn.commit(&batch).await.unwrap();
    }
}

#[test]
fn what_happens_while_waiting_wakes() {
    enter(async {
        let mut watcher = Watcher::open().unwrap();
        let mut conn = Connection::open().unwrap();
        let waiting = tokio::spawn(async move { transaction(&mut watcher).await.len() });
        tokio::task::yield_now().await;
        let mut batch = Batch::new();
        batch.add(table());
        conn.commit(&batch).await.unwrap();
        assert_eq!(waiting.await.unwrap(), 2);
    });
}
