//! Chains: plain ones that rules jump to, and base chains that the kernel calls at a hook.

use std::sync::Arc;

use crate::sys;
use crate::table::{Family, Table};
use crate::wire::{Message, Writer};

/// The named priorities of the ip, ip6 and inet families. Lower is earlier.
pub mod priority {
    /// Before connection tracking.
    pub const RAW: i32 = -300;
    /// Packet alteration.
    pub const MANGLE: i32 = -150;
    /// Destination NAT.
    pub const DSTNAT: i32 = -100;
    /// Filtering.
    pub const FILTER: i32 = 0;
    /// Security labels.
    pub const SECURITY: i32 = 50;
    /// Source NAT.
    pub const SRCNAT: i32 = 100;
    /// Destination NAT in the bridge family.
    pub const BRIDGE_DSTNAT: i32 = -300;
    /// Filtering in the bridge family.
    pub const BRIDGE_FILTER: i32 = -200;
}

/// What a base chain may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainType {
    /// Accept and drop.
    Filter,
    /// Reroute what it changed.
    Route,
    /// Translate addresses.
    Nat,
    /// A type this crate has no name for.
    Other(Arc<str>),
}

impl ChainType {
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Filter => "filter",
            Self::Route => "route",
            Self::Nat => "nat",
            Self::Other(word) => word,
        }
    }

    fn from_word(word: &str) -> Self {
        match word {
            "filter" => Self::Filter,
            "route" => Self::Route,
            "nat" => Self::Nat,
            other => Self::Other(other.into()),
        }
    }
}

/// Where in a packet's way a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hook {
    /// Everything that arrives.
    Prerouting,
    /// What is for this host.
    Input,
    /// What passes through.
    Forward,
    /// What this host sends.
    Output,
    /// Everything that leaves.
    Postrouting,
    /// A hook this crate has no name for: its number.
    Other(u32),
}

impl Hook {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Other(n) => n,
        }
    }

    /// The hooks' numbers mean something else in the families of which we make no base chains.
    fn from_number(n: u32, family: Family) -> Self {
        if matches!(family, Family::Netdev | Family::Arp | Family::Other(_)) {
            return Self::Other(n);
        }
        match n {
            0 => Self::Prerouting,
            1 => Self::Input,
            2 => Self::Forward,
            3 => Self::Output,
            4 => Self::Postrouting,
            n => Self::Other(n),
        }
    }
}

/// What happens to a packet that no rule of a base chain decided about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// It goes on.
    #[default]
    Accept,
    /// It is dropped.
    Drop,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// `type`.
    pub kind: ChainType,
    /// `hook`.
    pub hook: Hook,
    /// `priority`, see [`priority`].
    pub priority: i32,
    /// `policy`.
    pub policy: Policy,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub(crate) family: Family,
    pub(crate) table: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) base: Option<Base>,
    pub(crate) handle: Option<u64>,
}

impl Chain {
    /// A plain chain, called only by a jump or goto.
    #[must_use]
    pub fn new(table: &Table, name: &str) -> Self {
        Self {
            family: table.family,
            table: Arc::clone(&table.name),
            name: name.into(),
            base: None,
            handle: None,
        }
    }

    /// Makes it a base chain, with policy accept.
    #[must_use]
    pub fn base(mut self, kind: ChainType, hook: Hook, priority: i32) -> Self {
        self.base = Some(Base { kind, hook, priority, policy: Policy::Accept });
        self
    }

    /// Sets the policy of a base chain; a plain chain has none.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some(base) = &mut self.base {
            base.policy = policy;
        }
        self
    }

    /// Its table's family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its hook, when it is a base chain.
    #[must_use]
    pub fn hooked(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// The kernel's number for it, when it was listed.
    #[must_use]
    pub fn handle(&self) -> Option<u64> {
        self.handle
    }

    /// ```text
    /// NFTA_CHAIN_TABLE  { string }
    /// NFTA_CHAIN_NAME   { string }
    /// NFTA_CHAIN_HOOK   | NLA_F_NESTED {       base chains only, and not when deleting
    ///     NFTA_HOOK_HOOKNUM  { be32 }
    ///     NFTA_HOOK_PRIORITY { be32, signed }
    /// }
    /// NFTA_CHAIN_POLICY { be32: NF_DROP 0 or NF_ACCEPT 1 }
    /// NFTA_CHAIN_TYPE   { string }
    /// ```
    pub(crate) fn write(&self, w: &mut Writer, whole: bool) {
        w.str(sys::NFTA_CHAIN_TABLE, &self.table);
        w.str(sys::NFTA_CHAIN_NAME, &self.name);
        let Some(base) = self.base.as_ref().filter(|_| whole) else { return };
        w.nest(sys::NFTA_CHAIN_HOOK, |w| {
            w.be32(sys::NFTA_HOOK_HOOKNUM, base.hook.number());
            w.be32(sys::NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
        });
        let policy = match base.policy {
            Policy::Accept => sys::NF_ACCEPT,
            Policy::Drop => sys::NF_DROP,
        };
        w.be32(sys::NFTA_CHAIN_POLICY, policy.cast_unsigned());
        w.str(sys::NFTA_CHAIN_TYPE, base.kind.word());
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Self> {
        let a = message.attributes();
        let family = Family::from_number(message.family());
        let base = a.nested(sys::NFTA_CHAIN_HOOK).and_then(|hook| {
            Some(Base {
                kind: ChainType::from_word(&a.str(sys::NFTA_CHAIN_TYPE).unwrap_or_default()),
                hook: Hook::from_number(hook.be32(sys::NFTA_HOOK_HOOKNUM)?, family),
                priority: hook.be32(sys::NFTA_HOOK_PRIORITY)?.cast_signed(),
                policy: match a.be32(sys::NFTA_CHAIN_POLICY) {
                    Some(0) => Policy::Drop,
                    _ => Policy::Accept,
                },
            })
        });
        Some(Self {
            family,
            table: a.str(sys::NFTA_CHAIN_TABLE)?.into(),
            name: a.str(sys::NFTA_CHAIN_NAME)?.into(),
            base,
            handle: a.be64(sys::NFTA_CHAIN_HANDLE),
        })
    }
}
