//! From lines to batches of offenses: what every thread that reads a source does with what it reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::batch::{Batch, FULL, Progress};
use super::jails::Ready;
use super::snapshot::{FileState, JailLines, Snapshot};
use crate::clock;
use crate::config;
use crate::filter::{Attribution, Matcher, Trust};
use crate::follow::{Event, FileId, FileInfo, Follower, From, Handler, Lines, Mark, Source, SourceId};
use crate::types::{JailId, Timestamp};

/// What to follow, and for whom.
pub(super) struct Plan {
    pub(super) jails: Vec<Ready>,
    pub(super) trust: Arc<Trust>,
}

/// Turns blocks of lines into batches of offenses.
pub(super) struct Reader {
    batches: mpsc::Sender<Batch>,
    batch: Batch,
    /// Nobody listens any more.
    pub(super) closed: bool,
    /// The time of day, as of this turn.
    pub(super) now: Timestamp,
    trust: Arc<Trust>,
    jails: Vec<Ready>,
    /// Which jail's which pattern each source is; a number is never given to another one.
    sources: Vec<(JailId, String)>,
    /// What each file is matched against.
    files: HashMap<FileId, Watched>,
    lines: HashMap<JailId, JailLines>,
    /// How far each file was handed over.
    marks: HashMap<FileId, Mark>,
    /// Files whose mark is another than the last batch says, or that are done with.
    moved: HashSet<FileId>,
}

/// A file's matcher remembers the lines before: one may be the second half of a line that a client broke in two.
struct Watched {
    matcher: Matcher,
    jails: Vec<JailId>,
    sources: Vec<SourceId>,
}

impl Reader {
    pub(super) fn new(batches: mpsc::Sender<Batch>) -> Self {
        Self {
            batches,
            batch: Batch::default(),
            closed: false,
            now: clock::now(),
            trust: Arc::new(Trust::new(Vec::new())),
            jails: Vec::new(),
            sources: Vec::new(),
            files: HashMap::new(),
            lines: HashMap::new(),
            marks: HashMap::new(),
            moved: HashSet::new(),
        }
    }

    /// Takes over a plan; what is to be followed for it.
    pub(super) fn plan(&mut self, plan: Plan) -> Vec<Source> {
        self.trust = plan.trust;
        self.jails = plan.jails;
        self.files.clear();
        self.lines.retain(|id, _| self.jails.iter().any(|ready| ready.id == *id));
        let mut sources = Vec::new();
        for ready in &self.jails {
            self.lines.entry(ready.id).or_default();
            for pattern in &ready.jail.logpath {
                let known = self.sources.iter().position(|(id, p)| *id == ready.id && p == pattern);
                let n = known.unwrap_or_else(|| {
                    self.sources.push((ready.id, pattern.clone()));
                    self.sources.len() - 1
                });
                let from = match ready.jail.from {
                    config::From::Recent => From::Recent(ready.jail.findtime),
                    config::From::Start => From::Start,
                    config::From::End => From::End,
                };
                let id = SourceId(u32::try_from(n).unwrap_or(u32::MAX));
                sources.push(Source { id, pattern: pattern.clone(), from });
            }
        }
        sources
    }

    fn watched(&mut self, file: &FileInfo) -> &mut Watched {
        // A file gets other sources when another pattern comes to match it.
        if self.files.get(&file.id).is_none_or(|watched| watched.sources != file.sources) {
            let jails = self.jails_of(&file.sources);
            let members = self.jails.iter().filter(|ready| jails.contains(&ready.id));
            let members = members.map(|r| (r.id, Arc::clone(&r.filter), Arc::clone(&self.trust))).collect();
            let watched = Watched { matcher: Matcher::new(members), jails, sources: file.sources.clone() };
            self.files.insert(file.id, watched);
        }
        self.files.entry(file.id).or_insert_with(|| Watched {
            matcher: Matcher::new(Vec::new()),
            jails: Vec::new(),
            sources: Vec::new(),
        })
    }

    fn jails_of(&self, sources: &[SourceId]) -> Vec<JailId> {
        let wanted = |ready: &&Ready| sources.iter().any(|source| self.jail_of(*source) == Some(ready.id));
        self.jails.iter().filter(wanted).map(|ready| ready.id).collect()
    }

    fn jail_of(&self, source: SourceId) -> Option<JailId> {
        self.sources.get(usize::try_from(source.0).ok()?).map(|(id, _)| *id)
    }

    /// Hands over what there is, with how far each file was read for it.
    pub(super) fn hand_over(&mut self) {
        let marks = &self.marks;
        let progress = self.moved.drain().map(|id| Progress::File { id, mark: marks.get(&id).cloned() });
        self.batch.progress.extend(progress);
        if !self.batch.is_empty() && self.batches.blocking_send(std::mem::take(&mut self.batch)).is_err() {
            self.closed = true;
        }
    }

    pub(super) fn snapshot(&self, follower: &Follower) -> Snapshot {
        let status = follower.status();
        let files = status
            .files
            .into_iter()
            .map(|status| FileState { jails: self.jails_of(&status.sources), status });
        let waiting = status
            .sources
            .into_iter()
            .filter_map(|source| Some((self.jail_of(source.id)?, source.waiting_for?)));
        Snapshot { files: files.collect(), waiting: waiting.collect(), lines: self.lines.clone() }
    }
}

impl Handler for Reader {
    fn block(&mut self, file: &FileInfo, mut lines: Lines<'_>) {
        let now = self.now;
        self.watched(file);
        let Some(mut watched) = self.files.remove(&file.id) else { return };
        let before = watched.matcher.counts();
        while let Some(line) = lines.next() {
            let mut full = false;
            watched.matcher.line(line, now, |hit| match hit.who {
                Attribution::Offender(offender) | Attribution::Behind { offender, .. } => {
                    self.batch.push(hit.jail, offender, hit.who.peer(), hit.at, hit.line);
                    full = self.batch.len() >= FULL;
                    if let Some(lines) = self.lines.get_mut(&hit.jail) {
                        lines.offenses += 1;
                    }
                }
                Attribution::Unattributable { peer } => {
                    if let Some(lines) = self.lines.get_mut(&hit.jail) {
                        lines.unattributable += 1;
                        lines.last_peer = peer.or(lines.last_peer);
                    }
                }
            });
            if full {
                // Cut in the middle of a block: what is behind this line belongs to the next batch.
                if let Some(mark) = self.marks.get_mut(&file.id) {
                    *mark = mark.at(lines.offset());
                    self.moved.insert(file.id);
                }
                self.hand_over();
            }
            if self.closed {
                return;
            }
        }
        let counts = watched.matcher.counts();
        for id in &watched.jails {
            let Some(lines) = self.lines.get_mut(id) else { continue };
            lines.lines += counts.lines - before.lines;
            lines.missed += counts.missed - before.missed;
            lines.ignored += counts.ignored - before.ignored;
            lines.rate.add(counts.lines - before.lines, now);
        }
        self.files.insert(file.id, watched);
    }

    fn stamp(&mut self, file: &FileInfo, line: &[u8]) -> Option<Timestamp> {
        let now = self.now;
        self.watched(file).matcher.stamp(line, now)
    }

    fn mark(&mut self, file: &FileInfo, mark: Option<&Mark>) {
        match mark {
            Some(mark) => self.marks.insert(file.id, mark.clone()),
            None => self.marks.remove(&file.id),
        };
        self.moved.insert(file.id);
    }

    fn before(&mut self, file: &FileInfo, line: &[u8]) {
        let now = self.now;
        self.watched(file).matcher.line(line, now, |_| {});
    }

    fn event(&mut self, event: Event<'_>) {
        match &event {
            Event::Closed { file } => {
                self.files.remove(&file.id);
                tracing::info!("{event}");
            }
            Event::Failed { .. }
            | Event::NotFollowed { .. }
            | Event::Lost { .. }
            | Event::Polling { .. }
            | Event::NoTimes { .. } => {
                tracing::warn!("{event}");
            }
            _ => tracing::info!("{event}"),
        }
    }
}
