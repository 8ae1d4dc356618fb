//! Who is remembered, and who is forgotten first.

use proptest::prelude::*;

use super::*;
use crate::types::BanTime;

#[test]
fn an_offender_costs_little() {
    assert_eq!(size_of::<Slot>(), 72);
}

fn policy() -> Policy {
    Policy {
        maxretry: 100,
        findtime: Duration::from_secs(600),
        bantime: BanTime::Permanent,
        ..Policy::default()
    }
}

fn key(n: u8) -> Key {
    Key::new(JailId(0), std::net::Ipv4Addr::new(192, 0, 2, n).into(), 32)
}

/// From the oldest to the newest, walked both ways.
fn order(t: &Tracker) -> Vec<Key> {
    let mut out = Vec::new();
    let mut at = t.order.newest;
    while let Some(s) = t.slot(at) {
        out.push(s.key);
        at = s.links.older;
    }
    out.reverse();
    let mut back = Vec::new();
    let mut at = t.order.oldest;
    while let Some(s) = t.slot(at) {
        back.push(s.key);
        at = s.links.newer;
    }
    assert_eq!(out, back);
    out
}

#[test]
fn the_silent_are_dropped_by_the_sweep_and_are_not_called_forgotten() {
    let mut t = Tracker::new(3, usize::MAX);
    t.set_jail(JailId(0), policy().findtime);
    let mut forgotten = None;
    let start = Timestamp::from_secs(1_000_000);
    for n in 0..3 {
        t.count(key(n), start, start, &policy(), &mut forgotten);
    }
    let last = start.saturating_add(policy().findtime + LINGER);
    t.sweep(last, 100);
    assert_eq!((t.len(), t.tracked(last)[0]), (3, 3));
    let later = last.saturating_add(Duration::from_secs(1));
    assert_eq!((t.len(), t.tracked(later)[0]), (3, 0));
    t.count(key(3), later, later, &policy(), &mut forgotten);
    assert_eq!(forgotten, None);
    t.sweep(later, 100);
    assert_eq!(order(&t), [key(3)]);
    // The clock is set back by more than that: whoever is left has been silent, too.
    t.sweep(start.saturating_sub(Duration::from_secs(1)), 100);
    assert_eq!(t.len(), 0);
}

#[derive(Clone, Debug)]
enum Act {
    Count(u8),
    Remove(u8),
    Anew(u8),
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (0u8..10).prop_map(Act::Count),
        2 => (0u8..10).prop_map(Act::Remove),
        2 => (0u8..10).prop_map(Act::Anew),
        1 => Just(Act::Reset),
    ]
}

proptest! {
    /// Beside a vector in the order of last offense. Promises the order of forgetting and the bound; not what
    /// is counted (see `window`) and nothing about silence (one instant).
    #[test]
    fn forgets_the_least_recent_first(acts in prop::collection::vec(act(), 1..80), limit in 1usize..6) {
        let mut t = Tracker::new(limit, usize::MAX);
        t.set_jail(JailId(0), policy().findtime);
        let now = Timestamp::from_secs(1_000_000);
        // Key, and how many offenses are held of it.
        let mut model: Vec<(Key, u32)> = Vec::new();
        for act in acts {
            match act {
                Act::Count(n) => {
                    let mut forgotten = None;
                    let tally = t.count(key(n), now, now, &policy(), &mut forgotten);
                    let held = model.iter().position(|m| m.0 == key(n)).map(|i| model.remove(i));
                    let mut lost = None;
                    if held.is_none() && model.len() == limit {
                        lost = Some(model.remove(0)).filter(|m| m.1 > 0).map(|_| JailId(0));
                    }
                    let count = held.map_or(0, |m| m.1) + 1;
                    model.push((key(n), count));
                    prop_assert_eq!(tally, Tally::Count(count));
                    prop_assert_eq!(forgotten, lost);
                }
                Act::Remove(n) => {
                    t.remove(key(n));
                    model.retain(|m| m.0 != key(n));
                }
                Act::Anew(n) => {
                    t.begin_anew(key(n), now, now);
                    if let Some(m) = model.iter_mut().find(|m| m.0 == key(n)) {
                        m.1 = 0;
                    } else if model.len() < limit {
                        model.insert(0, (key(n), 0));
                    }
                }
                Act::Reset => {
                    t.remove_jail(JailId(0));
                    t.set_jail(JailId(0), policy().findtime);
                    model.clear();
                }
            }
            prop_assert!(t.len() <= limit && t.slots.len() <= limit);
            prop_assert_eq!(order(&t), model.iter().map(|m| m.0).collect::<Vec<_>>());
            for (key, _) in &model {
                prop_assert!(t.find(*key).is_some());
            }
        }
    }
}
