//! A kernel in memory, for tests: the same batches, the same errors, and a clock that is told the time.
//!
//! It is held against the real one by a test that gives both the same random batches. What it does not know: packets
//! (counters stay zero), whether an expression exists, jumps in circles or to base chains, and the rule that a name is
//! at most 255 bytes. It is stricter in one thing: it refuses every overlap in an interval set, see
//! [`Set::interval`].

mod apply;
mod elements;

use std::fmt;
use std::future::{Future, ready};
use std::time::Duration;

use crate::batch::Batch;
use crate::chain::Chain;
use crate::commit::{CommitError, Rejection};
use crate::element::Element;
use crate::fake::elements::Elements;
use crate::kernel::Kernel;
use crate::list::ListError;
use crate::rule::{ListedRule, Rule};
use crate::set::Set;
use crate::table::{Family, Table};
use crate::text::{Ruleset, TableContent};

/// The kernel in memory.
#[derive(Clone, Debug)]
pub struct Fake {
    /// Since it was made.
    now: Duration,
    generation: u32,
    ruleset: State,
    old_timeouts: bool,
    failure: Option<i32>,
    commits: usize,
}

/// What a batch changes, and what is put back when it fails.
#[derive(Clone, Debug, Default)]
struct State {
    tables: Vec<TableState>,
    last_handle: u64,
}

#[derive(Clone, Debug)]
struct TableState {
    table: Table,
    sets: Vec<(Set, Elements)>,
    chains: Vec<(Chain, Vec<Rule>)>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// An empty ruleset of a current kernel.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: Duration::ZERO,
            generation: 1,
            ruleset: State::default(),
            old_timeouts: false,
            failure: None,
            commits: 0,
        }
    }

    /// As kernels before 6.12: adding an element that is there leaves its timeout as it was.
    #[must_use]
    pub fn old_timeouts(mut self) -> Self {
        self.old_timeouts = true;
        self
    }

    /// Lets time pass; what expires meanwhile is gone.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }

    /// Refuses the next batch as a whole with this error number.
    pub fn fail_next(&mut self, errno: i32) {
        self.failure = Some(errno);
    }

    /// What `nft flush ruleset` of somebody else does. Tables with an owner stay.
    pub fn flush_ruleset(&mut self) {
        self.ruleset.tables.retain(|t| t.table.is_owned());
        self.generation = self.generation.wrapping_add(1);
    }

    /// How many batches it has taken; refused ones and empty ones do not count.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.commits
    }

    /// [`Kernel::commit`] without a future.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), CommitError> {
        // Misfits are found when the batch is written, before the kernel sees it.
        let encoded = crate::encode::encode(batch, 0, crate::encode::Mode::Commit)?;
        if encoded.messages() == 0 {
            return Ok(());
        }
        self.refusal(batch)?;
        let before = self.ruleset.clone();
        for change in batch.changes() {
            if let Err(refusal) = self.ruleset.apply(change, self.now, self.old_timeouts) {
                self.ruleset = before;
                return Err(CommitError::Rejected(refusal));
            }
        }
        self.generation = self.generation.wrapping_add(1);
        self.commits += 1;
        Ok(())
    }

    /// [`Kernel::probe`] without a future.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn check(&mut self, batch: &Batch) -> Result<Vec<Result<(), Rejection>>, CommitError> {
        crate::encode::encode(batch, 0, crate::encode::Mode::Probe)?;
        self.refusal(batch)?;
        let mut ruleset = self.ruleset.clone();
        Ok(batch.changes().iter().map(|c| ruleset.apply(c, self.now, self.old_timeouts)).collect())
    }

    /// All there is, at this moment; its text is what `nft list ruleset` would say.
    #[must_use]
    pub fn ruleset(&self) -> Ruleset {
        let tables = self.ruleset.tables.iter().map(|t| TableContent {
            table: t.table.clone(),
            sets: t.sets.iter().map(|(set, elements)| (set.clone(), elements.list(set, self.now))).collect(),
            chains: t.chains.clone(),
        });
        Ruleset { tables: tables.collect() }
    }

    /// The elements of a set; `None` when there is no such set.
    #[must_use]
    pub fn elements_of(&self, set: &Set) -> Option<Vec<Element>> {
        let table = self.ruleset.table(set.family, &set.table)?;
        let (set, elements) = table.sets.iter().find(|(s, _)| s.name == set.name)?;
        Some(elements.list(set, self.now))
    }

    fn refusal(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if let Some(errno) = self.failure.take() {
            return Err(CommitError::Refused { errno });
        }
        match batch.generation() {
            Some(g) if g != self.generation => Err(CommitError::Refused { errno: libc::ERESTART }),
            _ => Ok(()),
        }
    }

    fn content(&self, table: &Table) -> Option<&TableState> {
        self.ruleset.table(table.family, &table.name)
    }
}

impl State {
    fn table(&self, family: Family, name: &str) -> Option<&TableState> {
        self.tables.iter().find(|t| t.table.family == family && *t.table.name == *name)
    }
}

impl fmt::Display for Fake {
    /// `nft list ruleset`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ruleset().fmt(f)
    }
}

impl Kernel for Fake {
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        ready(self.apply(batch))
    }

    fn probe(
        &mut self,
        batch: &Batch,
    ) -> impl Future<Output = Result<Vec<Result<(), Rejection>>, CommitError>> + Send {
        ready(self.check(batch))
    }

    fn generation(&mut self) -> impl Future<Output = Result<u32, ListError>> + Send {
        ready(Ok(self.generation))
    }

    fn tables(&mut self) -> impl Future<Output = Result<Vec<Table>, ListError>> + Send {
        ready(Ok(self.ruleset.tables.iter().map(|t| t.table.clone()).collect()))
    }

    fn chains(&mut self, table: &Table) -> impl Future<Output = Result<Vec<Chain>, ListError>> + Send {
        let chains = self.content(table).into_iter().flat_map(|t| &t.chains);
        ready(Ok(chains.map(|(chain, _)| chain.clone()).collect()))
    }

    fn sets(&mut self, table: &Table) -> impl Future<Output = Result<Vec<Set>, ListError>> + Send {
        ready(match self.content(table) {
            Some(t) => Ok(t.sets.iter().map(|(set, _)| set.clone()).collect()),
            None => Err(not_found(format!("sets of table {} {}", table.family, table.name))),
        })
    }

    fn rules(&mut self, table: &Table) -> impl Future<Output = Result<Vec<ListedRule>, ListError>> + Send {
        let rules = self.content(table).into_iter().flat_map(|t| &t.chains).flat_map(|(_, rules)| rules);
        let listed = rules.map(|rule| ListedRule {
            family: rule.family,
            table: rule.table.clone(),
            chain: rule.chain.clone(),
            handle: rule.handle.unwrap_or(0),
            exprs: rule.exprs(),
            comment: rule.comment.clone(),
        });
        ready(Ok(listed.collect()))
    }

    fn elements(&mut self, set: &Set) -> impl Future<Output = Result<Vec<Element>, ListError>> + Send {
        let elements = self.elements_of(set);
        ready(elements.ok_or_else(|| not_found(format!("elements of {}", crate::commit::name(set)))))
    }
}

fn not_found(what: String) -> ListError {
    ListError::Refused { what, errno: libc::ENOENT }
}
