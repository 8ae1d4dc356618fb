//! Why a sink could not do what it was to do, in words that may be shown: never with a secret.

use std::error::Error;
use std::fmt::{self, Display};
use std::time::Duration;

use super::words::cut;

/// So long a message may be, in bytes: what a far side answers is its own text.
const LONGEST: usize = 400;

/// Why a sink could not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is to be done about it.
    pub kind: TroubleKind,
    /// What failed, where, and what to do: lower case, one line.
    pub message: String,
}

/// What is to be done about a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// It may pass: tried again, after so long if the far side said so.
    Later(Option<Duration>),
    /// Credentials or settings are wrong: tried again seldom, for somebody has to mend them.
    Refused,
    /// A notifier's far side takes no such message, today or tomorrow: so many events, the oldest, are given up.
    Unfit(usize),
}

impl Trouble {
    /// It may pass.
    #[must_use]
    pub fn later(message: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Later(None), message: tidy(message.into()) }
    }

    /// It may pass, and the far side says when to ask again.
    #[must_use]
    pub fn after(wait: Duration, message: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Later(Some(wait)), message: tidy(message.into()) }
    }

    /// Somebody has to mend credentials or settings.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Refused, message: tidy(message.into()) }
    }

    /// These events, the oldest, can never be told.
    #[must_use]
    pub fn unfit(events: usize, message: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Unfit(events), message: tidy(message.into()) }
    }

    /// `what: ` in front, as anyhow's context.
    #[must_use]
    pub fn context(self, what: impl Display) -> Self {
        Self { message: tidy(format!("{what}: {}", self.message)), ..self }
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Trouble {}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some libraries repeat their cause in their own words.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// One line, of bounded length, without what would move a cursor.
fn tidy(text: String) -> String {
    let hostile = |c: char| crate::log::is_hostile(c);
    if text.len() <= LONGEST && !text.contains(hostile) {
        return text;
    }
    let mut out: String = text.chars().map(|c| if hostile(c) { ' ' } else { c }).collect();
    if out.len() > LONGEST {
        out.truncate(cut(&out, LONGEST).len());
        out.push('…');
    }
    out
}
