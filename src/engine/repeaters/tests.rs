//! Repeaters and their neighbours, case by case; and an engine that is killed beside one that is not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::engine::RecordChange;
use crate::engine::{
    Allowlist, Command, Escalation, Growth, Limits, Neighbours, Policy, Reply, Unban, Verdict,
};
use crate::types::{Decision, Offense};

const A: JailId = JailId(0);
const B: JailId = JailId(1);

fn addr(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

fn at(s: u64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000).saturating_add(Duration::from_secs(s))
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Bans at once: 10 s, 20 s, 30 s, 40 s.
fn growing() -> Escalation {
    Escalation { growth: Growth::Multipliers([1.0, 2.0, 3.0, 4.0].into()), ..Escalation::default() }
}

fn policy(escalation: Escalation) -> Policy {
    Policy {
        maxretry: 1,
        bantime: BanTime::For(secs(10)),
        escalation: Some(Arc::new(escalation)),
        ..Policy::default()
    }
}

fn engine(policies: [Policy; 2]) -> Engine {
    let mut e = Engine::new(Limits::default());
    for (id, policy) in [A, B].into_iter().zip(policies) {
        e.set_jail(id, policy, at(0));
    }
    e
}

fn both(escalation: Escalation) -> Engine {
    engine([policy(escalation.clone()), policy(escalation)])
}

/// An offense in log time.
fn offend(e: &mut Engine, jail: JailId, who: &str, when: u64) -> Verdict {
    e.offense(Offense { jail, offender: addr(who), at: at(when), line: b"the line" }, at(when))
}

/// The new bans since the last look and how many seconds they last: `192.0.2.1/32 10`.
fn bans(e: &mut Engine) -> Vec<String> {
    let decisions = std::iter::from_fn(|| e.poll_decision());
    let new = decisions.filter_map(|d| match d {
        Decision::Ban(ban) => {
            let length = ban
                .until
                .map_or_else(|| "for ever".to_owned(), |end| end.since(ban.since).as_secs().to_string());
            Some(format!("{} {length}", ban.offender))
        }
        _ => None,
    });
    new.collect()
}

fn order(jail: JailId, who: &str, time: Option<u64>) -> Command {
    let time = time.map(|s| BanTime::For(secs(s)));
    Command::Ban { jail, nets: vec![net(who)], time, reason: Vec::new(), force: false }
}

fn unban(who: &str) -> Command {
    Command::Unban { what: Unban::Nets(vec![net(who)]), jail: None }
}

#[test]
fn a_repeater_is_banned_for_longer() {
    let mut e = both(growing());
    for when in [0, 100, 200, 300, 400] {
        assert_eq!(offend(&mut e, A, "192.0.2.1", when), Verdict::Banned);
        offend(&mut e, A, "192.0.2.1", when + 5);
    }
    assert_eq!(bans(&mut e), ["10", "20", "30", "40", "40"].map(|n| format!("192.0.2.1/32 {n}")));
    let record = e.record(A, net("192.0.2.1/32")).unwrap();
    assert_eq!((record.count, record.last, record.last_end), (5, at(400), Some(at(440))));
    // The other jail knows nothing of it.
    offend(&mut e, B, "192.0.2.1", 500);
    assert_eq!(bans(&mut e), ["192.0.2.1/32 10"]);
    let stats = e.stats(A, at(500)).unwrap();
    assert_eq!((stats.bans_total, stats.escalated), (5, 4));
}

#[test]
fn across_jails_all_bans_count() {
    let mut e = engine([
        policy(Escalation { across: true, ..growing() }),
        Policy { escalation: None, ..policy(growing()) },
    ]);
    offend(&mut e, B, "192.0.2.1", 0);
    offend(&mut e, B, "192.0.2.1", 100);
    offend(&mut e, A, "192.0.2.1", 200);
    offend(&mut e, B, "192.0.2.1", 300);
    assert_eq!(bans(&mut e), ["10", "10", "30", "10"].map(|n| format!("192.0.2.1/32 {n}")));
    assert_eq!(e.record(A, net("192.0.2.1/32")).map(|r| (r.jail, r.count)), Some((None, 4)));
    assert_eq!(e.record(B, net("192.0.2.1/32")), None);
}

#[test]
fn a_ban_by_hand_counts_and_is_longer_unless_its_length_is_given() {
    let mut e = both(growing());
    e.command(order(A, "192.0.2.1/32", None), at(0)).unwrap();
    e.command(order(A, "192.0.2.1/32", Some(5)), at(100)).unwrap();
    e.command(order(A, "192.0.2.1/32", None), at(200)).unwrap();
    assert_eq!(bans(&mut e), ["192.0.2.1/32 10", "192.0.2.1/32 5", "192.0.2.1/32 30"]);
    // It runs: it is as long again from now on, and does not count again.
    e.command(order(A, "192.0.2.1/32", None), at(210)).unwrap();
    assert_eq!(e.ban(A, net("192.0.2.1/32")).unwrap().until, Some(at(240)));
    let record = e.record(A, net("192.0.2.1/32")).unwrap();
    assert_eq!((record.count, record.last, record.last_end), (3, at(200), Some(at(240))));
}

#[test]
fn who_is_unbanned_by_hand_begins_anew() {
    let mut e = both(Escalation { across: true, ..growing() });
    offend(&mut e, A, "192.0.2.1", 0);
    offend(&mut e, A, "192.0.2.1", 100);
    e.command(unban("192.0.2.1/32"), at(105)).unwrap();
    assert_eq!(e.record(A, net("192.0.2.1/32")), None);
    offend(&mut e, A, "192.0.2.1", 200);
    assert_eq!(bans(&mut e), ["10", "20", "10"].map(|n| format!("192.0.2.1/32 {n}")));
}

#[test]
fn a_ban_that_is_over_when_it_is_decided_counts() {
    let mut e = both(growing());
    let late = |e: &mut Engine, when| {
        e.offense(Offense { jail: A, offender: addr("192.0.2.1"), at: at(when), line: b"" }, at(125))
    };
    assert_eq!(late(&mut e, 0), Verdict::TooOld);
    assert_eq!(late(&mut e, 50), Verdict::TooOld);
    // The third is long enough to reach into the present, where the first would have been over.
    assert_eq!(late(&mut e, 100), Verdict::Banned);
    assert_eq!(bans(&mut e), ["192.0.2.1/32 30"]);
}

#[test]
fn a_ban_found_in_the_kernel_counts_once() {
    let found = |since: u64| Ban {
        jail: A,
        offender: net("192.0.2.1/32"),
        since: at(since),
        until: Some(at(since + 30)),
        offenses: 1,
        evidence: crate::types::Evidence::default(),
        forced: false,
    };
    let record = |count, last: u64| Record {
        jail: Some(A),
        offender: net("192.0.2.1/32"),
        count,
        last: at(last),
        last_end: Some(at(last + 30)),
    };
    for (known, want) in [(vec![], 1), (vec![record(3, 100)], 3), (vec![record(2, 50)], 3)] {
        let mut e = both(growing());
        e.restore_history(known);
        assert!(e.adopt(found(100)));
        assert!(e.adopt(found(100)));
        assert_eq!(e.record(A, net("192.0.2.1/32")), Some(record(want, 100)));
    }
}

/// The kernel tells an end only roughly; the line that decided the ban is read once more and tells it to the millisecond.
#[test]
fn the_end_of_a_long_ban_found_in_the_kernel_becomes_exact() {
    let begin = || {
        let mut e = both(Escalation { jitter: secs(1000), ..growing() });
        e.set_seed(5);
        e
    };
    let mut first = begin();
    offend(&mut first, A, "192.0.2.1", 0);
    let known = first.record(A, net("192.0.2.1/32"));
    offend(&mut first, A, "192.0.2.1", 100);
    let ban = first.ban(A, net("192.0.2.1/32")).cloned().unwrap();
    assert!(ban.until.unwrap() > at(120));
    let mut second = begin();
    second.restore_history(known);
    let roughly = ban.until.map(|end| end.saturating_add(Duration::from_millis(7)));
    assert!(second.adopt_found(Ban {
        until: roughly,
        evidence: crate::types::Evidence::default(),
        ..ban.clone()
    }));
    assert_eq!(offend(&mut second, A, "192.0.2.1", 100), Verdict::AlreadyBanned);
    assert_eq!(second.ban(A, net("192.0.2.1/32")), Some(&ban));
    assert_eq!(second.record(A, net("192.0.2.1/32")), first.record(A, net("192.0.2.1/32")));
}

#[test]
fn the_memory_is_counted_from_the_end_by_the_logs_time() {
    let mut e = both(Escalation { memory: secs(100), neighbours: None, ..growing() });
    for when in [0, 110, 250, 371] {
        offend(&mut e, A, "192.0.2.1", when);
    }
    // Ends at 10; 130; 280 (banned for 30 s from 250, 120 s after 130 is more than 100: 10 s, to 260); 371 is 111 later.
    assert_eq!(bans(&mut e), ["10", "20", "10", "10"].map(|n| format!("192.0.2.1/32 {n}")));
}

#[test]
fn what_is_forgotten_leaves_memory_a_day_later() {
    let mut e = both(Escalation { memory: secs(100), neighbours: None, ..growing() });
    offend(&mut e, A, "192.0.2.1", 0);
    e.timeout(at(110 + 86_400));
    assert_eq!(e.remembered(), 1);
    e.timeout(at(111 + 86_400));
    assert_eq!(e.remembered(), 0);
    assert!(e.is_unchanged());
}

#[test]
fn a_jail_that_comes_back_knows_its_repeaters() {
    let mut e = both(growing());
    offend(&mut e, A, "192.0.2.1", 0);
    e.remove_jail(A, at(20));
    e.set_jail(A, policy(growing()), at(30));
    offend(&mut e, A, "192.0.2.1", 100);
    assert_eq!(bans(&mut e), ["192.0.2.1/32 10", "192.0.2.1/32 20"]);
}

#[test]
fn the_jitter_depends_on_the_seed_and_not_on_chance() {
    let length = |seed, who: &str| {
        let mut e = both(Escalation { jitter: secs(1000), ..growing() });
        e.set_seed(seed);
        offend(&mut e, A, who, 0);
        let until = |e: &Engine| e.ban(A, IpNet::from(addr(who))).unwrap().until.unwrap();
        let first = until(&e);
        offend(&mut e, A, who, 100);
        (first.since(at(0)), until(&e).since(at(100)))
    };
    let (first, second) = length(1, "192.0.2.1");
    assert_eq!(first, secs(10), "as in fail2ban the first has none");
    assert!(second > secs(20) && second < secs(1020), "{second:?}");
    assert_eq!(length(1, "192.0.2.1").1, second);
    assert_ne!(length(2, "192.0.2.1").1, second);
    assert_ne!(length(1, "192.0.2.2").1, second);
}

fn neighbourly(after: u32, ipv4: Option<u8>) -> Escalation {
    Escalation { neighbours: Some(Neighbours { after, ipv4, ..Neighbours::default() }), ..growing() }
}

#[test]
fn many_of_one_prefix_ban_it_one_step_at_a_time() {
    let mut e = both(neighbourly(3, None));
    let mut all = Vec::new();
    // Four /56 of one /48, three /64 in each.
    for n in 0..4u64 {
        for m in 0..3u64 {
            let who = format!("2001:db8:1:{:x}::1", n * 0x100 + m);
            let verdict = offend(&mut e, A, &who, n * 3 + m);
            // Once the /48 is banned nobody in it counts.
            assert_eq!(verdict == Verdict::Banned, all.len() < 10, "{who}");
            all.push(bans(&mut e));
        }
    }
    assert_eq!(all[0], ["2001:db8:1::/64 10"]);
    assert_eq!(all[2], ["2001:db8:1:2::/64 10", "2001:db8:1::/56 10"]);
    assert_eq!(all[8], ["2001:db8:1:202::/64 10", "2001:db8:1:200::/56 10"], "no two steps at once");
    assert_eq!(all[9], ["2001:db8:1:300::/64 10", "2001:db8:1::/48 10"]);
    assert_eq!(all[10..], [[""; 0], [""; 0]]);
}

#[test]
fn a_prefix_says_why_it_is_banned_and_those_within_stay_banned() {
    let mut e = both(neighbourly(2, None));
    offend(&mut e, A, "2001:db8::1", 0);
    offend(&mut e, A, "2001:db8:0:1::1", 4);
    let ban = e.ban(A, net("2001:db8::/56")).unwrap();
    assert_eq!(ban.evidence.as_ref(), b"2 neighbours banned, last: the line");
    assert_eq!((ban.offenses, ban.since, ban.until), (2, at(4), Some(at(14))));
    assert_eq!(e.bans().count(), 3);
    assert_eq!(offend(&mut e, A, "2001:db8:0:77::1", 13), Verdict::AlreadyBanned);
    // What lies within ends by itself.
    assert!(e.ban(A, net("2001:db8::/64")).is_none());
    // The prefix is a repeater like any other.
    offend(&mut e, A, "2001:db8:0:77::1", 100);
    assert_eq!(e.ban(A, net("2001:db8::/56")).unwrap().until, Some(at(120)));
    assert_eq!(e.stats(A, at(100)).unwrap().prefix_bans, 2);
}

#[test]
fn single_addresses_lead_to_their_network() {
    let mut e = engine([
        Policy { ipv6_prefix: 128, ..policy(neighbourly(3, None)) },
        policy(neighbourly(3, Some(24))),
    ]);
    for n in 1..=3 {
        offend(&mut e, A, &format!("2001:db8::{n}"), n);
        offend(&mut e, A, &format!("192.0.2.{n}"), n);
        offend(&mut e, B, &format!("198.51.100.{n}"), n);
    }
    let of =
        |len: u8| e.bans().filter(|b| b.offender.prefix_len() == len).map(|b| b.offender).collect::<Vec<_>>();
    assert_eq!(of(64), [net("2001:db8::/64")]);
    assert_eq!(of(24), [net("198.51.100.0/24")], "IPv4 only where it is asked for");
}

#[test]
fn one_offender_many_times_is_no_neighbourhood() {
    let mut e = both(neighbourly(2, Some(24)));
    for n in 0..5 {
        offend(&mut e, A, "192.0.2.1", n * 100);
        offend(&mut e, B, "192.0.2.2", n * 100);
    }
    assert!(e.bans().all(|b| b.offender.prefix_len() == 32), "nor are two jails one");
}

#[test]
fn only_bans_of_late_count() {
    let mut e = both(Escalation {
        neighbours: Some(Neighbours { after: 2, within: secs(60), ipv4: Some(24), ..Neighbours::default() }),
        ..growing()
    });
    offend(&mut e, A, "192.0.2.1", 0);
    offend(&mut e, A, "192.0.2.2", 61);
    assert_eq!(bans(&mut e), ["192.0.2.1/32 10", "192.0.2.2/32 10"]);
    offend(&mut e, A, "192.0.2.3", 121);
    assert_eq!(bans(&mut e), ["192.0.2.3/32 10", "192.0.2.0/24 10"]);
}

#[test]
fn no_prefix_with_somebody_who_is_never_banned() {
    let mut e = both(neighbourly(2, Some(24)));
    e.set_allowlist([net("192.0.2.250/32"), net("2001:db8:0:ff::7/128")].into_iter().collect(), at(0));
    let own: Allowlist = [net("198.51.100.0/30")].into_iter().collect();
    e.set_jail(A, Policy { allowlist: Some(Arc::new(own)), ..policy(neighbourly(2, Some(24))) }, at(0));
    for n in 10..20 {
        offend(&mut e, A, &format!("192.0.2.{n}"), n);
        offend(&mut e, A, &format!("198.51.100.{n}"), n);
        offend(&mut e, A, &format!("2001:db8:0:{n:x}::1"), n);
    }
    assert!(e.bans().all(|b| [32, 64].contains(&b.offender.prefix_len())));
    // The other jail may.
    for n in 10..12 {
        offend(&mut e, B, &format!("198.51.100.{n}"), n + 10);
    }
    assert!(e.ban(B, net("198.51.100.0/24")).is_some());
}

#[test]
fn who_unbans_a_prefix_does_not_see_it_again_at_once() {
    let mut e = both(neighbourly(3, Some(24)));
    for n in 1..=3 {
        offend(&mut e, A, &format!("192.0.2.{n}"), n * 20);
    }
    assert!(e.ban(A, net("192.0.2.0/24")).is_some());
    let reply = e.command(unban("192.0.2.0/24"), at(61)).unwrap();
    assert!(matches!(reply, Reply::Unbanned { lifted: 2, .. }), "{reply:?}");
    offend(&mut e, A, "192.0.2.4", 62);
    offend(&mut e, A, "192.0.2.5", 63);
    assert!(e.ban(A, net("192.0.2.0/24")).is_none());
    offend(&mut e, A, "192.0.2.6", 64);
    assert!(e.ban(A, net("192.0.2.0/24")).is_some());
}

/// In an old log nobody is kept out by a ban that was over when it was decided.
#[test]
fn a_prefix_counts_once_in_a_backlog() {
    let mut e = both(neighbourly(2, Some(24)));
    for n in 1..=6u64 {
        let offender = addr(&format!("192.0.2.{n}"));
        e.offense(Offense { jail: A, offender, at: at(n), line: b"" }, at(10_000));
    }
    assert_eq!(e.record(A, net("192.0.2.0/24")).map(|r| (r.count, r.last)), Some((1, at(2))));
    assert_eq!(bans(&mut e), [""; 0]);
}

#[test]
fn ten_thousand_neighbours_are_no_work() {
    let mut e = both(neighbourly(5, None));
    // One address that is never banned keeps the /64 from being banned: its list grows on and on.
    e.set_allowlist([net("2001:db8::/128")].into_iter().collect(), at(0));
    for n in 1..=10_000u64 {
        offend(&mut e, A, &format!("2001:db8::{n:x}"), n);
    }
    assert_eq!(bans(&mut e).len(), 10_000);
    assert_eq!(e.remembered(), 10_000);
}

/// The ledger may know a ban already whose lines are read again.
#[test]
fn a_ban_that_is_decided_again_is_the_same() {
    let begin = || {
        let mut e = both(Escalation { jitter: secs(1000), ..neighbourly(2, Some(24)) });
        e.set_seed(5);
        e
    };
    let mut first = begin();
    for when in [0, 100] {
        offend(&mut first, A, "192.0.2.1", when);
    }
    let earlier: Vec<Record> = first.record(A, net("192.0.2.1/32")).into_iter().collect();
    assert_eq!(earlier[0].count, 2);
    bans(&mut first);
    let lines = |e: &mut Engine| {
        offend(e, A, "192.0.2.1", 1150);
        offend(e, A, "192.0.2.2", 1200);
        bans(e)
    };
    let want = lines(&mut first);
    assert_eq!(want.len(), 3, "{want:?}");
    let mut second = begin();
    second.restore_history(first.changes().history.into_iter().filter_map(|change| match change {
        RecordChange::Noted(record) => Some(record),
        RecordChange::Forgotten { .. } => None,
    }));
    assert_eq!(lines(&mut second), want);
    for who in ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.0/24"] {
        assert_eq!(second.record(A, net(who)), first.record(A, net(who)));
    }
    assert!(second.is_unchanged());
}

/// Everything a ledger keeps.
#[derive(Clone, Default)]
struct Ledger {
    records: BTreeMap<(Option<JailId>, IpNet), Record>,
    bans: Vec<Ban>,
    windows: Vec<crate::engine::Open>,
}

impl Ledger {
    fn write(&mut self, e: &mut Engine) {
        for change in e.changes().history {
            match change {
                RecordChange::Noted(r) => drop(self.records.insert((r.jail, r.offender), r)),
                RecordChange::Forgotten { jail, offender } => drop(self.records.remove(&(jail, offender))),
            }
        }
        e.remember_changes();
        let changes = e.changes();
        (self.bans, self.windows) = (changes.bans.now, changes.windows.now);
    }
}

fn any_escalation() -> impl Strategy<Value = Escalation> {
    (any::<bool>(), 0u64..20, 50u64..400, prop::option::of(20u64..100), 2u32..4).prop_map(
        |(across, jitter, memory, decay, after)| Escalation {
            across,
            jitter: secs(jitter),
            memory: secs(memory),
            decay: decay.map(secs),
            neighbours: Some(Neighbours {
                after,
                within: secs(memory),
                ipv4: Some(30),
                ..Neighbours::default()
            }),
            ..growing()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// An engine dies after a checkpoint; the next one is given what the ledger holds and the lines since. It decides what
    /// the first decided, to the millisecond, and remembers the same. Not promised where more is remembered than there is
    /// room for: only that it stays so.
    #[test]
    fn lines_that_are_read_again_decide_the_same(
        escalations in (any_escalation(), any_escalation()),
        maxretry in 1u32..3,
        lines in prop::collection::vec((0u64..25, 0usize..2, 0usize..6), 1..120),
        checkpoint in 0usize..120,
        limit in prop_oneof![3 => Just(1000usize), 1 => 2usize..6],
    ) {
        const WHO: [&str; 6] =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:100::1", "2001:db8:0:101::1"];
        let begin = || {
            let mut e = Engine::new(Limits { history: limit, ..Limits::default() });
            for (id, escalation) in [(A, &escalations.0), (B, &escalations.1)] {
                e.set_jail(id, Policy { maxretry, ..policy(escalation.clone()) }, at(0));
            }
            e.set_seed(42);
            e
        };
        let mut now = 0;
        let lines: Vec<(u64, JailId, &str)> = lines.into_iter().map(|(wait, jail, who)| {
            now += wait;
            (now, [A, B][jail], WHO[who])
        }).collect();
        let (before, since) = lines.split_at(checkpoint.min(lines.len()));
        let read = |e: &mut Engine, lines: &[(u64, JailId, &str)]| {
            for (when, jail, who) in lines {
                offend(e, *jail, who, *when);
            }
            std::iter::from_fn(|| e.poll_decision()).collect::<Vec<_>>()
        };
        let records = |mut e: Engine, mut ledger: Ledger| {
            ledger.write(&mut e);
            ledger.records
        };

        let mut ledger = Ledger::default();
        let mut one = begin();
        read(&mut one, before);
        ledger.write(&mut one);
        let want = read(&mut one, since);

        let mut two = begin();
        two.restore_history(ledger.records.values().copied());
        prop_assert!(two.is_unchanged());
        prop_assert_eq!(two.restore(ledger.bans.clone(), ledger.windows.clone(), at(0)), []);
        let got = read(&mut two, since);
        if limit == 1000 {
            // Bans that end at the same instant are told in any order.
            let sorted = |all: &[Decision]| {
                let mut all: Vec<String> = all.iter().map(|d| format!("{d:?}")).collect();
                all.sort();
                all
            };
            prop_assert_eq!(sorted(&got), sorted(&want));
            prop_assert_eq!(records(two, ledger.clone()), records(one, ledger));
        } else {
            prop_assert!(two.remembered() <= limit);
            let kept = records(two, ledger);
            prop_assert!(kept.len() <= limit, "the ledger forgets with the engine");
        }
    }
}
