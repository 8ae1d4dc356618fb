//! Whom a ban must not hit at the moment: the host itself, what it depends on, and whoever is logged in.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;

use super::places::Places;
use super::sessions::{Session, recorded};
use super::ssh::Peers;
use super::{gateways4, gateways6, ip, resolvers};
use crate::engine::{Protected, Why};

/// Looks around, again and again.
#[derive(Debug)]
pub struct Surroundings {
    places: Places,
    peers: Peers,
    /// What the last [`scan`](Self::scan) found.
    served: Vec<Session>,
    unseen: Option<String>,
    /// The host's networks as they were when they could last be read.
    networks: Vec<(IpNet, Why)>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Whom a ban must not hit, and why.
    pub protected: Protected,
    /// Who is logged in, from where; sorted.
    pub sessions: Vec<Session>,
    /// What could not be seen, each in a few words.
    pub problems: Vec<String>,
}

impl Surroundings {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self { places, peers: Peers::default(), served: Vec::new(), unseen: None, networks: Vec::new() }
    }

    /// Looks at the processes of sshd. It takes as long as there are processes: about 3 µs for each.
    pub fn scan(&mut self) {
        (self.served, self.unseen) = self.peers.look(&self.places.proc, &self.places.sessions);
    }

    /// Looks at everything else, which takes about 0.1 ms, and puts it together with the last scan.
    pub fn look(&mut self) -> Look {
        let mut problems = Vec::new();
        match networks(&self.places) {
            Ok(networks) => self.networks = networks,
            Err(e) => problems.push(format!("network interfaces: {e}")),
        }
        let (mut sessions, unread) = recorded(&self.places);
        problems.extend(unread);
        problems.extend(self.unseen.clone());
        sessions.extend(self.served.iter().cloned());
        sessions.sort_unstable();
        // The same session is known to sshd, to utmp and to logind, by its terminal or without.
        sessions.dedup_by(|a, b| (a.address, &a.who) == (b.address, &b.who));
        let servers = resolvers::servers(&self.places);
        let servers = servers.into_iter().map(|(server, file)| (IpNet::from(server), Why::Resolver { file }));
        let of_session =
            |s: &Session| (IpNet::from(s.address), Why::Session { who: s.who.clone(), on: s.on.clone() });
        let protected =
            self.networks.iter().cloned().chain(servers).chain(sessions.iter().map(of_session)).collect();
        Look { protected, sessions, problems }
    }
}

/// The host's own addresses, its gateways, and the networks of its bridges. Not those of a bridge that a default route leads
/// over: what is behind that one are no containers, but neighbours, who may offend like anybody.
fn networks(places: &Places) -> nix::Result<Vec<(IpNet, Why)>> {
    let route = |name: &str| fs::read_to_string(places.proc.join("net").join(name)).unwrap_or_default();
    let (routes4, routes6) = (route("route"), route("ipv6_route"));
    let outward: HashSet<&str> = outward4(&routes4).chain(outward6(&routes6)).collect();
    let mut found = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address.as_ref().and_then(ip) else { continue };
        found.push((IpNet::from(address), Why::Own));
        let name = interface.interface_name.as_str();
        if !outward.contains(name)
            && places.net.join(name).join("bridge").is_dir()
            && let Some(mask) = interface.netmask.as_ref().and_then(ip)
            && let Ok(net) = IpNet::with_netmask(address, mask)
        {
            found.push((net.trunc(), Why::Bridge { name: name.to_owned() }));
        }
    }
    let gateway = |address: IpAddr| (IpNet::from(address), Why::Gateway);
    found.extend(gateways4(&routes4).map(|a| gateway(a.into())));
    found.extend(gateways6(&routes6).map(|a| gateway(a.into())));
    Ok(found)
}

/// The interfaces of default routes in `/proc/net/route`: destination and mask are zero.
fn outward4(routes: &str) -> impl Iterator<Item = &str> {
    routes.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        (*words.get(1)? == "00000000" && *words.get(7)? == "00000000").then_some(*words.first()?)
    })
}

/// The same in `/proc/net/ipv6_route`: the destination is zero, and so is its length.
fn outward6(routes: &str) -> impl Iterator<Item = &str> {
    routes.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let everywhere = words.first()?.bytes().all(|b| b == b'0') && *words.get(1)? == "00";
        everywhere.then_some(*words.get(9)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_told_from_others() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    br0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    br1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    short\t00000000\n";
        assert_eq!(outward4(text).collect::<Vec<_>>(), ["br0"]);
        let zeros = "0".repeat(32);
        let text = format!(
            "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 br0\n\
             fe80{} 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001 br1\ngarbage\n",
            "0".repeat(28)
        );
        assert_eq!(outward6(&text).collect::<Vec<_>>(), ["br0"]);
    }

    #[test]
    fn all_that_is_seen_is_protected_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            resolv_conf: dir.path().join("resolv.conf"),
            utmp: dir.path().join("utmp"),
            sessions: dir.path().join("sessions"),
            ..Places::default()
        };
        fs::write(&places.resolv_conf, "nameserver 198.51.100.53\n").unwrap();
        fs::create_dir(&places.sessions).unwrap();
        let session = "STATE=online\nUSER=root\nTTY=pts/0\nREMOTE_HOST=198.51.100.7\n";
        fs::write(places.sessions.join("1"), session).unwrap();
        fs::write(places.sessions.join("2"), session.replace("TTY=pts/0", "TTY=pts/1")).unwrap();
        let mut surroundings = Surroundings::new(places.clone());
        surroundings.scan();
        let look = surroundings.look();
        let told = |address: &str| look.protected.told(address.parse().unwrap()).unwrap();
        assert_eq!(told("127.0.0.1/32"), "127.0.0.1 is this host's own address");
        assert!(told("198.51.100.53/32").starts_with("198.51.100.53 is a DNS server (/"));
        assert_eq!(told("198.51.100.7/32"), "198.51.100.7 has a login session of root on pts/0 right now");
        assert_eq!(look.problems, [""; 0]);
        // What cannot be read is told, and the rest is still seen.
        fs::create_dir(&places.utmp).unwrap();
        let look = surroundings.look();
        assert_eq!(look.problems.len(), 1, "{:?}", look.problems);
        assert!(look.protected.told("198.51.100.7/32".parse().unwrap()).is_some());
    }
}
