//! What can go wrong with a listing.

use std::io;

/// Why a listing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The kernel refused.
    #[error("failed to list {what}: {}", io::Error::from_raw_os_error(*.errno))]
    Refused {
        /// What should have been listed.
        what: String,
        /// The kernel's error number.
        errno: i32,
    },
    /// The ruleset changed whenever it was listed.
    #[error("failed to list {what}: it changed each time before it was read")]
    Interrupted {
        /// What should have been listed.
        what: String,
    },
    /// The kernel's answer holds nothing that was asked for.
    #[error("failed to list {what}: the kernel's answer is not understood")]
    Malformed {
        /// What should have been listed.
        what: String,
    },
    /// The socket failed.
    #[error("failed to list {what}: {source}")]
    Io {
        /// What should have been listed.
        what: String,
        /// How.
        source: io::Error,
    },
}

impl ListError {
    /// The error number, when there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Interrupted { .. } | Self::Malformed { .. } => None,
        }
    }

    /// The table or set is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }

    /// `CAP_NET_ADMIN` is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }
}
