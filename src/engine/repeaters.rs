//! How the engine remembers repeaters and makes their bans longer.
//!
//! Every new ban is noted: for its jail if that escalates, and across jails if any jail counts so. What is noted and for
//! how long depends on offenders and the log's times alone, so that lines that are read again after a crash decide the
//! bans they decided before, and count them once.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Engine;
use super::escalation::{self, MEMORY};
use super::history::{Record, key};
use super::net::canonical;
use crate::types::{Ban, BanTime, JailId, Timestamp, UnbanReason};

/// A record is dropped so long after its memory is over by the agent's clock; by the log's time it counts for nothing
/// from then on. So late a log may be read and yet find what was known when it was written.
const LINGER: Duration = Duration::from_secs(86_400);

impl Engine {
    /// Says what makes the jitter of bans unforeseeable: a number that nobody else knows and that stays the same over
    /// restarts, or bans that are decided again would end at other times. 0 until it is set.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Takes over what was remembered of repeaters, at start. The bans that [`restore`](Self::restore) is given are taken to
    /// be counted in it; those that only [`adopt`](Self::adopt) finds are counted if they are newer. Call it
    /// after the jails are set and before both. Of more than there is room for, those who were banned last are kept.
    pub fn restore_history(&mut self, records: impl IntoIterator<Item = Record>) {
        let mut records: Vec<Record> = records.into_iter().collect();
        records.sort_by_key(|record| record.last);
        for record in records {
            self.history.restore(record);
        }
    }

    /// What is remembered of `net` where `jail` decides: in the jail, or across all.
    #[must_use]
    pub fn record(&self, jail: JailId, net: IpNet) -> Option<Record> {
        let escalation = self.jail(jail)?.policy.escalation.as_ref()?;
        self.history.get(key((!escalation.across).then_some(jail), canonical(net)))
    }

    /// Records of repeaters in memory; at most [`Limits::history`](super::Limits::history).
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.history.len()
    }

    /// Records that were forgotten before their time, because there were too many.
    #[must_use]
    pub fn history_forgotten(&self) -> u64 {
        self.history.forgotten
    }

    /// How long `jail` bans `net`, which is canonical, from `since` on, and how many earlier bans made it longer.
    pub(super) fn lasts(&self, jail: JailId, net: IpNet, since: Timestamp) -> (BanTime, u32) {
        let Some(policy) = self.jail(jail).map(|jail| &jail.policy) else { return (BanTime::Permanent, 0) };
        let Some(escalation) = &policy.escalation else { return (policy.bantime, 0) };
        let who = key((!escalation.across).then_some(jail), net);
        let earlier = self.history.earlier(who, since, escalation);
        let chance = escalation::chance(self.seed, net, since);
        let time = escalation.time(policy.bantime, earlier, chance);
        (time, if escalation.grows() { earlier } else { 0 })
    }

    /// Notes a ban, once however often it is decided.
    pub(super) fn note(&mut self, jail: JailId, net: IpNet, since: Timestamp, until: Option<Timestamp>) {
        let own = self.jail(jail).and_then(|jail| jail.policy.escalation.clone());
        // A jail that does not count across jails is counted as one that does.
        let across = own.as_ref().filter(|own| own.across).or(self.across.as_ref()).cloned();
        for (of, escalation) in [(Some(jail), own), (None, across)] {
            let Some(escalation) = escalation else { continue };
            let who = key(of, net);
            let earlier = self.history.earlier(who, since, &escalation);
            self.history.note(who, since, until, earlier);
        }
    }

    /// A ban that is noted ends later.
    pub(super) fn note_prolonged(&mut self, jail: JailId, net: IpNet, until: Option<Timestamp>) {
        for of in [Some(jail), None] {
            self.history.prolonged(key(of, net), until);
        }
    }

    /// The end of a ban that is noted is known better.
    pub(super) fn note_exact(&mut self, jail: JailId, net: IpNet, end: Timestamp) {
        self.note_prolonged(jail, net, Some(end));
        self.history.ended(key(Some(jail), net), end);
    }

    /// A ban that is noted has ended. Who was unbanned by hand begins anew, as in fail2ban.
    pub(super) fn note_ended(&mut self, ban: &Ban, reason: UnbanReason, now: Timestamp) {
        let [own, across] = [Some(ban.jail), None].map(|of| key(of, ban.offender));
        match reason {
            UnbanReason::Expired => {}
            UnbanReason::Lifted => {
                self.history.forget(own);
                self.history.forget(across);
            }
            // Across jails another one's ban may run on.
            UnbanReason::Reconfigured | UnbanReason::Protected | UnbanReason::MadeRoom => {
                self.history.ended(own, now);
            }
        }
    }

    /// Forgets some of those whose memory is over.
    pub(super) fn sweep_history(&mut self, now: Timestamp, steps: usize) {
        let Self { jails, across, history, .. } = self;
        let memory = |of: Option<JailId>| match of {
            Some(id) => jails
                .get(usize::from(id.0))
                .and_then(Option::as_ref)?
                .policy
                .escalation
                .as_ref()
                .map(|e| e.memory),
            None => across.as_ref().map(|e| e.memory),
        };
        // A jail that is gone may come back with the next configuration.
        history.sweep(steps, |of, end| {
            end.is_some_and(|end| now.since(end) > memory(of).unwrap_or(MEMORY).saturating_add(LINGER))
        });
    }

    /// After a jail was added, changed or removed.
    pub(super) fn set_escalation(&mut self, id: JailId) {
        let escalation = self.jail(id).and_then(|jail| jail.policy.escalation.clone());
        self.history.set_steps(id, escalation.as_ref().and_then(|e| e.neighbours.as_ref()));
        let all = self.jails.iter().flatten().filter_map(|jail| jail.policy.escalation.as_ref());
        let across = all.filter(|e| e.across).max_by_key(|e| e.memory);
        self.across = across.map(Arc::clone);
    }
}

#[cfg(test)]
mod tests;
