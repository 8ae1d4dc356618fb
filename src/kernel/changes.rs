//! What is to be changed in the sets, and how it is put into a batch.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
use ipnet::IpNet;
use nft::{Batch, Element};

use super::Held;
use super::desired::{Desired, Want};
use super::disjoint::End;
use super::layout::{Kind, Layout, SetId};
use super::ruleset::{Ruleset, key};
use crate::types::{Decision, Timestamp, UnbanReason};

/// Ends that differ by less are the same: the kernel tells what is left in milliseconds, but at another moment.
pub(super) const TOLERANCE: Duration = Duration::from_secs(1);

/// Elements to add, to replace and to remove, set by set.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    hashed: BTreeMap<SetId, Hashed>,
    /// Interval sets are small, and the kernel is particular about overlaps within a transaction: they are emptied and
    /// filled anew, in that one transaction.
    intervals: BTreeMap<SetId, Vec<(IpNet, Want)>>,
    counts: Counts,
}

/// How many elements are touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Elements added.
    pub added: usize,
    /// Elements removed.
    pub removed: usize,
    /// Elements given another end or comment.
    pub changed: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Hashed {
    /// Surely not there.
    add: Vec<(IpNet, Want)>,
    /// Perhaps there, with another end.
    replace: Vec<(IpNet, Want)>,
    /// Perhaps there.
    remove: Vec<IpNet>,
}

impl Changes {
    /// What `decisions` change, given what all bans amount to after them: `want` for one element and the number of
    /// jails that ban it, `interval` for a whole interval set.
    ///
    /// A ban that ran out changes nothing in a hash set: its element had the same end and goes by itself.
    #[must_use]
    pub fn after(
        decisions: &[Decision],
        layout: &Layout,
        want: impl Fn(SetId, IpNet) -> Option<(Want, usize)>,
        interval: impl Fn(SetId) -> Vec<(IpNet, Want)>,
    ) -> Self {
        // In the order of the decisions: so they reach the kernel.
        let mut touched: Vec<((SetId, IpNet), Touch)> = Vec::with_capacity(decisions.len());
        let mut places: HashMap<(SetId, IpNet), usize> = HashMap::with_capacity(decisions.len());
        let mut changes = Self::default();
        for decision in decisions {
            let ban = decision.ban();
            let Some(set) = layout.place(ban.jail, ban.offender) else { continue };
            if set.kind.is_interval() {
                changes.intervals.entry(set).or_default();
                continue;
            }
            let touch = match decision {
                Decision::Ban(_) => Touch::New,
                Decision::Unban(_, UnbanReason::Expired) => Touch::RanOut,
                Decision::Prolong(_) | Decision::Unban(..) => Touch::Other,
            };
            // Of several decisions about one element only their sum counts, and then it may be there already.
            let element = (set, ban.offender);
            match places.get(&element).and_then(|at| touched.get_mut(*at)) {
                Some((_, before)) => *before = Touch::Other,
                None => {
                    places.insert(element, touched.len());
                    touched.push((element, touch));
                }
            }
        }
        for ((set, net), touch) in touched {
            let hashed = changes.hashed.entry(set).or_default();
            match (want(set, net), touch) {
                (Some((want, 1)), Touch::New) => hashed.add.push((net, want)),
                (Some(_), Touch::RanOut) | (None, Touch::RanOut) => {}
                (Some((want, _)), _) => hashed.replace.push((net, want)),
                (None, _) => hashed.remove.push(net),
            }
        }
        for (set, elements) in &mut changes.intervals {
            *elements = interval(*set);
        }
        changes
    }

    /// What makes `held` into `desired`.
    #[must_use]
    pub fn between(desired: &Desired, held: &[(SetId, Held)]) -> Self {
        let mut changes = Self::default();
        let mut known: HashMap<(SetId, IpNet), &Held> = HashMap::with_capacity(held.len());
        for (set, element) in held {
            known.insert((*set, element.net), element);
            if !desired.contains_key(&(*set, element.net)) {
                changes.hashed.entry(*set).or_default().remove.push(element.net);
                changes.counts.removed += 1;
            }
        }
        for ((set, net), want) in desired {
            let hashed = changes.hashed.entry(*set).or_default();
            match known.get(&(*set, *net)) {
                None => {
                    hashed.add.push((*net, want.clone()));
                    changes.counts.added += 1;
                }
                Some(element)
                    if same_end(element.end, want.end, TOLERANCE) && element.comment == want.comment => {}
                Some(_) => {
                    hashed.replace.push((*net, want.clone()));
                    changes.counts.changed += 1;
                }
            }
        }
        changes.hashed.retain(|_, hashed| *hashed != Hashed::default());
        let intervals: Vec<SetId> =
            changes.hashed.keys().copied().filter(|set| set.kind.is_interval()).collect();
        for set in intervals {
            changes.hashed.remove(&set);
            let all = desired.iter().filter(|((of, _), _)| *of == set);
            changes.intervals.insert(set, all.map(|((_, net), want)| (*net, want.clone())).collect());
        }
        changes
    }

    /// These changes, with the counts of those that were meant.
    pub(super) fn counted_as(self, meant: &Self) -> Self {
        Self { counts: meant.counts, ..self }
    }

    /// How many elements [`between`](Self::between) found different.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Elements of a hash set that are to be there from now on, and those that are to go.
    pub(super) fn hashed(&self, id: SetId) -> (impl Iterator<Item = &(IpNet, Want)>, &[IpNet]) {
        let set = self.hashed.get(&id);
        let new = set.into_iter().flat_map(|set| set.replace.iter().chain(&set.add));
        (new, set.map_or(&[], |set| set.remove.as_slice()))
    }

    /// All that an interval set is to hold from now on; `None` where nothing changes.
    pub(super) fn interval(&self, id: SetId) -> Option<&[(IpNet, Want)]> {
        self.intervals.get(&id).map(Vec::as_slice)
    }

    /// Nothing, but as if so much had been found different.
    pub(super) fn counted(counts: Counts) -> Self {
        Self { counts, ..Self::default() }
    }

    /// What is added, set by set.
    pub(super) fn written(&self) -> impl Iterator<Item = (SetId, impl Iterator<Item = &(IpNet, Want)>)> {
        let hashed = self.hashed.iter().map(|(id, hashed)| (*id, &hashed.replace[..], &hashed.add[..]));
        let intervals = self.intervals.iter().map(|(id, elements)| (*id, &elements[..], &[][..]));
        hashed.chain(intervals).map(|(id, some, more)| (id, some.iter().chain(more)))
    }

    pub(super) fn write(&self, batch: &mut Batch, ruleset: &Ruleset, now: Timestamp) {
        for (id, hashed) in &self.hashed {
            let Some(set) = ruleset.set(*id) else { continue };
            let gone: Vec<Element> = (hashed.replace.iter().map(|(net, _)| net))
                .chain(&hashed.remove)
                .map(|net| key(id.kind, *net))
                .collect();
            if !gone.is_empty() {
                // Deleting an element that has run out meanwhile would fail the batch. Adding it first (which does
                // nothing where it is there) makes sure that it is there, in kernels of any age.
                batch.add_elements(set, gone.clone());
                batch.delete_elements(set, gone);
            }
            let new: Vec<Element> = hashed
                .replace
                .iter()
                .chain(&hashed.add)
                .filter_map(|(net, want)| element(id.kind, *net, want, now))
                .collect();
            if !new.is_empty() {
                batch.add_elements(set, new);
            }
        }
        for (id, elements) in &self.intervals {
            let Some(set) = ruleset.set(*id) else { continue };
            batch.flush(set);
            let new: Vec<Element> =
                elements.iter().filter_map(|(net, want)| element(id.kind, *net, want, now)).collect();
            if !new.is_empty() {
                batch.add_elements(set, new);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Touch {
    New,
    RanOut,
    Other,
}

/// The element for `want`, with what is left of its time; `None` when nothing is.
fn element(kind: Kind, net: IpNet, want: &Want, now: Timestamp) -> Option<Element> {
    let element = key(kind, net).comment(&want.comment);
    match want.end {
        None => Some(element),
        Some(end) if end > now => Some(element.timeout(end.since(now))),
        Some(_) => None,
    }
}

/// Whether two ends are one, but for less than `tolerance`.
pub(super) fn same_end(a: End, b: End, tolerance: Duration) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.since(b).max(b.since(a)) < tolerance,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Ban, JailId};

    const NPM: JailId = JailId(0);
    const SINGLE: SetId = SetId { scope: 0, kind: Kind::Single4 };
    const NETS: SetId = SetId { scope: 0, kind: Kind::Nets4 };

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn want(seconds: i64) -> Want {
        Want { end: Some(Timestamp::from_secs(seconds)), comment: "c".to_owned() }
    }

    fn held(offender: &str, seconds: i64) -> Held {
        let end = Some(Timestamp::from_secs(seconds));
        Held { net: net(offender), end, comment: "c".to_owned(), packets: None }
    }

    fn ban(offender: &str) -> Ban {
        Ban {
            jail: NPM,
            offender: net(offender),
            since: Timestamp::default(),
            until: Some(Timestamp::from_secs(60)),
            offenses: 1,
            evidence: crate::types::Evidence::default(),
            forced: false,
        }
    }

    fn after(decisions: &[Decision], want: Option<(Want, usize)>) -> Changes {
        let layout = Layout::new([(NPM, "npm", &[][..], 64)]);
        Changes::after(
            decisions,
            &layout,
            |_, _| want.clone(),
            |_| vec![(net("192.0.2.0/24"), self::want(60))],
        )
    }

    #[test]
    fn a_new_ban_is_one_addition() {
        let changes = after(&[Decision::Ban(ban("192.0.2.1/32"))], Some((want(60), 1)));
        assert_eq!(changes.hashed[&SINGLE].add, [(net("192.0.2.1/32"), want(60))]);
    }

    #[test]
    fn a_ban_of_what_another_jail_bans_replaces_the_element() {
        let changes = after(&[Decision::Ban(ban("192.0.2.1/32"))], Some((want(90), 2)));
        assert_eq!(changes.hashed[&SINGLE].replace, [(net("192.0.2.1/32"), want(90))]);
    }

    #[test]
    fn lifted_and_banned_again_in_one_breath_is_a_replacement() {
        let b = ban("192.0.2.1/32");
        let decisions = [Decision::Unban(b.clone(), UnbanReason::Lifted), Decision::Ban(b)];
        assert_eq!(after(&decisions, Some((want(60), 1))).hashed[&SINGLE].replace.len(), 1);
        assert_eq!(after(&decisions, None).hashed[&SINGLE].remove.len(), 1);
    }

    #[test]
    fn a_ban_that_ran_out_goes_by_itself() {
        let b = ban("192.0.2.1/32");
        let changes = after(&[Decision::Unban(b.clone(), UnbanReason::Expired)], None);
        assert_eq!(changes.hashed[&SINGLE], Hashed::default());
        let changes = after(&[Decision::Unban(b, UnbanReason::Lifted)], None);
        assert_eq!(changes.hashed[&SINGLE].remove, [net("192.0.2.1/32")]);
    }

    #[test]
    fn an_interval_set_is_written_anew() {
        let changes = after(&[Decision::Unban(ban("192.0.2.128/25"), UnbanReason::Expired)], None);
        assert_eq!(changes.intervals[&NETS], [(net("192.0.2.0/24"), want(60))]);
    }

    #[test]
    fn only_the_difference_is_written() {
        let desired = Desired::from_iter([
            ((SINGLE, net("192.0.2.1/32")), want(60)),
            ((SINGLE, net("192.0.2.2/32")), want(60)),
            ((SINGLE, net("192.0.2.3/32")), want(60)),
            ((NETS, net("198.51.100.0/24")), want(60)),
        ]);
        let found = [
            (SINGLE, held("192.0.2.1/32", 60)),
            (SINGLE, held("192.0.2.2/32", 30)),
            (SINGLE, held("192.0.2.9/32", 60)),
            (NETS, held("198.51.100.0/24", 60)),
        ];
        let changes = Changes::between(&desired, &found);
        assert_eq!(changes.counts(), Counts { added: 1, removed: 1, changed: 1 });
        let hashed = &changes.hashed[&SINGLE];
        assert_eq!(hashed.add, [(net("192.0.2.3/32"), want(60))]);
        assert_eq!(hashed.replace, [(net("192.0.2.2/32"), want(60))]);
        assert_eq!(hashed.remove, [net("192.0.2.9/32")]);
        assert!(changes.intervals.is_empty(), "the interval set is as it should be");
    }
}
