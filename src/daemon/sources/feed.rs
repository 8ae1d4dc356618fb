//! From lines to batches, for sources besides files.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::thread::Orders;
use crate::clock;
use crate::daemon::batch::{Batch, Progress};
use crate::daemon::snapshot::JailLines;
use crate::filter::Matcher;
use crate::source::Shape;
use crate::types::{JailId, Timestamp};

/// How far a source was read is told at most so often while there are no offenses.
const PACE: Duration = Duration::from_secs(1);

/// What a source's lines go into.
pub(super) struct Feed {
    batches: mpsc::Sender<Batch>,
    batch: Batch,
    /// Nobody listens any more.
    pub(super) closed: bool,
    seats: Vec<Seat>,
    line: Vec<u8>,
    pub(super) lines: HashMap<JailId, JailLines>,
    /// The source's name and how far it was read, unless that was told.
    cursor: Option<(String, String)>,
    told: Instant,
}

/// The jails whose filters are given the same.
struct Seat {
    shape: Shape,
    matcher: Matcher,
    jails: Vec<JailId>,
}

impl Feed {
    pub(super) fn new(batches: mpsc::Sender<Batch>) -> Self {
        Self {
            batches,
            batch: Batch::default(),
            closed: false,
            seats: Vec::new(),
            line: Vec::new(),
            lines: HashMap::new(),
            cursor: None,
            told: Instant::now(),
        }
    }

    /// Feeds others from now on.
    pub(super) fn take(&mut self, orders: &Orders) {
        self.seats.clear();
        for shape in [Shape::Syslog, Shape::Message] {
            let members = orders.members.iter().filter(|ready| ready.shape == shape);
            let members: Vec<_> =
                members.map(|r| (r.id, Arc::clone(&r.filter), Arc::clone(&orders.trust))).collect();
            let jails: Vec<JailId> = members.iter().map(|(id, ..)| *id).collect();
            if !jails.is_empty() {
                self.seats.push(Seat { shape, matcher: Matcher::new(members), jails });
            }
        }
        self.lines.retain(|id, _| orders.members.iter().any(|ready| ready.id == *id));
        for ready in &orders.members {
            self.lines.entry(ready.id).or_default();
        }
    }

    /// The jails that are fed.
    pub(super) fn jails(&self) -> Vec<JailId> {
        self.seats.iter().flat_map(|seat| seat.jails.iter().copied()).collect()
    }

    /// Judges one line, which `render` writes in the shape a filter wants. It happened at `at` unless it says otherwise itself.
    pub(super) fn line(&mut self, at: Timestamp, render: impl Fn(Shape, &mut Vec<u8>)) {
        let now = clock::now();
        let (batch, lines) = (&mut self.batch, &mut self.lines);
        for seat in &mut self.seats {
            render(seat.shape, &mut self.line);
            let before = seat.matcher.counts();
            seat.matcher.line(&self.line, now, |hit| {
                batch.hit(&hit, Some(at));
                if let Some(lines) = lines.get_mut(&hit.jail) {
                    lines.hit(hit.who);
                }
            });
            let after = seat.matcher.counts();
            for id in &seat.jails {
                if let Some(lines) = lines.get_mut(id) {
                    lines.add(before, after, now);
                }
            }
        }
    }

    /// The source was read up to there.
    pub(super) fn read_to(&mut self, source: &str, cursor: &str) {
        match &mut self.cursor {
            Some((_, known)) => cursor.clone_into(known),
            None => self.cursor = Some((source.to_owned(), cursor.to_owned())),
        }
    }

    /// Whether to hand over before another line is judged.
    pub(super) fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    /// Hands over offenses; how far the source was read, too, with them or when it is time.
    pub(super) fn hand_over(&mut self) {
        let due = !self.batch.is_empty() || self.told.elapsed() >= PACE;
        if !due || self.closed {
            return;
        }
        self.batch
            .progress
            .extend(self.cursor.take().map(|(source, cursor)| Progress::Cursor { source, cursor }));
        if self.batch.is_empty() {
            return;
        }
        self.told = Instant::now();
        if self.batches.blocking_send(std::mem::take(&mut self.batch)).is_err() {
            self.closed = true;
        }
    }

    /// The same, whether it is time or not.
    pub(super) fn hand_over_all(&mut self) {
        self.told = self.told.checked_sub(PACE).unwrap_or(self.told);
        self.hand_over();
    }
}
