//! A source's thread, from outside and from inside.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::daemon::jails::{Ready, SourceOptions};
use crate::daemon::snapshot::JailLines;
use crate::filter::Trust;
use crate::types::JailId;

/// For whom a source is read, and how.
pub(super) struct Orders {
    pub(super) members: Vec<Ready>,
    pub(super) trust: Arc<Trust>,
    pub(super) options: Arc<SourceOptions>,
}

/// How a source fares.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) jails: Vec<JailId>,
    pub(super) lines: HashMap<JailId, JailLines>,
    pub(super) told: Value,
    /// Its name, and how far it was read.
    pub(super) cursor: Option<(String, String)>,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Option<Orders>>,
    state: Mutex<State>,
    stop: AtomicBool,
}

/// From outside.
pub(super) struct Thread {
    shared: Arc<Shared>,
    wake: UnixStream,
    handle: JoinHandle<()>,
}

/// From inside.
pub(super) struct Inside {
    shared: Arc<Shared>,
    woken: UnixStream,
}

impl Thread {
    /// Starts it with its first orders.
    pub(super) fn start(orders: Orders, run: impl FnOnce(Inside) + Send + 'static) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared { orders: Mutex::new(Some(orders)), ..Shared::default() });
        let inside = Inside { shared: Arc::clone(&shared), woken };
        let handle = std::thread::Builder::new().name("source".to_owned()).spawn(move || run(inside))?;
        Ok(Self { shared, wake, handle })
    }

    /// Has it read for others from now on.
    pub(super) fn order(&self, orders: Orders) {
        *lock(&self.shared.orders) = Some(orders);
        self.wake();
    }

    /// Has it end.
    pub(super) fn tell_end(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Waits for its end, which must have been told.
    pub(super) fn join(self) -> State {
        if self.handle.join().is_err() {
            tracing::error!("the thread of a source panicked");
        }
        std::mem::take(&mut *lock(&self.shared.state))
    }

    /// How it fares, a fraction of a second ago.
    pub(super) fn state(&self) -> State {
        lock(&self.shared.state).clone()
    }

    fn wake(&self) {
        // A full pipe wakes as well.
        drop((&self.wake).write(&[0]));
    }
}

impl Inside {
    /// Other orders, if there are.
    pub(super) fn orders(&self) -> Option<Orders> {
        lock(&self.shared.orders).take()
    }

    /// Whether to end.
    pub(super) fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Says how it fares.
    pub(super) fn tell(&self, state: State) {
        *lock(&self.shared.state) = state;
    }

    /// Waits until one of `sources` can be read, at most `timeout`, or until there is something new from outside: which can be
    /// read.
    pub(super) fn wait<const N: usize>(
        &self,
        sources: [BorrowedFd<'_>; N],
        timeout: Duration,
    ) -> io::Result<[bool; N]> {
        let mut polled: Vec<PollFd<'_>> = sources
            .into_iter()
            .chain([self.woken.as_fd()])
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        while matches!((&self.woken).read(&mut [0; 64]), Ok(64)) {}
        let mut readable = [false; N];
        for (readable, polled) in readable.iter_mut().zip(&polled) {
            *readable = polled.any() == Some(true);
        }
        Ok(readable)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
