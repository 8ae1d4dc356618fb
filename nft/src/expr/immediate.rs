//! ```text
//! NFTA_IMMEDIATE_DREG { be32: 0, the verdict register }
//! NFTA_IMMEDIATE_DATA | NLA_F_NESTED {
//!     NFTA_DATA_VERDICT | NLA_F_NESTED {
//!         NFTA_VERDICT_CODE  { be32, signed }
//!         NFTA_VERDICT_CHAIN { string }          jump and goto
//!     }
//! }
//! ```

use std::fmt;
use std::sync::Arc;

use super::Expr;
use crate::sys;
use crate::wire::{Attributes, Writer};

const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on; chains of other priorities may still drop it.
    Accept,
    /// It is gone, whatever other chains say.
    Drop,
    /// Back to the calling chain, or to the policy.
    Return,
    /// Through that chain, and back behind this rule.
    Jump(Arc<str>),
    /// Through that chain, and not back here.
    Goto(Arc<str>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

pub(super) fn write(w: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (sys::NF_ACCEPT, None),
        Verdict::Drop => (sys::NF_DROP, None),
        Verdict::Return => (sys::NFT_RETURN, None),
        Verdict::Jump(chain) => (sys::NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (sys::NFT_GOTO, Some(chain)),
    };
    w.be32(NFTA_IMMEDIATE_DREG, sys::NFT_REG_VERDICT);
    w.nest(NFTA_IMMEDIATE_DATA, |w| {
        w.nest(sys::NFTA_DATA_VERDICT, |w| {
            w.be32(sys::NFTA_VERDICT_CODE, code.cast_unsigned());
            if let Some(chain) = chain {
                w.str(sys::NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    let verdict = a.nested(NFTA_IMMEDIATE_DATA)?.nested(sys::NFTA_DATA_VERDICT)?;
    let chain = || verdict.str(sys::NFTA_VERDICT_CHAIN).map(Arc::from);
    Some(Expr::Verdict(match verdict.be32(sys::NFTA_VERDICT_CODE)?.cast_signed() {
        sys::NF_ACCEPT => Verdict::Accept,
        sys::NF_DROP => Verdict::Drop,
        sys::NFT_RETURN => Verdict::Return,
        sys::NFT_JUMP => Verdict::Jump(chain()?),
        sys::NFT_GOTO => Verdict::Goto(chain()?),
        _ => return None,
    }))
}
