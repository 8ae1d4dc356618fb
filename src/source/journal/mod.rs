//! systemd's journal, as `journalctl --output=json` tells it (systemd.journal-fields(7), systemd's JOURNAL_EXPORT_FORMATS).
//!
//! A child reads the journal because its files are the business of libsystemd, which is not linked: `journalctl` is there
//! wherever a journal is, of the journal's own version.

mod child;
mod entry;
mod matches;
mod partial;

pub(crate) use self::child::{Child, Heard, roots};
pub use self::child::{ChildError, Start, last_entry, missing_journal};
pub use self::entry::{Entry, EntryError};
pub use self::matches::{MatchError, Matches};
pub(crate) use self::partial::{Joined, Joiner};
