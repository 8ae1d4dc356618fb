//! What outlives the engine: what changed since it was last asked, and how an engine is made to continue another.
//!
//! An engine that is restored from everything another told, and then is given the same inputs, decides the same. Exact
//! but for what the other had given up for want of room.

use ipnet::IpNet;

use super::Engine;
use super::net::{Key, canonical};
use crate::types::{Ban, JailId, Timestamp};

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
}

impl Engine {
    /// From now on [`changes`](Self::changes) tells what changed; the first time, everything.
    pub fn remember_changes(&mut self) {
        self.bans.remember_changes();
        self.tracker.remember_changes();
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.bans.is_unchanged() && self.tracker.is_unchanged()
    }

    /// What changed since the last time, if that was asked for by [`remember_changes`](Self::remember_changes).
    pub fn changes(&mut self) -> Changes {
        Changes { bans: self.bans.changes(), windows: self.tracker.changes() }
    }

    /// Continues where another engine was: its bans, then its windows, those heard from last at the end. Set jails and
    /// allowlist first. Bans that are not taken (their jail is gone, or they hold somebody who is never banned) are
    /// returned; windows of jails that are gone are dropped. Those that ended meanwhile end at the next input, and
    /// no decision comes of what is restored.
    pub fn restore(
        &mut self,
        bans: impl IntoIterator<Item = Ban>,
        windows: impl IntoIterator<Item = Open>,
        now: Timestamp,
    ) -> Vec<Ban> {
        self.clock = now;
        let refused = bans.into_iter().filter(|ban| !self.adopt(ban.clone())).collect();
        for open in windows {
            let policy = self.jail(open.jail).map(|jail| (jail.policy.findtime, jail.policy.maxretry));
            if let Some((findtime, maxretry)) = policy {
                self.tracker.restore(&open, findtime, maxretry, now);
            }
        }
        refused
    }

    /// What was restored is known to whom it was restored from: only what changes from now on is told.
    pub fn is_known(&mut self) {
        self.bans.is_known();
        self.tracker.is_known();
    }

    /// Whether a ban of `net` in `jail` that began at `since` has ended already, as far as that is remembered. One that
    /// is found in the kernel all the same was lifted just before a crash.
    #[must_use]
    pub fn is_over(&self, jail: JailId, net: IpNet, since: Timestamp) -> bool {
        self.tracker.floor(Key::of(jail, canonical(net))).is_some_and(|floor| since < floor)
    }
}

#[cfg(test)]
mod tests;
