//! A reconciliation against a kernel that others change meanwhile, through a socket that may be too small.

use std::collections::BTreeMap;
use std::time::Duration;

use nft::{Batch, CommitError, Element, ListError};

use super::desired::Desired;
use super::layout::SetId;
use super::{Counts, EnforceError, Enforcer, Held};
use crate::types::Timestamp;

/// How often a comparison is begun anew because somebody changed the ruleset before its outcome was committed. After that
/// it is committed on whatever there is: who watches the ruleset hears of the change and compares again.
const STALE_ATTEMPTS: u32 = 5;
/// How often a starting agent tries to list what it is to take over, and how long it waits between. Each listing is begun
/// anew some twenty times by itself.
const TAKE_OVER_ATTEMPTS: u32 = 5;
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(200);

impl Enforcer {
    /// What the sets hold that are in our table now, also those that an agent with another configuration made. It has patience
    /// with others who change the ruleset: bans that are not seen here are lost.
    ///
    /// # Errors
    /// When the kernel refuses to list a set.
    pub async fn left_behind(&mut self, now: Timestamp) -> Result<Vec<Held>, ListError> {
        for _ in 1..TAKE_OVER_ATTEMPTS {
            match self.left_behind_once(now).await {
                Err(ListError::Interrupted { .. }) => tokio::time::sleep(TAKE_OVER_PAUSE).await,
                done => return done,
            }
        }
        self.left_behind_once(now).await
    }

    /// Makes the table, its rules and its elements what they should be, in one transaction: at no moment is a ban that
    /// stays not in force. (Where the socket may not grow to the size of the transaction, in several.)
    ///
    /// What is committed was compared with just what is there: if somebody else's transaction comes between, the kernel
    /// refuses ours and the comparison is made again.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub async fn reconcile(&mut self, desired: &Desired, now: Timestamp) -> Result<Counts, EnforceError> {
        for _ in 0..STALE_ATTEMPTS {
            let generation = self.connection.generation().await?;
            match self.reconcile_on(Some(generation), desired, now).await {
                Err(EnforceError::Commit(e)) if e.is_stale() => {
                    tracing::debug!("somebody changed nf_tables while it was compared; comparing again");
                }
                done => return done,
            }
        }
        self.reconcile_on(None, desired, now).await
    }

    /// What our sets hold, and whether the table is to be made anew: because of what is in it, or because it cannot be
    /// listed. A listing has to be of one generation of the ruleset, and somebody who commits without pause, to whatever table,
    /// leaves no time for a long one; that must not keep bans out of the kernel.
    pub(super) async fn found(&mut self) -> Result<(BTreeMap<SetId, Vec<Element>>, bool), ListError> {
        let found = match self.elements().await {
            Ok(elements) => self.is_strange(&elements).await.map(|strange| (elements, strange)),
            Err(e) => Err(e),
        };
        match found {
            Err(ListError::Interrupted { .. }) => {
                tracing::warn!("nf_tables never holds still to be compared: writing the whole table anew");
                Ok((BTreeMap::new(), true))
            }
            found => found,
        }
    }

    /// Commits a batch; in parts, when the socket may not hold the whole. (Its size may be raised at will only with
    /// CAP_NET_ADMIN in the host's user namespace.)
    pub(super) async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let (bytes, limit) = match self.connection.commit(batch).await {
            Err(CommitError::TooLarge { bytes, limit }) => (bytes, limit),
            done => return done,
        };
        // Elements are alike, so this is about half of what fits.
        let each = batch.element_count().saturating_mul(limit) / bytes.max(1) / 2;
        let parts = batch.parts(each);
        tracing::debug!(bytes, limit, parts = parts.len(), "a batch is larger than the socket may be");
        for part in &parts {
            self.connection.commit(part).await?;
        }
        Ok(())
    }
}

/// A batch that is refused on any other generation of the ruleset.
pub(super) fn batch_on(generation: Option<u32>) -> Batch {
    let mut batch = Batch::new();
    if let Some(generation) = generation {
        batch.only_on(generation);
    }
    batch
}
