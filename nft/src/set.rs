//! Sets: what their keys are made of, and what their elements may carry.

use std::sync::Arc;
use std::time::Duration;

use crate::expr::Expr;
use crate::key::{KeyType, KeyTypes};
use crate::sys;
use crate::table::{Family, Table};
use crate::wire::{Message, Writer, attributes};

/// A named set. Without [`interval`](Self::interval) it is a hash set of single keys (adding one costs microseconds
/// however many there are); with it, its elements may be ranges and prefixes (adding one costs with the set's size).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub(crate) family: Family,
    pub(crate) table: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) key: KeyTypes,
    pub(crate) flags: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) size: Option<u32>,
    pub(crate) counter: bool,
    pub(crate) handle: Option<u64>,
}

impl Set {
    /// A hash set of single keys. The key is one type, or an array of 2 to 5 of them for a concatenation.
    #[must_use]
    pub fn new(table: &Table, name: &str, key: impl Into<KeyTypes>) -> Self {
        Self {
            family: table.family,
            table: Arc::clone(&table.name),
            name: name.into(),
            key: key.into(),
            flags: 0,
            timeout: None,
            size: None,
            counter: false,
            handle: None,
        }
    }

    /// Elements may have a timeout (flag `timeout`).
    #[must_use]
    pub fn timeout(mut self) -> Self {
        self.flags |= sys::NFT_SET_TIMEOUT;
        self
    }

    /// Elements without a timeout of their own get this one. Whole milliseconds.
    #[must_use]
    pub fn default_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self.timeout()
    }

    /// Elements may be ranges and prefixes (flag `interval`).
    ///
    /// They must not overlap, and it is the caller who must see to that: the kernel refuses most overlaps, but takes
    /// one that has an end in common with an element that is there (10.0.0.0/8 over 10.255.0.0/16), and then neither
    /// matches nor lists what one would expect. (`ipnet`'s `aggregate` makes networks disjoint.)
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.flags |= sys::NFT_SET_INTERVAL;
        self
    }

    /// Rules may add elements (flag `dynamic`).
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.flags |= sys::NFT_SET_EVAL;
        self
    }

    /// Every element counts its packets and bytes.
    #[must_use]
    pub fn counter(mut self) -> Self {
        self.counter = true;
        self
    }

    /// At most so many elements; one more is refused (`ENFILE`). The kernel makes its hash table for them at once.
    #[must_use]
    pub fn size(mut self, elements: u32) -> Self {
        self.size = Some(elements);
        self
    }

    /// Its table's family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its keys are made of.
    #[must_use]
    pub fn key(&self) -> KeyTypes {
        self.key
    }

    /// Whether elements may be ranges and prefixes.
    #[must_use]
    pub fn is_interval(&self) -> bool {
        self.flags & sys::NFT_SET_INTERVAL != 0
    }

    /// Whether elements may have a timeout.
    #[must_use]
    pub fn has_timeout(&self) -> bool {
        self.flags & sys::NFT_SET_TIMEOUT != 0
    }

    /// Whether it is the nameless set of one rule, `{ 80, 443 }`.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.flags & sys::NFT_SET_ANONYMOUS != 0
    }

    /// Whether it maps keys to something, which this crate does not read.
    pub(crate) fn is_map(&self) -> bool {
        self.flags & (sys::NFT_SET_MAP | sys::NFT_SET_OBJECT) != 0
    }

    /// The kernel's number for it, when it was listed.
    #[must_use]
    pub fn handle(&self) -> Option<u64> {
        self.handle
    }

    /// ```text
    /// NFTA_SET_TABLE    { string }
    /// NFTA_SET_NAME     { string }
    /// NFTA_SET_FLAGS    { be32 }                            from here: not when deleting
    /// NFTA_SET_KEY_TYPE { be32, nft(8)'s type numbers, six bits each }
    /// NFTA_SET_KEY_LEN  { be32, bytes; each field of a concatenation padded to four }
    /// NFTA_SET_ID       { be32, unique in the batch }
    /// NFTA_SET_TIMEOUT  { be64, milliseconds }
    /// NFTA_SET_DESC | NLA_F_NESTED {
    ///     NFTA_SET_DESC_SIZE   { be32 }
    ///     NFTA_SET_DESC_CONCAT | NLA_F_NESTED {             concatenations of intervals
    ///         NFTA_LIST_ELEM | NLA_F_NESTED { NFTA_SET_FIELD_LEN { be32, unpadded } }, ...
    ///     }
    /// }
    /// NFTA_SET_USERDATA { 00 04 key's byte order }          for nft(8) alone
    /// NFTA_SET_EXPR | NLA_F_NESTED { counter }
    /// ```
    pub(crate) fn write(&self, w: &mut Writer, whole: bool, id: u32) {
        w.str(sys::NFTA_SET_TABLE, &self.table);
        w.str(sys::NFTA_SET_NAME, &self.name);
        if !whole {
            return;
        }
        let concat_interval = self.is_interval() && self.key.is_concatenation();
        let concat = if concat_interval { sys::NFT_SET_CONCAT } else { 0 };
        w.be32(sys::NFTA_SET_FLAGS, self.flags | concat);
        w.be32(sys::NFTA_SET_KEY_TYPE, self.key.number());
        w.be32(sys::NFTA_SET_KEY_LEN, self.key.byte_len());
        w.be32(sys::NFTA_SET_ID, id);
        if let Some(timeout) = self.timeout {
            w.be64(sys::NFTA_SET_TIMEOUT, millis(timeout));
        }
        if self.size.is_some() || concat_interval {
            w.nest(sys::NFTA_SET_DESC, |w| {
                if let Some(size) = self.size {
                    w.be32(sys::NFTA_SET_DESC_SIZE, size);
                }
                if concat_interval {
                    w.nest(sys::NFTA_SET_DESC_CONCAT, |w| {
                        for field in self.key.types() {
                            w.nest(sys::NFTA_LIST_ELEM, |w| {
                                w.be32(sys::NFTA_SET_FIELD_LEN, field.byte_len());
                            });
                        }
                    });
                }
            });
        }
        let order = self.key.byte_order().to_ne_bytes();
        let mut userdata = [sys::NFTNL_UDATA_SET_KEYBYTEORDER, 4, 0, 0, 0, 0];
        userdata[2..].copy_from_slice(&order);
        w.attr(sys::NFTA_SET_USERDATA, &userdata);
        if self.counter {
            w.nest(sys::NFTA_SET_EXPR, |w| Expr::COUNTER.write(w));
        }
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Self> {
        let a = message.attributes();
        let desc = a.nested(sys::NFTA_SET_DESC);
        let counter = a
            .nested(sys::NFTA_SET_EXPR)
            .into_iter()
            .chain(a.nested(sys::NFTA_SET_EXPRESSIONS).into_iter().flatten().map(|(_, e)| attributes(e)))
            .any(|e| matches!(Expr::read(e), Some(Expr::Counter { .. })));
        let lens = desc.and_then(|d| d.nested(sys::NFTA_SET_DESC_CONCAT)).into_iter().flatten();
        let lens: Vec<u32> =
            lens.filter_map(|(_, field)| attributes(field).be32(sys::NFTA_SET_FIELD_LEN)).collect();
        Some(Self {
            family: Family::from_number(message.family()),
            table: a.str(sys::NFTA_SET_TABLE)?.into(),
            name: a.str(sys::NFTA_SET_NAME)?.into(),
            key: KeyTypes::from_wire(
                a.be32(sys::NFTA_SET_KEY_TYPE).unwrap_or(0),
                a.be32(sys::NFTA_SET_KEY_LEN).unwrap_or(0),
                &lens,
            ),
            flags: a.be32(sys::NFTA_SET_FLAGS).unwrap_or(0) & !sys::NFT_SET_CONCAT,
            timeout: a.be64(sys::NFTA_SET_TIMEOUT).filter(|ms| *ms > 0).map(Duration::from_millis),
            size: desc.and_then(|d| d.be32(sys::NFTA_SET_DESC_SIZE)),
            counter,
            handle: a.be64(sys::NFTA_SET_HANDLE),
        })
    }
}

impl From<KeyType> for KeyTypes {
    fn from(key: KeyType) -> Self {
        Self::from_slice(&[key])
    }
}

/// A duration as the kernel takes it: whole milliseconds, at least one, because zero means "the set's default".
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
