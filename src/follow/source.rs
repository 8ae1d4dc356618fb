//! What is to be followed, as the configuration says it.

use std::time::Duration;

/// A source's number. It names the same source across reloads and is never given to another one while the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// One path or glob to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its number.
    pub id: SourceId,
    /// An absolute path; any part of it, directories too, may hold `*`, `?` and `[..]`, which mean what they mean in
    /// a shell: they never match a `/`, nor a dot at the beginning of a name.
    pub pattern: String,
    /// Where a file is begun that was there before it was first looked for. One that appears later is read whole.
    pub from: From,
}

/// Where a file that was never followed before is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first line whose time is at most so long ago.
    Recent(Duration),
    /// At its first byte.
    Start,
    /// At its last complete line's end.
    End,
}

impl From {
    /// The one of the two that reads more: of several sources that share a file none may miss a line.
    pub(super) fn wider(self, other: Self) -> Self {
        match (self, other) {
            (Self::Start, _) | (_, Self::Start) => Self::Start,
            (Self::Recent(a), Self::Recent(b)) => Self::Recent(a.max(b)),
            (Self::Recent(d), Self::End) | (Self::End, Self::Recent(d)) => Self::Recent(d),
            (Self::End, Self::End) => Self::End,
        }
    }
}
