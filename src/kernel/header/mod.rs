//! Bans by an address that stands only in the head of a request, because the packet comes from a proxy.
//!
//! They stand beside the bans by source, in transactions of their own: whatever is wrong with them, those go on. What
//! looks into heads is the first that this kernel can do and the agent may do of a BPF program and xt_string; see
//! [`State`] for which it is. A ban of a jail that names ports is by source alone.

mod bpf;
pub mod can;
mod choice;
mod early;
mod head;
mod heads;
mod lookup;
mod maps;
pub mod patterns;
mod program;
pub mod rules;
mod shared;
mod state;
mod strings;
mod tables;
#[cfg(test)]
mod tests;
mod word;

use std::collections::{BTreeMap, HashMap};
use std::io;

use ipnet::IpNet;
use nft::{CommitError, Connection, ListError};

pub use self::bpf::{BpfMatcher, MapError};
pub use self::can::Can;
use self::choice::{Choice, Matcher};
use self::early::Early;
pub use self::heads::Heads;
pub use self::patterns::{Pattern, patterns};
pub use self::rules::{HeaderRules, Look, is_header_chain};
pub use self::state::{LeftOut, State};
use self::strings::Strings;
use self::tables::Tables;
pub use self::tables::WriteError;
use super::desired::is_current;
pub use super::disjoint::End;
use super::disjoint::ends_later;
use super::layout::Layout;
use super::legacy::LegacyError;
use super::ruleset::TABLE;
use crate::config::Headers;
use crate::types::{Ban, Timestamp};

/// Whether nf_tables would take a rule that searches heads by itself (xt_string), for header bans without iptables-legacy.
pub(super) async fn can_search() -> bool {
    let Ok(mut connection) = Connection::open() else { return false };
    let (Ok(mut can), Some(request)) = (Can::find(&mut connection, false).await, rules::request()) else {
        return false;
    };
    matches!(can.takes(&mut connection, &request).await, Ok(None))
}

/// Why header bans are not in force.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Our chains could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The kernel refused a change.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The kernel did not list what is there.
    #[error(transparent)]
    List(#[from] ListError),
    /// iptables-legacy did not take it.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// The kernel did not take bans into the BPF program's maps.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Nothing can look into heads here.
    #[error("nothing here can look into request heads: {0}")]
    NoMatcher(String),
}

impl HeaderError {
    /// Whether it is of no use to try again soon: a kernel does not learn.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::NoMatcher(_))
    }
}

/// The latest end of the bans that are not over; `None` when all are.
#[must_use]
pub fn latest_end<'a>(bans: impl Iterator<Item = &'a Ban>, now: Timestamp) -> Option<End> {
    let ends = bans.filter(|ban| is_current(ban, now)).map(|ban| ban.until);
    ends.reduce(|a, b| if ends_later(b, a) { b } else { a })
}

/// The header bans of a kernel.
pub struct HeaderBans {
    tables: Tables,
    config: Headers,
    layout: Layout,
    /// Found out when first needed.
    choice: Option<Choice>,
    /// The program, which is being loaded since the start.
    early: Option<Early>,
    state: State,
}

impl HeaderBans {
    /// Opens a socket. Nothing is changed yet.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink, or does not let us.
    pub fn open(config: Headers, layout: &Layout) -> io::Result<Self> {
        let tables = Tables::new(Connection::open()?);
        let early = Early::begin(&config, layout);
        Ok(Self { tables, config, layout: layout.clone(), choice: None, early, state: State::default() })
    }

    /// Our socket's address: changes announced with it are our own.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn port_id(&self) -> io::Result<u32> {
        self.tables.connection.port_id()
    }

    /// Takes another configuration; [`settle`](Self::settle) makes it so.
    pub fn reconfigure(&mut self, config: &Headers, layout: &Layout) {
        let same = |config: &Headers| (config.names.clone(), config.matcher, config.action);
        if same(config) != same(&self.config) || layout.prefixes != self.layout.prefixes {
            self.choice = None;
            self.early = None;
        }
        if let Some(Choice { matcher: Matcher::Strings(strings), .. }) = &mut self.choice {
            strings.set_max(config.max_rules.into());
        }
        (self.config, self.layout) = (config.clone(), layout.clone());
    }

    /// How they fare.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Makes the kernel hold exactly these bans, each with its end, whatever it holds now, in one transaction.
    ///
    /// # Errors
    /// When nothing can look into heads here, or the kernel refuses. Then [`settle`](Self::settle) is due again; what was in
    /// force is still.
    pub async fn settle(&mut self, all: &[(IpNet, End)], now: Timestamp) -> Result<(), HeaderError> {
        let settled = self.try_settle(all, now).await;
        self.note(now, settled)
    }

    /// Makes changes: a ban with its (new) end, or `None` for one that is gone.
    ///
    /// # Errors
    /// When the kernel refuses. Then [`settle`](Self::settle) is due.
    pub async fn apply(
        &mut self,
        changes: &[(IpNet, Option<End>)],
        now: Timestamp,
    ) -> Result<(), HeaderError> {
        let applied = self.try_apply(changes, now).await;
        self.note(now, applied)
    }

    /// Removes all that is about headers.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&mut self) -> Result<(), HeaderError> {
        self.choice = None;
        Ok(self.tables.remove().await?)
    }

    /// Packets stopped, by ban.
    ///
    /// # Errors
    /// When the kernel does not list our rules or maps.
    pub async fn packets(&mut self) -> Result<HashMap<IpNet, u64>, HeaderError> {
        Ok(match &self.choice {
            Some(Choice { matcher: Matcher::Bpf(maps), .. }) => maps.packets()?,
            Some(Choice { matcher: Matcher::Strings(strings), .. }) => {
                strings.packets(&self.tables.listed().await?)
            }
            _ => HashMap::new(),
        })
    }

    /// Packets stopped in all; cheaper than ban by ban.
    ///
    /// # Errors
    /// When the kernel does not list our rules or maps.
    pub async fn total(&mut self) -> Result<u64, HeaderError> {
        match &self.choice {
            Some(Choice { matcher: Matcher::Bpf(maps), .. }) => Ok(maps.total()?),
            _ => Ok(self.packets().await?.values().sum()),
        }
    }

    /// Gives memory back that ended bans take. To be called now and then; they are not in force in any case.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self, now: Timestamp) -> Result<usize, HeaderError> {
        match &mut self.choice {
            Some(Choice { matcher: Matcher::Bpf(maps), .. }) => Ok(maps.sweep(now)?),
            _ => Ok(0),
        }
    }

    async fn try_settle(&mut self, all: &[(IpNet, End)], now: Timestamp) -> Result<(), HeaderError> {
        let mut choice = match self.choice.take() {
            Some(choice) => choice,
            None => {
                let early = self.early.take();
                Choice::make(&self.config, &self.layout, early, &mut self.tables.connection).await?
            }
        };
        let settled = self.carry_out(&mut choice, all, now).await;
        if choice.lacking {
            // What cannot be now is tried again the next time: something may have been loaded or granted.
            return settled.and(Err(HeaderError::NoMatcher(choice.why)));
        }
        self.choice = Some(choice);
        settled
    }

    async fn carry_out(
        &mut self,
        choice: &mut Choice,
        all: &[(IpNet, End)],
        now: Timestamp,
    ) -> Result<(), HeaderError> {
        let mut filled = Ok(());
        let mut chosen = BTreeMap::new();
        match &mut choice.matcher {
            Matcher::Off => {}
            // Before there is a rule that looks at them. What did not fit must not keep the others from being looked at.
            Matcher::Bpf(maps) => filled = maps.settle(all),
            Matcher::Strings(strings) => {
                strings.replace(all);
                chosen = strings.chosen(now);
            }
        }
        let listed = self.tables.listed().await?;
        let look = choice.matcher.look();
        let rules = HeaderRules::new(TABLE, &self.layout, &self.config, &choice.can, &look);
        self.tables.write(rules, |batch, rules| Strings::write_all(batch, &rules.sides, &chosen)).await?;
        if let Matcher::Strings(strings) = &mut choice.matcher {
            strings.keep_counts(&listed);
            strings.done(chosen);
        }
        Ok(filled?)
    }

    async fn try_apply(
        &mut self,
        changes: &[(IpNet, Option<End>)],
        now: Timestamp,
    ) -> Result<(), HeaderError> {
        match &mut self.choice {
            Some(Choice { matcher: Matcher::Bpf(maps), .. }) => maps.apply(changes)?,
            Some(Choice { matcher: Matcher::Strings(strings), .. }) => {
                strings.apply(&mut self.tables, changes, now).await?;
            }
            Some(Choice { matcher: Matcher::Off, .. }) | None => {}
        }
        Ok(())
    }

    fn note(&mut self, now: Timestamp, result: Result<(), HeaderError>) -> Result<(), HeaderError> {
        self.state.error = result.as_ref().err().map(ToString::to_string);
        match &self.choice {
            None => self.state = State { matcher: "off", error: self.state.error.take(), ..State::default() },
            Some(choice) => {
                self.state.matcher = choice.matcher.word();
                self.state.why.clone_from(&choice.why);
                self.state.notes.clone_from(&choice.can.notes);
                (self.state.installed, self.state.left_out) = match &choice.matcher {
                    Matcher::Off => (0, LeftOut::default()),
                    Matcher::Bpf(maps) => (maps.installed(), LeftOut::default()),
                    Matcher::Strings(strings) => (strings.installed(), strings.left_out(now)),
                };
            }
        }
        result
    }
}
