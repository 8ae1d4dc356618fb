//! The signals a service gets, heard by a thread of their own: whatever the agent is busy with, or stuck in, it ends in time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
pub(super) struct Signals {
    heard: mpsc::UnboundedReceiver<Ask>,
    started: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to listen. An agent that has to be ended by force does not leave the file of its `socket` behind.
    pub(super) fn listen(socket: &Path) -> io::Result<Self> {
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
        let started = Arc::new(AtomicBool::new(false));
        let (flag, socket) = (Arc::clone(&started), socket.to_owned());
        thread.spawn(move || {
            let code = runtime.block_on(pass_on(kinds, asks, &flag));
            let Some(code) = code else { return };
            // The next start replaces it where this fails.
            drop(std::fs::remove_file(socket));
            std::process::exit(code.into())
        })?;
        Ok(Self { heard, started })
    }

    /// The agent is up: before, there was nothing to be brought to an end, and whatever it was doing may be broken off.
    pub(super) fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Ask {
        match self.heard.recv().await {
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

/// Passes signals on until the agent has ended; the exit code, if it must be made to.
async fn pass_on(mut kinds: Kinds, asks: mpsc::UnboundedSender<Ask>, started: &AtomicBool) -> Option<u8> {
    loop {
        let ask = tokio::select! {
            ask = kinds.next() => ask,
            () = asks.closed() => return None,
        };
        if asks.send(ask).is_err() {
            return None;
        }
        if ask == Ask::Stop {
            break;
        }
    }
    let again = async { while kinds.next().await != Ask::Stop {} };
    tokio::select! {
        () = asks.closed() => return None,
        () = again => tracing::warn!("told twice to end: ending at once; bans stay in the kernel until they run out"),
        () = tokio::time::sleep(GRACE) => {
            if !started.load(Ordering::Relaxed) {
                tracing::info!("stopped while starting");
                return Some(exit::DONE);
            }
            tracing::error!("not done within {} ms of being told to end: ending at once", GRACE.as_millis());
        }
    }
    Some(exit::REFUSED)
}
