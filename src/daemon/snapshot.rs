//! What the follower's thread tells about itself.

use std::collections::HashMap;
use std::net::IpAddr;

use super::rate::Rate;
use crate::follow::FileStatus;
use crate::types::JailId;

/// How things stood at the end of a turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Every file that is followed.
    pub(super) files: Vec<FileState>,
    /// What is waited for: jail and pattern.
    pub(super) waiting: Vec<(JailId, String)>,
    /// Lines, jail by jail.
    pub(super) lines: HashMap<JailId, JailLines>,
}

/// A followed file.
#[derive(Clone, Debug)]
pub(super) struct FileState {
    /// The jails that watch it.
    pub(super) jails: Vec<JailId>,
    /// How it fares.
    pub(super) status: FileStatus,
}

/// What a jail saw of its files' lines.
#[derive(Clone, Debug, Default)]
pub(super) struct JailLines {
    pub(super) lines: u64,
    pub(super) missed: u64,
    pub(super) ignored: u64,
    pub(super) offenses: u64,
    /// Offenses that only trusted proxies could be blamed for.
    pub(super) unattributable: u64,
    /// The peer of the last of them.
    pub(super) last_peer: Option<IpAddr>,
    pub(super) rate: Rate,
}

impl JailLines {
    /// Enough was seen to be sure that this jail never learns a client's address.
    pub(super) fn is_blind(&self) -> bool {
        self.unattributable >= 10 && self.offenses == 0
    }

    /// What to say about it.
    pub(super) fn warning(&self) -> Option<String> {
        let peer = self.last_peer.filter(|_| self.is_blind())?;
        Some(format!(
            "all clients appear as {peer}: the proxy does not pass the client's address on, so nobody can be banned \
             (have it log the real client, or take {peer} out of trusted_proxies if it is one)"
        ))
    }
}
