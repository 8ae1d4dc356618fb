//! What an agent has left in the kernel, removed when none runs: bans stay when it stops, and somebody has to be able to
//! lift them who has no agent any more, or none that starts.

use anyhow::{Context as _, Result};

use super::header::HeaderBans;
use super::legacy::{Legacy, LegacyHeaders};
use super::{Enforcer, Layout};
use crate::config::{Headers, MatcherChoice};
use crate::types::Timestamp;

/// Removes every table, chain and set of ours, whatever backend and configuration made them; how many bans they held.
/// `None` when there was nothing.
///
/// # Errors
/// When the kernel does not let us, or a program of iptables-legacy fails.
pub async fn remove(now: Timestamp) -> Result<Option<usize>> {
    let nft = remove_nft(now).await.context("failed to remove the tables stockade of nf_tables")?;
    let legacy = remove_legacy(now).await.context("failed to remove what is in iptables-legacy and ipset")?;
    Ok(match (nft, legacy) {
        (None, None) => None,
        (nft, legacy) => Some(nft.unwrap_or(0) + legacy.unwrap_or(0)),
    })
}

async fn remove_nft(now: Timestamp) -> Result<Option<usize>> {
    let mut sources = Enforcer::open(Layout::default())?;
    let is_there = match sources.is_there().await {
        Ok(is_there) => is_there,
        // A kernel that has the other and not this one.
        Err(e) if !e.is_permission() && Legacy::may_be_there() => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut bans = None;
    if is_there {
        bans = Some(sources.left_behind(now).await?.len());
        sources.remove().await?;
    }
    // Those have a table of their own beside it.
    let config = Headers { matcher: MatcherChoice::Off, ..Headers::default() };
    HeaderBans::open(config, &Layout::default())?.remove().await?;
    Ok(bans)
}

async fn remove_legacy(now: Timestamp) -> Result<Option<usize>> {
    if !Legacy::may_be_there() {
        return Ok(None);
    }
    LegacyHeaders::sweep().await?;
    // Without its programs nothing of ours can have come there.
    let Ok(mut legacy) = Legacy::open(Layout::default()).await else { return Ok(None) };
    if !legacy.is_there().await? {
        return Ok(None);
    }
    let bans = legacy.left_behind(now).await?.len();
    legacy.remove().await?;
    Ok(Some(bans))
}
