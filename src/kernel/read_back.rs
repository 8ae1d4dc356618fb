//! Whether what was committed is there: the kernel is asked for every element that was written.

use std::time::Instant;

use ipnet::IpNet;
use nft::{Key, ListError};

use super::changes::{Changes, TOLERANCE, same_end};
use super::desired::Want;
use super::layout::SetId;
use super::ruleset::key;
use super::{Enforcer, read};
use crate::types::Timestamp;

/// So many are asked for before the time is taken again, by which the time they have left is judged. (A listing would not
/// do: a hash set that has just grown is being rebuilt, and cannot be listed for seconds.)
const PIECE: usize = 4096;

/// What came of reading back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// So many elements were asked for.
    pub asked: usize,
    /// These are not there, or end at another time.
    pub missing: Vec<(SetId, IpNet)>,
}

impl Enforcer {
    /// Asks for every element that `changes` wrote. What runs out about now counts as there.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn read_back(&mut self, changes: &Changes, now: Timestamp) -> Result<ReadBack, ListError> {
        let mut back = ReadBack::default();
        let begin = Instant::now();
        // An element's time begins to run when the kernel comes to it, not when its message is written: on a busy machine a
        // large batch takes seconds.
        let late = TOLERANCE + self.took;
        for (id, written) in changes.written() {
            let soon = now.saturating_add(TOLERANCE);
            let wanted: Vec<&(IpNet, Want)> =
                written.filter(|(_, want)| want.end.is_none_or(|end| end > soon)).collect();
            let Some(set) = self.ruleset.set(id).filter(|_| !wanted.is_empty()) else { continue };
            back.asked += wanted.len();
            for piece in wanted.chunks(if id.kind.is_interval() { wanted.len() } else { PIECE }) {
                let keys: Vec<Key> = piece.iter().map(|(net, _)| key(id.kind, *net).key).collect();
                let found = self.connection.get(set, &keys).await?;
                let now = now.saturating_add(begin.elapsed());
                for ((net, want), element) in piece.iter().zip(found) {
                    let held = element.and_then(|element| read(id.kind, element, now));
                    if !held.is_some_and(|held| held.net == *net && same_end(held.end, want.end, late)) {
                        back.missing.push((id, *net));
                    }
                }
            }
        }
        Ok(back)
    }
}
