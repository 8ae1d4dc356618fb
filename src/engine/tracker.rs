//! Everybody with an open window, bounded: a slab, a hash index into it, and a list in the order of last offense.

use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::dirty::Dirty;
use super::jail::Policy;
use super::net::Key;
use super::order::{Linked, Links, NIL, Order, place};
use super::persist::{Changed, Open};
use super::window::{self, Window};
use crate::types::{JailId, Timestamp};

/// An offender silent for `findtime` and this long is dropped. Not `findtime` alone: a window is in the log's
/// time and silence in the agent's, so this is how much longer the reading of a log may take than its writing did
/// (a backlog, a suspended machine) before two offenses next to each other in the log are no longer held together.
pub(super) const LINGER: Duration = Duration::from_secs(3600);

/// Nothing ended yet.
const NO_FLOOR: Timestamp = Timestamp::from_millis(i64::MIN);

/// 72 bytes; the index adds 5 to 10.
#[derive(Debug)]
struct Slot {
    key: Key,
    /// Towards those heard from later; in a free slot, the next free one.
    links: Links,
    /// When it was last heard from: seconds since the epoch by the agent's clock.
    heard: u32,
    /// Where the last ban ended: earlier offenses do not count again.
    floor: Timestamp,
    window: Window,
}

impl Linked for Slot {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// What [`Tracker::count`] made of an offense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tally {
    /// So many offenses lie within `findtime`, this one included.
    Count(u32),
    /// It was committed before the last ban ended.
    Served,
}

/// The open windows of all jails.
#[derive(Debug)]
pub(super) struct Tracker {
    slots: Vec<Slot>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// By last offense.
    order: Order,
    free: u32,
    limit: usize,
    /// Times that did not fit into a window itself, and the most there may be.
    times: usize,
    most_times: usize,
    /// Where the next sweep goes on.
    hand: usize,
    /// Seconds of silence after which an offender is dropped, by jail; `None` where there is no such jail.
    patience: Vec<Option<u32>>,
    scratch: Vec<Timestamp>,
    dirty: Dirty,
}

impl Tracker {
    pub(super) fn new(limit: usize, most_times: usize) -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            order: Order::EMPTY,
            free: NIL,
            limit: limit.clamp(1, place(NIL) - 1),
            times: 0,
            most_times,
            hand: 0,
            patience: Vec::new(),
            scratch: Vec::new(),
            dirty: Dirty::default(),
        }
    }

    /// Offenders held, whether or not silent for too long.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Adds a jail, or changes how long its offenders may be silent.
    pub(super) fn set_jail(&mut self, jail: JailId, findtime: Duration) {
        let at = usize::from(jail.0);
        if self.patience.len() <= at {
            self.patience.resize(at + 1, None);
        }
        if let Some(patience) = self.patience.get_mut(at) {
            let seconds = findtime.saturating_add(LINGER).as_secs();
            *patience = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        }
    }

    /// Drops a jail and its windows. Looks at every offender: reconfiguration is rare.
    pub(super) fn remove_jail(&mut self, jail: JailId) {
        if let Some(patience) = self.patience.get_mut(usize::from(jail.0)) {
            *patience = None;
        }
        for slot in 0..self.slots.len() {
            let slot = u32::try_from(slot).unwrap_or(NIL);
            if self.slot(slot).is_some_and(|s| !s.key.is_none() && s.key.jail() == jail) {
                self.release(slot);
            }
        }
    }

    /// Counts an offense of `key` at `at`. `forgotten` hears of the jail whose least recent offender had to make
    /// room while its window still mattered.
    pub(super) fn count(
        &mut self,
        key: Key,
        at: Timestamp,
        now: Timestamp,
        policy: &Policy,
        forgotten: &mut Option<JailId>,
    ) -> Tally {
        let found = self.find(key).filter(|slot| !self.drop_if_silent(*slot, now));
        let slot = match found {
            Some(slot) => {
                self.order.unlink(&mut self.slots, slot);
                slot
            }
            // It is decided already: nobody needs to make room.
            None if policy.maxretry <= 1 => return Tally::Count(1),
            None => {
                self.sweep(now, 2);
                if self.len() >= self.limit || self.times >= self.most_times {
                    *forgotten = self.evict(now);
                }
                self.insert(key)
            }
        };
        // Whoever offends often needs room, too: at most as much as one who is forgotten leaves.
        if self.times >= self.most_times && self.order.oldest != slot && forgotten.is_none() {
            *forgotten = self.evict(now);
        }
        self.order.link_newest(&mut self.slots, slot);
        self.dirty.touch(slot);
        let mut scratch = std::mem::take(&mut self.scratch);
        let most = self.most_times.max(8);
        let mut grown = (0, 0);
        let tally = match self.slot_mut(slot) {
            None => Tally::Count(1),
            Some(s) => {
                s.heard = seconds(now);
                if at < s.floor {
                    Tally::Served
                } else {
                    let memory = window::memory(policy.maxretry).min(most);
                    let before = s.window.beyond();
                    let count = s.window.push(at, policy.findtime, memory, &mut scratch);
                    grown = (before, s.window.beyond());
                    Tally::Count(count)
                }
            }
        };
        self.times = self.times - grown.0 + grown.1;
        self.scratch = scratch;
        tally
    }

    /// From now on [`changes`](Self::changes) tells.
    pub(super) fn remember_changes(&mut self) {
        self.dirty.begin();
    }

    /// What was restored is known to whom it was restored from.
    pub(super) fn is_known(&mut self) {
        self.dirty.forget();
    }

    pub(super) fn is_unchanged(&self) -> bool {
        self.dirty.is_clean()
    }

    /// What changed since the last time.
    pub(super) fn changes(&mut self) -> Changed<Open> {
        let taken = self.dirty.take();
        let slots = if taken.all {
            (0..self.slots.len()).filter_map(|n| u32::try_from(n).ok()).collect()
        } else {
            taken.slots
        };
        let now: Vec<Open> = slots.into_iter().filter_map(|slot| self.open(slot)).collect();
        Changed { all: taken.all, gone: taken.gone.iter().map(|key| (key.jail(), key.net())).collect(), now }
    }

    fn open(&self, slot: u32) -> Option<Open> {
        let s = self.slot(slot).filter(|s| !s.key.is_none())?;
        let (older, newer) = s.window.as_slices();
        Some(Open {
            jail: s.key.jail(),
            offender: s.key.net(),
            heard: Timestamp::from_secs(i64::from(s.heard)),
            floor: (s.floor != NO_FLOOR).then_some(s.floor),
            times: [older, newer].concat(),
        })
    }

    /// Opens a window as it was. `false` where there is no room for it, or one is open.
    ///
    /// It counts as heard from `now`: the agent may have been away for longer than `findtime`, and the lines that were
    /// written meanwhile must find what came before them.
    pub(super) fn restore(&mut self, open: &Open, findtime: Duration, maxretry: u32, now: Timestamp) -> bool {
        let key = Key::of(open.jail, open.offender);
        if self.len() >= self.limit || self.times >= self.most_times || self.find(key).is_some() {
            return false;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut window = Window::EMPTY;
        for at in &open.times {
            window.push(*at, findtime, window::memory(maxretry).min(self.most_times.max(8)), &mut scratch);
        }
        self.scratch = scratch;
        let slot = self.insert(key);
        self.order.link_newest(&mut self.slots, slot);
        self.times += window.beyond();
        if let Some(s) = self.slot_mut(slot) {
            s.window = window;
            s.floor = open.floor.unwrap_or(NO_FLOOR);
            s.heard = seconds(now);
        }
        true
    }

    /// Where the last ban of `key` ended, if that is remembered.
    pub(super) fn floor(&self, key: Key) -> Option<Timestamp> {
        let floor = self.slot(self.find(key)?)?.floor;
        (floor != NO_FLOOR).then_some(floor)
    }

    /// Drops the window of `key`.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(slot) = self.find(key) {
            self.release(slot);
        }
    }

    /// Begins anew for `key`: its offenses before `floor`, where its ban ended, no longer count, even those that
    /// are read late. Nobody is forgotten for that: where there is no room, late lines count.
    pub(super) fn begin_anew(&mut self, key: Key, floor: Timestamp, now: Timestamp) {
        let slot = match self.find(key) {
            Some(slot) => slot,
            None if self.len() >= self.limit => return,
            None => {
                let slot = self.insert(key);
                self.order.link_oldest(&mut self.slots, slot);
                slot
            }
        };
        self.dirty.touch(slot);
        self.times -= self.slot(slot).map_or(0, |s| s.window.beyond());
        if let Some(s) = self.slot_mut(slot) {
            s.window = Window::EMPTY;
            s.floor = floor;
            s.heard = seconds(now);
        }
    }

    /// Looks at `steps` places, going on where the last sweep ended, and drops who has been silent for too long.
    pub(super) fn sweep(&mut self, now: Timestamp, steps: usize) {
        for _ in 0..steps.min(self.slots.len()) {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = u32::try_from(self.hand).unwrap_or(NIL);
            self.hand += 1;
            self.drop_if_silent(slot, now);
        }
    }

    /// Offenders with an open window, by jail. Looks at all.
    pub(super) fn tracked(&self, now: Timestamp) -> Vec<u64> {
        let mut each = vec![0; self.patience.len()];
        let open = |s: &&Slot| !s.key.is_none() && !s.window.is_empty() && !self.silent(s, now);
        for s in self.slots.iter().filter(open) {
            if let Some(n) = each.get_mut(usize::from(s.key.jail().0)) {
                *n += 1;
            }
        }
        each
    }

    /// Makes room by dropping who has been silent longest; its jail, if its window still mattered.
    fn evict(&mut self, now: Timestamp) -> Option<JailId> {
        let slot = self.order.oldest;
        let s = self.slot(slot)?;
        let lost = (!s.window.is_empty() && !self.silent(s, now)).then(|| s.key.jail());
        self.release(slot);
        lost
    }

    /// In either direction: after the machine's clock was set back, who was heard from "in the future" goes too.
    fn silent(&self, s: &Slot, now: Timestamp) -> bool {
        let patience = self.patience.get(usize::from(s.key.jail().0)).copied().flatten();
        patience.is_none_or(|p| s.heard.abs_diff(seconds(now)) > p)
    }

    fn drop_if_silent(&mut self, slot: u32, now: Timestamp) -> bool {
        let drop = self.slot(slot).is_some_and(|s| !s.key.is_none() && self.silent(s, now));
        if drop {
            self.release(slot);
        }
        drop
    }

    fn find(&self, key: Key) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |slot| self.slot(*slot).is_some_and(|s| s.key == key)).copied()
    }

    /// A slot for `key`, in the index and not yet in the list.
    fn insert(&mut self, key: Key) -> u32 {
        let new = Slot { key, links: Links::NONE, heard: 0, floor: NO_FLOOR, window: Window::EMPTY };
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
        self.order.unlink(&mut self.slots, slot);
        let free = self.free;
        self.times -= self.slot(slot).map_or(0, |s| s.window.beyond());
        let Some(s) = self.slot_mut(slot) else { return };
        let key = std::mem::replace(&mut s.key, Key::NONE);
        s.window = Window::EMPTY;
        s.links.newer = free;
        self.free = slot;
        self.dirty.gone(key);
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(place(slot))
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(place(slot))
    }
}

fn seconds(t: Timestamp) -> u32 {
    u32::try_from((t.as_millis() / 1000).max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
