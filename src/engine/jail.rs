//! A jail: what it tolerates, and what came of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::allowlist::Allowlist;
use super::escalation::Escalation;
use super::net::Key;
use crate::types::{BanTime, JailId, Timestamp};

/// What a jail tolerates and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// So many offenses within `findtime` are a ban; at least 1 (0 is taken as 1).
    pub maxretry: u32,
    /// The span the offenses must lie in, both ends included: the last minus the first is at most this.
    pub findtime: Duration,
    /// How long a ban lasts, from the deciding offense on; with escalation the first.
    pub bantime: BanTime,
    /// How the bans of repeaters grow; `None`: they do not.
    pub escalation: Option<Arc<Escalation>>,
    /// IPv6 offenders are counted and banned by prefixes of this length, because one host has a whole /64;
    /// 1 to 128 (what lies beyond is taken as the nearest).
    pub ipv6_prefix: u8,
    /// Who is never banned by this jail, besides the allowlist of all jails.
    pub allowlist: Option<Arc<Allowlist>>,
}

impl Default for Policy {
    /// 5 offenses in 10 minutes are a ban of 10 minutes, IPv6 by /64.
    fn default() -> Self {
        Self {
            maxretry: 5,
            findtime: Duration::from_secs(600),
            bantime: BanTime::For(Duration::from_secs(600)),
            escalation: None,
            ipv6_prefix: 64,
            allowlist: None,
        }
    }
}

/// What came of a jail's offenses since the agent began or the jail was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JailStats {
    /// Offenses heard of, whatever became of them.
    pub offenses: u64,
    /// Offenders with offenses on their count right now.
    pub tracked: u64,
    /// Bans now.
    pub bans_current: u64,
    /// Bans decided: by offenses (also those that were `too_old`) and by hand. Not those found in the kernel.
    pub bans_total: u64,
    /// Bans among them for which earlier ones counted.
    pub escalated: u64,
    /// Bans among them of prefixes in which many offenders were banned.
    pub prefix_bans: u64,
    /// When the ban that was decided last began.
    pub last_ban: Option<Timestamp>,
    /// Offenses by those who are never banned.
    pub allowlisted: u64,
    /// Offenses that would have decided a ban, of those who are protected.
    pub refused: u64,
    /// Offenses by those who were banned when they committed them, or when they were read.
    pub already_banned: u64,
    /// Bans that were over before they were decided: the lines were read too late.
    pub too_old: u64,
    /// Offenses dated further into the future than a log's clock may be ahead, and taken as of now. Many of
    /// them mean a wrong time zone.
    pub future_clamped: u64,
    /// Offenders forgotten, before their time, because too many were tracked.
    pub forgotten: u64,
    /// Bans that ended before their time, or did not come about, because there were too many.
    pub crowded_out: u64,
}

#[derive(Debug)]
pub(super) struct Jail {
    pub(super) policy: Policy,
    pub(super) stats: JailStats,
}

impl Jail {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy: valid(policy), stats: JailStats::default() }
    }

    pub(super) fn set_policy(&mut self, policy: Policy) -> Policy {
        std::mem::replace(&mut self.policy, valid(policy))
    }

    pub(super) fn allows(&self, everywhere: &Allowlist, addr: IpAddr) -> bool {
        everywhere.contains(addr) || self.policy.allowlist.as_ref().is_some_and(|l| l.contains(addr))
    }

    /// What is counted and banned for `addr`, which is canonical: itself, or its prefix. Where the prefix holds
    /// somebody who is never banned, the address alone.
    pub(super) fn offender(&self, id: JailId, everywhere: &Allowlist, addr: IpAddr) -> Key {
        if addr.is_ipv4() {
            return Key::new(id, addr, 32);
        }
        let prefix = Key::new(id, addr, self.policy.ipv6_prefix);
        let net = prefix.net();
        if everywhere.overlaps(net) || self.policy.allowlist.as_ref().is_some_and(|l| l.overlaps(net)) {
            return Key::new(id, addr, 128);
        }
        prefix
    }
}

fn valid(policy: Policy) -> Policy {
    Policy { maxretry: policy.maxretry.max(1), ipv6_prefix: policy.ipv6_prefix.clamp(1, 128), ..policy }
}
