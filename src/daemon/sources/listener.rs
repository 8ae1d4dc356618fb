//! The thread that takes messages of syslog.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;

use super::feed::Feed;
use super::thread::{Inside, Orders, State, Thread};
use crate::clock;
use crate::daemon::batch::Batch;
use crate::source::syslog::{Address, Message, Received, Socket};
use crate::types::Timestamp;

/// A place that is taken is asked for again so soon, then at twice the distance each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// So many messages are taken before anything else is looked at.
const TURN: usize = 1024;
/// The state is told at most so often while messages keep coming.
const TELL: Duration = Duration::from_millis(200);
/// Messages that are lost are told at most so often.
const TELL_LOSS: Duration = Duration::from_secs(60);

/// Starts it.
pub(super) fn start(
    address: Address,
    orders: Orders,
    batches: mpsc::Sender<Batch>,
) -> std::io::Result<Thread> {
    let listener = Listener {
        address,
        host: nix::unistd::gethostname().unwrap_or_default().into_encoded_bytes(),
        feed: Feed::new(batches),
        orders: None,
        socket: None,
        buffer: Vec::new(),
        retry: (Instant::now(), FIRST_RETRY),
        counts: Counts::default(),
        told: Instant::now(),
        news: false,
        told_loss: None,
        last: None,
        problem: None,
    };
    Thread::start(orders, |inside| listener.run(&inside))
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    received: u64,
    /// Sockets before this one dropped so many.
    dropped_before: u64,
    dropped: u64,
    refused: u64,
    malformed: u64,
    too_long: u64,
}

struct Listener {
    address: Address,
    /// For messages that name no host.
    host: Vec<u8>,
    feed: Feed,
    orders: Option<Orders>,
    socket: Option<Socket>,
    buffer: Vec<u8>,
    retry: (Instant, Duration),
    counts: Counts,
    told: Instant,
    /// There is something to tell.
    news: bool,
    told_loss: Option<(Instant, u64)>,
    /// When the last message came.
    last: Option<Timestamp>,
    problem: Option<String>,
}

impl Listener {
    fn run(mut self, inside: &Inside) {
        while !inside.is_over() && !self.feed.closed {
            if let Some(orders) = inside.orders() {
                self.take(orders);
                self.tell(inside);
            }
            if self.socket.as_ref().is_some_and(|socket| !socket.is_reachable()) {
                self.lose("its file was removed: making it anew".to_owned());
            }
            if self.socket.is_none() && Instant::now() >= self.retry.0 {
                self.bind();
            }
            if let Err(e) = self.turn(inside) {
                self.lose(format!("failed to receive: {e}"));
            }
            self.feed.hand_over();
            if self.told.elapsed() >= TELL {
                self.tell(inside);
                self.tell_loss();
            }
        }
        self.feed.hand_over_all();
        self.tell(inside);
    }

    /// Reads for others from now on; the socket stays, and with it what waits in it.
    fn take(&mut self, orders: Orders) {
        self.feed.take(&orders);
        // One byte more than is allowed tells a message that is too long.
        self.buffer.resize(orders.options.longest + 1, 0);
        let mode = self.orders.as_ref().map(|old| old.options.mode);
        if let Some(socket) = &self.socket
            && mode != Some(orders.options.mode)
            && let Err(e) = socket.set_mode(orders.options.mode)
        {
            tracing::warn!("failed to set the mode of {}: {e}", self.address);
        }
        self.orders = Some(orders);
    }

    fn bind(&mut self) {
        let Some(orders) = &self.orders else { return };
        match Socket::bind(&self.address, orders.options.mode) {
            Ok(socket) => {
                tracing::info!("listening at {}", self.address);
                self.socket = Some(socket);
                self.retry.1 = FIRST_RETRY;
                self.problem = None;
            }
            Err(e) => {
                let (problem, wait) = (e.to_string(), self.retry.1);
                self.retry = (Instant::now() + wait, (wait * 2).min(LAST_RETRY));
                if self.problem.as_ref() != Some(&problem) {
                    tracing::error!("{problem}; trying again");
                    self.problem = Some(problem);
                }
            }
        }
    }

    fn lose(&mut self, why: String) {
        tracing::warn!("{}: {why}", self.address);
        if let Some(socket) = self.socket.take() {
            self.counts.dropped_before += socket.dropped();
        }
        self.retry.0 = Instant::now();
        self.problem = Some(why);
    }

    fn turn(&mut self, inside: &Inside) -> std::io::Result<()> {
        let Some(mut socket) = self.socket.take() else {
            let wait = self.retry.0.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
            return inside.wait([], wait).map(drop);
        };
        let waited = inside.wait([socket.as_fd()], if self.news { TELL } else { Duration::from_secs(1) });
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = waited.and_then(|[readable]| {
            for _ in 0..if readable { TURN } else { 0 } {
                let Some(received) = socket.receive(&mut buffer)? else { break };
                self.message(received, &buffer);
                if self.feed.is_full() {
                    self.feed.hand_over();
                    if self.feed.closed || inside.is_over() {
                        break;
                    }
                }
            }
            Ok(())
        });
        self.buffer = buffer;
        self.counts.dropped = self.counts.dropped_before + socket.dropped();
        self.socket = Some(socket);
        result
    }

    fn message(&mut self, received: Received, buffer: &[u8]) {
        let Some(orders) = &self.orders else { return };
        self.counts.received += 1;
        self.news = true;
        if received.from.is_some_and(|from| !orders.options.senders.iter().any(|net| net.contains(&from))) {
            self.counts.refused += 1;
            return;
        }
        if received.cut || received.length > orders.options.longest {
            self.counts.too_long += 1;
            return;
        }
        let now = clock::now();
        self.last = Some(now);
        let message = Message::parse(&buffer[..received.length]);
        self.counts.malformed += u64::from(!message.well_formed);
        let at = message.time().unwrap_or(now);
        let host = &self.host;
        self.feed.line(at, |shape, line| message.render(shape, host, now, line));
    }

    /// Says that messages were lost.
    fn tell_loss(&mut self) {
        let lost = self.counts.dropped;
        let due = self.told_loss.is_none_or(|(at, known)| at.elapsed() >= TELL_LOSS && lost > known);
        if lost > 0 && due {
            self.told_loss = Some((Instant::now(), lost));
            tracing::warn!(
                "{}: {lost} messages were lost so far, because they came faster than they are read",
                self.address
            );
        }
    }

    fn tell(&mut self, inside: &Inside) {
        (self.told, self.news) = (Instant::now(), false);
        let Counts { received, dropped, refused, malformed, too_long, .. } = self.counts;
        inside.tell(State {
            jails: self.feed.jails(),
            lines: self.feed.lines.clone(),
            told: json!({
                "address": self.address.to_string(), "listening": self.socket.is_some(), "received": received,
                "dropped": dropped, "refused": refused, "malformed": malformed, "skipped": too_long,
                "last_message": self.last.map(|at| at.to_string()), "problem": self.problem,
            }),
            cursor: None,
        });
    }
}
