//! Which elements a set gets and which it loses.

use hashbrown::HashMap;
use ipnet::IpNet;

use super::element::{self, Entry};
use crate::kernel::changes::{Changes, Counts};
use crate::kernel::desired::Want;
use crate::kernel::layout::SetId;
use crate::types::Timestamp;

/// What `changes` add to a set (or give another end) and remove from it, given what it holds.
pub(super) fn in_set(
    changes: &Changes,
    id: SetId,
    written: &HashMap<IpNet, Want>,
) -> (Vec<(IpNet, Want)>, Vec<IpNet>) {
    let in_pieces = |(net, want): &(IpNet, Want)| {
        element::pieces(*net).into_iter().map(|p| (p, want.clone())).collect::<Vec<_>>()
    };
    if let Some(all) = changes.interval(id) {
        let all: HashMap<IpNet, Want> = all.iter().flat_map(in_pieces).collect();
        let gone = written.keys().copied().filter(|net| !all.contains_key(net)).collect();
        let new = all.into_iter().filter(|(net, want)| written.get(net) != Some(want)).collect();
        return (new, gone);
    }
    let (new, gone) = changes.hashed(id);
    (new.cloned().collect(), gone.to_vec())
}

/// The lines that make `held` into `wants`. What is removed comes last: a network that is split must not be open between.
pub(super) fn difference(
    name: &str,
    wants: &HashMap<IpNet, Want>,
    held: &[Entry],
    now: Timestamp,
    lines: &mut Vec<String>,
    counts: &mut Counts,
) {
    let known: HashMap<IpNet, &Entry> = held.iter().map(|entry| (entry.net, entry)).collect();
    for (net, want) in wants {
        let found = known.get(net);
        if found.is_some_and(|entry| entry.is(want, now)) {
            continue;
        }
        let Some(line) = element::add(name, *net, want, now) else { continue };
        lines.push(line);
        if found.is_some() {
            counts.changed += 1;
        } else {
            counts.added += 1;
        }
    }
    for net in known.keys().filter(|net| !wants.contains_key(*net)) {
        lines.push(element::del(name, *net));
        counts.removed += 1;
    }
}
