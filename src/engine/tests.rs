//! The cases that people ask about, told one by one.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::*;
use crate::types::BanTime;

const JAIL: JailId = JailId(1);
const START: i64 = 1_800_000_000_000;

fn addr(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

/// So many seconds after the start.
fn at(s: f64) -> Timestamp {
    Timestamp::from_millis(START).saturating_add(Duration::from_secs_f64(s))
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn policy(maxretry: u32, findtime: u64, bantime: u64) -> Policy {
    Policy { maxretry, findtime: secs(findtime), bantime: BanTime::For(secs(bantime)), ..Policy::default() }
}

fn engine(policy: Policy) -> Engine {
    let mut e = Engine::new(Limits::default());
    e.set_jail(JAIL, policy, at(0.0));
    e
}

fn offend(e: &mut Engine, who: &str, when: f64, now: f64) -> Verdict {
    e.offense(Offense { jail: JAIL, offender: addr(who), at: at(when), line: b"the line" }, at(now))
}

/// In log time.
fn replay(e: &mut Engine, who: &str, when: f64) -> Verdict {
    offend(e, who, when, when)
}

fn drain(e: &mut Engine) -> Vec<Decision> {
    std::iter::from_fn(|| e.poll_decision()).collect()
}

/// `ban 192.0.2.1/32`, and so on.
fn words(e: &mut Engine) -> Vec<String> {
    drain(e).iter().map(|d| format!("{} {}", d.word(), d.ban().offender)).collect()
}

#[test]
fn the_deciding_offense_begins_the_ban() {
    let mut e = engine(policy(3, 60, 600));
    assert_eq!(replay(&mut e, "192.0.2.1", 0.0), Verdict::Counted { count: 1 });
    assert_eq!(replay(&mut e, "192.0.2.1", 30.0), Verdict::Counted { count: 2 });
    assert_eq!(replay(&mut e, "192.0.2.2", 31.0), Verdict::Counted { count: 1 });
    assert_eq!(replay(&mut e, "192.0.2.1", 60.0), Verdict::Banned);
    let ban = Ban {
        jail: JAIL,
        offender: net("192.0.2.1/32"),
        since: at(60.0),
        until: Some(at(660.0)),
        offenses: 3,
        evidence: b"the line".as_slice().into(),
        forced: false,
    };
    assert_eq!(drain(&mut e), [Decision::Ban(ban.clone())]);
    assert_eq!(e.poll_timeout(), Some(at(660.0)));
    assert_eq!(e.ban(JAIL, net("192.0.2.1/32")), Some(&ban));

    assert_eq!(replay(&mut e, "192.0.2.1", 659.999), Verdict::AlreadyBanned);
    e.timeout(at(659.999));
    assert_eq!(drain(&mut e), []);
    // The end is no longer banned, and counting begins anew.
    assert_eq!(replay(&mut e, "192.0.2.1", 660.0), Verdict::Counted { count: 1 });
    assert_eq!(drain(&mut e), [Decision::Unban(ban, UnbanReason::Expired)]);
    assert_eq!(e.poll_timeout(), None);
}

#[test]
fn a_ban_is_in_force_when_it_has_begun_and_is_known() {
    let mut e = engine(policy(2, 60, 600));
    let who = addr("192.0.2.1");
    assert_eq!(e.in_force_since(JAIL, who), None);
    // Read 100 s late: until then nobody could have stopped anything.
    offend(&mut e, "192.0.2.1", 0.0, 100.0);
    assert_eq!(e.in_force_since(JAIL, who), None);
    assert_eq!(offend(&mut e, "192.0.2.1", 1.0, 101.0), Verdict::Banned);
    assert_eq!(e.in_force_since(JAIL, who), Some(at(101.0)));
    // A log whose clock is ahead of ours.
    offend(&mut e, "192.0.2.2", 130.0, 102.0);
    assert_eq!(offend(&mut e, "192.0.2.2", 131.0, 102.0), Verdict::Banned);
    assert_eq!(e.in_force_since(JAIL, addr("::ffff:192.0.2.2")), Some(at(131.0)));
    // A network bans whom it holds; of two bans the first counts.
    let command = |net_: &str| Command::Ban {
        jail: JAIL,
        nets: vec![net(net_)],
        time: Some(BanTime::Permanent),
        reason: Vec::new(),
        force: false,
    };
    e.command(command("192.0.2.0/24"), at(110.0)).unwrap();
    e.command(command("2001:db8::/64"), at(111.0)).unwrap();
    assert_eq!(e.in_force_since(JAIL, who), Some(at(101.0)));
    assert_eq!(e.in_force_since(JAIL, addr("192.0.2.9")), Some(at(110.0)));
    assert_eq!(e.in_force_since(JAIL, addr("2001:db8::7")), Some(at(111.0)));
    assert_eq!(e.in_force_since(JailId(0), who), None);
    // Prolonging it does not begin it anew.
    e.command(command("192.0.2.1/32"), at(120.0)).unwrap();
    assert_eq!(e.in_force_since(JAIL, who), Some(at(101.0)));
    // Over, lifted, and decided again.
    let all = Command::Unban { what: Unban::All, jail: None };
    e.command(all, at(130.0)).unwrap();
    assert_eq!(e.in_force_since(JAIL, who), None);
    e.command(command("192.0.2.1/32"), at(140.0)).unwrap();
    assert_eq!(e.in_force_since(JAIL, who), Some(at(140.0)));
}

#[test]
fn a_ban_found_in_the_kernel_is_known_from_then_on() {
    let mut e = engine(policy(2, 60, 600));
    e.timeout(at(50.0));
    let ban = Ban {
        jail: JAIL,
        offender: net("2001:db8::/64"),
        since: at(3.0),
        until: None,
        offenses: 2,
        evidence: crate::types::Evidence::default(),
        forced: false,
    };
    assert!(e.adopt(ban));
    assert_eq!(e.in_force_since(JAIL, addr("2001:db8::1")), Some(at(50.0)));
}

#[test]
fn one_more_than_findtime_apart_is_not_within() {
    let mut e = engine(policy(2, 60, 600));
    assert_eq!(replay(&mut e, "192.0.2.1", 0.0), Verdict::Counted { count: 1 });
    assert_eq!(replay(&mut e, "192.0.2.1", 60.001), Verdict::Counted { count: 1 });
    assert_eq!(replay(&mut e, "192.0.2.1", 120.001), Verdict::Banned);
}

/// fail2ban's mean rate carries part of an old count over a pause; a window does not.
#[test]
fn one_too_few_again_and_again_is_never_a_ban() {
    let mut e = engine(policy(5, 60, 600));
    for burst in 0..200 {
        for n in 0..4 {
            let when = f64::from(burst) * 61.0 + f64::from(n) * 0.1;
            assert_eq!(replay(&mut e, "192.0.2.1", when), Verdict::Counted { count: n + 1 });
        }
    }
    // Steadily just too slow: five in 60.4 s.
    let mut e = engine(policy(5, 60, 600));
    for n in 0..1000 {
        assert!(matches!(replay(&mut e, "192.0.2.1", f64::from(n) * 15.1), Verdict::Counted { .. }));
    }
    // And just fast enough: five in 60 s.
    let mut e = engine(policy(5, 60, 600));
    let verdicts: Vec<Verdict> = (0..5).map(|n| replay(&mut e, "192.0.2.1", f64::from(n) * 15.0)).collect();
    assert_eq!(verdicts.last(), Some(&Verdict::Banned));
}

#[test]
fn two_half_bursts_and_a_third_after_findtime_are_not_a_ban() {
    let mut e = engine(policy(6, 100, 600));
    let mut most = 0;
    for start in [0.0, 80.0, 181.0] {
        for n in 0..if start > 100.0 { 4 } else { 2 } {
            match replay(&mut e, "192.0.2.1", start + f64::from(n) * 0.1) {
                Verdict::Counted { count } => most = most.max(count),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(most, 4);
}

#[test]
fn the_first_offense_is_enough_for_maxretry_1() {
    let mut e = engine(policy(1, 60, 600));
    assert_eq!(replay(&mut e, "192.0.2.1", 0.0), Verdict::Banned);
    assert_eq!(replay(&mut e, "192.0.2.1", 1.0), Verdict::AlreadyBanned);
    assert_eq!(replay(&mut e, "192.0.2.1", 600.0), Verdict::Banned);
    assert_eq!(words(&mut e), ["ban 192.0.2.1/32", "unban 192.0.2.1/32", "ban 192.0.2.1/32"]);
    // Taken as 1: a jail that bans at no offense at all is nothing.
    let mut e = engine(policy(0, 60, 600));
    assert_eq!(replay(&mut e, "192.0.2.1", 0.0), Verdict::Banned);
}

#[test]
fn a_permanent_ban_has_no_end() {
    let mut e = engine(Policy { maxretry: 1, bantime: BanTime::Permanent, ..Policy::default() });
    assert_eq!(replay(&mut e, "192.0.2.1", 0.0), Verdict::Banned);
    assert_eq!(e.poll_timeout(), None);
    e.timeout(Timestamp::from_millis(i64::MAX));
    assert_eq!(words(&mut e), ["ban 192.0.2.1/32"]);
}

/// A day's log, read from its start: the same bans as when it was written, and only what lasts reaches the kernel.
#[test]
fn a_backlog_is_judged_in_log_time() {
    let mut e = engine(policy(3, 60, 600));
    let now = 86_400.0;
    let verdicts: Vec<Verdict> = [0.0, 1.0, 2.0, 300.0, 601.9, 602.0, 603.0, 604.0]
        .map(|t| offend(&mut e, "192.0.2.1", t, now))
        .to_vec();
    let counted = |count| Verdict::Counted { count };
    assert_eq!(
        verdicts,
        [
            counted(1),
            counted(2),
            Verdict::TooOld,
            Verdict::AlreadyBanned,
            Verdict::AlreadyBanned,
            counted(1),
            counted(2),
            Verdict::TooOld,
        ]
    );
    assert_eq!(drain(&mut e), []);
    assert_eq!(e.bans().count(), 0);
    // The end of the log: its ban ends after now.
    for t in [85_900.0, 85_901.0] {
        offend(&mut e, "192.0.2.1", t, now);
    }
    assert_eq!(offend(&mut e, "192.0.2.1", 85_902.0, now), Verdict::Banned);
    assert_eq!(e.poll_timeout(), Some(at(86_502.0)));
    let stats = e.stats(JAIL, at(now)).unwrap();
    assert_eq!((stats.bans_total, stats.too_old, stats.bans_current), (3, 2, 1));
    assert_eq!(stats.last_ban, Some(at(85_902.0)));
}

/// Lines of the time of a ban that are read after its end were committed by a banned one, not by a new one.
#[test]
fn a_line_read_after_the_ban_it_belongs_to_does_not_count() {
    let mut e = engine(policy(2, 60, 600));
    replay(&mut e, "192.0.2.1", 0.0);
    assert_eq!(replay(&mut e, "192.0.2.1", 0.0), Verdict::Banned);
    assert_eq!(offend(&mut e, "192.0.2.1", 599.0, 602.0), Verdict::AlreadyBanned);
    assert_eq!(offend(&mut e, "192.0.2.1", 599.9, 602.0), Verdict::AlreadyBanned);
    assert_eq!(offend(&mut e, "192.0.2.1", 600.0, 602.0), Verdict::Counted { count: 1 });
}

/// A bantime of nothing is a jail that only counts; the kernel hears of none of it.
#[test]
fn a_ban_of_no_length_is_over_when_it_is_decided() {
    let mut e = engine(policy(2, 60, 0));
    replay(&mut e, "192.0.2.1", 0.0);
    assert_eq!(replay(&mut e, "192.0.2.1", 1.0), Verdict::TooOld);
    assert_eq!(replay(&mut e, "192.0.2.1", 1.0), Verdict::Counted { count: 1 });
    assert_eq!(drain(&mut e), []);
    assert_eq!(e.stats(JAIL, at(1.0)).unwrap().bans_total, 1);
}

/// The border of memory, which the property stays clear of: silence is in the agent's time, the window in the log's.
#[test]
fn after_findtime_and_an_hour_of_silence_counting_begins_anew() {
    let mut e = engine(policy(3, 60, 600));
    offend(&mut e, "192.0.2.1", 0.0, 0.0);
    assert_eq!(offend(&mut e, "192.0.2.1", 1.0, 3660.0), Verdict::Counted { count: 2 });
    assert_eq!(offend(&mut e, "192.0.2.1", 2.0, 7321.0), Verdict::Counted { count: 1 });
}

#[test]
fn the_future_is_clamped_beyond_a_minute() {
    let mut e = engine(policy(1, 60, 600));
    offend(&mut e, "192.0.2.1", 60.0, 0.0);
    offend(&mut e, "192.0.2.2", 60.001, 0.0);
    offend(&mut e, "192.0.2.3", 3600.0, 0.0);
    let ends: Vec<_> = drain(&mut e).iter().map(|d| d.ban().until.unwrap()).collect();
    assert_eq!(ends, [at(660.0), at(600.0), at(600.0)]);
    assert_eq!(e.stats(JAIL, at(0.0)).unwrap().future_clamped, 2);
}

/// The hour that a log in local time repeats in autumn: who offended before it is still counted within it.
#[test]
fn a_clock_that_steps_back_an_hour_hides_nobody() {
    let mut e = engine(policy(5, 600, 7200));
    for n in 0..4 {
        assert_eq!(
            offend(&mut e, "192.0.2.1", 3590.0 + f64::from(n), 3600.0),
            Verdict::Counted { count: n + 1 }
        );
    }
    let verdicts: Vec<_> = (0..5).map(|n| offend(&mut e, "192.0.2.1", f64::from(n), 3601.0)).collect();
    assert_eq!(verdicts.last(), Some(&Verdict::Banned));
}

/// The worst that lines late by findtime can do: between the first and the last of ten that belong together come 24
/// others and none of them may displace the first. Chance does not find this one.
#[test]
fn the_memory_is_long_enough_for_lines_late_by_findtime() {
    let mut e = engine(policy(10, 100, 600));
    let arrivals = [(0.0, 1), (-0.002, 8), (99.999, 8), (200.0, 8)];
    for (when, times) in arrivals {
        for _ in 0..times {
            let verdict = offend(&mut e, "192.0.2.1", 300.0 + when, 600.0);
            assert!(matches!(verdict, Verdict::Counted { count: ..10 }), "{verdict:?}");
        }
    }
    assert_eq!(offend(&mut e, "192.0.2.1", 400.0, 600.0), Verdict::Banned);
    assert_eq!(drain(&mut e)[0].ban().offenses, 10);
}

#[test]
fn ipv6_is_counted_and_banned_by_prefix() {
    let mut e = engine(policy(3, 60, 600));
    replay(&mut e, "2001:db8::1", 0.0);
    replay(&mut e, "2001:db8::2", 1.0);
    assert_eq!(replay(&mut e, "2001:db8:0:1::1", 1.0), Verdict::Counted { count: 1 });
    assert_eq!(replay(&mut e, "2001:db8::ffff:0:0:3", 2.0), Verdict::Banned);
    assert_eq!(replay(&mut e, "2001:db8::4", 3.0), Verdict::AlreadyBanned);
    assert_eq!(words(&mut e), ["ban 2001:db8::/64"]);

    let mut e = engine(Policy { ipv6_prefix: 48, ..policy(2, 60, 600) });
    replay(&mut e, "2001:db8:7::1", 0.0);
    replay(&mut e, "2001:db8:7:1::1", 0.0);
    assert_eq!(words(&mut e), ["ban 2001:db8:7::/48"]);
}

#[test]
fn a_prefix_with_somebody_allowed_in_it_is_not_banned() {
    let mut e = engine(policy(2, 60, 600));
    e.set_allowlist([net("2001:db8::7/128")].into_iter().collect(), at(0.0));
    assert_eq!(replay(&mut e, "2001:db8::7", 0.0), Verdict::Allowlisted);
    assert_eq!(replay(&mut e, "2001:db8::1", 0.0), Verdict::Counted { count: 1 });
    assert_eq!(replay(&mut e, "2001:db8::2", 0.0), Verdict::Counted { count: 1 });
    assert_eq!(replay(&mut e, "2001:db8::1", 1.0), Verdict::Banned);
    assert_eq!(words(&mut e), ["ban 2001:db8::1/128"]);
    assert_eq!(e.offender(JAIL, addr("2001:db8::2")), Some(net("2001:db8::2/128")));
    assert_eq!(e.offender(JAIL, addr("2001:db8::7")), None);
    assert_eq!(e.offender(JAIL, addr("2001:db8:0:1::7")), Some(net("2001:db8:0:1::/64")));
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_address() {
    let mut e = engine(policy(2, 60, 600));
    replay(&mut e, "::ffff:192.0.2.1", 0.0);
    assert_eq!(replay(&mut e, "192.0.2.1", 0.0), Verdict::Banned);
    assert_eq!(replay(&mut e, "::ffff:192.0.2.1", 0.0), Verdict::AlreadyBanned);
    assert_eq!(words(&mut e), ["ban 192.0.2.1/32"]);
}

#[test]
fn jails_count_apart_and_a_change_leaves_the_others_alone() {
    let other = JailId(7);
    let mut e = engine(policy(3, 60, 600));
    e.set_jail(other, policy(2, 60, 60), at(0.0));
    let theirs = |e: &mut Engine, t: f64| {
        e.offense(Offense { jail: other, offender: addr("192.0.2.1"), at: at(t), line: b"" }, at(t))
    };
    replay(&mut e, "192.0.2.1", 0.0);
    assert_eq!(theirs(&mut e, 0.0), Verdict::Counted { count: 1 });
    e.set_jail(other, policy(3, 60, 60), at(0.0));
    assert_eq!(theirs(&mut e, 1.0), Verdict::Counted { count: 2 });
    assert_eq!(theirs(&mut e, 1.0), Verdict::Banned);
    assert_eq!(replay(&mut e, "192.0.2.1", 1.0), Verdict::Counted { count: 2 });

    e.remove_jail(other, at(2.0));
    assert_eq!(theirs(&mut e, 2.0), Verdict::NoSuchJail);
    assert_eq!(e.stats(other, at(2.0)), None);
    let decisions = drain(&mut e);
    assert!(
        matches!(decisions.as_slice(), [Decision::Ban(_), Decision::Unban(b, UnbanReason::Reconfigured)] if b.jail == other)
    );
    // Lowered below what is counted already: the next offense decides.
    e.set_jail(JAIL, policy(2, 60, 600), at(2.0));
    assert_eq!(replay(&mut e, "192.0.2.1", 2.0), Verdict::Banned);
}

#[test]
fn the_allowlist_lifts_bans_but_not_those_that_were_forced_in_spite_of_it() {
    let mut e = engine(policy(1, 60, 600));
    for n in 1..=3 {
        replay(&mut e, &format!("192.0.2.{n}"), 0.0);
    }
    drain(&mut e);
    e.set_allowlist([net("192.0.2.2/32")].into_iter().collect(), at(1.0));
    assert_eq!(words(&mut e), ["unban 192.0.2.2/32"]);

    assert_eq!(
        order(&mut e, &["192.0.2.0/24"], None, false),
        Err(Refused::Allowlisted { net: net("192.0.2.0/24"), entry: net("192.0.2.2/32") })
    );
    assert_eq!(
        order(&mut e, &["192.0.2.0/24"], None, false).unwrap_err().to_string(),
        "192.0.2.0/24 holds addresses that are never banned: 192.0.2.2/32 is in ignoreip; use --force to ban them all the same"
    );
    order(&mut e, &["192.0.2.0/24"], None, true).unwrap();
    e.set_allowlist([net("192.0.2.2/31")].into_iter().collect(), at(2.0));
    assert_eq!(words(&mut e), ["ban 192.0.2.0/24", "unban 192.0.2.3/32"]);
}

fn order(e: &mut Engine, nets: &[&str], time: Option<u64>, force: bool) -> Result<Reply, Refused> {
    let nets = nets.iter().map(|s| net(s)).collect();
    let time = time.map(|s| BanTime::For(secs(s)));
    e.command(Command::Ban { jail: JAIL, nets, time, reason: b"by hand".to_vec(), force }, at(10.0))
}

fn unban(e: &mut Engine, nets: &[&str]) -> Reply {
    let what = Unban::Nets(nets.iter().map(|s| net(s)).collect());
    e.command(Command::Unban { what, jail: None }, at(10.0)).unwrap()
}

#[test]
fn a_ban_by_hand_is_all_or_nothing_and_only_ever_prolongs() {
    let mut e = engine(policy(1, 60, 600));
    e.set_allowlist([net("10.0.0.0/8")].into_iter().collect(), at(0.0));
    assert!(order(&mut e, &["192.0.2.1/32", "10.1.2.3/32"], None, false).is_err());
    assert_eq!(e.bans().count(), 0);

    let banned = |new, prolonged, unchanged| Ok(Reply::Banned { new, prolonged, unchanged });
    assert_eq!(
        order(&mut e, &["192.0.2.1/32", "198.51.100.7/24", "192.0.2.1/32"], None, false),
        banned(2, 0, 1)
    );
    assert_eq!(order(&mut e, &["192.0.2.1/32"], Some(60), false), banned(0, 0, 1));
    assert_eq!(order(&mut e, &["192.0.2.1/32"], Some(6000), false), banned(0, 1, 0));
    assert_eq!(words(&mut e), ["ban 192.0.2.1/32", "ban 198.51.100.0/24", "prolong 192.0.2.1/32"]);
    assert_eq!(e.ban(JAIL, net("192.0.2.1/32")).unwrap().until, Some(at(6010.0)));
    assert_eq!(e.poll_timeout(), Some(at(610.0)));
    assert_eq!(order(&mut e, &["192.0.2.1/32"], Some(0), false), Err(Refused::NoTime));
    // Whoever is in the network is banned.
    assert_eq!(offend(&mut e, "198.51.100.200", 10.0, 10.0), Verdict::AlreadyBanned);
    let gone = Command::Ban { jail: JailId(9), nets: vec![], time: None, reason: vec![], force: false };
    assert_eq!(e.command(gone, at(10.0)), Err(Refused::NoSuchJail));
}

#[test]
fn an_unban_finds_the_prefix_and_names_the_network_that_stays() {
    let mut e = engine(policy(1, 60, 600));
    replay(&mut e, "2001:db8::1", 9.0);
    replay(&mut e, "192.0.2.1", 9.0);
    order(&mut e, &["192.0.2.0/24", "2001:db8::/32"], None, false).unwrap();
    drain(&mut e);
    let covered = |net_: &str, by| Covered { net: net(net_), jail: JAIL, by: net(by) };
    assert_eq!(
        unban(&mut e, &["2001:db8::9/128", "192.0.2.1/32", "192.0.2.2/32", "203.0.113.1/32"]),
        Reply::Unbanned {
            lifted: 2,
            absent: vec![net("192.0.2.2/32"), net("203.0.113.1/32")],
            covered: vec![
                covered("2001:db8::9/128", "2001:db8::/32"),
                covered("192.0.2.1/32", "192.0.2.0/24"),
                covered("192.0.2.2/32", "192.0.2.0/24"),
            ],
        }
    );
    assert_eq!(words(&mut e), ["unban 2001:db8::/64", "unban 192.0.2.1/32"]);
    // A network lifts what lies within it.
    assert_eq!(
        unban(&mut e, &["192.0.0.0/16"]),
        Reply::Unbanned { lifted: 1, absent: vec![], covered: vec![] }
    );
    let all = Command::Unban { what: Unban::All, jail: None };
    assert_eq!(e.command(all, at(10.0)), Ok(Reply::Unbanned { lifted: 1, absent: vec![], covered: vec![] }));
    assert_eq!(e.bans().count(), 0);
}

#[test]
fn who_is_unbanned_by_hand_begins_anew() {
    let mut e = engine(policy(2, 60, 600));
    replay(&mut e, "192.0.2.1", 9.0);
    replay(&mut e, "192.0.2.1", 9.0);
    unban(&mut e, &["192.0.2.1/32"]);
    // A line of before, read only now, does not help to ban again.
    assert_eq!(offend(&mut e, "192.0.2.1", 9.5, 11.0), Verdict::AlreadyBanned);
    assert_eq!(offend(&mut e, "192.0.2.1", 11.0, 11.0), Verdict::Counted { count: 1 });
    assert_eq!(offend(&mut e, "192.0.2.1", 11.0, 11.0), Verdict::Banned);
}

#[test]
fn evidence_is_cut() {
    let mut e = engine(policy(1, 60, 600));
    let line = vec![b'x'; 10_000];
    e.offense(Offense { jail: JAIL, offender: addr("192.0.2.1"), at: at(0.0), line: &line }, at(0.0));
    let reason = line.clone();
    let by_hand =
        Command::Ban { jail: JAIL, nets: vec![net("192.0.2.2/32")], time: None, reason, force: false };
    e.command(by_hand, at(0.0)).unwrap();
    let kept: Vec<usize> = e.bans().map(|b| b.evidence.len()).collect();
    assert_eq!(kept, [EVIDENCE_CAP, EVIDENCE_CAP]);
}

/// A flood of addresses, each new: bounded, counted, and the last of them are the ones remembered.
#[test]
fn a_flood_of_addresses_is_bounded() {
    let mut e = Engine::new(Limits { offenders: 1000, ..Limits::default() });
    e.set_jail(JAIL, policy(2, 600, 600), at(0.0));
    for n in 0..10_000u32 {
        let offender = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n));
        e.offense(Offense { jail: JAIL, offender, at: at(0.0), line: b"" }, at(0.0));
    }
    let stats = e.stats(JAIL, at(0.0)).unwrap();
    assert_eq!((stats.tracked, stats.forgotten, e.tracked()), (1000, 9000, 1000));
    assert_eq!(replay(&mut e, "11.0.39.15", 0.0), Verdict::Banned);
    assert_eq!(replay(&mut e, "11.0.0.0", 0.0), Verdict::Counted { count: 1 });
}

#[test]
fn nothing_overflows_at_the_ends_of_time() {
    let mut e = engine(Policy {
        maxretry: u32::MAX,
        findtime: Duration::MAX,
        bantime: BanTime::For(Duration::MAX),
        ..Policy::default()
    });
    let times = [i64::MIN, i64::MAX, 0, -1, i64::MIN].map(Timestamp::from_millis);
    for now in times {
        for at in times {
            let o = Offense { jail: JAIL, offender: addr("192.0.2.1"), at, line: b"" };
            assert!(matches!(e.offense(o, now), Verdict::Counted { .. }));
        }
        e.timeout(now);
    }
    e.set_jail(JAIL, policy(1, 0, 0), at(0.0));
    for now in times {
        for at in times {
            let o = Offense { jail: JAIL, offender: addr("2001:db8::1"), at, line: b"" };
            assert!(matches!(e.offense(o, now), Verdict::TooOld | Verdict::AlreadyBanned | Verdict::Banned));
        }
    }
}

/// More bans than may be: those that end first make room, never one by hand or without an end; no order is refused while
/// there is one that may.
#[test]
fn the_ban_that_ends_first_makes_room() {
    let mut e = Engine::new(Limits { bans: 3, ..Limits::default() });
    e.set_jail(JAIL, policy(1, 600, 600), at(0.0));
    let order = |n: u8, time| {
        let nets = vec![net(&format!("198.51.100.{n}/32"))];
        Command::Ban { jail: JAIL, nets, time: Some(time), reason: Vec::new(), force: false }
    };
    e.command(order(1, BanTime::For(Duration::from_secs(5))), at(0.0)).unwrap();
    let mut now = 0.0;
    for n in 1..=4_u8 {
        now += 1.0;
        assert_eq!(replay(&mut e, &format!("192.0.2.{n}"), now), Verdict::Banned);
    }
    let made_room = |e: &mut Engine| -> Vec<IpNet> {
        let decisions = std::iter::from_fn(|| e.poll_decision());
        let gone = decisions.filter(|d| matches!(d, Decision::Unban(_, UnbanReason::MadeRoom)));
        gone.map(|d| d.ban().offender).collect()
    };
    assert_eq!(made_room(&mut e), [net("192.0.2.1/32"), net("192.0.2.2/32")]);
    let stats = e.stats(JAIL, at(now)).unwrap();
    assert_eq!((stats.bans_current, stats.bans_total, stats.crowded_out), (3, 5, 2));
    // Orders take all the room there is, and then some are refused, as a whole.
    e.command(order(2, BanTime::Permanent), at(now)).unwrap();
    let both = Command::Ban {
        jail: JAIL,
        nets: vec![net("198.51.100.3/32"), net("198.51.100.4/32")],
        time: None,
        reason: Vec::new(),
        force: false,
    };
    assert_eq!(e.command(both, at(now)), Err(Refused::NoRoom(2)));
    e.command(order(3, BanTime::Permanent), at(now)).unwrap();
    assert_eq!(made_room(&mut e), [net("192.0.2.3/32"), net("192.0.2.4/32")]);
    assert_eq!(replay(&mut e, "192.0.2.9", now), Verdict::NoRoom);
    // The short order ends by itself, and there is room again.
    assert_eq!(replay(&mut e, "192.0.2.9", 5.0), Verdict::Banned);
    assert_eq!(e.bans().count(), 3);
}

#[test]
fn evidence_and_times_are_bounded() {
    let mut e = Engine::new(Limits { evidence: 100, times: 50, ..Limits::default() });
    e.set_jail(JAIL, policy(1, 600, 600), at(0.0));
    for n in 1..=5_u8 {
        let offender = addr(&format!("192.0.2.{n}"));
        e.offense(Offense { jail: JAIL, offender, at: at(0.0), line: &[b'x'; 40] }, at(0.0));
    }
    assert_eq!(e.bans().map(|b| b.evidence.len()).sum::<usize>(), 80);
    e.set_jail(JAIL, policy(20, 600, 600), at(0.0));
    for n in 0..200_u8 {
        for _ in 0..10 {
            replay(&mut e, &format!("203.0.113.{n}"), 1.0);
        }
    }
    let stats = e.stats(JAIL, at(1.0)).unwrap();
    assert!(stats.tracked < 10 && stats.forgotten > 150, "{stats:?}");
}
