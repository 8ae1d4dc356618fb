//! ```text
//! NFTA_REJECT_TYPE      { be32 }
//! NFTA_REJECT_ICMP_CODE { u8 }
//! ```

use std::fmt;

use super::Expr;
use crate::wire::{Attributes, Writer};

const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;

/// How the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reject {
    /// A TCP reset: the connection is over at once.
    TcpReset,
    /// "Administratively prohibited", of ICMP or ICMPv6 as it fits.
    AdminProhibited,
    /// "Port unreachable", of ICMP or ICMPv6 as it fits.
    PortUnreachable,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcpReset => "reject with tcp reset",
            Self::AdminProhibited => "reject with icmpx admin-prohibited",
            Self::PortUnreachable => "reject",
        })
    }
}

pub(super) fn write(w: &mut Writer, reject: Reject) {
    let (kind, code) = match reject {
        Reject::TcpReset => (NFT_REJECT_TCP_RST, 0),
        Reject::PortUnreachable => (NFT_REJECT_ICMPX_UNREACH, 1),
        Reject::AdminProhibited => (NFT_REJECT_ICMPX_UNREACH, 3),
    };
    w.be32(NFTA_REJECT_TYPE, kind);
    w.attr(NFTA_REJECT_ICMP_CODE, &[code]);
}

pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    let code = a.get(NFTA_REJECT_ICMP_CODE).and_then(|b| b.first().copied()).unwrap_or(0);
    Some(Expr::Reject(match (a.be32(NFTA_REJECT_TYPE)?, code) {
        (NFT_REJECT_TCP_RST, _) => Reject::TcpReset,
        (NFT_REJECT_ICMPX_UNREACH, 1) => Reject::PortUnreachable,
        (NFT_REJECT_ICMPX_UNREACH, 3) => Reject::AdminProhibited,
        _ => return None,
    }))
}
