//! Elements of sets, and how intervals become pairs of them.
//!
//! ```text
//! NFTA_SET_ELEM_LIST_TABLE    { string }
//! NFTA_SET_ELEM_LIST_SET      { string }
//! NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED {            at most 64 KB: its length has 16 bits
//!     NFTA_LIST_ELEM | NLA_F_NESTED {
//!         NFTA_SET_ELEM_KEY     | NLA_F_NESTED { NFTA_DATA_VALUE { key } }
//!         NFTA_SET_ELEM_KEY_END | NLA_F_NESTED { NFTA_DATA_VALUE { key } }   concatenations of intervals
//!         NFTA_SET_ELEM_FLAGS      { be32: 1 ends an interval, 2 catches all }
//!         NFTA_SET_ELEM_TIMEOUT    { be64, milliseconds }
//!         NFTA_SET_ELEM_EXPIRATION { be64, milliseconds left }               from the kernel only
//!         NFTA_SET_ELEM_USERDATA   { 00 len comment NUL, 01 04 flags }
//!         NFTA_SET_ELEM_EXPR       { counter }                               from the kernel only
//!     }, ...
//! }
//! ```
//!
//! An interval is half open: one element with its first address and one, flagged as end, with the address after its
//! last. What reaches to the last address there is (255.255.255.255, ffff:…:ffff) has no end element.

use std::time::Duration;

use crate::expr::Expr;
use crate::key::Key;
use crate::set::{Set, millis};
use crate::sys;
use crate::value::Raw;
use crate::wire::{Attributes, Writer, attributes};

/// Packets and bytes that matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// An element of a set: as one wants it, or (with [`expires`](Self::expires) and [`counter`](Self::counter)) as the
/// kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// What it matches.
    pub key: Key,
    /// It ends so long after it was added. Kept in whole milliseconds. `None`: the set's default, or never.
    ///
    /// Adding an element that is there with another timeout changes its end only since kernel 6.12; before, delete
    /// and add it in one batch.
    pub timeout: Option<Duration>,
    /// Time left, in a listing.
    pub expires: Option<Duration>,
    /// Shown by nft(8) beside it.
    pub comment: Option<Box<str>>,
    /// What it counted, in a listing of a set with counters.
    pub counter: Option<Counter>,
}

/// nft(8) takes comments of at most so many bytes.
pub const COMMENT_MAX: usize = 128;

impl Element {
    /// An element for ever, or for the set's default timeout.
    #[must_use]
    pub fn new(key: impl Into<Key>) -> Self {
        Self { key: key.into(), timeout: None, expires: None, comment: None, counter: None }
    }

    /// Sets the timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the comment. What nft(8) could not read back from its own listing is replaced: a quote by an apostrophe,
    /// control characters by spaces; what is longer than [`COMMENT_MAX`] bytes is cut. An empty one is none.
    #[must_use]
    pub fn comment(mut self, comment: &str) -> Self {
        let clean = clean_comment(comment);
        self.comment = (!clean.is_empty()).then(|| clean.into());
        self
    }
}

impl<K: Into<Key>> From<K> for Element {
    fn from(key: K) -> Self {
        Self::new(key)
    }
}

/// Why an element cannot stand in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The key is of another type than the set's.
    #[error("the key does not have the set's type")]
    Type,
    /// A range or prefix in a set of single keys.
    #[error("a range or prefix needs a set with the interval flag")]
    Range,
}

/// How an element's key stands on the wire.
pub(crate) enum Span {
    Single(Raw),
    /// First, and the one after the last (none after the last there is).
    HalfOpen(Raw, Option<Raw>),
    /// First and last, of a concatenation.
    Closed(Raw, Raw),
}

pub(crate) fn span(set: &Set, key: &Key) -> Result<Span, Misfit> {
    let types = set.key.types();
    let values = key.values();
    if types.len() != values.len() {
        return Err(Misfit::Type);
    }
    let (mut first, mut last) = (Raw::EMPTY, Raw::EMPTY);
    for (kind, value) in types.iter().zip(values) {
        let (a, b) = value.bounds();
        let len = kind.byte_len() as usize;
        if a.as_bytes().len() != len || b.as_bytes().len() != len {
            return Err(Misfit::Type);
        }
        first.push(a.as_bytes());
        last.push(b.as_bytes());
        if types.len() > 1 {
            first.pad();
            last.pad();
        }
    }
    match (set.is_interval(), types.len() > 1) {
        (true, true) => Ok(Span::Closed(first, last)),
        (true, false) => Ok(Span::HalfOpen(first, last.successor())),
        (false, _) if first == last => Ok(Span::Single(first)),
        (false, _) => Err(Misfit::Range),
    }
}

/// Writes the one or two wire elements; `whole` is false when deleting, for which the key is enough.
pub(crate) fn write(w: &mut Writer, element: &Element, span: &Span, whole: bool) {
    let open = matches!(span, Span::HalfOpen(_, None));
    let (first, closing) = match span {
        Span::Single(key) => (key, None),
        Span::HalfOpen(first, _) => (first, None),
        Span::Closed(first, last) => (first, Some(last)),
    };
    w.nest(sys::NFTA_LIST_ELEM, |w| {
        w.data(sys::NFTA_SET_ELEM_KEY, first.as_bytes());
        if let Some(last) = closing {
            w.data(sys::NFTA_SET_ELEM_KEY_END, last.as_bytes());
        }
        if !whole {
            return;
        }
        if let Some(timeout) = element.timeout {
            w.be64(sys::NFTA_SET_ELEM_TIMEOUT, millis(timeout));
        }
        write_userdata(w, element.comment.as_deref(), open);
    });
    if let Span::HalfOpen(_, Some(end)) = span {
        w.nest(sys::NFTA_LIST_ELEM, |w| {
            w.data(sys::NFTA_SET_ELEM_KEY, end.as_bytes());
            w.be32(sys::NFTA_SET_ELEM_FLAGS, sys::NFT_SET_ELEM_INTERVAL_END);
        });
    }
}

fn write_userdata(w: &mut Writer, comment: Option<&str>, open: bool) {
    // The comment's TLV, its length in one byte with the NUL, and the flags' TLV.
    let mut userdata = [0; COMMENT_MAX + 3 + 6];
    let mut len = 0;
    if let Some(comment) = comment {
        len = put_comment(&mut userdata, comment);
    }
    if open {
        userdata[len..len + 2].copy_from_slice(&[sys::NFTNL_UDATA_SET_ELEM_FLAGS, 4]);
        userdata[len + 2..len + 6].copy_from_slice(&sys::NFTNL_SET_ELEM_F_INTERVAL_OPEN.to_ne_bytes());
        len += 6;
    }
    if len > 0 {
        w.attr(sys::NFTA_SET_ELEM_USERDATA, &userdata[..len]);
    }
}

/// Writes `00 len comment NUL` and says how long that is. The comment is a public field: it is cut again.
fn put_comment(out: &mut [u8], comment: &str) -> usize {
    let text = cut(comment).as_bytes();
    let n = text.len();
    out[..2].copy_from_slice(&[sys::NFTNL_UDATA_COMMENT, (n + 1) as u8]);
    out[2..2 + n].copy_from_slice(text);
    out[2 + n] = 0;
    n + 3
}

/// As many whole characters as [`COMMENT_MAX`] bytes hold.
fn cut(comment: &str) -> &str {
    let mut end = comment.len().min(COMMENT_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    &comment[..end]
}

/// A rule's user data: its comment.
pub(crate) fn comment_userdata(comment: &str) -> Vec<u8> {
    let mut out = [0; COMMENT_MAX + 3];
    let len = put_comment(&mut out, comment);
    out[..len].to_vec()
}

/// The comment in user data, if it is readable.
pub(crate) fn read_comment(mut userdata: &[u8]) -> Option<Box<str>> {
    while let [kind, len, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*len))?;
        if *kind == sys::NFTNL_UDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into());
        }
        userdata = &rest[value.len()..];
    }
    None
}

pub(crate) fn clean_comment(comment: &str) -> String {
    cut(comment)
        .chars()
        .map(|c| match c {
            '"' => '\'',
            // All of them are one byte but U+0080 to U+009F, which become shorter: the length holds.
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

/// One wire element as the kernel lists it.
pub(crate) struct Listed {
    element: Element,
    /// In an interval set: the address, which becomes a key together with the one that follows.
    address: Box<[u8]>,
    end: bool,
}

impl Listed {
    /// `None` for what has no key and is not the catch-all element either.
    pub(crate) fn read(set: &Set, a: Attributes<'_>) -> Option<Self> {
        let flags = a.be32(sys::NFTA_SET_ELEM_FLAGS).unwrap_or(0);
        if flags & sys::NFT_SET_ELEM_CATCHALL != 0 {
            // It matches whatever no other element does: who lists a set must see it.
            let element = Element {
                key: Key::catch_all(),
                timeout: a.be64(sys::NFTA_SET_ELEM_TIMEOUT).map(Duration::from_millis),
                expires: a.be64(sys::NFTA_SET_ELEM_EXPIRATION).map(Duration::from_millis),
                comment: a.get(sys::NFTA_SET_ELEM_USERDATA).and_then(read_comment),
                counter: read_counter(a),
            };
            return Some(Self { element, address: [].into(), end: false });
        }
        let first = a.data(sys::NFTA_SET_ELEM_KEY)?;
        let key = match a.data(sys::NFTA_SET_ELEM_KEY_END) {
            Some(last) => set.key.decode_range(first, last),
            None => set.key.decode(first),
        };
        let element = Element {
            key,
            timeout: a.be64(sys::NFTA_SET_ELEM_TIMEOUT).map(Duration::from_millis),
            expires: a.be64(sys::NFTA_SET_ELEM_EXPIRATION).map(Duration::from_millis),
            comment: a.get(sys::NFTA_SET_ELEM_USERDATA).and_then(read_comment),
            counter: read_counter(a),
        };
        let address = if is_paired(set) { first.into() } else { [].into() };
        Some(Self { element, address, end: flags & sys::NFT_SET_ELEM_INTERVAL_END != 0 })
    }
}

impl Listed {
    /// Of a set whose wire elements are whole ones.
    pub(crate) fn into_element(self) -> Element {
        self.element
    }
}

/// Whether the set's intervals are pairs of wire elements.
fn is_paired(set: &Set) -> bool {
    set.is_interval() && !set.key.is_concatenation()
}

/// The counter is alone in `NFTA_SET_ELEM_EXPR`, or one of several in `NFTA_SET_ELEM_EXPRESSIONS`.
fn read_counter(a: Attributes<'_>) -> Option<Counter> {
    let alone = a.nested(sys::NFTA_SET_ELEM_EXPR);
    let several = a.nested(sys::NFTA_SET_ELEM_EXPRESSIONS).into_iter().flatten();
    alone.into_iter().chain(several.map(|(_, e)| attributes(e))).find_map(|e| match Expr::read(e) {
        Some(Expr::Counter { packets, bytes }) => Some(Counter { packets, bytes }),
        _ => None,
    })
}

/// Makes elements of wire elements, in the order of their keys. `None` when one is there twice.
///
/// A hash set that grows is rebuilt in the background, and a listing meanwhile goes on at "the n-th element" of
/// another order: it has some elements twice and as many not at all. (Measured: of 100,000 elements listed just after
/// they were added, 5,415.)
pub(crate) fn assemble(set: &Set, listed: Vec<Listed>) -> Option<Vec<Element>> {
    if is_paired(set) {
        return Some(pair(set, listed));
    }
    let mut elements: Vec<Element> = listed.into_iter().map(|l| l.element).collect();
    elements.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    elements.is_sorted_by(|a, b| a.key < b.key).then_some(elements)
}

/// Each start and the end that follows it.
fn pair(set: &Set, mut listed: Vec<Listed>) -> Vec<Element> {
    // The catch-all element has no address, and no end.
    let mut elements: Vec<Element> = Vec::with_capacity(listed.len() / 2 + 1);
    elements.extend(listed.extract_if(.., |l| l.address.is_empty()).map(|l| l.element));
    // Of equal addresses the end comes first: it closes the interval before.
    listed.sort_unstable_by(|a, b| (&a.address, !a.end).cmp(&(&b.address, !b.end)));
    let mut listed = listed.into_iter().peekable();
    while let Some(start) = listed.next() {
        // An end without a start is the one that nft(8) puts before the first interval.
        if start.end {
            continue;
        }
        let last = match listed.peek() {
            Some(next) => Raw::new(&next.address).predecessor(),
            None => Raw::new(&[0xff; 64][..start.address.len().min(64)]),
        };
        let key = set.key.decode_range(&start.address, last.as_bytes());
        elements.push(Element { key, ..start.element });
    }
    elements
}
