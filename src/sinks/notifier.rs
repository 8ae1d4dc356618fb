//! Sinks that tell once: people, and programs.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::backoff::Backoff;
use super::event::Event;
use super::mirror::End;
use super::queue::Queue;
use super::state::State;
use super::trouble::{Trouble, TroubleKind};
use crate::clock;

/// A far side that is told.
pub trait Notifier: Send + 'static {
    /// How fast messages may follow each other.
    fn pace(&self) -> Pace;

    /// After the first event, so long is waited for others that go into the same message.
    fn gather(&self) -> Duration {
        Duration::ZERO
    }

    /// The agent ends: what is told from now on has little time.
    fn hurry(&mut self) {}

    /// Sends one message about `events`, oldest first, never none: about the first alone, or about as many as it can take in.
    /// After this message `room` others may be sent within the minute: where that is little, merge. How many events, the
    /// oldest, it was about. May be dropped at any await.
    fn tell(
        &mut self,
        events: &[Arc<Event>],
        room: u32,
    ) -> impl Future<Output = Result<usize, Trouble>> + Send;
}

/// How fast messages may follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one message to the next.
    pub gap: Duration,
    /// Messages within any minute.
    pub per_minute: u32,
}

/// Runs a notifier until it is ended. `done` is told whenever something need not be kept in the ledger any more.
pub(super) async fn run<N: Notifier>(
    make: impl Fn() -> Result<N, Trouble> + Send + 'static,
    queue: Arc<Queue>,
    state: Arc<State>,
    done: Arc<Notify>,
    mut ends: mpsc::Receiver<End>,
) {
    let mut runner = Runner {
        make,
        notifier: None,
        queue,
        state,
        done,
        backoff: Backoff::default(),
        sent: VecDeque::new(),
    };
    let mut not_before = Instant::now();
    // Some listen too. One that cannot be made says so when there is something to tell.
    drop(runner.notifier().map(|_| ()));
    loop {
        let turn = async {
            while !runner.queue.has_news() {
                runner.state.idle();
                runner.queue.news().await;
            }
            sleep_until(not_before).await;
            runner.gather().await;
            runner.turn().await
        };
        let ended = tokio::select! {
            biased;
            end = ends.recv() => Some(end),
            wait = turn => {
                not_before = Instant::now() + wait;
                None
            }
        };
        match ended {
            None => {}
            Some(Some(end)) => {
                // What was being told is told again in the next life, if it was not told whole.
                runner.queue.end(0);
                let all = runner.last_words(end.by).await;
                let _nobody_waits = end.done.send(all);
                return;
            }
            Some(None) => return,
        }
    }
}

struct Runner<N, F> {
    make: F,
    notifier: Option<N>,
    queue: Arc<Queue>,
    state: Arc<State>,
    done: Arc<Notify>,
    backoff: Backoff,
    /// When the messages of the last minute were sent.
    sent: VecDeque<Instant>,
}

impl<N: Notifier, F: Fn() -> Result<N, Trouble>> Runner<N, F> {
    fn notifier(&mut self) -> Result<&mut N, Trouble> {
        if self.notifier.is_none() {
            self.notifier = Some((self.make)()?);
        }
        self.notifier.as_mut().ok_or_else(|| Trouble::later("it was not made"))
    }

    async fn gather(&mut self) {
        // Whoever cannot be made fails in its turn.
        let gather = self.notifier().map_or(Duration::ZERO, |notifier| notifier.gather());
        tokio::time::sleep(gather).await;
        if let Some(at) = self.notifier().ok().map(|n| n.pace()).and_then(|pace| self.free_at(pace)) {
            sleep_until(at).await;
        }
    }

    /// When another message may be sent, if not now.
    fn free_at(&mut self, pace: Pace) -> Option<Instant> {
        let minute = Duration::from_secs(60);
        while self.sent.front().is_some_and(|at| at.elapsed() >= minute) {
            self.sent.pop_front();
        }
        let gap = self.sent.back().map(|at| *at + pace.gap);
        let full = self.sent.len() >= pace.per_minute.max(1) as usize;
        let slot = self.sent.front().filter(|_| full).map(|at| *at + minute);
        gap.max(slot).filter(|at| *at > Instant::now())
    }

    /// Sends one message; how long until the next may be sent.
    async fn turn(&mut self) -> Duration {
        let events = self.queue.begin();
        if events.is_empty() {
            return Duration::ZERO;
        }
        self.state.working();
        let sent = self.sent.len();
        let outcome = match self.notifier() {
            Ok(notifier) => {
                let room =
                    notifier.pace().per_minute.saturating_sub(u32::try_from(sent).unwrap_or(u32::MAX) + 1);
                notifier.tell(&events, room).await
            }
            Err(trouble) => Err(trouble),
        };
        let (told, wait) = match outcome {
            Ok(told) => {
                self.sent.push_back(Instant::now());
                self.backoff.reset();
                self.state.succeeded(told.min(events.len()), told >= events.len());
                (told, Duration::ZERO)
            }
            Err(trouble) => {
                let (given_up, wait) = match trouble.kind {
                    TroubleKind::Unfit(lost) => (lost, Duration::ZERO),
                    TroubleKind::Later(asked) => (0, self.backoff.failed(asked)),
                    TroubleKind::Refused => {
                        // With secrets read anew: somebody may mend them.
                        self.notifier = None;
                        (0, self.backoff.refused())
                    }
                };
                // Not an error: it would be told to this very sink.
                self.state.failed(&trouble, clock::now().saturating_add(wait), false);
                (given_up, wait)
            }
        };
        self.queue.end(told);
        if told > 0 {
            self.done.notify_one();
        }
        wait
    }

    /// Tells what is left, if the far side is well and takes it in time; whether all was told.
    async fn last_words(&mut self, by: Instant) -> bool {
        if self.state.is_failing() {
            return !self.queue.has_news();
        }
        let words = async {
            if let Ok(notifier) = self.notifier() {
                notifier.hurry();
            }
            while self.queue.has_news() {
                if let Some(at) = self.notifier().ok().map(|n| n.pace()).and_then(|pace| self.free_at(pace)) {
                    sleep_until(at).await;
                }
                self.turn().await;
                if self.state.is_failing() {
                    return false;
                }
            }
            true
        };
        let all = timeout_at(by, words).await.unwrap_or(false);
        self.queue.end(0);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;
    use tokio::time::sleep;

    use super::super::event::Fault;
    use super::*;
    use crate::types::Timestamp;

    #[derive(Default)]
    struct Far {
        script: Vec<Result<usize, Trouble>>,
        /// How many events there were to tell, the room, and when.
        messages: Vec<(usize, u32, Duration)>,
    }

    struct Fake(Arc<Mutex<Far>>, Instant, Duration);

    impl Notifier for Fake {
        fn pace(&self) -> Pace {
            Pace { gap: SECOND, per_minute: 5 }
        }

        fn gather(&self) -> Duration {
            self.2
        }

        async fn tell(&mut self, events: &[Arc<Event>], room: u32) -> Result<usize, Trouble> {
            let mut far = self.0.lock().unwrap();
            far.messages.push((events.len(), room, self.1.elapsed()));
            if far.script.is_empty() {
                Ok(if room == 0 { events.len() } else { 1 })
            } else {
                far.script.remove(0)
            }
        }
    }

    struct Running {
        far: Arc<Mutex<Far>>,
        queue: Arc<Queue>,
        state: Arc<State>,
        ends: mpsc::Sender<End>,
        last: u64,
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn start(script: Vec<Result<usize, Trouble>>, gather: Duration) -> Running {
        let far = Arc::new(Mutex::new(Far { script, ..Far::default() }));
        let (queue, state) = (Arc::new(Queue::default()), Arc::new(State::new("fake")));
        let (ends, ended) = mpsc::channel(1);
        let (there, begun) = (Arc::clone(&far), Instant::now());
        let make = move || Ok(Fake(Arc::clone(&there), begun, gather));
        tokio::spawn(run(make, Arc::clone(&queue), Arc::clone(&state), Arc::default(), ended));
        Running { far, queue, state, ends, last: 0 }
    }

    impl Running {
        fn tell(&mut self, count: u64) {
            for _ in 0..count {
                self.last += 1;
                let fault = Fault { at: Timestamp::default(), message: self.last.to_string() };
                self.queue.push(self.last, &Arc::new(Event::Error(fault)));
            }
            self.queue.release(self.last);
        }

        fn messages(&self) -> Vec<(usize, u32, Duration)> {
            std::mem::take(&mut self.far.lock().unwrap().messages)
        }

        async fn end(&self) -> bool {
            let (done, over) = oneshot::channel();
            self.ends.send(End { by: Instant::now() + SECOND * 3, withdraw: false, done }).await.unwrap();
            over.await.unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_keep_their_distance_and_are_merged_where_the_minute_is_full() {
        let mut notifier = start(Vec::new(), Duration::ZERO);
        notifier.tell(20);
        sleep(SECOND * 50).await;
        let messages = notifier.messages();
        let rooms: Vec<_> = messages.iter().map(|m| (m.0, m.1)).collect();
        assert_eq!(
            rooms,
            [(20, 4), (19, 3), (18, 2), (17, 1), (16, 0)],
            "the last one takes all that is left in"
        );
        assert!(messages.windows(2).all(|two| two[1].2 - two[0].2 >= SECOND), "{messages:?}");
        notifier.tell(1);
        sleep(SECOND * 5).await;
        assert_eq!(notifier.messages(), [], "five within the minute");
        sleep(SECOND * 10).await;
        assert_eq!(notifier.messages().len(), 1);
        assert_eq!(notifier.queue.take_done().len(), 21);
        assert_eq!(notifier.state.value("f", "notifier", 0)["done"], 21);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_told_later_and_what_is_unfit_is_given_up() {
        let script =
            vec![Err(Trouble::after(SECOND * 40, "flood")), Err(Trouble::unfit(1, "too long")), Ok(1)];
        let mut notifier = start(script, Duration::ZERO);
        notifier.tell(2);
        sleep(SECOND * 39).await;
        assert_eq!(notifier.messages().len(), 1);
        assert!(!notifier.end_is_near());
        sleep(SECOND * 5).await;
        assert_eq!(notifier.messages().len(), 2);
        assert_eq!(notifier.queue.untold(), 0);
        let value = notifier.state.value("f", "notifier", 0);
        assert_eq!((&value["lost"], &value["done"], &value["state"]), (&1.into(), &1.into(), &"ok".into()));
    }

    impl Running {
        fn end_is_near(&self) -> bool {
            self.ends.is_closed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_gathered_and_the_last_words_do_not_wait() {
        let mut notifier = start(vec![Ok(3)], SECOND * 60);
        notifier.tell(1);
        sleep(SECOND * 30).await;
        notifier.tell(2);
        assert_eq!(notifier.messages(), []);
        sleep(SECOND * 31).await;
        assert_eq!(notifier.messages().len(), 1);
        notifier.tell(1);
        sleep(SECOND).await;
        assert!(notifier.end().await);
        assert_eq!((notifier.messages().len(), notifier.queue.untold()), (1, 0));

        let mut notifier = start(vec![Err(Trouble::later("down"))], Duration::ZERO);
        notifier.tell(1);
        sleep(SECOND / 10).await;
        assert!(!notifier.end().await, "a far side that is down is not waited for");
        assert_eq!(notifier.queue.untold(), 1, "it is told in the next life");
    }
}
