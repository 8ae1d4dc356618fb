//! The thread that follows systemd's journal.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;

use super::feed::Feed;
use super::thread::{Inside, Orders, State, Thread};
use crate::clock;
use crate::config::From;
use crate::daemon::batch::Batch;
use crate::source::journal::{Child, Entry, Heard, Joined, Joiner, Matches, Start, missing_journal, roots};
use crate::types::Timestamp;

/// A child that has ended is started again so soon, then at twice the distance each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// One that ran for so long is started again at once.
const STABLE: Duration = Duration::from_secs(30);
/// One that ran for so long has found nothing wrong with what it was asked.
const SURE: Duration = Duration::from_secs(2);
/// It is looked so often whether the journal is where it was.
const LOOK: Duration = Duration::from_secs(2);
/// The state is told at most so often while entries keep coming.
const TELL: Duration = Duration::from_millis(200);

/// Starts it. It begins behind `cursor`, or where the jails want it.
pub(super) fn start(
    matches: Matches,
    cursor: Option<String>,
    orders: Orders,
    batches: mpsc::Sender<Batch>,
) -> std::io::Result<Thread> {
    let begin = begin(&orders, clock::now());
    let journal = Journal {
        source: matches.source(),
        matches,
        begin,
        cursor,
        gone: None,
        feed: Feed::new(batches),
        joiner: Joiner::new(orders.options.longest),
        orders: None,
        child: None,
        retry: (Instant::now(), FIRST_RETRY),
        roots: Vec::new(),
        looked: Instant::now(),
        told: Instant::now(),
        news: false,
        counts: Counts::default(),
        last: None,
        problem: None,
    };
    Thread::start(orders, |inside| journal.run(&inside))
}

/// The one of the jails' beginnings that reads most: none may miss an entry.
fn begin(orders: &Orders, now: Timestamp) -> Start {
    let mut since = now;
    for ready in &orders.members {
        match ready.jail.from {
            From::Start => return Start::Oldest,
            From::Recent => since = since.min(now.saturating_sub(ready.jail.findtime)),
            From::End => {}
        }
    }
    Start::Since(since.as_millis().saturating_mul(1000))
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    entries: u64,
    malformed: u64,
    too_long: u64,
    restarts: u64,
}

struct Journal {
    matches: Matches,
    source: String,
    /// Where to begin when no entry was ever read.
    begin: Start,
    /// The last entry that was read with everything before it.
    cursor: Option<String>,
    /// The entry that the child was told to begin at, until it has come.
    gone: Option<String>,
    feed: Feed,
    joiner: Joiner,
    orders: Option<Orders>,
    child: Option<(Child, Instant)>,
    retry: (Instant, Duration),
    roots: Vec<(u64, u64)>,
    looked: Instant,
    told: Instant,
    /// There is something to tell.
    news: bool,
    counts: Counts,
    /// When the last entry was written.
    last: Option<Timestamp>,
    problem: Option<String>,
}

impl Journal {
    fn run(mut self, inside: &Inside) {
        while !inside.is_over() && !self.feed.closed {
            if let Some(orders) = inside.orders() {
                self.feed.take(&orders);
                if self.orders.as_ref().is_some_and(|old| old.options.journal != orders.options.journal) {
                    self.child = None;
                }
                self.orders = Some(orders);
                self.tell(inside);
            }
            if self.looked.elapsed() >= LOOK {
                self.look();
            }
            if self.child.is_none() && Instant::now() >= self.retry.0 {
                self.launch();
            }
            if let Err(e) = self.turn(inside) {
                self.child = None;
                self.fail(format!("failed to read from journalctl: {e}"));
            }
            self.feed.hand_over();
            if self.told.elapsed() >= TELL {
                self.tell(inside);
            }
        }
        drop(self.child.take());
        self.feed.hand_over_all();
        self.tell(inside);
    }

    /// journalctl looks once for where the journal is; it may come to be somewhere else (journald begins to keep it on disk).
    fn look(&mut self) {
        self.looked = Instant::now();
        if self.child.is_some() && self.roots != self.current_roots() {
            tracing::info!("the journal has come to be somewhere else: following it there");
            self.child = None;
            self.retry.0 = Instant::now();
        }
    }

    fn current_roots(&self) -> Vec<(u64, u64)> {
        roots(self.orders.as_ref().and_then(|orders| orders.options.journal.as_deref()))
    }

    fn launch(&mut self) {
        self.roots = self.current_roots();
        let Some(orders) = &self.orders else { return };
        let start = self.cursor.clone().map_or_else(|| self.begin.clone(), Start::At);
        self.gone.clone_from(&self.cursor);
        self.joiner = Joiner::new(orders.options.longest);
        let directory = orders.options.journal.as_deref();
        // A byte of a message may take four of JSON, as a number in an array.
        let longest = orders.options.longest.saturating_mul(4) + (64 << 10);
        let started = missing_journal(directory)
            .and_then(|()| Child::follow(&self.matches, &start, directory, longest));
        match started {
            Ok(child) => self.child = Some((child, Instant::now())),
            Err(e) => self.fail(e.to_string()),
        }
    }

    /// It goes well.
    fn well(&mut self) {
        if self.problem.take().is_some() {
            tracing::info!("{} is followed again", self.source);
        }
    }

    /// Notes a failure, says it if it is news, and waits.
    fn fail(&mut self, problem: String) {
        let wait = self.retry.1;
        self.retry = (Instant::now() + wait, (wait * 2).min(LAST_RETRY));
        if self.problem.as_ref() != Some(&problem) {
            tracing::error!("{} cannot be followed: {problem}; trying again", self.source);
            self.problem = Some(problem);
        }
    }

    fn turn(&mut self, inside: &Inside) -> std::io::Result<()> {
        let Some((mut child, since)) = self.child.take() else {
            let wait = self.retry.0.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
            return inside.wait([], wait).map(drop);
        };
        let [entries, complaints] = inside.wait(child.outputs(), if self.news { TELL } else { LOOK / 2 })?;
        if since.elapsed() >= STABLE {
            self.retry.1 = FIRST_RETRY;
        }
        if since.elapsed() >= SURE {
            self.well();
        }
        let mut ended = complaints && child.hear_complaint()? == Heard::End && !entries;
        if entries {
            ended = child.hear()? == Heard::End;
            while let Some(line) = child.line() {
                self.entry(line);
                if self.feed.is_full() {
                    self.feed.hand_over();
                    if self.feed.closed || inside.is_over() {
                        break;
                    }
                }
            }
        }
        self.counts.too_long += std::mem::take(&mut child.skipped);
        if ended {
            self.end(child);
        } else {
            self.child = Some((child, since));
        }
        Ok(())
    }

    /// The child has ended: it was killed, or it will not have what it was asked.
    fn end(&mut self, child: Child) {
        let why = child.end();
        self.counts.restarts += 1;
        // What it says of a cursor it cannot read (systemd's journalctl.c). One that is only gone is no error.
        if why.contains("cursor") && self.gone.take().is_some() {
            tracing::warn!(
                "{}: {why}; beginning at the entries that are recent, some may count twice",
                self.source
            );
            self.cursor = None;
        }
        self.fail(format!("journalctl has ended: {why}"));
    }

    fn entry(&mut self, line: &[u8]) {
        let entry = match Entry::parse(line) {
            Ok(entry) => entry,
            Err(e) => {
                self.counts.malformed += 1;
                if self.counts.malformed == 1 {
                    tracing::warn!(
                        "{}: {e}; leaving it out (told once, `stockade status` counts them)",
                        self.source
                    );
                }
                return;
            }
        };
        self.well();
        if let Some(wanted) = self.gone.take() {
            // The one it was told to begin at was read before.
            if wanted == *entry.cursor {
                return;
            }
            tracing::warn!(
                "{}: the journal does not hold the entry any more that was read last (it was rotated away): going on at the \
                 next it holds, of {}",
                self.source,
                entry.time()
            );
        }
        self.counts.entries += 1;
        self.news = true;
        self.last = Some(entry.time());
        match self.joiner.take(&entry) {
            Joined::Whole(message) => {
                self.feed.line(entry.time(), |shape, line| entry.render(&message, shape, line));
            }
            Joined::Piece => {}
            Joined::Unfit => self.counts.too_long += 1,
        }
        if self.joiner.is_between_lines() {
            self.feed.read_to(&self.source, &entry.cursor);
            self.cursor = Some(entry.cursor.into_owned());
        }
    }

    fn tell(&mut self, inside: &Inside) {
        (self.told, self.news) = (Instant::now(), false);
        let Counts { entries, malformed, too_long, restarts } = self.counts;
        let running = self.child.is_some();
        inside.tell(State {
            jails: self.feed.jails(),
            lines: self.feed.lines.clone(),
            told: json!({
                "match": self.matches.to_string(), "entries": entries, "malformed": malformed, "skipped": too_long,
                "last_entry": self.last.map(|at| at.to_string()), "restarts": restarts, "running": running,
                "problem": self.problem,
            }),
            cursor: self.cursor.clone().map(|cursor| (self.source.clone(), cursor)),
        });
    }
}
