//! From a batch to the bytes of one datagram, and from the kernel's answer back to the object it is about.
//!
//! ```text
//! NFNL_MSG_BATCH_BEGIN    seq n        its acknowledgement is about the whole batch
//!     NFNL_BATCH_GENID { be32 }
//! message                 seq n+1      one per change; elements are spread over several
//! ...
//! message                 seq m        NLM_F_ACK: when it is answered, all is
//! NFNL_MSG_BATCH_END      seq m+1      missing: the kernel checks everything and changes nothing
//! ```

use crate::batch::{Batch, Change, Object, Verb};
use crate::commit::{CommitError, Rejection, name};
use crate::element::{self, Element, Span};
use crate::key::Key;
use crate::set::Set;
use crate::sys;
use crate::wire::{Ack, Writer, align};

/// Elements stay below this per message: the nest around them may be 65,535 bytes long, and an element at most
/// [`ELEMENT_MAX`]. (Measured: 500 to 2,000 elements a message cost the same; fewer cost more.)
const ELEMENTS_MAX: usize = 48 * 1024;
/// More than the longest pair of wire elements: three keys of 64 bytes, a comment of 137, timeout and headers.
const ELEMENT_MAX: usize = 1024;

/// A batch ready to be sent.
pub(crate) struct Encoded<'a> {
    batch: &'a Batch,
    pub(crate) bytes: Vec<u8>,
    /// Sequence number of `NFNL_MSG_BATCH_BEGIN`.
    pub(crate) first_seq: u32,
    /// Of the last message that is acknowledged.
    pub(crate) last_seq: u32,
    /// Message `first_seq + 1 + i` is `sent[i]`.
    sent: Vec<Sent>,
}

/// What one message is about.
struct Sent {
    /// Index of the change in the batch.
    change: usize,
    /// Index of the first element in the change.
    first_element: usize,
    /// Offset of the first element in the message.
    elements_at: usize,
}

/// Whether a batch is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Commit,
    /// Every message acknowledged, no end: nothing is changed.
    Probe,
}

/// Writes the batch with sequence numbers from `seq` on.
pub(crate) fn encode(batch: &Batch, seq: u32, mode: Mode) -> Result<Encoded<'_>, CommitError> {
    let mut encoder = Encoder {
        w: Writer::with_capacity(4096),
        seq,
        sent: Vec::with_capacity(batch.changes().len()),
        last_at: 0,
        ack: if mode == Mode::Probe { sys::NLM_F_ACK } else { 0 },
    };
    encoder.control(sys::NFNL_MSG_BATCH_BEGIN, batch.generation());
    for (i, change) in batch.changes().iter().enumerate() {
        encoder.change(i, change)?;
    }
    let last_seq = encoder.seq.wrapping_sub(1);
    if mode == Mode::Commit {
        let last_at = encoder.last_at;
        encoder.w.set_message_flags(last_at, sys::NLM_F_ACK);
        encoder.control(sys::NFNL_MSG_BATCH_END, None);
    }
    Ok(Encoded { batch, bytes: encoder.w.into_bytes(), first_seq: seq, last_seq, sent: encoder.sent })
}

impl<'a> Encoded<'a> {
    /// How many sequence numbers it uses, at least.
    pub(crate) fn seqs(&self) -> u32 {
        self.last_seq.wrapping_sub(self.first_seq).wrapping_add(2)
    }

    /// The change an acknowledgement is about: its index, itself, and the error as one says it. `None` when it is
    /// not about one of this batch's changes.
    pub(crate) fn rejection(&self, ack: &Ack) -> Option<(usize, Rejection)> {
        let i = ack.seq.wrapping_sub(self.first_seq).checked_sub(1)?;
        let sent = self.sent.get(i as usize)?;
        let change = &self.batch.changes()[sent.change];
        let element = ack.offset.and_then(|offset| element_at(change, sent, offset as usize));
        let mut rejection = Rejection::new(change, element, ack.errno);
        rejection.detail.clone_from(&ack.text);
        Some((sent.change, rejection))
    }

    /// Whether a sequence number is of this batch.
    pub(crate) fn has(&self, seq: u32) -> bool {
        seq.wrapping_sub(self.first_seq) < self.seqs()
    }

    /// How many messages were sent for the batch's changes.
    pub(crate) fn messages(&self) -> usize {
        self.sent.len()
    }
}

struct Encoder {
    w: Writer,
    seq: u32,
    sent: Vec<Sent>,
    /// Where the last message begins.
    last_at: usize,
    ack: u16,
}

impl Encoder {
    /// `NFNL_MSG_BATCH_BEGIN` and `_END`: `res_id` names the subsystem.
    fn control(&mut self, kind: u16, generation: Option<u32>) {
        self.w.message(kind, 0, self.seq, 0, sys::NFNL_SUBSYS_NFTABLES, |w| {
            if let Some(generation) = generation {
                w.be32(sys::NFNL_BATCH_GENID, generation);
            }
        });
        self.seq = self.seq.wrapping_add(1);
    }

    fn change(&mut self, i: usize, change: &Change) -> Result<(), CommitError> {
        let whole = matches!(change.verb, Verb::Add | Verb::Create);
        let id = i as u32 + 1;
        match &change.object {
            Object::Elements(set, elements) => self.elements(i, change.verb, set, elements)?,
            Object::Table(t) if change.verb == Verb::Flush => {
                self.message(i, sys::NFT_MSG_DELRULE, 0, t.family.number(), |w| {
                    w.str(sys::NFTA_RULE_TABLE, &t.name);
                });
            }
            Object::Chain(c) if change.verb == Verb::Flush => {
                self.message(i, sys::NFT_MSG_DELRULE, 0, c.family.number(), |w| {
                    w.str(sys::NFTA_RULE_TABLE, &c.table);
                    w.str(sys::NFTA_RULE_CHAIN, &c.name);
                });
            }
            Object::Set(s) if change.verb == Verb::Flush => {
                self.message(i, sys::NFT_MSG_DELSETELEM, 0, s.family.number(), |w| {
                    w.str(sys::NFTA_SET_ELEM_LIST_TABLE, &s.table);
                    w.str(sys::NFTA_SET_ELEM_LIST_SET, &s.name);
                });
            }
            Object::Table(t) => {
                let (kind, flags) = message_type(change.verb, TABLE);
                self.message(i, kind, flags, t.family.number(), |w| t.write(w, whole));
            }
            Object::Chain(c) => {
                let (kind, flags) = message_type(change.verb, CHAIN);
                self.message(i, kind, flags, c.family.number(), |w| c.write(w, whole));
            }
            Object::Set(s) => {
                let (kind, flags) = message_type(change.verb, SET);
                self.message(i, kind, flags, s.family.number(), |w| s.write(w, whole, id));
            }
            Object::Rule(r) => {
                // There is nothing in a rule to flush; what names it deletes it. Two rules may be equal, so that
                // "create" of one is "add".
                let (kind, flags) = message_type(change.verb, RULE);
                let flags = if whole { (flags & !sys::NLM_F_EXCL) | sys::NLM_F_APPEND } else { flags };
                self.message(i, kind, flags, r.family.number(), |w| r.write(w, whole));
            }
        }
        if self.w.unwritable() {
            return Err(CommitError::Unwritable { verb: change.verb, object: change.object.to_string() });
        }
        Ok(())
    }

    fn message(&mut self, change: usize, kind: u16, flags: u16, family: u8, body: impl FnOnce(&mut Writer)) {
        self.last_at = self.w.len();
        self.w.nft_message(kind, flags | self.ack, self.seq, family, body);
        self.sent.push(Sent { change, first_element: 0, elements_at: 0 });
        self.seq = self.seq.wrapping_add(1);
    }

    fn elements(&mut self, i: usize, verb: Verb, set: &Set, elements: &[Element]) -> Result<(), CommitError> {
        let whole = matches!(verb, Verb::Add | Verb::Create);
        let (kind, flags) = message_type(verb, ELEMENTS);
        let mut rest = elements.iter().enumerate().peekable();
        while let Some((first_element, _)) = rest.peek() {
            let first_element = *first_element;
            let start = self.w.len();
            let mut elements_at = 0;
            let mut misfit = None;
            self.message(i, kind, flags, set.family.number(), |w| {
                w.str(sys::NFTA_SET_ELEM_LIST_TABLE, &set.table);
                w.str(sys::NFTA_SET_ELEM_LIST_SET, &set.name);
                w.nest(sys::NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                    elements_at = w.len() - start;
                    while let Some((_, element)) =
                        rest.next_if(|_| w.len() - start - elements_at < ELEMENTS_MAX - ELEMENT_MAX)
                    {
                        match element::span(set, &element.key) {
                            Ok(span) => element::write(w, element, &span, whole),
                            Err(e) => misfit = misfit.or(Some((e, &element.key))),
                        }
                    }
                });
            });
            if let Some((misfit, key)) = misfit {
                return Err(CommitError::Misfit { verb, key: key.to_string(), set: name(set), misfit });
            }
            if let Some(sent) = self.sent.last_mut() {
                (sent.first_element, sent.elements_at) = (first_element, elements_at);
            }
        }
        Ok(())
    }
}

/// `NFT_MSG_NEW…`, `NFT_MSG_DEL…` and `NFT_MSG_DESTROY…` of a kind of object.
type Types = [u16; 3];
const TABLE: Types = [sys::NFT_MSG_NEWTABLE, sys::NFT_MSG_DELTABLE, sys::NFT_MSG_DESTROYTABLE];
const CHAIN: Types = [sys::NFT_MSG_NEWCHAIN, sys::NFT_MSG_DELCHAIN, sys::NFT_MSG_DESTROYCHAIN];
const RULE: Types = [sys::NFT_MSG_NEWRULE, sys::NFT_MSG_DELRULE, sys::NFT_MSG_DESTROYRULE];
const SET: Types = [sys::NFT_MSG_NEWSET, sys::NFT_MSG_DELSET, sys::NFT_MSG_DESTROYSET];
const ELEMENTS: Types = [sys::NFT_MSG_NEWSETELEM, sys::NFT_MSG_DELSETELEM, sys::NFT_MSG_DESTROYSETELEM];

fn message_type(verb: Verb, [new, delete, destroy]: Types) -> (u16, u16) {
    match verb {
        Verb::Add => (new, sys::NLM_F_CREATE),
        Verb::Create => (new, sys::NLM_F_CREATE | sys::NLM_F_EXCL),
        Verb::Delete | Verb::Flush => (delete, 0),
        Verb::Destroy => (destroy, 0),
    }
}

/// The element whose bytes are at this offset of its message. Elements are measured by writing them again, so that
/// nothing need be kept for the batches that succeed.
fn element_at<'a>(change: &'a Change, sent: &Sent, offset: usize) -> Option<&'a Element> {
    let Object::Elements(set, elements) = &change.object else { return None };
    let whole = matches!(change.verb, Verb::Add | Verb::Create);
    let mut at = sent.elements_at;
    if offset < at {
        return None;
    }
    let mut w = Writer::new();
    for element in elements.get(sent.first_element..)? {
        let before = w.len();
        element::write(&mut w, element, &span_of(set, &element.key)?, whole);
        at += align(w.len() - before);
        if offset < at {
            return Some(element);
        }
    }
    None
}

fn span_of(set: &Set, key: &Key) -> Option<Span> {
    element::span(set, key).ok()
}
