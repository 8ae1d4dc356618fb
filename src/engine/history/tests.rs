use std::time::Duration;

use super::*;

const JAIL: JailId = JailId(1);

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn at(s: i64) -> Timestamp {
    Timestamp::from_secs(s)
}

fn who(n: u8) -> Key {
    key(Some(JAIL), net(&format!("192.0.2.{n}/32")))
}

fn record(n: u8, count: u32, last: i64) -> Record {
    let offender = net(&format!("192.0.2.{n}/32"));
    Record { jail: Some(JAIL), offender, count, last: at(last), last_end: Some(at(last + 10)) }
}

fn note(h: &mut History, n: u8, since: i64) {
    let earlier = h.earlier(who(n), at(since), &Escalation::default());
    h.note(who(n), at(since), Some(at(since + 10)), earlier);
}

fn told(h: &mut History) -> Vec<String> {
    let word = |change: RecordChange| match change {
        RecordChange::Noted(r) => format!("{} {}", r.offender, r.count),
        RecordChange::Forgotten { offender, .. } => format!("-{offender}"),
    };
    h.changed().into_iter().map(word).collect()
}

#[test]
fn a_record_is_small() {
    assert_eq!(size_of::<Slot>(), 48);
}

#[test]
fn a_ban_counts_once_however_often_it_is_noted() {
    let mut h = History::new(10);
    for _ in 0..3 {
        note(&mut h, 1, 100);
    }
    assert_eq!(h.get(who(1)), Some(record(1, 1, 100)));
    note(&mut h, 1, 200);
    note(&mut h, 1, 100);
    note(&mut h, 1, 200);
    assert_eq!(h.get(who(1)), Some(record(1, 2, 200)));
    // What counted for the last ban, and what counts for a later one.
    let earlier = |s| h.earlier(who(1), at(s), &Escalation::default());
    assert_eq!((earlier(200), earlier(201)), (1, 2));
}

#[test]
fn what_changed_is_told_once() {
    let mut h = History::new(10);
    note(&mut h, 1, 100);
    note(&mut h, 2, 100);
    note(&mut h, 1, 200);
    assert_eq!(told(&mut h), ["192.0.2.1/32 2", "192.0.2.2/32 1"]);
    assert_eq!(told(&mut h), [""; 0]);
    note(&mut h, 2, 100);
    assert_eq!(told(&mut h), [""; 0], "nothing new");
    h.prolonged(who(2), None);
    h.forget(who(1));
    assert_eq!(told(&mut h), ["-192.0.2.1/32", "192.0.2.2/32 1"]);
    // Who comes and goes between two questions is not told of.
    note(&mut h, 3, 100);
    h.forget(who(3));
    assert_eq!(told(&mut h), [""; 0]);
    // Who goes and comes is told of twice, in this order.
    h.forget(who(2));
    note(&mut h, 2, 300);
    assert_eq!(told(&mut h), ["-192.0.2.2/32", "192.0.2.2/32 1"]);
}

#[test]
fn the_oldest_make_room() {
    let mut h = History::new(3);
    for n in 1..=3 {
        note(&mut h, n, 100);
    }
    note(&mut h, 1, 200);
    assert_eq!(told(&mut h).len(), 3);
    note(&mut h, 4, 300);
    assert_eq!((h.len(), h.forgotten), (3, 1));
    assert_eq!(told(&mut h), ["-192.0.2.2/32", "192.0.2.4/32 1"]);
}

/// Whether or not anybody asks for the changes, they take no more room than the records.
#[test]
fn changes_are_bounded() {
    let mut h = History::new(100);
    for round in 0..3 {
        for n in 0..10_000u32 {
            let net = net(&format!("10.0.{}.{}/32", n / 256, n % 256));
            h.note(key(Some(JAIL), net), at(i64::from(n)), None, 0);
        }
        assert!(h.gone.len() <= 100, "round {round}: {}", h.gone.len());
        assert!(h.slots.len() <= 100 && h.dirty.0.len() <= 2 && h.known.0.len() <= 2);
        if round == 1 {
            assert!(h.changed().len() <= 200);
        }
    }
}

#[test]
fn what_is_restored_is_known_to_the_ledger() {
    let mut h = History::new(10);
    h.restore(record(1, 5, 100));
    h.restore(record(2, 0, 100));
    assert_eq!(told(&mut h), [""; 0]);
    assert_eq!((h.len(), h.get(who(1))), (1, Some(record(1, 5, 100))));
    // The ban that was restored is found in the kernel, too.
    note(&mut h, 1, 100);
    assert_eq!(h.get(who(1)), Some(record(1, 5, 100)));
    note(&mut h, 1, 150);
    assert_eq!(told(&mut h), ["192.0.2.1/32 6"]);
    h.forget(who(1));
    assert_eq!(told(&mut h), ["-192.0.2.1/32"]);
}

#[test]
fn what_is_restored_late_is_added_to_what_is_noted() {
    let mut h = History::new(10);
    note(&mut h, 1, 100);
    h.restore(record(1, 4, 100));
    assert_eq!(h.get(who(1)), Some(record(1, 4, 100)), "the same ban");
    note(&mut h, 2, 100);
    h.restore(record(2, 4, 50));
    assert_eq!(h.get(who(2)), Some(record(2, 5, 100)), "one ban later");
}

#[test]
fn a_sweep_forgets_whose_time_is_over() {
    let mut h = History::new(1000);
    for n in 0..100 {
        note(&mut h, n, i64::from(n) * 100);
    }
    h.note(who(200), at(0), None, 0);
    for _ in 0..20 {
        h.sweep(10, |of, end| {
            assert_eq!(of, Some(JAIL));
            end.is_some_and(|end| at(5000).since(end) > Duration::from_secs(1000))
        });
    }
    // Ends at 10, 110, ...; those up to 3910 are too old; that without an end never is.
    assert_eq!(h.len(), 100 - 40 + 1);
    assert!(h.get(who(39)).is_none() && h.get(who(40)).is_some() && h.get(who(200)).is_some());
}

#[test]
fn neighbours_are_counted_by_their_last_bans() {
    let mut h = History::new(1000);
    h.set_steps(JAIL, Some(&Neighbours { ipv4: Some(24), ..Neighbours::default() }));
    let parent = key(Some(JAIL), net("192.0.2.0/24"));
    for (n, since) in [(1, 100), (2, 300), (3, 200), (4, 50)] {
        note(&mut h, n, since);
    }
    let within = |h: &History, from| h.within(parent, at(from), at(9999), 99);
    assert_eq!([50, 51, 150, 250, 301].map(|from| within(&h, from)), [4, 3, 2, 1, 0]);
    assert_eq!(h.within(parent, at(0), at(9999), 2), 2, "no further than asked");
    assert_eq!([49, 50, 199, 200, 300].map(|to| h.within(parent, at(0), at(to), 99)), [0, 1, 2, 3, 4]);
    note(&mut h, 4, 400);
    assert_eq!(within(&h, 250), 2);
    h.forget(who(2));
    assert_eq!(within(&h, 0), 3);
    // Another length of prefix, and none, and the first again.
    h.set_steps(JAIL, Some(&Neighbours { ipv4: Some(25), ..Neighbours::default() }));
    assert_eq!(within(&h, 0), 0);
    assert_eq!(h.within(key(Some(JAIL), net("192.0.2.0/25")), at(0), at(9999), 99), 3);
    h.set_steps(JAIL, None);
    assert_eq!(h.within(key(Some(JAIL), net("192.0.2.0/25")), at(0), at(9999), 99), 0);
    note(&mut h, 5, 10);
    h.set_steps(JAIL, Some(&Neighbours { ipv4: Some(24), ..Neighbours::default() }));
    assert_eq!([0, 11, 150, 300].map(|from| within(&h, from)), [4, 3, 2, 1]);
    // Whoever forgets the prefix forgets for whom it would be banned again.
    h.forget(parent);
    assert_eq!((within(&h, 0), h.len()), (0, 0));
}
