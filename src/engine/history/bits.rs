//! Which slots are marked.

use super::place;

/// One bit per slot.
#[derive(Debug, Default)]
pub(super) struct Bits(pub(super) Vec<u64>);

impl Bits {
    /// Sets a bit; what it was.
    pub(super) fn set(&mut self, slot: u32, to: bool) -> bool {
        let (word, bit) = (place(slot / 64), 1u64 << (slot % 64));
        if self.0.len() <= word {
            if !to {
                return false;
            }
            self.0.resize(word + 1, 0);
        }
        let Some(word) = self.0.get_mut(word) else { return false };
        let was = *word & bit != 0;
        *word = if to { *word | bit } else { *word & !bit };
        was
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Clears all bits and names those that were set.
    pub(super) fn drain(&mut self, mut each: impl FnMut(u32)) {
        for (n, word) in (0u32..).zip(&mut self.0) {
            let mut left = std::mem::take(word);
            while left != 0 {
                each(n * 64 + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }
}
