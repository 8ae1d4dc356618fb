//! ```text
//! NFTA_BITWISE_SREG { be32 }
//! NFTA_BITWISE_DREG { be32 }
//! NFTA_BITWISE_LEN  { be32 }
//! NFTA_BITWISE_MASK | NLA_F_NESTED { NFTA_DATA_VALUE { LEN bytes } }
//! NFTA_BITWISE_XOR  | NLA_F_NESTED { NFTA_DATA_VALUE { LEN bytes } }
//! NFTA_BITWISE_OP   { be32: 0 mask and xor }     read only; absent means 0
//! ```

use super::{Expr, Register};
use crate::wire::{Attributes, Writer};

const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_BITWISE_OP: u16 = 6;

pub(super) fn write(w: &mut Writer, from: Register, to: Register, mask: &[u8], xor: &[u8]) {
    w.be32(NFTA_BITWISE_SREG, from.to_wire());
    w.be32(NFTA_BITWISE_DREG, to.to_wire());
    w.be32(NFTA_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
    w.data(NFTA_BITWISE_MASK, mask);
    w.data(NFTA_BITWISE_XOR, xor);
}

pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    if a.be32(NFTA_BITWISE_OP).is_some_and(|op| op != 0) {
        return None;
    }
    Some(Expr::Bitwise {
        from: Register::from_wire(a.be32(NFTA_BITWISE_SREG)?)?,
        to: Register::from_wire(a.be32(NFTA_BITWISE_DREG)?)?,
        mask: a.data(NFTA_BITWISE_MASK)?.into(),
        xor: a.data(NFTA_BITWISE_XOR)?.into(),
    })
}
