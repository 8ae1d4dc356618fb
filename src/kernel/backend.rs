//! What enforces bans by source: nf_tables, or iptables-legacy and ipset, or nobody; and which of them it is to be.

use nft::Connection;

use super::legacy::{Legacy, Look};
use super::{Changes, Desired, EnforceError, Enforcer, Held, Layout, ReadBack, Ruleset, SetId, header};
use crate::config::{self, Config};
use crate::types::{JailId, Timestamp};

/// What to do where neither backend works.
const ADVICE: &str = "run it as root or grant CAP_NET_ADMIN; then either the kernel must have nf_tables (modprobe nf_tables), \
                      or ip_tables and ip_set, with the packages iptables and ipset installed";

/// One of the two ways to enforce, or not to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// nf_tables, over netlink.
    Nft,
    /// iptables-legacy and ipset.
    Legacy,
    /// Neither: nothing is to be enforced.
    Nobody,
}

impl BackendKind {
    /// The word for it in the configuration and in `status`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
            Self::Nobody => "none",
        }
    }

    /// What it is called in a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nf_tables",
            Self::Legacy => "iptables-legacy",
            Self::Nobody => "nothing",
        }
    }

    /// Where its bans are, in a sentence.
    #[must_use]
    pub fn place(self) -> &'static str {
        match self {
            Self::Nft => "table inet stockade",
            Self::Legacy => "the ipsets stockade_*",
            Self::Nobody => "no table",
        }
    }
}

/// Which backend it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub backend: BackendKind,
    /// Why, in a sentence without a full stop.
    pub why: String,
}

/// Neither backend, or not the one that the configuration asks for, can enforce here.
#[derive(Debug, thiserror::Error)]
pub enum NoBackend {
    /// `backend: nft`.
    #[error("`backend: nft` cannot be: {0} (try modprobe nf_tables, or `backend: auto`)")]
    Nft(String),
    /// `backend: legacy`.
    #[error("`backend: legacy` cannot be: {0}")]
    Legacy(String),
    /// `backend: auto`.
    #[error(
        "nothing here can enforce bans. nf_tables: {nft}. iptables-legacy: {legacy}. What to do: {ADVICE}"
    )]
    Either {
        /// What nf_tables lacks.
        nft: String,
        /// What the other lacks.
        legacy: String,
    },
}

/// Chooses what enforces bans of this layout, as `asked` by the configuration. Nothing is changed: nf_tables are asked
/// with a transaction that is never committed, iptables-legacy and ipset are asked for what they have.
///
/// # Errors
/// When what is asked for cannot be.
pub async fn choose(asked: config::Backend, layout: &Layout) -> Result<Choice, NoBackend> {
    let chosen = |backend, why: String| Choice { backend, why };
    match asked {
        config::Backend::Nft => match nft_lacks(layout).await {
            None => Ok(chosen(BackendKind::Nft, "the configuration says so".to_owned())),
            Some(lack) => Err(NoBackend::Nft(lack)),
        },
        config::Backend::Legacy => match Legacy::open(layout.clone()).await {
            Ok(legacy) => Ok(chosen(
                BackendKind::Legacy,
                format!("the configuration says so; in table {}", legacy.table()),
            )),
            Err(e) => Err(NoBackend::Legacy(e.to_string())),
        },
        config::Backend::Auto => {
            let Some(lack) = nft_lacks(layout).await else {
                return Ok(chosen(
                    BackendKind::Nft,
                    "the kernel has all of nf_tables that is needed".to_owned(),
                ));
            };
            match Legacy::open(layout.clone()).await {
                Ok(legacy) => Ok(chosen(
                    BackendKind::Legacy,
                    format!(
                        "nf_tables cannot be used ({lack}), iptables-legacy (table {}) and ipset can",
                        legacy.table()
                    ),
                )),
                Err(e) => Err(NoBackend::Either { nft: lack, legacy: e.to_string() }),
            }
        }
    }
}

/// Whether it may come to iptables-legacy, for bans by source or by header: it is asked for, nf_tables will not do, or there
/// are tables of iptables-legacy, in which an agent before this one may have left something. To be asked before there are threads.
#[must_use]
pub fn may_be_legacy(config: &Config) -> bool {
    use config::{Backend::Auto as AnyBackend, Backend::Legacy as LegacyBackend, MatcherChoice};
    let (backend, matcher) = (config.backend, config.headers.matcher);
    if backend == LegacyBackend || matcher == MatcherChoice::Legacy || Legacy::may_be_there() {
        return true;
    }
    if backend != AnyBackend && matcher != MatcherChoice::Auto {
        return false;
    }
    // A jail with everything that a layout can ask for.
    let layout = Layout::new([(JailId(0), "any", &[22][..], 64)]);
    let nft_does = async { nft_lacks(&layout).await.is_none() && header::can_search().await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    !runtime.is_ok_and(|runtime| runtime.block_on(nft_does))
}

/// Why nf_tables cannot hold our table; `None` where they can.
async fn nft_lacks(layout: &Layout) -> Option<String> {
    let mut connection = match Connection::open() {
        Ok(connection) => connection,
        Err(e) => return Some(e.to_string()),
    };
    match Ruleset::new(layout.clone()).probe(&mut connection).await {
        // What is there already in another shape (File exists) is replaced when the table is made.
        Ok(refused) => refused
            .iter()
            .find(|refusal| refusal.errno != nix::errno::Errno::EEXIST as i32)
            .map(ToString::to_string),
        Err(e) => Some(e.to_string()),
    }
}

/// What enforces bans by source.
pub enum Backend {
    /// nf_tables.
    Nft(Box<Enforcer>),
    /// iptables-legacy and ipset.
    Legacy(Box<Legacy>),
    /// Takes everything and does nothing.
    Nobody(Layout),
}

impl Backend {
    /// Opens the one that was chosen. Nothing is changed yet.
    ///
    /// # Errors
    /// When it does not let us.
    pub async fn open(kind: BackendKind, layout: Layout) -> anyhow::Result<Self> {
        Ok(match kind {
            BackendKind::Nft => Self::Nft(Box::new(Enforcer::open(layout)?)),
            BackendKind::Legacy => Self::Legacy(Box::new(Legacy::open(layout).await?)),
            BackendKind::Nobody => Self::Nobody(layout),
        })
    }

    /// The other one, if an agent with another configuration has left bans there: they are to be taken over and removed,
    /// or nobody would ever lift them. Where it cannot be used there is none.
    pub async fn former(&self) -> Option<Self> {
        match self {
            Self::Nft(_) => {
                if !Legacy::may_be_there() {
                    return None;
                }
                let legacy = Legacy::open(self.layout().clone()).await.ok()?;
                legacy.is_there().await.ok()?.then(|| Self::Legacy(Box::new(legacy)))
            }
            Self::Legacy(_) => {
                let mut nft = Enforcer::open(self.layout().clone()).ok()?;
                nft.is_there().await.ok()?.then(|| Self::Nft(Box::new(nft)))
            }
            // What others enforce is none of its business.
            Self::Nobody(_) => None,
        }
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> BackendKind {
        match self {
            Self::Nft(_) => BackendKind::Nft,
            Self::Legacy(_) => BackendKind::Legacy,
            Self::Nobody(_) => BackendKind::Nobody,
        }
    }

    /// The shape of what it holds.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        match self {
            Self::Nft(nft) => nft.layout(),
            Self::Legacy(legacy) => legacy.layout(),
            Self::Nobody(layout) => layout,
        }
    }

    /// Takes another shape; [`reconcile`](Self::reconcile) makes it so.
    pub fn set_layout(&mut self, layout: Layout) {
        match self {
            Self::Nft(nft) => nft.set_layout(layout),
            Self::Legacy(legacy) => legacy.set_layout(layout),
            Self::Nobody(held) => *held = layout,
        }
    }

    /// What is not in force though nothing has failed, such as bans for which there is no room.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Nft(_) | Self::Nobody(_) => None,
            Self::Legacy(legacy) => legacy.problem(),
        }
    }

    /// What its sets hold. A set that is not there holds nothing.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn held(&mut self, now: Timestamp) -> Result<Vec<(SetId, Held)>, EnforceError> {
        Ok(match self {
            Self::Nft(nft) => nft.held(now).await?,
            Self::Legacy(legacy) => legacy.held(now).await?,
            Self::Nobody(_) => Vec::new(),
        })
    }

    /// What its sets hold, also those that an agent with another configuration made.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn left_behind(&mut self, now: Timestamp) -> Result<Vec<Held>, EnforceError> {
        Ok(match self {
            Self::Nft(nft) => nft.left_behind(now).await?,
            Self::Legacy(legacy) => legacy.left_behind(now).await?,
            Self::Nobody(_) => Vec::new(),
        })
    }

    /// Makes everything what it should be. Returns what was written, to be [read back](Self::read_back).
    ///
    /// # Errors
    /// When the kernel or a program refuses.
    pub async fn reconcile(&mut self, desired: &Desired, now: Timestamp) -> Result<Changes, EnforceError> {
        match self {
            Self::Nft(nft) => nft.reconcile(desired, now).await,
            Self::Legacy(legacy) => Ok(Changes::counted(legacy.reconcile(desired, now).await?)),
            Self::Nobody(_) => Ok(Changes::default()),
        }
    }

    /// Asks the kernel for every element that `changes` wrote. ipset answers for its own: what it did not take, it
    /// refused, and [`look`](Self::look) counts what is there.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn read_back(&mut self, changes: &Changes, now: Timestamp) -> Result<ReadBack, EnforceError> {
        match self {
            Self::Nft(nft) => Ok(nft.read_back(changes, now).await?),
            Self::Legacy(_) | Self::Nobody(_) => Ok(ReadBack::default()),
        }
    }

    /// Writes what decisions changed.
    ///
    /// # Errors
    /// When the kernel or a program refuses; then [`reconcile`](Self::reconcile) is due.
    pub async fn apply(&mut self, changes: &Changes, now: Timestamp) -> Result<(), EnforceError> {
        match self {
            Self::Nft(nft) => nft.apply(changes, now).await?,
            Self::Legacy(legacy) => legacy.apply(changes, now).await?,
            Self::Nobody(_) => {}
        }
        Ok(())
    }

    /// Whether somebody has changed something of ours. nf_tables tell so by themselves, which is not asked for here.
    ///
    /// # Errors
    /// When a program fails.
    pub async fn look(&mut self, now: Timestamp) -> Result<Look, EnforceError> {
        match self {
            Self::Nft(_) | Self::Nobody(_) => Ok(Look::Fine),
            Self::Legacy(legacy) => Ok(legacy.look(now).await?),
        }
    }

    /// Removes everything of ours, and every ban with it.
    ///
    /// # Errors
    /// When the kernel or a program refuses. What is not there is no error.
    pub async fn remove(&mut self) -> Result<(), EnforceError> {
        match self {
            Self::Nft(nft) => nft.remove().await?,
            Self::Legacy(legacy) => legacy.remove().await?,
            Self::Nobody(_) => {}
        }
        Ok(())
    }
}
