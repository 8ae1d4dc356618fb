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
    // Before, all that is shown would look like leftovers.
    tokio::select! {
        end = ends.recv() => {
            let _nobody_waits = end.map(|end| end.done.send(!end.withdraw));
            return;
        }
        () = runner.desired.known() => {}
    }
    let mut next = Instant::now();
    let mut last_whole = Instant::now();
    let mut in_line = false;
    loop {
        let pass = async {
            // A change is heeded at once, unless the far side is to be left alone for a while.
            if Instant::now() < next {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = runner.desired.changed(), if in_line => {
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
                in_line = wait.is_none();
                next = Instant::now() + wait.unwrap_or_else(|| HOURLY.saturating_sub(last_whole.elapsed()));
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
        self.desired.seen();
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::desired::Want;
    use super::*;
    use crate::types::{JailId, Timestamp};

    /// What is asked of the far side, and what comes of it.
    #[derive(Default)]
    struct Far {
        /// Outcomes of the next passes; then all is well.
        script: Vec<Result<Pass, Trouble>>,
        /// Whether each pass was a whole one, how many offenders were to be banned, and when it was.
        passes: Vec<(bool, usize, Duration)>,
        made: usize,
    }

    struct Fake(Arc<Mutex<Far>>, Instant);

    impl Mirror for Fake {
        async fn pass(&mut self, desired: &Desired, whole: bool) -> Result<Pass, Trouble> {
            let mut far = self.0.lock().unwrap();
            far.passes.push((whole, desired.len(), self.1.elapsed()));
            if far.script.is_empty() { Ok(Pass::default()) } else { far.script.remove(0) }
        }
    }

    struct Running {
        far: Arc<Mutex<Far>>,
        desired: Arc<Desired>,
        state: Arc<State>,
        ends: mpsc::Sender<End>,
    }

    fn start(script: Vec<Result<Pass, Trouble>>) -> Running {
        let far = Arc::new(Mutex::new(Far { script, ..Far::default() }));
        let (desired, state) = (Arc::new(Desired::default()), Arc::new(State::new("fake")));
        let (ends, ended) = mpsc::channel(1);
        let (there, begun) = (Arc::clone(&far), Instant::now());
        let make = move || {
            there.lock().unwrap().made += 1;
            Ok(Fake(Arc::clone(&there), begun))
        };
        tokio::spawn(run(make, Arc::clone(&desired), Arc::clone(&state), ended));
        Running { far, desired, state, ends }
    }

    impl Running {
        fn ban(&self, n: u8) {
            let (since, until) = (Timestamp::default(), None);
            let want = Want { id: JailId(0), jail: "j".into(), since, until, offenses: 1, count: 1 };
            self.desired.ban(std::net::IpAddr::from([192, 0, 2, n]).into(), want);
        }

        fn passes(&self) -> Vec<(bool, usize, Duration)> {
            std::mem::take(&mut self.far.lock().unwrap().passes)
        }

        async fn end(&self, withdraw: bool) -> bool {
            if withdraw {
                self.desired.replace([]);
            }
            let (done, over) = oneshot::channel();
            let by = Instant::now() + Duration::from_secs(5);
            self.ends.send(End { by, withdraw, done }).await.unwrap();
            over.await.unwrap()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_pass_and_the_whole_is_compared_hourly() {
        let mirror = start(Vec::new());
        mirror.ban(1);
        sleep(SECOND * 10).await;
        assert_eq!(mirror.passes(), [], "nothing is known about the other bans yet");
        mirror.desired.replace([]);
        sleep(SECOND).await;
        assert_eq!(mirror.passes().iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(true, 0)]);
        for n in 0..100 {
            mirror.ban(n);
            tokio::task::yield_now().await;
        }
        sleep(SECOND).await;
        let passes = mirror.passes();
        assert!(passes.len() <= 2 && passes.last().map(|p| (p.0, p.1)) == Some((false, 100)), "{passes:?}");
        sleep(HOURLY).await;
        assert_eq!(mirror.passes().iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(true, 100)]);
        sleep(HOURLY).await;
        assert_eq!(mirror.passes().len(), 1);
        assert!(mirror.end(false).await && mirror.passes().is_empty(), "its far side stays as it is");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_later_and_whole() {
        let later = || Err(Trouble::later("down"));
        let script = vec![later(), Err(Trouble::after(SECOND * 90, "slow")), Err(Trouble::refused("token"))];
        let mirror = start(script);
        mirror.desired.replace([]);
        sleep(SECOND * 80).await;
        // A new ban is no reason to ask a far side that wants to be left alone.
        mirror.ban(1);
        sleep(SECOND * 1000).await;
        let passes = mirror.passes();
        assert!(passes.len() >= 4 && passes[..4].iter().all(|p| p.0), "all whole: {passes:?}");
        let gaps: Vec<Duration> = passes.windows(2).map(|two| two[1].2 - two[0].2).collect();
        assert!(gaps[0] < SECOND * 2 && gaps[1] >= SECOND * 90 && gaps[2] >= SECOND * 300, "{gaps:?}");
        assert_eq!(mirror.far.lock().unwrap().made, 2, "made anew, with secrets read anew, after a refusal");
        let value = mirror.state.value("fake", "mirror", 0);
        assert_eq!((&value["state"], &value["last_error"]["message"]), (&"ok".into(), &"token".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_gone_on_with_and_taken_back_at_the_end() {
        let part = |left| Ok(Pass { changed: 10, left, wait: Some(SECOND * 7) });
        let mirror = start(vec![part(20), part(10), part(0)]);
        mirror.desired.replace([]);
        sleep(SECOND * 30).await;
        let passes = mirror.passes();
        assert_eq!(passes.iter().map(|p| p.0).collect::<Vec<_>>(), [true, false, false]);
        assert!(passes[1].2 - passes[0].2 >= SECOND * 7);
        mirror.far.lock().unwrap().script = vec![part(1), part(0)];
        assert!(!mirror.end(true).await, "it needs seven seconds, and five are given");
        let mirror = start(Vec::new());
        mirror.desired.replace([]);
        sleep(SECOND).await;
        mirror.passes();
        assert!(mirror.end(true).await);
        assert_eq!(mirror.passes().iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(true, 0)]);
    }
}
