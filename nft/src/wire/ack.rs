//! `NLMSG_ERROR`, which is also the acknowledgement.
//!
//! ```text
//! i32 -errno | nlmsghdr of the request | the request itself, unless NLM_F_CAPPED | TLVs, if NLM_F_ACK_TLVS
//!     NLMSGERR_ATTR_MSG  { text }
//!     NLMSGERR_ATTR_OFFS { u32, offset of the attribute at fault in the request }
//! ```

use super::Message;
use super::read::{attributes, text, u32_at};
use crate::sys;

/// What the kernel says about one message it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) seq: u32,
    /// 0: accepted.
    pub(crate) errno: i32,
    pub(crate) text: Option<String>,
    /// Offset of the attribute at fault, counted from the message's header.
    pub(crate) offset: Option<u32>,
}

impl Ack {
    /// `None` when the message is none, or cut off.
    pub(crate) fn parse(message: &Message<'_>) -> Option<Self> {
        if message.kind != sys::NLMSG_ERROR {
            return None;
        }
        let errno = i32::from_ne_bytes(*message.payload.first_chunk()?).wrapping_neg();
        let request = message.payload.get(4..)?;
        let request_len = u32_at(request, 0)? as usize;
        let seq = u32_at(request, 8)?;
        let mut ack = Self { seq, errno, text: None, offset: None };
        let echoed = if message.flags & sys::NLM_F_CAPPED == 0 {
            // The length is the request's own word: a huge one must not wrap when it is aligned.
            request_len.checked_next_multiple_of(4).unwrap_or(usize::MAX)
        } else {
            sys::NLMSG_HDRLEN
        };
        if message.flags & sys::NLM_F_ACK_TLVS != 0
            && let Some(tlvs) = request.get(echoed..).map(attributes)
        {
            ack.text = tlvs.get(sys::NLMSGERR_ATTR_MSG).map(text);
            ack.offset = tlvs.get(sys::NLMSGERR_ATTR_OFFS).and_then(|b| u32_at(b, 0));
        }
        Some(ack)
    }
}
