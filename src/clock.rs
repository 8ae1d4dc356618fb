//! The one place where the time of day is read.

use crate::types::Timestamp;

/// The time now.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
