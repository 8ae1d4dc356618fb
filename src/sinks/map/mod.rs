//! `kind: map`: a file that a web server reads, for servers that see the real client where the kernel cannot.
//!
//! The file always holds all bans, and is replaced as a whole. A server that has to be told is told by a program of its own, once
//! in `interval` at most; what it could not read is taken back before anybody reloads it. HAProxy's memory is changed through its
//! runtime socket, while the file is for its next start.

mod file;
mod format;
mod haproxy;
mod reload;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::file::{Place, Trial};
use self::format::Rendered;
use self::haproxy::Runtime;
use super::desired::Desired;
use super::mirror::{Mirror, Pass};
use super::state::State;
use super::trouble::Trouble;
use super::{Checked, Context, process};
use crate::clock;
use crate::config::sinks::Map;

/// A sink of this kind.
#[derive(Debug)]
pub struct MapSink {
    settings: Map,
    state: Arc<State>,
    runtime: Option<Runtime>,
    /// What the file holds and the server was told of; `None` when that is not known.
    shown: Option<BTreeSet<IpNet>>,
    /// When the file was last written or the server told.
    last: Option<Instant>,
    /// Nothing is waited for any more.
    last_words: bool,
    /// Whoever works at the file: work goes on where nobody waits for it any more.
    alone: Arc<Mutex<()>>,
    left_out: usize,
    reloads: u64,
}

impl MapSink {
    /// A sink with these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// Never: it has no secret.
    pub fn new(settings: &Map, _context: &Context, state: &Arc<State>) -> Result<Self, Trouble> {
        Ok(Self {
            settings: settings.clone(),
            state: Arc::clone(state),
            runtime: Runtime::new(settings),
            shown: None,
            last: None,
            last_words: false,
            alone: Arc::default(),
            left_out: 0,
            reloads: 0,
        })
    }

    /// Brings the file, and whoever reads it, in line.
    async fn file(&mut self, wanted: &BTreeSet<IpNet>, whole: bool) -> Result<Pass, Trouble> {
        if !whole && self.shown.as_ref() == Some(wanted) {
            return Ok(Pass::default());
        }
        let changed = match &self.shown {
            Some(shown) => shown.symmetric_difference(wanted).count(),
            None => wanted.len(),
        };
        let Rendered { text, left_out } = format::render(self.settings.format, &self.settings.value, wanted);
        self.note_left_out(left_out);
        let text: Arc<str> = text.into();
        let (place, is_there) = self.look(&text, whole).await?;
        if is_there && self.shown.is_some() {
            self.shown = Some(wanted.clone());
            return Ok(Pass { changed, ..Pass::default() });
        }
        if let Some(wait) = self.rest() {
            return Ok(Pass { changed: 0, left: changed.max(1), wait: Some(wait) });
        }
        self.last = Some(Instant::now());
        // An agent before this one may have ended after it wrote the file, and before the server was told.
        let trial = if is_there { None } else { self.put(&place, &text).await? };
        let said = self.have_it_read().await?;
        if let Some(trial) = trial {
            trial.keep();
        }
        self.shown = Some(wanted.clone());
        self.note_done(&place, wanted.len(), said);
        Ok(Pass { changed, ..Pass::default() })
    }

    /// Where the file is, and whether it holds this already.
    async fn look(&self, text: &Arc<str>, whole: bool) -> Result<(Place, bool), Trouble> {
        let (path, text) = (self.settings.path.clone(), Arc::clone(text));
        self.work(move || {
            let place = Place::find(&path)?;
            if whole {
                place.tidy()?;
            }
            let is_there = place.read()?.is_some_and(|now| now == text.as_bytes());
            Ok((place, is_there))
        })
        .await
    }

    /// Writes it; on trial where something may say that it cannot be read.
    async fn put(&self, place: &Place, text: &Arc<str>) -> Result<Option<Trial>, Trouble> {
        let (place, text, mode) = (place.clone(), Arc::clone(text), self.settings.mode);
        if self.settings.test.is_none() && self.settings.reload.is_none() {
            return self.work(move || place.write(text.as_bytes(), mode)).await.map(|()| None);
        }
        let alone = Arc::clone(&self.alone).lock_owned().await;
        let empty = format::render(self.settings.format, &self.settings.value, &BTreeSet::new()).text;
        let work = move || place.attempt(text.as_bytes(), empty.as_bytes(), mode, alone);
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(gone(&e))).map(Some)
    }

    /// Does something with the file where a slow disk delays nobody; one after the other, also where this is dropped meanwhile.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let alone = Arc::clone(&self.alone).lock_owned().await;
        let work = move || {
            let _alone = alone;
            work()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(gone(&e)))
    }

    /// Has the server test and read the file.
    async fn have_it_read(&mut self) -> Result<Option<String>, Trouble> {
        let outcome = match reload::test(&self.settings).await {
            Ok(()) => reload::reload(&self.settings).await,
            Err(text) => Err(text),
        };
        match outcome {
            Ok(said) => Ok(said),
            Err(text) => {
                self.state.tell("reload", json!({ "at": clock::now().to_string(), "result": text.clone() }));
                let path = self.settings.path.display();
                // Not sooner than a change would be shown.
                Err(Trouble::after(
                    self.settings.interval,
                    format!("{text}; {path} is the last good one again"),
                ))
            }
        }
    }

    /// How long the file is to be left alone.
    fn rest(&self) -> Option<Duration> {
        let since = self.last?.elapsed();
        self.settings.interval.checked_sub(since).filter(|rest| !rest.is_zero() && !self.last_words)
    }

    fn note_left_out(&mut self, left_out: usize) {
        self.state.tell("left_out", left_out.into());
        if left_out > 0 && self.left_out == 0 {
            tracing::warn!(
                "{} cannot hold networks, such as IPv6 prefixes: {left_out} bans are left out; nginx-geo, apache-require, haproxy-map and haproxy-acl hold them",
                self.settings.path.display()
            );
        }
        self.left_out = left_out;
    }

    fn note_done(&mut self, place: &Place, entries: usize, said: Option<String>) {
        let path = place.path().display();
        let now = clock::now().to_string();
        self.state.tell("file", json!({ "path": path.to_string(), "entries": entries, "at": now }));
        let Some(said) = said else {
            tracing::debug!("{path} holds {entries} bans");
            return;
        };
        self.reloads += 1;
        self.state.tell("reload", json!({ "at": now, "result": said }));
        self.state.tell("reloads", self.reloads.into());
        if self.reloads == 1 {
            tracing::info!("{path} holds {entries} bans, and the server has been told: {said}");
        } else {
            tracing::debug!("{path} holds {entries} bans, and the server has been told: {said}");
        }
    }
}

fn gone(e: &tokio::task::JoinError) -> Trouble {
    Trouble::later(format!("failed to work at the file: {e}"))
}

impl Mirror for MapSink {
    async fn pass(&mut self, desired: &Desired, whole: bool) -> Result<Pass, Trouble> {
        let wanted: BTreeSet<IpNet> = desired.look(|wants| wants.keys().map(IpNet::trunc).collect());
        // Where the file cannot be written the bans hold all the same, and the other way round.
        let file = self.file(&wanted, whole).await;
        if file.is_err() {
            self.last = Some(Instant::now());
        }
        let Some(runtime) = &mut self.runtime else { return file };
        let memory = runtime.pass(&wanted, whole).await;
        let (file, memory) = (file?, memory?);
        Ok(Pass {
            changed: memory.changed,
            left: file.left.max(memory.left),
            wait: file.wait.filter(|_| memory.left == 0),
        })
    }

    fn last_words(&mut self) {
        self.last_words = true;
    }
}

/// Tries the settings, changing nothing.
///
/// # Errors
/// Never: what is wrong is part of the list.
pub async fn check(settings: &Map, _context: &Context) -> Result<Vec<Checked>, Trouble> {
    let mut found = vec![check_file(settings)];
    let mut programs = Vec::new();
    for words in [&settings.test, &settings.reload].into_iter().flatten() {
        let program = words.first().map_or("", String::as_str);
        if let Err(problem) = process::examine(program) {
            found.push(Checked::bad(problem));
        } else {
            programs.push(program);
        }
    }
    if let Some(words) =
        settings.test.as_ref().filter(|words| programs.iter().any(|p| words.first().is_some_and(|w| w == p)))
    {
        // It changes nothing.
        found.push(match reload::run("the test", words, settings.timeout).await {
            Ok(said) => Checked::good(format!("the test `{}` says: {said}", words.join(" "))),
            Err(text) => Checked::bad(text),
        });
    }
    if let Some(runtime) = Runtime::new(settings) {
        found.push(match runtime.check().await {
            Ok(text) => Checked::good(text),
            Err(trouble) => Checked::bad(trouble.message),
        });
    }
    Ok(found)
}

fn check_file(settings: &Map) -> Checked {
    let place = match Place::find(&settings.path) {
        Ok(place) => place,
        Err(trouble) => return Checked::bad(trouble.message),
    };
    match place.examine() {
        Ok(text) => Checked::good(text),
        Err(text) => Checked::bad(text),
    }
}
