//! The times of one offender's offenses in one jail.

use std::time::Duration;

use crate::types::Timestamp;

/// So many times lie in the window itself; most offenders never offend more often.
const INLINE: usize = 3;

/// How many times a window remembers for a jail with this `maxretry`: the last so many to *arrive*, whatever
/// they say.
///
/// Three times `maxretry − 1` is what exactness needs when lines may be late by up to `findtime`: between the
/// first and the last arrival of `maxretry` offenses that lie within `findtime`, all others lie within
/// `findtime` before the first or after the last of them, so there are three stretches with fewer than
/// `maxretry` each. Arrival, and not age, decides what goes, because a clock that steps back (or two logs whose
/// clocks differ) would otherwise have the newest lines thrown away first. The floor of 8 costs nothing that
/// counts and serves small `maxretry` where lines are later than that.
pub(super) fn memory(maxretry: u32) -> usize {
    let most = u32::MAX / 4;
    usize::try_from(maxretry.saturating_sub(1).saturating_mul(3).clamp(8, most)).unwrap_or(8)
}

/// Times in the order of arrival, 32 bytes; up to [`INLINE`] of them need no allocation.
#[derive(Clone, Debug)]
pub(super) enum Window {
    Few {
        len: u8,
        at: [Timestamp; INLINE],
    },
    /// `ordered`: the times are in order, as nearly always; then a look at the end tells all. It stands here and
    /// not in the ring, where it would cost 8 bytes.
    Many {
        ordered: bool,
        ring: Ring,
    },
}

/// A ring that grows.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    at: Box<[Timestamp]>,
    start: u32,
    len: u32,
}

impl Window {
    pub(super) const EMPTY: Self = Self::Few { len: 0, at: [Timestamp::from_millis(0); INLINE] };

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few { len, .. } => *len == 0,
            Self::Many { ring, .. } => ring.len == 0,
        }
    }

    /// For how many times there is room outside of the window itself.
    pub(super) fn beyond(&self) -> usize {
        match self {
            Self::Few { .. } => 0,
            // What an allocation costs besides: two words.
            Self::Many { ring, .. } => ring.at.len() + 2,
        }
    }

    /// Adds an offense and says how many offenses, it included, lie within one span of `findtime` (both ends
    /// included) that contains it: the most that any such span holds. At most `memory` times are kept;
    /// `scratch` is overwritten.
    pub(super) fn push(
        &mut self,
        at: Timestamp,
        findtime: Duration,
        memory: usize,
        scratch: &mut Vec<Timestamp>,
    ) -> u32 {
        let (count, ordered) = {
            let (older, newer) = self.as_slices();
            match newer.last().or_else(|| older.last()) {
                None => (1, true),
                Some(last) if self.ordered() && *last <= at => {
                    let from = at.saturating_sub(findtime);
                    let early = match older.partition_point(|t| *t < from) {
                        n if n == older.len() => n + newer.partition_point(|t| *t < from),
                        n => n,
                    };
                    (older.len() + newer.len() - early + 1, true)
                }
                Some(_) => (crowd(at, findtime, older, newer, scratch), false),
            }
        };
        self.append(at, memory, ordered);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn ordered(&self) -> bool {
        match self {
            Self::Few { len, at } => at.iter().take(usize::from(*len)).is_sorted(),
            Self::Many { ordered, .. } => *ordered,
        }
    }

    /// The times in the order of arrival, in two pieces.
    pub(super) fn as_slices(&self) -> (&[Timestamp], &[Timestamp]) {
        match self {
            Self::Few { len, at } => (at.get(..usize::from(*len)).unwrap_or(at), &[]),
            Self::Many { ring, .. } => ring.as_slices(),
        }
    }

    fn append(&mut self, time: Timestamp, memory: usize, ordered: bool) {
        match self {
            Self::Few { len, at } => {
                if let Some(place) = at.get_mut(usize::from(*len)) {
                    *place = time;
                    *len += 1;
                    return;
                }
                let mut ring = Ring::with(at);
                ring.append(time, memory);
                *self = Self::Many { ordered: ordered || ring.is_sorted(), ring };
            }
            Self::Many { ordered: held, ring } => {
                ring.append(time, memory);
                *held = ordered || ring.is_sorted();
            }
        }
    }
}

impl Ring {
    fn with(times: &[Timestamp]) -> Self {
        Self { at: times.into(), start: 0, len: u32::try_from(times.len()).unwrap_or(0) }
    }

    fn is_sorted(&self) -> bool {
        let (older, newer) = self.as_slices();
        older.iter().chain(newer).is_sorted()
    }

    fn as_slices(&self) -> (&[Timestamp], &[Timestamp]) {
        let (start, len) = (index(self.start), index(self.len));
        let (wrapped, first) = self.at.split_at(start.min(self.at.len()));
        match first.get(..len) {
            Some(all) => (all, &[]),
            None => (first, wrapped.get(..len - first.len()).unwrap_or(wrapped)),
        }
    }

    fn append(&mut self, time: Timestamp, memory: usize) {
        // More than one too many only after `maxretry` was lowered.
        while index(self.len) >= memory.max(1) {
            self.start = (self.start + 1) % self.capacity();
            self.len -= 1;
        }
        if self.len == self.capacity() {
            self.grow(memory);
        }
        let end = (self.start + self.len) % self.capacity();
        if let Some(place) = self.at.get_mut(index(end)) {
            *place = time;
            self.len += 1;
        }
    }

    fn capacity(&self) -> u32 {
        u32::try_from(self.at.len()).unwrap_or(u32::MAX).max(1)
    }

    fn grow(&mut self, memory: usize) {
        let room = (self.at.len() * 2).max(4).min(memory.max(self.at.len() + 1));
        let (older, newer) = self.as_slices();
        let mut at = Vec::with_capacity(room);
        at.extend_from_slice(older);
        at.extend_from_slice(newer);
        at.resize(room, Timestamp::default());
        self.at = at.into_boxed_slice();
        self.start = 0;
    }
}

/// The slow path: times out of order. As [`Window::push`], over times in any order.
fn crowd(
    at: Timestamp,
    findtime: Duration,
    older: &[Timestamp],
    newer: &[Timestamp],
    scratch: &mut Vec<Timestamp>,
) -> usize {
    let (from, to) = (at.saturating_sub(findtime), at.saturating_add(findtime));
    scratch.clear();
    scratch.push(at);
    scratch.extend(older.iter().chain(newer).filter(|t| (from..=to).contains(t)));
    scratch.sort_unstable();
    // Every span worth a look begins at a time not after `at`; it then ends at or after it.
    let mut most = 1;
    let mut end = 0;
    for (begin, first) in scratch.iter().take_while(|t| **t <= at).enumerate() {
        let last = first.saturating_add(findtime);
        while scratch.get(end).is_some_and(|t| *t <= last) {
            end += 1;
        }
        most = most.max(end - begin);
    }
    most
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(w: &mut Window, ms: i64, findtime: u64, memory: usize) -> u32 {
        w.push(Timestamp::from_millis(ms), Duration::from_millis(findtime), memory, &mut Vec::new())
    }

    #[test]
    fn a_window_is_small() {
        assert_eq!(size_of::<Window>(), 32);
    }

    #[test]
    fn both_ends_count() {
        let mut w = Window::EMPTY;
        assert_eq!(push(&mut w, 0, 10, 8), 1);
        assert_eq!(push(&mut w, 10, 10, 8), 2);
        assert_eq!(push(&mut w, 11, 10, 8), 2);
        assert_eq!(push(&mut w, 20, 10, 8), 3);
    }

    #[test]
    fn a_late_line_joins_what_is_around_it() {
        let mut w = Window::EMPTY;
        for (at, count) in [(0, 1), (20, 1), (10, 2), (15, 3), (100, 1), (5, 3), (10, 4)] {
            assert_eq!(push(&mut w, at, 10, 8), count, "at {at}");
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let mut w = Window::EMPTY;
        for (at, count) in [(i64::MAX, 1), (i64::MIN, 1), (i64::MAX, 2), (i64::MIN, 2)] {
            assert_eq!(push(&mut w, at, u64::MAX, 8), count);
        }
    }

    /// The definition: of the last `memory` arrivals and this one, the most within one span that holds this one.
    fn naive(before: &[i64], at: i64, findtime: i64) -> usize {
        let mut all = before.to_vec();
        all.push(at);
        let spans = all.iter().filter(|first| **first <= at && at - **first <= findtime);
        spans
            .map(|first| all.iter().filter(|t| (*first..=first + findtime).contains(t)).count())
            .max()
            .unwrap()
    }

    proptest! {
        #[test]
        fn counts_as_the_definition_does(
            pushes in prop::collection::vec((0i64..40, 1usize..14), 1..60),
            sorted in any::<bool>(),
            findtime in 0u64..15,
        ) {
            let mut pushes = pushes;
            if sorted {
                pushes.sort_by_key(|p| p.0);
            }
            let mut w = Window::EMPTY;
            let mut kept: Vec<i64> = Vec::new();
            for (at, memory) in pushes {
                // Fewer than INLINE are always kept.
                let memory = memory.max(INLINE + 1);
                let want = naive(&kept, at, i64::try_from(findtime).unwrap());
                prop_assert_eq!(usize::try_from(push(&mut w, at, findtime, memory)).unwrap(), want);
                kept.push(at);
                kept.drain(..kept.len().saturating_sub(memory));
                let (older, newer) = w.as_slices();
                let held: Vec<i64> = older.iter().chain(newer).map(|t| t.as_millis()).collect();
                prop_assert_eq!(&held, &kept);
                // Also when what was out of order has gone: the slow path is for as long as needed.
                prop_assert_eq!(w.ordered(), kept.is_sorted());
            }
        }
    }
}
