//! Deciding and telling everything, and enforcing nothing.

use crate::clock;
use crate::kernel::backend::{BackendKind, Choice};
use crate::kernel::{Backend, Layout};

/// What stands in the place of a backend.
pub(super) fn choice() -> Choice {
    Choice { backend: BackendKind::Nobody, why: "run --observe: nothing is enforced".to_owned() }
}

/// Says what is in force all the same, of an agent that enforces or did so before. It is left as it is.
pub(super) async fn tell_what_is_left() {
    tracing::warn!("observing: everything is decided and told, nothing is enforced");
    let left = match Backend::open(BackendKind::Nft, Layout::new([])).await {
        Ok(mut nft) => nft.left_behind(clock::now()).await.map_err(|e| e.to_string()),
        Err(e) => Err(format!("{e:#}")),
    };
    match left {
        Ok(bans) if bans.is_empty() => {}
        Ok(bans) => tracing::warn!(
            bans = bans.len(),
            "{} holds bans of an agent that enforces, or did: they stay in force until they run out, and are not touched",
            BackendKind::Nft.place()
        ),
        Err(e) => {
            tracing::info!("whether bans of an agent that enforces are in force cannot be seen: {e}");
        }
    }
}
