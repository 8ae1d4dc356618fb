//! Sinks that show the bans as they are: brought in line by difference.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::backoff::Backoff;
use super::desired::Desired;
use super::state::State;
use super::trouble::{Trouble, TroubleKind};
use crate::clock;

/// Everything is compared so often, whatever seems to be in line.
const HOURLY: Duration = Duration::from_secs(3600);
/// A burst of bans is one pass.
const SETTLE: Duration = Duration::from_millis(200);
/// The agent says what is to be shown as soon as it has begun; nobody who never hears of it waits longer.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// A far side that shows the bans.
pub trait Mirror: Send + 'static {
    /// Brings the far side nearer to what is desired, and soon returns: `desired` changes meanwhile. A `whole` pass asks the
    /// far side what it has first: it is the first, or one failed, or an hour has passed. May be dropped at any await: the next
    /// pass is a whole one then.
    fn pass(&mut self, desired: &Desired, whole: bool) -> impl Future<Output = Result<Pass, Trouble>> + Send;

    /// The passes that follow are the last ones, and somebody waits for them: nothing is put off any more for courtesy's sake.
    fn last_words(&mut self) {}
}

/// What a pass came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Entries that were added, changed or removed.
    pub changed: usize,
    /// Entries that are still to be: another pass follows.
    pub left: usize,
    /// When the next pass may begin if something is left; at once without it.
    pub wait: Option<Duration>,
}

/// The end of a sink.
#[derive(Debug)]
pub struct End {
    /// It is to be over then.
    pub by: Instant,
    /// Whether the far side is to show nothing any more (`desired` is empty already).
    pub withdraw: bool,
    /// Told when it is over: whether everything was done.
    pub done: oneshot::Sender<bool>,
}

/// Runs a mirror until it is ended.
pub(super) async fn run<M: Mirror>(
    make: impl Fn() -> Result<M, Trouble> + Send + 'static,
    desired: Arc<Desired>,
    state: Arc<State>,
    mut ends: mpsc::Receiver<End>,
) {
    let mut runner = Runner { make, mirror: None, desired, state, backoff: Backoff::default(), whole: true };
    let mut next = Instant::now();
    let mut last_whole = Instant::now();
    let mut begun = false;
    loop {
        let pass = async {
            // Before it is known whom to ban, everybody would be unbanned.
            if !std::mem::replace(&mut begun, true) {
                tokio::select! {
                    () = runner.desired.known() => {}
                    () = sleep(FIRST_WORD) => {}
                }
            }
            // A change is heeded at once, unless the far side wants to be left alone.
            if Instant::now() < next {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = runner.desired.changed(), if !runner.state.is_failing() && !runner.whole => {
                        sleep(SETTLE).await;
                    }
                }
            }
            if last_whole.elapsed() >= HOURLY {
                runner.whole = true;
            }
            let whole = runner.whole;
            (whole, runner.pass().await)
        };
        let ended = tokio::select! {
            biased;
            end = ends.recv() => Some(end),
            (whole, wait) = pass => {
                if whole && !runner.whole {
                    last_whole = Instant::now();
                }
                next = Instant::now() + wait.unwrap_or(HOURLY.saturating_sub(last_whole.elapsed()));
                None
            }
        };
        match ended {
            None => {}
            Some(Some(end)) if end.withdraw => {
                let all = runner.withdraw(end.by).await;
                let _nobody_waits = end.done.send(all);
                return;
            }
            Some(Some(end)) => {
                let _nobody_waits = end.done.send(true);
                return;
            }
            Some(None) => return,
        }
    }
}

struct Runner<M, F> {
    make: F,
    mirror: Option<M>,
    desired: Arc<Desired>,
    state: Arc<State>,
    backoff: Backoff,
    whole: bool,
}

impl<M: Mirror, F: Fn() -> Result<M, Trouble>> Runner<M, F> {
    /// One pass; how long until the next, `None` when all is in line.
    async fn pass(&mut self) -> Option<Duration> {
        self.state.working();
        // Until the pass is over nothing is known for sure.
        let whole = std::mem::replace(&mut self.whole, true);
        let outcome = match &mut self.mirror {
            Some(mirror) => mirror.pass(&self.desired, whole).await,
            None => match (self.make)() {
                Ok(mirror) => self.mirror.insert(mirror).pass(&self.desired, true).await,
                Err(trouble) => Err(trouble),
            },
        };
        match outcome {
            Ok(pass) => {
                self.whole = false;
                self.backoff.reset();
                self.state.succeeded(pass.changed, pass.left == 0);
                self.state.tell("left", pass.left.into());
                (pass.left > 0).then(|| pass.wait.unwrap_or(Duration::ZERO))
            }
            Err(trouble) => {
                let wait = match trouble.kind {
                    TroubleKind::Refused => {
                        // With secrets read anew: somebody may mend them.
                        self.mirror = None;
                        self.backoff.refused()
                    }
                    TroubleKind::Later(asked) => self.backoff.failed(asked),
                    TroubleKind::Unfit(_) => self.backoff.failed(None),
                };
                self.state.failed(&trouble, clock::now().saturating_add(wait), true);
                Some(wait)
            }
        }
    }

    /// Has the far side show nothing any more; whether that came about in time.
    async fn withdraw(&mut self, by: Instant) -> bool {
        let passes = async {
            self.whole = true;
            if let Some(mirror) = &mut self.mirror {
                mirror.last_words();
            }
            while let Some(wait) = self.pass().await {
                if self.state.is_failing() {
                    return false;
                }
                sleep(wait).await;
            }
            true
        };
        timeout_at(by, passes).await.unwrap_or(false)
    }
}
