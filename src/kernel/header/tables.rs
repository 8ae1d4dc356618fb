//! Our chains in nf_tables: what is there, what is to be there.

use nft::{Batch, Chain, CommitError, Connection, Family, ListError, ListedRule, Table};

use super::rules::{HeaderRules, is_header_chain};
use crate::kernel::ruleset::TABLE;

/// Why our chains could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What is there could not be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// The kernel refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The socket, and what was written through it last.
pub(super) struct Tables {
    pub(super) connection: Connection,
    rules: HeaderRules,
}

impl Tables {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, rules: HeaderRules::default() }
    }

    /// What was written last.
    pub(super) fn rules(&self) -> &HeaderRules {
        &self.rules
    }

    /// Writes `rules` in place of whatever is there, and what `more` adds, as one transaction.
    pub(super) async fn write(
        &mut self,
        rules: HeaderRules,
        more: impl FnOnce(&mut Batch, &HeaderRules),
    ) -> Result<(), WriteError> {
        let mut batch = Batch::new();
        let [inet, bridge] = tables();
        let mut chains = self.chains(&inet).await?;
        // What is there but not of headers belongs to the bans by source.
        chains.retain(|chain| is_header_chain(chain.name()));
        chains.extend(self.chains(&bridge).await?);
        take_out(&mut batch, &chains, |chain| rules.has(chain));
        if !rules.has_bridge() && self.is_there(&bridge).await? {
            batch.add(&bridge).delete(&bridge);
        }
        rules.build(&mut batch);
        more(&mut batch, &rules);
        self.connection.commit(&batch).await?;
        self.rules = rules;
        Ok(())
    }

    /// Removes all that is about headers: the table of family bridge, and our chains in the other, which goes too when
    /// there is nothing else in it.
    pub(super) async fn remove(&mut self) -> Result<(), WriteError> {
        self.write(HeaderRules::default(), |_, _| {}).await?;
        let [inet, _] = tables();
        if self.is_there(&inet).await? && self.chains(&inet).await?.is_empty() {
            self.connection.commit(Batch::new().add(&inet).delete(&inet)).await?;
        }
        Ok(())
    }

    /// Our rules that are there now.
    pub(super) async fn listed(&mut self) -> Result<Vec<ListedRule>, ListError> {
        let mut all = Vec::new();
        for table in tables() {
            all.extend(none_if_absent(self.connection.rules(&table).await, &table)?);
        }
        Ok(all)
    }

    async fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, ListError> {
        none_if_absent(self.connection.chains(table).await, table)
    }

    async fn is_there(&mut self, table: &Table) -> Result<bool, ListError> {
        let tables = self.connection.tables().await?;
        Ok(tables.iter().any(|there| (there.family(), there.name()) == (table.family(), table.name())))
    }
}

/// Where our chains are.
fn tables() -> [Table; 2] {
    [Family::Inet, Family::Bridge].map(|family| Table::new(family, TABLE))
}

/// A table that is not there has nothing in it, nor has one of a family that this kernel does not have.
fn none_if_absent<T>(listed: Result<Vec<T>, ListError>, table: &Table) -> Result<Vec<T>, ListError> {
    match listed {
        Err(e) if e.is_not_found() => Ok(Vec::new()),
        Err(_) if table.family() == Family::Bridge => Ok(Vec::new()),
        listed => listed,
    }
}

/// Takes all rules out of these chains, and then the chains, but for those that stay.
fn take_out(batch: &mut Batch, chains: &[Chain], stays: impl Fn(&Chain) -> bool) {
    // First all jumps, then what they jump to. Adding what is there does nothing; what somebody has removed meanwhile
    // would fail the batch otherwise.
    for chain in chains {
        batch.add(Table::new(chain.family(), chain.table())).add(chain).flush(chain);
    }
    for chain in chains.iter().filter(|chain| !stays(chain)) {
        batch.delete(chain);
    }
}
