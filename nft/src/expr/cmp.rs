//! ```text
//! NFTA_CMP_SREG { be32 }
//! NFTA_CMP_OP   { be32 }
//! NFTA_CMP_DATA | NLA_F_NESTED { NFTA_DATA_VALUE { bytes } }
//! ```

use super::{Expr, Register};
use crate::wire::{Attributes, Writer};

const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;

/// How a value is compared; byte by byte, so as a big endian number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

impl CmpOp {
    const ALL: [Self; 6] = [Self::Eq, Self::Ne, Self::Lt, Self::Le, Self::Gt, Self::Ge];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "neq",
            Self::Lt => "lt",
            Self::Le => "lte",
            Self::Gt => "gt",
            Self::Ge => "gte",
        }
    }
}

pub(super) fn write(w: &mut Writer, from: Register, op: CmpOp, value: &[u8]) {
    w.be32(NFTA_CMP_SREG, from.to_wire());
    // The kernel counts them in this order.
    w.be32(NFTA_CMP_OP, op as u32);
    w.data(NFTA_CMP_DATA, value);
}

pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    Some(Expr::Cmp {
        from: Register::from_wire(a.be32(NFTA_CMP_SREG)?)?,
        op: *CmpOp::ALL.get(a.be32(NFTA_CMP_OP)? as usize)?,
        value: a.data(NFTA_CMP_DATA)?.into(),
    })
}
