//! Which records lie in one prefix: a list for each prefix, the last banned first.
//!
//! It answers "how many networks of this prefix were banned since" in as many steps as it counts, however many there
//! are, and costs 8 bytes for each record instead of a table of prefixes of its own.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::escalation::Neighbours;
use super::history::Slot;
use super::net::Key;
use super::order::{NIL, place};
use crate::types::{JailId, Timestamp};

/// A list is looked at from its head on, at most so far. That is further than is ever counted, so who stands beyond it
/// matters only for lines that are late while many others are not.
const FARTHEST: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Link {
    /// Towards the head.
    later: u32,
    earlier: u32,
}

const ALONE: Link = Link { later: NIL, earlier: NIL };

#[derive(Debug)]
pub(super) struct Siblings {
    /// By slot.
    links: Vec<Link>,
    /// The head of each list, found by the prefix its members lie in.
    heads: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// By jail; `None` where it bans no prefixes.
    steps: Vec<Option<Neighbours>>,
}

impl Siblings {
    pub(super) fn new() -> Self {
        Self {
            links: Vec::new(),
            heads: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            steps: Vec::new(),
        }
    }

    pub(super) fn differs(&self, jail: JailId, steps: Option<&Neighbours>) -> bool {
        let before = self.steps.get(usize::from(jail.0)).and_then(Option::as_ref);
        let lengths = |n: &Neighbours| (n.ipv6.clone(), n.ipv4);
        before.map(lengths) != steps.map(lengths)
    }

    /// Changes a jail's steps, none of whose records is in a list.
    pub(super) fn set_steps(&mut self, jail: JailId, steps: Option<&Neighbours>) {
        let at = usize::from(jail.0);
        if self.steps.len() <= at {
            self.steps.resize(at + 1, None);
        }
        if let Some(place) = self.steps.get_mut(at) {
            *place = steps.cloned();
        }
    }

    /// Puts a record that is in no list into its prefix's.
    pub(super) fn insert(&mut self, slot: u32, slots: &[Slot]) {
        if self.links.len() <= place(slot) {
            self.links.resize(place(slot) + 1, ALONE);
        }
        self.link(slot, ALONE);
        let Some((parent, last)) = self.of(slot, slots) else { return };
        let Some(head) = self.first(parent, slots) else {
            self.set_head(parent, slot, slots);
            return;
        };
        let (mut later, mut earlier) = (NIL, head);
        for _ in 0..FARTHEST {
            if slots.get(place(earlier)).is_none_or(|s| s.last <= last) {
                break;
            }
            (later, earlier) = (earlier, self.at(earlier).earlier);
        }
        self.link(slot, Link { later, earlier });
        self.change(earlier, |link| link.later = slot);
        if later == NIL {
            self.replace_head(parent, head, slot);
        } else {
            self.change(later, |link| link.earlier = slot);
        }
    }

    /// Takes a record out of its list, if it is in one.
    pub(super) fn remove(&mut self, slot: u32, slots: &[Slot]) {
        let Some((parent, _)) = self.of(slot, slots) else { return };
        let Link { later, earlier } = self.at(slot);
        self.link(slot, ALONE);
        self.change(earlier, |link| link.later = later);
        if later != NIL {
            self.change(later, |link| link.earlier = earlier);
        } else if earlier != NIL {
            self.replace_head(parent, slot, earlier);
        } else if let Ok(entry) = self.heads.find_entry(self.hasher.hash_one(parent), |head| *head == slot) {
            entry.remove();
        }
    }

    /// The record in `parent` that was banned last.
    pub(super) fn first(&self, parent: Key, slots: &[Slot]) -> Option<u32> {
        let is = |head: &u32| self.of(*head, slots).is_some_and(|(of, _)| of == parent);
        self.heads.find(self.hasher.hash_one(parent), is).copied()
    }

    /// How many records in `parent` were last banned from `from` to `to`, counted up to `most`. Those that were banned
    /// later are no reason for what is decided at `to`; only of a log that is read late, or again, there are any.
    pub(super) fn count(
        &self,
        parent: Key,
        from: Timestamp,
        to: Timestamp,
        most: u32,
        slots: &[Slot],
    ) -> u32 {
        let mut next = self.first(parent, slots).unwrap_or(NIL);
        let mut count = 0;
        for _ in 0..FARTHEST {
            let Some(slot) = slots.get(place(next)).filter(|s| s.last >= from && count < most) else { break };
            count += u32::from(slot.last <= to);
            next = self.at(next).earlier;
        }
        count
    }

    /// The prefix that a record is counted in, and when it was last banned.
    fn of(&self, slot: u32, slots: &[Slot]) -> Option<(Key, Timestamp)> {
        let slot = slots.get(place(slot)).filter(|s| !s.key.is_none())?;
        let jail = slot.key.jail();
        let steps = self.steps.get(usize::from(jail.0))?.as_ref()?;
        Some((Key::of(jail, steps.parent(slot.key.net())?), slot.last))
    }

    fn set_head(&mut self, parent: Key, slot: u32, slots: &[Slot]) {
        let Self { heads, hasher, steps, .. } = self;
        let rehash = |head: &u32| {
            let slot = slots.get(place(*head));
            let steps = slot.and_then(|s| steps.get(usize::from(s.key.jail().0))?.as_ref());
            let parent =
                steps.zip(slot).and_then(|(n, s)| Some(Key::of(s.key.jail(), n.parent(s.key.net())?)));
            parent.map_or(0, |parent| hasher.hash_one(parent))
        };
        heads.insert_unique(hasher.hash_one(parent), slot, rehash);
    }

    fn replace_head(&mut self, parent: Key, before: u32, after: u32) {
        if let Some(head) = self.heads.find_mut(self.hasher.hash_one(parent), |head| *head == before) {
            *head = after;
        }
    }

    fn at(&self, slot: u32) -> Link {
        self.links.get(place(slot)).copied().unwrap_or(ALONE)
    }

    fn link(&mut self, slot: u32, to: Link) {
        self.change(slot, |link| *link = to);
    }

    fn change(&mut self, slot: u32, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(place(slot)) {
            change(link);
        }
    }
}
