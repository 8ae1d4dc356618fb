//! xtables' matches in an nf_tables rule (nft_compat).
//!
//! ```text
//! NFTA_MATCH_NAME { string }
//! NFTA_MATCH_REV  { be32 }
//! NFTA_MATCH_INFO { the extension's structure, in the host's layout, padded to a multiple of eight }
//! ```

use super::Expr;
use crate::wire::{Attributes, Writer};

const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_REV: u16 = 2;
const NFTA_MATCH_INFO: u16 = 3;

pub(super) fn write(w: &mut Writer, name: &str, rev: u32, info: &[u8]) {
    w.str(NFTA_MATCH_NAME, name);
    w.be32(NFTA_MATCH_REV, rev);
    w.attr(NFTA_MATCH_INFO, info);
}

pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    Some(Expr::Match {
        name: a.str(NFTA_MATCH_NAME)?.into(),
        rev: a.be32(NFTA_MATCH_REV)?,
        info: a.get(NFTA_MATCH_INFO)?.into(),
    })
}
