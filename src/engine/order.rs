//! The slots of a table in the order in which they were used: a list through the slots themselves, 8 bytes each.

/// No slot.
pub(super) const NIL: u32 = u32::MAX;

/// A slot's neighbours in the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// Towards those used later; in a free slot, for the table to use.
    pub(super) newer: u32,
    /// Towards those used earlier.
    pub(super) older: u32,
}

impl Links {
    /// In no list.
    pub(super) const NONE: Self = Self { newer: NIL, older: NIL };
}

/// A slot that can stand in a list.
pub(super) trait Linked {
    fn links(&mut self) -> &mut Links;
}

/// The ends of the list. The slots are the table's; a number beyond them is none.
#[derive(Debug)]
pub(super) struct Order {
    /// The one that was used last; [`NIL`] if there is none.
    pub(super) newest: u32,
    /// The one that was used least recently.
    pub(super) oldest: u32,
}

impl Order {
    pub(super) const EMPTY: Self = Self { newest: NIL, oldest: NIL };

    /// Takes a slot out of the list.
    pub(super) fn unlink<S: Linked>(&mut self, slots: &mut [S], slot: u32) {
        let Some(Links { newer, older }) = links(slots, slot).copied() else { return };
        match links(slots, newer) {
            Some(l) => l.older = older,
            None => self.newest = older,
        }
        match links(slots, older) {
            Some(l) => l.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Puts a slot, which is in no list, at the newer end.
    pub(super) fn link_newest<S: Linked>(&mut self, slots: &mut [S], slot: u32) {
        let second = std::mem::replace(&mut self.newest, slot);
        if let Some(l) = links(slots, slot) {
            *l = Links { newer: NIL, older: second };
        }
        match links(slots, second) {
            Some(l) => l.newer = slot,
            None => self.oldest = slot,
        }
    }

    /// Puts a slot, which is in no list, at the older end.
    pub(super) fn link_oldest<S: Linked>(&mut self, slots: &mut [S], slot: u32) {
        let second = std::mem::replace(&mut self.oldest, slot);
        if let Some(l) = links(slots, slot) {
            *l = Links { newer: second, older: NIL };
        }
        match links(slots, second) {
            Some(l) => l.older = slot,
            None => self.newest = slot,
        }
    }
}

fn links<S: Linked>(slots: &mut [S], slot: u32) -> Option<&mut Links> {
    slots.get_mut(place(slot)).map(Linked::links)
}

/// Where a slot is in its table.
pub(super) fn place(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
