//! What is installed, read over netlink, and written again elsewhere just as it is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nft::bpf::Program;
use nft::{
    Batch, Chain, Connection, Element, Expr, Family, KeyType, ListError, ListedRule, Set, Table, Value,
};

use crate::cli::exit;
use crate::commands::Failure;
use crate::kernel::header::is_header_chain;
use crate::kernel::ruleset::TABLE;
use crate::kernel::{Kind, parse_comment};

/// So often everything is read again because somebody changed something meanwhile. A reading that is not of one piece is
/// still used: an agent that bans all the time is no reason to say nothing.
const ATTEMPTS: usize = 3;
/// As many to a batch: measured to be the fastest for elements, and rules are 400 bytes.
const PER_BATCH: usize = 1000;
/// What a rule that calls a BPF program says of itself, in front of the program's number.
const PROGRAM: &str = "bpf program ";

/// All objects of our tables.
pub(super) struct Installed {
    tables: Vec<Table>,
    sets: Vec<(Set, Vec<Element>)>,
    chains: Vec<Chain>,
    rules: Vec<ListedRule>,
    /// The programs that rules call. They must be held until the copy is written.
    _programs: Vec<Program>,
    /// Why rules about request heads are missing in the copy.
    pub(super) without_heads: Option<String>,
}

/// An element that an address falls under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cover {
    /// The name of its set.
    pub(super) set: String,
    /// Its key, as nft prints it.
    pub(super) element: String,
    /// The jail that its comment names.
    pub(super) jail: Option<String>,
    /// Time left; `None` for never.
    pub(super) left: Option<Duration>,
    /// Packets it has counted.
    pub(super) packets: Option<u64>,
}

impl Installed {
    /// Reads everything; `None` when there is nothing of ours.
    pub(super) async fn read(kernel: &mut Connection) -> Result<Option<Self>> {
        let mut installed = None;
        for _ in 0..ATTEMPTS {
            let before = kernel.generation().await.map_err(refused)?;
            installed = Self::read_once(kernel).await.map_err(refused)?;
            if kernel.generation().await.map_err(refused)? == before {
                break;
            }
        }
        Ok(installed.map(Self::with_programs))
    }

    async fn read_once(kernel: &mut Connection) -> Result<Option<Self>, ListError> {
        let ours =
            |table: &Table| table.name() == TABLE && matches!(table.family(), Family::Inet | Family::Bridge);
        let tables: Vec<Table> = kernel.tables().await?.into_iter().filter(ours).collect();
        if tables.is_empty() {
            return Ok(None);
        }
        let (mut sets, mut chains, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for table in &tables {
            for set in kernel.sets(table).await? {
                let elements = kernel.elements(&set).await?;
                sets.push((set, elements));
            }
            chains.extend(kernel.chains(table).await?);
            rules.extend(kernel.rules(table).await?);
        }
        let (programs, without_heads) = (Vec::new(), None);
        Ok(Some(Self { tables, sets, chains, rules, _programs: programs, without_heads }))
    }

    /// A rule is listed with the descriptor its program had in the agent: opens the program by its number. Rules whose
    /// program cannot be had are left out, which is kept in mind.
    fn with_programs(mut self) -> Self {
        let mut programs = Vec::new();
        let mut without = None;
        self.rules.retain_mut(|rule| {
            let Some(calls) = rule.exprs.iter_mut().find(|expr| is_bpf(expr)) else { return true };
            match program(rule.comment.as_deref()) {
                Ok(program) => {
                    *calls = program.expr();
                    programs.push(program);
                    true
                }
                Err(why) => {
                    without = Some(why);
                    false
                }
            }
        });
        Self { _programs: programs, without_heads: without, ..self }
    }

    /// Writes everything into another network namespace, where nothing is yet.
    pub(super) async fn write(&self, kernel: &mut Connection) -> Result<()> {
        for batch in self.batches() {
            kernel.commit(&batch).await.context("failed to copy the ruleset")?;
        }
        Ok(())
    }

    fn batches(&self) -> impl Iterator<Item = Batch> {
        let mut objects = Batch::new();
        for table in &self.tables {
            objects.add(table);
        }
        for (set, _) in &self.sets {
            objects.add(set);
        }
        for chain in &self.chains {
            objects.add(chain);
        }
        let elements = self.sets.iter().flat_map(|(set, elements)| {
            elements.chunks(PER_BATCH).map(|some| {
                let mut batch = Batch::new();
                // What is left of its time is all the time the copy has; none is left of what is just about to go.
                let current = some.iter().filter(|element| element.expires != Some(Duration::ZERO));
                batch.add_elements(
                    set,
                    current.map(|element| Element { timeout: element.expires, ..element.clone() }),
                );
                batch
            })
        });
        let rules = self.rules.chunks(PER_BATCH).map(|some| {
            let mut batch = Batch::new();
            for rule in some {
                batch.add(rule.rule());
            }
            batch
        });
        std::iter::once(objects).chain(elements).chain(rules)
    }

    /// The elements that `address` falls under as a source.
    pub(super) fn covers(&self, address: IpAddr) -> Vec<Cover> {
        self.sets.iter().flat_map(|(set, elements)| covers(set, elements, address)).collect()
    }

    /// The same in the copy, where they begin to count at zero.
    pub(super) async fn covers_now(&self, kernel: &mut Connection, address: IpAddr) -> Result<Vec<Cover>> {
        let mut all = Vec::new();
        for (set, elements) in &self.sets {
            if covers(set, elements, address).next().is_some() {
                let elements = kernel.elements(set).await?;
                all.extend(covers(set, &elements, address));
            }
        }
        Ok(all)
    }

    /// The ports that bans of some jails are limited to.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        let services = self.sets.iter().filter(|(set, _)| set.key().types() == [KeyType::InetService]);
        services
            .flat_map(|(_, elements)| elements)
            .filter_map(|element| match element.key.values() {
                [Value::Service(port)] => Some(*port),
                _ => None,
            })
            .collect()
    }

    /// Whether any rule is about request heads.
    pub(super) fn has_heads(&self) -> bool {
        self.rules.iter().any(|rule| is_header_chain(&rule.chain))
    }
}

/// A rule that has counted something, in the copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Counted {
    /// `inet` or `bridge`.
    pub(super) family: String,
    /// Its chain.
    pub(super) chain: String,
    /// The kernel's number for it.
    pub(super) handle: u64,
    /// What it says about itself.
    pub(super) comment: Option<String>,
    /// Packets.
    pub(super) packets: u64,
}

/// The rules of the copy that count, with what they have counted.
pub(super) async fn counted(installed: &Installed, kernel: &mut Connection) -> Result<Vec<Counted>> {
    let mut all = Vec::new();
    for table in &installed.tables {
        for rule in kernel.rules(table).await? {
            let counter = rule.exprs.iter().find_map(|expr| match expr {
                Expr::Counter { packets, .. } => Some(*packets),
                _ => None,
            });
            all.extend(counter.map(|packets| Counted {
                family: rule.family.to_string(),
                chain: rule.chain.to_string(),
                handle: rule.handle,
                comment: rule.comment.as_deref().map(str::to_owned),
                packets,
            }));
        }
    }
    Ok(all)
}

fn covers<'a>(set: &'a Set, elements: &'a [Element], address: IpAddr) -> impl Iterator<Item = Cover> + 'a {
    let masked = match Kind::of_name(set.name()) {
        Some(Kind::Prefix6(length)) => {
            ipnet::IpNet::new(address, length).map_or(address, |net| net.network())
        }
        _ => address,
    };
    elements.iter().filter(move |element| element.key.covers(masked)).map(|element| Cover {
        set: set.name().to_owned(),
        element: element.key.to_string(),
        jail: element.comment.as_deref().and_then(parse_comment).map(|(jail, ..)| jail.to_owned()),
        left: element.expires,
        packets: element.counter.map(|counter| counter.packets),
    })
}

fn is_bpf(expr: &Expr) -> bool {
    matches!(expr, Expr::Match { name, .. } if &**name == "bpf")
}

fn program(comment: Option<&str>) -> Result<Program, String> {
    let id = comment.and_then(|comment| comment.strip_prefix(PROGRAM)?.parse().ok());
    let id: u32 = id.ok_or("a rule calls a BPF program and does not say which")?;
    Program::by_id(id).map_err(|e| {
        format!("BPF program {id} cannot be opened ({e}): it takes root with CAP_SYS_ADMIN on the host, not only in a container")
    })
}

fn refused(error: ListError) -> anyhow::Error {
    if error.is_permission() {
        return Failure::new(exit::REFUSED, format!("{error}: this needs CAP_NET_ADMIN, so run it as root"))
            .into();
    }
    error.into()
}
