//! The signals a service gets, heard by a thread of their own: whatever the agent is busy with, or stuck in, it ends in time.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::exit;

/// An agent that was told to end has ended by then, or is ended. Bans are in the kernel, and nothing of ours breaks when the
/// process is killed.
const GRACE: Duration = Duration::from_millis(900);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals the agent listens to, until this is dropped.
pub(super) struct Signals(mpsc::UnboundedReceiver<Ask>);

impl Signals {
    /// Begins to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let (asks, heard) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kinds = {
            let _context = runtime.enter();
            Kinds {
                term: signal(SignalKind::terminate())?,
                int: signal(SignalKind::interrupt())?,
                hup: signal(SignalKind::hangup())?,
            }
        };
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || runtime.block_on(pass_on(kinds, asks)))?;
        Ok(Self(heard))
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Ask {
        match self.0.recv().await {
            Some(ask) => ask,
            None => std::future::pending().await,
        }
    }
}

struct Kinds {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Kinds {
    async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.term.recv() => Ask::Stop,
            _ = self.int.recv() => Ask::Stop,
            _ = self.hup.recv() => Ask::Reload,
        }
    }
}

async fn pass_on(mut kinds: Kinds, asks: mpsc::UnboundedSender<Ask>) {
    loop {
        let ask = tokio::select! {
            ask = kinds.next() => ask,
            () = asks.closed() => return,
        };
        if asks.send(ask).is_err() {
            return;
        }
        if ask == Ask::Stop {
            break;
        }
    }
    let again = async { while kinds.next().await != Ask::Stop {} };
    tokio::select! {
        () = asks.closed() => return,
        () = again => tracing::warn!("told twice to end: ending at once; bans stay in the kernel until they run out"),
        () = tokio::time::sleep(GRACE) => {
            tracing::error!("not done within {} ms of being told to end: ending at once", GRACE.as_millis());
        }
    }
    std::process::exit(exit::REFUSED.into());
}
