//! Overlapping networks made disjoint, as an interval set demands.
//!
//! The kernel refuses an interval that overlaps another one of the same set. Two bans may well overlap: 10.0.0.0/8 for an
//! hour and 10.1.0.0/16 for a day. Every address must stay banned until the later of the two ends, also if the agent
//! is not there any more when the first one comes, so the wider network is split around the narrower one.

use std::cmp::Ordering;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::Timestamp;

/// When an element ends; `None` for never.
pub type End = Option<Timestamp>;

/// Whether `a` ends later than `b`; never is later than any time.
#[must_use]
pub(super) fn ends_later(a: End, b: End) -> bool {
    compare(a, b) == Ordering::Greater
}

fn compare(a: End, b: End) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(&b),
    }
}

/// Networks no two of which overlap, covering the same addresses, each address until the latest end that any network
/// around it has. The order is by address.
///
/// Splitting a network around one inside it makes at most one piece per bit between their lengths.
#[must_use]
pub(super) fn disjoint(mut nets: Vec<(IpNet, End)>) -> Vec<(IpNet, End)> {
    // Two networks are disjoint or nested, so with the wider first each network meets only those around it.
    nets.sort_by(|(a, a_end), (b, b_end)| {
        a.network().cmp(&b.network()).then(a.prefix_len().cmp(&b.prefix_len())).then(compare(*b_end, *a_end))
    });
    let mut out: Vec<(IpNet, End)> = Vec::with_capacity(nets.len());
    for (net, end) in nets {
        // The pieces are sorted and disjoint: only the last one that begins at or before `net` can be around it.
        let before = out.partition_point(|(piece, _)| piece.network() <= net.network());
        match before.checked_sub(1).filter(|at| out[*at].0.contains(&net)) {
            Some(at) if ends_later(end, out[at].1) => {
                let (around, around_end) = out[at];
                let pieces = split(around, net).into_iter().map(|piece| {
                    let end = if piece == net { end } else { around_end };
                    (piece, end)
                });
                out.splice(at..=at, pieces);
            }
            Some(_) => {}
            None => out.push((net, end)),
        }
    }
    out
}

/// `around` as `inside` and the fewest networks for the rest, in the order of their addresses.
fn split(around: IpNet, inside: IpNet) -> Vec<IpNet> {
    let mut before = Vec::new();
    let mut after = Vec::new();
    let mut current = around;
    while current != inside {
        let Some((low, high)) = halves(current) else { break };
        if low.contains(&inside) {
            after.push(high);
            current = low;
        } else {
            before.push(low);
            current = high;
        }
    }
    before.push(current);
    before.extend(after.into_iter().rev());
    before
}

fn halves(net: IpNet) -> Option<(IpNet, IpNet)> {
    let length = net.prefix_len() + 1;
    match net {
        IpNet::V4(net) => {
            let high = u32::from(net.network()) | 1_u32.checked_shl(32_u32.checked_sub(length.into())?)?;
            Some((
                Ipv4Net::new(net.network(), length).ok()?.into(),
                Ipv4Net::new(high.into(), length).ok()?.into(),
            ))
        }
        IpNet::V6(net) => {
            let high = u128::from(net.network()) | 1_u128.checked_shl(128_u32.checked_sub(length.into())?)?;
            Some((
                Ipv6Net::new(net.network(), length).ok()?.into(),
                Ipv6Net::new(high.into(), length).ok()?.into(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn at(seconds: i64) -> End {
        Some(Timestamp::from_secs(seconds))
    }

    #[test]
    fn a_network_inside_one_that_ends_later_adds_nothing() {
        let got = disjoint(vec![(net("10.0.0.0/8"), at(60)), (net("10.1.0.0/16"), at(30))]);
        assert_eq!(got, [(net("10.0.0.0/8"), at(60))]);
    }

    #[test]
    fn a_network_is_split_around_one_that_ends_later() {
        let got = disjoint(vec![(net("10.0.0.0/30"), at(30)), (net("10.0.0.1/32"), None)]);
        assert_eq!(
            got,
            [(net("10.0.0.0/32"), at(30)), (net("10.0.0.1/32"), None), (net("10.0.0.2/31"), at(30)),]
        );
    }

    #[test]
    fn the_whole_address_space_can_be_split() {
        let got =
            disjoint(vec![(net("::/0"), at(1)), (net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"), at(2))]);
        assert_eq!(got.len(), 129);
    }

    proptest! {
        /// A domain of sixteen addresses, so that networks nest and repeat all the time.
        #[test]
        fn each_address_keeps_its_latest_end(
            nets in prop::collection::vec((0_u32..16, 28_u8..=32, prop::option::of(0_i64..4)), 0..12)
        ) {
            let nets: Vec<(IpNet, End)> = nets
                .into_iter()
                .map(|(host, length, end)| {
                    let net = Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + host), length).unwrap().trunc();
                    (IpNet::V4(net), end.map(Timestamp::from_secs))
                })
                .collect();
            let out = disjoint(nets.clone());
            for host in 0..16_u32 {
                let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + host));
                let want = nets.iter().filter(|(n, _)| n.contains(&address)).map(|(_, e)| *e).max_by(|a, b| compare(*a, *b));
                let got: Vec<End> = out.iter().filter(|(n, _)| n.contains(&address)).map(|(_, e)| *e).collect();
                prop_assert_eq!(got, want.into_iter().collect::<Vec<_>>());
            }
            prop_assert!(out.windows(2).all(|w| w[0].0.network() < w[1].0.network()));
        }
    }
}
