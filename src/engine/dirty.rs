//! What changed in a table of slots since somebody last asked.

use super::net::Key;

/// So many keys that are gone are remembered; beyond that the whole table is said to have changed. Whoever asks may
/// not have asked for long (a full disk), and memory is bounded.
const GONE: usize = 65_536;

/// The changes, by slot; 1 bit per slot, and 4 bytes per changed one. Nothing is kept while nobody asks.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    asked: bool,
    marked: Vec<u64>,
    slots: Vec<u32>,
    gone: Vec<Key>,
    all: bool,
}

/// What [`Dirty::take`] tells: keys that are gone (they may have come again) and slots that hold something else.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) all: bool,
    pub(super) gone: Vec<Key>,
    pub(super) slots: Vec<u32>,
}

impl Dirty {
    /// From now on changes are remembered. Everything there is counts as changed.
    pub(super) fn begin(&mut self) {
        self.asked = true;
        self.forget();
        self.all = true;
    }

    /// What was changed is known: everything there is was just restored.
    pub(super) fn forget(&mut self) {
        for slot in self.slots.drain(..) {
            if let Some(word) = self.marked.get_mut(at(slot) / 64) {
                *word = 0;
            }
        }
        self.gone = Vec::new();
        self.all = false;
    }

    /// The slot holds something else now.
    pub(super) fn touch(&mut self, slot: u32) {
        if !self.asked || self.all {
            return;
        }
        let (word, bit) = (at(slot) / 64, 1_u64 << (slot % 64));
        if self.marked.len() <= word {
            self.marked.resize(word + 1, 0);
        }
        if let Some(word) = self.marked.get_mut(word)
            && *word & bit == 0
        {
            *word |= bit;
            self.slots.push(slot);
        }
    }

    /// What `key` stood for is not there any more.
    pub(super) fn gone(&mut self, key: Key) {
        if !self.asked || self.all {
            return;
        }
        if self.gone.len() >= GONE {
            self.forget();
            self.all = true;
            return;
        }
        self.gone.push(key);
    }

    /// Whether there is anything to take.
    pub(super) fn is_clean(&self) -> bool {
        !self.all && self.slots.is_empty() && self.gone.is_empty()
    }

    /// The changes since the last time.
    pub(super) fn take(&mut self) -> Taken {
        let taken = Taken { all: self.all, gone: std::mem::take(&mut self.gone), slots: self.slots.clone() };
        self.forget();
        taken
    }
}

fn at(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::JailId;

    fn key(n: u8) -> Key {
        Key::new(JailId(1), [192, 0, 2, n].into(), 32)
    }

    #[test]
    fn each_slot_is_told_once() {
        let mut dirty = Dirty::default();
        dirty.touch(7);
        assert!(dirty.is_clean(), "nobody asked");
        dirty.begin();
        assert!(dirty.take().all);
        for slot in [7, 7, 200, 7] {
            dirty.touch(slot);
        }
        dirty.gone(key(1));
        let taken = dirty.take();
        assert_eq!((taken.all, taken.slots, taken.gone), (false, vec![7, 200], vec![key(1)]));
        assert!(dirty.is_clean());
        dirty.touch(7);
        assert_eq!(dirty.take().slots, [7]);
    }

    #[test]
    fn too_many_changes_are_one() {
        let mut dirty = Dirty::default();
        dirty.begin();
        dirty.take();
        for _ in 0..=GONE {
            dirty.gone(key(1));
        }
        assert!(dirty.gone.is_empty());
        assert!(dirty.take().all);
        assert!(dirty.is_clean());
    }
}
