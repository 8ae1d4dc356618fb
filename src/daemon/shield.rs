//! Keeps the engine informed of whom a ban must not hit at the moment, without ever making it wait for long.
//!
//! Looking around means files, netlink and, for sshd's sessions, every process of the host. That is done by a thread of its own,
//! which looks when it is asked to. Before offenses are counted the agent asks unless the last look is fresh, and waits a few
//! milliseconds for the answer. One that comes later than that is not lost: as soon as it is there, a ban that hits somebody
//! who had just logged in is lifted.

use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;
use tokio::sync::watch;

use super::Agent;
use super::refusals::Refusals;
use crate::clock;
use crate::host::{Look, Places, Surroundings};
use crate::types::Offense;

/// A look is fresh for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Offenses wait so long for a fresh look.
const PATIENCE: Duration = Duration::from_millis(5);
/// An order by hand waits so long for one.
const PATIENCE_BY_HAND: Duration = Duration::from_millis(500);
/// Processes are looked at again after so many times what looking took: a fiftieth of one CPU while there are offenses, ...
const REST: u32 = 50;
/// ... but not more often than this ...
const SHORTEST_REST: Duration = FRESH;
/// ... and not less often.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Processes only if that is due.
    Usual,
    /// Processes, too.
    Thorough,
}

/// What was seen, and when.
#[derive(Clone, Debug)]
struct Seen {
    look: Look,
    begun: Instant,
    /// The processes of sshd were looked at, too, unless that had just been done.
    whole: bool,
}

impl Seen {
    fn is_since(&self, then: Instant) -> bool {
        self.whole && self.begun >= then
    }
}

/// The thread that looks around, from outside; and what came of it.
pub(super) struct Shield {
    asks: SyncSender<Ask>,
    seen: watch::Receiver<Seen>,
    /// Problems that were told.
    told: Vec<String>,
    /// Bans that were refused.
    pub(super) refusals: Refusals,
}

impl Shield {
    /// Looks around once, then starts the thread.
    pub(super) fn start(places: Places) -> Result<Self> {
        let mut surroundings = Surroundings::new(places);
        let begun = Instant::now();
        surroundings.scan();
        let cost = begun.elapsed();
        let first = Seen { look: surroundings.look(), begun, whole: true };
        let (send, seen) = watch::channel(first);
        let (asks, asked) = mpsc::sync_channel(2);
        let mut scans = Scans { last: begun, cost };
        std::thread::Builder::new()
            .name("host".to_owned())
            .spawn(move || {
                // Ends with the agent, which has the other end.
                while let Ok(ask) = asked.recv() {
                    let begun = Instant::now();
                    let whole = ask == Ask::Usual && !scans.are_due(begun);
                    send.send_replace(Seen { look: surroundings.look(), begun, whole });
                    if !whole {
                        surroundings.scan();
                        scans = Scans { last: begun, cost: begun.elapsed() };
                        send.send_replace(Seen { look: surroundings.look(), begun, whole: true });
                    }
                }
            })
            .context("failed to start the thread that looks around on the host")?;
        Ok(Self { asks, seen, told: Vec::new(), refusals: Refusals::default() })
    }

    /// Whom a ban must not hit, as far as is known.
    pub(super) fn look(&self) -> Look {
        self.seen.borrow().look.clone()
    }

    /// Has the thread look around, if it does not do so already.
    pub(super) fn ask(&self) {
        self.ask_for(Ask::Usual);
    }

    fn ask_for(&self, ask: Ask) {
        // Full: it has enough to do already. Gone: it panicked, and the last look stays.
        if let Err(TrySendError::Disconnected(_)) = self.asks.try_send(ask) {
            tracing::debug!("nobody looks around on the host any more");
        }
    }

    /// Waits until there is a fresh look, at most [`PATIENCE`].
    async fn freshen(&mut self) {
        let oldest = Instant::now().checked_sub(FRESH).unwrap_or_else(Instant::now);
        if self.seen.borrow().is_since(oldest) {
            return;
        }
        self.ask();
        drop(tokio::time::timeout(PATIENCE, self.seen.wait_for(|seen| seen.is_since(oldest))).await);
    }

    /// Waits for a look that begins now, at most [`PATIENCE_BY_HAND`].
    async fn renew(&mut self) {
        let now = Instant::now();
        self.ask_for(Ask::Thorough);
        drop(tokio::time::timeout(PATIENCE_BY_HAND, self.seen.wait_for(|seen| seen.is_since(now))).await);
    }

    /// Waits for a look that nobody waited for. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What could not be seen, each thing once.
    fn untold(&mut self) -> Vec<String> {
        let problems = self.seen.borrow_and_update().look.problems.clone();
        let new: Vec<String> = problems.into_iter().filter(|p| !self.told.contains(p)).collect();
        // Bounded: a problem may name a process.
        self.told.truncate(32);
        self.told.splice(0..0, new.iter().cloned());
        new
    }
}

/// When processes were looked at, and what that took.
struct Scans {
    last: Instant,
    cost: Duration,
}

impl Scans {
    fn are_due(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= (self.cost * REST).clamp(SHORTEST_REST, LONGEST_REST)
    }
}

impl Agent {
    /// Before offenses are counted.
    pub(super) async fn raise_shield(&mut self) {
        self.shield.freshen().await;
        self.heed_shield();
    }

    /// Before an order is carried out, which may wait.
    pub(super) async fn raise_shield_by_hand(&mut self) {
        self.shield.renew().await;
        self.heed_shield();
    }

    /// Tells the engine what was seen last. Bans of whom it newly protects are lifted: they wait to be carried out.
    pub(super) fn heed_shield(&mut self) {
        for problem in self.shield.untold() {
            tracing::warn!("it cannot be seen whom a ban must not hit: {problem} (see stockade check)");
        }
        let seen = self.shield.seen.borrow();
        if seen.look.protected != *self.engine.protected() {
            self.engine.set_protected(seen.look.protected.clone(), clock::now());
        }
    }

    /// Says, once in a while, that an offender is not banned, and how to ban it all the same.
    pub(super) fn refuse(&mut self, offense: &Offense<'_>) {
        let Some(why) = self.engine.protected().told(IpNet::from(offense.offender)) else { return };
        let name = self.registry.name(offense.jail).unwrap_or("?");
        let now = clock::now();
        if self.shield.refusals.note(offense.jail, offense.offender, &why, now) {
            let who = offense.offender;
            tracing::warn!(
                jail = name,
                "not banned: {why}. To ban it all the same: stockade ban {name} {who} --force (told once an hour; \
                 `stockade status {name}` counts them)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_looked_at_seldom_where_that_takes_long() {
        let last = Instant::now();
        let due = |cost, after| Scans { last, cost }.are_due(last + after);
        let ms = Duration::from_millis;
        assert!(!due(ms(1), ms(999)) && due(ms(1), ms(1000)));
        assert!(!due(ms(60), ms(2999)) && due(ms(60), ms(3000)));
        assert!(!due(ms(5000), ms(9999)) && due(ms(5000), ms(10_000)));
    }

    #[tokio::test]
    async fn who_logs_in_is_seen_by_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { sessions: dir.path().into(), ..Places::default() };
        let mut shield = Shield::start(places).unwrap();
        let who: IpNet = "198.51.100.7/32".parse().unwrap();
        assert_eq!(shield.look().protected.told(who), None);
        std::fs::write(dir.path().join("1"), "STATE=active\nUSER=root\nREMOTE_HOST=198.51.100.7\n").unwrap();
        shield.freshen().await;
        assert_eq!(shield.look().protected.told(who), None, "a fresh look is not renewed");
        shield.renew().await;
        assert!(shield.look().protected.told(who).is_some());
        assert_eq!(shield.untold(), [""; 0]);
    }
}
