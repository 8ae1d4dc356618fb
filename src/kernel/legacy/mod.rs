//! Bans by source on kernels without nf_tables: rules of iptables-legacy that look sources up in ipsets.
//!
//! The sets hold the bans and end them by themselves; the rules are static and in chains of our own. There is no
//! transaction around both, and nobody tells of changes by others: [`Legacy::look`] is asked every few seconds.

mod difference;
mod element;
mod headers;
mod ipset;
mod iptables;
mod names;
mod program;
mod rules;
mod table;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use ipnet::IpNet;

use self::difference::{difference, in_set};
use self::element::Entry;
pub use self::headers::LegacyHeaders;
use self::ipset::{Ipset, Listed};
use self::iptables::{Family, Iptables, Wanted};
use self::names::{Names, is_chain, kind_of_set};
use self::program::Program;
pub use self::program::ProgramError;
use self::rules::{FILTER, RAW};
use self::table::{Table, is_made};
use super::Held;
use super::changes::{Changes, Counts};
use super::desired::{Desired, Want};
use super::layout::{Layout, SetId};
use crate::types::Timestamp;

/// How long an element that ran out may still be counted by the kernel: it sweeps a set every few minutes.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(600);

/// How long before an end that is further away than a timeout reaches is written anew. An element that has more than half
/// of the longest timeout left is not, so this is less than that half.
const RENEWAL: std::time::Duration = std::time::Duration::from_secs(element::LONGEST.as_secs() / 3);
/// How long before what a full set did not take is tried again.
const FULL_RETRY: std::time::Duration = std::time::Duration::from_secs(60);

/// What [`Legacy::look`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing to do.
    Fine,
    /// It is to be reconciled, and that is nobody's fault.
    Due,
    /// Somebody has changed something of ours: what, to be read after "iptables-legacy was".
    Changed(String),
}

/// Why iptables-legacy or ipset is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Lines that `ipset restore` did not take.
    #[error("ipset refused `{line}`{}: {complaint}", more(*.others))]
    Refused {
        /// The first of them.
        line: String,
        /// Why.
        complaint: String,
        /// How many others.
        others: usize,
    },
}

fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" and {others} other lines") }
}

/// Whether the programs of iptables-legacy are installed; they are asked for their version at most.
///
/// # Errors
/// The first that is not.
pub async fn find_programs() -> Result<(), ProgramError> {
    for family in [Family::Ipv4, Family::Ipv6] {
        Iptables::find(family).await?;
    }
    Ok(())
}

/// Whether ipset's program is installed.
///
/// # Errors
/// When it is not.
pub fn find_ipset() -> Result<(), ProgramError> {
    Program::find("ipset", "ipset").map(drop)
}

/// Whether iptables-legacy's table filter has one of these chains. A table that nobody has made is not made for it.
pub async fn has_filter_chain(names: &[&str]) -> bool {
    if !is_made(Family::Ipv4, FILTER) {
        return false;
    }
    let Ok(programs) = Iptables::find(Family::Ipv4).await else { return false };
    programs.saved(FILTER).await.is_ok_and(|saved| names.iter().any(|name| saved.has_chain(name)))
}

/// The programs, the shape, and what was written.
pub struct Legacy {
    ipset: Ipset,
    tables: Vec<Table>,
    layout: Layout,
    names: Names,
    /// The rules are those of another layout.
    reshaped: bool,
    /// What the sets should hold, as it was written last.
    written: BTreeMap<SetId, HashMap<IpNet, Want>>,
    /// When an end that is further away than a timeout reaches is given a new one.
    renew_at: Option<Timestamp>,
    /// Bans that found no room.
    full: Option<(String, Timestamp)>,
    /// What this host lacks, and what it means.
    lacks: Option<String>,
}

impl Legacy {
    /// Finds the programs and the tables. Nothing is changed yet.
    ///
    /// # Errors
    /// When a program is not installed, or refuses to look. A host without IPv6 is none.
    pub async fn open(layout: Layout) -> Result<Self, LegacyError> {
        let ipset = Ipset(Program::find("ipset", "ipset")?);
        ipset.sets().await?;
        let mut tables = vec![Table::open(Family::Ipv4, &[RAW, FILTER], is_chain).await?];
        let mut lacks = None;
        match Table::open(Family::Ipv6, &[RAW, FILTER], is_chain).await {
            Ok(table) => tables.push(table),
            // Without IPv6 there is nobody to ban there.
            Err(_) if !has_ipv6() => {}
            Err(e) => lacks = Some(format!("IPv6 offenders are not banned: {e}")),
        }
        let names = Names::new(&layout);
        Ok(Self {
            ipset,
            tables,
            layout,
            names,
            reshaped: true,
            written: BTreeMap::new(),
            renew_at: None,
            full: None,
            lacks,
        })
    }

    /// Whether anything of ours can be in this network namespace. Asking the programs would load modules and make tables
    /// on a host that has none.
    #[must_use]
    pub fn may_be_there() -> bool {
        [Family::Ipv4, Family::Ipv6].into_iter().any(|family| is_made(family, RAW) || is_made(family, FILTER))
    }

    /// Whether there are sets of ours, from an agent with any configuration.
    ///
    /// # Errors
    /// When `ipset` fails.
    pub async fn is_there(&self) -> Result<bool, LegacyError> {
        Ok(self.ipset.sets().await?.iter().any(|set| kind_of_set(&set.name).is_some()))
    }

    /// In which table our rules are: `raw`, or `filter` where the kernel has no raw table.
    #[must_use]
    pub fn table(&self) -> &'static str {
        self.tables.first().map_or(RAW, |table| table.name)
    }

    /// What is not in force, and why; `None` when everything is.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.full.as_ref().map(|(full, _)| full.as_str()).or(self.lacks.as_deref())
    }

    /// The shape of our sets.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes another shape; [`reconcile`](Self::reconcile) makes it so.
    pub fn set_layout(&mut self, layout: Layout) {
        self.names = Names::new(&layout);
        self.layout = layout;
        self.reshaped = true;
        // Scopes are numbers: what was written belongs to other sets now.
        self.written.clear();
    }

    /// The sets of the layout that this host can make use of.
    fn sets(&self) -> Vec<(SetId, String)> {
        let ipv6 = self.tables.iter().any(|table| table.family().is_ipv6());
        let usable = self.layout.sets().filter(|id| ipv6 || !id.kind.is_ipv6());
        usable.map(|id| (id, self.names.set(id))).collect()
    }

    /// What our sets hold. A set that is not there holds nothing.
    ///
    /// # Errors
    /// When `ipset` fails.
    pub async fn held(&self, now: Timestamp) -> Result<Vec<(SetId, Held)>, LegacyError> {
        let listed = self.ipset.sets().await?;
        let entries = self.entries(&listed).await?;
        let all = entries.into_iter().flat_map(|(id, all)| all.into_iter().map(move |entry| (id, entry)));
        Ok(all.map(|(id, entry)| (id, held(&entry, now))).collect())
    }

    async fn entries(&self, listed: &[Listed]) -> Result<BTreeMap<SetId, Vec<Entry>>, ProgramError> {
        let mut all = BTreeMap::new();
        for (id, name) in self.sets() {
            if listed.iter().any(|set| set.name == name && set.fits(id.kind) && set.entries != Some(0)) {
                all.insert(id, self.ipset.entries(&name).await?);
            }
        }
        Ok(all)
    }

    /// What the sets of ours hold that are there now, also those that an agent with another configuration made.
    ///
    /// # Errors
    /// When `ipset` fails.
    pub async fn left_behind(&self, now: Timestamp) -> Result<Vec<Held>, LegacyError> {
        let mut all = Vec::new();
        for set in self.ipset.sets().await?.iter().filter(|set| kind_of_set(&set.name).is_some()) {
            all.extend(self.ipset.entries(&set.name).await?.iter().map(|entry| held(entry, now)));
        }
        Ok(all)
    }

    /// Makes sets, elements and rules what they should be. Bans that stay are in force all the while, but for sets of a
    /// make that is not ours, which are replaced.
    ///
    /// # Errors
    /// When a program fails or refuses. What came before that has happened.
    pub async fn reconcile(&mut self, desired: &Desired, now: Timestamp) -> Result<Counts, LegacyError> {
        let desired = self.expand(desired);
        let mut listed = self.ipset.sets().await?;
        let sets = self.sets();
        let misfit = |set: &Listed| sets.iter().any(|(id, name)| *name == set.name && !set.fits(id.kind));
        if listed.iter().any(misfit) {
            tracing::warn!("ipsets with names of ours are of another make: replacing them");
            self.remove().await?;
            listed = self.ipset.sets().await?;
        }
        let found = self.entries(&listed).await?;
        let mut lines: Vec<String> = sets
            .iter()
            .filter(|(_, name)| listed.iter().all(|set| set.name != *name))
            .map(|(id, name)| ipset::create(name, id.kind))
            .collect();
        let mut counts = Counts::default();
        let nothing = HashMap::new();
        for (id, name) in &sets {
            let wants = desired.get(id).unwrap_or(&nothing);
            let held = found.get(id).map(Vec::as_slice).unwrap_or_default();
            difference(name, wants, held, now, &mut lines, &mut counts);
        }
        // Until everything is written it is not known what is.
        self.written.clear();
        let ends = desired.values().flat_map(HashMap::values).any(|want| element::is_renewed(want, now));
        self.renew_at = ends.then(|| now.saturating_add(RENEWAL));
        let refused = self.ipset.restore(lines).await?;
        self.write_rules().await?;
        self.drop_stale_sets(&listed).await;
        self.written = desired;
        self.accept_all(refused, now)?;
        Ok(counts)
    }

    /// The elements by set, with what ipset cannot hold in one element in pieces.
    fn expand(&self, desired: &Desired) -> BTreeMap<SetId, HashMap<IpNet, Want>> {
        let sets = self.sets();
        let mut all: BTreeMap<SetId, HashMap<IpNet, Want>> = BTreeMap::new();
        for ((id, net), want) in desired.iter().filter(|((id, _), _)| sets.iter().any(|(of, _)| of == id)) {
            let set = all.entry(*id).or_default();
            set.extend(element::pieces(*net).into_iter().map(|piece| (piece, want.clone())));
        }
        all
    }

    fn rules(&self, table: &Table) -> Wanted {
        rules::wanted(&self.layout, &self.names, table.family(), table.name)
    }

    async fn write_rules(&mut self) -> Result<(), ProgramError> {
        let mut tables = std::mem::take(&mut self.tables);
        let mut written = Ok(());
        for table in &mut tables {
            let wanted = self.rules(table);
            // Another configuration means other rules in chains that may have the same names.
            let wrote = if self.reshaped { table.rewrite(&wanted).await } else { table.write(&wanted).await };
            written = match wrote {
                Ok(_) => table.clear_other().await,
                Err(e) => Err(e),
            };
            if written.is_err() {
                break;
            }
        }
        self.tables = tables;
        self.reshaped &= written.is_err();
        written
    }

    /// Sets of another configuration, which no rule names any more.
    async fn drop_stale_sets(&self, listed: &[Listed]) {
        let sets = self.sets();
        let stale = listed
            .iter()
            .map(|set| &set.name)
            .filter(|name| kind_of_set(name).is_some() && sets.iter().all(|(_, of)| of != *name));
        let lines: Vec<String> = stale.map(|name| format!("destroy {name}")).collect();
        match self.ipset.restore(lines).await {
            Ok(refused) => {
                for refusal in refused {
                    tracing::warn!("ipset refused `{}`: {}", refusal.line, refusal.complaint);
                }
            }
            Err(e) => tracing::warn!("failed to remove ipsets of another configuration: {e}"),
        }
    }

    /// What was refused of everything that is wanted.
    fn accept_all(&mut self, refused: Vec<ipset::Refusal>, now: Timestamp) -> Result<(), LegacyError> {
        if self.full.take().is_some() && ipset::full(&refused).is_none() {
            tracing::info!("all bans have found room in the ipsets again");
        }
        self.accept(refused, now)
    }

    /// A full set is told and lived with; anything else that was refused is an error.
    fn accept(&mut self, refused: Vec<ipset::Refusal>, now: Timestamp) -> Result<(), LegacyError> {
        if let Some(full) = ipset::full(&refused) {
            tracing::error!("{full}; trying again in {} s", FULL_RETRY.as_secs());
            self.full = Some((full, now.saturating_add(FULL_RETRY)));
        }
        let mut others: Vec<ipset::Refusal> = refused.into_iter().filter(|r| !r.is_full()).collect();
        if others.is_empty() {
            return Ok(());
        }
        let first = others.remove(0);
        Err(LegacyError::Refused { line: first.line, complaint: first.complaint, others: others.len() })
    }

    /// Writes what decisions changed: one process, however many they are.
    ///
    /// # Errors
    /// When `ipset` fails or refuses; then [`reconcile`](Self::reconcile) is due.
    pub async fn apply(&mut self, changes: &Changes, now: Timestamp) -> Result<(), LegacyError> {
        let mut lines = Vec::new();
        for (id, name) in self.sets() {
            let written = self.written.entry(id).or_default();
            let (new, gone) = in_set(changes, id, written);
            for (net, want) in new {
                let Some(line) = element::add(&name, net, &want, now) else { continue };
                if element::is_renewed(&want, now) {
                    let due = now.saturating_add(RENEWAL);
                    self.renew_at = Some(self.renew_at.map_or(due, |at| at.min(due)));
                }
                lines.push(line);
                written.insert(net, want);
            }
            // After what is added: a network that is split must not be open between.
            for net in gone {
                written.remove(&net);
                lines.push(element::del(&name, net));
            }
        }
        let refused = self.ipset.restore(lines).await?;
        self.accept(refused, now)
    }

    /// Whether somebody has changed something of ours, or something is to be written again.
    ///
    /// # Errors
    /// When a program fails.
    pub async fn look(&mut self, now: Timestamp) -> Result<Look, LegacyError> {
        for table in &self.tables {
            if let Some(changed) = table.look(&self.rules(table)).await? {
                return Ok(Look::Changed(changed));
            }
        }
        let listed = self.ipset.sets().await?;
        for (id, name) in self.sets() {
            let Some(set) = listed.iter().find(|set| set.name == name) else {
                return Ok(Look::Changed(format!("changed: the ipset {name} was gone")));
            };
            if !set.fits(id.kind) {
                return Ok(Look::Changed(format!("changed: the ipset {name} was another")));
            }
            let Some(written) = self.written.get_mut(&id) else { continue };
            // What ran out long ago is nothing to count.
            written.retain(|_, want| want.end.is_none_or(|end| end.saturating_add(SWEEP) > now));
            let current = written.values().filter(|want| want.end.is_none_or(|end| end > now)).count();
            let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            let expected = count(current)..=count(written.len());
            if self.full.is_none() && set.entries.is_some_and(|entries| !expected.contains(&entries)) {
                return Ok(Look::Changed(format!(
                    "changed: the ipset {name} had {} elements in place of {current}",
                    set.entries.unwrap_or_default()
                )));
            }
        }
        let retry_at = self.full.as_ref().map(|(_, at)| *at);
        if self.renew_at.into_iter().chain(retry_at).any(|at| at <= now) {
            return Ok(Look::Due);
        }
        Ok(Look::Fine)
    }

    /// Removes our jumps, chains and sets, and every ban with them.
    ///
    /// # Errors
    /// When a program fails or refuses. What is not there is no error.
    pub async fn remove(&mut self) -> Result<(), LegacyError> {
        for table in &mut self.tables {
            table.clear().await?;
        }
        self.written.clear();
        let listed = self.ipset.sets().await?;
        let ours = listed.iter().filter(|set| kind_of_set(&set.name).is_some());
        let refused = self.ipset.restore(ours.map(|set| format!("destroy {}", set.name)).collect()).await?;
        self.accept(refused, Timestamp::default())
    }
}

/// Whether this network namespace has IPv6: a kernel with `ipv6.disable=1` has not.
fn has_ipv6() -> bool {
    std::path::Path::new("/proc/thread-self/net/if_inet6").exists()
}

fn held(entry: &Entry, now: Timestamp) -> Held {
    Held {
        net: entry.net,
        end: entry.end(now),
        comment: entry.comment().to_owned(),
        packets: Some(entry.packets),
    }
}
