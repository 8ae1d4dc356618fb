//! An engine that is killed and restored at any moment, beside one that is not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::{Command, Escalation, Growth, Limits, Policy, Record, RecordChange, Unban, Verdict};
use crate::types::{BanTime, Decision, Offense};

const START: i64 = 1_800_000_000_000;
const JAILS: [JailId; 2] = [JailId(0), JailId(2)];
const WHO: [&str; 4] = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];

#[derive(Clone, Debug)]
enum Act {
    Wait(i64),
    Offend {
        jail: usize,
        who: usize,
        late: i64,
    },
    Ban {
        jail: usize,
        who: usize,
        time: Option<u64>,
    },
    Unban {
        who: usize,
    },
    Timeout,
    /// What changed goes to the ledger.
    Checkpoint,
    /// A checkpoint; then the agent dies, and another one begins from the ledger.
    Crash,
}

fn any_act() -> impl Strategy<Value = Act> {
    let (jail, who) = (0..JAILS.len(), 0..WHO.len());
    prop_oneof![
        10 => (0i64..4000).prop_map(Act::Wait),
        40 => (jail.clone(), who.clone(), prop_oneof![3 => Just(0i64), 1 => 0i64..15_000])
            .prop_map(|(jail, who, late)| Act::Offend { jail, who, late }),
        2 => (jail, who.clone(), prop::option::of(1u64..30_000))
            .prop_map(|(jail, who, time)| Act::Ban { jail, who, time }),
        2 => who.prop_map(|who| Act::Unban { who }),
        3 => Just(Act::Timeout),
        6 => Just(Act::Checkpoint),
        4 => Just(Act::Crash),
    ]
}

/// The ledger: what the changes, one after the other, amount to.
#[derive(Default)]
struct Mirror {
    bans: BTreeMap<(JailId, IpNet), Ban>,
    windows: BTreeMap<(JailId, IpNet), Open>,
    history: BTreeMap<(Option<JailId>, IpNet), Record>,
}

impl Mirror {
    fn take(&mut self, changes: Changes) {
        apply(&mut self.bans, changes.bans, |ban| (ban.jail, ban.offender));
        apply(&mut self.windows, changes.windows, |open| (open.jail, open.offender));
        if changes.all_history {
            self.history.clear();
        }
        for change in changes.history {
            match change {
                RecordChange::Forgotten { jail, offender } => drop(self.history.remove(&(jail, offender))),
                RecordChange::Noted(record) => {
                    self.history.insert((record.jail, record.offender), record);
                }
            }
        }
    }

    fn restore(&self, policies: &[Policy; 2], now: Timestamp) -> Engine {
        let mut engine = engine(policies, now);
        let mut windows: Vec<Open> = self.windows.values().cloned().collect();
        windows.sort_by_key(|open| open.heard);
        engine.restore_history(self.history.values().copied());
        assert!(engine.restore(self.bans.values().cloned(), windows, now).is_empty());
        engine.is_known();
        engine
    }
}

fn apply<T>(
    table: &mut BTreeMap<(JailId, IpNet), T>,
    changed: Changed<T>,
    key: impl Fn(&T) -> (JailId, IpNet),
) {
    if changed.all {
        table.clear();
    }
    for gone in changed.gone {
        table.remove(&gone);
    }
    table.extend(changed.now.into_iter().map(|value| (key(&value), value)));
}

fn engine(policies: &[Policy; 2], now: Timestamp) -> Engine {
    let mut engine = Engine::new(Limits { ..Limits::default() });
    for (id, policy) in JAILS.into_iter().zip(policies) {
        engine.set_jail(id, policy.clone(), now);
    }
    engine.remember_changes();
    engine
}

fn act(engine: &mut Engine, act: &Act, now: Timestamp) -> Vec<Decision> {
    let address = |who: usize| WHO[who].parse::<IpAddr>().unwrap();
    match act {
        Act::Offend { jail, who, late } => {
            let at = now.saturating_sub(Duration::from_millis(u64::try_from(*late).unwrap()));
            let offense = Offense { jail: JAILS[*jail], offender: address(*who), at, line: b"line" };
            engine.offense(offense, now);
        }
        Act::Ban { jail, who, time } => {
            let time = time.map(|ms| BanTime::For(Duration::from_millis(ms)));
            let nets = vec![engine.offender(JAILS[*jail], address(*who)).unwrap()];
            let command =
                Command::Ban { jail: JAILS[*jail], nets, time, reason: b"why".to_vec(), force: false };
            engine.command(command, now).unwrap();
        }
        Act::Unban { who } => {
            let what = Unban::Nets(vec![IpNet::from(address(*who))]);
            engine.command(Command::Unban { what, jail: None }, now).unwrap();
        }
        Act::Timeout => engine.timeout(now),
        Act::Wait(_) | Act::Checkpoint | Act::Crash => {}
    }
    let mut decisions: Vec<Decision> = std::iter::from_fn(|| engine.poll_decision()).collect();
    // Bans that end in the same millisecond end in any order.
    decisions.sort_by_key(|d| (d.word(), d.ban().since, d.ban().jail, d.ban().offender));
    decisions
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let bantime = prop_oneof![
        8 => (1u64..40_000).prop_map(|ms| BanTime::For(Duration::from_millis(ms))),
        1 => Just(BanTime::Permanent),
    ];
    let escalation =
        prop::option::of((any::<bool>(), 0u64..5, prop::option::of(1u64..30))).prop_map(|grows| {
            grows.map(|(across, jitter, decay)| {
                Arc::new(Escalation {
                    growth: Growth::Multipliers([1.0, 2.0, 5.0].into()),
                    across,
                    jitter: Duration::from_secs(jitter),
                    decay: decay.map(Duration::from_secs),
                    ..Escalation::default()
                })
            })
        });
    (1u32..6, 0u64..12, bantime, prop_oneof![Just(64u8), Just(128)], escalation).prop_map(
        |(maxretry, findtime, bantime, ipv6_prefix, escalation)| Policy {
            escalation,
            maxretry,
            findtime: Duration::from_secs(findtime),
            bantime,
            ipv6_prefix,
            ..Policy::default()
        },
    )
}

proptest! {
    #[test]
    fn who_is_restored_goes_on_as_if_nothing_had_happened(
        policies in [any_policy(), any_policy()],
        acts in prop::collection::vec(any_act(), 1..120),
    ) {
        let mut now = Timestamp::from_millis(START);
        let mut steady = engine(&policies, now);
        let mut crashing = engine(&policies, now);
        let mut mirror = Mirror::default();
        for a in &acts {
            match a {
                Act::Wait(ms) => now = now.saturating_add(Duration::from_millis(u64::try_from(*ms).unwrap())),
                Act::Checkpoint => mirror.take(crashing.changes()),
                Act::Crash => {
                    mirror.take(crashing.changes());
                    crashing = mirror.restore(&policies, now);
                }
                _ => {}
            }
            prop_assert_eq!(act(&mut steady, a, now), act(&mut crashing, a, now), "after {:?}", a);
        }
        mirror.take(crashing.changes());
        let mut bans: Vec<Ban> = steady.bans().cloned().collect();
        bans.sort_by_key(|ban| (ban.jail, ban.offender));
        prop_assert_eq!(bans, mirror.bans.values().cloned().collect::<Vec<_>>());
        prop_assert!(crashing.is_unchanged());
    }
}

/// A checkpoint is lost: what was decided after the one before it is decided once more, and the same.
#[test]
fn what_was_not_written_is_decided_again() {
    let policies = [Policy { maxretry: 3, ..Policy::default() }, Policy::default()];
    let start = Timestamp::from_millis(START);
    let mut first = engine(&policies, start);
    let mut mirror = Mirror::default();
    let offend = Act::Offend { jail: 0, who: 0, late: 0 };
    act(&mut first, &offend, start);
    mirror.take(first.changes());
    let later = start.saturating_add(Duration::from_secs(1));
    act(&mut first, &offend, later);
    let decided = act(&mut first, &offend, later);
    assert_eq!(decided.len(), 1);
    let mut second = mirror.restore(&policies, later);
    act(&mut second, &offend, later);
    assert_eq!(act(&mut second, &offend, later), decided);
}

/// The ban that the ledger knows has ended, and another one followed, which the kernel alone knows: its end is what its
/// line says, and not what the kernel's timeouts can be read to be.
#[test]
fn a_ban_that_followed_another_is_known_exactly_once_its_line_is_read() {
    let policies = [Policy { maxretry: 1, ..Policy::default() }, Policy::default()];
    let start = Timestamp::from_millis(START);
    let offend = Act::Offend { jail: 0, who: 0, late: 0 };
    let mut first = engine(&policies, start);
    act(&mut first, &offend, start);
    let mut mirror = Mirror::default();
    mirror.take(first.changes());
    let later = start.saturating_add(Duration::from_secs(700));
    let decided = act(&mut first, &offend, later);
    let ban = decided.iter().find(|d| d.word() == "ban").unwrap().ban().clone();

    let mut second = mirror.restore(&policies, later);
    let roughly = ban.until.map(|until| until.saturating_add(Duration::from_millis(5)));
    let found = Ban { until: roughly, evidence: FOUND.into(), ..ban.clone() };
    assert!(second.adopt_found(found));
    act(&mut second, &offend, later);
    assert_eq!(second.bans().collect::<Vec<_>>(), [&ban]);
}

/// A short ban that only the kernel knows is over before its line is read again: what was committed at its very end
/// counts, although the kernel seemed to say that it ended a little later.
#[test]
fn a_found_ban_that_ends_before_its_line_is_read_ends_when_it_should() {
    let policies = [
        Policy { maxretry: 2, bantime: BanTime::For(Duration::from_secs(1)), ..Policy::default() },
        Policy::default(),
    ];
    let at = |ms: u64| Timestamp::from_millis(START).saturating_add(Duration::from_millis(ms));
    let mut engine = engine(&policies, at(0));
    let offender: IpAddr = WHO[0].parse().unwrap();
    let found = Ban {
        jail: JAILS[0],
        offender: IpNet::from(offender),
        since: at(100),
        until: Some(at(1105)),
        offenses: 2,
        evidence: FOUND.into(),
        forced: false,
    };
    assert!(engine.adopt_found(found));
    engine.timeout(at(2000));
    let offend = |engine: &mut Engine, ms| {
        engine.offense(Offense { jail: JAILS[0], offender, at: at(ms), line: b"line" }, at(2000))
    };
    assert_eq!(offend(&mut engine, 1099), Verdict::AlreadyBanned);
    assert_eq!(offend(&mut engine, 1100), Verdict::Counted { count: 1 });
}
