//! The parts of a rule.

use std::sync::Arc;

use ipnet::IpNet;

use crate::expr::{Expr, PayloadBase, Reject, Verdict};

/// A part of the packet that a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// `ip saddr`, 4 bytes.
    IpSaddr,
    /// `ip daddr`, 4 bytes.
    IpDaddr,
    /// `ip6 saddr`, 16 bytes.
    Ip6Saddr,
    /// `ip6 daddr`, 16 bytes.
    Ip6Daddr,
    /// `th sport`, 2 bytes: of any transport protocol that has ports there.
    ThSport,
    /// `th dport`, 2 bytes.
    ThDport,
    /// `tcp sport`, 2 bytes.
    TcpSport,
    /// `tcp dport`, 2 bytes.
    TcpDport,
    /// `udp sport`, 2 bytes.
    UdpSport,
    /// `udp dport`, 2 bytes.
    UdpDport,
    /// `meta nfproto`, 1 byte: 2 is IPv4, 10 is IPv6.
    Nfproto,
    /// `meta l4proto`, 1 byte.
    L4proto,
    /// `iifname`, 16 bytes.
    Iifname,
    /// `oifname`, 16 bytes.
    Oifname,
    /// `@ih,bits,bits`: any bytes.
    Raw {
        /// What the offset counts from.
        base: PayloadBase,
        /// Bytes (nft counts bits).
        offset: u16,
        /// Bytes.
        len: u8,
    },
}

/// With what a field is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// The elements of a set.
    Set(Arc<str>),
    /// This, of the field's length.
    Bytes(Box<[u8]>),
    /// Anything from the first to the last, both of the field's length.
    Range(Box<[u8]>, Box<[u8]>),
    /// The addresses of a network.
    Net(IpNet),
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Match {
        /// More than one: their concatenation.
        fields: Vec<Field>,
        /// Only so many leading bits of the (one) field.
        prefix: Option<u8>,
        inverted: bool,
        with: Operand,
    },
    /// The time of day is before this: nanoseconds since the Unix epoch.
    Before(u64),
    Counter,
    Verdict(Verdict),
    Reject(Reject),
    Expr(Expr),
}
