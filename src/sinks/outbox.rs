//! What notifiers have to tell, as the ledger keeps it.

use std::sync::Arc;

use super::event::Event;

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Never used twice.
    pub id: u64,
    /// The name of the sink that is to tell it.
    pub sink: Arc<str>,
    /// What is to be told.
    pub event: Arc<Event>,
}

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// `put` is all there is; otherwise what is new or changed.
    pub all: bool,
    /// Rows, in the place of those with the same number.
    pub put: Vec<Row>,
    /// Rows that are not needed any more.
    pub gone: Vec<u64>,
}

/// Gathers changes between two checkpoints.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The last number that was given.
    last: u64,
    changes: Changes,
    /// The last number in the checkpoint that is being written.
    writing: u64,
}

impl Outbox {
    pub(super) fn after(left: &[Row]) -> Self {
        let last = left.iter().map(|row| row.id).max().unwrap_or(0);
        Self { last, writing: last, ..Self::default() }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn put(&mut self, row: Row) {
        // A merged event changes with each that is merged into it.
        match self.changes.put.iter_mut().rev().take(16).find(|known| known.id == row.id) {
            Some(known) => *known = row,
            None => self.changes.put.push(row),
        }
    }

    pub(super) fn gone(&mut self, id: u64) {
        self.changes.gone.push(id);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.changes.put.is_empty() && self.changes.gone.is_empty()
    }

    pub(super) fn changes(&mut self) -> Changes {
        self.writing = self.last;
        std::mem::take(&mut self.changes)
    }

    pub(super) fn all(&mut self, rows: Vec<Row>) -> Changes {
        self.writing = self.last;
        self.changes = Changes::default();
        Changes { all: true, put: rows, gone: Vec::new() }
    }

    /// What was being written may be told: its last number.
    pub(super) fn release(&mut self) -> u64 {
        self.writing
    }
}
