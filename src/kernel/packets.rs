//! How many packets each ban stopped.

use hashbrown::HashMap;
use ipnet::IpNet;

use super::Held;
use super::layout::{Layout, SetId};
use crate::types::Ban;

/// Packets stopped, as the elements count them.
///
/// An element counts for every ban that it enforces: jails of one scope share the element of an offender they both ban, and
/// where networks overlap, a narrower one's packets are also the wider one's.
#[derive(Debug, Default)]
pub struct Packets {
    layout: Layout,
    elements: HashMap<(SetId, IpNet), u64>,
    /// The pieces that networks were cut into, in order, set by set.
    pieces: HashMap<SetId, Vec<(IpNet, u64)>>,
}

impl Packets {
    /// What the elements `held` in a table of that `layout` counted.
    #[must_use]
    pub fn new(layout: Layout, held: impl IntoIterator<Item = (SetId, Held)>) -> Self {
        let mut packets = Self { layout, ..Self::default() };
        for (set, held) in held {
            let Some(n) = held.packets else { continue };
            if set.kind.is_interval() {
                packets.pieces.entry(set).or_default().push((held.net, n));
            } else {
                packets.elements.insert((set, held.net), n);
            }
        }
        for pieces in packets.pieces.values_mut() {
            pieces.sort_unstable();
        }
        packets
    }

    /// Those that `ban` stopped; `None` when the kernel has no element for it.
    #[must_use]
    pub fn of(&self, ban: &Ban) -> Option<u64> {
        let set = self.layout.place(ban.jail, ban.offender)?;
        if !set.kind.is_interval() {
            return self.elements.get(&(set, ban.offender)).copied();
        }
        let pieces = self.pieces.get(&set)?;
        let net = ban.offender;
        let first = pieces.partition_point(|(piece, _)| piece.broadcast() < net.network());
        let within = pieces[first..].iter().take_while(|(piece, _)| piece.network() <= net.broadcast());
        // Two networks that meet hold one another: a piece is within the ban, or the ban within a piece of a wider one.
        within.map(|(_, n)| *n).fold(None, |sum, n| Some(sum.unwrap_or(0) + n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kind;
    use crate::types::{JailId, Timestamp};

    fn of(jail: u16, net: &str) -> Option<u64> {
        let layout = Layout::new([(JailId(0), "npm", &[][..], 64), (JailId(1), "ssh", &[22][..], 56)]);
        let held = |scope, kind, net: &str, packets| {
            let held =
                Held { net: net.parse().unwrap(), end: None, comment: String::new(), packets: Some(packets) };
            (SetId { scope, kind }, held)
        };
        let packets = Packets::new(
            layout,
            [
                held(0, Kind::Single4, "192.0.2.1/32", 1),
                held(1, Kind::Single4, "192.0.2.1/32", 2),
                held(0, Kind::Single6, "2001:db8::1/128", 3),
                held(0, Kind::Prefix6(64), "2001:db8::/64", 4),
                held(1, Kind::Prefix6(56), "2001:db8::/56", 5),
                held(0, Kind::Nets4, "198.51.100.128/25", 10),
                held(0, Kind::Nets4, "198.51.100.0/26", 20),
                held(0, Kind::Nets4, "198.51.100.64/26", 40),
                held(0, Kind::Nets4, "203.0.113.0/24", 80),
                held(1, Kind::Nets6, "2001:db8::/33", 7),
                held(1, Kind::Nets6, "2001:db8:8000::/33", 8),
            ],
        );
        let ban = Ban {
            jail: JailId(jail),
            offender: net.parse().unwrap(),
            since: Timestamp::default(),
            until: None,
            offenses: 0,
            evidence: crate::types::Evidence::default(),
            forced: false,
        };
        packets.of(&ban)
    }

    #[test]
    fn every_kind_of_set_is_counted() {
        assert_eq!((of(0, "192.0.2.1/32"), of(1, "192.0.2.1/32")), (Some(1), Some(2)));
        assert_eq!(
            (of(0, "2001:db8::1/128"), of(0, "2001:db8::/64"), of(1, "2001:db8::/56")),
            (Some(3), Some(4), Some(5))
        );
        assert_eq!(
            (of(0, "192.0.2.2/32"), of(1, "2001:db8::/64"), of(2, "192.0.2.1/32")),
            (None, None, None)
        );
    }

    #[test]
    fn a_network_is_the_sum_of_its_pieces() {
        assert_eq!((of(0, "198.51.100.0/24"), of(0, "198.51.100.0/25")), (Some(70), Some(60)));
        assert_eq!((of(0, "198.51.100.64/26"), of(0, "203.0.112.0/23")), (Some(40), Some(80)));
        assert_eq!((of(1, "2001:db8::/32"), of(0, "2001:db8::/32")), (Some(15), None));
        assert_eq!((of(0, "198.51.101.0/24"), of(0, "198.51.99.0/24")), (None, None));
    }
}
