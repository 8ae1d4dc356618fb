//! The thread that writes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::checkpoint::{Checkpoint, Loaded};
use super::file::{self, OpenError};
use super::store::Store;
use crate::clock;
use crate::types::JailId;

/// Space is given back, and the size looked at, at most so often.
const TIDY: Duration = Duration::from_secs(60);

/// What became of a checkpoint.
#[derive(Debug)]
pub enum Outcome {
    /// It is written.
    Written(Size),
    /// It is not; the next one must hold everything. Why, and what to do.
    Failed(String),
}

/// How large the file is, in bytes, as of the last minute; how long the writing took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The file without its write-ahead log, which is at most a few MiB.
    pub bytes: u64,
    /// The last transaction.
    pub took: Duration,
}

/// The ledger, from outside.
#[derive(Debug)]
pub struct Ledger {
    orders: SyncSender<Checkpoint>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    thread: JoinHandle<()>,
    /// It has a checkpoint and did not answer yet.
    busy: bool,
}

impl Ledger {
    /// Opens the file in `state` and starts the thread. Besides: what an earlier agent left, and what is to be told. Where
    /// the file cannot be used there is nothing left, and the thread tries again with every checkpoint.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        state: &Path,
        jails: &[String],
        jail: &dyn Fn(&str) -> Option<JailId>,
    ) -> std::io::Result<(Self, Loaded, Option<String>)> {
        let (store, loaded, problem) = match open_or_replace(state, jail) {
            Ok((store, loaded, told)) => (Some(store), loaded, told),
            Err(e) => (None, Loaded::default(), Some(e.to_string())),
        };
        let (orders, received) = sync_channel::<Checkpoint>(1);
        let (answers, outcomes) = mpsc::unbounded_channel();
        let mut writer = Writer {
            state: state.to_owned(),
            store,
            strangers: Some(jails.to_vec()),
            tidied: Instant::now(),
            size: Size::default(),
        };
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            for checkpoint in received {
                if answers.send(writer.write(&checkpoint)).is_err() {
                    break;
                }
            }
            if let Some(store) = writer.store.take() {
                store.close();
            }
        })?;
        let ledger = Self { orders, outcomes, thread, busy: false };
        Ok((ledger, loaded, problem))
    }

    /// Whether the last checkpoint is still being written: then none is taken.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Has a checkpoint written. Never waits.
    pub fn write(&mut self, checkpoint: Checkpoint) {
        debug_assert!(!self.busy, "one checkpoint at a time");
        // Where the thread is gone `outcome` says so.
        drop(self.orders.try_send(checkpoint));
        self.busy = true;
    }

    /// What became of the checkpoint that is being written; waits for ever if there is none. Cancel-safe.
    pub async fn outcome(&mut self) -> Outcome {
        if !self.busy {
            return std::future::pending().await;
        }
        let outcome = self.outcomes.recv().await;
        self.busy = false;
        outcome.unwrap_or_else(|| Outcome::Failed("the ledger's thread has ended".to_owned()))
    }

    /// Has the thread end when it has written what it has. The file is in order at any moment: nobody must wait for it.
    #[must_use]
    pub fn close(self) -> JoinHandle<()> {
        self.thread
    }
}

struct Writer {
    state: PathBuf,
    store: Option<Store>,
    /// Rows of other jails than these are to be dropped.
    strangers: Option<Vec<String>>,
    tidied: Instant,
    size: Size,
}

impl Writer {
    fn write(&mut self, checkpoint: &Checkpoint) -> Outcome {
        let begun = Instant::now();
        let store = match self.store.take() {
            Some(store) => store,
            None => match open_or_replace(&self.state, &|_| None) {
                // What it holds is older than what the agent knows, and the agent will say everything: it was told that
                // the last checkpoint failed.
                Ok((store, _, told)) => {
                    if let Some(told) = told {
                        tracing::error!("{told}");
                    }
                    store
                }
                Err(e) => return Outcome::Failed(e.to_string()),
            },
        };
        let store = self.store.insert(store);
        let mut written = store.write(checkpoint);
        if let Some(jails) = self.strangers.take()
            && written.is_ok()
        {
            written = store.forget_strangers(&jails, checkpoint.at).map(drop);
        }
        let tidy = self.tidied.elapsed() >= TIDY || self.size.bytes == 0;
        if written.is_ok() && tidy {
            self.tidied = Instant::now();
            match store.tidy() {
                Ok(bytes) => self.size.bytes = bytes,
                Err(e) => written = Err(e),
            }
        }
        match written {
            Ok(()) => {
                self.size.took = begun.elapsed();
                Outcome::Written(self.size)
            }
            Err(source) => {
                // Opened anew the next time: what was wrong with it may be over, or is found again, and dealt with.
                let path = self.state.join(file::NAME);
                let error = OpenError::Sqlite { what: "write", path, source };
                self.store = None;
                if error.is_damage() {
                    return match file::set_aside(&self.state, clock::now().as_millis()) {
                        Ok(to) => Outcome::Failed(format!("{error}; set it aside as {}", to.display())),
                        Err(e) => Outcome::Failed(format!("{error}; failed to set it aside: {e}")),
                    };
                }
                Outcome::Failed(error.to_string())
            }
        }
    }
}

/// Opens the file; one that is damaged is set aside, and that is told.
fn open_or_replace(
    state: &Path,
    jail: &dyn Fn(&str) -> Option<JailId>,
) -> Result<(Store, Loaded, Option<String>), OpenError> {
    let error = match Store::open(state, jail) {
        Ok((store, loaded)) => return Ok((store, loaded, None)),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    let Ok(to) = file::set_aside(state, clock::now().as_millis()) else { return Err(error) };
    let (store, loaded) = Store::open(state, jail)?;
    let told = format!("{error}; it is damaged and was set aside as {}, and a new one begun", to.display());
    Ok((store, loaded, Some(told)))
}
