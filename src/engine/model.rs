//! The engine as its documentation describes it, written to be read and not to be fast: everything in vectors, each
//! question answered by looking at all of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::net::canonical;
use super::tracker::LINGER;
use super::{FUTURE_TOLERANCE, Policy, Refused, Verdict, window};
use crate::types::{Ban, BanTime, Decision, JailId, Timestamp, UnbanReason};

/// What is known of one offender in one jail.
struct History {
    jail: JailId,
    offender: IpNet,
    /// In the order of arrival.
    times: Vec<Timestamp>,
    floor: Option<Timestamp>,
    heard: Timestamp,
}

pub(super) struct Model {
    pub(super) jails: BTreeMap<JailId, Policy>,
    pub(super) allowlist: Vec<IpNet>,
    pub(super) protected: Vec<IpNet>,
    pub(super) bans: Vec<Ban>,
    pub(super) decisions: Vec<Decision>,
    history: Vec<History>,
    /// Never forget anything: what the window would be with all memory in the world.
    total_recall: bool,
}

impl Model {
    pub(super) fn new(total_recall: bool) -> Self {
        Self {
            jails: BTreeMap::new(),
            allowlist: Vec::new(),
            protected: Vec::new(),
            bans: Vec::new(),
            decisions: Vec::new(),
            history: Vec::new(),
            total_recall,
        }
    }

    pub(super) fn offense(&mut self, id: JailId, addr: IpAddr, at: Timestamp, now: Timestamp) -> Verdict {
        self.expire(now);
        let Some(policy) = self.jails.get(&id).cloned() else { return Verdict::NoSuchJail };
        let allowed = self.allowed(id);
        if allowed.iter().any(|n| n.contains(&addr)) {
            return Verdict::Allowlisted;
        }
        if self.bans.iter().any(|b| b.jail == id && b.offender.contains(&addr)) {
            return Verdict::AlreadyBanned;
        }
        let at = if at > now.saturating_add(FUTURE_TOLERANCE) { now } else { at };
        let whole = IpNet::from(addr);
        let prefix =
            if addr.is_ipv6() { IpNet::new(addr, policy.ipv6_prefix).unwrap().trunc() } else { whole };
        let mut never = allowed.iter().chain(&self.protected);
        let offender = if never.any(|n| overlap(*n, prefix)) { whole } else { prefix };
        let is_protected = self.protected.iter().any(|n| overlap(*n, offender));

        let total_recall = self.total_recall;
        let history = self.history_of(id, offender, now);
        let silence = (history.heard.as_millis() / 1000).abs_diff(now.as_millis() / 1000);
        if !total_recall && silence > (policy.findtime + LINGER).as_secs() {
            history.times.clear();
            history.floor = None;
        }
        history.heard = now;
        if history.floor.is_some_and(|floor| at < floor) {
            return Verdict::AlreadyBanned;
        }
        history.times.push(at);
        // Every span of findtime that begins with an offense and holds this one.
        let spans =
            history.times.iter().filter(|first| **first <= at && at.since(**first) <= policy.findtime);
        let within = |first: &Timestamp| {
            history.times.iter().filter(|t| *t >= first && t.since(*first) <= policy.findtime).count()
        };
        let count = u32::try_from(spans.map(within).max().unwrap()).unwrap();
        if !total_recall {
            let keep = window::memory(policy.maxretry);
            history.times.drain(..history.times.len().saturating_sub(keep));
        }
        if count < policy.maxretry {
            return Verdict::Counted { count };
        }
        let until = policy.bantime.until(at);
        if until.is_some_and(|end| end <= now) {
            history.times.clear();
            history.floor = until;
            return Verdict::TooOld;
        }
        if is_protected {
            // Where the first offense decides, nothing is remembered of it.
            if policy.maxretry <= 1 && history.times.len() == 1 && history.floor.is_none() {
                self.history.retain(|h| (h.jail, h.offender) != (id, offender));
            }
            return Verdict::Refused;
        }
        history.times.clear();
        self.begin(Ban {
            jail: id,
            offender,
            since: at,
            until,
            offenses: count,
            evidence: Box::default(),
            forced: false,
        });
        Verdict::Banned
    }

    /// Why it would not ban them; the protected ones are told first.
    pub(super) fn refuses_all(
        &self,
        id: JailId,
        nets: &[IpNet],
        time: Option<BanTime>,
        force: bool,
        now: Timestamp,
    ) -> Option<Refused> {
        let all = || nets.iter().filter_map(|n| self.refuses(id, *n, time, force, now));
        all().find(|refused| matches!(refused, Refused::Protected { .. })).or_else(|| all().next())
    }

    /// Why it would not ban.
    pub(super) fn refuses(
        &self,
        id: JailId,
        net: IpNet,
        time: Option<BanTime>,
        force: bool,
        now: Timestamp,
    ) -> Option<Refused> {
        let Some(policy) = self.jails.get(&id) else { return Some(Refused::NoSuchJail) };
        if time.unwrap_or(policy.bantime).until(now).is_some_and(|end| end <= now) {
            return Some(Refused::NoTime);
        }
        if !force && self.protected.iter().any(|n| overlap(*n, canonical(net))) {
            return Some(Refused::Protected { net, told: String::new() });
        }
        let mut everywhere = self.allowlist.clone();
        everywhere.sort();
        let mut entries = everywhere.into_iter().chain(entries(policy));
        let entry = entries.find(|n| overlap(*n, canonical(net))).filter(|_| !force)?;
        Some(Refused::Allowlisted { net, entry })
    }

    /// Bans what it would not refuse.
    pub(super) fn ban(
        &mut self,
        id: JailId,
        net: IpNet,
        time: Option<BanTime>,
        forced: bool,
        now: Timestamp,
    ) {
        self.expire(now);
        let offender = canonical(net);
        let until = time.unwrap_or_else(|| self.jails[&id].bantime).until(now);
        let Some(held) = self.bans.iter_mut().find(|b| b.jail == id && b.offender == offender) else {
            let evidence = Box::default();
            self.begin(Ban { jail: id, offender, since: now, until, offenses: 0, evidence, forced });
            return;
        };
        let never = Timestamp::from_millis(i64::MAX);
        let longer = until.unwrap_or(never) > held.until.unwrap_or(never);
        if longer || (forced && !held.forced) {
            held.forced |= forced;
            if longer {
                held.until = until;
            }
            self.decisions.push(Decision::Prolong(held.clone()));
        }
    }

    pub(super) fn unban(&mut self, net: Option<IpNet>, only: Option<JailId>, now: Timestamp) {
        self.expire(now);
        let jails = self.jails.clone();
        self.lift(UnbanReason::Lifted, now, |b| {
            let asked = net.is_none_or(|net| {
                let shortest = jails[&b.jail].ipv6_prefix.min(64);
                let prefix = b.offender.addr().is_ipv6()
                    && b.offender.prefix_len() >= shortest
                    && b.offender.contains(&canonical(net));
                canonical(net).contains(&b.offender) || prefix
            });
            asked && only.is_none_or(|id| id == b.jail)
        });
    }

    pub(super) fn set_jail(&mut self, id: JailId, policy: Policy, now: Timestamp) {
        self.expire(now);
        let before = self.jails.insert(id, policy.clone()).map(|p| entries(&p)).unwrap_or_default();
        let after = entries(&policy);
        self.lift(UnbanReason::Reconfigured, now, |b| b.jail == id && newly(&before, &after, b.offender));
    }

    pub(super) fn remove_jail(&mut self, id: JailId, now: Timestamp) {
        self.expire(now);
        self.lift(UnbanReason::Reconfigured, now, |b| b.jail == id);
        self.history.retain(|h| h.jail != id);
        self.jails.remove(&id);
    }

    pub(super) fn set_allowlist(&mut self, nets: Vec<IpNet>, now: Timestamp) {
        self.expire(now);
        let before = std::mem::replace(&mut self.allowlist, nets.clone());
        self.lift(UnbanReason::Reconfigured, now, |b| newly(&before, &nets, b.offender));
    }

    pub(super) fn set_protected(&mut self, nets: Vec<IpNet>, now: Timestamp) {
        self.expire(now);
        let before = std::mem::replace(&mut self.protected, nets.clone());
        let added: Vec<IpNet> = nets.into_iter().filter(|n| !before.contains(n)).collect();
        self.lift(UnbanReason::Protected, now, |b| {
            !b.forced && added.iter().any(|n| overlap(*n, b.offender))
        });
    }

    pub(super) fn adopt(&mut self, mut ban: Ban) -> bool {
        ban.offender = canonical(ban.offender);
        if !self.jails.contains_key(&ban.jail)
            || (!ban.forced
                && self.allowed(ban.jail).iter().chain(&self.protected).any(|n| overlap(*n, ban.offender)))
        {
            return false;
        }
        let never = Timestamp::from_millis(i64::MAX);
        match self.bans.iter_mut().find(|b| b.jail == ban.jail && b.offender == ban.offender) {
            Some(held) if ban.until.unwrap_or(never) > held.until.unwrap_or(never) => *held = ban,
            Some(_) => {}
            None => {
                self.history.retain(|h| (h.jail, h.offender) != (ban.jail, ban.offender));
                self.bans.push(ban);
            }
        }
        true
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        let mut ended: Vec<Ban> =
            self.bans.iter().filter(|b| b.until.is_some_and(|end| end <= now)).cloned().collect();
        ended.sort_by_key(|b| b.until);
        for ban in ended {
            let end = ban.until.unwrap();
            self.end(&ban, UnbanReason::Expired, end, now);
        }
    }

    fn lift(&mut self, reason: UnbanReason, now: Timestamp, which: impl Fn(&Ban) -> bool) {
        for ban in self.bans.clone().into_iter().filter(|b| which(b)) {
            self.end(&ban, reason, now, now);
        }
    }

    fn end(&mut self, ban: &Ban, reason: UnbanReason, floor: Timestamp, now: Timestamp) {
        self.bans.retain(|b| b != ban);
        self.decisions.push(Decision::Unban(ban.clone(), reason));
        let len = ban.offender.prefix_len();
        let single = len == ban.offender.max_prefix_len();
        if single || (ban.offender.addr().is_ipv6() && len == self.jails[&ban.jail].ipv6_prefix) {
            let history = self.history_of(ban.jail, ban.offender, now);
            history.floor = Some(floor);
            history.heard = now;
            history.times.clear();
        }
    }

    fn begin(&mut self, ban: Ban) {
        self.history.retain(|h| (h.jail, h.offender) != (ban.jail, ban.offender));
        self.decisions.push(Decision::Ban(ban.clone()));
        self.bans.push(ban);
    }

    /// Everything nobody may ban in that jail.
    fn allowed(&self, id: JailId) -> Vec<IpNet> {
        let own = self.jails.get(&id).map(entries).unwrap_or_default();
        self.allowlist.iter().copied().chain(own).collect()
    }

    fn history_of(&mut self, jail: JailId, offender: IpNet, now: Timestamp) -> &mut History {
        let known = self.history.iter().position(|h| h.jail == jail && h.offender == offender);
        let place = known.unwrap_or_else(|| {
            self.history.push(History { jail, offender, times: Vec::new(), floor: None, heard: now });
            self.history.len() - 1
        });
        &mut self.history[place]
    }

    /// Offenders with offenses on their count.
    pub(super) fn tracked(&self, id: JailId, now: Timestamp) -> usize {
        let Some(policy) = self.jails.get(&id) else { return 0 };
        let limit = (policy.findtime + LINGER).as_secs();
        let silence = |h: &History| (h.heard.as_millis() / 1000).abs_diff(now.as_millis() / 1000);
        self.history.iter().filter(|h| h.jail == id && !h.times.is_empty() && silence(h) <= limit).count()
    }
}

fn entries(policy: &Policy) -> Vec<IpNet> {
    policy.allowlist.as_ref().map(|l| l.entries().to_vec()).unwrap_or_default()
}

fn newly(before: &[IpNet], after: &[IpNet], net: IpNet) -> bool {
    after.iter().any(|n| overlap(*n, net)) && !before.iter().any(|n| overlap(*n, net))
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}
