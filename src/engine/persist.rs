//! What outlives the engine: what changed since it was last asked, and how an engine is made to continue another.
//!
//! An engine that is restored from everything another told, and then is given the same inputs, decides the same. Exact
//! but for what the other had given up for want of room.

use std::time::Duration;

use ipnet::IpNet;

use super::Engine;
use super::history::RecordChange;
use super::net::{Key, canonical};
use crate::types::{Ban, EVIDENCE_CAP, FOUND, JailId, Offense, Timestamp};

/// An end that was computed from what is left of a timeout, when it was listed, may be wrong by so much.
const INEXACT: Duration = Duration::from_secs(1);

/// The offenses of an offender that may still count, and where its last ban ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The jail.
    pub jail: JailId,
    /// The address or IPv6 prefix that is counted.
    pub offender: IpNet,
    /// When it was last heard from, by the agent's clock, in whole seconds.
    pub heard: Timestamp,
    /// Earlier offenses do not count again: the end of the last ban.
    pub floor: Option<Timestamp>,
    /// When the offenses were committed, in the order they were read.
    pub times: Vec<Timestamp>,
}

/// How a table changed: what is `gone` goes first, for it may have come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// What was known before is void: `now` is all there is.
    pub all: bool,
    /// What is not there any more.
    pub gone: Vec<(JailId, IpNet)>,
    /// What is new or other than before.
    pub now: Vec<T>,
}

/// What changed in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The ban table.
    pub bans: Changed<Ban>,
    /// Who is being counted.
    pub windows: Changed<Open>,
    /// What is remembered of repeaters, those forgotten first.
    pub history: Vec<RecordChange>,
    /// Whether `history` is all there is.
    pub all_history: bool,
}

impl Engine {
    /// From now on [`changes`](Self::changes) tells what changed; the first time, everything.
    pub fn remember_changes(&mut self) {
        self.bans.remember_changes();
        self.tracker.remember_changes();
        self.history.tell_all();
        self.all_history = true;
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.bans.is_unchanged() && self.tracker.is_unchanged() && self.history.is_unchanged()
    }

    /// What changed since the last time, if that was asked for by [`remember_changes`](Self::remember_changes).
    pub fn changes(&mut self) -> Changes {
        Changes {
            bans: self.bans.changes(),
            windows: self.tracker.changes(),
            history: self.history.changed(),
            all_history: std::mem::take(&mut self.all_history),
        }
    }

    /// Continues where another engine was: its bans, then its windows, those heard from last at the end. Set jails and
    /// allowlist first, and restore the history. Bans that are not taken (their jail is gone, or they hold somebody who is never banned) are
    /// returned; windows of jails that are gone are dropped. Those that ended meanwhile end at the next input, and
    /// no decision comes of what is restored.
    pub fn restore(
        &mut self,
        bans: impl IntoIterator<Item = Ban>,
        windows: impl IntoIterator<Item = Open>,
        now: Timestamp,
    ) -> Vec<Ban> {
        self.clock = now;
        let mut refused = Vec::new();
        for ban in bans {
            let (key, found) = (Key::of(ban.jail, canonical(ban.offender)), *ban.evidence == *FOUND);
            if !self.take(ban.clone()) {
                refused.push(ban);
            } else if found {
                // Its line may still be read once more: the agent before us died again before it was.
                self.found.insert(key);
            }
        }
        for open in windows {
            let policy = self.jail(open.jail).map(|jail| (jail.policy.findtime, jail.policy.maxretry));
            if let Some((findtime, maxretry)) = policy {
                self.tracker.restore(&open, findtime, maxretry, now);
            }
        }
        refused
    }

    /// Takes over a ban that the kernel holds; see [`adopt`](Self::adopt). What the kernel says of its end is as exact as
    /// its timeouts can be read. Of a ban that is known already a later end is believed only when it is later by more
    /// than that: somebody prolonged it, and the agent before us died before it could write that down. One that is not
    /// known was decided then, too: its line will be read once more, and then its end is known exactly.
    pub fn adopt_found(&mut self, mut ban: Ban) -> bool {
        let (jail, offender) = (ban.jail, canonical(ban.offender));
        // It may end before its line is read, and what is committed at its very end counts again.
        let exact = self.lasts(jail, offender, ban.since).0.until(ban.since);
        if ban.until.zip(exact).is_some_and(|(found, exact)| near(found, exact)) {
            ban.until = exact;
        }
        if let Some(known) = self.bans.get(jail, offender) {
            let later = match (known.until, ban.until) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(known), Some(until)) => until > known.saturating_add(INEXACT),
            };
            if !later {
                return true;
            }
        }
        // Also where another ban is known: that one has ended since, and this one followed it.
        let taken = self.adopt(ban);
        if taken {
            self.found.insert(Key::of(jail, offender));
        }
        taken
    }

    /// An offense by somebody whose ban was found in the kernel: is it the line that decided it?
    pub(super) fn recognise(&mut self, o: &Offense<'_>) {
        let addr = o.offender.to_canonical();
        let bans = self.bans.covering(o.jail, addr).filter(|ban| ban.since == o.at);
        let found = |ban: &&Ban| self.found.contains(&Key::of(ban.jail, ban.offender));
        for net in bans.filter(found).map(|ban| ban.offender).collect::<Vec<_>>() {
            self.found.remove(&Key::of(o.jail, net));
            // It was noted when it was found: this is what counted for it, jitter included.
            let until = self.lasts(o.jail, net, o.at).0.until(o.at);
            let mut exact = None;
            self.bans.change(o.jail, net, |ban| {
                if ban.until.zip(until).is_some_and(|(a, b)| near(a, b)) {
                    ban.until = until;
                    exact = until;
                }
                ban.evidence = o.line.get(..EVIDENCE_CAP).unwrap_or(o.line).into();
            });
            if let Some(end) = exact {
                self.note_exact(o.jail, net, end);
            }
        }
    }

    /// What was restored is known to whom it was restored from: only what changes from now on is told.
    pub fn is_known(&mut self) {
        self.bans.is_known();
        self.tracker.is_known();
        self.all_history = false;
    }

    /// Whether a ban of `net` in `jail` that began at `since` has ended already, as far as that is remembered. One that
    /// is found in the kernel all the same was lifted just before a crash.
    #[must_use]
    pub fn is_over(&self, jail: JailId, net: IpNet, since: Timestamp) -> bool {
        self.tracker.floor(Key::of(jail, canonical(net))).is_some_and(|floor| since < floor)
    }
}

/// Whether the two can be one, read at different moments.
fn near(a: Timestamp, b: Timestamp) -> bool {
    a.since(b).max(b.since(a)) <= INEXACT
}

#[cfg(test)]
mod tests;
