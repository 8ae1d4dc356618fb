//! Writing messages and attributes.

use super::align;
use crate::sys;

/// Builds messages one after the other in one buffer.
///
/// An attribute's length has 16 bits and a string ends at its first NUL. What does not fit is never wrapped or cut
/// silently: the writer remembers it, and [`Writer::unwritable`] tells.
#[derive(Default)]
pub(crate) struct Writer {
    buf: Vec<u8>,
    unwritable: bool,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { buf: Vec::with_capacity(bytes), unwritable: false }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.buf
    }

    pub(crate) fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether something could not be written since this was last asked.
    pub(crate) fn unwritable(&mut self) -> bool {
        std::mem::take(&mut self.unwritable)
    }

    /// One nf_tables message; `NLM_F_REQUEST` is added.
    pub(crate) fn nft_message(
        &mut self,
        kind: u16,
        flags: u16,
        seq: u32,
        family: u8,
        body: impl FnOnce(&mut Self),
    ) {
        self.message((sys::NFNL_SUBSYS_NFTABLES << 8) | kind, flags, seq, family, 0, body);
    }

    /// One nfnetlink message with its `nfgenmsg`; `NLM_F_REQUEST` is added.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        seq: u32,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&(flags | sys::NLM_F_REQUEST).to_ne_bytes());
        self.buf.extend_from_slice(&seq.to_ne_bytes());
        self.buf.extend_from_slice(&[0; 4]); // port: the kernel knows who sends
        self.buf.extend_from_slice(&[family, 0]);
        self.buf.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let len = u32::try_from(self.buf.len() - start).unwrap_or_else(|_| {
            self.unwritable = true;
            0
        });
        self.buf[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Sets flags of the message that begins at `start`.
    pub(crate) fn set_message_flags(&mut self, start: usize, flags: u16) {
        if let Some(bytes) = self.buf.get_mut(start + 6..start + 8) {
            let old = u16::from_ne_bytes([bytes[0], bytes[1]]);
            bytes.copy_from_slice(&(old | flags).to_ne_bytes());
        }
    }

    pub(crate) fn attr(&mut self, kind: u16, data: &[u8]) {
        let start = self.open(kind);
        self.buf.extend_from_slice(data);
        self.close(start);
    }

    /// Attributes that somebody else has written.
    pub(crate) fn bytes(&mut self, attributes: &[u8]) {
        self.buf.extend_from_slice(attributes);
    }

    /// A string, with the NUL the kernel wants.
    pub(crate) fn str(&mut self, kind: u16, text: &str) {
        self.unwritable |= text.contains('\0');
        let start = self.open(kind);
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.push(0);
        self.close(start);
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.open(kind | sys::NLA_F_NESTED);
        body(self);
        self.close(start);
    }

    /// `kind | NLA_F_NESTED { NFTA_DATA_VALUE { data } }`, how values are wrapped everywhere.
    pub(crate) fn data(&mut self, kind: u16, data: &[u8]) {
        self.nest(kind, |w| w.attr(sys::NFTA_DATA_VALUE, data));
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let len = u16::try_from(self.buf.len() - start).unwrap_or_else(|_| {
            self.unwritable = true;
            0
        });
        self.buf[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.buf.resize(align(self.buf.len()), 0);
    }
}
