//! Netlink as bytes: messages, attributes, acknowledgements. Knows nothing of tables and sets.
//!
//! Lengths and headers are in the host's byte order; the integers inside nf_tables attributes are big endian.

mod ack;
mod read;
mod write;

pub(crate) use ack::Ack;
pub(crate) use read::{Attributes, Message, attributes, messages};
pub(crate) use write::Writer;

#[cfg(test)]
mod tests;

/// The next multiple of four: messages and attributes are padded to it.
pub(crate) const fn align(len: usize) -> usize {
    (len + 3) & !3
}
