//! What this host is on the network: its own addresses, its gateways, its container networks.
//!
//! `ignoreip: [self]` stands for all of them. A ban of one would cut the host off from itself, from its way out, or
//! from the proxies in its containers.

mod logind;
mod places;
mod resolvers;
mod sessions;
mod ssh;
mod surroundings;
mod utmp;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;

pub use self::places::Places;
pub use self::sessions::Session;
pub use self::surroundings::{Look, Surroundings};

/// Why the host's own addresses could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the host's own addresses: {0}")]
pub struct HostError(#[from] nix::errno::Errno);

/// The host's own addresses, its gateways, and the networks of its bridges (Docker's among them), sorted.
///
/// Gateways are read from `/proc/net/route` and `/proc/net/ipv6_route` (proc(5)); where `/proc` is not mounted they are
/// left out, because an agent without them is still better than none.
///
/// # Errors
/// When the kernel refuses to list the interfaces.
pub fn own_networks() -> Result<Vec<IpNet>, HostError> {
    let mut nets = BTreeSet::from_iter(local_networks()?);
    let routes4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let routes6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    nets.extend(gateways4(&routes4).map(|a| IpNet::from(IpAddr::V4(a))));
    nets.extend(gateways6(&routes6).map(|a| IpNet::from(IpAddr::V6(a))));
    Ok(nets.into_iter().collect())
}

/// The host's own addresses and the networks of its bridges: what is inside of this host. A gateway is not.
///
/// # Errors
/// When the kernel refuses to list the interfaces.
pub fn local_networks() -> Result<Vec<IpNet>, HostError> {
    let mut nets = BTreeSet::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address.as_ref().and_then(ip) else { continue };
        nets.insert(IpNet::from(address));
        if is_bridge(&interface.interface_name)
            && let Some(mask) = interface.netmask.as_ref().and_then(ip)
            && let Ok(net) = IpNet::with_netmask(address, mask)
        {
            nets.insert(net.trunc());
        }
    }
    Ok(nets.into_iter().collect())
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

/// Docker's and Podman's networks are Linux bridges; so are those of virtual machines.
fn is_bridge(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).join("bridge").is_dir()
}

/// The gateway column of `/proc/net/route`: eight hex digits, the address as a little-endian word.
fn gateways4(routes: &str) -> impl Iterator<Item = Ipv4Addr> {
    routes.lines().skip(1).filter_map(|line| {
        let word = u32::from_str_radix(line.split_ascii_whitespace().nth(2)?, 16).ok()?;
        (word != 0).then(|| Ipv4Addr::from(word.to_ne_bytes()))
    })
}

/// The next-hop column of `/proc/net/ipv6_route`: 32 hex digits in network order.
fn gateways6(routes: &str) -> impl Iterator<Item = Ipv6Addr> {
    routes.lines().filter_map(|line| {
        let hop = u128::from_str_radix(line.split_ascii_whitespace().nth(4)?, 16).ok()?;
        (hop != 0).then(|| Ipv6Addr::from(hop))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_column_is_a_little_endian_word() {
        let text = "Iface\tDestination\tGateway \tFlags\n\
                    eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let expected = if cfg!(target_endian = "little") { [10, 0, 0, 1] } else { [1, 0, 0, 10] };
        assert_eq!(gateways4(text).collect::<Vec<_>>(), [Ipv4Addr::from(expected)]);
    }

    #[test]
    fn the_ipv6_next_hop_is_in_network_order() {
        let text = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                    fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
                    garbage\n";
        assert_eq!(gateways6(text).collect::<Vec<_>>(), ["fe80::1".parse::<Ipv6Addr>().unwrap()]);
    }

    #[test]
    fn loopback_is_an_own_address() {
        assert!(own_networks().unwrap().contains(&"127.0.0.1/32".parse().unwrap()));
    }
}
