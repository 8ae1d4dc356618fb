//! The ban table: by jail and network, and by end.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;

use super::dirty::Dirty;
use super::net::Key;
use super::order::place;
use super::persist::Changed;
use crate::types::{Ban, Evidence, JailId, Timestamp};

/// Current bans. Each jail bans a network once.
#[derive(Debug)]
pub(super) struct Bans {
    slots: Vec<Option<Ban>>,
    /// When each slot's ban came into the table, by the agent's clock: a ban that was decided for an old line begins
    /// before it is in force.
    entered: Vec<Timestamp>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Bans that end and were decided by offenses, the first to end first. In a tree and not in a heap: a ban that is
    /// lifted or prolonged leaves nothing behind.
    ends: BTreeSet<(Timestamp, u32)>,
    /// Those by hand: they end, too, but never make room.
    by_hand: BTreeSet<(Timestamp, u32)>,
    /// At most so many.
    limit: usize,
    /// Bytes of evidence, and the most there may be.
    evidence: usize,
    most_evidence: usize,
    /// The first of `ends` and `by_hand`: asked for before every offense.
    next: Option<Timestamp>,
    /// How many bans have a prefix of each length, so that [`Bans::covers`] asks for lengths that occur.
    lengths4: Lengths,
    lengths6: Lengths,
    dirty: Dirty,
}

impl Bans {
    pub(super) fn new(limit: usize, most_evidence: usize) -> Self {
        Self {
            slots: Vec::new(),
            entered: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            ends: BTreeSet::new(),
            by_hand: BTreeSet::new(),
            limit: limit.clamp(1, place(u32::MAX) - 1),
            evidence: 0,
            most_evidence,
            next: None,
            lengths4: Lengths::default(),
            lengths6: Lengths::default(),
            dirty: Dirty::default(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.slots.iter().flatten()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    pub(super) fn is_over_full(&self) -> bool {
        self.len() > self.limit
    }

    /// How many more there may be if all that may make room do.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.len() - self.ends.len())
    }

    /// Takes out the ban that ends first, of those that may make room.
    pub(super) fn pop_first(&mut self) -> Option<Ban> {
        let slot = self.ends.first()?.1;
        self.take(slot)
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
    pub(super) fn changes(&mut self) -> Changed<Ban> {
        let taken = self.dirty.take();
        let gone = taken.gone.iter().map(|key| (key.jail(), key.net())).collect();
        let now = if taken.all {
            self.iter().cloned().collect()
        } else {
            taken.slots.iter().filter_map(|slot| self.slots.get(place(*slot))?.clone()).collect()
        };
        Changed { all: taken.all, gone, now }
    }

    /// The ban of exactly `net`, which is canonical.
    pub(super) fn get(&self, jail: JailId, net: IpNet) -> Option<&Ban> {
        self.slots.get(place(self.find(Key::of(jail, net))?))?.as_ref()
    }

    /// When the first ban ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.next
    }

    /// Whether `jail` bans `addr`, which is canonical, by whatever network.
    pub(super) fn covers(&self, jail: JailId, addr: IpAddr) -> bool {
        self.covering(jail, addr).next().is_some()
    }

    /// All bans of `jail` that `addr`, which is canonical, falls under, from the widest on.
    pub(super) fn covering(&self, jail: JailId, addr: IpAddr) -> impl Iterator<Item = &Ban> {
        let lengths = if addr.is_ipv4() { &self.lengths4 } else { &self.lengths6 };
        lengths.iter().filter_map(move |len| {
            let slot = self.find(Key::new(jail, addr, len))?;
            self.slots.get(place(slot))?.as_ref()
        })
    }

    /// Since when a ban of `jail` that `addr`, which is canonical, falls under has been in force: the first of them.
    pub(super) fn in_force_since(&self, jail: JailId, addr: IpAddr) -> Option<Timestamp> {
        let lengths = if addr.is_ipv4() { &self.lengths4 } else { &self.lengths6 };
        let each = lengths.iter().filter_map(|len| {
            let slot = place(self.find(Key::new(jail, addr, len))?);
            let ban = self.slots.get(slot)?.as_ref()?;
            Some(ban.since.max(*self.entered.get(slot)?))
        });
        each.min()
    }

    /// Adds a ban, at `now`; the caller has looked that there is none of the same network in the same jail.
    pub(super) fn insert(&mut self, mut ban: Ban, now: Timestamp) {
        let key = Key::of(ban.jail, ban.offender);
        self.keep_evidence(&mut ban);
        let (until, by_hand) = (ban.until, ban.offenses == 0);
        self.lengths(ban.offender).add(ban.offender.prefix_len());
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.entered.push(now);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.dirty.touch(slot);
        if let Some(place) = self.slots.get_mut(place(slot)) {
            *place = Some(ban);
        }
        if let Some(entered) = self.entered.get_mut(place(slot)) {
            *entered = now;
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |slot: &u32| {
            let ban = slots.get(place(*slot)).and_then(Option::as_ref);
            ban.map_or(0, |b| hasher.hash_one(Key::of(b.jail, b.offender)))
        };
        self.index.insert_unique(self.hasher.hash_one(key), slot, rehash);
        if let Some(until) = until {
            self.ends_of(by_hand).insert((until, slot));
            self.refresh();
        }
    }

    /// The first who come have theirs told: those who make a flood of bans are told by the first of them.
    fn keep_evidence(&mut self, ban: &mut Ban) {
        if self.evidence.saturating_add(ban.evidence.len()) > self.most_evidence {
            ban.evidence = Evidence::default();
        }
        self.evidence += ban.evidence.len();
    }

    fn ends_of(&mut self, by_hand: bool) -> &mut BTreeSet<(Timestamp, u32)> {
        if by_hand { &mut self.by_hand } else { &mut self.ends }
    }

    /// Changes the ban of exactly `net`; its jail and its network must stay.
    pub(super) fn change(&mut self, jail: JailId, net: IpNet, change: impl FnOnce(&mut Ban)) -> Option<&Ban> {
        let slot = self.find(Key::of(jail, net))?;
        self.dirty.touch(slot);
        let ban = self.slots.get_mut(place(slot))?.as_mut()?;
        let (before, had) = ((ban.until, ban.offenses == 0), ban.evidence.len());
        change(ban);
        self.evidence -= had;
        if self.evidence.saturating_add(ban.evidence.len()) > self.most_evidence {
            ban.evidence = Evidence::default();
        }
        self.evidence += ban.evidence.len();
        let after = (ban.until, ban.offenses == 0);
        if before != after {
            if let (Some(until), by_hand) = before {
                self.ends_of(by_hand).remove(&(until, slot));
            }
            if let (Some(until), by_hand) = after {
                self.ends_of(by_hand).insert((until, slot));
            }
            self.refresh();
        }
        self.slots.get(place(slot))?.as_ref()
    }

    pub(super) fn remove(&mut self, jail: JailId, net: IpNet) -> Option<Ban> {
        let slot = self.find(Key::of(jail, net))?;
        self.take(slot)
    }

    /// Takes out the first ban that ended at or before `now`.
    pub(super) fn pop_ended(&mut self, now: Timestamp) -> Option<Ban> {
        if self.next.is_none_or(|end| end > now) {
            return None;
        }
        let slot = first(&self.ends, &self.by_hand)?.1;
        self.take(slot)
    }

    fn take(&mut self, slot: u32) -> Option<Ban> {
        let ban = self.slots.get_mut(place(slot))?.take()?;
        let key = Key::of(ban.jail, ban.offender);
        self.dirty.gone(key);
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.evidence -= ban.evidence.len();
        if let Some(until) = ban.until {
            self.ends_of(ban.offenses == 0).remove(&(until, slot));
            self.refresh();
        }
        self.lengths(ban.offender).remove(ban.offender.prefix_len());
        self.free.push(slot);
        Some(ban)
    }

    fn refresh(&mut self) {
        self.next = first(&self.ends, &self.by_hand).map(|e| e.0);
    }

    fn lengths(&mut self, net: IpNet) -> &mut Lengths {
        match net {
            IpNet::V4(_) => &mut self.lengths4,
            IpNet::V6(_) => &mut self.lengths6,
        }
    }

    fn find(&self, key: Key) -> Option<u32> {
        let is = |slot: &u32| {
            let ban = self.slots.get(place(*slot)).and_then(Option::as_ref);
            ban.is_some_and(|b| Key::of(b.jail, b.offender) == key)
        };
        self.index.find(self.hasher.hash_one(key), is).copied()
    }
}

/// The prefix lengths that occur, in order, each with how often. Few: one per family, and what was banned by hand.
#[derive(Debug, Default)]
struct Lengths(Vec<(u8, usize)>);

impl Lengths {
    fn iter(&self) -> impl Iterator<Item = u8> {
        self.0.iter().map(|l| l.0)
    }

    fn add(&mut self, len: u8) {
        match self.0.binary_search_by_key(&len, |l| l.0) {
            Ok(at) => {
                if let Some(l) = self.0.get_mut(at) {
                    l.1 += 1;
                }
            }
            Err(at) => self.0.insert(at, (len, 1)),
        }
    }

    fn remove(&mut self, len: u8) {
        if let Ok(at) = self.0.binary_search_by_key(&len, |l| l.0)
            && let Some(l) = self.0.get_mut(at)
        {
            l.1 -= 1;
            if l.1 == 0 {
                self.0.remove(at);
            }
        }
    }
}

fn first(a: &BTreeSet<(Timestamp, u32)>, b: &BTreeSet<(Timestamp, u32)>) -> Option<(Timestamp, u32)> {
    a.first().into_iter().chain(b.first()).min().copied()
}
