//! Addresses and networks in the one form the tables are keyed by.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::JailId;

/// `net` with its host bits cleared, and as IPv4 where it is an IPv4-mapped network: otherwise one and the
/// same address could be banned twice and unbanned once.
pub(super) fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

/// A jail and a network, 20 bytes: what windows and bans are looked up by.
///
/// Four 32-bit words and not a `u128`, whose alignment would cost each tracked offender 12 bytes of padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    bits: [u32; 4],
    jail: u16,
    len: u8,
    family: u8,
}

impl Key {
    /// The key of no network.
    pub(super) const NONE: Self = Self { bits: [0; 4], jail: 0, len: 0, family: 0 };

    /// The network of `len` bits around `addr`. A `len` beyond the family's is the whole address.
    pub(super) fn new(jail: JailId, addr: IpAddr, len: u8) -> Self {
        match addr {
            IpAddr::V4(a) => {
                let len = len.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Self { bits: [0, 0, 0, a.to_bits() & mask], jail: jail.0, len, family: 4 }
            }
            IpAddr::V6(a) => {
                let len = len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Self { bits: words(a.to_bits() & mask), jail: jail.0, len, family: 6 }
            }
        }
    }

    /// The key of `net`, which is canonical.
    pub(super) fn of(jail: JailId, net: IpNet) -> Self {
        Self::new(jail, net.addr(), net.prefix_len())
    }

    pub(super) fn is_none(&self) -> bool {
        self.family == 0
    }

    pub(super) fn jail(&self) -> JailId {
        JailId(self.jail)
    }

    /// The network itself.
    pub(super) fn net(&self) -> IpNet {
        let [a, b, c, d] = self.bits;
        if self.family == 4 {
            let net = Ipv4Net::new(Ipv4Addr::from_bits(d), self.len);
            return IpNet::V4(net.unwrap_or_default());
        }
        let bits = u128::from(a) << 96 | u128::from(b) << 64 | u128::from(c) << 32 | u128::from(d);
        let net = Ipv6Net::new(Ipv6Addr::from_bits(bits), self.len);
        IpNet::V6(net.unwrap_or_default())
    }
}

impl Hash for Key {
    /// Three words instead of seven fields: this runs for every offense.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.bits;
        state.write_u64(u64::from(a) << 32 | u64::from(b));
        state.write_u64(u64::from(c) << 32 | u64::from(d));
        state.write_u32(u32::from(self.jail) << 16 | u32::from(self.len) << 8 | u32::from(self.family));
    }
}

fn words(bits: u128) -> [u32; 4] {
    let word = |shift: u32| u32::try_from(bits >> shift & u128::from(u32::MAX)).unwrap_or(0);
    [word(96), word(64), word(32), word(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    #[test]
    fn canonical_clears_host_bits_and_unmaps() {
        for (given, want) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.7/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(canonical(net(given)), net(want), "{given}");
        }
    }

    #[test]
    fn a_key_gives_its_network_back() {
        for s in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "::/0", "2001:db8::/64", "2001:db8::1/128"] {
            assert_eq!(Key::of(JailId(7), net(s)).net(), net(s));
            assert_eq!(Key::of(JailId(7), net(s)).jail(), JailId(7));
        }
    }

    #[test]
    fn a_key_is_cut_to_its_prefix() {
        let a = Key::new(JailId(1), "2001:db8::1".parse().unwrap(), 64);
        let b = Key::new(JailId(1), "2001:db8::2".parse().unwrap(), 64);
        assert_eq!(a, b);
        assert_ne!(a, Key::new(JailId(1), "2001:db8::2".parse().unwrap(), 63));
        assert_ne!(a, Key::new(JailId(2), "2001:db8::2".parse().unwrap(), 64));
        assert_eq!(Key::new(JailId(1), "10.9.8.7".parse().unwrap(), 255).net(), net("10.9.8.7/32"));
        // An IPv4 network and the IPv6 one with the same low bits are two.
        assert_ne!(Key::of(JailId(1), net("0.0.0.0/0")), Key::of(JailId(1), net("::/0")));
    }
}
