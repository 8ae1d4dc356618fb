//! ```text
//! NFTA_PAYLOAD_DREG   { be32 }
//! NFTA_PAYLOAD_BASE   { be32 }
//! NFTA_PAYLOAD_OFFSET { be32 }
//! NFTA_PAYLOAD_LEN    { be32 }
//! ```

use std::fmt;

use super::{Expr, Register};
use crate::wire::{Attributes, Writer};

const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
/// Present when the expression writes into the packet.
const NFTA_PAYLOAD_SREG: u16 = 5;

/// What a payload's offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// `@ll`: the link layer's header.
    Link,
    /// `@nh`: the IP header.
    Network,
    /// `@th`: the TCP or UDP header.
    Transport,
    /// `@ih`: what follows it (kernel 5.16).
    Inner,
}

impl PayloadBase {
    /// As in `@ih,0,32`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Link => "ll",
            Self::Network => "nh",
            Self::Transport => "th",
            Self::Inner => "ih",
        }
    }
}

impl fmt::Display for PayloadBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Network => "network",
            Self::Transport => "transport",
            Self::Inner => "inner",
        })
    }
}

pub(super) fn write(w: &mut Writer, to: Register, base: PayloadBase, offset: u32, len: u32) {
    w.be32(NFTA_PAYLOAD_DREG, to.to_wire());
    let base = match base {
        PayloadBase::Link => 0,
        PayloadBase::Network => 1,
        PayloadBase::Transport => 2,
        PayloadBase::Inner => 3,
    };
    w.be32(NFTA_PAYLOAD_BASE, base);
    w.be32(NFTA_PAYLOAD_OFFSET, offset);
    w.be32(NFTA_PAYLOAD_LEN, len);
}

pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    if a.get(NFTA_PAYLOAD_SREG).is_some() {
        return None;
    }
    let base = match a.be32(NFTA_PAYLOAD_BASE)? {
        0 => PayloadBase::Link,
        1 => PayloadBase::Network,
        2 => PayloadBase::Transport,
        3 => PayloadBase::Inner,
        _ => return None,
    };
    Some(Expr::Payload {
        to: Register::from_wire(a.be32(NFTA_PAYLOAD_DREG)?)?,
        base,
        offset: a.be32(NFTA_PAYLOAD_OFFSET)?,
        len: a.be32(NFTA_PAYLOAD_LEN)?,
    })
}
