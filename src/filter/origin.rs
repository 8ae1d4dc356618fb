//! By which way a request came, as far as its line tells: for `stockade check`, which asks of all lines and not only of
//! offenses whether packets show the offender.

use std::net::IpAddr;

use super::client::{Trust, endpoint};
use super::compile::{Filter, Kind};
use super::fields::{Field, Fields, Statuses};
use super::format::{Format, Memory, Parsed};
use super::pattern;

/// By which way a request came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Trusted proxies it came through, the nearest first; the first of them connected to who wrote the line.
    pub hops: Vec<IpAddr>,
    /// The address that would be held responsible.
    pub client: Option<IpAddr>,
    /// Whether the line tells who connected. A proxy may write the client's address in place of the peer's: what is seen
    /// is then the end of a way that is not told.
    pub told: bool,
}

impl Filter {
    /// By which way the request of this line (without its newline) came, whether it is an offense or not; `None` for a line
    /// that is not understood, and for one that names no address.
    #[must_use]
    pub fn origin(&self, line: &[u8], trust: &Trust) -> Option<Origin> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match &self.kind {
            Kind::Structured(structured) => structured.formats.iter().find_map(|&format| {
                let paths = Some(&structured.paths);
                match format.parse(line, &Statuses::ALL, paths, &mut Memory::default()) {
                    Parsed::Fields(fields) => of_fields(format, &fields, trust),
                    Parsed::Skip | Parsed::Mismatch => None,
                }
            }),
            Kind::Regex(patterns) => {
                let mut scratch = Vec::new();
                let (text, _) = pattern::cut(line, &mut scratch);
                let peer = patterns.find(text, &mut patterns.locations())?.address?;
                Some(walk(Some(peer), b"", trust, true))
            }
        }
    }
}

fn of_fields(format: Format, fields: &Fields<'_>, trust: &Trust) -> Option<Origin> {
    let peer = fields.get(Field::Peer)?;
    let forwarded = fields.get(Field::Forwarded).unwrap_or_default();
    Some(match (format, endpoint(peer)) {
        // Its nginx is configured to take the address from X-Real-IP when a proxy connects (set_real_ip_from), so that the
        // one in the line need not be the one that connected, unless it is a proxy's.
        (Format::Npm, Some(peer)) => walk(Some(peer), forwarded, trust, trust.trusts(peer)),
        (_, Some(peer)) => walk(Some(peer), forwarded, trust, true),
        // A list whose sender is not told.
        (_, None) if peer.contains(&b',') => walk(None, peer, trust, false),
        (_, None) => return None,
    })
}

/// As [`Trust::offender`] walks: from the peer over the list, the latest hop first, to the first that is not trusted.
fn walk(peer: Option<IpAddr>, list: &[u8], trust: &Trust, told: bool) -> Origin {
    let mut origin = Origin { hops: Vec::new(), client: None, told };
    let listed = list.rsplit(|&b| b == b',').map(endpoint);
    for entry in peer.into_iter().map(Some).chain(listed) {
        let Some(address) = entry.map(|address| address.to_canonical()) else { break };
        if !trust.trusts(address) {
            origin.client = Some(address);
            break;
        }
        origin.hops.push(address);
    }
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_walk_ends_at_whom_the_line_is_held_against() {
        let trust = Trust::new(vec!["172.16.0.0/12".parse().unwrap(), "104.16.0.0/13".parse().unwrap()]);
        let peers = ["172.18.0.2", "203.0.113.7", "104.16.1.1"].map(ip);
        let lists: [&[u8]; 6] =
            [b"", b"-", b"203.0.113.9", b"203.0.113.9, 104.16.1.1", b"x, 172.18.0.9", b"1.2.3.4, x"];
        for peer in peers {
            for list in lists {
                let origin = walk(Some(peer), list, &trust, true);
                assert_eq!(origin.client, trust.offender(peer, list).offender(), "{peer} {list:?}");
                assert!(origin.hops.iter().all(|hop| trust.trusts(*hop)));
            }
        }
        let origin = walk(Some(peers[0]), lists[3], &trust, true);
        assert_eq!(origin.hops, [ip("172.18.0.2"), ip("104.16.1.1")]);
    }
}
