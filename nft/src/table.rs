//! Tables, and the families they belong to.

use std::fmt;
use std::sync::Arc;

use crate::sys;
use crate::wire::{Attributes, Message, Writer};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Family {
    /// IPv4 and IPv6 together.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// Packets at a device's ingress or egress.
    Netdev,
    /// Packets that cross a bridge.
    Bridge,
    /// IPv6.
    Ip6,
    /// A family this crate has no name for: its number.
    Other(u8),
}

impl Family {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
            Self::Other(n) => n,
        }
    }

    pub(crate) const fn from_number(n: u8) -> Self {
        match n {
            1 => Self::Inet,
            2 => Self::Ip,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ip6,
            n => Self::Other(n),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet => f.write_str("inet"),
            Self::Ip => f.write_str("ip"),
            Self::Arp => f.write_str("arp"),
            Self::Netdev => f.write_str("netdev"),
            Self::Bridge => f.write_str("bridge"),
            Self::Ip6 => f.write_str("ip6"),
            Self::Other(n) => write!(f, "family-{n}"),
        }
    }
}

/// A table: the name under which chains and sets live.
///
/// Names are at most 255 bytes without NUL; a batch with a longer one is refused before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub(crate) family: Family,
    pub(crate) name: Arc<str>,
    pub(crate) flags: u32,
    pub(crate) handle: Option<u64>,
}

impl Table {
    /// A table without flags.
    #[must_use]
    pub fn new(family: Family, name: &str) -> Self {
        Self { family, name: name.into(), flags: 0, handle: None }
    }

    /// Only the socket that made it may change it (kernel 5.12); it is gone when that socket closes, unless it is
    /// [persistent](Self::persist).
    #[must_use]
    pub fn owner(mut self) -> Self {
        self.flags |= sys::NFT_TABLE_F_OWNER;
        self
    }

    /// Together with [`owner`](Self::owner) (kernel 6.9): it stays when its owner is gone, and the next socket that
    /// adds it with both flags owns it.
    #[must_use]
    pub fn persist(mut self) -> Self {
        self.flags |= sys::NFT_TABLE_F_PERSIST;
        self
    }

    /// Its chains are not called.
    #[must_use]
    pub fn dormant(mut self) -> Self {
        self.flags |= sys::NFT_TABLE_F_DORMANT;
        self
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether only the socket that made it may change it.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.flags & sys::NFT_TABLE_F_OWNER != 0
    }

    /// The kernel's number for it, when it was listed.
    #[must_use]
    pub fn handle(&self) -> Option<u64> {
        self.handle
    }

    /// ```text
    /// NFTA_TABLE_NAME  { string }
    /// NFTA_TABLE_FLAGS { be32 }        not when deleting
    /// ```
    pub(crate) fn write(&self, w: &mut Writer, whole: bool) {
        w.str(sys::NFTA_TABLE_NAME, &self.name);
        if whole {
            w.be32(sys::NFTA_TABLE_FLAGS, self.flags);
        }
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Self> {
        let a: Attributes<'_> = message.attributes();
        Some(Self {
            family: Family::from_number(message.family()),
            name: a.str(sys::NFTA_TABLE_NAME)?.into(),
            flags: a.be32(sys::NFTA_TABLE_FLAGS).unwrap_or(0),
            handle: a.be64(sys::NFTA_TABLE_HANDLE),
        })
    }
}
