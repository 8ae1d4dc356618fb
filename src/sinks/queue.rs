//! What a notifier has to tell, oldest first; bounded by merging.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::event::{Event, Merged};

/// So many events are kept one by one ...
pub const CAPACITY: usize = 20_000;
/// ... if they come to no more than this, in bytes; what comes then is merged into counts. An attacker who writes long lines
/// has fewer of them told whole.
pub const CAPACITY_BYTES: usize = 12 << 20;

/// Shared by the agent, which adds and never waits, and a notifier, which tells.
#[derive(Debug, Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<Item>,
    /// What they take, in bytes.
    bytes: usize,
    /// The first so many are being told: they stay as they are.
    in_flight: usize,
    /// The first so many are in the ledger, or need not be.
    released: usize,
    /// Those that were told, and are still in the ledger.
    done: Vec<u64>,
}

/// An event and its number in the ledger.
#[derive(Clone, Debug)]
pub struct Item {
    /// Never used twice.
    pub id: u64,
    /// What is to be told.
    pub event: Arc<Event>,
}

impl Queue {
    /// Adds an event; the one that is to be written to the ledger. Beyond the capacity that is a merged one, which may have
    /// been there before.
    pub fn push(&self, id: u64, event: &Arc<Event>) -> Item {
        let mut inner = self.lock();
        let merge = inner.items.len() >= CAPACITY || inner.bytes >= CAPACITY_BYTES;
        let untouched = inner.items.len() > inner.in_flight;
        if merge
            && untouched
            && let Some(last) = inner.items.back_mut()
            && let Event::Merged(merged) = &*last.event
        {
            let mut merged = merged.clone();
            merged.add(event);
            last.event = Arc::new(Event::Merged(merged));
            return last.clone();
        }
        let event = if merge {
            let mut merged = Merged::default();
            merged.add(event);
            Arc::new(Event::Merged(merged))
        } else {
            Arc::clone(event)
        };
        let item = Item { id, event };
        inner.bytes += item.event.size();
        inner.items.push_back(item.clone());
        item
    }

    /// Everything that is in the queue is in the ledger, up to this number: it may be told. What is told before could be
    /// decided, and told, once more after a crash.
    pub fn release(&self, up_to: u64) {
        let mut inner = self.lock();
        let before = inner.released;
        inner.released = inner.items.iter().take_while(|item| item.id <= up_to).count();
        let more = inner.released > before;
        drop(inner);
        if more {
            self.news.notify_one();
        }
    }

    /// What may be told, and is from now on being told.
    pub fn begin(&self) -> Vec<Arc<Event>> {
        let mut inner = self.lock();
        inner.in_flight = inner.released;
        inner.items.iter().take(inner.released).map(|item| Arc::clone(&item.event)).collect()
    }

    /// So many of them, the oldest, were told (or given up); the others are not being told any more.
    pub fn end(&self, told: usize) {
        let mut inner = self.lock();
        let told = told.min(inner.in_flight);
        let (mut ids, mut bytes) = (Vec::with_capacity(told), 0);
        for item in inner.items.drain(..told) {
            ids.push(item.id);
            bytes += item.event.size();
        }
        inner.done.extend(ids);
        // One that grew by merging was smaller when it was added.
        inner.bytes = inner.bytes.saturating_sub(bytes);
        inner.released -= told;
        inner.in_flight = 0;
    }

    /// Numbers of what was told since the last call.
    pub fn take_done(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().done)
    }

    /// Everything that is not told yet.
    pub fn items(&self) -> Vec<Item> {
        self.lock().items.iter().cloned().collect()
    }

    /// How much there is to tell: merged events count as what they merge.
    pub fn untold(&self) -> u64 {
        let inner = self.lock();
        let count = |item: &Item| match &*item.event {
            Event::Merged(merged) => merged.count(),
            _ => 1,
        };
        // Only what is at the end is merged, as a rule.
        inner.items.iter().map(count).sum()
    }

    /// Whether anything may be told.
    pub fn has_news(&self) -> bool {
        self.lock().released > 0
    }

    /// Waits until there may be more to tell. Cancel-safe.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Fault;
    use super::*;
    use crate::types::Timestamp;

    fn event(n: i64) -> Arc<Event> {
        Arc::new(Event::Error(Fault { at: Timestamp::from_secs(n), message: n.to_string() }))
    }

    #[test]
    fn only_what_is_in_the_ledger_is_told() {
        let queue = Queue::default();
        for n in 1..=3 {
            queue.push(n, &event(0));
        }
        assert!(!queue.has_news() && queue.begin().is_empty());
        queue.end(5);
        queue.release(2);
        assert_eq!(queue.begin().len(), 2);
        queue.end(1);
        assert_eq!((queue.take_done(), queue.take_done()), (vec![1], vec![]));
        assert_eq!(queue.items().iter().map(|i| i.id).collect::<Vec<_>>(), [2, 3]);
        queue.release(9);
        assert_eq!((queue.begin().len(), queue.untold()), (2, 2));
    }

    #[test]
    fn what_is_too_much_is_merged_and_none_is_lost() {
        let queue = Queue::default();
        let more = 25;
        let all = CAPACITY as u64 + more;
        for n in 1..=all {
            let item = queue.push(n, &event(i64::try_from(n).unwrap()));
            assert_eq!(item.id, n.min(CAPACITY as u64 + 1));
            if n == CAPACITY as u64 + 5 {
                // Being told does not change under the teller's hands.
                queue.release(u64::MAX);
            }
        }
        assert_eq!((queue.items().len(), queue.untold()), (CAPACITY + 1, all));
        queue.release(u64::MAX);
        let telling = queue.begin();
        assert_eq!(telling.len(), CAPACITY + 1);
        let item = queue.push(all + 1, &event(0));
        assert_eq!((item.id, queue.untold()), (all + 1, all + 1), "what is being told stays as it is");
        queue.end(telling.len());
        assert_eq!((queue.items().len(), queue.untold()), (1, 1));
    }

    #[test]
    fn long_lines_fill_it_sooner() {
        let queue = Queue::default();
        let long = Arc::new(Event::Error(Fault { at: Timestamp::default(), message: "x".repeat(100_000) }));
        for n in 1..=1000 {
            queue.push(n, &long);
        }
        let items = queue.items();
        assert!(items.len() < 200 && queue.untold() == 1000, "{}", items.len());
        queue.release(u64::MAX);
        queue.begin();
        queue.end(usize::MAX);
        for n in 1..=100 {
            queue.push(2000 + n, &event(0));
        }
        assert_eq!(queue.items().len(), 100, "there is room again");
    }
}
