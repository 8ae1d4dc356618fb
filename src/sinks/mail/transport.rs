//! Handing a message over: what there is to hand over, and what came of it.

use lettre::Address;

use crate::sinks::trouble::Trouble;

/// A message and its envelope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letter<'a> {
    pub(super) from: &'a Address,
    pub(super) to: &'a [Address],
    /// Headers and body; ASCII, lines end with CRLF.
    pub(super) text: &'a [u8],
}

/// A message was taken, for some at least.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// Who may be written to later, and why not now.
    pub(super) later: Vec<(Address, String)>,
    /// Who can not be written to, and why.
    pub(super) refused: Vec<(Address, String)>,
}

/// A message was not taken, or nobody knows.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) end: End,
}

/// How far a message came that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was surely not taken.
    NotTaken,
    /// What it says was refused for good.
    Content,
    /// It was sent whole, and what became of it is not known.
    Unclear,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, end: End::NotTaken }
    }
}
