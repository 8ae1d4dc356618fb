//! Who is connected to this host right now: the only evidence of who connects, where a proxy writes its clients'
//! addresses to the log.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// So much of each file is read, in bytes: some ten thousand connections.
const LOOK: u64 = 2 << 20;

/// The other ends of established TCP connections that were made to this host, or through it to its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// One per connection.
    pub addresses: Vec<IpAddr>,
    /// Connections to containers can be seen (`/proc/net/nf_conntrack`, for root alone); else only those to this host
    /// itself.
    pub forwarded: bool,
}

impl Peers {
    /// Looks; `own` are the host's own addresses and container networks.
    #[must_use]
    pub fn read(own: &[IpNet]) -> Self {
        let text = |name: &str| {
            let mut bytes = Vec::new();
            File::open(format!("/proc/thread-self/net/{name}"))
                .ok()?
                .take(LOOK)
                .read_to_end(&mut bytes)
                .ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let tracked = text("nf_conntrack");
        let forwarded = tracked.is_some();
        let mut addresses = match tracked {
            Some(tracked) => conntrack(&tracked, own),
            None => Vec::new(),
        };
        // Connection tracking sees those to the host itself too, but it may be off for them.
        if addresses.is_empty() {
            addresses = sockets(&text("tcp").unwrap_or_default());
            addresses.extend(sockets(&text("tcp6").unwrap_or_default()));
        }
        addresses.retain(|address| !own.iter().any(|net| net.contains(address)) && !address.is_loopback());
        Self { addresses, forwarded }
    }

    /// How many are in one of these networks.
    #[must_use]
    pub fn within(&self, networks: &[IpNet]) -> usize {
        self.addresses.iter().filter(|address| networks.iter().any(|net| net.contains(*address))).count()
    }
}

/// `ipv4 2 tcp 6 431999 ESTABLISHED src=203.0.113.7 dst=192.0.2.1 sport=4711 dport=443 src=…`: what comes first is as the
/// connection was asked for, before any address was translated.
fn conntrack(text: &str, own: &[IpNet]) -> Vec<IpAddr> {
    let of_line = |line: &str| -> Option<IpAddr> {
        if !line.contains(" tcp ") || !line.contains(" ESTABLISHED ") {
            return None;
        }
        let mut words = line.split_ascii_whitespace();
        let source: IpAddr = words.find_map(|word| word.strip_prefix("src="))?.parse().ok()?;
        let target: IpAddr = words.find_map(|word| word.strip_prefix("dst="))?.parse().ok()?;
        own.iter().any(|net| net.contains(&target)).then_some(source)
    };
    text.lines().filter_map(of_line).collect()
}

/// `sl local_address rem_address st …` of `/proc/net/tcp` and `tcp6` (proc(5)), addresses as words in the host's order.
fn sockets(text: &str) -> Vec<IpAddr> {
    const ESTABLISHED: &str = "01";
    const LISTEN: &str = "0A";
    let rows: Vec<[&str; 3]> = text
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            Some([words.next()?, words.next()?, words.next()?])
        })
        .collect();
    let port = |endpoint: &str| endpoint.rsplit(':').next().map(str::to_owned);
    let listening: HashSet<String> =
        rows.iter().filter(|[_, _, state]| *state == LISTEN).filter_map(|[local, ..]| port(local)).collect();
    rows.iter()
        .filter(|[local, _, state]| {
            *state == ESTABLISHED && port(local).is_some_and(|p| listening.contains(&p))
        })
        .filter_map(|[_, remote, _]| address(remote.split(':').next()?))
        .collect()
}

fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let octets: [u8; 16] = words.try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_to_what_listens_count() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
                    0: 00000000:01BB 00000000:0000 0A 0\n\
                    1: 010010AC:01BB 077100CB:C350 01 0\n\
                    2: 010010AC:C351 087100CB:01BB 01 0\n\
                    3: 010010AC:01BB 097100CB:C350 06 0\n";
        assert_eq!(sockets(text), ["203.0.113.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(sockets(""), [] as [IpAddr; 0]);
        assert_eq!(address("0000000000000000FFFF0000077100CB"), Some("203.0.113.7".parse().unwrap()));
        assert_eq!(address("zz"), None);
    }

    #[test]
    fn connections_of_others_do_not_count() {
        let own: Vec<IpNet> = vec!["192.0.2.1/32".parse().unwrap(), "172.18.0.0/16".parse().unwrap()];
        let text = "ipv4 2 tcp 6 431999 ESTABLISHED src=203.0.113.7 dst=192.0.2.1 sport=1 dport=443 src=172.18.0.2 dst=203.0.113.7\n\
                    ipv4 2 tcp 6 431999 ESTABLISHED src=172.18.0.2 dst=198.51.100.1 sport=1 dport=443 src=198.51.100.1\n\
                    ipv4 2 tcp 6 20 TIME_WAIT src=203.0.113.8 dst=192.0.2.1 sport=1 dport=443\n\
                    ipv4 2 udp 17 20 src=203.0.113.9 dst=192.0.2.1 sport=1 dport=443\n";
        assert_eq!(conntrack(text, &own), ["203.0.113.7".parse::<IpAddr>().unwrap()]);
    }
}
