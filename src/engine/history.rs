//! Who was banned before, how often, and until when: bounded, and with what changed marked for the ledger.

mod bits;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;

use self::bits::Bits;
use super::escalation::{Escalation, Neighbours};
use super::net::{Key, canonical};
use super::order::{Linked, Links, NIL, Order, place};
use super::siblings::Siblings;
use crate::types::{JailId, Timestamp};

/// Stands for all jails in a key. The registry gives this number out only when 65,535 other names were configured.
const ACROSS: JailId = JailId(u16::MAX);
/// The end of a ban without one.
const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// What is remembered of a repeater.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// In which jail; `None` across all jails.
    pub jail: Option<JailId>,
    /// Who: exactly what was banned.
    pub offender: IpNet,
    /// Bans so far, the last included; what had decayed by `last` is taken off.
    pub count: u32,
    /// When the last ban began, by the log's time.
    pub last: Timestamp,
    /// When the last ban ended or will end; `None` for never. Across jails, the last of those that ran at once.
    pub last_end: Option<Timestamp>,
}

/// What happened to a record: what a ledger writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// It is new or changed; this is all of it.
    Noted(Record),
    /// It is forgotten.
    Forgotten {
        /// As in [`Record::jail`].
        jail: Option<JailId>,
        /// As in [`Record::offender`].
        offender: IpNet,
    },
}

/// 48 bytes; its siblings add 8 and the index 5 to 10.
#[derive(Debug)]
pub(super) struct Slot {
    /// [`Key::NONE`] in a free slot.
    pub(super) key: Key,
    /// Towards those noted later; in a free slot, the next free one.
    links: Links,
    count: u32,
    pub(super) last: Timestamp,
    end: Timestamp,
}

/// The records of all jails.
#[derive(Debug)]
pub(super) struct History {
    slots: Vec<Slot>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// By when they were noted.
    order: Order,
    free: u32,
    limit: usize,
    /// Where the next sweep goes on.
    hand: usize,
    /// Slots that changed since they were last told.
    dirty: Bits,
    /// Slots that were told or restored: that they are forgotten must be told, too. Hence `gone` never holds more than
    /// there is room for, even if nobody ever asks.
    known: Bits,
    gone: Vec<Key>,
    siblings: Siblings,
    /// Records that had to make room.
    pub(super) forgotten: u64,
}

/// The key of a record.
pub(super) fn key(jail: Option<JailId>, net: IpNet) -> Key {
    Key::of(jail.unwrap_or(ACROSS), net)
}

impl History {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            order: Order::EMPTY,
            free: NIL,
            limit: limit.clamp(1, place(NIL) - 1),
            hand: 0,
            dirty: Bits::default(),
            known: Bits::default(),
            gone: Vec::new(),
            siblings: Siblings::new(),
            forgotten: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, key: Key) -> Option<Record> {
        Some(self.slot(self.find(key)?)?.record())
    }

    /// How many earlier bans count for one that begins at `since`. One that does not begin after the last that is noted
    /// is that one, or an older one, decided again: what counts for it is what counted then.
    pub(super) fn earlier(&self, key: Key, since: Timestamp, escalation: &Escalation) -> u32 {
        match self.find(key).and_then(|slot| self.slot(slot)) {
            None => 0,
            Some(s) if since <= s.last => s.count.saturating_sub(1),
            Some(s) => escalation.left(s.count, s.end(), since),
        }
    }

    /// Whether the last ban that is noted covers `at`. Not its beginning: what is decided there is that ban, again.
    pub(super) fn covers(&self, key: Key, at: Timestamp) -> bool {
        self.find(key).and_then(|slot| self.slot(slot)).is_some_and(|s| s.last < at && at < s.end)
    }

    /// Notes a ban with so many `earlier` ones. One that does not begin after the last that is noted only makes that
    /// end later.
    pub(super) fn note(&mut self, key: Key, since: Timestamp, end: Option<Timestamp>, earlier: u32) {
        let end = end.unwrap_or(NEVER);
        let slot = match self.find(key) {
            Some(slot) if self.slot(slot).is_some_and(|s| since <= s.last) => {
                self.end(slot, |before| before.max(end));
                return;
            }
            Some(slot) => {
                self.siblings.remove(slot, &self.slots);
                self.order.unlink(&mut self.slots, slot);
                slot
            }
            None => {
                self.make_room();
                self.insert(key)
            }
        };
        if let Some(s) = self.slot_mut(slot) {
            // Another jail's may end later.
            let end = if s.count > 0 { s.end.max(end) } else { end };
            (s.count, s.last, s.end) = (earlier.saturating_add(1), since, end);
        }
        self.order.link_newest(&mut self.slots, slot);
        self.siblings.insert(slot, &self.slots);
        self.dirty.set(slot, true);
    }

    /// The ban that is noted now ends later.
    pub(super) fn prolonged(&mut self, key: Key, end: Option<Timestamp>) {
        if let Some(slot) = self.find(key) {
            self.end(slot, |before| before.max(end.unwrap_or(NEVER)));
        }
    }

    /// The ban that is noted ended at `now`, before its time.
    pub(super) fn ended(&mut self, key: Key, now: Timestamp) {
        if let Some(slot) = self.find(key) {
            self.end(slot, |before| before.min(now));
        }
    }

    fn end(&mut self, slot: u32, change: impl FnOnce(Timestamp) -> Timestamp) {
        let Some(s) = self.slot_mut(slot) else { return };
        let before = s.end;
        s.end = change(before);
        if before != s.end {
            self.dirty.set(slot, true);
        }
    }

    /// Forgets an offender, and if it is a prefix, those for whom it would be banned again.
    pub(super) fn forget(&mut self, key: Key) {
        while let Some(child) = self.siblings.first(key, &self.slots) {
            self.release(child);
        }
        if let Some(slot) = self.find(key) {
            self.release(slot);
        }
    }

    /// Takes over what a ledger kept, to be called in the order of [`Record::last`]. Where something is noted already,
    /// what both know of is counted once.
    pub(super) fn restore(&mut self, record: Record) {
        let key = key(record.jail, canonical(record.offender));
        let end = record.last_end.unwrap_or(NEVER);
        if record.count == 0 {
            return;
        }
        let Some(slot) = self.find(key) else {
            self.make_room();
            let slot = self.insert(key);
            if let Some(s) = self.slot_mut(slot) {
                (s.count, s.last, s.end) = (record.count, record.last, end);
            }
            self.order.link_newest(&mut self.slots, slot);
            self.siblings.insert(slot, &self.slots);
            self.known.set(slot, true);
            return;
        };
        self.siblings.remove(slot, &self.slots);
        if let Some(s) = self.slot_mut(slot) {
            if record.last < s.last {
                s.count = s.count.saturating_add(record.count);
            } else {
                (s.count, s.last) = (s.count.max(record.count), record.last);
                s.end = s.end.max(end);
            }
        }
        self.siblings.insert(slot, &self.slots);
        self.known.set(slot, true);
        self.dirty.set(slot, true);
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_unchanged(&self) -> bool {
        self.gone.is_empty() && self.dirty.is_empty()
    }

    /// What changed since this was last asked: first what is forgotten, then what is noted.
    pub(super) fn changed(&mut self) -> Vec<RecordChange> {
        let gone = std::mem::take(&mut self.gone);
        let mut out: Vec<RecordChange> = gone
            .into_iter()
            .map(|key| RecordChange::Forgotten { jail: jail_of(key), offender: key.net() })
            .collect();
        let Self { slots, dirty, known, .. } = self;
        dirty.drain(|slot| {
            if let Some(s) = slots.get(place(slot)).filter(|s| !s.key.is_none()) {
                out.push(RecordChange::Noted(s.record()));
                known.set(slot, true);
            }
        });
        out
    }

    /// Whoever was told knows nothing any more: everything is to be told.
    pub(super) fn tell_all(&mut self) {
        self.gone.clear();
        for slot in 0..self.slots.len() {
            let slot = u32::try_from(slot).unwrap_or(NIL);
            let held = self.slot(slot).is_some_and(|s| !s.key.is_none());
            self.dirty.set(slot, held);
            self.known.set(slot, false);
        }
    }

    /// Looks at `steps` places, going on where the last sweep ended, and forgets whose memory is over by `now`.
    pub(super) fn sweep(&mut self, steps: usize, over: impl Fn(Option<JailId>, Option<Timestamp>) -> bool) {
        for _ in 0..steps.min(self.slots.len()) {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = u32::try_from(self.hand).unwrap_or(NIL);
            self.hand += 1;
            if self.slot(slot).is_some_and(|s| !s.key.is_none() && over(jail_of(s.key), s.end())) {
                self.release(slot);
            }
        }
    }

    /// Says by which prefixes a jail bans neighbours. Looks at every record where that changes.
    pub(super) fn set_steps(&mut self, jail: JailId, steps: Option<&Neighbours>) {
        if jail == ACROSS || !self.siblings.differs(jail, steps) {
            return;
        }
        let all = || (0..self.slots.len()).filter_map(|n| u32::try_from(n).ok());
        let of_jail: Vec<u32> = all()
            .filter(|slot| self.slot(*slot).is_some_and(|s| !s.key.is_none() && s.key.jail() == jail))
            .collect();
        for slot in &of_jail {
            self.siblings.remove(*slot, &self.slots);
        }
        self.siblings.set_steps(jail, steps);
        // From the oldest on, each comes before those that stand already.
        let mut of_jail: Vec<(Option<Timestamp>, u32)> =
            of_jail.into_iter().map(|slot| (self.slot(slot).map(|s| s.last), slot)).collect();
        of_jail.sort_unstable();
        for (_, slot) in of_jail {
            self.siblings.insert(slot, &self.slots);
        }
    }

    /// How many networks whose next step up is `parent` were last banned from `from` to `to`, counted up to `most`.
    pub(super) fn within(&self, parent: Key, from: Timestamp, to: Timestamp, most: u32) -> u32 {
        self.siblings.count(parent, from, to, most, &self.slots)
    }

    fn make_room(&mut self) {
        if self.len() >= self.limit {
            self.release(self.order.oldest);
            self.forgotten += 1;
        }
    }

    fn find(&self, key: Key) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |slot| self.slot(*slot).is_some_and(|s| s.key == key)).copied()
    }

    /// A slot for `key`, in the index and not yet in the list.
    fn insert(&mut self, key: Key) -> u32 {
        let new = Slot { key, links: Links::NONE, count: 0, last: NEVER, end: NEVER };
        let slot = self.free;
        let slot = if let Some(s) = self.slots.get_mut(place(slot)) {
            self.free = s.links.newer;
            *s = new;
            slot
        } else {
            self.slots.push(new);
            u32::try_from(self.slots.len() - 1).unwrap_or(NIL)
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |slot: &u32| slots.get(place(*slot)).map_or(0, |s| hasher.hash_one(s.key));
        self.index.insert_unique(self.hasher.hash_one(key), slot, rehash);
        slot
    }

    fn release(&mut self, slot: u32) {
        self.siblings.remove(slot, &self.slots);
        self.order.unlink(&mut self.slots, slot);
        let free = self.free;
        let Some(s) = self.slot_mut(slot) else { return };
        let key = std::mem::replace(&mut s.key, Key::NONE);
        s.links.newer = free;
        self.free = slot;
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        if self.known.set(slot, false) {
            self.gone.push(key);
        }
        self.dirty.set(slot, false);
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(place(slot))
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(place(slot))
    }
}

impl Linked for Slot {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Slot {
    fn end(&self) -> Option<Timestamp> {
        (self.end != NEVER).then_some(self.end)
    }

    fn record(&self) -> Record {
        let offender = self.key.net();
        Record { jail: jail_of(self.key), offender, count: self.count, last: self.last, last_end: self.end() }
    }
}

fn jail_of(key: Key) -> Option<JailId> {
    (key.jail() != ACROSS).then(|| key.jail())
}

#[cfg(test)]
mod tests;
