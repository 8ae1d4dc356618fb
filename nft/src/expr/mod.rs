//! Expressions: the kernel's instructions, of which a rule is a list.
//!
//! ```text
//! NFTA_LIST_ELEM | NLA_F_NESTED {
//!     NFTA_EXPR_NAME { string }
//!     NFTA_EXPR_DATA | NLA_F_NESTED { the expression's own attributes, drawn in its file }
//! }
//! ```
//!
//! Values travel in registers of 4 bytes. [`Register`] counts those; the kernel also has names for aligned groups of
//! four, and answers with them, so equal registers are written equally.

mod bitwise;
mod byteorder;
mod cmp;
mod compat;
mod counter;
mod immediate;
mod lookup;
mod meta;
mod payload;
mod reject;
mod string;

use std::fmt;
use std::sync::Arc;

pub use cmp::CmpOp;
pub use immediate::Verdict;
pub use meta::MetaKey;
pub use payload::PayloadBase;
pub use reject::Reject;

use crate::sys;
use crate::wire::{Attributes, Writer};

/// A place for 4 bytes of a value; longer values go on in the following ones. There are 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    /// The first.
    pub const FIRST: Self = Self(0);

    fn to_wire(self) -> u32 {
        let n = u32::from(self.0);
        if n.is_multiple_of(4) { sys::NFT_REG_1 + n / 4 } else { sys::NFT_REG32_00 + n }
    }

    fn from_wire(n: u32) -> Option<Self> {
        let slot = match n {
            sys::NFT_REG_1..sys::NFT_REG32_00 => (n - sys::NFT_REG_1) * 4,
            _ => n.checked_sub(sys::NFT_REG32_00)?,
        };
        u8::try_from(slot).ok().filter(|n| *n < 16).map(Self)
    }
}

/// One expression. Those without a variant here are [`Raw`](Self::Raw).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// Where to.
        to: Register,
        /// What the offset counts from.
        base: PayloadBase,
        /// Bytes.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Loads what the kernel knows about the packet.
    Meta {
        /// Where to.
        to: Register,
        /// What.
        key: MetaKey,
    },
    /// `to = (from & mask) ^ xor`.
    Bitwise {
        /// Where from.
        from: Register,
        /// Where to.
        to: Register,
        /// As long as the value.
        mask: Box<[u8]>,
        /// As long as the value.
        xor: Box<[u8]>,
    },
    /// `to = hton(from)`: numbers in the host's order become comparable byte by byte.
    ToNetworkOrder {
        /// Where from.
        from: Register,
        /// Where to.
        to: Register,
        /// Bytes of all numbers together.
        len: u32,
        /// Bytes of each: 2, 4 or 8.
        size: u32,
    },
    /// The rule ends here unless the comparison holds.
    Cmp {
        /// What is compared.
        from: Register,
        /// How.
        op: CmpOp,
        /// With what.
        value: Box<[u8]>,
    },
    /// The rule ends here unless the set has the key.
    Lookup {
        /// The set's name, in the rule's table.
        set: Arc<str>,
        /// The key.
        from: Register,
        /// Unless the set has it not.
        inverted: bool,
    },
    /// Counts.
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// Decides, or calls a chain.
    Verdict(Verdict),
    /// Refuses, telling the sender.
    Reject(Reject),
    /// A match of xtables, through nft_compat.
    Match {
        /// The extension, e.g. `string` or `bpf`.
        name: Arc<str>,
        /// Its revision.
        rev: u32,
        /// Its structure, padded as the kernel wants it. What it holds after the call is the kernel's business.
        info: Box<[u8]>,
    },
    /// Any other expression.
    Raw {
        /// The kernel's name for it.
        name: Arc<str>,
        /// What `NFTA_EXPR_DATA` contains.
        data: Box<[u8]>,
    },
}

impl Expr {
    /// A counter that begins at zero.
    pub const COUNTER: Self = Self::Counter { packets: 0, bytes: 0 };

    /// Whether this does the same, whatever counters have counted.
    #[must_use]
    pub fn does_the_same(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Counter { .. }, Self::Counter { .. })) || self == other
    }

    /// The kernel's name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } => "meta",
            Self::Bitwise { .. } => "bitwise",
            Self::ToNetworkOrder { .. } => "byteorder",
            Self::Cmp { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Counter { .. } => "counter",
            Self::Verdict(_) => "immediate",
            Self::Reject(_) => "reject",
            Self::Match { .. } => "match",
            Self::Raw { name, .. } => name,
        }
    }

    /// Writes `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`, without the nest around them.
    pub(crate) fn write(&self, w: &mut Writer) {
        w.str(sys::NFTA_EXPR_NAME, self.name());
        w.nest(sys::NFTA_EXPR_DATA, |w| match self {
            Self::Payload { to, base, offset, len } => payload::write(w, *to, *base, *offset, *len),
            Self::Meta { to, key } => meta::write(w, *to, *key),
            Self::Bitwise { from, to, mask, xor } => bitwise::write(w, *from, *to, mask, xor),
            Self::ToNetworkOrder { from, to, len, size } => byteorder::write(w, *from, *to, *len, *size),
            Self::Cmp { from, op, value } => cmp::write(w, *from, *op, value),
            Self::Lookup { set, from, inverted } => lookup::write(w, set, *from, *inverted),
            Self::Counter { packets, bytes } => counter::write(w, *packets, *bytes),
            Self::Verdict(verdict) => immediate::write(w, verdict),
            Self::Reject(reject) => reject::write(w, *reject),
            Self::Match { name, rev, info } => compat::write(w, name, *rev, info),
            Self::Raw { data, .. } => w.bytes(data),
        });
    }

    /// Reads what [`write`](Self::write) wrote. An expression of a known name that says something this crate has no
    /// words for is `Raw`, so nothing is misread; `None` only without a name.
    pub(crate) fn read(a: Attributes<'_>) -> Option<Self> {
        let name = a.str(sys::NFTA_EXPR_NAME)?;
        let data = a.get(sys::NFTA_EXPR_DATA).unwrap_or(&[]);
        let d = crate::wire::attributes(data);
        let known = match name.as_str() {
            "payload" => payload::read(d),
            "meta" => meta::read(d),
            "bitwise" => bitwise::read(d),
            "byteorder" => byteorder::read(d),
            "cmp" => cmp::read(d),
            "lookup" => lookup::read(d),
            "counter" => counter::read(d),
            "immediate" => immediate::read(d),
            "reject" => reject::read(d),
            "match" => compat::read(d),
            _ => None,
        };
        Some(known.unwrap_or_else(|| Self::Raw { name: name.into(), data: data.into() }))
    }
}

impl fmt::Display for Expr {
    /// As `nft --debug=netlink` shows it, e.g. `[ meta load nfproto => reg 1 ]`, with registers counted in 4 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload { to, base, offset, len } => {
                write!(f, "[ payload load {len}b @ {base} header + {offset} => reg {} ]", to.0)
            }
            Self::Meta { to, key } => write!(f, "[ meta load {key} => reg {} ]", to.0),
            Self::Bitwise { from, to, mask, xor } => {
                write!(f, "[ bitwise reg {} = ( reg {} & {} ) ^ {} ]", to.0, from.0, Hex(mask), Hex(xor))
            }
            Self::ToNetworkOrder { from, to, len, size } => {
                write!(f, "[ byteorder reg {} = hton(reg {}, {len}, {size}) ]", to.0, from.0)
            }
            Self::Cmp { from, op, value } => write!(f, "[ cmp {} reg {} {} ]", op.word(), from.0, Hex(value)),
            Self::Lookup { set, from, inverted } => {
                write!(f, "[ lookup reg {} set {set}{} ]", from.0, if *inverted { " 0x1" } else { "" })
            }
            Self::Counter { packets, bytes } => write!(f, "[ counter pkts {packets} bytes {bytes} ]"),
            Self::Verdict(verdict) => write!(f, "[ immediate reg 0 {verdict} ]"),
            Self::Reject(reject) => write!(f, "[ {reject} ]"),
            Self::Match { name, rev, .. } => write!(f, "[ match name {name} rev {rev} ]"),
            Self::Raw { name, .. } => write!(f, "[ {name} ]"),
        }
    }
}

/// Bytes as one hexadecimal number.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
