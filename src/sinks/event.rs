//! What notifiers tell: decisions, and what becomes of the agent.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::{Timestamp, UnbanReason};

/// Something to be told. It is kept in the ledger until it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The agent enforces.
    Start(Started),
    /// The agent ends in order.
    Stop(Stopped),
    /// Somebody was banned, or a ban prolonged.
    Ban(Banned),
    /// A ban ended.
    Unban(Unbanned),
    /// Requests come through in spite of a ban.
    Leak(Leaked),
    /// Something failed, and somebody should look.
    Error(Fault),
    /// There was more to tell than could be kept one by one.
    Merged(Merged),
}

/// The agent enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// When.
    pub at: Timestamp,
    /// Its version.
    pub version: String,
    /// Jails that are enabled.
    pub jails: usize,
    /// Bans that were restored.
    pub bans: usize,
    /// What enforces: `nft` or `legacy`.
    pub backend: String,
}

/// The agent ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// When.
    pub at: Timestamp,
    /// Bans that stay in force, or were lifted.
    pub bans: usize,
    /// Whether they were lifted.
    pub flushed: bool,
}

/// Somebody was banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Banned {
    /// When it was decided.
    pub at: Timestamp,
    /// By which jail.
    pub jail: String,
    /// An address, an IPv6 prefix, or a network.
    pub offender: IpNet,
    /// When the ban began: the log's time of the deciding offense.
    pub since: Timestamp,
    /// When it ends; `None` for never.
    pub until: Option<Timestamp>,
    /// Offenses that led to it; 0: it was ordered by hand.
    pub offenses: u32,
    /// Bans of this offender by this jail so far, with this one; 0: not known.
    pub count: u32,
    /// The offender was banned already, and now is for longer.
    pub prolonged: bool,
    /// Nothing is enforced: the jail only observes.
    pub observed: bool,
    /// Why the kernel does not hold it yet; it is tried again.
    pub problem: Option<String>,
    /// The deciding line or the reason given by hand, as it is: written by the attacker. At most [`Self::LINE`] bytes.
    pub line: String,
    /// What the filter reads out of that line: `host`, `uri`, `user_agent`, `sent_to` and so on, as `stockade explain` names
    /// them. Written by the attacker. At most [`Self::FIELD`] bytes each.
    pub fields: BTreeMap<String, String>,
}

impl Banned {
    /// The longest line that is kept, in bytes.
    pub const LINE: usize = 2048;
    /// The longest value of a field that is kept, in bytes.
    pub const FIELD: usize = 512;
}

/// A ban ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbanned {
    /// When.
    pub at: Timestamp,
    /// Whose ban it was.
    pub jail: String,
    /// Who is free.
    pub offender: IpNet,
    /// When it had begun.
    pub since: Timestamp,
    /// Why: the words of [`UnbanReason::word`](crate::types::UnbanReason::word).
    pub reason: String,
    /// Nothing was enforced: the jail only observes.
    pub observed: bool,
}

/// Requests of a banned offender come through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaked {
    /// When it was noticed.
    pub at: Timestamp,
    /// Whose filter saw them.
    pub jail: String,
    /// The last offender.
    pub offender: IpNet,
    /// How they arrive, and what would stop them.
    pub advice: String,
}

/// Something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub at: Timestamp,
    /// What, where, and what to do.
    pub message: String,
}

/// What was merged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The first of it.
    pub at: Timestamp,
    /// The last of it.
    pub last: Timestamp,
    /// Bans, by jail.
    pub bans: BTreeMap<String, u64>,
    /// Ended bans, by jail.
    pub unbans: BTreeMap<String, u64>,
    /// Everything else.
    pub others: u64,
}

impl Merged {
    /// Takes another event in.
    pub fn add(&mut self, event: &Event) {
        let at = event.at();
        if *self == Self::default() {
            self.at = at;
        }
        self.last = self.last.max(at);
        match event {
            Event::Ban(ban) => *self.bans.entry(ban.jail.clone()).or_default() += 1,
            Event::Unban(unban) => *self.unbans.entry(unban.jail.clone()).or_default() += 1,
            Event::Merged(merged) => {
                for (own, others) in [(&mut self.bans, &merged.bans), (&mut self.unbans, &merged.unbans)] {
                    for (jail, count) in others {
                        *own.entry(jail.clone()).or_default() += count;
                    }
                }
                self.others += merged.others;
                self.last = self.last.max(merged.last);
            }
            Event::Start(_) | Event::Stop(_) | Event::Leak(_) | Event::Error(_) => self.others += 1,
        }
    }

    /// Events in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bans.values().chain(self.unbans.values()).sum::<u64>() + self.others
    }
}

/// What kind of event it is, as the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// `start`
    Start,
    /// `stop`
    Stop,
    /// `ban`
    Ban,
    /// `unban`
    Unban,
    /// `leak`
    Leak,
    /// `error`
    Error,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Start, Self::Stop, Self::Ban, Self::Unban, Self::Leak, Self::Error];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::Leak => "leak",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Event {
    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Start(e) => e.at,
            Self::Stop(e) => e.at,
            Self::Ban(e) => e.at,
            Self::Unban(e) => e.at,
            Self::Leak(e) => e.at,
            Self::Error(e) => e.at,
            Self::Merged(e) => e.at,
        }
    }

    /// Its kind; `None` for what was merged.
    #[must_use]
    pub fn kind(&self) -> Option<EventKind> {
        match self {
            Self::Start(_) => Some(EventKind::Start),
            Self::Stop(_) => Some(EventKind::Stop),
            Self::Ban(_) => Some(EventKind::Ban),
            Self::Unban(_) => Some(EventKind::Unban),
            Self::Leak(_) => Some(EventKind::Leak),
            Self::Error(_) => Some(EventKind::Error),
            Self::Merged(_) => None,
        }
    }

    /// The jail it is about.
    #[must_use]
    pub fn jail(&self) -> Option<&str> {
        match self {
            Self::Ban(e) => Some(&e.jail),
            Self::Unban(e) => Some(&e.jail),
            Self::Leak(e) => Some(&e.jail),
            Self::Start(_) | Self::Stop(_) | Self::Error(_) | Self::Merged(_) => None,
        }
    }

    /// What it takes in memory, in bytes, roughly.
    #[must_use]
    pub fn size(&self) -> usize {
        const BARE: usize = 320;
        BARE + match self {
            Self::Ban(e) => {
                let fields = e.fields.iter().map(|(name, value)| 80 + name.len() + value.len());
                e.line.len() + e.problem.as_ref().map_or(0, String::len) + fields.sum::<usize>()
            }
            Self::Leak(e) => e.advice.len(),
            Self::Error(e) => e.message.len(),
            Self::Merged(e) => 100 * (e.bans.len() + e.unbans.len()),
            Self::Start(_) | Self::Stop(_) | Self::Unban(_) => 0,
        }
    }

    /// The offender it is about.
    #[must_use]
    pub fn offender(&self) -> Option<IpNet> {
        match self {
            Self::Ban(e) => Some(e.offender),
            Self::Unban(e) => Some(e.offender),
            Self::Leak(e) => Some(e.offender),
            Self::Start(_) | Self::Stop(_) | Self::Error(_) | Self::Merged(_) => None,
        }
    }
}

impl Unbanned {
    /// Whether its time was simply up.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.reason == UnbanReason::Expired.word()
    }
}
