//! Longer bans for repeaters: how long a ban lasts, given how often its offender was banned before.
//!
//! As fail2ban's `bantime.increment`: the first ban lasts `bantime`, as it is; a later one
//! `bantime × factor × multiplier`, or what the formula says but never less than `bantime`; either at most `max`. The
//! jitter comes on top, also beyond `max`, as there. Bans without an end stay so.

use std::time::Duration;

use ipnet::IpNet;

use super::formula::{Formula, Values};
use crate::types::{BanTime, Timestamp};

/// A longer ban than this is one without an end: no formula can make a time that cannot be counted.
pub const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

const DAY: Duration = Duration::from_secs(86_400);

/// So long a repeater is remembered where nothing is configured.
pub(super) const MEMORY: Duration = Duration::from_secs(14 * 86_400);

/// How bans grow.
#[derive(Clone, Debug, PartialEq)]
pub struct Escalation {
    /// By what.
    pub growth: Growth,
    /// A number that all multipliers are multiplied by, and formulas may use; above 0 and finite.
    pub factor: f64,
    /// The longest that a repeated ban may become; `None` for no limit.
    pub max: Option<Duration>,
    /// Up to so much is added to a repeated ban, to `max` too, so that its end cannot be foreseen.
    pub jitter: Duration,
    /// Whether the bans of all jails count, or only those of the jail itself.
    pub across: bool,
    /// So long after its last ban ended an offender begins anew.
    pub memory: Duration,
    /// Each whole span of this length after the last ban ended takes one ban off the count; not zero.
    pub decay: Option<Duration>,
    /// When whole prefixes are banned; `None` for never.
    pub neighbours: Option<Neighbours>,
}

// No number in it is NaN: the configuration takes none.
impl Eq for Escalation {}

/// By what bans grow.
#[derive(Clone, Debug, PartialEq)]
pub enum Growth {
    /// Twice as long each time, up to 20 times: fail2ban's formula where none is configured.
    Doubling,
    /// By the count of earlier bans; after the last it stays. Never empty, all above 0 and finite. The first is that of
    /// a ban without earlier ones, which is never multiplied: it only has its place.
    Multipliers(Box<[f64]>),
    /// By a formula.
    Formula(Formula),
}

/// When many offenders of one prefix have the prefix banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// So many networks of the next longer step must have been banned; at least 2.
    pub after: u32,
    /// Within this time; at most [`Escalation::memory`].
    pub within: Duration,
    /// The prefix lengths of IPv6, from the longest to the shortest; none for never.
    pub ipv6: Box<[u8]>,
    /// The prefix length of IPv4; `None` for never.
    pub ipv4: Option<u8>,
}

impl Default for Escalation {
    /// Doubling as in fail2ban, remembered for 14 days, and IPv6 prefixes by their neighbours.
    fn default() -> Self {
        Self {
            growth: Growth::Doubling,
            factor: 1.0,
            max: None,
            jitter: Duration::ZERO,
            across: false,
            memory: MEMORY,
            decay: None,
            neighbours: Some(Neighbours::default()),
        }
    }
}

impl Default for Neighbours {
    /// Five within a day; IPv6 by /64, /56 and /48, which are the sizes in which providers give it to one customer; IPv4
    /// never, because the neighbours of an IPv4 address are other customers.
    fn default() -> Self {
        Self { after: 5, within: DAY, ipv6: Box::new([64, 56, 48]), ipv4: None }
    }
}

impl Neighbours {
    /// The network that `net`, which is canonical, is one of many in: the next step up.
    pub(super) fn parent(&self, net: IpNet) -> Option<IpNet> {
        let shorter = |len: &u8| *len < net.prefix_len();
        let len = match net {
            IpNet::V4(_) => self.ipv4.filter(shorter),
            IpNet::V6(_) => self.ipv6.iter().copied().filter(shorter).max(),
        };
        Some(IpNet::new(net.addr(), len?).ok()?.trunc())
    }
}

impl Escalation {
    /// Counts bans, and lets them last as long as ever: for who wants to be told the count.
    #[must_use]
    pub fn counting() -> Self {
        Self { growth: Growth::Multipliers(Box::new([1.0])), neighbours: None, ..Self::default() }
    }

    /// Whether earlier bans make any difference to a ban's length.
    pub(super) fn grows(&self) -> bool {
        !matches!(&self.growth, Growth::Multipliers(all) if **all == [1.0])
    }

    /// How long a ban lasts whose offender was banned `earlier` times before, where the first lasts `bantime`. `chance`
    /// is the share of the jitter: of 2⁶⁴ parts.
    #[must_use]
    pub fn time(&self, bantime: BanTime, earlier: u32, chance: u64) -> BanTime {
        let BanTime::For(base) = bantime else { return bantime };
        if earlier == 0 {
            return bantime;
        }
        let time = base.as_secs_f64();
        let count = f64::from(earlier);
        let seconds = match &self.growth {
            Growth::Doubling => (time * count.min(20.0).exp2() * self.factor).max(time),
            Growth::Multipliers(all) => {
                let at = usize::try_from(earlier).unwrap_or(usize::MAX);
                let multiplier = all.get(at).or_else(|| all.last()).copied().unwrap_or(1.0);
                time * self.factor * multiplier
            }
            // What has no value is not the maximum of anything: the ban is then as long as the first.
            Growth::Formula(formula) => formula.value(Values { time, count, factor: self.factor }).max(time),
        };
        let grown = Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= LONGEST);
        let capped = match (grown, self.max) {
            (Some(grown), max) => Some(max.map_or(grown, |max| grown.min(max))),
            (None, max) => max,
        };
        let Some(capped) = capped else { return BanTime::Permanent };
        BanTime::For(milliseconds(capped).saturating_add(self.share(chance)))
    }

    /// The part of the jitter, in whole milliseconds.
    fn share(&self, chance: u64) -> Duration {
        let jitter = self.jitter.as_millis().min(u64::MAX.into());
        Duration::from_millis(u64::try_from((jitter * u128::from(chance)) >> 64).unwrap_or(0))
    }

    /// How many of `count` bans, the last of which ended at `end` (`None`: never), still count at `at`.
    #[must_use]
    pub(super) fn left(&self, count: u32, end: Option<Timestamp>, at: Timestamp) -> u32 {
        let gap = end.map_or(Duration::ZERO, |end| at.since(end));
        if gap > self.memory {
            return 0;
        }
        let spans = self.decay.map_or(0, |span| gap.as_millis().checked_div(span.as_millis()).unwrap_or(0));
        count.saturating_sub(u32::try_from(spans).unwrap_or(u32::MAX))
    }
}

/// To the nearest millisecond: a product such as 0.1 × 3 s ends in nanoseconds nobody meant.
fn milliseconds(d: Duration) -> Duration {
    let rounded = d.saturating_add(Duration::from_micros(500)).as_millis();
    Duration::from_millis(u64::try_from(rounded).unwrap_or(u64::MAX))
}

/// A number for the jitter of a ban that looks random to whoever does not know `seed`, and is always the same for the
/// same ban: a line that is read again after a crash must decide the ban it decided before.
///
/// SipHash-2-4 (Aumasson, Bernstein, 2012), written out because the hashers of the standard library may change from one
/// release to the next, and keyed because an offender sees when its bans end.
pub(super) fn chance(seed: u64, offender: IpNet, since: Timestamp) -> u64 {
    let bits = match offender {
        IpNet::V4(net) => u128::from(net.addr().to_bits()),
        IpNet::V6(net) => net.addr().to_bits(),
    };
    let low = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    let kind = u64::from(offender.prefix_len()) << 1 | u64::from(offender.addr().is_ipv6());
    sip(seed, &[low(bits >> 64), low(bits), kind, since.as_millis().cast_unsigned()])
}

/// SipHash-2-4 of four words, that is of 32 bytes, under the key `seed`, 0.
fn sip(seed: u64, words: &[u64; 4]) -> u64 {
    const LENGTH: u64 = 32 << 56;
    let mut v = [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
    v[0] ^= seed;
    v[2] ^= seed;
    for word in words.iter().chain([&LENGTH]) {
        v[3] ^= word;
        v = round(round(v));
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    v = round(round(round(round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
    let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
    let (a, c) = (a.rotate_left(32).wrapping_add(d), c.wrapping_add(b));
    let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests;
