//! Decisions become elements: one table of ours in nf_tables, written over netlink, repaired when somebody breaks it.
//!
//! There is one way to bring the kernel into shape: compare what it holds with what the bans amount to, and commit the
//! difference as one batch. A start, a failed commit, a `nft flush ruleset` by somebody else and a new configuration
//! are the same repair. Between repairs, decisions are committed as they come, in microseconds.
//!
//! Bans by an address that is only in an HTTP header, and the legacy backend for kernels without nf_tables, will stand
//! beside [`ruleset`] as `header` and `legacy`.

mod changes;
mod desired;
mod disjoint;
mod layout;
pub mod ruleset;

use std::time::Duration;

use ipnet::IpNet;
use nft::{Batch, CommitError, Connection, OpenError};

pub use self::changes::{Changes, Counts};
pub use self::desired::{Desired, NameOf, Want, desired, parse_comment, want};
pub use self::layout::{Kind, Layout, Scope, SetId};
use self::ruleset::Ruleset;
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

/// Holds the socket, and the shape of the table.
#[derive(Debug)]
pub struct Enforcer {
    connection: Connection,
    ruleset: Ruleset,
}

impl Enforcer {
    /// Opens the socket. Nothing is changed yet.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink, or does not let us.
    pub fn open(layout: Layout) -> Result<Self, OpenError> {
        Ok(Self { connection: Connection::open()?, ruleset: Ruleset::new(layout) })
    }

    /// The shape of the table.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        self.ruleset.layout()
    }

    /// Our socket's port id: changes announced with it are our own.
    #[must_use]
    pub fn port_id(&self) -> u32 {
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
    pub async fn held(&mut self, now: Timestamp) -> Result<Vec<(SetId, Held)>, CommitError> {
        let mut all = Vec::new();
        for (id, set) in self.ruleset.sets() {
            let elements = match self.connection.elements(set).await {
                Ok(elements) => elements,
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            };
            all.extend(elements.into_iter().filter_map(|element| {
                let net = element.net()?;
                let end = element.expires.map(|left| now.saturating_add(left));
                // An element with a timeout and nothing left of it is about to go.
                let over = element.expires == Some(Duration::ZERO);
                let comment = element.comment.unwrap_or_default();
                (!over).then_some((id, Held { net, end, comment, packets: element.packets }))
            }));
        }
        Ok(all)
    }

    /// Makes the table, its rules and its elements what they should be, in one transaction: at no moment is a ban that
    /// stays not in force.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub async fn reconcile(&mut self, desired: &Desired, now: Timestamp) -> Result<Counts, CommitError> {
        let held = self.held(now).await?;
        let changes = Changes::between(desired, &held);
        let mut batch = Batch::new();
        self.ruleset.build(&mut batch);
        changes.write(&mut batch, &self.ruleset, now);
        match self.connection.commit(&batch).await {
            Ok(()) => Ok(changes.counts()),
            // A table of ours with another shape, from another version: replace it whole, still in one transaction.
            Err(e) if e.is_already_exists() || e.is_not_supported() || e.is_invalid() => {
                let mut batch = Batch::new();
                self.ruleset.rebuild(&mut batch);
                let all = Changes::between(desired, &[]);
                all.write(&mut batch, &self.ruleset, now);
                self.connection.commit(&batch).await.map_err(|_| e)?;
                Ok(all.counts())
            }
            Err(e) => Err(e),
        }
    }

    /// Commits what decisions changed.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed, and [`reconcile`](Self::reconcile) is due.
    pub async fn apply(&mut self, changes: &Changes, now: Timestamp) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        changes.write(&mut batch, &self.ruleset, now);
        if batch.is_empty() {
            return Ok(());
        }
        self.connection.commit(&batch).await
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
