//! The engine beside its model, under random inputs over few addresses, few networks and two jails.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::model::Model;
use super::*;
use crate::types::BanTime;

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn addr(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

/// Two IPv6 addresses of one /64 and one of the next (same /60); one IPv4 address twice, once mapped.
const WHO: [&str; 6] =
    ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
const NETS: [&str; 10] = [
    "192.0.2.1/32",
    "192.0.2.2/32",
    "192.0.2.3/31",
    "192.0.2.0/24",
    "::ffff:192.0.2.1/128",
    "2001:db8::1/128",
    "2001:db8::/64",
    "2001:db8:0:1::/64",
    "2001:db8::/60",
    "::/0",
];
const JAILS: [JailId; 2] = [JailId(0), JailId(3)];
const SEED: u64 = 7;

#[derive(Clone, Debug)]
enum Act {
    /// Time passes, in milliseconds; rarely, the clock is set back.
    Wait(i64),
    /// `late` milliseconds old when read; negative when dated ahead.
    Offend {
        jail: usize,
        who: usize,
        late: i64,
    },
    Timeout,
    Ban {
        jail: usize,
        nets: Vec<usize>,
        time: Option<BanTime>,
        force: bool,
    },
    Unban {
        net: Option<usize>,
        jail: Option<usize>,
    },
    SetJail {
        jail: usize,
        policy: Policy,
    },
    RemoveJail {
        jail: usize,
    },
    SetAllowlist(Vec<usize>),
    SetProtected(Vec<usize>),
    Adopt {
        jail: usize,
        net: usize,
        forced: bool,
        until: Option<i64>,
    },
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let bantime = prop_oneof![
        8 => (0u64..40_000).prop_map(|ms| BanTime::For(Duration::from_millis(ms))),
        1 => Just(BanTime::For(Duration::ZERO)),
        1 => Just(BanTime::Permanent),
    ];
    let prefix = prop_oneof![4 => Just(64u8), 1 => Just(60), 1 => Just(128)];
    let allowlist = prop::option::weighted(0.2, some_nets());
    let escalation = prop::option::of(any_escalation().prop_map(Arc::new));
    (1u32..6, 0u64..12, bantime, prefix, allowlist, escalation).prop_map(
        |(maxretry, findtime, bantime, ipv6_prefix, allowlist, escalation)| {
            let allowlist = allowlist.map(|nets| Arc::new(nets.iter().map(|n| net(NETS[*n])).collect()));
            Policy {
                maxretry,
                findtime: Duration::from_secs(findtime),
                bantime,
                escalation,
                ipv6_prefix,
                allowlist,
            }
        },
    )
}

/// All that may be configured, in times as short as the others here.
fn any_escalation() -> impl Strategy<Value = Escalation> {
    let growth = prop_oneof![
        Just(Growth::Doubling),
        prop::collection::vec(0.5f64..4.0, 1..4).prop_map(|all| Growth::Multipliers(all.into())),
        Just(Growth::Formula(Formula::parse("time * (count + 1) * factor").unwrap())),
    ];
    let seconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    let neighbours =
        (2u32..4, 0u64..=100, prop_oneof![Just(None), Just(Some(24)), Just(Some(30))], 0usize..4);
    let neighbours = prop::option::weighted(0.7, neighbours);
    let max = prop::option::of(seconds(1..100));
    let decay = prop::option::of(seconds(1..20));
    (growth, 0.5f64..2.0, max, seconds(0..10), any::<bool>(), seconds(1..200), decay, neighbours).prop_map(
        |(growth, factor, max, jitter, across, memory, decay, neighbours)| {
            let ladders: [&[u8]; 4] = [&[], &[64, 60], &[60], &[127, 64, 60, 56]];
            let neighbours = neighbours.map(|(after, percent, ipv4, ladder)| {
                let within = memory * u32::try_from(percent).unwrap() / 100;
                Neighbours { after, within, ipv6: ladders[ladder].into(), ipv4 }
            });
            Escalation { growth, factor, max, jitter, across, memory, decay, neighbours }
        },
    )
}

/// Mostly none: where much is allowed, little is banned.
fn some_nets() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec(0..NETS.len(), 1..3)]
}

fn lateness() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => Just(0i64),
        6 => 0i64..15_000,
        2 => -70_000i64..0,
        1 => 0i64..200_000,
        1 => 7_190_000i64..7_210_000,
    ]
}

/// Once, 40 minutes leave an offender in memory, twice do not. Nothing comes near the border: after a clock is set
/// back across it, it depends on the sweep whether the offender is still known.
fn any_wait() -> impl Strategy<Value = i64> {
    prop_oneof![16 => 0i64..4000, 1 => Just(2_400_000i64), 1 => Just(7_200_000i64), 2 => -20_000i64..0]
}

fn any_act() -> impl Strategy<Value = Act> {
    let jail = 0..JAILS.len();
    let time = prop::option::of(prop_oneof![
        (0u64..60_000).prop_map(|ms| BanTime::For(Duration::from_millis(ms))),
        Just(BanTime::Permanent)
    ]);
    let nets = prop::collection::vec(0..NETS.len(), 0..3);
    prop_oneof![
        12 => any_wait().prop_map(Act::Wait),
        40 => (jail.clone(), 0..WHO.len(), lateness()).prop_map(|(jail, who, late)| Act::Offend { jail, who, late }),
        4 => Just(Act::Timeout),
        3 => (jail.clone(), nets, time, any::<bool>())
            .prop_map(|(jail, nets, time, force)| Act::Ban { jail, nets, time, force }),
        2 => (prop::option::weighted(0.9, 0..NETS.len()), prop::option::of(jail.clone()))
            .prop_map(|(net, jail)| Act::Unban { net, jail }),
        2 => (jail.clone(), any_policy()).prop_map(|(jail, policy)| Act::SetJail { jail, policy }),
        1 => jail.clone().prop_map(|jail| Act::RemoveJail { jail }),
        1 => some_nets().prop_map(Act::SetAllowlist),
        1 => some_nets().prop_map(Act::SetProtected),
        1 => (jail, 0..NETS.len(), prop::option::weighted(0.9, -5000i64..30_000), prop::bool::weighted(0.2))
            .prop_map(|(jail, net, until, forced)| Act::Adopt { jail, net, until, forced }),
    ]
}

/// The engine and the model under the same inputs; each step compares all that can be seen.
struct Pair {
    engine: Engine,
    model: Model,
    now: Timestamp,
    verdicts: Vec<(JailId, Verdict)>,
}

impl Pair {
    fn new(policies: [Policy; 2], total_recall: bool) -> Self {
        let mut pair = Self {
            engine: Engine::new(Limits::default()),
            model: Model::new(total_recall, SEED),
            now: START,
            verdicts: Vec::new(),
        };
        pair.engine.set_seed(SEED);
        for (id, policy) in JAILS.into_iter().zip(policies) {
            pair.engine.set_jail(id, policy.clone(), pair.now);
            pair.model.set_jail(id, policy, pair.now);
        }
        pair
    }

    fn offend(&mut self, id: JailId, who: usize, at: Timestamp) -> Verdict {
        let offender = addr(WHO[who]);
        let got = self.engine.offense(Offense { jail: id, offender, at, line: b"" }, self.now);
        let want = self.model.offense(id, offender.to_canonical(), at, self.now);
        assert_eq!(got, want, "{} at {at}, read at {}", WHO[who], self.now);
        self.verdicts.push((id, got));
        got
    }

    fn act(&mut self, act: &Act) {
        let now = self.now;
        match act {
            Act::Wait(ms) => self.now = Timestamp::from_millis(now.as_millis() + ms),
            Act::Offend { jail, who, late } => {
                self.offend(JAILS[*jail], *who, Timestamp::from_millis(now.as_millis() - late));
            }
            Act::Timeout => {
                self.engine.timeout(now);
                self.model.expire(now);
            }
            Act::Ban { jail, nets, time, force } => {
                let jail = JAILS[*jail];
                let nets: Vec<IpNet> = nets.iter().map(|n| net(NETS[*n])).collect();
                let order =
                    Command::Ban { jail, nets: nets.clone(), time: *time, reason: vec![], force: *force };
                let got = self.engine.command(order, now);
                // The model bans one by one, so it is asked first whether it would refuse any.
                self.model.expire(now);
                let want = self.model.refuses_all(jail, &nets, *time, *force, now);
                match got {
                    Ok(_) => {
                        assert_eq!(want, None);
                        for net in nets {
                            self.model.ban(jail, net, *time, *force, now);
                        }
                    }
                    // An order for no networks has a jail and a time, too.
                    Err(refused) => {
                        // The words for a reason are no concern of the model's.
                        let refused = match refused {
                            Refused::Protected { net, .. } => Refused::Protected { net, told: String::new() },
                            other => other,
                        };
                        assert_eq!(
                            Some(&refused),
                            want.as_ref().or_else(|| nets.is_empty().then_some(&refused))
                        );
                    }
                }
            }
            Act::Unban { net: asked, jail } => {
                let (asked, jail) = (asked.map(|n| net(NETS[n])), jail.map(|j| JAILS[j]));
                let before = self.model.bans.len();
                if jail.is_some_and(|id| !self.model.jails.contains_key(&id)) {
                    assert_eq!(self.engine.command(unban_one(asked, jail), now), Err(Refused::NoSuchJail));
                    self.model.expire(now);
                } else {
                    let reply = self.engine.command(unban_one(asked, jail), now).unwrap();
                    self.model.expire(now);
                    let expired = before - self.model.bans.len();
                    self.model.unban(asked, jail, now);
                    let Reply::Unbanned { lifted, absent, covered } = reply else { panic!("{reply:?}") };
                    assert_eq!(lifted, before - expired - self.model.bans.len());
                    assert_eq!(absent.is_empty(), lifted > 0 || asked.is_none());
                    for c in covered {
                        let stays = |b: &Ban| b.jail == c.jail && b.offender == c.by && c.by.contains(&c.net);
                        assert!(self.model.bans.iter().any(stays));
                    }
                }
            }
            Act::SetJail { jail, policy } => {
                self.engine.set_jail(JAILS[*jail], policy.clone(), now);
                self.model.set_jail(JAILS[*jail], policy.clone(), now);
            }
            Act::RemoveJail { jail } => {
                self.engine.remove_jail(JAILS[*jail], now);
                self.model.remove_jail(JAILS[*jail], now);
            }
            Act::SetAllowlist(nets) => {
                let nets: Vec<IpNet> = nets.iter().map(|n| canonical(net(NETS[*n]))).collect();
                self.engine.set_allowlist(nets.iter().copied().collect(), now);
                self.model.set_allowlist(nets, now);
            }
            Act::SetProtected(nets) => {
                let nets: Vec<IpNet> = nets.iter().map(|n| canonical(net(NETS[*n]))).collect();
                self.engine.set_protected(nets.iter().map(|net| (*net, Why::Gateway)).collect(), now);
                self.model.set_protected(nets, now);
            }
            Act::Adopt { jail, net: n, until, forced } => {
                let until = until.map(|ms| Timestamp::from_millis(now.as_millis() + ms));
                let ban = Ban {
                    jail: JAILS[*jail],
                    offender: net(NETS[*n]),
                    since: now,
                    until,
                    offenses: 0,
                    evidence: crate::types::Evidence::default(),
                    forced: *forced,
                };
                assert_eq!(self.engine.adopt(ban.clone()), self.model.adopt(ban));
            }
        }
    }

    /// Several bans that end at once may be told in any order.
    fn compare(&mut self) {
        let by_what = |d: &Decision| (d.word(), d.ban().clone().jail, d.ban().offender);
        let mut got = std::iter::from_fn(|| self.engine.poll_decision()).collect::<Vec<_>>();
        let mut want = std::mem::take(&mut self.model.decisions);
        let ends = |ds: &[Decision]| {
            ds.iter().filter(|d| expired(d)).filter_map(|d| d.ban().until).collect::<Vec<_>>()
        };
        assert!(ends(&got).is_sorted(), "ends out of order: {got:?}");
        // Whatever ended by itself comes first.
        assert!(got.iter().skip_while(|d| expired(d)).all(|d| !expired(d)), "{got:?}");
        got.sort_by_key(by_what);
        want.sort_by_key(by_what);
        assert_eq!(got, want);

        let mut bans: Vec<Ban> = self.engine.bans().cloned().collect();
        bans.sort_by_key(|b| (b.jail, b.offender));
        self.model.bans.sort_by_key(|b| (b.jail, b.offender));
        assert_eq!(bans, self.model.bans);
        for ban in &bans {
            assert_eq!(self.engine.ban(ban.jail, ban.offender), Some(ban));
        }
        for id in JAILS {
            for record in NETS.iter().filter_map(|n| self.engine.record(id, net(n))) {
                assert_eq!(Some(record), self.model.record(record.jail, record.offender));
            }
        }
        assert_eq!(self.engine.remembered(), self.model.noted.len());
        assert_eq!(self.engine.poll_timeout(), bans.iter().filter_map(|b| b.until).min());
        for id in JAILS {
            let stats = self.engine.stats(id, self.now);
            assert_eq!(stats.is_some(), self.model.jails.contains_key(&id));
            let Some(stats) = stats else { continue };
            let current = self.model.bans.iter().filter(|b| b.jail == id).count();
            let tracked = self.model.tracked(id, self.now);
            assert_eq!((stats.bans_current, stats.tracked), (current as u64, tracked as u64));
            assert_eq!(stats.forgotten, 0);
        }
    }
}

fn unban_one(asked: Option<IpNet>, jail: Option<JailId>) -> Command {
    Command::Unban { what: asked.map_or(Unban::All, |n| Unban::Nets(vec![n])), jail }
}

fn expired(d: &Decision) -> bool {
    matches!(d, Decision::Unban(_, UnbanReason::Expired))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Anything in any order, clocks set back and lines from the future included: the same verdicts, decisions,
    /// bans, ends and counts as the model's. The model remembers as little as the documentation says; what that
    /// is worth is the next property. Nothing is promised about who is forgotten when too many are tracked (see
    /// `tracker`), nor in which order bans that end at the same instant are told.
    #[test]
    fn decides_as_the_model_does(
        policies in (any_policy(), any_policy()),
        acts in prop::collection::vec(any_act(), 1..120),
    ) {
        let mut pair = Pair::new(policies.into(), false);
        for act in &acts {
            pair.act(act);
            pair.compare();
        }
    }

    /// While no line is late by more than findtime (of the jail with the shorter one), the engine with its small
    /// memory decides as one that remembers every offense. It promises nothing for later lines.
    #[test]
    fn misses_nothing_while_lines_are_late_by_findtime_at_most(
        policies in (any_policy(), any_policy()),
        acts in prop::collection::vec((0i64..3000, 0..JAILS.len(), 0..WHO.len(), 0u64..=1000), 1..200),
    ) {
        let latest = policies.0.findtime.min(policies.1.findtime).as_millis() as u64;
        let mut pair = Pair::new(policies.into(), true);
        for (wait, jail, who, late) in acts {
            pair.act(&Act::Wait(wait));
            let late = i64::try_from(latest * late / 1000).unwrap();
            pair.act(&Act::Offend { jail, who, late });
            pair.compare();
        }
    }
}

proptest! {
    /// Whatever happens there are no more bans than may be, all stay that must, and who goes ends before all who stay and
    /// might have gone. Nothing is promised about which of several goes that end at the same instant.
    #[test]
    fn never_more_bans_than_may_be(
        steps in prop::collection::vec((0u8..40, 1u64..50, prop::option::weighted(0.2, any::<bool>())), 1..120),
        limit in 1usize..8,
    ) {
        let mut e = Engine::new(Limits { bans: limit, ..Limits::default() });
        let mut now = START;
        let mut held: Vec<Ban> = Vec::new();
        for (who, seconds, by_hand) in steps {
            now = now.saturating_add(Duration::from_secs(1));
            let policy = Policy { maxretry: 1, bantime: BanTime::For(Duration::from_secs(seconds)), ..Policy::default() };
            e.set_jail(JAILS[0], policy, now);
            let offender = IpAddr::from([192, 0, 2, who]);
            match by_hand {
                None => {
                    e.offense(Offense { jail: JAILS[0], offender, at: now, line: b"" }, now);
                }
                Some(permanent) => {
                    let time = permanent.then_some(BanTime::Permanent);
                    let (nets, reason) = (vec![IpNet::from(offender)], Vec::new());
                    // Refused where nobody may go.
                    drop(e.command(Command::Ban { jail: JAILS[0], nets, time, reason, force: false }, now));
                }
            }
            while let Some(decision) = e.poll_decision() {
                match decision {
                    Decision::Ban(ban) => held.push(ban),
                    Decision::Prolong(ban) => {
                        held.retain(|b| b.offender != ban.offender);
                        held.push(ban);
                    }
                    Decision::Unban(ban, reason) => {
                        held.retain(|b| b.offender != ban.offender);
                        if reason == UnbanReason::MadeRoom {
                            prop_assert!(ban.offenses > 0 && ban.until.is_some(), "{ban:?}");
                            let might = held.iter().filter(|b| b.offenses > 0 && b.until.is_some());
                            prop_assert!(might.clone().all(|b| b.until >= ban.until), "{ban:?} of {held:?}");
                        }
                    }
                }
            }
            prop_assert!(e.bans().count() <= limit);
            let mut bans: Vec<Ban> = e.bans().cloned().collect();
            bans.sort_by_key(|b| b.offender);
            held.sort_by_key(|b| b.offender);
            prop_assert_eq!(&bans, &held);
        }
    }
}
