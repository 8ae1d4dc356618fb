//! Our table as nf_tables objects: static rules over dynamic sets.
//!
//! The base chain hooks at prerouting with priority raw (−300), before conntrack, before NAT and before any accept of
//! others; so a drop here holds for the host's own services and for published container ports alike, and whatever
//! Docker, ufw or firewalld accept later. The ports of a scope are those that the client dialed.

use ipnet::IpNet;
use nft::{Batch, Chain, Element, Family, Hook, KeyType, Policy, Rule, Set, Table, priority};

use super::layout::{Kind, Layout, SetId};

/// The table's name, in family inet.
pub const TABLE: &str = "stockade";
const CHAIN: &str = "prerouting";

/// The objects of our table.
#[derive(Debug)]
pub struct Ruleset {
    layout: Layout,
    table: Table,
    sets: Vec<(SetId, Set)>,
    /// The ports of each scope but the first, in the order of the scopes.
    ports: Vec<(Set, Vec<u16>)>,
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}
