//! The rules that look into request heads, as nf_tables objects: chains of our own in `inet stockade`, and a table
//! `bridge stockade` for containers on one bridge.
//!
//! ```text
//! headers_in, headers_out    base chains: what arrives, and what a proxy on this host sends
//!   headers_bridge           base chain of the bridge table
//! headers                    only TCP whose payload begins like a head comes here
//!   header_proxy             PROXY protocol version 2: the source in it is looked up in the sets of the other bans
//!   header_names             by string: one rule for each header to look into, if it is in the packet
//!   header_bans              one rule for each ban ...
//!     header_203.0.113.7     ... to a chain of its own, with the exact texts
//! ```

use std::fmt;

use nft::{
    Batch, Chain, ChainType, Expr, Family, Field, Hook, PayloadBase, Reject, Rule, Set, Table, TableContent,
    priority,
};

use super::can::{Can, Gate};
use crate::config::{HeaderAction, Headers, MatcherChoice};
use crate::kernel::layout::{Kind, Layout, SetId};
use crate::kernel::ruleset;

const TCP: u8 = 6;
/// What every PROXY protocol header of version 2 begins with (HAProxy's proxy-protocol.txt, section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What one of version 1 begins with.
const VERSION_1: &[u8] = b"PROXY ";
/// Where in one of version 2 the family stands, and its two values with addresses of TCP connections; then the source address.
const FAMILY: u16 = 13;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const SOURCE: u16 = 16;
/// A head begins with a letter, a PROXY protocol header of version 2 with a carriage return. TLS records begin with less.
const FIRST_BYTE: (u8, u8) = (0x0d, 0x7e);
/// In the end of every request line of HTTP/1. With it in front, packets that hold no request are searched once.
const REQUEST: &[u8] = b" HTTP/1.";
/// So far into a packet heads are searched; proxies and servers take heads of 8 KB by default.
pub(super) const WINDOW: u16 = 8192;

/// Whether a chain of this name is about headers, in our table.
#[must_use]
pub fn is_header_chain(name: &str) -> bool {
    name.starts_with("header")
}

/// What calls a matcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing does.
    Not,
    /// One expression decides, for all bans.
    At {
        /// The expression.
        expr: Expr,
        /// What the rule says about itself.
        comment: String,
    },
    /// The rules in `header_bans` do.
    Bans,
}

/// The static objects of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The table.
    pub table: Table,
    /// In the order they are made: those that others jump to come first.
    pub chains: Vec<Chain>,
    /// Rules of the chains.
    pub rules: Vec<Rule>,
    /// Where rules of bans go; `None` where they are not by string.
    pub bans: Option<Chain>,
    /// What happens to a request that names a banned address.
    pub reset: bool,
}

/// All static objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Sets of the other bans, which PROXY protocol headers are looked up in.
    sets: Vec<Set>,
    /// The table `inet`, and `bridge` where this kernel has it.
    pub sides: Vec<Side>,
}

impl HeaderRules {
    /// The rules as `config` wants them and as far as this kernel `can`, in tables called `table`.
    #[must_use]
    pub fn new(table: &str, layout: &Layout, config: &Headers, can: &Can, look: &Look) -> Self {
        let reset = config.action == HeaderAction::Reset;
        let inet = Table::new(Family::Inet, table);
        let proxy = config.proxy_protocol && can.gate == Gate::Inner;
        let scope = layout.sets().filter(|id| id.scope == 0);
        let sets: Vec<(SetId, Set)> =
            scope.filter(|_| proxy).map(|id| (id, ruleset::bans(&inet, &layout.name(id), id.kind))).collect();
        let mut sides = Vec::new();
        if proxy || *look != Look::Not {
            let bases = [("headers_in", Hook::Prerouting), ("headers_out", Hook::Output)]
                .map(|(name, hook)| base(&inet, name, hook, priority::RAW));
            sides.push(Side::new(&inet, &bases, can.gate, &sets, look, config, reset && can.reset));
        }
        if let (Some(can_bridge), true) = (&can.bridge, *look != Look::Not) {
            let bridge = Table::new(Family::Bridge, table);
            let base = if reset && can_bridge.reset {
                // After br_netfilter (NF_BR_PRI_BRNF, 0), which shows the packet to the table inet, if it does.
                base(&bridge, "headers_bridge", Hook::Prerouting, AFTER_BR_NETFILTER)
            } else {
                base(&bridge, "headers_bridge", Hook::Forward, priority::BRIDGE_FILTER)
            };
            sides.push(Side::new(&bridge, &[base], can.gate, &[], look, config, reset && can_bridge.reset));
        }
        Self { sets: sets.into_iter().map(|(_, set)| set).collect(), sides }
    }

    /// Whether this chain, as it is listed, is one of them, with the same hook.
    pub(super) fn has(&self, chain: &Chain) -> bool {
        let of_table = self.sides.iter().filter(|side| side.table.family() == chain.family());
        of_table
            .flat_map(|side| &side.chains)
            .any(|c| c.name() == chain.name() && c.hooked() == chain.hooked())
    }

    /// Whether it has a table of family bridge.
    pub(super) fn has_bridge(&self) -> bool {
        self.sides.iter().any(|side| !side.is_inet())
    }

    /// Writes everything but the bans anew. In one transaction no packet passes between.
    pub(super) fn build(&self, batch: &mut Batch) {
        for side in &self.sides {
            batch.add(&side.table);
            for set in self.sets.iter().filter(|_| side.is_inet()) {
                batch.add(set);
            }
            for chain in &side.chains {
                batch.add(chain);
            }
            for chain in &side.chains {
                batch.flush(chain);
            }
            for rule in &side.rules {
                batch.add(rule);
            }
        }
    }
}

/// Finds the request line.
pub(super) fn request() -> Option<Expr> {
    Expr::xt_string(REQUEST, false, WINDOW)
}

/// A priority of the bridge family behind br_netfilter's.
pub(super) const AFTER_BR_NETFILTER: i32 = 10;

pub(super) fn base(table: &Table, name: &str, hook: Hook, priority: i32) -> Chain {
    Chain::new(table, name).base(ChainType::Filter, hook, priority)
}

/// Only what can begin a request: acknowledgements without payload and encrypted records go no further.
pub(super) fn gate(rule: Rule, gate: Gate) -> Rule {
    let (base, offset) = match gate {
        Gate::Inner => (PayloadBase::Inner, 0),
        // Behind a TCP header with time stamps, which is 32 bytes long. Where it has none, these are 12 bytes into the
        // payload, and a head has printable text there, too.
        Gate::Transport => (PayloadBase::Transport, 32),
    };
    let (first, last) = FIRST_BYTE;
    rule.meta_l4proto(TCP).field_between(Field::Raw { base, offset, len: 1 }, &[first], &[last])
}

pub(super) fn stop(rule: Rule, reset: bool) -> Rule {
    if reset { rule.reject(Reject::TcpReset) } else { rule.drop() }
}

impl Side {
    fn new(
        table: &Table,
        bases: &[Chain],
        open: Gate,
        sets: &[(SetId, Set)],
        look: &Look,
        config: &Headers,
        reset: bool,
    ) -> Self {
        let headers = Chain::new(table, "headers");
        let mut chains = Vec::new();
        let mut rules: Vec<Rule> =
            bases.iter().map(|base| gate(Rule::new(base), open).jump(&headers)).collect();
        if !sets.is_empty() {
            let proxy = Chain::new(table, "header_proxy");
            rules.push(Rule::new(&headers).payload(PayloadBase::Inner, 0, SIGNATURE).jump(&proxy));
            rules
                .extend(sets.iter().map(|(id, set)| stop(source_in(Rule::new(&proxy), id.kind, set), reset)));
            chains.push(proxy);
        }
        let mut bans = None;
        match look {
            Look::Not => {}
            Look::At { expr, comment } => {
                if !config.proxy_protocol && open == Gate::Inner {
                    // One expression that looks into PROXY protocol headers too.
                    for beginning in [&SIGNATURE[..], VERSION_1] {
                        rules.push(Rule::new(&headers).payload(PayloadBase::Inner, 0, beginning).return_());
                    }
                }
                rules.push(stop(Rule::new(&headers).expr(expr.clone()).counter(), reset).comment(comment));
            }
            Look::Bans => {
                let chain = Chain::new(table, "header_bans");
                let named = Chain::new(table, "header_names");
                rules.extend(
                    request()
                        .map(|e| Rule::new(&headers).expr(e).jump(&named).comment("a request of HTTP/1")),
                );
                for name in &config.names {
                    let header = Expr::xt_string(format!("\n{name}:").as_bytes(), true, WINDOW);
                    // Not a jump: a packet with several of them is searched once.
                    rules.extend(header.map(|e| Rule::new(&named).expr(e).goto(&chain).comment(name)));
                }
                chains.extend([chain.clone(), named]);
                bans = Some(chain);
            }
        }
        chains.push(headers);
        chains.extend_from_slice(bases);
        Self { table: table.clone(), chains, rules, bans, reset }
    }

    fn is_inet(&self) -> bool {
        self.table.family() == Family::Inet
    }

    /// To be printed.
    fn content(&self) -> impl Iterator<Item = (Chain, Vec<Rule>)> {
        self.chains.iter().map(|chain| {
            let of_chain = self.rules.iter().filter(|rule| rule.chain() == chain.name());
            (chain.clone(), of_chain.cloned().collect())
        })
    }
}

/// The source that a PROXY protocol header of version 2 names is in the set.
fn source_in(rule: Rule, kind: Kind, set: &Set) -> Rule {
    let (family, len) = if kind.is_ipv6() { (TCP_OVER_IPV6, 16) } else { (TCP_OVER_IPV4, 4) };
    let source = Field::Raw { base: PayloadBase::Inner, offset: SOURCE, len };
    let rule = rule.payload(PayloadBase::Inner, FAMILY, &[family]);
    match kind {
        Kind::Prefix6(length) => rule.field_masked_in(source, length, set),
        _ => rule.field_in(source, set),
    }
}

impl HeaderRules {
    /// The rules as `config` wants them, in a kernel that has what kernels of distributions have; to be shown to people.
    #[must_use]
    pub fn planned(layout: &Layout, config: &Headers) -> Self {
        let look = match config.matcher {
            MatcherChoice::Auto | MatcherChoice::Bpf => Look::At {
                expr: Expr::Match { name: "bpf".into(), rev: 1, info: Box::default() },
                comment: "bpf program".to_owned(),
            },
            MatcherChoice::String => Look::Bans,
            MatcherChoice::Legacy | MatcherChoice::Off => Look::Not,
        };
        Self::new(ruleset::TABLE, layout, config, &Can::all(), &look)
    }

    /// Appends what is in table inet to what else is there, to be printed.
    #[must_use]
    pub fn beside(&self, mut inet: TableContent) -> TableContent {
        for side in self.sides.iter().filter(|side| side.is_inet()) {
            inet.chains.extend(side.content());
        }
        inet
    }
}

impl fmt::Display for HeaderRules {
    /// The table of family bridge, as `nft list table bridge stockade` prints it, without bans.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for side in self.sides.iter().filter(|side| !side.is_inet()) {
            let chains = side.content().collect();
            write!(f, "{}", TableContent { table: side.table.clone(), sets: Vec::new(), chains })?;
        }
        Ok(())
    }
}
