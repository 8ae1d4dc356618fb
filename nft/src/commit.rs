//! What can go wrong with a batch, said in terms of its objects.

use std::fmt;
use std::io;

use crate::batch::{Change, Object, Verb};
use crate::element::{Element, Misfit};
use crate::set::Set;

/// Why a batch did not happen. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The kernel refused a change.
    #[error(transparent)]
    Rejected(Rejection),
    /// The kernel refused the batch as a whole: not permitted, no memory, or the generation is stale.
    #[error("the kernel refused the batch: {}", io::Error::from_raw_os_error(*.errno))]
    Refused {
        /// The error number.
        errno: i32,
    },
    /// An element does not fit its set; nothing was sent.
    #[error("failed to {} element {key} {} {set}: {misfit}", .verb.word(), preposition(*.verb))]
    Misfit {
        /// What should have been done.
        verb: Verb,
        /// The element's key.
        key: String,
        /// `set inet stockade banned4`.
        set: String,
        /// Why not.
        misfit: Misfit,
    },
    /// A name holds a NUL, or something is longer than a netlink attribute can say; nothing was sent.
    #[error("failed to {} {object}: a name in it holds a NUL, or part of it is longer than 64 KB", .verb.word())]
    Unwritable {
        /// What should have been done.
        verb: Verb,
        /// To what.
        object: String,
    },
    /// The batch is larger than the socket's send buffer may grow; nothing was sent.
    #[error(
        "the batch is {bytes} bytes long and the send buffer is limited to {limit}: split it, run with \
         CAP_NET_ADMIN, or raise net.core.wmem_max"
    )]
    TooLarge {
        /// The batch's length.
        bytes: usize,
        /// What the buffer holds.
        limit: usize,
    },
    /// The socket failed while sending; nothing was changed.
    #[error("failed to send the batch: {0}")]
    Send(#[source] io::Error),
    /// The answer was lost: the batch may or may not have happened. List to find out.
    #[error("failed to receive the kernel's answer, so that it is unknown whether the batch happened: {0}")]
    Receive(#[source] io::Error),
}

impl CommitError {
    /// The kernel's error number, when it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Rejected(rejection) => Some(rejection.errno),
            Self::Refused { errno } => Some(*errno),
            Self::Send(e) | Self::Receive(e) => e.raw_os_error(),
            _ => None,
        }
    }

    /// Something that must be there is not: the object itself, its table, the set or chain it names; or the kernel
    /// does not know the expression.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }

    /// Something that must not be there is, or is there and different.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// `CAP_NET_ADMIN` is missing, or the table belongs to another process.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// Somebody changed the ruleset since the generation the batch was [bound to](crate::Batch::only_on).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.errno() == Some(libc::ERESTART)
    }

    /// The kernel cannot do it (in this family, at this hook).
    #[must_use]
    pub fn is_not_supported(&self) -> bool {
        self.errno() == Some(libc::EOPNOTSUPP)
    }

    /// Whether the batch may have happened nevertheless.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Receive(_))
    }
}

/// A change the kernel refused: `failed to add element 203.0.113.7 to set inet stockade banned4: File exists (os
/// error 17)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What should have been done.
    pub verb: Verb,
    /// To what: `element 203.0.113.7 to set inet stockade banned4`, `table inet stockade`.
    pub object: String,
    /// The kernel's error number.
    pub errno: i32,
    /// What else the kernel said.
    pub detail: Option<String>,
}

impl Rejection {
    pub(crate) fn new(change: &Change, element: Option<&Element>, errno: i32) -> Self {
        let object = match (&change.object, element) {
            (Object::Elements(set, _), Some(e)) => {
                format!("element {} {} {}", e.key, preposition(change.verb), name(set))
            }
            (Object::Elements(set, elements), None) => {
                format!("{} elements {} {}", elements.len(), preposition(change.verb), name(set))
            }
            (object, _) => object.to_string(),
        };
        Self { verb: change.verb, object, errno, detail: None }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        write!(f, "failed to {} {}: {error}", self.verb.word(), self.object)?;
        self.detail.iter().try_for_each(|detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for Rejection {}

fn preposition(verb: Verb) -> &'static str {
    match verb {
        Verb::Add | Verb::Create => "to",
        _ => "from",
    }
}

/// `set inet stockade banned4`
pub(crate) fn name(set: &Set) -> String {
    format!("set {} {} {}", set.family, set.table, set.name)
}
