//! Offenses on their way from the follower's thread to the engine's.

use std::net::IpAddr;
use std::ops::Range;

use crate::filter::Hit;
use crate::follow::{FileId, Mark};
use crate::sinks::event::Banned;
use crate::types::{JailId, Offense, Peer, Timestamp};

/// A batch is handed over when it holds so many offenses, and whenever there is nothing more to read.
const FULL: usize = 1024;
/// Or when their lines come to so much, in bytes.
const FULL_TEXT: usize = 400 << 10;

/// Offenses, their lines in one piece of text: nothing is allocated per offense.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    items: Vec<Item>,
    text: Vec<u8>,
    /// How far the sources have been read with the offenses of this batch and those before it.
    pub(super) progress: Vec<Progress>,
}

/// How far a source has been handed over. It is kept together with what came of its lines, so that after a crash no
/// line is read twice and none is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A file; without a mark it is done with.
    File { id: FileId, mark: Option<Mark> },
    /// A source that says itself where it is, such as systemd's journal.
    Cursor { source: String, cursor: String },
}

#[derive(Debug)]
struct Item {
    jail: JailId,
    offender: IpAddr,
    peer: Peer,
    /// `None` for a line without a time.
    at: Option<Timestamp>,
    line: Range<usize>,
}

impl Batch {
    /// Adds an offense; of its line only what would be told of a ban.
    pub(crate) fn push(
        &mut self,
        jail: JailId,
        offender: IpAddr,
        peer: Peer,
        at: Option<Timestamp>,
        line: &[u8],
    ) {
        let begin = self.text.len();
        self.text.extend_from_slice(&line[..line.len().min(Banned::LINE)]);
        self.items.push(Item { jail, offender, peer, at, line: begin..self.text.len() });
    }

    /// Adds a hit that can be held against somebody; one whose line has no time happened at `otherwise`.
    pub(super) fn hit(&mut self, hit: &Hit<'_>, otherwise: Option<Timestamp>) {
        if let Some(offender) = hit.who.offender() {
            self.push(hit.jail, offender, hit.who.peer(), hit.at.or(otherwise), hit.line);
        }
    }

    /// How many offenses it holds.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it is to be handed over before anything is added.
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= FULL || self.text.len() >= FULL_TEXT
    }

    /// Whether it holds offenses; one without tells of progress alone.
    pub(super) fn has_offenses(&self) -> bool {
        !self.items.is_empty()
    }

    /// Whether it tells nothing, not even progress.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.progress.is_empty()
    }

    /// Empties it, keeping its memory.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.text.clear();
        self.progress.clear();
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

    /// Whose packets carried offense `n`; `None` when its line has no time of its own, and so proves nothing about them.
    pub(super) fn carried_by(&self, n: usize) -> Option<Peer> {
        self.items.get(n).filter(|item| item.at.is_some()).map(|item| item.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offenses_come_out_as_they_went_in() {
        let mut batch = Batch::default();
        let now = Timestamp::from_secs(9);
        let long = [b'x'; Banned::LINE + 1];
        batch.push(JailId(1), [192, 0, 2, 1].into(), Peer::Unknown, Some(Timestamp::from_secs(3)), b"one");
        batch.push(JailId(2), [192, 0, 2, 2].into(), Peer::Offender, None, &long);
        let got: Vec<_> = (0..batch.len())
            .filter_map(|n| batch.get(n, now))
            .map(|o| (o.jail, o.at, o.line.len()))
            .collect();
        assert_eq!(got, [(JailId(1), Timestamp::from_secs(3), 3), (JailId(2), now, Banned::LINE)]);
        assert_eq!((batch.carried_by(0), batch.carried_by(1)), (Some(Peer::Unknown), None));
        batch.clear();
        assert!(batch.get(0, now).is_none());
    }
}
