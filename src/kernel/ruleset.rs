//! Our table as nf_tables objects: static rules over dynamic sets.
//!
//! The base chain hooks at prerouting with priority raw (−300), before conntrack, before NAT and before any accept of
//! others; so a drop here holds for the host's own services and for published container ports alike, whatever Docker,
//! ufw or firewalld accept later. The ports of a scope are those that the client dialed.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use nft::{
    Batch, Chain, ChainType, CommitError, Connection, Element, Family, Hook, KeyType, Rejection, Rule, Set,
    Table, TableContent, priority,
};

use super::header::{HeaderRules, is_header_chain};
use super::layout::{Kind, Layout, SetId};

/// The table's name, in family inet.
pub const TABLE: &str = "stockade";
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The objects of our table.
#[derive(Debug)]
pub struct Ruleset {
    layout: Layout,
    table: Table,
    sets: Vec<(SetId, Set)>,
    /// The ports of each scope but the first, in the order of the scopes.
    ports: Vec<(Set, Vec<u16>)>,
    /// In the order they are made: those that others jump to come first.
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}

impl Ruleset {
    /// The table for this layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self::in_table(layout, Table::new(Family::Inet, TABLE))
    }

    /// The same in another table, to ask what the kernel says to it without being in the way of ours.
    #[must_use]
    pub fn in_table(layout: Layout, table: Table) -> Self {
        let sets: Vec<(SetId, Set)> =
            layout.sets().map(|id| (id, bans(&table, &layout.name(id), id.kind))).collect();
        let prerouting =
            Chain::new(&table, "prerouting").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
        let mut chains = Vec::new();
        let mut ports = Vec::new();
        let mut rules = lookups(&prerouting, &sets, 0);
        for (n, scope) in layout.scopes.iter().enumerate().skip(1) {
            let chain = Chain::new(&table, &scope.name);
            let dialed = Set::new(&table, &format!("{}_ports", scope.name), KeyType::InetService);
            for protocol in [TCP, UDP] {
                rules.push(Rule::new(&prerouting).meta_l4proto(protocol).th_dport_in(&dialed).jump(&chain));
            }
            rules.extend(lookups(&chain, &sets, n));
            ports.push((dialed, scope.ports.clone()));
            chains.push(chain);
        }
        chains.push(prerouting);
        Self { layout, table, sets, ports, chains, rules }
    }

    /// The layout it was made for.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The table itself.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether it has a set of this name.
    #[must_use]
    pub fn has_set(&self, name: &str) -> bool {
        let bans = self.sets.iter().map(|(_, set)| set);
        bans.chain(self.ports.iter().map(|(set, _)| set)).any(|set| set.name() == name)
    }

    /// Whether it has a chain of this name, or one about headers may have it.
    #[must_use]
    pub fn has_chain(&self, name: &str) -> bool {
        is_header_chain(name) || self.chains.iter().any(|chain| chain.name() == name)
    }

    /// The sets that hold bans.
    pub fn sets(&self) -> impl Iterator<Item = &(SetId, Set)> {
        self.sets.iter()
    }

    /// One of them.
    #[must_use]
    pub fn set(&self, id: SetId) -> Option<&Set> {
        self.sets.iter().find(|(of, _)| *of == id).map(|(_, set)| set)
    }

    /// Brings everything but the bans into shape, also where parts of it are missing or were changed. What is there
    /// keeps its elements.
    pub(super) fn build(&self, batch: &mut Batch) {
        batch.add(&self.table);
        for (_, set) in &self.sets {
            batch.add(set);
        }
        for (set, ports) in &self.ports {
            batch.add(set).flush(set).add_elements(set, ports.iter().copied());
        }
        for chain in &self.chains {
            batch.add(chain);
        }
        // Rules have no names: the only way to be sure of them is to write them anew. In one transaction no packet
        // passes between.
        for chain in &self.chains {
            batch.flush(chain);
        }
        for rule in &self.rules {
            batch.add(rule);
        }
    }

    /// The same from nothing, in place of whatever is there.
    pub(super) fn rebuild(&self, batch: &mut Batch) {
        self.remove(batch);
        self.build(batch);
    }

    /// Removes the table, there or not, in kernels of any age: 6.3 was the first to know "destroy".
    pub(super) fn remove(&self, batch: &mut Batch) {
        batch.add(&self.table).delete(&self.table);
    }

    /// Whether this kernel would take it: what it refuses. Nothing is committed.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn probe(&self, connection: &mut Connection) -> Result<Vec<Rejection>, CommitError> {
        let mut batch = Batch::new();
        self.build(&mut batch);
        let results = connection.probe(&batch).await?;
        Ok(results.into_iter().filter_map(Result::err).collect())
    }
}

impl fmt::Display for Ruleset {
    /// As `nft list table inet stockade` prints it, without bans.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_elements(&BTreeMap::new()).fmt(f)
    }
}

impl Ruleset {
    /// As `nft list table inet stockade` and then `nft list table bridge stockade` print it, without bans, but with the rules
    /// for request heads.
    #[must_use]
    pub fn with_headers(&self, headers: &HeaderRules) -> String {
        format!("{}\n{headers}", headers.beside(self.with_elements(&BTreeMap::new())))
    }
}

impl Ruleset {
    /// The whole table with these elements in its sets, to be printed.
    #[must_use]
    pub fn with_elements(&self, elements: &BTreeMap<SetId, Vec<Element>>) -> TableContent {
        let bans =
            self.sets.iter().map(|(id, set)| (set.clone(), elements.get(id).cloned().unwrap_or_default()));
        let ports = self.ports.iter().map(|(set, ports)| {
            (set.clone(), ports.iter().map(|port| Element::new(*port)).collect::<Vec<_>>())
        });
        let chains = self.chains.iter().map(|chain| {
            let of_chain = self.rules.iter().filter(|rule| rule.chain() == chain.name());
            (chain.clone(), of_chain.cloned().collect())
        });
        TableContent {
            table: self.table.clone(),
            sets: bans.chain(ports).collect(),
            chains: chains.collect(),
        }
    }
}

/// The key under which `net` stands in a set of this kind: in sets of prefixes, the network's first address.
pub(super) fn key(kind: Kind, net: IpNet) -> Element {
    match kind {
        Kind::Nets4 | Kind::Nets6 => Element::new(net),
        Kind::Single4 | Kind::Single6 | Kind::Prefix6(_) => Element::new(net.network()),
    }
}

/// What [`key`] stands for.
pub(super) fn net(kind: Kind, element: &Element) -> Option<IpNet> {
    let net = element.key.net()?;
    match kind {
        Kind::Prefix6(length) => IpNet::new(net.network(), length).ok(),
        _ => Some(net),
    }
}

pub(super) fn bans(table: &Table, name: &str, kind: Kind) -> Set {
    let key = if kind.is_ipv6() { KeyType::Ipv6Addr } else { KeyType::Ipv4Addr };
    let set = Set::new(table, name, key).timeout().counter();
    if kind.is_interval() { set.interval() } else { set }
}

/// One rule per set of a scope: look the source up, drop.
fn lookups(chain: &Chain, sets: &[(SetId, Set)], scope: usize) -> Vec<Rule> {
    let of_scope = sets.iter().filter(|(id, _)| id.scope == scope);
    of_scope
        .map(|(id, set)| {
            let rule = Rule::new(chain);
            let rule = match id.kind {
                Kind::Single4 | Kind::Nets4 => rule.ip_saddr_in(set),
                Kind::Single6 | Kind::Nets6 => rule.ip6_saddr_in(set),
                Kind::Prefix6(length) => rule.ip6_saddr_masked_in(length, set),
            };
            rule.drop()
        })
        .collect()
}
