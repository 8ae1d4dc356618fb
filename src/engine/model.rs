//! The engine as its documentation describes it, written to be read and not to be fast: everything in vectors, each
//! question answered by looking at all of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::net::canonical;
use super::tracker::LINGER;
use super::{Escalation, FUTURE_TOLERANCE, Policy, Record, Refused, Verdict, escalation, window};
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
    /// Repeaters, in each jail and across all.
    pub(super) noted: Vec<Record>,
    seed: u64,
    /// Never forget anything: what the window would be with all memory in the world.
    total_recall: bool,
}

impl Model {
    pub(super) fn new(total_recall: bool, seed: u64) -> Self {
        Self {
            jails: BTreeMap::new(),
            allowlist: Vec::new(),
            protected: Vec::new(),
            bans: Vec::new(),
            decisions: Vec::new(),
            history: Vec::new(),
            noted: Vec::new(),
            seed,
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
        let until = self.lasts(id, offender, at).until(at);
        if until.is_some_and(|end| end <= now) {
            let history = self.history_of(id, offender, now);
            history.times.clear();
            history.floor = until;
            self.note(id, offender, at, until);
            self.widen(id, offender, at, now);
            return Verdict::TooOld;
        }
        let maxretry = self.jails[&id].maxretry;
        let history = self.history_of(id, offender, now);
        if is_protected {
            // Where the first offense decides, nothing is remembered of it.
            if maxretry <= 1 && history.times.len() == 1 && history.floor.is_none() {
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
            evidence: crate::types::Evidence::default(),
            forced: false,
        });
        self.widen(id, offender, at, now);
        Verdict::Banned
    }

    /// For how long a ban that begins at `since` is.
    fn lasts(&self, id: JailId, net: IpNet, since: Timestamp) -> BanTime {
        let policy = &self.jails[&id];
        let Some(e) = &policy.escalation else { return policy.bantime };
        let earlier = self.earlier((!e.across).then_some(id), net, since, e);
        e.time(policy.bantime, earlier, escalation::chance(self.seed, net, since))
    }

    fn earlier(&self, scope: Option<JailId>, net: IpNet, since: Timestamp, e: &Escalation) -> u32 {
        let Some(record) = self.record(scope, net) else { return 0 };
        if since <= record.last {
            return record.count - 1;
        }
        let Some(end) = record.last_end.filter(|end| *end < since) else { return record.count };
        if since.since(end) > e.memory {
            return 0;
        }
        let mut left = record.count;
        let mut step = e.decay.map(|d| end.saturating_add(d));
        while let Some(at) = step.filter(|at| *at <= since && left > 0) {
            left -= 1;
            step = e.decay.map(|d| at.saturating_add(d));
        }
        left
    }

    pub(super) fn record(&self, scope: Option<JailId>, net: IpNet) -> Option<Record> {
        self.noted.iter().find(|r| (r.jail, r.offender) == (scope, net)).copied()
    }

    fn note(&mut self, id: JailId, net: IpNet, since: Timestamp, until: Option<Timestamp>) {
        let of = |id: &JailId| self.jails.get(id)?.escalation.clone();
        let own = of(&id);
        let counts_across = self.jails.keys().filter_map(of).filter(|e| e.across);
        let across = own.clone().filter(|e| e.across).or_else(|| counts_across.max_by_key(|e| e.memory));
        for (scope, e) in [(Some(id), own), (None, across)] {
            let Some(e) = e else { continue };
            let count = self.earlier(scope, net, since, &e) + 1;
            let never = Timestamp::from_millis(i64::MAX);
            let end = until.unwrap_or(never);
            match self.noted.iter_mut().find(|r| (r.jail, r.offender) == (scope, net)) {
                Some(r) => {
                    if since > r.last {
                        (r.count, r.last) = (count, since);
                    }
                    let end = r.last_end.unwrap_or(never).max(end);
                    r.last_end = Some(end).filter(|end| *end != never);
                }
                None => {
                    self.noted.push(Record {
                        jail: scope,
                        offender: net,
                        count,
                        last: since,
                        last_end: until,
                    });
                }
            }
        }
    }

    fn widen(&mut self, id: JailId, net: IpNet, at: Timestamp, now: Timestamp) {
        let Some(n) = self.jails[&id].escalation.as_ref().and_then(|e| e.neighbours.clone()) else { return };
        let from = at.saturating_sub(n.within);
        let allowed = self.allowed(id);
        let mut step = n.parent(net);
        while let Some(prefix) = step {
            step = n.parent(prefix);
            let within = |r: &&Record| {
                r.jail == Some(id) && n.parent(r.offender) == Some(prefix) && r.last >= from && r.last <= at
            };
            let runs = self
                .record(Some(id), prefix)
                .is_some_and(|r| r.last < at && r.last_end.is_none_or(|end| at < end));
            let banned = self.bans.iter().any(|b| (b.jail, b.offender) == (id, prefix));
            let many = self.noted.iter().filter(within).count() >= n.after as usize;
            if !many || runs || banned || allowed.iter().chain(&self.protected).any(|a| overlap(*a, prefix)) {
                continue;
            }
            let until = self.lasts(id, prefix, at).until(at);
            if until.is_some_and(|end| end <= now) {
                self.note(id, prefix, at, until);
            } else {
                let evidence = format!("{} neighbours banned, last: ", n.after).into_bytes().into();
                self.begin(Ban {
                    jail: id,
                    offender: prefix,
                    since: at,
                    until,
                    offenses: n.after,
                    evidence,
                    forced: false,
                });
            }
            return;
        }
    }

    fn prolonged(&mut self, id: JailId, net: IpNet, until: Option<Timestamp>) {
        let never = Timestamp::from_millis(i64::MAX);
        for r in self.noted.iter_mut().filter(|r| r.offender == net && r.jail.is_none_or(|of| of == id)) {
            let end = r.last_end.unwrap_or(never).max(until.unwrap_or(never));
            r.last_end = Some(end).filter(|end| *end != never);
        }
    }

    /// An address and its neighbours below it.
    fn forget(&mut self, id: JailId, net: IpNet) {
        let below = self.jails.get(&id).and_then(|p| p.escalation.as_ref()?.neighbours.clone());
        self.noted.retain(|r| {
            let child =
                r.jail == Some(id) && below.as_ref().is_some_and(|n| n.parent(r.offender) == Some(net));
            !child && (r.offender != net || r.jail.is_some_and(|of| of != id))
        });
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
        let running = self.bans.iter().find(|b| b.jail == id && b.offender == offender);
        let since = running.map_or(now, |b| b.since);
        let until = time.unwrap_or_else(|| self.lasts(id, offender, since)).until(now);
        let Some(held) = self.bans.iter_mut().find(|b| b.jail == id && b.offender == offender) else {
            let evidence = crate::types::Evidence::default();
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
            let until = held.until;
            self.decisions.push(Decision::Prolong(held.clone()));
            self.prolonged(id, offender, until);
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
        let held = self.bans.iter().find(|b| b.jail == ban.jail && b.offender == ban.offender);
        if held.is_some_and(|held| held.since == ban.since) {
            self.prolonged(ban.jail, ban.offender, ban.until);
        } else {
            self.note(ban.jail, ban.offender, ban.since, ban.until);
        }
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
        match reason {
            UnbanReason::Expired => {}
            UnbanReason::Lifted => self.forget(ban.jail, ban.offender),
            UnbanReason::Reconfigured | UnbanReason::Protected | UnbanReason::MadeRoom => {
                let of = |r: &&mut Record| (r.jail, r.offender) == (Some(ban.jail), ban.offender);
                for r in self.noted.iter_mut().filter(of) {
                    r.last_end = Some(r.last_end.map_or(floor, |end| end.min(floor)));
                }
            }
        }
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
        self.note(ban.jail, ban.offender, ban.since, ban.until);
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
