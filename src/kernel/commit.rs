//! A reconciliation against a kernel that others change meanwhile, through a socket that may be too small.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use nft::{Batch, CommitError, Element, ListError, Set};

use super::desired::Desired;
use super::layout::{Kind, SetId};
use super::{Changes, EnforceError, Enforcer, Held, read};
use crate::types::Timestamp;

/// How often a comparison is begun anew because somebody changed the ruleset before its outcome was committed. After that
/// it is committed on whatever there is: who watches the ruleset hears of the change and compares again.
const STALE_ATTEMPTS: u32 = 5;
/// How often a starting agent tries to list what it is to take over, and how long it waits between. Each listing is begun
/// anew some twenty times by itself.
const TAKE_OVER_ATTEMPTS: u32 = 5;
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(200);

/// The time of day while something takes long: a set that is being rebuilt cannot be listed for seconds, and bans must not
/// seem, or come, to end so much later.
pub(super) struct Clock {
    begin: Instant,
    at_begin: Timestamp,
}

impl Clock {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { begin: Instant::now(), at_begin: now }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// Also of a moment before it was made.
    pub(super) fn at(&self, when: Instant) -> Timestamp {
        let before = self.begin.saturating_duration_since(when);
        self.at_begin.saturating_sub(before).saturating_add(when.saturating_duration_since(self.begin))
    }
}

/// The elements of the sets in our table, by the sets' names.
pub(super) struct Found {
    /// Of this generation of the ruleset.
    generation: u32,
    /// When it was listed: what an element has left is counted from then.
    at: Instant,
    sets: HashMap<String, Vec<Element>>,
}

impl Enforcer {
    /// What the sets hold that are in our table now, also those that an agent with another configuration made. It has patience
    /// with others who change the ruleset: bans that are not seen here are lost.
    ///
    /// # Errors
    /// When the kernel refuses to list a set.
    pub async fn left_behind(&mut self, now: Timestamp) -> Result<Vec<Held>, ListError> {
        let clock = Clock::new(now);
        let mut attempt = 1;
        let found = loop {
            match self.find().await {
                Err(ListError::Interrupted { .. }) if attempt < TAKE_OVER_ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(TAKE_OVER_PAUSE).await;
                }
                found => break found?,
            }
        };
        let now = clock.at(found.at);
        let of_kind = |name: &str, elements: &[Element]| {
            let kind = Kind::of_name(name)?;
            Some(elements.iter().filter_map(|e| read(kind, e.clone(), now)).collect::<Vec<_>>())
        };
        let held =
            found.sets.iter().filter_map(|(name, elements)| of_kind(name, elements)).flatten().collect();
        self.found = Some(found);
        Ok(held)
    }

    async fn find(&mut self) -> Result<Found, ListError> {
        let generation = self.connection.generation().await?;
        let mut sets = HashMap::new();
        for set in self.sets().await? {
            if Kind::of_name(set.name()).is_some() {
                sets.insert(set.name().to_owned(), self.connection.elements(&set).await?);
            }
        }
        Ok(Found { generation, at: Instant::now(), sets })
    }

    /// Makes the table, its rules and its elements what they should be, in one transaction: at no moment is a ban that
    /// stays not in force. (Where the socket may not grow to the size of the transaction, in several.) Returns what was
    /// written, to be [read back](Self::read_back).
    ///
    /// What is committed was compared with just what is there: if somebody else's transaction comes between, the kernel
    /// refuses ours and the comparison is made again.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub async fn reconcile(&mut self, desired: &Desired, now: Timestamp) -> Result<Changes, EnforceError> {
        let clock = Clock::new(now);
        for _ in 0..STALE_ATTEMPTS {
            let generation = self.connection.generation().await?;
            match self.reconcile_on(Some(generation), desired, &clock).await {
                Err(EnforceError::Commit(e)) if e.is_stale() => {
                    tracing::debug!("somebody changed nf_tables while it was compared; comparing again");
                }
                done => return done,
            }
        }
        self.reconcile_on(None, desired, &clock).await
    }

    /// What our sets hold, whether the table is to be made anew, and when that was listed. It is to be made anew because of
    /// what is in it, or because it cannot be listed: a listing has to be of one generation of the ruleset, and somebody who
    /// commits without pause, to whatever table, leaves no time for a long one. That must not keep bans out of the kernel.
    pub(super) async fn compared(
        &mut self,
        generation: Option<u32>,
    ) -> Result<(BTreeMap<SetId, Vec<Element>>, bool, Instant), ListError> {
        // A long listing is not repeated where nothing has changed since.
        let (elements, at) = match self.found.take().filter(|found| Some(found.generation) == generation) {
            Some(mut found) => {
                let of = |(id, set): &(SetId, Set)| Some((*id, found.sets.remove(set.name())?));
                (Ok(self.ruleset.sets().filter_map(of).collect()), found.at)
            }
            None => (self.elements().await, Instant::now()),
        };
        let compared = match elements {
            Ok(elements) => self.is_strange(&elements).await.map(|strange| (elements, strange, at)),
            Err(e) => Err(e),
        };
        match compared {
            Err(ListError::Interrupted { .. }) => {
                tracing::warn!("nf_tables never holds still to be compared: writing the whole table anew");
                Ok((BTreeMap::new(), true, at))
            }
            compared => compared,
        }
    }

    /// Commits a batch; in parts, when the socket may not hold the whole. (Its size may be raised at will only with
    /// CAP_NET_ADMIN in the host's user namespace.)
    pub(super) async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let begin = Instant::now();
        let done = self.commit_in_parts(batch).await;
        self.took = begin.elapsed();
        done
    }

    async fn commit_in_parts(&mut self, batch: &Batch) -> Result<(), CommitError> {
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
