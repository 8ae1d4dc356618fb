//! Bans by an address that stands only in the head of a request, because the packet comes from a proxy.
//!
//! They stand beside the bans by source, in transactions of their own: whatever is wrong with them, those go on. What
//! looks into heads is the first that this kernel can do and the agent may do of a BPF program and xt_string; see
//! [`State`] for which it is. A ban of a jail that names ports is by source alone.

mod bpf;
pub mod can;
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
#[cfg(test)]
mod tests;
mod word;

use std::collections::HashMap;
use std::io;

use ipnet::IpNet;
use nft::{Batch, Chain, CommitError, Connection, Family, ListError, ListedRule, Table};

pub use self::bpf::{BpfMatcher, MapError};
pub use self::can::Can;
pub use self::heads::Heads;
use self::maps::Maps;
pub use self::patterns::{Pattern, patterns};
pub use self::rules::{HeaderRules, Look, is_header_chain};
pub use self::state::{LeftOut, State};
use self::strings::Strings;
use super::desired::is_current;
pub use super::disjoint::End;
use super::disjoint::ends_later;
use super::layout::Layout;
use super::legacy::LegacyError;
use super::ruleset::TABLE;
use crate::config::{HeaderAction, Headers, MatcherChoice};
use crate::types::{Ban, Timestamp};

/// Why header bans are not in force.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The kernel refused rules.
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

/// What looks into heads.
enum Matcher {
    Off,
    Bpf(Box<Maps>),
    Strings(Strings),
}

impl Matcher {
    fn word(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bpf(_) => "bpf",
            Self::Strings(_) => "string",
        }
    }

    fn look(&self) -> Look {
        match self {
            Self::Off => Look::Not,
            Self::Bpf(maps) => maps.look(),
            Self::Strings(_) => Look::Bans,
        }
    }
}

/// What the kernel can do, what looks into heads, and why that.
struct Choice {
    can: Can,
    matcher: Matcher,
    why: String,
    /// What was asked for cannot be.
    lacking: bool,
}

/// The header bans of a kernel.
pub struct HeaderBans {
    connection: Connection,
    config: Headers,
    layout: Layout,
    /// Found out when first needed.
    choice: Option<Choice>,
    /// What was written last.
    rules: HeaderRules,
    state: State,
}

impl HeaderBans {
    /// Opens a socket. Nothing is changed yet.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink, or does not let us.
    pub fn open(config: Headers, layout: &Layout) -> io::Result<Self> {
        let connection = Connection::open()?;
        Ok(Self {
            connection,
            config,
            layout: layout.clone(),
            choice: None,
            rules: HeaderRules::default(),
            state: State::default(),
        })
    }

    /// Our socket's address: changes announced with it are our own.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn port_id(&self) -> io::Result<u32> {
        self.connection.port_id()
    }

    /// Takes another configuration; [`settle`](Self::settle) makes it so.
    pub fn reconfigure(&mut self, config: &Headers, layout: &Layout) {
        let same = |config: &Headers| (config.names.clone(), config.matcher, config.action);
        if same(config) != same(&self.config) || layout.prefixes != self.layout.prefixes {
            self.choice = None;
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

    /// Removes all that is about headers: the table of family bridge, and our chains in the other.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&mut self) -> Result<(), HeaderError> {
        let mut batch = Batch::new();
        for chain in self.chains().await? {
            empty(&mut batch, &chain);
        }
        for chain in self.chains().await? {
            batch.delete(&chain);
        }
        let [_, bridge] = tables();
        if !self.there(&bridge).await?.is_empty() {
            batch.add(&bridge).delete(&bridge);
        }
        self.connection.commit(&batch).await?;
        self.choice = None;
        Ok(())
    }

    /// Packets stopped, by ban.
    ///
    /// # Errors
    /// When the kernel does not list our rules or maps.
    pub async fn packets(&mut self) -> Result<HashMap<IpNet, u64>, HeaderError> {
        if let Some(Choice { matcher: Matcher::Bpf(maps), .. }) = &self.choice {
            return Ok(maps.packets()?);
        }
        let listed = self.listed().await?;
        Ok(match &self.choice {
            Some(Choice { matcher: Matcher::Strings(strings), .. }) => strings.packets(&listed),
            _ => HashMap::new(),
        })
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
        let choice = match self.choice.take() {
            Some(choice) => choice,
            None => self.choose().await?,
        };
        let lacking = choice.lacking.then(|| choice.why.clone());
        let Choice { can, matcher, .. } = self.choice.insert(choice);
        let look = matcher.look();
        let rules = HeaderRules::new(TABLE, &self.layout, &self.config, can, &look);
        let listed = self.listed().await?;
        let chains = self.chains().await?;
        let mut batch = Batch::new();
        // First all jumps, then what they jump to.
        for chain in &chains {
            empty(&mut batch, chain);
        }
        for chain in chains.iter().filter(|chain| !rules.has(chain)) {
            batch.delete(chain);
        }
        let [_, bridge] = tables();
        if !rules.sides.iter().any(|side| side.table.family() == Family::Bridge)
            && !self.there(&bridge).await?.is_empty()
        {
            batch.add(&bridge).delete(&bridge);
        }
        rules.build(&mut batch);
        let Some(choice) = &mut self.choice else { return Ok(()) };
        // Before there is a rule that looks at them.
        let filled = match &mut choice.matcher {
            Matcher::Bpf(maps) => maps.settle(all),
            _ => Ok(()),
        };
        let mut wanted = None;
        if let Matcher::Strings(strings) = &mut choice.matcher {
            strings.replace(all);
            let chosen = strings.chosen(now);
            Strings::write_all(&mut batch, &rules.sides, &chosen);
            wanted = Some(chosen);
        }
        self.connection.commit(&batch).await?;
        if let (Matcher::Strings(strings), Some(chosen)) = (&mut choice.matcher, wanted) {
            strings.keep_counts(&listed);
            strings.done(chosen);
        }
        self.rules = rules;
        filled?;
        match lacking {
            None => Ok(()),
            Some(why) => {
                // What cannot be now is tried again the next time: something may have been loaded or granted.
                self.choice = None;
                Err(HeaderError::NoMatcher(why))
            }
        }
    }

    async fn try_apply(
        &mut self,
        changes: &[(IpNet, Option<End>)],
        now: Timestamp,
    ) -> Result<(), HeaderError> {
        match &mut self.choice {
            Some(Choice { matcher: Matcher::Bpf(maps), .. }) => Ok(maps.apply(changes)?),
            Some(Choice { matcher: Matcher::Strings(strings), .. }) => {
                strings.change(changes);
                let chosen = strings.chosen(now);
                if strings.has(&chosen) {
                    return Ok(());
                }
                let mut batch = Batch::new();
                strings.write_changes(&mut batch, &self.rules.sides, &chosen);
                self.connection.commit(&batch).await?;
                strings.done(chosen);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Chooses what looks into heads.
    async fn choose(&mut self) -> Result<Choice, HeaderError> {
        let connection = &mut self.connection;
        let mut can = Can::find(connection, self.config.action == HeaderAction::Reset).await?;
        let asked = self.config.matcher;
        let forced = "the configuration says so";
        if asked == MatcherChoice::Off {
            return Ok(Choice { can, matcher: Matcher::Off, why: forced.to_owned(), lacking: false });
        }
        let mut missing: Vec<String> = Vec::new();
        if matches!(asked, MatcherChoice::Auto | MatcherChoice::Bpf) {
            match BpfMatcher::load(&self.config.names, &self.layout.prefixes) {
                Ok(matcher) => match can.takes(connection, &matcher.expr()).await? {
                    None => {
                        let why = if asked == MatcherChoice::Auto { "the best there is" } else { forced };
                        let matcher = Matcher::Bpf(Box::new(Maps::new(matcher, &self.layout.prefixes)));
                        return Ok(Choice { can, matcher, why: why.to_owned(), lacking: false });
                    }
                    Some(e) => missing.push(format!("bpf: {e} (the modules xt_bpf and nft_compat)")),
                },
                Err(e) if e.is_permission() => {
                    missing.push(format!("bpf: {e}: grant CAP_BPF and CAP_PERFMON"));
                }
                Err(e) => missing.push(format!("bpf: {e}")),
            }
        }
        if matches!(asked, MatcherChoice::Auto | MatcherChoice::String)
            && let Some(request) = rules::request()
        {
            match can.takes(connection, &request).await? {
                None => {
                    let why =
                        if asked == MatcherChoice::Auto { missing.join("; ") } else { forced.to_owned() };
                    let matcher = Matcher::Strings(Strings::new(self.config.max_rules.into()));
                    return Ok(Choice { can, matcher, why, lacking: false });
                }
                Some(e) => missing.push(format!("string: {e} (the modules xt_string and nft_compat)")),
            }
        }
        Ok(Choice { can, matcher: Matcher::Off, why: missing.join("; "), lacking: true })
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

    /// Our chains that are there now.
    async fn chains(&mut self) -> Result<Vec<Chain>, ListError> {
        let mut all = Vec::new();
        for table in tables() {
            let chains = self.there(&table).await?;
            all.extend(chains.into_iter().filter(|chain| is_header_chain(chain.name())));
        }
        Ok(all)
    }

    /// The chains of a table, which may not be there, nor its family.
    async fn there(&mut self, table: &Table) -> Result<Vec<Chain>, ListError> {
        none_if_absent(self.connection.chains(table).await, table)
    }

    /// Our rules that are there now.
    async fn listed(&mut self) -> Result<Vec<ListedRule>, ListError> {
        let mut all = Vec::new();
        for table in tables() {
            all.extend(none_if_absent(self.connection.rules(&table).await, &table)?);
        }
        Ok(all)
    }
}

/// Where our chains are.
fn tables() -> [Table; 2] {
    [Family::Inet, Family::Bridge].map(|family| Table::new(family, TABLE))
}

fn none_if_absent<T>(listed: Result<Vec<T>, ListError>, table: &Table) -> Result<Vec<T>, ListError> {
    match listed {
        Err(e) if e.is_not_found() => Ok(Vec::new()),
        Err(_) if table.family() == Family::Bridge => Ok(Vec::new()),
        listed => listed,
    }
}

/// Takes the rules out of a chain, which somebody may have removed meanwhile.
fn empty(batch: &mut Batch, chain: &Chain) {
    batch.add(Table::new(chain.family(), chain.table())).add(chain).flush(chain);
}
