//! The address that is tried, and the addresses it is tried with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address cannot be tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressError {
    /// It is none.
    #[error("\"{0}\" is no address and no network")]
    Unreadable(String),
    /// No packet comes from there.
    #[error("{0} cannot be tried: {1}, and no packet from a network comes from there")]
    Impossible(IpAddr, &'static str),
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// As it was typed, a single address being a network of its own.
    pub(super) net: IpNet,
    /// The address of it that is tried.
    pub(super) address: IpAddr,
}

impl Asked {
    /// Reads an address or a network. Of a network the first host is tried; when bits of a host are set, that host.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let unreadable = || AddressError::Unreadable(text.to_owned());
        let asked = match text.parse::<IpAddr>() {
            // The kernel has IPv4-mapped addresses as IPv4.
            Ok(address) => Self::one(address.to_canonical()),
            Err(_) => {
                let net: IpNet = text.parse().map_err(|_| unreadable())?;
                let first = net.trunc().addr();
                let address =
                    if net.addr() == first { net.hosts().next().unwrap_or(first) } else { net.addr() };
                Self { net: net.trunc(), address }
            }
        };
        match impossible(asked.address) {
            None => Ok(asked),
            Some(why) => Err(AddressError::Impossible(asked.address, why)),
        }
    }

    fn one(address: IpAddr) -> Self {
        Self { net: address.into(), address }
    }

    /// Whether more than one address was asked for.
    pub(super) fn is_network(&self) -> bool {
        self.net.prefix_len() < self.net.max_prefix_len()
    }
}

/// What the kernel drops as a source of packets that come from a network, before any rule or after.
fn impossible(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_loopback() => Some("it is a loopback address"),
        _ if address.is_multicast() => Some("it is a multicast address"),
        IpAddr::V4(a) if a.is_broadcast() => Some("it is the broadcast address"),
        IpAddr::V4(a) if a.octets()[0] == 0 => Some("it is of \"this network\" (0.0.0.0/8)"),
        IpAddr::V6(a) if a.is_unspecified() => Some("it is the unspecified address"),
        IpAddr::V6(a) if a.is_unicast_link_local() => {
            Some("it is a link-local address, which needs an interface")
        }
        _ => None,
    }
}

/// The two ends of the wire, besides the address that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Where the ruleset is.
    pub(super) server: IpAddr,
    /// Of somebody who should not be blocked.
    pub(super) harmless: IpAddr,
}

impl Ends {
    /// The first ends that are neither what is asked for nor `taken`; `None` when all of them are.
    pub(super) fn choose(asked: &Asked, taken: impl Fn(IpAddr) -> bool) -> Option<Self> {
        candidates(asked.address.is_ipv4()).find(|ends| {
            [ends.server, ends.harmless].iter().all(|end| !asked.net.contains(end) && !taken(*end))
        })
    }
}

/// Addresses for documentation (RFC 5737, RFC 3849, RFC 9637) and for benchmarks (RFC 2544, RFC 5180), then others: far from
/// each other, so that no ban is of all of them. They are used in namespaces of our own, so whose they are is no matter.
fn candidates(v4: bool) -> impl Iterator<Item = Ends> {
    let v4s =
        [[192, 0, 2], [198, 51, 100], [203, 0, 113], [198, 18, 0], [100, 64, 0], [10, 254, 254], [9, 9, 9]]
            .map(|[a, b, c]| [1, 2].map(|d| IpAddr::from(Ipv4Addr::new(a, b, c, d))));
    let v6s = [(0x2001, 0xdb8), (0x3fff, 0), (0x2001, 0x2), (0xfd53, 0x5354), (0x2620, 0xfe), (0x2a00, 0x1)]
        .map(|(a, b)| [1, 2].map(|d| IpAddr::from(Ipv6Addr::new(a, b, 0, 0x5354, 0, 0, 0, d))));
    let all = if v4 { v4s.to_vec() } else { v6s.to_vec() };
    all.into_iter().map(|[server, harmless]| Ends { server, harmless })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(text: &str) -> String {
        Asked::parse(text).map_or_else(|e| e.to_string(), |asked| asked.address.to_string())
    }

    #[test]
    fn one_address_of_a_network_is_tried() {
        assert_eq!(tried("203.0.113.7"), "203.0.113.7");
        assert_eq!(tried("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(tried("203.0.113.0/24"), "203.0.113.1");
        assert_eq!(tried("203.0.113.9/24"), "203.0.113.9");
        assert_eq!(tried("203.0.113.7/32"), "203.0.113.7");
        assert_eq!(tried("203.0.113.6/31"), "203.0.113.6");
        assert_eq!(tried("2001:db8:66::/64"), "2001:db8:66::");
        assert_eq!(tried("240.0.0.1"), "240.0.0.1");
    }

    #[test]
    fn what_no_packet_comes_from_is_refused() {
        for text in
            ["127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255", "0.0.0.0/0", "::", "fe80::1"]
        {
            assert!(tried(text).contains("cannot be tried"), "{text}: {}", tried(text));
        }
        for text in ["", "localhost", "203.0.113", "203.0.113.7/33", "203.0.113.7:80"] {
            assert!(tried(text).contains("is no address"), "{text}: {}", tried(text));
        }
    }

    #[test]
    fn the_ends_are_neither_asked_for_nor_taken() {
        let asked = Asked::parse("192.0.2.2").unwrap();
        let ends = Ends::choose(&asked, |_| false).unwrap();
        assert_eq!(ends.harmless.to_string(), "198.51.100.2");
        let asked = Asked::parse("198.51.100.0/24").unwrap();
        let banned: IpNet = "192.0.2.0/24".parse().unwrap();
        let ends = Ends::choose(&asked, |end| banned.contains(&end)).unwrap();
        assert_eq!(ends.server.to_string(), "203.0.113.1");
        assert_eq!(Ends::choose(&asked, |_| true), None);
    }
}
