//! ```text
//! NFTA_LOOKUP_SET   { string }
//! NFTA_LOOKUP_SREG  { be32 }
//! NFTA_LOOKUP_FLAGS { be32: 1 inverted }     only when inverted
//! ```

use super::{Expr, Register};
use crate::wire::{Attributes, Writer};

const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;
const NFT_LOOKUP_F_INV: u32 = 1;

pub(super) fn write(w: &mut Writer, set: &str, from: Register, inverted: bool) {
    w.str(NFTA_LOOKUP_SET, set);
    w.be32(NFTA_LOOKUP_SREG, from.to_wire());
    if inverted {
        w.be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    }
}

/// `None` for a map's look-up: it has a destination.
pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    if a.get(NFTA_LOOKUP_DREG).is_some() {
        return None;
    }
    Some(Expr::Lookup {
        set: a.str(NFTA_LOOKUP_SET)?.into(),
        from: Register::from_wire(a.be32(NFTA_LOOKUP_SREG)?)?,
        inverted: a.be32(NFTA_LOOKUP_FLAGS).unwrap_or(0) & NFT_LOOKUP_F_INV != 0,
    })
}
