//! Reading messages and attributes. Whatever the bytes are, nothing here panics: a length that makes no sense ends
//! the iteration, an attribute that is missing or too short is `None`.

use super::align;
use crate::sys;

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// Whose request it answers; in a notification: who made the change.
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The nf_tables message type (`NFT_MSG_*`), if it is one.
    pub(crate) fn nft_kind(&self) -> Option<u16> {
        (self.kind >> 8 == sys::NFNL_SUBSYS_NFTABLES).then_some(self.kind & 0xff)
    }

    /// The address family in `nfgenmsg`; 0 when it is cut off.
    pub(crate) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or(0)
    }

    /// The resource in `nfgenmsg`. In an answer of nf_tables: the last 16 bits of the ruleset's generation.
    pub(crate) fn resource(&self) -> Option<u16> {
        self.payload.get(2..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
    }

    /// The attributes after `nfgenmsg`.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        attributes(self.payload.get(sys::NFGENMSG_LEN..).unwrap_or(&[]))
    }
}

/// The messages in one datagram.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.get(..sys::NLMSG_HDRLEN)?;
        let len = u32_at(header, 0)? as usize;
        let message = Message {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            seq: u32_at(header, 8)?,
            port: u32_at(header, 12)?,
            payload: rest.get(sys::NLMSG_HDRLEN..len)?,
        };
        rest = rest.get(align(len)..).unwrap_or(&[]);
        Some(message)
    })
}

/// A run of attributes. `Clone` so that one can look several up; each look-up is a scan, which for a dozen
/// attributes beats an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Attributes<'a> {
    /// The first attribute of this type.
    pub(crate) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find_map(|(k, data)| (k == kind).then_some(data))
    }

    pub(crate) fn nested(&self, kind: u16) -> Option<Self> {
        self.get(kind).map(Attributes)
    }

    /// A string without its NUL; bytes that are no UTF-8 are replaced.
    pub(crate) fn str(&self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    pub(crate) fn be32(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|b| u32::from_be_bytes(*b))
    }

    pub(crate) fn be64(&self, kind: u16) -> Option<u64> {
        self.get(kind)?.first_chunk().map(|b| u64::from_be_bytes(*b))
    }

    /// The reverse of [`Writer::data`](super::Writer::data).
    pub(crate) fn data(&self, kind: u16) -> Option<&'a [u8]> {
        self.nested(kind)?.get(sys::NFTA_DATA_VALUE)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & sys::NLA_TYPE_MASK;
        let data = self.0.get(sys::NLA_HDRLEN..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or(&[]);
        Some((kind, data))
    }
}

/// A NUL-terminated string's text.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}
