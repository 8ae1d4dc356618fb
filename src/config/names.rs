//! Addresses and networks as they are written in `ignoreip` and `trusted_proxies`, and the names that stand for
//! several of them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::cursor::{Cursor, nearest};
use super::report::{Report, shown};

/// One entry of a list of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllowEntry {
    /// An address (as /32 or /128) or a network, host bits zero, never IPv4-mapped.
    Net(IpNet),
    /// `cloudflare`: what Cloudflare connects from, as shipped or as fetched.
    Cloudflare,
    /// `self`: this host's own addresses, gateways and Docker networks. Only the running agent knows them.
    OwnHost,
}

/// The host talking to itself (RFC 1122, RFC 4291).
pub const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Addresses that are not routed on the Internet: RFC 1918, link-local (RFC 3927, RFC 4291), unique local (RFC 4193).
/// Not 100.64.0.0/10 (RFC 6598): a provider's customers stand behind it, and they are strangers to this host.
pub const PRIVATE: [&str; 6] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"];

/// What Cloudflare connects from, as published at <https://www.cloudflare.com/ips>.
pub const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

const NAMES: [&str; 4] = ["loopback", "private", "self", "cloudflare"];

/// The networks a name stands for; `None` for an unknown name, and for `self`, which stands for none in particular.
#[must_use]
pub fn networks(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "loopback" => Some(&LOOPBACK),
        "private" => Some(&PRIVATE),
        "cloudflare" => Some(&CLOUDFLARE),
        _ => None,
    }
}

/// The entries of one of the lists that stand where nothing is configured.
pub(super) fn entries(names: &[&str]) -> Vec<AllowEntry> {
    let mut out = Vec::new();
    for name in names {
        expand(name, &mut out);
    }
    out
}

/// Reads one entry or a list of them; a doubled entry is kept once.
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> Vec<AllowEntry> {
    let mut out = Vec::new();
    for item in cursor.items() {
        if let Some(text) = item.text(report) {
            // fail2ban writes the list as one text.
            for word in text.split([' ', '\t', '\n', ',']).filter(|w| !w.is_empty()) {
                if !expand(word, &mut out) {
                    entry(&item, word, &mut out, report);
                }
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    out.retain(|e| seen.insert(*e));
    out
}

/// Whether `name` is a name; if so its entries are appended.
fn expand(name: &str, out: &mut Vec<AllowEntry>) -> bool {
    if name == "self" {
        out.push(AllowEntry::OwnHost);
        return true;
    }
    if name == "cloudflare" {
        out.push(AllowEntry::Cloudflare);
        return true;
    }
    let Some(texts) = networks(name) else { return false };
    out.extend(texts.iter().filter_map(|t| t.parse().ok()).map(AllowEntry::Net));
    true
}

fn entry(item: &Cursor<'_>, word: &str, out: &mut Vec<AllowEntry>, report: &mut Report) {
    let Some(net) = network(word) else {
        let said = shown(word);
        let text = match nearest(word, NAMES.into_iter()) {
            Some(name) => format!("`{said}` is not an address, a network or a name; did you mean `{name}`?"),
            None => format!(
                "`{said}` is not an address, a network (10.0.0.0/8) or one of {}; host names are not looked up",
                NAMES.join(", ")
            ),
        };
        item.mistake(report, text);
        return;
    };
    let whole = net.trunc();
    if whole != net {
        item.warning(
            report,
            format!("`{}` has bits set outside its mask; it is read as {whole}", shown(word)),
        );
    }
    if whole.prefix_len() == 0 {
        item.warning(report, format!("{whole} is every address; is it meant?"));
    }
    out.push(AllowEntry::Net(whole));
}

/// An address, a network with a prefix length, or an IPv4 network with a netmask; an IPv4-mapped one is IPv4.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let net = match text.split_once('/') {
        None => IpNet::from(text.parse::<IpAddr>().ok()?),
        Some((address, mask)) if mask.contains('.') => {
            let address: Ipv4Addr = address.parse().ok()?;
            let length = ipnet::ip_mask_to_prefix(IpAddr::V4(mask.parse().ok()?)).ok()?;
            IpNet::V4(Ipv4Net::new(address, length).ok()?)
        }
        Some(_) => text.parse().ok()?,
    };
    Some(match net {
        IpNet::V6(v6) => unmapped(v6).map_or(net, IpNet::V4),
        IpNet::V4(_) => net,
    })
}

/// The IPv4 network that an IPv4-mapped one (`::ffff:0:0/96`) is.
fn unmapped(net: Ipv6Net) -> Option<Ipv4Net> {
    let address = net.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, net.prefix_len().checked_sub(96)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_whole_networks() {
        for name in NAMES {
            let found = entries(&[name]);
            let wanted = networks(name).filter(|_| name != "cloudflare").map_or(1, <[_]>::len);
            assert_eq!(found.len(), wanted, "an entry of `{name}` is not a network");
            for e in found {
                if let AllowEntry::Net(net) = e {
                    assert_eq!(net, net.trunc());
                }
            }
        }
        assert_eq!(entries(&["self", "cloudflare"]), [AllowEntry::OwnHost, AllowEntry::Cloudflare]);
        for net in CLOUDFLARE {
            let net: IpNet = net.parse().unwrap();
            assert_eq!(net, net.trunc());
        }
        assert_eq!(CLOUDFLARE.iter().filter(|n| n.contains(':')).count(), 7);
    }

    #[test]
    fn networks_are_read_in_every_spelling() {
        let read = |t: &str| network(t).map(|n| n.to_string());
        assert_eq!(read("192.0.2.1").as_deref(), Some("192.0.2.1/32"));
        assert_eq!(read("2001:db8::1").as_deref(), Some("2001:db8::1/128"));
        assert_eq!(read("10.0.0.0/255.0.0.0").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(read("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1/32"));
        assert_eq!(read("::ffff:10.0.0.0/104").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(read("::ffff:0:0/96").as_deref(), Some("0.0.0.0/0"));
        // Wider than the mapped addresses: it is an IPv6 network that holds them.
        assert_eq!(read("::ffff:0:0/95").as_deref(), Some("::ffff:0.0.0.0/95"));
        for wrong in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.1",
            "10.0.0.0/255.0.255.0",
            "1.2.3.4/-1",
            "fe80::1%eth0",
            "::/129",
            "example.org",
            "[::1]",
            "2001:db8::/ffff::",
        ] {
            assert_eq!(network(wrong), None, "{wrong}");
        }
    }
}
