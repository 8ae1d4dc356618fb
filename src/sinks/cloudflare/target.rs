//! What Cloudflare is to hold: bans as the prefixes it takes, and which of them are worth most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ipnet::IpNet;

use crate::sinks::desired::{Want, end};
use crate::types::Timestamp;

/// A network that Cloudflare takes only in parts is given in at most so many of them.
const PARTS: u32 = 256;

/// Which prefixes a far side takes, shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takes {
    v4: &'static [u8],
    v6: &'static [u8],
}

/// IP access rules: addresses, and `ip_range` of /16 and /24, /32, /48 and /64.
pub(super) const RULES: Takes = Takes { v4: &[16, 24, 32], v6: &[32, 48, 64, 128] };

/// Lists: IPv4 from /8, IPv6 from /12 (so the API; its documentation says /4) to /64.
pub(super) const LISTS: Takes = Takes {
    v4: &[8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32],
    v6: &[
        12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36,
        37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61,
        62, 63, 64,
    ],
};

/// How much a ban is worth: by hand or for ever, then of whom was banned most often, then the latest.
pub(super) type Rank = (bool, u32, Timestamp);

/// One rule or item that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// When the last of its bans ends; `None` for never.
    pub(super) end: Option<Timestamp>,
    /// Whose bans they are, in order.
    pub(super) jails: Vec<Arc<str>>,
    /// What the most valuable of them is worth.
    pub(super) rank: Rank,
}

/// Everything that is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) all: HashMap<IpNet, Target>,
    /// Bans that Cloudflare takes in no form that is not wider.
    pub(super) unfit: Vec<IpNet>,
    /// What is worth least of what is more than `max`.
    pub(super) beyond: usize,
}

/// What is to be of these bans: without those that have ended, and at most `max` of the most valuable.
pub(super) fn targets(
    bans: Vec<(IpNet, Vec<Want>)>,
    takes: Takes,
    ipv6_prefix: u8,
    max: usize,
    now: Timestamp,
) -> Targets {
    let mut targets = Targets::default();
    for (offender, wants) in bans {
        let wants: Vec<Want> =
            wants.into_iter().filter(|want| want.until.is_none_or(|until| until > now)).collect();
        if wants.is_empty() {
            continue;
        }
        let Some(parts) = parts(offender, takes, ipv6_prefix) else {
            targets.unfit.push(offender);
            continue;
        };
        let mut jails: Vec<Arc<str>> = wants.iter().map(|want| Arc::clone(&want.jail)).collect();
        jails.sort();
        jails.dedup();
        let rank = wants.iter().map(rank).max().unwrap_or_default();
        let target = Target { end: end(&wants), jails, rank };
        for part in parts {
            match targets.all.entry(part) {
                Entry::Vacant(place) => drop(place.insert(target.clone())),
                Entry::Occupied(mut other) => other.get_mut().take_in(&target),
            }
        }
    }
    if targets.all.len() > max {
        targets.beyond = targets.all.len() - max;
        let mut all: Vec<(IpNet, Target)> = targets.all.drain().collect();
        all.sort_unstable_by_key(|(net, target)| (Reverse(target.rank), *net));
        all.truncate(max);
        targets.all.extend(all);
    }
    targets.unfit.sort_unstable();
    targets
}

impl Target {
    /// Another ban of the same prefix.
    fn take_in(&mut self, other: &Self) {
        self.end = self.end.zip(other.end).map(|(a, b)| a.max(b));
        self.jails.extend(other.jails.iter().map(Arc::clone));
        self.jails.sort();
        self.jails.dedup();
        self.rank = self.rank.max(other.rank);
    }
}

fn rank(want: &Want) -> Rank {
    (want.until.is_none() || want.offenses == 0, want.count, want.since)
}

/// `net` in prefixes that are taken: never wider than it is, but for IPv6 that is longer than `ipv6_prefix`. `None` where
/// that is not possible, or takes too many.
fn parts(net: IpNet, takes: Takes, ipv6_prefix: u8) -> Option<Vec<IpNet>> {
    let net = net.trunc();
    let (net, taken) = match net {
        IpNet::V4(_) => (net, takes.v4),
        IpNet::V6(v6) if v6.prefix_len() > ipv6_prefix => {
            (IpNet::new(v6.addr().into(), ipv6_prefix).ok()?.trunc(), takes.v6)
        }
        IpNet::V6(_) => (net, takes.v6),
    };
    let length = *taken.iter().find(|length| **length >= net.prefix_len())?;
    if u32::from(length - net.prefix_len()) > PARTS.ilog2() {
        return None;
    }
    Some(net.subnets(length).ok()?.collect())
}

/// Cloudflare's spelling: a single address without its length.
pub(super) fn value(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// What a value means, in whatever spelling; `None` for what is no address and no network.
pub(super) fn parse(value: &str) -> Option<IpNet> {
    let net: IpNet = match value.parse() {
        Ok(net) => net,
        Err(_) => IpNet::from(value.parse::<std::net::IpAddr>().ok()?),
    };
    Some(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::JailId;

    fn net(text: &str) -> IpNet {
        parse(text).unwrap()
    }

    #[test]
    fn nothing_is_banned_wider_than_it_is() {
        // What is banned, with which ipv6_prefix, and how many rules of which length it becomes.
        let cases = [
            ("192.0.2.1", 64, Some((1, 32))),
            ("192.0.2.0/31", 64, Some((2, 32))),
            ("192.0.2.0/25", 64, Some((128, 32))),
            ("192.0.2.0/24", 64, Some((1, 24))),
            ("198.51.96.0/20", 64, Some((16, 24))),
            ("198.51.0.0/17", 64, Some((128, 24))),
            ("198.51.0.0/16", 64, Some((1, 16))),
            ("198.0.0.0/8", 64, Some((256, 16))),
            ("192.0.0.0/7", 64, None),
            ("2001:db8::1", 64, Some((1, 64))),
            ("2001:db8::1", 128, Some((1, 128))),
            ("2001:db8::1", 48, Some((1, 48))),
            ("2001:db8::/120", 128, Some((256, 128))),
            ("2001:db8::/112", 128, None),
            ("2001:db8::/112", 64, Some((1, 64))),
            ("2001:db8::/64", 128, Some((1, 64))),
            ("2001:db8::/56", 64, Some((256, 64))),
            ("2001:db8::/55", 64, None),
            ("2001:db8::/44", 64, Some((16, 48))),
            ("2001:db8::/32", 64, Some((1, 32))),
            ("2001:d00::/24", 64, Some((256, 32))),
            ("2000::/3", 64, None),
        ];
        for (text, ipv6_prefix, wanted) in cases {
            let found = parts(net(text), RULES, ipv6_prefix);
            assert_eq!(found.as_ref().map(|all| (all.len(), all[0].prefix_len())), wanted, "{text}");
            for part in found.unwrap_or_default() {
                let meant = net(text).contains(&part) || part.prefix_len() == ipv6_prefix;
                assert!(meant, "{part} of {text}");
            }
        }
        let length = |text: &str| parts(net(text), LISTS, 64).map(|all| (all.len(), all[0].prefix_len()));
        assert_eq!(length("198.51.96.0/20"), Some((1, 20)));
        assert_eq!(length("192.0.2.1"), Some((1, 32)));
        assert_eq!(length("196.0.0.0/6"), Some((4, 8)));
        assert_eq!(length("2001:db8::1"), Some((1, 64)));
        assert_eq!(length("2001:db8::/56"), Some((1, 56)));
        assert_eq!(length("2000::/11"), Some((2, 12)));
        assert_eq!(length("2000::/3"), None);
    }

    #[test]
    fn values_are_one_in_every_spelling() {
        assert_eq!(value(net("192.0.2.1")), "192.0.2.1");
        assert_eq!(value(net("192.0.2.0/24")), "192.0.2.0/24");
        assert_eq!(net("2001:0db8:0000:0000:0000:0000:0000:0001"), net("2001:db8::1"));
        assert_eq!(net("2001:db8:0:0::/64"), net("2001:db8::/64"));
        assert_eq!((parse("DE"), parse("AS13335"), parse("")), (None, None, None));
    }

    fn want(jail: &str, since: i64, until: Option<i64>, offenses: u32, count: u32) -> Want {
        Want {
            id: JailId(0),
            jail: jail.into(),
            since: Timestamp::from_secs(since),
            until: until.map(Timestamp::from_secs),
            offenses,
            count,
        }
    }

    #[test]
    fn bans_of_one_prefix_are_one_and_the_most_valuable_come_first() {
        let bans = vec![
            (net("2001:db8::1"), vec![want("b", 5, Some(100), 5, 1)]),
            (net("2001:db8::2"), vec![want("a", 1, Some(200), 5, 3), want("c", 1, Some(10), 5, 9)]),
            (net("192.0.2.1"), vec![want("a", 9, Some(99), 5, 1)]),
            (net("192.0.2.2"), vec![want("a", 8, Some(99), 0, 0)]),
            (net("192.0.2.3"), vec![want("a", 7, None, 5, 1)]),
            (net("192.0.2.4"), vec![want("a", 9, Some(10), 5, 1)]),
            (net("0.0.0.0/0"), vec![want("a", 9, Some(99), 0, 1)]),
        ];
        let now = Timestamp::from_secs(10);
        let all = targets(bans.clone(), RULES, 64, 100, now);
        assert_eq!((all.all.len(), all.unfit.clone(), all.beyond), (4, vec![net("0.0.0.0/0")], 0));
        let both = &all.all[&net("2001:db8::/64")];
        assert_eq!(both.end, Some(Timestamp::from_secs(200)));
        assert_eq!(both.jails, ["a".into(), "b".into()] as [Arc<str>; 2], "c's has ended");
        assert_eq!(both.rank.1, 3);
        let kept = |max| {
            let mut kept: Vec<_> =
                targets(bans.clone(), RULES, 64, max, now).all.into_keys().map(value).collect();
            kept.sort();
            kept
        };
        assert_eq!(kept(1), ["192.0.2.3"], "for ever, and counted before");
        assert_eq!(kept(2), ["192.0.2.2", "192.0.2.3"], "by hand");
        assert_eq!(kept(3), ["192.0.2.2", "192.0.2.3", "2001:db8::/64"], "banned three times");
    }
}
