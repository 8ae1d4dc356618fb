//! Decisions become elements: one table of ours in nf_tables, written over netlink, repaired when somebody breaks it.
//!
//! There is one way to bring the kernel into shape: compare what it holds with what the bans amount to, and commit the
//! difference as one batch. A start, a failed commit, a `nft flush ruleset` by somebody else and a new configuration
//! are the same repair. Between repairs, decisions are committed as they come, in microseconds.
//!
//! Where the kernel has no nf_tables, [`legacy`] does the same with iptables-legacy and ipset; [`backend`] chooses.
//!
//! Bans by an address that is only in an HTTP header stand beside these, as [`header`], in transactions of their own.

pub mod backend;
pub mod capability;
mod changes;
mod commit;
mod desired;
mod disjoint;
pub mod header;
mod layout;
pub mod leftovers;
pub mod legacy;
mod packets;
mod read_back;
pub mod ruleset;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use ipnet::IpNet;
use nft::{Batch, CommitError, Connection, Element, ListError, Set, TableContent};

pub use self::backend::{Backend, Choice};
pub use self::changes::{Changes, Counts};
use self::commit::Clock;
pub use self::desired::{Desired, NameOf, Want, desired, is_forced, parse_comment, want};
pub use self::layout::{Kind, Layout, Scope, SetId};
pub use self::legacy::{Legacy, LegacyError};
pub use self::packets::Packets;
pub use self::read_back::ReadBack;
pub use self::ruleset::Ruleset;
use crate::types::Timestamp;

/// An element found in one of our sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it bans.
    pub net: IpNet,
    /// When it ends; `None` for never.
    pub end: Option<Timestamp>,
    /// What it says about itself; see [`parse_comment`].
    pub comment: String,
    /// Packets it stopped.
    pub packets: Option<u64>,
}

/// Why the kernel is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// Our sets could not be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// A change was refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The same of iptables-legacy and ipset.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
}

/// Holds the socket, and the shape of the table.
pub struct Enforcer {
    connection: Connection,
    ruleset: Ruleset,
    /// What was found at the start, for the first comparison.
    found: Option<commit::Found>,
    /// How long the last commit took.
    took: Duration,
}

impl Enforcer {
    /// Opens the socket. Nothing is changed yet.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink, or does not let us.
    pub fn open(layout: Layout) -> io::Result<Self> {
        Ok(Self {
            connection: Connection::open()?,
            ruleset: Ruleset::new(layout),
            found: None,
            took: Duration::ZERO,
        })
    }

    /// The shape of the table.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        self.ruleset.layout()
    }

    /// Our socket's address: changes announced with it are our own.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn port_id(&self) -> io::Result<u32> {
        self.connection.port_id()
    }

    /// Takes another shape; [`reconcile`](Self::reconcile) makes it so.
    pub fn set_layout(&mut self, layout: Layout) {
        self.ruleset = Ruleset::new(layout);
    }

    /// What our sets hold. A set that is not there holds nothing.
    ///
    /// # Errors
    /// When the kernel refuses to list a set.
    pub async fn held(&mut self, now: Timestamp) -> Result<Vec<(SetId, Held)>, ListError> {
        let clock = Clock::new(now);
        let elements = self.elements().await?;
        Ok(read_all(elements, clock.now()))
    }

    /// Whether there is a table of ours, from an agent with any configuration.
    ///
    /// # Errors
    /// When the kernel refuses to list it.
    pub async fn is_there(&mut self) -> Result<bool, ListError> {
        Ok(!self.sets().await?.is_empty())
    }

    /// The whole table, with what its sets hold, to be printed.
    ///
    /// # Errors
    /// When the kernel refuses to list a set.
    pub async fn listing(&mut self) -> Result<TableContent, ListError> {
        let elements = self.elements().await?;
        Ok(self.ruleset.with_elements(&elements))
    }

    async fn elements(&mut self) -> Result<BTreeMap<SetId, Vec<Element>>, ListError> {
        let mut all = BTreeMap::new();
        for (id, set) in self.ruleset.sets() {
            match self.connection.elements(set).await {
                Ok(elements) => drop(all.insert(*id, elements)),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }

    async fn sets(&mut self) -> Result<Vec<Set>, ListError> {
        match self.connection.sets(self.ruleset.table()).await {
            Err(e) if e.is_not_found() => Ok(Vec::new()),
            sets => sets,
        }
    }

    /// Whether our table has something that the ruleset does not have and that would stay there: sets and chains of another
    /// configuration, or an element that we would not write, such as a range.
    async fn is_strange(&mut self, elements: &BTreeMap<SetId, Vec<Element>>) -> Result<bool, ListError> {
        if self.sets().await?.iter().any(|set| !self.ruleset.has_set(set.name())) {
            return Ok(true);
        }
        let chains = match self.connection.chains(self.ruleset.table()).await {
            Err(e) if e.is_not_found() => Vec::new(),
            chains => chains?,
        };
        if chains.iter().any(|chain| !self.ruleset.has_chain(chain.name())) {
            return Ok(true);
        }
        Ok(elements
            .iter()
            .any(|(id, all)| all.iter().any(|element| ruleset::net(id.kind, element).is_none())))
    }

    /// [`reconcile`](Self::reconcile), once, and only on this generation of the ruleset if one is given.
    async fn reconcile_on(
        &mut self,
        generation: Option<u32>,
        desired: &Desired,
        clock: &Clock,
    ) -> Result<Changes, EnforceError> {
        let (elements, strange, listed) = self.compared(generation).await?;
        let changes = Changes::between(desired, &read_all(elements, clock.at(listed)));
        if !strange {
            let mut batch = commit::batch_on(generation);
            self.ruleset.build(&mut batch);
            changes.write(&mut batch, &self.ruleset, clock.now());
            match self.commit(&batch).await {
                Ok(()) => return Ok(changes),
                Err(e) if e.is_permission() || e.is_stale() => return Err(e.into()),
                // A table of ours with another shape, from another version.
                Err(e) => tracing::debug!("{e}; replacing the table"),
            }
        }
        // Still one transaction: no ban that stays is out of force for a moment. It is right whatever is there.
        let mut batch = Batch::new();
        self.ruleset.rebuild(&mut batch);
        let all = Changes::between(desired, &[]);
        all.write(&mut batch, &self.ruleset, clock.now());
        self.commit(&batch).await?;
        Ok(all.counted_as(&changes))
    }

    /// Commits what decisions changed.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed, and [`reconcile`](Self::reconcile) is due.
    pub async fn apply(&mut self, changes: &Changes, now: Timestamp) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        changes.write(&mut batch, &self.ruleset, now);
        self.commit(&batch).await
    }

    /// Removes the table and every ban with it.
    ///
    /// # Errors
    /// When the kernel refuses. A table that is not there is no error.
    pub async fn remove(&mut self) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        self.ruleset.remove(&mut batch);
        self.connection.commit(&batch).await
    }
}

fn read_all(elements: BTreeMap<SetId, Vec<Element>>, now: Timestamp) -> Vec<(SetId, Held)> {
    let each = elements.into_iter().flat_map(|(id, all)| all.into_iter().map(move |element| (id, element)));
    each.filter_map(|(id, element)| Some((id, read(id.kind, element, now)?))).collect()
}

/// What an element stands for; `None` for one that is about to go, and for one that we would not write.
fn read(kind: Kind, element: Element, now: Timestamp) -> Option<Held> {
    let net = ruleset::net(kind, &element)?;
    let over = element.expires == Some(Duration::ZERO);
    let end = element.expires.map(|left| now.saturating_add(left));
    let packets = element.counter.map(|counter| counter.packets);
    let comment = element.comment.unwrap_or_default().into();
    (!over).then_some(Held { net, end, comment, packets })
}
