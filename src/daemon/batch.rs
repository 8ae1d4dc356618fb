//! Offenses on their way from the follower's thread to the engine's.

use std::net::IpAddr;
use std::ops::Range;

use crate::types::{EVIDENCE_CAP, JailId, Offense, Timestamp};

/// A batch is handed over when it holds so many offenses, and whenever there is nothing more to read.
pub(super) const FULL: usize = 1024;

/// Offenses, their lines in one piece of text: nothing is allocated per offense.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    items: Vec<Item>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Item {
    jail: JailId,
    offender: IpAddr,
    /// `None` for a line without a time.
    at: Option<Timestamp>,
    line: Range<usize>,
}

impl Batch {
    /// Adds an offense; of its line only what a ban would keep.
    pub(crate) fn push(&mut self, jail: JailId, offender: IpAddr, at: Option<Timestamp>, line: &[u8]) {
        let begin = self.text.len();
        self.text.extend_from_slice(&line[..line.len().min(EVIDENCE_CAP)]);
        self.items.push(Item { jail, offender, at, line: begin..self.text.len() });
    }

    /// How many offenses it holds.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Empties it, keeping its memory.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.text.clear();
    }

    /// Offense `n`, in the order they were read; if its line has no time it happened at `otherwise`.
    pub(crate) fn get(&self, n: usize, otherwise: Timestamp) -> Option<Offense<'_>> {
        let item = self.items.get(n)?;
        Some(Offense {
            jail: item.jail,
            offender: item.offender,
            at: item.at.unwrap_or(otherwise),
            line: &self.text[item.line.clone()],
        })
    }

    /// All of them.
    pub(super) fn offenses(&self, otherwise: Timestamp) -> impl Iterator<Item = Offense<'_>> {
        (0..self.len()).filter_map(move |n| self.get(n, otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offenses_come_out_as_they_went_in() {
        let mut batch = Batch::default();
        let now = Timestamp::from_secs(9);
        let long = [b'x'; EVIDENCE_CAP + 1];
        batch.push(JailId(1), [192, 0, 2, 1].into(), Some(Timestamp::from_secs(3)), b"one");
        batch.push(JailId(2), [192, 0, 2, 2].into(), None, &long);
        let got: Vec<_> = batch.offenses(now).map(|o| (o.jail, o.at, o.line.len())).collect();
        assert_eq!(got, [(JailId(1), Timestamp::from_secs(3), 3), (JailId(2), now, EVIDENCE_CAP)]);
        batch.clear();
        assert!(batch.get(0, now).is_none());
    }
}
