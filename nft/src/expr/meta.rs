//! ```text
//! NFTA_META_DREG { be32 }
//! NFTA_META_KEY  { be32 }
//! ```

use std::fmt;

use super::{Expr, Register};
use crate::wire::{Attributes, Writer};

const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;

/// What the kernel knows about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaKey {
    /// The EtherType, 2 bytes.
    Protocol,
    /// The packet's mark, 4 bytes in the host's order.
    Mark,
    /// Name of the device it came in by, 16 bytes.
    Iifname,
    /// Name of the device it leaves by, 16 bytes.
    Oifname,
    /// 2 for IPv4, 10 for IPv6, 1 byte.
    Nfproto,
    /// The transport protocol, behind any IPv6 extension headers, 1 byte.
    L4proto,
    /// The time of day: nanoseconds since the Unix epoch, 8 bytes in the host's order. Since Linux 5.4.
    Time,
    /// Another: the kernel's number.
    Other(u32),
}

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Mark => 3,
            Self::Iifname => 6,
            Self::Oifname => 7,
            Self::Nfproto => 15,
            Self::L4proto => 16,
            Self::Time => 30,
            Self::Other(n) => n,
        }
    }

    fn from_number(n: u32) -> Self {
        match n {
            1 => Self::Protocol,
            3 => Self::Mark,
            6 => Self::Iifname,
            7 => Self::Oifname,
            15 => Self::Nfproto,
            16 => Self::L4proto,
            30 => Self::Time,
            n => Self::Other(n),
        }
    }
}

impl fmt::Display for MetaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol => f.write_str("protocol"),
            Self::Mark => f.write_str("mark"),
            Self::Iifname => f.write_str("iifname"),
            Self::Oifname => f.write_str("oifname"),
            Self::Nfproto => f.write_str("nfproto"),
            Self::L4proto => f.write_str("l4proto"),
            Self::Time => f.write_str("time"),
            Self::Other(n) => write!(f, "{n}"),
        }
    }
}

pub(super) fn write(w: &mut Writer, to: Register, key: MetaKey) {
    w.be32(NFTA_META_DREG, to.to_wire());
    w.be32(NFTA_META_KEY, key.number());
}

/// `None` for the form that sets a value: it has a source register instead.
pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    let to = Register::from_wire(a.be32(NFTA_META_DREG)?)?;
    Some(Expr::Meta { to, key: MetaKey::from_number(a.be32(NFTA_META_KEY)?) })
}
