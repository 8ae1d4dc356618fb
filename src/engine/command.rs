//! What an operator may order: bans and unbans by hand.

use ipnet::IpNet;
use thiserror::Error;

use super::Engine;
use super::net::canonical;
use crate::types::{Ban, BanTime, Decision, EVIDENCE_CAP, Evidence, JailId, Timestamp, UnbanReason};

/// An order given by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bans networks, all or none of them.
    Ban {
        /// The jail the bans belong to.
        jail: JailId,
        /// What is banned, exactly as given (host bits aside): an IPv6 address is not widened to its prefix here,
        /// see [`Engine::offender`].
        nets: Vec<IpNet>,
        /// For how long from now; `None` for as long as the jail bans: with escalation, the longer the more often it did
        /// before. A ban counts for escalation also when its length is given; a running one that is prolonged does not
        /// count again.
        time: Option<BanTime>,
        /// Why; kept as the ban's evidence, cut to [`EVIDENCE_CAP`] bytes.
        reason: Vec<u8>,
        /// Bans even what holds addresses that are never banned.
        force: bool,
    },
    /// Lifts bans.
    Unban {
        /// Which.
        what: Unban,
        /// In one jail only.
        jail: Option<JailId>,
    },
}

/// Which bans a [`Command::Unban`] lifts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unban {
    /// For each network: the bans of it, of what lies within it, and of the IPv6 prefix it was banned by.
    Nets(Vec<IpNet>),
    /// All.
    All,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Of the networks to ban.
    Banned {
        /// Banned now and not before.
        new: usize,
        /// Banned before, now until later, or now by force.
        prolonged: usize,
        /// Banned before for as long or longer, which stays. To shorten a ban, lift it first.
        unchanged: usize,
    },
    /// Of the bans to lift.
    Unbanned {
        /// Bans lifted.
        lifted: usize,
        /// Networks for which there was none to lift.
        absent: Vec<IpNet>,
        /// Bans of wider networks, under which a network to unban still falls. They stay: lifting them for one
        /// address would let the others in.
        covered: Vec<Covered>,
    },
}

/// A network to unban that falls under the ban of a wider one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// What was to be unbanned.
    pub net: IpNet,
    /// The jail of the wider ban.
    pub jail: JailId,
    /// What that bans.
    pub by: IpNet,
}

/// Why a command was not carried out; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no such jail (any more).
    #[error("there is no such jail")]
    NoSuchJail,
    /// It would have banned somebody who is never banned.
    #[error(
        "{net} holds addresses that are never banned: {entry} is in ignoreip; use --force to ban them all the same"
    )]
    Allowlisted {
        /// What was to be banned.
        net: IpNet,
        /// The entry of the allowlist.
        entry: IpNet,
    },
    /// It would have locked the host, or somebody who is logged in, out.
    #[error("{told}; use --force to ban it all the same")]
    Protected {
        /// What was to be banned.
        net: IpNet,
        /// Who that is, in words.
        told: String,
    },
    /// The ban would end when it begins.
    #[error("a ban needs a length of at least a millisecond")]
    NoTime,
    /// All bans there may be are by hand or without an end.
    #[error(
        "there is no room for {0} more bans, and those there are do not make room: raise limits.memory, or lift some"
    )]
    NoRoom(usize),
}

impl Engine {
    /// Carries out a command. The decisions wait at [`Engine::poll_decision`].
    ///
    /// # Errors
    ///
    /// Says why nothing was done: see [`Refused`].
    pub fn command(&mut self, command: Command, now: Timestamp) -> Result<Reply, Refused> {
        self.expire(now);
        match command {
            Command::Ban { jail, nets, time, reason, force } => {
                self.ban_nets(jail, &nets, time, &reason, force, now)
            }
            Command::Unban { what, jail } => {
                if jail.is_some_and(|id| self.jail(id).is_none()) {
                    return Err(Refused::NoSuchJail);
                }
                Ok(match what {
                    Unban::Nets(nets) => self.unban_nets(&nets, jail, now),
                    Unban::All => {
                        let lifted =
                            self.lift(UnbanReason::Lifted, now, |b| jail.is_none_or(|id| b.jail == id));
                        Reply::Unbanned { lifted, absent: Vec::new(), covered: Vec::new() }
                    }
                })
            }
        }
    }

    fn ban_nets(
        &mut self,
        id: JailId,
        nets: &[IpNet],
        time: Option<BanTime>,
        reason: &[u8],
        force: bool,
        now: Timestamp,
    ) -> Result<Reply, Refused> {
        let jail = self.jail(id).ok_or(Refused::NoSuchJail)?;
        if time.unwrap_or(jail.policy.bantime).until(now).is_some_and(|end| end <= now) {
            return Err(Refused::NoTime);
        }
        if !force && let Some((net, told)) = nets.iter().find_map(|n| Some((*n, self.protected.told(*n)?))) {
            return Err(Refused::Protected { net, told });
        }
        if !force && let Some((net, entry)) = nets.iter().find_map(|n| Some((*n, self.allowed_by(id, *n)?))) {
            return Err(Refused::Allowlisted { net, entry });
        }
        let new = nets.iter().filter(|net| self.bans.get(id, canonical(**net)).is_none()).count();
        if new > self.bans.room() {
            return Err(Refused::NoRoom(new));
        }
        let evidence: Evidence = reason.get(..EVIDENCE_CAP).unwrap_or(reason).into();
        let (mut new, mut prolonged, mut unchanged) = (0, 0, 0);
        for net in nets.iter().copied().map(canonical) {
            // For a ban that runs counts what counted for it.
            let since = self.bans.get(id, net).map_or(now, |ban| ban.since);
            let (escalated, earlier) = self.lasts(id, net, since);
            let until = time.unwrap_or(escalated).until(now);
            let Some(ban) = self.bans.get(id, net) else {
                if let Some(jail) = self.jails.get_mut(usize::from(id.0)).and_then(Option::as_mut) {
                    jail.stats.escalated += u64::from(time.is_none() && earlier > 0);
                }
                let ban = Ban {
                    jail: id,
                    offender: net,
                    since: now,
                    until,
                    offenses: 0,
                    evidence: evidence.clone(),
                    forced: force,
                };
                self.make_room(now);
                self.begin(ban);
                new += 1;
                continue;
            };
            let (later, forced) = (later(until, ban.until), force && !ban.forced);
            if !later && !forced {
                unchanged += 1;
                continue;
            }
            let prolong = |ban: &mut Ban| {
                if later {
                    ban.until = until;
                }
                ban.forced |= force;
                if !evidence.is_empty() {
                    ban.evidence.clone_from(&evidence);
                }
            };
            if let Some(ban) = self.bans.change(id, net, prolong) {
                let ban = ban.clone();
                self.note_prolonged(id, net, ban.until);
                self.decisions.push_back(Decision::Prolong(ban));
            }
            prolonged += 1;
        }
        Ok(Reply::Banned { new, prolonged, unchanged })
    }

    fn unban_nets(&mut self, nets: &[IpNet], only: Option<JailId>, now: Timestamp) -> Reply {
        let (mut lifted, mut absent, mut covered) = (0, Vec::new(), Vec::new());
        for net in nets.iter().copied().map(canonical) {
            let mut wider = Vec::new();
            for id in self.jail_ids().filter(|id| only.is_none_or(|only| only == *id)).collect::<Vec<_>>() {
                let shortest = self.jail(id).map_or(128, |jail| jail.policy.ipv6_prefix.min(64));
                let over: Vec<IpNet> = self
                    .bans
                    .covering(id, net.addr())
                    .map(|b| b.offender)
                    .filter(|over| over.prefix_len() < net.prefix_len())
                    .collect();
                for over in over {
                    if over.addr().is_ipv6() && over.prefix_len() >= shortest {
                        lifted += usize::from(self.lift_one(id, over, UnbanReason::Lifted, now));
                        wider.push(None);
                    } else {
                        wider.push(Some(Covered { net, jail: id, by: over }));
                    }
                }
                // One look-up instead of a pass over all bans where nothing can lie within.
                if net.prefix_len() == net.max_prefix_len()
                    && self.lift_one(id, net, UnbanReason::Lifted, now)
                {
                    lifted += 1;
                    wider.push(None);
                }
            }
            if net.prefix_len() < net.max_prefix_len() {
                let within = self.lift(UnbanReason::Lifted, now, |b| {
                    net.contains(&b.offender) && only.is_none_or(|id| b.jail == id)
                });
                lifted += within;
                if within > 0 {
                    wider.push(None);
                }
            }
            if !wider.contains(&None) {
                absent.push(net);
            }
            covered.extend(wider.into_iter().flatten());
        }
        Reply::Unbanned { lifted, absent, covered }
    }
}

/// Whether the end `a` comes after the end `b`, `None` being never.
pub(super) fn later(a: Option<Timestamp>, b: Option<Timestamp>) -> bool {
    match (a, b) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b,
    }
}
