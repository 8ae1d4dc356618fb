//! Header bans in nf_tables, or in iptables-legacy: one interface to both.
//!
//! With `matcher: auto` nf_tables come first, and what they cannot do iptables-legacy does; where bans by source are not in
//! nf_tables, neither are these, unless the configuration says so. PROXY protocol headers are looked up in the sets of
//! the bans by source, so that is a matter of nf_tables alone.

use std::collections::HashMap;
use std::io;

use ipnet::IpNet;

use super::{End, HeaderBans, HeaderError, LeftOut, State};
use crate::config::{Headers, MatcherChoice};
use crate::kernel::backend::BackendKind;
use crate::kernel::layout::Layout;
use crate::kernel::legacy::{LegacyError, LegacyHeaders, Look};
use crate::types::Timestamp;

/// The header bans, wherever they are.
pub struct Heads {
    backend: BackendKind,
    config: Headers,
    /// `None` where nothing of ours is to be in nf_tables.
    nft: Option<HeaderBans>,
    /// `None` while iptables-legacy is not needed.
    legacy: Option<LegacyHeaders>,
    /// Why it is.
    why: String,
    /// What another configuration left in iptables-legacy, or in nf_tables, is gone.
    swept: bool,
    state: State,
}

impl Heads {
    /// Opens what is needed. Nothing is changed yet.
    ///
    /// # Errors
    /// When nf_tables are needed and cannot be opened.
    pub fn open(config: Headers, layout: &Layout, backend: BackendKind) -> io::Result<Self> {
        let nft =
            uses_nft(&config, backend).then(|| HeaderBans::open(in_nft(&config), layout)).transpose()?;
        let (why, state) = (String::new(), State::default());
        Ok(Self { backend, config, nft, legacy: None, why, swept: false, state })
    }

    /// The address of the netlink socket, if there is one: changes announced with it are our own.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn port_id(&self) -> io::Result<Option<u32>> {
        self.nft.as_ref().map(HeaderBans::port_id).transpose()
    }

    /// Takes another configuration; [`settle`](Self::settle) makes it so. Whether nf_tables are used at all stays as it was
    /// at the start, but for a matcher that needs them.
    pub fn reconfigure(&mut self, config: &Headers, layout: &Layout) {
        if *config != self.config {
            self.legacy = None;
            self.swept = false;
        }
        match &mut self.nft {
            Some(nft) => nft.reconfigure(&in_nft(config), layout),
            None if uses_nft(config, self.backend) => {
                self.nft = HeaderBans::open(in_nft(config), layout).ok();
            }
            None => {}
        }
        self.config = config.clone();
    }

    /// How they fare.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether iptables-legacy looks into heads, so that nobody tells of changes by others.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        self.legacy.is_some()
    }

    /// Makes the kernel hold exactly these bans, each with its end, whatever it holds now.
    ///
    /// # Errors
    /// When nothing can look into heads here, or the kernel refuses. Then [`settle`](Self::settle) is due again.
    pub async fn settle(&mut self, all: &[(IpNet, End)], now: Timestamp) -> Result<(), HeaderError> {
        let settled = self.try_settle(all, now).await;
        self.note(settled)
    }

    async fn try_settle(&mut self, all: &[(IpNet, End)], now: Timestamp) -> Result<(), HeaderError> {
        let mut lacking = None;
        if let Some(nft) = &mut self.nft {
            match nft.settle(all, now).await {
                Err(HeaderError::NoMatcher(why)) if self.config.matcher == MatcherChoice::Auto => {
                    lacking = Some(why);
                }
                settled => settled?,
            }
        }
        let forced = self.config.matcher == MatcherChoice::Legacy;
        let instead = self.config.matcher == MatcherChoice::Auto && self.nft.is_none();
        if lacking.is_none() && !forced && !instead {
            self.legacy = None;
            self.sweep_legacy().await;
            return Ok(());
        }
        if self.nft.is_none() {
            self.sweep_nft().await;
        }
        if self.legacy.is_none() {
            let legacy = LegacyHeaders::open(self.config.clone()).await.map_err(|e| {
                let nft = lacking.as_ref().map_or_else(String::new, |why| format!("{why}; "));
                HeaderError::NoMatcher(format!("{nft}legacy: {e}"))
            })?;
            self.why = match lacking {
                Some(why) => why,
                None if forced => "the configuration says so".to_owned(),
                None => "bans by source are in iptables-legacy, too".to_owned(),
            };
            self.legacy = Some(legacy);
        }
        if let Some(legacy) = &mut self.legacy {
            legacy.settle(all.iter().copied(), now).await?;
        }
        Ok(())
    }

    /// Makes changes: a ban with its (new) end, or `None` for one that is gone.
    ///
    /// # Errors
    /// When the kernel or a program refuses. Then [`settle`](Self::settle) is due.
    pub async fn apply(
        &mut self,
        changes: &[(IpNet, Option<End>)],
        now: Timestamp,
    ) -> Result<(), HeaderError> {
        let applied = match (&mut self.legacy, &mut self.nft) {
            (Some(legacy), _) => legacy.apply(changes.iter().copied(), now).await.map_err(Into::into),
            (None, Some(nft)) => nft.apply(changes, now).await,
            (None, None) => Ok(()),
        };
        self.note(applied)
    }

    /// Whether somebody has changed something in iptables-legacy.
    ///
    /// # Errors
    /// When a program fails.
    pub async fn look(&mut self) -> Result<Look, LegacyError> {
        match &mut self.legacy {
            Some(legacy) => legacy.look().await,
            None => Ok(Look::Fine),
        }
    }

    /// Packets stopped, by ban.
    ///
    /// # Errors
    /// When the kernel does not list our rules.
    pub async fn packets(&mut self) -> Result<HashMap<IpNet, u64>, HeaderError> {
        match (&mut self.legacy, &mut self.nft) {
            (Some(legacy), _) => Ok(legacy.packets().await?.into_iter().collect()),
            (None, Some(nft)) => Ok(nft.packets().await?),
            (None, None) => Ok(HashMap::new()),
        }
    }

    /// Packets stopped in all; cheaper than ban by ban.
    ///
    /// # Errors
    /// When the kernel does not list our rules or maps.
    pub async fn total(&mut self) -> Result<u64, HeaderError> {
        match (&self.legacy, &mut self.nft) {
            (None, Some(nft)) => nft.total().await,
            _ => Ok(self.packets().await?.values().sum()),
        }
    }

    /// Gives memory back that ended bans take. To be called now and then; they are not in force in any case.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self, now: Timestamp) -> Result<usize, HeaderError> {
        self.nft.as_mut().map_or(Ok(0), |nft| nft.sweep(now))
    }

    /// Removes all that is about headers.
    ///
    /// # Errors
    /// When the kernel or a program refuses.
    pub async fn remove(&mut self) -> Result<(), HeaderError> {
        let from_nft = match &mut self.nft {
            Some(nft) => nft.remove().await,
            None => Ok(()),
        };
        if let Some(mut legacy) = self.legacy.take() {
            legacy.remove().await?;
        }
        from_nft
    }

    /// What an agent that used iptables-legacy left there.
    async fn sweep_legacy(&mut self) {
        if self.swept {
            return;
        }
        self.swept = true;
        if let Err(e) = LegacyHeaders::sweep().await {
            tracing::warn!("failed to remove header bans that were left in iptables-legacy: {e}");
        }
    }

    /// What an agent that used nf_tables left there, beside the table of bans by source.
    async fn sweep_nft(&mut self) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        let config = Headers { matcher: MatcherChoice::Off, ..self.config.clone() };
        // Where they cannot be opened there is nothing of ours.
        if let Ok(mut nft) = HeaderBans::open(config, &Layout::default())
            && let Err(e) = nft.remove().await
        {
            tracing::debug!("failed to remove header bans that were left in nf_tables: {e}");
        }
    }

    fn note(&mut self, result: Result<(), HeaderError>) -> Result<(), HeaderError> {
        self.state = self.nft.as_ref().map(|nft| nft.state().clone()).unwrap_or_default();
        if let Some(legacy) = &self.legacy {
            self.state.matcher = "legacy";
            self.state.why.clone_from(&self.why);
            self.state.installed = legacy.installed();
            self.state.left_out = LeftOut::default();
            for (net, can_be_said) in legacy.left_out() {
                self.state.left_out.add(*net, *can_be_said);
            }
            self.state.notes.extend(legacy.notes());
            if self.nft.is_none() && self.config.proxy_protocol {
                self.state.notes.push(
                    "PROXY protocol headers are not looked at: that is done by nf_tables alone".to_owned(),
                );
            }
        }
        self.state.error = result.as_ref().err().map(ToString::to_string);
        result
    }
}

/// What of the configuration concerns nf_tables: where iptables-legacy looks into heads, PROXY protocol headers alone.
fn in_nft(config: &Headers) -> Headers {
    let matcher = match config.matcher {
        MatcherChoice::Legacy => MatcherChoice::Off,
        matcher => matcher,
    };
    Headers { matcher, ..config.clone() }
}

fn uses_nft(config: &Headers, backend: BackendKind) -> bool {
    backend == BackendKind::Nft || matches!(config.matcher, MatcherChoice::Bpf | MatcherChoice::String)
}
