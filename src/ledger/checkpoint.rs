//! What is written at once, and what is read at a start.

use std::collections::HashMap;

use crate::engine::{Changes, Open, Record};
use crate::follow::Mark;
use crate::sinks::outbox::{Changes as Outbox, Row};
use crate::types::{Ban, Timestamp};

/// Everything that changed between two places in the sources, to be written in one transaction.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// When it was taken.
    pub at: Timestamp,
    /// The names of the jails, by number.
    pub jails: Vec<String>,
    /// What the engine decided and counted.
    pub changes: Changes,
    /// Whether `files` and `cursors` are all there are; otherwise only those that changed.
    pub all_sources: bool,
    /// Files, by device and inode, and how far they were read; `None` for one that is done with. In this order.
    pub files: Vec<((u64, u64), Option<Mark>)>,
    /// Sources that say themselves where they are; `None` for one that is not read any more.
    pub cursors: Vec<(String, Option<String>)>,
    /// What notifiers have to tell.
    pub outbox: Outbox,
}

/// What an earlier agent left.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Bans of jails that are known.
    pub bans: Vec<Ban>,
    /// Open counts, those heard from last at the end.
    pub windows: Vec<Open>,
    /// What is remembered of repeaters.
    pub history: Vec<Record>,
    /// How far files were read.
    pub files: Vec<Mark>,
    /// Where other sources were.
    pub cursors: HashMap<String, String>,
    /// What notifiers have to tell yet, oldest first.
    pub outbox: Vec<Row>,
    /// Rows that were left out: their jails are not configured any more, or they make no sense.
    pub strangers: usize,
    /// A secret number, made when the file was: what must not be foreseen by an attacker, but be the same after a
    /// restart, is derived from it.
    pub seed: u64,
}
