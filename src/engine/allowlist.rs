//! Who is never banned.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::net::canonical;

/// Addresses and networks that are never banned (`ignoreip`).
///
/// Kept as sorted, disjoint ranges, one list per family: a look-up is a binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowlist {
    /// As given (canonical, sorted), so that a refusal can name the entry.
    entries: Vec<IpNet>,
    v4: Ranges<Ipv4Addr>,
    v6: Ranges<Ipv6Addr>,
}

impl Allowlist {
    /// Whether `addr` is never banned. An IPv4-mapped address is looked up as IPv4.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr.to_canonical() {
            IpAddr::V4(a) => self.v4.overlap(a, a),
            IpAddr::V6(a) => self.v6.overlap(a, a),
        }
    }

    /// Whether `net` has at least one address that is never banned.
    #[must_use]
    pub fn overlaps(&self, net: IpNet) -> bool {
        match canonical(net) {
            IpNet::V4(n) => self.v4.overlap(n.network(), n.broadcast()),
            IpNet::V6(n) => self.v6.overlap(n.network(), n.broadcast()),
        }
    }

    /// The first entry that shares an address with `net`, to be named in a message.
    #[must_use]
    pub fn entry(&self, net: IpNet) -> Option<IpNet> {
        let net = canonical(net);
        self.entries.iter().copied().find(|e| e.contains(&net) || net.contains(e))
    }

    /// The entries: canonical, sorted, each once.
    #[must_use]
    pub fn entries(&self) -> &[IpNet] {
        &self.entries
    }
}

impl FromIterator<IpNet> for Allowlist {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let mut entries: Vec<IpNet> = nets.into_iter().map(canonical).collect();
        entries.sort_unstable();
        entries.dedup();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for entry in &entries {
            match entry {
                IpNet::V4(n) => v4.push((n.network(), n.broadcast())),
                IpNet::V6(n) => v6.push((n.network(), n.broadcast())),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6), entries }
    }
}

/// Disjoint ranges in order, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<A>(Vec<(A, A)>);

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<A: Copy + Ord> Ranges<A> {
    fn new(mut given: Vec<(A, A)>) -> Self {
        given.sort_unstable();
        let mut merged: Vec<(A, A)> = Vec::with_capacity(given.len());
        for (first, last) in given {
            match merged.last_mut() {
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// The ranges are disjoint, so of those that begin at or before `last` the final one reaches furthest.
    fn overlap(&self, first: A, last: A) -> bool {
        let after = self.0.partition_point(|r| r.0 <= last);
        after.checked_sub(1).and_then(|i| self.0.get(i)).is_some_and(|r| r.1 >= first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(nets: &[&str]) -> Allowlist {
        nets.iter().map(|s| s.parse::<IpNet>().unwrap()).collect()
    }

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    #[test]
    fn the_ends_of_a_range_belong_to_it() {
        let l = list(&["10.0.0.0/8", "192.0.2.4/30", "255.255.255.255/32"]);
        for (addr, want) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.3", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("255.255.255.255", true),
            ("::ffff:10.1.1.1", true),
            ("::10.1.1.1", false),
        ] {
            assert_eq!(l.contains(addr.parse().unwrap()), want, "{addr}");
        }
        assert!(!Allowlist::default().contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn everything_of_one_family_is_not_everything_of_the_other() {
        assert!(!list(&["::/0"]).contains("10.0.0.1".parse().unwrap()));
        assert!(!list(&["0.0.0.0/0"]).contains("2001:db8::1".parse().unwrap()));
        assert!(list(&["::ffff:0:0/96"]).contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_entry_that_overlaps_is_named() {
        let l = list(&["2001:db8::7/128", "10.1.0.0/16"]);
        assert_eq!(l.entry(net("2001:db8::/64")), Some(net("2001:db8::7/128")));
        assert_eq!(l.entry(net("10.1.2.3/32")), Some(net("10.1.0.0/16")));
        assert_eq!(l.entry(net("10.2.0.0/16")), None);
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (0u32..64, 26u8..=32)
                .prop_map(|(a, len)| IpNet::new(Ipv4Addr::from_bits(a).into(), len).unwrap()),
            (0u128..64, 122u8..=128)
                .prop_map(|(a, len)| IpNet::new(Ipv6Addr::from_bits(a).into(), len).unwrap()),
        ]
    }

    proptest! {
        /// Sixty-four addresses per family, each asked about, against the definition.
        #[test]
        fn agrees_with_asking_every_entry(nets in prop::collection::vec(any_net(), 0..6), asked in any_net()) {
            let l: Allowlist = nets.iter().copied().collect();
            let naive = nets.iter().any(|n| n.contains(&asked.trunc()) || asked.trunc().contains(&n.trunc()));
            prop_assert_eq!(l.overlaps(asked), naive);
            prop_assert_eq!(l.entry(asked).is_some(), naive);
            for bits in 0..64u32 {
                let v4 = IpAddr::from(Ipv4Addr::from_bits(bits));
                prop_assert_eq!(l.contains(v4), nets.iter().any(|n| n.contains(&v4)));
                let v6 = IpAddr::from(Ipv6Addr::from_bits(bits.into()));
                prop_assert_eq!(l.contains(v6), nets.iter().any(|n| n.contains(&v6)));
            }
        }
    }
}
