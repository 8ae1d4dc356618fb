//! Who is responsible for a request: the peer, or somebody a trusted proxy spoke for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::types::Peer;

/// The addresses that may speak for others (`trusted_proxies`), as sorted ranges.
///
/// Every attribution of a line asks this a few times, so a lookup is a binary search over merged ranges.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// Whom a line is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// The address responsible, which connected itself; never an IPv4-mapped one and never a trusted proxy.
    Offender(IpAddr),
    /// The address responsible, for which somebody else spoke.
    Behind {
        /// As above.
        offender: IpAddr,
        /// The trusted proxy that connected; `None` where the line does not say who did.
        proxy: Option<IpAddr>,
    },
    /// Only trusted proxies, or nothing that is an address, was found. Nobody may be banned for this line.
    Unattributable {
        /// The address that connected, if the line gives one; `status` names it when a jail sees nothing else.
        peer: Option<IpAddr>,
    },
}

impl Attribution {
    /// The address responsible, if one was found.
    #[must_use]
    pub fn offender(self) -> Option<IpAddr> {
        match self {
            Self::Offender(a) | Self::Behind { offender: a, .. } => Some(a),
            Self::Unattributable { .. } => None,
        }
    }

    /// Whose address the request's packets carry.
    #[must_use]
    pub fn peer(self) -> Peer {
        match self {
            Self::Offender(_) => Peer::Offender,
            Self::Behind { proxy: Some(proxy), .. } | Self::Unattributable { peer: Some(proxy) } => {
                Peer::Proxy(proxy)
            }
            Self::Behind { proxy: None, .. } | Self::Unattributable { peer: None } => Peer::Unknown,
        }
    }
}

impl Trust {
    /// Trust in exactly these networks. IPv4-mapped IPv6 networks count as the IPv4 networks they stand for.
    #[must_use]
    pub fn new(nets: Vec<IpNet>) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for net in nets {
            match net {
                IpNet::V4(n) => v4.push((n.network().to_bits(), n.broadcast().to_bits())),
                IpNet::V6(n) => match n.network().to_ipv4_mapped() {
                    Some(first) if n.prefix_len() >= 96 => {
                        let last = n.broadcast().to_ipv4_mapped().unwrap_or(first);
                        v4.push((first.to_bits(), last.to_bits()));
                    }
                    _ => v6.push((n.network().to_bits(), n.broadcast().to_bits())),
                },
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether this address may speak for others.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(a) => within(&self.v4, a.to_bits()),
            IpAddr::V6(a) => within(&self.v6, a.to_bits()),
        }
    }

    /// Who is responsible when `peer` connected and handed over the list `forwarded` (`X-Forwarded-For` and its like:
    /// addresses separated by commas, the latest hop last; empty or `-` for none).
    ///
    /// A peer that is not trusted is the offender, whatever it claims. Behind a trusted peer the list is walked from
    /// the right, because every proxy appends: the first address that is not trusted is the offender. An entry that is not
    /// an address ends the walk: what stands further left was written by somebody unknown.
    #[must_use]
    pub fn offender(&self, peer: IpAddr, forwarded: &[u8]) -> Attribution {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return Attribution::Offender(peer);
        }
        match self.last_untrusted(forwarded) {
            Some(offender) => Attribution::Behind { offender, proxy: Some(peer) },
            None => Attribution::Unattributable { peer: Some(peer) },
        }
    }

    /// The same for a log that gives only a list, as Traefik's CLF does: whoever sent it is unknown, so the walk from the
    /// right begins at once. A list of one address is the peer; who sent a longer one is not known.
    #[must_use]
    pub fn offender_of_list(&self, list: &[u8]) -> Attribution {
        match self.last_untrusted(list) {
            Some(a) if !list.contains(&b',') => Attribution::Offender(a),
            Some(offender) => Attribution::Behind { offender, proxy: None },
            None => {
                Attribution::Unattributable { peer: list.rsplit(|&b| b == b',').next().and_then(endpoint) }
            }
        }
    }

    fn last_untrusted(&self, list: &[u8]) -> Option<IpAddr> {
        for entry in list.rsplit(|&b| b == b',') {
            let a = endpoint(entry)?;
            if !self.trusts(a) {
                return Some(a);
            }
        }
        None
    }
}

/// An address alone, as logs write it: `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`; IPv4-mapped ones become IPv4.
///
/// Zone ids (`%eth0`), names, ports, octets with leading zeros and the unspecified address are refused.
#[must_use]
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let text = match text {
        [b'[', inner @ .., b']'] if inner.contains(&b':') => inner,
        _ => text,
    };
    let a = match v4(text) {
        Some(a) => IpAddr::V4(a),
        // The longest form is 45 bytes; the bound keeps attackers' text away from the parser.
        None if text.len() <= 45 && text.contains(&b':') => {
            IpAddr::V6(std::str::from_utf8(text).ok()?.parse::<Ipv6Addr>().ok()?).to_canonical()
        }
        None => return None,
    };
    (!a.is_unspecified()).then_some(a)
}

/// An address that may carry a port and blanks around it: `192.0.2.1:80`, `[2001:db8::1]:80`, and all that [`address`] takes.
#[must_use]
pub fn endpoint(text: &[u8]) -> Option<IpAddr> {
    let text = text.trim_ascii();
    if let Some(a) = address(text) {
        return Some(a);
    }
    let colon = memchr::memrchr(b':', text)?;
    let (host, port) = (&text[..colon], &text[colon + 1..]);
    let is_port = matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit);
    // `2001:db8::1:80` without brackets is an address of its own, and was taken as one above.
    let is_host = host.first() == Some(&b'[') || !host.contains(&b':');
    if is_port && is_host { address(host) } else { None }
}

fn v4(text: &[u8]) -> Option<Ipv4Addr> {
    if !matches!(text.len(), 7..=15) {
        return None;
    }
    let mut bits = 0u32;
    let mut octets = 0;
    for part in text.split(|&b| b == b'.') {
        let mut value = 0u32;
        if !matches!(part.len(), 1..=3) || (part.len() > 1 && part[0] == b'0') {
            return None;
        }
        for &b in part {
            if !b.is_ascii_digit() {
                return None;
            }
            value = value * 10 + u32::from(b - b'0');
        }
        if value > 255 || octets == 4 {
            return None;
        }
        bits = (bits << 8) | value;
        octets += 1;
    }
    (octets == 4).then(|| Ipv4Addr::from_bits(bits))
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], x: T) -> bool {
    let after = ranges.partition_point(|r| r.0 <= x);
    after > 0 && ranges[after - 1].1 >= x
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trust() -> Trust {
        Trust::new(
            ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "fd00::/8", "::ffff:198.51.100.0/120"]
                .map(|n| n.parse().unwrap())
                .into(),
        )
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_untrusted_peer_answers_for_itself() {
        assert_eq!(trust().offender(ip("203.0.113.5"), b"9.9.9.9"), Attribution::Offender(ip("203.0.113.5")));
        assert_eq!(trust().offender(ip("::ffff:203.0.113.5"), b""), Attribution::Offender(ip("203.0.113.5")));
    }

    #[test]
    fn a_trusted_peer_speaks_for_the_last_untrusted_hop() {
        let of = |list: &[u8]| trust().offender(ip("172.18.0.5"), list).offender();
        assert_eq!(of(b"198.51.99.23, 203.0.113.9"), Some(ip("203.0.113.9")));
        assert_eq!(of(b"9.9.9.9, 203.0.113.9, 10.0.0.1, 198.51.100.77"), Some(ip("203.0.113.9")));
        assert_eq!(of(b"[2001:db8::1]:4711"), Some(ip("2001:db8::1")));
        assert_eq!(of(b"::ffff:203.0.113.9,10.1.1.1:80"), Some(ip("203.0.113.9")));
        for nobody in [
            &b""[..],
            b"-",
            b"10.0.0.1",
            b"9.9.9.9, -",
            b"9.9.9.9, unknown, 10.0.0.1",
            b"9.9.9.9,",
            b"fe80::1%eth0",
        ] {
            assert_eq!(of(nobody), None, "{}", nobody.escape_ascii());
        }
    }

    #[test]
    fn whose_packets_they_are_is_told() {
        let peer = |peer: &str, list: &[u8]| trust().offender(ip(peer), list).peer();
        assert_eq!(peer("203.0.113.5", b"9.9.9.9"), Peer::Offender);
        assert_eq!(peer("::ffff:10.0.0.1", b"9.9.9.9, 10.0.0.2"), Peer::Proxy(ip("10.0.0.1")));
        assert_eq!(trust().offender_of_list(b"203.0.113.9").peer(), Peer::Offender);
        assert_eq!(trust().offender_of_list(b"203.0.113.9, 10.0.0.1").peer(), Peer::Unknown);
        assert_eq!(trust().offender_of_list(b"9.9.9.9, 203.0.113.9").peer(), Peer::Unknown);
    }

    #[test]
    fn a_list_without_a_peer_is_walked_at_once() {
        assert_eq!(trust().offender_of_list(b"9.9.9.9, 203.0.113.9").offender(), Some(ip("203.0.113.9")));
        assert_eq!(
            trust().offender_of_list(b"172.18.0.1"),
            Attribution::Unattributable { peer: Some(ip("172.18.0.1")) }
        );
        assert_eq!(trust().offender_of_list(b"9.9.9.9, x"), Attribution::Unattributable { peer: None });
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "-",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.256",
            "0.0.0.0",
            "::",
            "[1.2.3.4]",
            "[::1",
            "1.2.3.4:80",
            "host",
            "unix:",
            "::1%lo",
        ] {
            assert_eq!(address(text.as_bytes()), None, "{text}");
        }
        for text in ["1.2.3.4:", "1.2.3.4:123456", "1.2.3.4:x", "[::1]:", "host:80"] {
            assert_eq!(endpoint(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn addresses_are_read_as_the_standard_library_reads_them(text in "[0-9a-f:.]{1,16}") {
            let standard = text.parse::<IpAddr>().ok().map(|a| a.to_canonical()).filter(|a| !a.is_unspecified());
            prop_assert_eq!(address(text.as_bytes()), standard);
        }

        #[test]
        fn trust_is_membership_of_any_network(
            nets in prop::collection::vec((0u32..64, 26u8..=32), 0..6), x in 0u32..64
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(a, len)| IpNet::new(Ipv4Addr::from_bits(a).into(), len).unwrap().trunc())
                .collect();
            let address = IpAddr::V4(Ipv4Addr::from_bits(x));
            let expected = nets.iter().any(|n| n.contains(&address));
            prop_assert_eq!(Trust::new(nets).trusts(address), expected);
        }

        #[test]
        fn the_walk_is_the_naive_one(hops in prop::collection::vec(0usize..5, 0..5)) {
            let words = ["9.9.9.9", "10.0.0.1", "203.0.113.7", "-", "172.16.0.9:80"];
            let list: Vec<&str> = hops.iter().map(|&h| words[h]).collect();
            let mut expected = None;
            for &h in hops.iter().rev() {
                match h {
                    1 | 4 => {}
                    3 => break,
                    _ => { expected = Some(ip(words[h])); break; }
                }
            }
            prop_assert_eq!(trust().offender(ip("127.0.0.1"), list.join(", ").as_bytes()).offender(), expected);
        }
    }
}
