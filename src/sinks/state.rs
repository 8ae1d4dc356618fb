//! How a sink fares: what `status` shows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use super::trouble::{Trouble, TroubleKind};
use crate::clock;
use crate::types::Timestamp;

/// How a sink fares, shared by its task and the agent.
#[derive(Debug)]
pub struct State {
    name: String,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    word: Word,
    last_success: Option<Timestamp>,
    last_error: Option<(Timestamp, String)>,
    /// The trouble that was logged and has not ended.
    logged: Option<String>,
    retry_at: Option<Timestamp>,
    done: u64,
    lost: u64,
    more: Map<String, Value>,
}

/// What it does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// It did not try anything yet.
    #[default]
    Starting,
    /// All is told, or in line.
    Ok,
    /// It has something to do.
    Working,
    /// It failed and tries again.
    Failing,
    /// Credentials or settings are wrong.
    Refused,
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::Working => "working",
            Self::Failing => "failing",
            Self::Refused => "refused",
        }
    }
}

impl State {
    /// Of the sink `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), inner: Mutex::default() }
    }

    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It has begun to do something.
    pub fn working(&self) {
        let mut inner = self.lock();
        if !matches!(inner.word, Word::Failing | Word::Refused) {
            inner.word = Word::Working;
        }
    }

    /// There is nothing to do.
    pub fn idle(&self) {
        let mut inner = self.lock();
        if inner.word == Word::Starting || inner.word == Word::Working {
            inner.word = Word::Ok;
        }
    }

    /// It has done so much; whether nothing is left.
    pub fn succeeded(&self, done: usize, idle: bool) {
        let mut inner = self.lock();
        inner.word = if idle { Word::Ok } else { Word::Working };
        inner.last_success = Some(clock::now());
        inner.retry_at = None;
        inner.done += done as u64;
        if inner.logged.take().is_some() {
            tracing::info!(sink = self.name, "it works again");
        }
    }

    /// It failed, and will try again then. `loud`: as an error, so that somebody is told; the same trouble only once.
    pub fn failed(&self, trouble: &Trouble, retry_at: Timestamp, loud: bool) {
        let mut inner = self.lock();
        inner.word = if trouble.kind == TroubleKind::Refused { Word::Refused } else { Word::Failing };
        inner.last_error = Some((clock::now(), trouble.message.clone()));
        inner.retry_at = Some(retry_at);
        if let TroubleKind::Unfit(lost) = trouble.kind {
            inner.lost += lost as u64;
        }
        if inner.logged.as_ref() != Some(&trouble.message) {
            inner.logged = Some(trouble.message.clone());
            if loud {
                tracing::error!(sink = self.name, "{}; trying again", trouble.message);
            } else {
                tracing::warn!(sink = self.name, "{}; trying again", trouble.message);
            }
        }
    }

    /// Something of the sink's own that `status` shows under `key`.
    pub fn tell(&self, key: &str, value: Value) {
        self.lock().more.insert(key.to_owned(), value);
    }

    /// What it does.
    #[must_use]
    pub fn word(&self) -> Word {
        self.lock().word
    }

    /// Whether it failed the last time.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        matches!(self.word(), Word::Failing | Word::Refused)
    }

    /// For `status`.
    pub fn value(&self, kind: &str, role: &str, queue: u64) -> Value {
        let inner = self.lock();
        let mut value = json!({
            "sink": self.name,
            "kind": kind,
            "role": role,
            "state": inner.word.text(),
            "queue": queue,
            "done": inner.done,
            "lost": inner.lost,
            "last_success": inner.last_success.map(|at| at.to_string()),
            "last_error": inner.last_error.as_ref().map(|(at, message)| json!({ "at": at.to_string(), "message": message })),
            "retry_at": inner.retry_at.map(|at| at.to_string()),
        });
        if let Some(map) = value.as_object_mut() {
            map.extend(inner.more.clone());
        }
        value
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
