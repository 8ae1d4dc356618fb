//! ```text
//! NFTA_COUNTER_BYTES   { be64 }
//! NFTA_COUNTER_PACKETS { be64 }
//! ```
//! Both absent: it begins at zero.

use super::Expr;
use crate::wire::{Attributes, Writer};

const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;

pub(super) fn write(w: &mut Writer, packets: u64, bytes: u64) {
    if (packets, bytes) != (0, 0) {
        w.be64(NFTA_COUNTER_BYTES, bytes);
        w.be64(NFTA_COUNTER_PACKETS, packets);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the readers of all expressions have one signature")]
pub(super) fn read(a: Attributes<'_>) -> Option<Expr> {
    Some(Expr::Counter {
        packets: a.be64(NFTA_COUNTER_PACKETS).unwrap_or(0),
        bytes: a.be64(NFTA_COUNTER_BYTES).unwrap_or(0),
    })
}
