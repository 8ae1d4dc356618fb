//! From offenses to decisions.
//!
//! The engine is told the time and touches nothing: no clock, no file, no socket. What it decides depends on what
//! it was told alone, so the same log gives the same bans in a test, in a replay and in the agent.
//!
//! # What is counted
//!
//! An offender is banned in a jail when `maxretry` of its offenses there lie within `findtime`, both ends included,
//! *by the log's times*: an exact sliding window, no decaying rate. Lines may arrive out of order. What that
//! promises and what not:
//!
//! - While no line is late by more than `findtime` (behind the newest of its offender), nothing is missed and
//!   nothing is counted twice.
//! - Beyond that the last `max(8, 3 × (maxretry − 1))` offenses *to arrive* are remembered of each offender. Two
//!   logs whose clocks differ, or a clock that steps, each are still counted by their own times.
//! - Of an offender that has been silent for `findtime` and an hour of the agent's time, nothing is remembered.
//!   Neither is of those who had to make room ([`JailStats::forgotten`]) when more than [`Limits::offenders`]
//!   are tracked.
//!
//! # When a ban begins and ends
//!
//! It begins with the deciding offense, by the log's time, and lasts `bantime`: the end itself is no longer banned.
//! While it lasts offenses count for nothing, and after it counting begins anew, with offenses not before its end,
//! also for lines that are read late. A ban that is over before it is decided (an old backlog) is only
//! counted in [`JailStats::too_old`] and in `bans_total`; the kernel need not hear of it.
//!
//! An offense dated more than [`FUTURE_TOLERANCE`] ahead is taken as of now.
//!
//! # Repeaters
//!
//! Where a jail escalates ([`Escalation`]) a ban is longer if its offender was banned before, and many bans in one prefix
//! are followed by a ban of the prefix. A ban counts when it is decided, also one that is over by then; it counts once,
//! however often its lines are read: a ban that does not begin after the last that is noted is taken as noted.
//! While a ban lasts, nothing counts. Who is unbanned by hand begins anew.
//!
//! Promised while no more than [`Limits::history`] are remembered, and while a log is not read more than a day after
//! what counts for it was forgotten.
#![warn(clippy::disallowed_methods)]

mod allowlist;
mod bans;
mod command;
mod dirty;
mod escalation;
mod formula;
mod history;
mod jail;
mod neighbours;
mod net;
mod order;
mod persist;
mod protected;
mod repeaters;
mod siblings;
mod tracker;
mod window;

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use self::bans::Bans;
use self::command::later;
use self::history::History;
use self::jail::Jail;
use self::net::{Key, canonical};
use self::tracker::{Tally, Tracker};
use crate::types::{Ban, Decision, EVIDENCE_CAP, JailId, Offense, Timestamp, UnbanReason};

pub use self::allowlist::Allowlist;
pub use self::command::{Command, Covered, Refused, Reply, Unban};
pub use self::escalation::{Escalation, Growth, LONGEST, Neighbours};
pub use self::formula::{Formula, FormulaError, Values};
pub use self::history::{Record, RecordChange};
pub use self::jail::{JailStats, Policy};
pub use self::persist::{Changed, Changes, Open};
pub use self::protected::{Protected, Why};

/// So far ahead of the agent's clock a log's may be: it is the same host's or one with NTP. What is further ahead is
/// taken as of now, since a ban must not begin tomorrow.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(60);

/// So many places one [`Engine::timeout`] looks at for offenders that fell silent.
const SWEEP: usize = 4096;

/// How much the engine may remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Offenders tracked over all jails, at least 1. About 85 bytes each while no more than three offenses are
    /// remembered of it (measured by `benches/engine.rs`), and 8 to 16 more for each beyond.
    pub offenders: usize,
    /// Times of offenses remembered beyond three for each offender, over all of them; 8 bytes each. Where there are more,
    /// the least recent offenders make room.
    pub times: usize,
    /// Bans at once, at least 1. Where there are more, the one that ends first makes room; never one without an end or
    /// one by hand.
    pub bans: usize,
    /// Bytes of evidence over all bans. A ban that finds no room for its own has none.
    pub evidence: usize,
    /// Records of repeaters over all jails, at least 1. About 65 bytes each. A jail that counts across jails has two of
    /// each offender.
    pub history: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { offenders: 200_000, history: 200_000, times: 4_000_000, bans: 100_000, evidence: 32 << 20 }
    }
}

/// What became of an offense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is one of `count` within `findtime`.
    Counted {
        /// Offenses within one span of `findtime` around this one, it included.
        count: u32,
    },
    /// It decided a ban, which waits at [`Engine::poll_decision`].
    Banned,
    /// It would have decided a ban, and there is no room: all bans are by hand or without an end, and [`Limits::bans`] are
    /// reached. Its offender is still counted, and the next offense tries again.
    NoRoom,
    /// It decided a ban that would have ended before now.
    TooOld,
    /// Its offender is banned, or was when it was committed.
    AlreadyBanned,
    /// Its offender is never banned.
    Allowlisted,
    /// It would have decided a ban, but its offender is [protected](Engine::protected). The offenses stay on the count: the next
    /// one decides as soon as the offender is not protected any more.
    Refused,
    /// Its jail is gone: the line was under way when the configuration changed.
    NoSuchJail,
}

/// The jails, who is on the way to a ban, and who is banned.
///
/// After each input ([`offense`](Self::offense), [`command`](Self::command), [`timeout`](Self::timeout) and the
/// `set_…` and `remove_…` calls) poll [`poll_decision`](Self::poll_decision) until it is empty, then
/// [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Engine {
    /// By [`JailId`]. Boxed, because numbers are not reused and the gaps should cost nothing.
    jails: Vec<Option<Box<Jail>>>,
    allowlist: Allowlist,
    protected: Protected,
    /// Both of them: no prefix that holds any of these is banned as a whole.
    never: Allowlist,
    tracker: Tracker,
    bans: Bans,
    /// Bans that were found in the kernel and that nobody remembers.
    found: HashSet<Key>,
    decisions: VecDeque<Decision>,
    history: History,
    /// What holds of records across jails, for the bans of jails that do not count so; `None` if none does.
    across: Option<Arc<Escalation>>,
    /// See [`Engine::set_seed`].
    seed: u64,
    /// The next changes of the history are all there is.
    all_history: bool,
    /// The latest time that was told.
    clock: Timestamp,
}

impl Engine {
    /// An engine without jails.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            jails: Vec::new(),
            allowlist: Allowlist::default(),
            protected: Protected::default(),
            never: Allowlist::default(),
            tracker: Tracker::new(limits.offenders, limits.times),
            bans: Bans::new(limits.bans, limits.evidence),
            found: HashSet::new(),
            decisions: VecDeque::new(),
            history: History::new(limits.history),
            across: None,
            seed: 0,
            all_history: false,
            clock: Timestamp::default(),
        }
    }

    /// Adds a jail or changes it. A changed one keeps its bans (as long as they were decided to be) and its counts
    /// (judged by the new policy at the next offense); bans of those it now never bans are lifted.
    pub fn set_jail(&mut self, id: JailId, policy: Policy, now: Timestamp) {
        self.expire(now);
        self.tracker.set_jail(id, policy.findtime);
        let at = usize::from(id.0);
        if self.jails.len() <= at {
            self.jails.resize_with(at + 1, || None);
        }
        let Some(place) = self.jails.get_mut(at) else { return };
        let Some(jail) = place else {
            *place = Some(Box::new(Jail::new(policy)));
            self.set_escalation(id);
            return;
        };
        let allowlist = policy.allowlist.clone();
        let before = jail.set_policy(policy).allowlist;
        self.set_escalation(id);
        let Some(allowlist) = allowlist else { return };
        self.lift(UnbanReason::Reconfigured, now, |b| {
            b.jail == id
                && allowlist.overlaps(b.offender)
                && !before.as_ref().is_some_and(|l| l.overlaps(b.offender))
        });
    }

    /// Removes a jail with its counts and lifts its bans. What is remembered of its repeaters stays for its time, so that
    /// a jail that comes back knows them.
    pub fn remove_jail(&mut self, id: JailId, now: Timestamp) {
        self.expire(now);
        self.lift(UnbanReason::Reconfigured, now, |b| b.jail == id);
        self.tracker.remove_jail(id);
        if let Some(place) = self.jails.get_mut(usize::from(id.0)) {
            *place = None;
        }
        self.set_escalation(id);
    }

    /// Says who is never banned by any jail. Bans that hold somebody who was not on the list before are lifted; one
    /// that was forced in spite of the list stays.
    pub fn set_allowlist(&mut self, allowlist: Allowlist, now: Timestamp) {
        self.expire(now);
        let before = std::mem::replace(&mut self.allowlist, allowlist.clone());
        self.join_lists();
        self.lift(UnbanReason::Reconfigured, now, |b| {
            allowlist.overlaps(b.offender) && !before.overlaps(b.offender)
        });
    }

    /// Says who must not be banned at the moment, besides those who never are: an order to ban them all the same must be
    /// forced. Bans that hold somebody who was not protected before are lifted, unless they were forced. Looks at every
    /// ban when there is somebody new.
    pub fn set_protected(&mut self, protected: Protected, now: Timestamp) {
        self.expire(now);
        let added = protected.added_since(&self.protected);
        self.protected = protected;
        self.join_lists();
        if !added.entries().is_empty() {
            self.lift(UnbanReason::Protected, now, |b| !b.forced && added.overlaps(b.offender));
        }
    }

    /// Who must not be banned at the moment, and why.
    #[must_use]
    pub fn protected(&self) -> &Protected {
        &self.protected
    }

    /// Takes over a ban that the kernel already holds, at start; no decision comes of it. Of two bans of the same
    /// network in the same jail the later end holds. It counts for escalation, unless it is noted already. Not taken
    /// (`false`) are bans of a jail that is unknown, and bans of those who are never banned or protected, unless they were
    /// forced: [`bans`](Self::bans) then lacks them, and the kernel is told to drop them. So set jails and both lists
    /// first. One that is over is taken and ends at the next [`timeout`](Self::timeout).
    pub fn adopt(&mut self, ban: Ban) -> bool {
        let (id, offender) = (ban.jail, canonical(ban.offender));
        let (since, until) = (ban.since, ban.until);
        // What is held already counted when it was decided.
        let known = self.bans.get(id, offender).is_some_and(|held| held.since == since);
        let taken = self.take(ban);
        if taken && known {
            self.note_prolonged(id, offender, until);
        } else if taken {
            self.note(id, offender, since, until);
        }
        taken
    }

    /// Takes over a ban without counting it: its record is restored with it.
    fn take(&mut self, ban: Ban) -> bool {
        let (id, offender) = (ban.jail, canonical(ban.offender));
        if !ban.forced && self.allowed_by(id, offender).is_some() {
            return false;
        }
        let Some(jail) = self.jails.get_mut(usize::from(id.0)).and_then(Option::as_mut) else { return false };
        if self.bans.get(id, offender).is_none() {
            jail.stats.bans_current += 1;
            self.tracker.remove(Key::of(id, offender));
            self.bans.insert(Ban { offender, ..ban }, self.clock);
            self.keep_to_the_limit();
            return true;
        }
        self.bans.change(id, offender, |held| {
            if later(ban.until, held.until) {
                *held = Ban { offender, ..ban };
            }
        });
        true
    }

    /// Counts an offense. Bans that ended by `now` are ended first.
    ///
    /// `now` is the agent's clock; who replays an old log passes the offense's own time, and then nothing is ever too
    /// old.
    pub fn offense(&mut self, o: Offense<'_>, now: Timestamp) -> Verdict {
        self.expire(now);
        let Some(jail) = self.jails.get_mut(usize::from(o.jail.0)).and_then(Option::as_mut) else {
            return Verdict::NoSuchJail;
        };
        jail.stats.offenses += 1;
        let addr = o.offender.to_canonical();
        if jail.allows(&self.allowlist, addr) {
            jail.stats.allowlisted += 1;
            return Verdict::Allowlisted;
        }
        if self.bans.covers(o.jail, addr) {
            jail.stats.already_banned += 1;
            if !self.found.is_empty() {
                self.recognise(&o);
            }
            return Verdict::AlreadyBanned;
        }
        let mut at = o.at;
        if at > now.saturating_add(FUTURE_TOLERANCE) {
            at = now;
            jail.stats.future_clamped += 1;
        }
        let key = jail.offender(o.jail, &self.never, addr);
        let mut forgotten = None;
        let count = match self.tracker.count(key, at, now, &jail.policy, &mut forgotten) {
            Tally::Served => {
                jail.stats.already_banned += 1;
                return Verdict::AlreadyBanned;
            }
            Tally::Count(count) => count,
        };
        let maxretry = jail.policy.maxretry;
        if let Some(id) = forgotten {
            self.forgot(id);
        }
        if count < maxretry {
            return Verdict::Counted { count };
        }
        let (time, earlier) = self.lasts(o.jail, key.net(), at);
        let until = time.until(at);
        if let Some(jail) = self.jails.get_mut(usize::from(o.jail.0)).and_then(Option::as_mut) {
            jail.stats.escalated += u64::from(earlier > 0);
        }
        if let Some(end) = until.filter(|end| *end <= now) {
            self.tracker.begin_anew(key, end, now);
            if let Some(jail) = self.jails.get_mut(usize::from(o.jail.0)).and_then(Option::as_mut) {
                jail.stats.bans_total += 1;
                jail.stats.last_ban = Some(at);
                jail.stats.too_old += 1;
            }
            self.note(o.jail, key.net(), at, until);
            self.widen(o.jail, key.net(), at, o.line, now);
            return Verdict::TooOld;
        }
        if self.protected.overlaps(key.net()) {
            if let Some(jail) = self.jails.get_mut(usize::from(o.jail.0)).and_then(Option::as_mut) {
                jail.stats.refused += 1;
            }
            return Verdict::Refused;
        }
        if !self.make_room(now) {
            self.crowded_out(o.jail);
            return Verdict::NoRoom;
        }
        let evidence = o.line.get(..EVIDENCE_CAP).unwrap_or(o.line).into();
        let offender = key.net();
        self.begin(Ban {
            jail: o.jail,
            offender,
            since: at,
            until,
            offenses: count,
            evidence,
            forced: false,
        });
        self.widen(o.jail, offender, at, o.line, now);
        Verdict::Banned
    }

    /// When [`timeout`](Self::timeout) must be called next: the exact end of the first ban to end; `None` while no ban
    /// ends.
    ///
    /// Poll again after every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.bans.next_end()
    }

    /// Ends the bans that ended by `now`. Also forgets some of the offenders that have long been silent, so an idle
    /// agent may call it once in a while though nothing is due.
    pub fn timeout(&mut self, now: Timestamp) {
        self.expire(now);
        self.tracker.sweep(now, SWEEP);
        self.sweep_history(now, SWEEP);
    }

    /// The next decision, in the order in which they were made. Of the bans that ended before an input, the ends come
    /// before what the input decided.
    ///
    /// Poll after every input until it is `None`.
    #[must_use]
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// All current bans, in no order: what the kernel should hold. Bans that ended since the last input are among
    /// them.
    pub fn bans(&self) -> impl Iterator<Item = &Ban> {
        self.bans.iter()
    }

    /// The ban of exactly `net` in `jail`.
    #[must_use]
    pub fn ban(&self, jail: JailId, net: IpNet) -> Option<&Ban> {
        self.bans.get(jail, canonical(net))
    }

    /// The bans of `jail` that `addr` falls under, from the widest on.
    pub fn bans_of(&self, jail: JailId, addr: IpAddr) -> impl Iterator<Item = &Ban> {
        self.bans.covering(jail, addr.to_canonical())
    }

    /// Since when `addr` has been banned in `jail`, by itself or by a network that holds it; `None` if it is not. A ban
    /// counts from when it began *and* the engine knew of it (that of an old line, or one found in the kernel, is known
    /// later than it begins): what `addr` does after that, it does in spite of the ban.
    #[must_use]
    pub fn in_force_since(&self, jail: JailId, addr: IpAddr) -> Option<Timestamp> {
        self.bans.in_force_since(jail, addr.to_canonical())
    }

    /// What `jail` would ban for offenses of `addr`: the address or its IPv6 prefix; `None` if there is no such jail or
    /// `addr` is never banned.
    #[must_use]
    pub fn offender(&self, jail: JailId, addr: IpAddr) -> Option<IpNet> {
        let addr = addr.to_canonical();
        let j = self.jail(jail)?;
        (!j.allows(&self.allowlist, addr)).then(|| j.offender(jail, &self.never, addr).net())
    }

    /// What came of the offenses in a jail. Looks at every tracked offender: who asks about several jails asks for
    /// [`open_counts`](Self::open_counts) once.
    #[must_use]
    pub fn stats(&self, jail: JailId, now: Timestamp) -> Option<JailStats> {
        self.stats_with(jail, &self.open_counts(now))
    }

    /// Offenders with offenses on their count right now, by the number of the jail. Looks at all: about a millisecond for
    /// 200,000.
    #[must_use]
    pub fn open_counts(&self, now: Timestamp) -> Vec<u64> {
        self.tracker.tracked(now)
    }

    /// What came of the offenses in a jail, given [`open_counts`](Self::open_counts).
    #[must_use]
    pub fn stats_with(&self, jail: JailId, open: &[u64]) -> Option<JailStats> {
        let tracked = open.get(usize::from(jail.0)).copied().unwrap_or(0);
        Some(JailStats { tracked, ..self.jail(jail)?.stats })
    }

    /// Offenders in memory over all jails, also those without open counts; at most [`Limits::offenders`].
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracker.len()
    }

    fn jail(&self, id: JailId) -> Option<&Jail> {
        self.jails.get(usize::from(id.0))?.as_deref()
    }

    fn jail_ids(&self) -> impl Iterator<Item = JailId> {
        (0..=u16::MAX).zip(&self.jails).filter(|(_, jail)| jail.is_some()).map(|(id, _)| JailId(id))
    }

    /// The entry that forbids `jail` to ban `net`: of the allowlists, or of those who are protected.
    fn allowed_by(&self, jail: JailId, net: IpNet) -> Option<IpNet> {
        let own = || self.jail(jail)?.policy.allowlist.as_ref()?.entry(net);
        self.never.entry(net).or_else(own)
    }

    fn join_lists(&mut self) {
        self.never = self.allowlist.entries().iter().copied().chain(self.protected.nets()).collect();
    }

    /// How many bans were given up over all jails, because there were too many.
    #[must_use]
    pub fn crowded_out_in_all(&self) -> u64 {
        self.jails.iter().flatten().map(|jail| jail.stats.crowded_out).sum()
    }

    fn crowded_out(&mut self, id: JailId) {
        if let Some(jail) = self.jails.get_mut(usize::from(id.0)).and_then(Option::as_mut) {
            jail.stats.crowded_out += 1;
        }
    }

    /// Ends the ban that would end first where there is no room for another one; `false` where none may be ended.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if !self.bans.is_full() {
            return true;
        }
        let Some(ban) = self.bans.pop_first() else { return false };
        self.crowded_out(ban.jail);
        self.ended(ban, UnbanReason::MadeRoom, now, now);
        true
    }

    /// What is taken over must fit, too; no decision comes of that.
    fn keep_to_the_limit(&mut self) {
        while self.bans.is_over_full()
            && let Some(ban) = self.bans.pop_first()
        {
            self.crowded_out(ban.jail);
            if let Some(jail) = self.jails.get_mut(usize::from(ban.jail.0)).and_then(Option::as_mut) {
                jail.stats.bans_current -= 1;
            }
        }
    }

    fn forgot(&mut self, id: JailId) {
        if let Some(jail) = self.jails.get_mut(usize::from(id.0)).and_then(Option::as_mut) {
            jail.stats.forgotten += 1;
        }
    }

    /// A new ban: into the table, to the kernel, and nothing is left to count.
    fn begin(&mut self, ban: Ban) {
        self.note(ban.jail, ban.offender, ban.since, ban.until);
        self.tracker.remove(Key::of(ban.jail, ban.offender));
        if let Some(jail) = self.jails.get_mut(usize::from(ban.jail.0)).and_then(Option::as_mut) {
            jail.stats.bans_current += 1;
            jail.stats.bans_total += 1;
            jail.stats.last_ban = Some(ban.since);
        }
        self.bans.insert(ban.clone(), self.clock);
        self.decisions.push_back(Decision::Ban(ban));
    }

    fn expire(&mut self, now: Timestamp) {
        self.clock = now;
        while let Some(ban) = self.bans.pop_ended(now) {
            let end = ban.until.unwrap_or(now);
            self.ended(ban, UnbanReason::Expired, end, now);
        }
    }

    /// Lifts the bans that `which` says; how many.
    fn lift(&mut self, reason: UnbanReason, now: Timestamp, which: impl Fn(&Ban) -> bool) -> usize {
        let nets: Vec<(JailId, IpNet)> =
            self.bans.iter().filter(|b| which(b)).map(|b| (b.jail, b.offender)).collect();
        nets.iter().filter(|(id, net)| self.lift_one(*id, *net, reason, now)).count()
    }

    fn lift_one(&mut self, id: JailId, net: IpNet, reason: UnbanReason, now: Timestamp) -> bool {
        let Some(ban) = self.bans.remove(id, net) else { return false };
        self.ended(ban, reason, now, now);
        true
    }

    fn ended(&mut self, ban: Ban, reason: UnbanReason, end: Timestamp, now: Timestamp) {
        self.note_ended(&ban, reason, now);
        if let Some(jail) = self.jails.get_mut(usize::from(ban.jail.0)).and_then(Option::as_mut) {
            jail.stats.bans_current -= 1;
            // A wide network is no offender: nothing was counted for it.
            let len = ban.offender.prefix_len();
            // Of those who made room nothing is remembered: in a flood that would crowd out who is being counted.
            let remembered = reason != UnbanReason::MadeRoom;
            let single = len == ban.offender.max_prefix_len();
            if remembered && (single || (ban.offender.addr().is_ipv6() && len == jail.policy.ipv6_prefix)) {
                self.tracker.begin_anew(Key::of(ban.jail, ban.offender), end, now);
            }
        }
        self.decisions.push_back(Decision::Unban(ban, reason));
    }
}
