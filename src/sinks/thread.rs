//! The thread on which all sinks run: TLS, JSON and slow far sides cost the agent's loop nothing.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime of one thread.
#[derive(Debug)]
pub(super) struct Thread {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Thread {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("sinks".to_owned()).spawn(move || {
            // Ends when it is told, or when the agent has gone.
            drop(runtime.block_on(stopped));
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _stop: stop })
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Ends it: what still runs there is dropped at its next await.
    pub(super) fn stop(self) {}
}
