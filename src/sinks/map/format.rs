//! What stands in the file: each server's own way to write down an address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::sinks::MapFormat;

/// What somebody is told who opens the file.
const HEADER: &str = "# written by stockade; do not edit: it is overwritten\n";

/// A file's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// Who cannot be written down in this format: a network, where only addresses are compared.
    pub(super) left_out: usize,
}

/// The file that holds these, always in the same order.
pub(super) fn render(format: MapFormat, value: &str, nets: &BTreeSet<IpNet>) -> Rendered {
    // Other programs' readers of lists may not know comments.
    let header = if format == MapFormat::List { "" } else { HEADER };
    let mut text = String::with_capacity(header.len() + nets.len() * 32);
    text.push_str(header);
    let mut left_out = 0;
    for net in nets {
        match (format, single(*net)) {
            (MapFormat::NginxGeo, _) => text.push_str(&format!("{} {value};\n", cidr(*net))),
            (MapFormat::NginxMap, Some(address)) => {
                text.push_str(&format!("\"{}\" {value};\n", server_text(address)));
                // What a socket for both families calls an IPv4 client.
                if address.is_ipv4() {
                    text.push_str(&format!("\"::ffff:{address}\" {value};\n"));
                }
            }
            (MapFormat::Apache, Some(address)) => {
                text.push_str(&format!("{} {value}\n", server_text(address)));
            }
            (MapFormat::NginxMap | MapFormat::Apache, None) => left_out += 1,
            (MapFormat::ApacheRequire, _) => text.push_str(&format!("Require not ip {}\n", key(*net))),
            (MapFormat::HaproxyMap, _) => text.push_str(&format!("{} {value}\n", key(*net))),
            (MapFormat::HaproxyAcl | MapFormat::List, _) => text.push_str(&format!("{}\n", key(*net))),
        }
    }
    Rendered { text, left_out }
}

fn single(net: IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

fn cidr(net: IpNet) -> String {
    net.trunc().to_string()
}

/// A network with its length, an address without.
pub(super) fn key(net: IpNet) -> String {
    single(net).map_or_else(|| cidr(net), |address| address.to_string())
}

/// An address as nginx (`ngx_inet6_ntop`) and Apache (`inet_ntop` of the C library) print it to compare it with a text. Rust's
/// own text (RFC 5952) is the same, but for the deprecated addresses of `::/96`.
fn server_text(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) if is_compatible(v6) => {
            let [.., a, b, c, d] = v6.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        _ => address.to_string(),
    }
}

fn is_compatible(address: Ipv6Addr) -> bool {
    let [head @ .., a, b, _, _] = address.octets();
    head == [0; 12] && [a, b] != [0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(format: MapFormat) -> (String, usize) {
        let nets = ["2001:db8:0:1::/64", "192.0.2.7/32", "2001:db8::7/128", "10.1.2.3/8", "192.0.2.10/32"];
        let nets = nets.iter().map(|net| net.parse().unwrap()).collect();
        let Rendered { text, left_out } = render(format, "1", &nets);
        (text.replacen(HEADER, "#\n", 1), left_out)
    }

    #[test]
    fn each_server_has_its_own_way() {
        let geo =
            "#\n10.0.0.0/8 1;\n192.0.2.7/32 1;\n192.0.2.10/32 1;\n2001:db8::7/128 1;\n2001:db8:0:1::/64 1;\n";
        assert_eq!(file(MapFormat::NginxGeo), (geo.to_owned(), 0));
        let map = "#\n\"192.0.2.7\" 1;\n\"::ffff:192.0.2.7\" 1;\n\"192.0.2.10\" 1;\n\"::ffff:192.0.2.10\" 1;\n\"2001:db8::7\" 1;\n";
        assert_eq!(file(MapFormat::NginxMap), (map.to_owned(), 2));
        let apache = "#\n192.0.2.7 1\n192.0.2.10 1\n2001:db8::7 1\n";
        assert_eq!(file(MapFormat::Apache), (apache.to_owned(), 2));
        let list = "10.0.0.0/8\n192.0.2.7\n192.0.2.10\n2001:db8::7\n2001:db8:0:1::/64\n";
        assert_eq!(file(MapFormat::List), (list.to_owned(), 0));
        assert_eq!(file(MapFormat::HaproxyAcl), (format!("#\n{list}"), 0));
        assert_eq!(file(MapFormat::HaproxyMap), (format!("#\n{}", list.replace('\n', " 1\n")), 0));
        let require: String = list.lines().map(|line| format!("Require not ip {line}\n")).collect();
        assert_eq!(file(MapFormat::ApacheRequire), (format!("#\n{require}"), 0));
    }

    #[test]
    fn an_empty_file_is_a_valid_one() {
        for (_, format) in MapFormat::WORDS {
            let Rendered { text, left_out } = render(format, "1", &BTreeSet::new());
            assert!(text == HEADER || text.is_empty(), "{text}");
            assert_eq!(left_out, 0);
        }
    }

    #[test]
    fn addresses_are_written_as_servers_print_them() {
        let cases = [
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("::1", "::1"),
            ("::1.2.3.4", "::1.2.3.4"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("1.2.3.4", "1.2.3.4"),
        ];
        for (address, text) in cases {
            assert_eq!(server_text(address.parse().unwrap()), text);
        }
    }
}
