//! The threads of sources besides files: each has its own, which reads, matches and hands over batches as the follower's does.

mod feed;
mod journal;
mod listener;
mod thread;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;

use self::thread::{Orders, Thread};
use super::batch::Batch;
use super::jails::Ready;
use super::reader::Plan;
use super::snapshot::{JailLines, Snapshot, SourceState};
use crate::source::Shape;
use crate::source::journal::Matches;
use crate::source::syslog::Address;
use crate::types::{JailId, Timestamp};

/// What a thread reads. While a jail wants it, the thread stays, with its socket or its child, over all reloads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Journal(Matches),
    Listen(Address),
}

/// All of them.
pub(super) struct Sources {
    batches: mpsc::Sender<Batch>,
    /// How far sources were read that no thread reads now.
    cursors: HashMap<String, String>,
    plan: Option<Plan>,
    /// Containers that log to the journal.
    containers: Vec<(JailId, Matches)>,
    running: BTreeMap<Key, Thread>,
    /// What jails saw of sources that are gone.
    past: HashMap<JailId, JailLines>,
}

impl Sources {
    /// None yet; `cursors` is where an earlier process was.
    pub(super) fn new(batches: mpsc::Sender<Batch>, cursors: HashMap<String, String>) -> Self {
        Self {
            batches,
            cursors,
            plan: None,
            containers: Vec::new(),
            running: BTreeMap::new(),
            past: HashMap::new(),
        }
    }

    /// Takes over a plan.
    pub(super) fn plan(&mut self, plan: Plan) {
        self.containers.retain(|(id, _)| {
            plan.jails.iter().any(|ready| ready.id == *id && !ready.jail.docker.is_empty())
        });
        self.past.retain(|id, _| plan.jails.iter().any(|ready| ready.id == *id));
        self.plan = Some(plan);
        self.settle();
    }

    /// Takes over which containers log to the journal.
    pub(super) fn follow_containers(&mut self, containers: Vec<(JailId, Matches)>) {
        if self.containers != containers {
            self.containers = containers;
            self.settle();
        }
    }

    /// Ends what nobody wants, starts what is missing, tells the others for whom they read.
    fn settle(&mut self) {
        let Some(plan) = &self.plan else { return };
        let mut wanted: BTreeMap<Key, Vec<Ready>> = BTreeMap::new();
        let mut want = |key: Key, ready: Ready| {
            let members = wanted.entry(key).or_default();
            if !members.iter().any(|member| member.id == ready.id) {
                members.push(ready);
            }
        };
        for ready in &plan.jails {
            if let Some(matches) = &ready.jail.journal {
                want(Key::Journal(matches.clone()), ready.clone());
            }
            for address in &ready.jail.listen {
                want(Key::Listen(address.clone()), ready.clone());
            }
            for (_, matches) in self.containers.iter().filter(|(id, _)| *id == ready.id) {
                // A line of a container's log is the message, whichever driver writes it.
                let shape = ready.jail.render.unwrap_or(Shape::Message);
                want(Key::Journal(matches.clone()), Ready { shape, ..ready.clone() });
            }
        }
        let gone: Vec<Key> = self.running.keys().filter(|key| !wanted.contains_key(key)).cloned().collect();
        let gone: Vec<Thread> = gone.iter().filter_map(|key| self.running.remove(key)).collect();
        // All are told before any is waited for.
        gone.iter().for_each(Thread::tell_end);
        for thread in gone {
            let end = thread.join();
            self.cursors.extend(end.cursor);
            for (id, lines) in end.lines {
                self.past.entry(id).or_default().join(&lines, Timestamp::default());
            }
        }
        for (key, members) in wanted {
            let orders =
                Orders { members, trust: Arc::clone(&plan.trust), options: Arc::clone(&plan.options) };
            if let Some(thread) = self.running.get(&key) {
                thread.order(orders);
                continue;
            }
            let started = match &key {
                Key::Journal(matches) => {
                    let cursor = self.cursors.remove(&matches.source());
                    journal::start(matches.clone(), cursor, orders, self.batches.clone())
                }
                Key::Listen(address) => listener::start(address.clone(), orders, self.batches.clone()),
            };
            match started {
                Ok(thread) => drop(self.running.insert(key, thread)),
                Err(e) => tracing::error!("failed to start a thread for {key:?}: {e}; a reload tries again"),
            }
        }
    }

    /// Adds what is known to a snapshot.
    pub(super) fn tell(&self, snapshot: &mut Snapshot, now: Timestamp) {
        let mut add = |id: JailId, lines: &JailLines| {
            if let Some(sum) = snapshot.lines.get_mut(&id) {
                sum.join(lines, now);
            }
        };
        self.past.iter().for_each(|(id, lines)| add(*id, lines));
        for (key, thread) in &self.running {
            let state = thread.state();
            state.lines.iter().for_each(|(id, lines)| add(*id, lines));
            let kind = match key {
                Key::Journal(_) => "journal",
                Key::Listen(_) => "listen",
            };
            snapshot.sources.push(SourceState { jails: state.jails, kind, told: state.told });
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.running.values().for_each(Thread::tell_end);
        for thread in std::mem::take(&mut self.running).into_values() {
            drop(thread.join());
        }
    }
}
