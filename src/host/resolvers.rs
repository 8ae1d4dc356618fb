//! The DNS servers: without them the host finds nobody, not even its package mirror.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::places::Places;

/// More than this is no resolv.conf.
const MOST: u64 = 64 << 10;

/// Where systemd-resolved listens; what it asks in turn stands in another file.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// The servers, each with the file that names it. A file that is not there names none.
#[must_use]
pub(super) fn servers(places: &Places) -> Vec<(IpAddr, String)> {
    let mut found = of_file(&places.resolv_conf);
    if found.iter().any(|(server, _)| STUBS.iter().any(|stub| server == stub)) {
        found.extend(of_file(&places.resolved));
    }
    found
}

fn of_file(path: &Path) -> Vec<(IpAddr, String)> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let file = path.display().to_string();
    nameservers(&String::from_utf8_lossy(&text)).map(|server| (server, file.clone())).collect()
}

/// The addresses of `nameserver` lines (resolv.conf(5)).
fn nameservers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        address(words.next()?)
    })
}

/// An address as it stands in resolv.conf: alone, with the interface it is behind (`fe80::1%eth0`), or, where
/// systemd-resolved writes it, with a port (`[2001:db8::1]:53`) and a server's name (`9.9.9.9#dns.quad9.net`).
fn address(word: &str) -> Option<IpAddr> {
    let word = word.split_once('#').map_or(word, |(address, _)| address);
    let address = word.split_once('%').map_or(word, |(address, _)| address);
    let with_port = || word.parse::<SocketAddr>().ok().map(|a| a.ip());
    address.parse().ok().or_else(with_port).map(|a: IpAddr| a.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_both_families_are_found() {
        let text = "# a comment\nnameserver 192.0.2.53\nnameserver\t2001:db8::53 # why\n  nameserver 192.0.2.54\n\
                    nameserver fe80::1%eth0\nnameserver 9.9.9.9#dns.quad9.net\nnameserver [2001:db8::54]:53\n\
                    nameserver ::ffff:192.0.2.55\n\
                    search example.org\nnameserver\nnameserver localhost\nnameservers 192.0.2.99\n";
        let found: Vec<String> = nameservers(text).map(|a| a.to_string()).collect();
        assert_eq!(
            found,
            ["192.0.2.53", "2001:db8::53", "192.0.2.54", "fe80::1", "9.9.9.9", "2001:db8::54", "192.0.2.55"]
        );
    }

    #[test]
    fn behind_the_stub_are_the_servers_that_it_asks() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            resolv_conf: dir.path().join("resolv.conf"),
            resolved: dir.path().join("resolved.conf"),
            ..Places::default()
        };
        assert!(servers(&places).is_empty());
        std::fs::write(&places.resolved, "nameserver 192.0.2.53\n").unwrap();
        std::fs::write(&places.resolv_conf, b"nameserver 192.0.2.1\n\xff\xfe\nnameserver 192.0.2.2").unwrap();
        let found = |places| servers(places).into_iter().map(|(a, _)| a.to_string()).collect::<Vec<_>>();
        assert_eq!(found(&places), ["192.0.2.1", "192.0.2.2"]);
        std::fs::write(&places.resolv_conf, "nameserver 127.0.0.53\n").unwrap();
        assert_eq!(found(&places), ["127.0.0.53", "192.0.2.53"]);
    }
}
