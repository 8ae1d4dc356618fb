//! ```text
//! NFTA_BYTEORDER_SREG { be32 }
//! NFTA_BYTEORDER_DREG { be32 }
//! NFTA_BYTEORDER_OP   { be32: 0 network to host, 1 host to network }
//! NFTA_BYTEORDER_LEN  { be32 }
//! NFTA_BYTEORDER_SIZE { be32 }
//! ```

use super::{Expr, Register};
use crate::wire::{Attributes, Writer};

const NFTA_BYTEORDER_SREG: u16 = 1;
const NFTA_BYTEORDER_DREG: u16 = 2;
const NFTA_BYTEORDER_OP: u16 = 3;
const NFTA_BYTEORDER_LEN: u16 = 4;
const NFTA_BYTEORDER_SIZE: u16 = 5;

/// `NFT_BYTEORDER_HTON` (include/uapi/linux/netfilter/nf_tables.h)
const HTON: u32 = 1;

pub(super) fn write(w: &mut Writer, from: Register, to: Register, len: u32, size: u32) {
    w.be32(NFTA_BYTEORDER_SREG, from.to_wire());
    w.be32(NFTA_BYTEORDER_DREG, to.to_wire());
    w.be32(NFTA_BYTEORDER_OP, HTON);
    w.be32(NFTA_BYTEORDER_LEN, len);
    w.be32(NFTA_BYTEORDER_SIZE, size);
}

/// `None` for the other direction, for which there is no use here.
pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    Some(Expr::ToNetworkOrder {
        from: Register::from_wire(a.be32(NFTA_BYTEORDER_SREG)?)?,
        to: Register::from_wire(a.be32(NFTA_BYTEORDER_DREG)?)?,
        len: a.be32(NFTA_BYTEORDER_LEN)?,
        size: a.be32(NFTA_BYTEORDER_SIZE)?,
    })
    .filter(|_| a.be32(NFTA_BYTEORDER_OP) == Some(HTON))
}
