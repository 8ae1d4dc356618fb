//! Bans in the BPF program's maps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use nft::Expr;

use super::bpf::{BpfMatcher, MapError};
use super::rules::Look;
use crate::kernel::changes::{TOLERANCE, same_end};
use crate::kernel::disjoint::{End, disjoint};
use crate::types::Timestamp;

/// The program, and what its maps are to hold.
pub(super) struct Maps {
    matcher: BpfMatcher,
    prefixes: BTreeSet<u8>,
    /// Bans of single addresses and of prefixes of a configured length: entries of their own.
    single: HashMap<IpNet, End>,
    /// Bans of other networks. They may overlap, which entries must not.
    nets: BTreeMap<IpNet, End>,
    /// The entries they amount to.
    pieces: HashMap<IpNet, End>,
}

impl Maps {
    pub(super) fn new(matcher: BpfMatcher, prefixes: &BTreeSet<u8>) -> Self {
        Self {
            matcher,
            prefixes: prefixes.clone(),
            single: HashMap::new(),
            nets: BTreeMap::new(),
            pieces: HashMap::new(),
        }
    }

    /// The rule that calls the program. Its number is in the comment, by which others find the program.
    pub(super) fn look(&self) -> Look {
        Look::At { expr: self.expr(), comment: format!("bpf program {}", self.matcher.id()) }
    }

    pub(super) fn expr(&self) -> Expr {
        self.matcher.expr()
    }

    pub(super) fn installed(&self) -> usize {
        self.single.len() + self.nets.len()
    }

    /// Makes the maps hold these bans and no others. What is there with the same end keeps its count.
    pub(super) fn settle(&mut self, all: &[(IpNet, End)]) -> Result<(), MapError> {
        let (nets, single): (Vec<_>, Vec<_>) = all.iter().partition(|(net, _)| self.is_piece(*net));
        (self.nets, self.single) = (nets.into_iter().collect(), single.into_iter().collect());
        self.pieces = self.cut();
        let held: HashMap<IpNet, End> =
            self.matcher.list()?.into_iter().map(|(net, end, _)| (net, end)).collect();
        let wanted = || self.single.iter().chain(&self.pieces);
        let is_new = |(net, end): &(&IpNet, &End)| {
            held.get(*net).is_none_or(|held| !same_end(*held, **end, TOLERANCE))
        };
        let new: Vec<(IpNet, End)> = wanted().filter(is_new).map(|(net, end)| (*net, *end)).collect();
        let gone: Vec<IpNet> = held
            .into_keys()
            .filter(|net| !self.single.contains_key(net) && !self.pieces.contains_key(net))
            .collect();
        // Room first: the maps are bounded.
        self.matcher.remove(&gone)?;
        self.matcher.insert(&new)
    }

    /// Makes changes: a ban with its (new) end, or `None` for one that is gone.
    pub(super) fn apply(&mut self, changes: &[(IpNet, Option<End>)]) -> Result<(), MapError> {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let mut recut = false;
        for (net, end) in changes {
            match (self.is_piece(*net), end) {
                (true, Some(end)) => drop(self.nets.insert(*net, *end)),
                (true, None) => drop(self.nets.remove(net)),
                (false, Some(end)) => {
                    self.single.insert(*net, *end);
                    new.push((*net, *end));
                }
                (false, None) => {
                    self.single.remove(net);
                    gone.push(*net);
                }
            }
            recut |= self.is_piece(*net);
        }
        if recut {
            let before = std::mem::take(&mut self.pieces);
            self.pieces = self.cut();
            gone.extend(before.keys().filter(|net| !self.pieces.contains_key(net)));
            new.extend(
                self.pieces.iter().filter(|(net, end)| before.get(net) != Some(end)).map(|(n, e)| (*n, *e)),
            );
        }
        self.matcher.insert(&new)?;
        self.matcher.remove(&gone)
    }

    /// Packets stopped, by ban.
    pub(super) fn packets(&self) -> Result<HashMap<IpNet, u64>, MapError> {
        let mut packets = HashMap::new();
        for (entry, _, count) in self.matcher.list()? {
            if self.is_piece(entry) {
                // Of overlapping bans each has stopped it.
                for net in self.nets.keys().filter(|net| net.contains(&entry)) {
                    *packets.entry(*net).or_default() += count;
                }
            } else {
                *packets.entry(entry).or_default() += count;
            }
        }
        Ok(packets)
    }

    /// Packets stopped in all.
    pub(super) fn total(&self) -> Result<u64, MapError> {
        self.matcher.total()
    }

    /// Takes out what has ended, which the program does not look at any more.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Result<usize, MapError> {
        self.matcher.sweep(now)
    }

    fn is_piece(&self, net: IpNet) -> bool {
        match net {
            IpNet::V4(net) => net.prefix_len() < 32,
            IpNet::V6(net) => net.prefix_len() < 128 && !self.prefixes.contains(&net.prefix_len()),
        }
    }

    fn cut(&self) -> HashMap<IpNet, End> {
        disjoint(self.nets.iter().map(|(net, end)| (*net, *end)).collect()).into_iter().collect()
    }
}
