//! What the agent remembers over restarts: bans, open counts, and how far every source was read.
//!
//! One SQLite file in `paths.state`, mode 0600. All that the engine decided from a stretch of lines is written in the same
//! transaction as the place where that stretch ends: after `kill -9` the next agent goes on from the last transaction,
//! reads the lines behind it once more and decides the same. So no offense counts twice and none is forgotten, whatever
//! the moment.
//!
//! ```text
//!   agent's loop ── Checkpoint ──► writer's thread ── transaction ──► stockade.db (WAL)
//!        ▲                               │
//!        └──────────── Outcome ──────────┘
//! ```
//!
//! Writing never stands between a decision and the kernel: it has a thread, and the next checkpoint is not made before
//! the last one is written. Meanwhile the engine remembers what changed, in bounded memory. What cannot be written (a
//! full disk) is tried again and told; the agent bans on. A file that is damaged is set aside, and a new one takes
//! everything the agent knows.
//!
//! A power failure may cost the last transactions (`synchronous=NORMAL`, <https://sqlite.org/pragma.html#pragma_synchronous>):
//! the agent then goes on from an earlier place, just as well.

use std::path::Path;

mod checkpoint;
mod file;
mod schema;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub use self::checkpoint::{Checkpoint, Loaded};
pub use self::file::OpenError;
pub use self::store::Store;
pub use self::writer::{Ledger, Outcome, Size};

/// Lifts every ban that the ledger in `state` remembers; how many. One that is not there is not made.
///
/// # Errors
/// See [`OpenError`].
pub fn lift_all(state: &Path) -> Result<u64, OpenError> {
    let path = state.join(file::NAME);
    if !path.exists() {
        return Ok(0);
    }
    let (mut store, _) = Store::open(state, &|_| None)?;
    let lifted = store.lift_all();
    store.close();
    let failed = |source| OpenError::Sqlite { what: "lift the bans in", path, source };
    lifted.map(|n| u64::try_from(n).unwrap_or(u64::MAX)).map_err(failed)
}
