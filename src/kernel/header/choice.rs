//! Which matcher it is to be.

use nft::{CommitError, Connection};

use super::bpf::BpfMatcher;
use super::can::Can;
use super::early::Early;
use super::maps::Maps;
use super::rules::{self, Look};
use super::strings::Strings;
use crate::config::{HeaderAction, Headers, MatcherChoice};
use crate::kernel::layout::Layout;

/// What looks into heads.
pub(super) enum Matcher {
    Off,
    Bpf(Box<Maps>),
    Strings(Strings),
}

impl Matcher {
    /// The word for it in the configuration.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Off => MatcherChoice::Off,
            Self::Bpf(_) => MatcherChoice::Bpf,
            Self::Strings(_) => MatcherChoice::String,
        }
        .word()
    }

    /// What calls it.
    pub(super) fn look(&self) -> Look {
        match self {
            Self::Off => Look::Not,
            Self::Bpf(maps) => maps.look(),
            Self::Strings(_) => Look::Bans,
        }
    }
}

/// What looks into heads, why that, and what the kernel can do.
pub(super) struct Choice {
    pub(super) can: Can,
    pub(super) matcher: Matcher,
    /// In a sentence without a full stop.
    pub(super) why: String,
    /// What was asked for cannot be: `why` says why.
    pub(super) lacking: bool,
}

impl Choice {
    /// Finds out what `config` asks for and this kernel can do; `early` is a program that was begun to be loaded for it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) async fn make(
        config: &Headers,
        layout: &Layout,
        early: Option<Early>,
        connection: &mut Connection,
    ) -> Result<Self, CommitError> {
        let mut can = Can::find(connection, config.action == HeaderAction::Reset).await?;
        let asked = config.matcher;
        // In the order of preference.
        let mut lacks: Vec<String> = Vec::new();
        if matches!(asked, MatcherChoice::Auto | MatcherChoice::Bpf) {
            match bpf(config, layout, early, connection, &mut can).await? {
                Ok(matcher) => return Ok(Self::chosen(asked, can, matcher, &lacks)),
                Err(lack) => lacks.push(format!("bpf: {lack}")),
            }
        }
        if matches!(asked, MatcherChoice::Auto | MatcherChoice::String)
            && let Some(request) = rules::request()
        {
            match can.takes(connection, &request).await? {
                None => {
                    let matcher = Matcher::Strings(Strings::new(config.max_rules.into()));
                    return Ok(Self::chosen(asked, can, matcher, &lacks));
                }
                Some(e) => lacks.push(format!("string: {e} (try modprobe xt_string nft_compat)")),
            }
        }
        if asked == MatcherChoice::Off {
            return Ok(Self::chosen(asked, can, Matcher::Off, &lacks));
        }
        Ok(Self { can, matcher: Matcher::Off, why: lacks.join("; "), lacking: true })
    }

    fn chosen(asked: MatcherChoice, can: Can, matcher: Matcher, lacks: &[String]) -> Self {
        let why = match (asked, lacks) {
            (MatcherChoice::Auto, []) => "the best there is".to_owned(),
            (MatcherChoice::Auto, lacks) => lacks.join("; "),
            _ => "the configuration says so".to_owned(),
        };
        Self { can, matcher, why, lacking: false }
    }
}

/// The BPF program, loaded; or why that cannot be, and what to do.
async fn bpf(
    config: &Headers,
    layout: &Layout,
    early: Option<Early>,
    connection: &mut Connection,
    can: &mut Can,
) -> Result<Result<Matcher, String>, CommitError> {
    let loaded = early.and_then(Early::take);
    let matcher = match loaded.unwrap_or_else(|| BpfMatcher::load(&config.names, &layout.prefixes)) {
        Ok(matcher) => matcher,
        Err(e) if e.is_permission() => return Ok(Err(format!("{e}: grant CAP_BPF and CAP_PERFMON"))),
        Err(e) => return Ok(Err(e.to_string())),
    };
    Ok(match can.takes(connection, &matcher.expr()).await? {
        None => Ok(Matcher::Bpf(Box::new(Maps::new(matcher, &layout.prefixes)))),
        Some(e) => Err(format!("{e} (try modprobe xt_bpf nft_compat)")),
    })
}
