//! Bans by string: for each a rule with the text of its address, and a chain with the exact texts.
//!
//! Every request is searched once for each ban, so there are at most `headers.max_rules` of them; those that end last
//! are kept, because they would be missed longest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use nft::{Batch, Chain, CommitError, Expr, ListedRule, Rule};

use super::LeftOut;
use super::patterns::{Pattern, common, patterns};
use super::rules::{Side, WINDOW, stop};
use super::tables::Tables;
use crate::kernel::disjoint::End;
use crate::types::Timestamp;

/// The bans, and which of them the kernel has.
#[derive(Debug)]
pub(super) struct Strings {
    max: usize,
    /// All bans, and whether they can be said as text.
    bans: HashMap<IpNet, (End, bool)>,
    /// What the kernel has rules for.
    installed: BTreeMap<IpNet, End>,
    /// Packets that were counted by rules that are there no more, by the name of their chain.
    counted: HashMap<String, u64>,
}

impl Strings {
    pub(super) fn new(max: usize) -> Self {
        Self { max, bans: HashMap::new(), installed: BTreeMap::new(), counted: HashMap::new() }
    }

    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// These are all bans.
    pub(super) fn replace(&mut self, all: &[(IpNet, End)]) {
        let before = std::mem::take(&mut self.bans);
        let entry = |(net, end): &(IpNet, End)| {
            let can = before.get(net).map_or_else(|| patterns(*net).is_some(), |(_, can)| *can);
            (*net, (*end, can))
        };
        self.bans = all.iter().map(entry).collect();
    }

    /// This has changed; without an end the ban is gone.
    fn change(&mut self, changes: &[(IpNet, Option<End>)]) {
        for (net, end) in changes {
            match end {
                Some(end) => drop(self.bans.insert(*net, (*end, patterns(*net).is_some()))),
                None => drop(self.bans.remove(net)),
            }
        }
    }

    /// The bans there are to be rules for.
    pub(super) fn chosen(&self, now: Timestamp) -> BTreeMap<IpNet, End> {
        let current = self.bans.iter().filter(|(_, (end, can))| *can && end.is_none_or(|end| end > now));
        let mut all: Vec<(IpNet, End)> = current.map(|(net, (end, _))| (*net, *end)).collect();
        if all.len() > self.max {
            // No end is the latest; of those that end together the addresses decide, so that it is always the same ones.
            let rank = |(net, end): &(IpNet, End)| {
                (std::cmp::Reverse(end.map_or(i64::MAX, Timestamp::as_millis)), *net)
            };
            all.select_nth_unstable_by_key(self.max, rank);
            all.truncate(self.max);
        }
        all.into_iter().collect()
    }

    /// What there are no rules for.
    pub(super) fn left_out(&self, now: Timestamp) -> LeftOut {
        let mut left = LeftOut::default();
        for (net, (end, can)) in &self.bans {
            if end.is_none_or(|end| end > now) && !self.installed.contains_key(net) {
                left.add(*net, *can);
            }
        }
        left
    }

    pub(super) fn installed(&self) -> usize {
        self.installed.len()
    }

    /// Makes changes: a ban with its (new) end, or `None` for one that is gone. All of them are one transaction.
    pub(super) async fn apply(
        &mut self,
        tables: &mut Tables,
        changes: &[(IpNet, Option<End>)],
        now: Timestamp,
    ) -> Result<(), CommitError> {
        self.change(changes);
        let chosen = self.chosen(now);
        if self.installed == chosen {
            return Ok(());
        }
        let mut batch = Batch::new();
        self.write_changes(&mut batch, &tables.rules().sides, &chosen);
        tables.connection.commit(&batch).await?;
        self.done(chosen);
        Ok(())
    }

    /// Writes the rules of all `chosen` bans, over chains that are empty or not there.
    pub(super) fn write_all(batch: &mut Batch, sides: &[Side], chosen: &BTreeMap<IpNet, End>) {
        for side in sides {
            for net in chosen.keys() {
                write_chain(batch, side, *net);
            }
            write_jumps(batch, side, chosen);
        }
    }

    /// Writes what makes of the installed bans the chosen ones.
    fn write_changes(&self, batch: &mut Batch, sides: &[Side], chosen: &BTreeMap<IpNet, End>) {
        for side in sides {
            let Some(bans) = &side.bans else { continue };
            // Where the jumps have no names they are all written anew.
            batch.flush(bans);
            for net in self.installed.keys().filter(|net| !chosen.contains_key(net)) {
                let chain = chain(side, *net);
                batch.flush(&chain).delete(&chain);
            }
            for net in chosen.keys().filter(|net| !self.installed.contains_key(net)) {
                write_chain(batch, side, *net);
            }
            write_jumps(batch, side, chosen);
        }
    }

    /// The kernel has taken it.
    pub(super) fn done(&mut self, chosen: BTreeMap<IpNet, End>) {
        self.installed = chosen;
        let current: BTreeSet<String> = self.bans.keys().map(|net| chain_name(*net)).collect();
        self.counted.retain(|chain, _| current.contains(chain));
    }

    /// The rules that were there are about to go: what they counted is kept.
    pub(super) fn keep_counts(&mut self, listed: &[ListedRule]) {
        for (chain, packets) in counts(listed) {
            *self.counted.entry(chain).or_default() += packets;
        }
    }

    /// Packets stopped, by ban.
    pub(super) fn packets(&self, listed: &[ListedRule]) -> HashMap<IpNet, u64> {
        let mut now = self.counted.clone();
        for (chain, packets) in counts(listed) {
            *now.entry(chain).or_default() += packets;
        }
        let of = |net: &IpNet| Some((*net, *now.get(&chain_name(*net))?));
        self.bans.keys().filter_map(of).collect()
    }
}

/// What the rules of each ban have counted.
fn counts(listed: &[ListedRule]) -> impl Iterator<Item = (String, u64)> {
    listed.iter().filter(|rule| rule.chain.starts_with(BAN)).flat_map(|rule| {
        rule.exprs.iter().filter_map(|expr| match expr {
            Expr::Counter { packets, .. } => Some((rule.chain.to_string(), *packets)),
            _ => None,
        })
    })
}

/// What the chain of a ban begins with; no other chain of ours does.
const BAN: &str = "header_ban_";

/// `header_ban_203.0.113.7`, `header_ban_2001-db8--/64`: nft(8) takes no colons in names.
fn chain_name(net: IpNet) -> String {
    let text =
        if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
    format!("{BAN}{}", text.replace(':', "-"))
}

fn chain(side: &Side, net: IpNet) -> Chain {
    Chain::new(&side.table, &chain_name(net))
}

fn search(chain: &Chain, pattern: &Pattern) -> Option<Rule> {
    Some(Rule::new(chain).expr(Expr::xt_string(&pattern.bytes, pattern.ignore_case, WINDOW)?))
}

fn write_chain(batch: &mut Batch, side: &Side, net: IpNet) {
    let chain = chain(side, net);
    batch.add(&chain).flush(&chain);
    for rule in patterns(net).iter().flatten().filter_map(|pattern| search(&chain, pattern)) {
        batch.add(stop(rule.counter(), side.reset));
    }
}

fn write_jumps(batch: &mut Batch, side: &Side, chosen: &BTreeMap<IpNet, End>) {
    let Some(bans) = &side.bans else { return };
    for (net, end) in chosen {
        let Some(pattern) = patterns(*net).as_deref().and_then(common) else { continue };
        let rule = Rule::new(bans);
        // It ends on time also when nobody is there to take the rule out.
        let rule = match end {
            Some(end) => rule.before(u64::try_from(end.as_millis()).unwrap_or(0).div_ceil(1000)),
            None => rule,
        };
        let Some(search) = Expr::xt_string(&pattern.bytes, pattern.ignore_case, WINDOW) else { continue };
        batch.add(rule.expr(search).jump(&chain(side, *net)).comment(&net.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn bans(list: &[(&str, Option<i64>)]) -> Vec<(IpNet, End)> {
        list.iter().map(|(text, end)| (net(text), end.map(Timestamp::from_secs))).collect()
    }

    fn names(chosen: &BTreeMap<IpNet, End>) -> Vec<String> {
        chosen.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn those_that_end_last_are_kept() {
        let mut strings = Strings::new(2);
        strings.replace(&bans(&[
            ("192.0.2.1/32", Some(2000)),
            ("192.0.2.2/32", None),
            ("192.0.2.3/32", Some(3000)),
            ("192.0.2.4/32", Some(1000)),
            ("2001:db8::/56", None),
        ]));
        let chosen = strings.chosen(NOW);
        assert_eq!(names(&chosen), ["192.0.2.2/32", "192.0.2.3/32"]);
        strings.done(chosen);
        let left = strings.left_out(NOW);
        assert_eq!((left.too_many, left.unsayable, left.count()), (1, 1, 2), "what is over is not left out");
        // A prolonged one takes the place of one that ends before it, and one that is gone leaves its place.
        strings.change(&[(net("192.0.2.1/32"), Some(Some(Timestamp::from_secs(4000))))]);
        assert_eq!(names(&strings.chosen(NOW)), ["192.0.2.1/32", "192.0.2.2/32"]);
        strings.change(&[(net("192.0.2.2/32"), None)]);
        assert_eq!(names(&strings.chosen(NOW)), ["192.0.2.1/32", "192.0.2.3/32"]);
    }

    #[test]
    fn of_those_that_end_together_it_is_always_the_same_ones() {
        let all: Vec<(IpNet, End)> = (0..100).map(|n| (net(&format!("192.0.2.{n}/32")), None)).collect();
        let chosen = |all: &[(IpNet, End)]| {
            let mut strings = Strings::new(10);
            strings.replace(all);
            names(&strings.chosen(NOW))
        };
        let turned: Vec<(IpNet, End)> = all.iter().rev().copied().collect();
        assert_eq!(chosen(&all), chosen(&turned));
        assert_eq!(chosen(&all).len(), 10);
    }

    #[test]
    fn a_ban_has_a_chain_that_nft_can_name() {
        assert_eq!(chain_name(net("203.0.113.7/32")), "header_ban_203.0.113.7");
        assert_eq!(chain_name(net("2001:db8::/64")), "header_ban_2001-db8--/64");
        assert!(super::super::is_header_chain(&chain_name(net("::/128"))));
    }
}
