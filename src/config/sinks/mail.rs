//! `kind: mail`.

use super::super::cursor::{Cursor, Section};
use super::super::report::Report;

/// The keys, besides those all sinks have.
pub(super) const KEYS: &[&str] = &[];

/// The settings of a sink of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {}

/// Reads the settings; `None` with mistakes.
pub(super) fn read(_keys: &Section<'_>, _cursor: &Cursor<'_>, _report: &mut Report) -> Option<Mail> {
    Some(Mail {})
}
