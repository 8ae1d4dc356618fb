//! What the follower's thread tells about itself.

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::Value;

use super::rate::Rate;
use crate::filter::{Attribution, Counts};
use crate::follow::FileStatus;
use crate::types::{JailId, Timestamp};

/// How things stood at the end of a turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Every file that is followed.
    pub(super) files: Vec<FileState>,
    /// What is waited for: jail and pattern.
    pub(super) waiting: Vec<(JailId, String)>,
    /// Lines, jail by jail.
    pub(super) lines: HashMap<JailId, JailLines>,
    /// Sources besides files.
    pub(super) sources: Vec<SourceState>,
}

/// A source besides files.
#[derive(Clone, Debug)]
pub(super) struct SourceState {
    /// The jails it is for.
    pub(super) jails: Vec<JailId>,
    /// Its key in the answer to `status`, which is that of the jail: `journal`, `docker` or `listen`.
    pub(super) kind: &'static str,
    /// What is told of it.
    pub(super) told: Value,
}

/// A followed file.
#[derive(Clone, Debug)]
pub(super) struct FileState {
    /// The jails that watch it.
    pub(super) jails: Vec<JailId>,
    /// How it fares.
    pub(super) status: FileStatus,
    /// The container whose log it is.
    pub(super) container: Option<String>,
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
    /// One more hit.
    pub(super) fn hit(&mut self, who: Attribution) {
        match who {
            Attribution::Unattributable { peer } => {
                self.unattributable += 1;
                self.last_peer = peer.or(self.last_peer);
            }
            _ => self.offenses += 1,
        }
    }

    /// What a matcher has counted since `before`.
    pub(super) fn add(&mut self, before: Counts, counts: Counts, now: Timestamp) {
        self.lines += counts.lines - before.lines;
        self.missed += counts.missed - before.missed;
        self.ignored += counts.ignored - before.ignored;
        self.rate.add(counts.lines - before.lines, now);
    }

    /// What the jail saw of another source.
    pub(super) fn join(&mut self, other: &Self, now: Timestamp) {
        self.lines += other.lines;
        self.missed += other.missed;
        self.ignored += other.ignored;
        self.offenses += other.offenses;
        self.unattributable += other.unattributable;
        self.last_peer = other.last_peer.or(self.last_peer);
        self.rate.join(&other.rate, now);
    }

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
