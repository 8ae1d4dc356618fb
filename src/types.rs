//! The words every stage shares: points in time, jails, ban lengths, decisions.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// A point in time: milliseconds since the Unix epoch, UTC.
///
/// Milliseconds, because an element's timeout in nf_tables has that resolution and a log's time has less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point `ms` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// The point `s` seconds after the epoch.
    #[must_use]
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This point, `d` later; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn saturating_add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This point, `d` earlier; stays at the beginning of time instead of wrapping.
    #[must_use]
    pub fn saturating_sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, whole seconds, or milliseconds where they are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{} ms since the epoch", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    /// As text, RFC 3339, with milliseconds where they are not zero.
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(time.as_millisecond()))
    }
}

/// A jail's number. It is given once per name and never reused while the agent runs, so that what is under way
/// when the configuration is reloaded still names the right jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JailId(pub u16);

/// How long a ban lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanTime {
    /// For so long.
    For(Duration),
    /// Until somebody lifts it.
    Permanent,
}

impl BanTime {
    /// When a ban that begins at `since` ends; `None` for never.
    #[must_use]
    pub fn until(self, since: Timestamp) -> Option<Timestamp> {
        match self {
            Self::For(d) => Some(since.saturating_add(d)),
            Self::Permanent => None,
        }
    }
}

/// One matched line, as the engine sees it.
#[derive(Clone, Copy, Debug)]
pub struct Offense<'a> {
    /// The jail whose filter matched.
    pub jail: JailId,
    /// The address responsible, never an IPv4-mapped one.
    pub offender: IpAddr,
    /// The log's time, not the reader's.
    pub at: Timestamp,
    /// The line itself, kept with a ban to explain it.
    pub line: &'a [u8],
}

/// Whose address the packets of a request carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// The offender's: it connected itself.
    Offender,
    /// That of the trusted proxy that spoke for it.
    Proxy(IpAddr),
    /// The log does not say.
    Unknown,
}

/// A line that explains a ban: shared, for a ban is copied on its way to the kernel and to the ledger.
pub type Evidence = Arc<[u8]>;

/// A current ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The jail that decided it.
    pub jail: JailId,
    /// What is banned: an address, an IPv6 prefix, or a network given by hand.
    pub offender: IpNet,
    /// When it began (log time of the deciding offense).
    pub since: Timestamp,
    /// When it ends; `None` for never.
    pub until: Option<Timestamp>,
    /// Offenses that led to it; 0 for a ban by hand or one found in the kernel.
    pub offenses: u32,
    /// The deciding line (cut to [`EVIDENCE_CAP`] bytes), or the reason given by hand.
    pub evidence: Evidence,
    /// It was ordered in spite of whom it hits; it is not lifted because of them, and not refused when it is taken over.
    pub forced: bool,
}

/// At most so many bytes of the deciding line are kept with a ban: 100,000 bans then take 35 MB in all.
pub const EVIDENCE_CAP: usize = 256;

/// The evidence of a ban of which nothing is known but what the kernel holds.
pub const FOUND: &[u8] = b"found in the kernel";

/// What the engine decided; the kernel is told first, sinks after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new ban.
    Ban(Ban),
    /// The same offender in the same jail, now until a later time.
    Prolong(Ban),
    /// A ban that ended or was lifted; the ban as it was.
    Unban(Ban, UnbanReason),
}

/// Why a ban ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnbanReason {
    /// Its time was up.
    Expired,
    /// A command lifted it.
    Lifted,
    /// The configuration now allows the address, or its jail is gone.
    Reconfigured,
    /// The address must not be banned any more: somebody has logged in from there, or it is now the host's own.
    Protected,
    /// There were too many bans, and it would have ended first.
    MadeRoom,
}

impl UnbanReason {
    /// The word for it in the log: `expired`, `lifted`, `reconfigured`, `protected` or `made room`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Lifted => "lifted",
            Self::Reconfigured => "reconfigured",
            Self::Protected => "protected",
            Self::MadeRoom => "made room",
        }
    }
}

impl Decision {
    /// The ban it is about.
    #[must_use]
    pub fn ban(&self) -> &Ban {
        match self {
            Self::Ban(b) | Self::Prolong(b) | Self::Unban(b, _) => b,
        }
    }

    /// The word for it in output: `ban`, `prolong` or `unban`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ban(_) => "ban",
            Self::Prolong(_) => "prolong",
            Self::Unban(..) => "unban",
        }
    }
}
