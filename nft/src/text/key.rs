//! Keys and elements.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::element::{Counter, Element};
use crate::expr::Hex;
use crate::key::Key;
use crate::text::Span;
use crate::value::Value;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => Addr(*addr).fmt(f),
            Self::Net(net) => write!(f, "{}/{}", Addr(net.network()), net.prefix_len()),
            Self::Service(port) => write!(f, "{port}"),
            Self::Proto(proto) => Proto(*proto).fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::Bytes(bytes) => Hex(bytes).fmt(f),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.values().is_empty() {
            return f.write_str("*");
        }
        for (i, value) in self.values().iter().enumerate() {
            let dot = if i == 0 { "" } else { " . " };
            write!(f, "{dot}{value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counter packets {} bytes {}", self.packets, self.bytes)
    }
}

impl fmt::Display for Element {
    /// `203.0.113.7 timeout 1h expires 59m59s comment "seen on port 80"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)?;
        if let Some(counter) = self.counter {
            write!(f, " {counter}")?;
        }
        if let Some(timeout) = self.timeout {
            write!(f, " timeout {}", Span(timeout))?;
        }
        if let Some(expires) = self.expires {
            write!(f, " expires {}", Span(expires))?;
        }
        self.comment.iter().try_for_each(|comment| write!(f, " comment \"{comment}\""))
    }
}

/// A transport protocol: its name where `/etc/protocols` is the same everywhere and it matters here, else its number.
pub(super) struct Proto(pub(super) u8);

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "icmp",
            2 => "igmp",
            6 => "tcp",
            17 => "udp",
            33 => "dccp",
            50 => "esp",
            51 => "ah",
            58 => "ipv6-icmp",
            132 => "sctp",
            136 => "udplite",
            n => return write!(f, "{n}"),
        };
        f.write_str(name)
    }
}

/// An address. The C library, which nft uses, writes addresses like `::192.0.2.1` so; Rust does not.
pub(super) struct Addr(pub(super) IpAddr);

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(addr) if is_compatible(addr) => {
                let [.., a, b, c, d] = addr.octets();
                write!(f, "::{a}.{b}.{c}.{d}")
            }
            addr => addr.fmt(f),
        }
    }
}

/// "IPv4-compatible": 96 zero bits, and the next 16 are not zero.
fn is_compatible(addr: Ipv6Addr) -> bool {
    let [head @ .., six, _] = addr.segments();
    head == [0; 6] && six != 0
}
