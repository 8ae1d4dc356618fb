//! What others have in front of our hook, and whether it matters.
//!
//! A drop is final and an accept only ends the chain it stands in, so most of what comes before ours changes nothing. Two
//! things do: what takes packets away before prerouting (`fwd`, flowtables), and what changes the addresses and ports we
//! look at. Programs at XDP or tc come earlier still, and nf_tables knows nothing of them.

use std::collections::BTreeMap;
use std::fmt;

use nft::{Chain, Connection, Expr, Family, Flowtable, Hook, ListError, ListedRule, Table, priority};

use crate::kernel::ruleset::TABLE;

/// What is in nf_tables, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// All tables.
    pub tables: Vec<Table>,
    /// All chains.
    pub chains: Vec<Chain>,
    /// All flowtables.
    pub flowtables: Vec<Flowtable>,
    /// The rules of the tables with a base chain in front of ours.
    pub rules: Vec<ListedRule>,
}

/// Something in front of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Early {
    /// What it is and where.
    pub what: String,
    /// What it does to bans, and what can be done about it; `None`: nothing.
    pub matters: Option<Matter>,
}

/// What matters about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matter {
    /// What happens.
    pub effect: &'static str,
    /// What can be done.
    pub advice: &'static str,
}

impl View {
    /// Lists what there is.
    ///
    /// # Errors
    /// For want of `CAP_NET_ADMIN`, or of nf_tables.
    pub async fn read(connection: &mut Connection) -> Result<Self, ListError> {
        let tables = connection.tables().await?;
        let mut view = Self { flowtables: connection.flowtables().await?, ..Self::default() };
        for table in &tables {
            let chains = match connection.chains(table).await {
                Ok(chains) => chains,
                // It went between the two questions.
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            };
            if table.name() != TABLE && chains.iter().any(|chain| place(chain).is_some()) {
                view.rules.extend(connection.rules(table).await?);
            }
            view.chains.extend(chains);
        }
        view.tables = tables;
        Ok(view)
    }

    /// Whether there is such a table.
    #[must_use]
    pub fn has_table(&self, family: Family, name: &str) -> bool {
        self.tables.iter().any(|table| (table.family(), table.name()) == (family, name))
    }

    /// Whether there is such a chain.
    #[must_use]
    pub fn has_chain(&self, family: Family, table: &str, name: &str) -> bool {
        self.chains.iter().any(|chain| (chain.family(), chain.table(), chain.name()) == (family, table, name))
    }

    /// What others have in front of our hook.
    #[must_use]
    pub fn before_ours(&self) -> Vec<Early> {
        let mut found = Vec::new();
        for chain in self.chains.iter().filter(|chain| chain.table() != TABLE) {
            let Some(place) = place(chain) else { continue };
            let what = format!("chain {} {} {} ({place})", chain.family(), chain.table(), chain.name());
            found.push(Early { what, matters: self.matter(chain) });
        }
        found.extend(self.flowtables.iter().map(|flowtable| Early {
            what: format!("flowtable {} {} {}", flowtable.family(), flowtable.table(), flowtable.name()),
            matters: Some(Matter {
                effect: "forwarded connections that are in it pass no other hook: a ban does not cut those that are open, and \
                         no request on them is looked at; new connections are stopped",
                advice: "let the rule that adds to it leave out the ports that are guarded, e.g. tcp dport != { 80, 443 }",
            }),
        }));
        found
    }

    /// What the rules that a chain reaches do, the table's plain chains being taken as reached.
    fn matter(&self, chain: &Chain) -> Option<Matter> {
        let base: BTreeMap<&str, bool> = self
            .chains
            .iter()
            .filter(|other| (other.family(), other.table()) == (chain.family(), chain.table()))
            .map(|other| (other.name(), other.hooked().is_some()))
            .collect();
        let reached = |rule: &&ListedRule| {
            (rule.family, &*rule.table) == (chain.family(), chain.table())
                && (&*rule.chain == chain.name() || base.get(&*rule.chain) == Some(&false))
        };
        let mut named = self.rules.iter().filter(reached).flat_map(|rule| &rule.exprs);
        named.find_map(|expr| match expr {
            // Loading from the packet has a name of its own: what is left under this one writes to it.
            Expr::Raw { name, .. } if &**name == "payload" => Some(Matter {
                effect: "it rewrites packets: an address or port that is changed there is not what a ban looks up",
                advice: "rewrite later, at a priority above -300, if it is the source or a guarded port that is changed",
            }),
            Expr::Raw { name, .. } if &**name == "fwd" => Some(Matter {
                effect: "it sends packets out by another interface before a ban can see them",
                advice: "have it leave out what is guarded by bans",
            }),
            _ => None,
        })
    }
}

/// Where a base chain is in front of ours; `None` for all others.
fn place(chain: &Chain) -> Option<Place> {
    let base = chain.hooked()?;
    /// `NF_NETDEV_INGRESS` and `NF_INET_INGRESS` of linux/netfilter.h.
    const NETDEV_INGRESS: u32 = 0;
    const INET_INGRESS: u32 = 5;
    match (chain.family(), base.hook) {
        (Family::Netdev, Hook::Other(NETDEV_INGRESS)) | (Family::Inet, Hook::Other(INET_INGRESS)) => {
            Some(Place::Ingress)
        }
        // Those of the same priority as ours may come before it or after it.
        (Family::Inet | Family::Ip | Family::Ip6 | Family::Bridge, Hook::Prerouting)
            if base.priority <= priority::RAW =>
        {
            Some(Place::Prerouting(base.priority))
        }
        _ => None,
    }
}

enum Place {
    Ingress,
    Prerouting(i32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ingress => f.write_str("ingress"),
            Self::Prerouting(priority) => write!(f, "prerouting, priority {priority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use nft::ChainType;

    use super::*;

    fn rule(chain: &Chain, exprs: Vec<Expr>) -> ListedRule {
        ListedRule {
            family: chain.family(),
            table: chain.table().into(),
            chain: chain.name().into(),
            handle: 1,
            exprs,
            comment: None,
        }
    }

    fn raw(name: &str) -> Expr {
        Expr::Raw { name: name.into(), data: [].into() }
    }

    fn matters(early: &[Early]) -> Vec<(&str, bool)> {
        early.iter().map(|early| (early.what.as_str(), early.matters.is_some())).collect()
    }

    #[test]
    fn only_what_comes_before_ours_is_told_and_only_rewriting_matters() {
        let table = Table::new(Family::Ip, "t");
        let chain = |name, hook, priority| Chain::new(&table, name).base(ChainType::Filter, hook, priority);
        let early = chain("early", Hook::Prerouting, -310);
        let late = chain("late", Hook::Prerouting, -150);
        let input = chain("input", Hook::Input, -400);
        let helper = Chain::new(&table, "helper");
        let ours = Chain::new(&Table::new(Family::Inet, TABLE), "prerouting").base(
            ChainType::Filter,
            Hook::Prerouting,
            -300,
        );
        let mut view = View {
            chains: vec![early.clone(), late.clone(), input, helper.clone(), ours],
            rules: vec![rule(&early, vec![raw("notrack")]), rule(&late, vec![raw("payload")])],
            ..View::default()
        };
        let what = "chain ip t early (prerouting, priority -310)";
        assert_eq!(
            matters(&view.before_ours()),
            [(what, false)],
            "what a later chain rewrites comes after us"
        );
        view.rules.push(rule(&helper, vec![raw("payload")]));
        assert_eq!(matters(&view.before_ours()), [(what, true)], "a chain that may be jumped to counts");
    }

    #[test]
    fn a_flowtable_carries_open_connections_past_us() {
        let flowtable = Flowtable::new(&Table::new(Family::Inet, "filter"), "fast");
        let view = View { flowtables: vec![flowtable], ..View::default() };
        assert_eq!(matters(&view.before_ours()), [("flowtable inet filter fast", true)]);
    }

    #[test]
    fn ingress_comes_before_everything() {
        let table = Table::new(Family::Netdev, "t");
        let ingress = Chain::new(&table, "in").base(ChainType::Filter, Hook::Other(0), 0);
        let egress = Chain::new(&table, "out").base(ChainType::Filter, Hook::Other(1), 0);
        let mut view = View { chains: vec![ingress.clone(), egress], ..View::default() };
        assert_eq!(matters(&view.before_ours()), [("chain netdev t in (ingress)", false)]);
        view.rules.push(rule(&ingress, vec![raw("fwd")]));
        assert_eq!(matters(&view.before_ours()), [("chain netdev t in (ingress)", true)]);
    }
}
