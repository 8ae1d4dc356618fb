use proptest::prelude::*;

use super::*;

const TEN_MINUTES: BanTime = BanTime::For(Duration::from_secs(600));
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

fn lengths(escalation: &Escalation, counts: impl IntoIterator<Item = u32>) -> Vec<u64> {
    let seconds = |count| match escalation.time(TEN_MINUTES, count, 0) {
        BanTime::For(d) => d.as_secs(),
        BanTime::Permanent => u64::MAX,
    };
    counts.into_iter().map(seconds).collect()
}

fn multipliers(all: &[f64]) -> Growth {
    Growth::Multipliers(all.into())
}

fn formula(text: &str) -> Growth {
    Growth::Formula(Formula::parse(text).unwrap())
}

/// What fail2ban's jail.conf says of its examples.
#[test]
fn grows_as_fail2ban_documents() {
    let of = |growth| Escalation { growth, ..Escalation::default() };
    // "grows ban time by 1, 2, 4, 8, 16 ... and if last ban count greater as multipliers count, always used last multiplier
    // (64 in example), for factor '1' and original ban time 600 - 10.6 hours"
    let first = of(multipliers(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]));
    assert_eq!(lengths(&first, 0..9), [600, 1200, 2400, 4800, 9600, 19200, 38400, 38400, 38400]);
    // "following example can be used for small initial ban time (bantime=60) - it grows more aggressive at begin"
    let second = of(multipliers(&[1.0, 5.0, 30.0, 60.0, 300.0, 720.0, 1440.0, 2880.0]));
    let minute = BanTime::For(Duration::from_secs(MINUTE));
    let minutes = [1, 5, 30, 60, 5 * 60, 12 * 60, 24 * 60, 48 * 60, 48 * 60];
    for (earlier, minutes) in (0..).zip(minutes) {
        let want = BanTime::For(Duration::from_secs(minutes * MINUTE));
        assert_eq!(second.time(minute, earlier, 0), want, "{earlier}");
    }
    // The formula where none is configured, and the same written out.
    let doubling = of(Growth::Doubling);
    let written = of(formula("ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor"));
    assert_eq!(lengths(&doubling, 0..5), [600, 1200, 2400, 4800, 9600]);
    assert_eq!(lengths(&doubling, 0..30), lengths(&written, 0..30));
    assert_eq!(lengths(&doubling, [20, 21, u32::MAX]), [600 << 20, 600 << 20, 600 << 20]);
}

#[test]
fn the_first_ban_is_as_long_as_configured() {
    let escalation = Escalation {
        growth: multipliers(&[7.0, 2.0]),
        factor: 3.0,
        max: Some(Duration::from_secs(60)),
        jitter: Duration::from_secs(60),
        ..Escalation::default()
    };
    assert_eq!(escalation.time(TEN_MINUTES, 0, u64::MAX), TEN_MINUTES);
}

#[test]
fn the_factor_multiplies_and_max_bounds() {
    let max = Some(Duration::from_secs(24 * HOUR));
    let mut escalation =
        Escalation { growth: multipliers(&[1.0, 5.0, 300.0]), factor: 1.5, max, ..Escalation::default() };
    assert_eq!(lengths(&escalation, 1..3), [4500, 24 * HOUR]);
    escalation.factor = 0.1;
    assert_eq!(lengths(&escalation, 1..3), [300, 18000]);
    // A formula never shortens, unless `max` does.
    escalation.growth = formula("time * factor");
    assert_eq!(lengths(&escalation, [1]), [600]);
    escalation.max = Some(Duration::from_secs(90));
    assert_eq!(lengths(&escalation, [1]), [90]);
}

#[test]
fn jitter_comes_after_max() {
    let escalation = Escalation {
        max: Some(Duration::from_secs(HOUR)),
        jitter: Duration::from_secs(34 * MINUTE),
        ..Escalation::default()
    };
    let time = |chance| match escalation.time(TEN_MINUTES, 9, chance) {
        BanTime::For(d) => d.as_millis(),
        BanTime::Permanent => 0,
    };
    assert_eq!(time(0), 3_600_000);
    assert_eq!(time(1 << 63), 3_600_000 + 1_020_000);
    assert_eq!(time(u64::MAX), 3_600_000 + 2_040_000 - 1);
}

#[test]
fn what_is_too_long_is_max_or_without_end() {
    let mut escalation = Escalation { growth: formula("time * exp(count)"), ..Escalation::default() };
    assert_eq!(escalation.time(TEN_MINUTES, 1000, 0), BanTime::Permanent);
    assert_eq!(escalation.time(TEN_MINUTES, 20, 0), BanTime::Permanent);
    assert!(matches!(escalation.time(TEN_MINUTES, 10, 0), BanTime::For(_)));
    escalation.max = Some(Duration::from_secs(HOUR));
    assert_eq!(lengths(&escalation, [20, 1000]), [HOUR, HOUR]);
    assert_eq!(escalation.time(BanTime::Permanent, 3, 0), BanTime::Permanent);
    let huge = Escalation { jitter: Duration::MAX, max: Some(Duration::MAX), ..escalation };
    assert!(matches!(huge.time(BanTime::For(Duration::MAX), 3, u64::MAX), BanTime::For(_)));
}

#[test]
fn a_formula_without_a_value_changes_nothing() {
    for text in ["1 / 0", "sqrt(0 - 1)", "-5", "time - 1"] {
        let escalation = Escalation { growth: formula(text), ..Escalation::default() };
        assert_eq!(lengths(&escalation, [1]), [600], "{text}");
    }
}

#[test]
fn each_whole_span_of_decay_takes_one_off() {
    let day = Duration::from_secs(86_400);
    let escalation = Escalation { decay: Some(day), memory: day * 10, ..Escalation::default() };
    let end = Timestamp::from_secs(1_800_000_000);
    let left = |gap: Duration| escalation.left(3, Some(end), end.saturating_add(gap));
    let ms = Duration::from_millis(1);
    assert_eq!(left(day - ms), 3);
    assert_eq!(left(day), 2);
    assert_eq!(left(day * 3 - ms), 1);
    assert_eq!(left(day * 3), 0);
    assert_eq!(escalation.left(99, Some(end), end.saturating_add(day * 10)), 89);
    assert_eq!(escalation.left(99, Some(end), end.saturating_add(day * 10 + ms)), 0, "forgotten");
    assert_eq!(escalation.left(3, Some(end), end.saturating_sub(day)), 3, "a line that is read late");
    assert_eq!(escalation.left(3, None, end), 3, "it never ended");
}

#[test]
fn the_next_step_up() {
    let parent = |neighbours: &Neighbours, net: &str| {
        neighbours.parent(net.parse().unwrap()).map(|p| p.to_string()).unwrap_or_default()
    };
    let by_default = Neighbours::default();
    assert_eq!(parent(&by_default, "2001:db8:1:2ff::1/128"), "2001:db8:1:2ff::/64");
    assert_eq!(parent(&by_default, "2001:db8:1:2ff::/64"), "2001:db8:1:200::/56");
    assert_eq!(parent(&by_default, "2001:db8:1:2ff::/60"), "2001:db8:1:200::/56");
    assert_eq!(parent(&by_default, "2001:db8:1:200::/56"), "2001:db8:1::/48");
    assert_eq!(parent(&by_default, "2001:db8:1::/48"), "");
    assert_eq!(parent(&by_default, "192.0.2.1/32"), "");
    let opted = Neighbours { ipv4: Some(24), ipv6: Box::new([]), ..by_default };
    assert_eq!(parent(&opted, "192.0.2.1/32"), "192.0.2.0/24");
    assert_eq!(parent(&opted, "192.0.2.0/24"), "");
    assert_eq!(parent(&opted, "2001:db8::/64"), "");
}

#[test]
#[expect(deprecated, reason = "it is the one implementation of SipHash-2-4 at hand")]
fn the_hash_is_siphash() {
    use std::hash::Hasher as _;
    for seed in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        let words = [1, u64::MAX, seed, 0x8000_0000_0000_0000];
        let mut hasher = std::hash::SipHasher::new_with_keys(seed, 0);
        words.iter().for_each(|word| hasher.write(&word.to_le_bytes()));
        assert_eq!(sip(seed, &words), hasher.finish());
    }
}

#[test]
fn chance_depends_on_seed_offender_and_beginning() {
    let since = Timestamp::from_secs(1_800_000_000);
    let net = |s: &str| s.parse::<IpNet>().unwrap();
    let all = [
        chance(0, net("192.0.2.1/32"), since),
        chance(1, net("192.0.2.1/32"), since),
        chance(0, net("192.0.2.2/32"), since),
        chance(0, net("::c000:201/128"), since),
        chance(0, net("2001:db8::/64"), since),
        chance(0, net("2001:db8::/56"), since),
        chance(0, net("192.0.2.1/32"), since.saturating_add(Duration::from_millis(1))),
    ];
    let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
    assert_eq!(distinct.len(), all.len());
    // The same in every release, or bans would change their ends over an upgrade.
    assert_eq!(chance(7, net("192.0.2.1/32"), since), CHANCE_OF_SEED_7);
}

const CHANCE_OF_SEED_7: u64 = 10_198_765_363_746_782_296;

proptest! {
    /// More bans are never punished less, whatever is configured in ascending order; nothing is longer than `max` and
    /// the jitter, and nothing panics.
    #[test]
    fn grows_with_the_count(
        mut list in prop::collection::vec(0.01f64..1e6, 1..6), factor in 0.01f64..100.0, max in prop::option::of(1u64..1_000_000),
        jitter in 0u64..10_000, base in 1u64..1_000_000, chance: u64,
    ) {
        list.sort_by(f64::total_cmp);
        let max = max.map(Duration::from_secs);
        let jitter = Duration::from_secs(jitter);
        let escalation = Escalation { growth: multipliers(&list), factor, max, jitter, ..Escalation::default() };
        let bantime = BanTime::For(Duration::from_secs(base));
        let times: Vec<Duration> = (1..10).map(|n| match escalation.time(bantime, n, chance) {
            BanTime::For(d) => d,
            BanTime::Permanent => Duration::MAX,
        }).collect();
        prop_assert!(times.is_sorted());
        if let Some(max) = max {
            prop_assert!(times.iter().all(|t| *t <= max + jitter));
        }
    }
}
