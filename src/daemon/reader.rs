//! From lines to batches of offenses: what every thread that reads a source does with what it reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::batch::{Batch, Progress};
use super::containers::ContainerLog;
use super::jails::{Ready, SourceOptions};
use super::pulse::Pulse;
use super::snapshot::{FileState, JailLines, Snapshot};
use crate::clock;
use crate::config;
use crate::filter::{Hit, Matcher, Trust};
use crate::follow::{Event, FileId, FileInfo, Follower, From, Handler, Lines, Mark, Source, SourceId};
use crate::source::docker;
use crate::types::{JailId, Timestamp};

/// What to follow, and for whom.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) jails: Vec<Ready>,
    pub(super) trust: Arc<Trust>,
    pub(super) options: Arc<SourceOptions>,
}

/// Turns blocks of lines into batches of offenses.
pub(super) struct Reader {
    batches: mpsc::Sender<Batch>,
    batch: Batch,
    /// Beats while it reads.
    pub(super) pulse: Arc<Pulse>,
    /// Nobody listens any more.
    pub(super) closed: bool,
    /// The time of day, as of this turn.
    pub(super) now: Timestamp,
    trust: Arc<Trust>,
    jails: Vec<Ready>,
    /// What each source is; a number is never given to another one.
    sources: Vec<Known>,
    /// The logs of containers.
    containers: Vec<ContainerLog>,
    /// What puts each container's log together, also over another plan.
    decoders: HashMap<FileId, docker::Decoder>,
    /// The longest line, in bytes.
    longest: usize,
    /// What each file is matched against.
    files: HashMap<FileId, Watched>,
    lines: HashMap<JailId, JailLines>,
    /// How far each file was handed over.
    marks: HashMap<FileId, Mark>,
    /// Files whose mark is another than the last batch says, or that are done with.
    moved: HashSet<FileId>,
}

/// A source that was told to the follower.
struct Known {
    jail: JailId,
    pattern: String,
    /// The container whose log it is: its lines are wrapped in records.
    container: Option<String>,
}

/// A file's matcher remembers the lines before: one may be the second half of a line that a client broke in two.
struct Watched {
    matcher: Matcher,
    jails: Vec<JailId>,
    /// The same for jails of containers, to which the lines in the records matter.
    wrapped: Option<(Matcher, Vec<JailId>)>,
    sources: Vec<SourceId>,
}

impl Reader {
    pub(super) fn new(batches: mpsc::Sender<Batch>, longest: usize, pulse: Arc<Pulse>) -> Self {
        Self {
            batches,
            pulse,
            batch: Batch::default(),
            closed: false,
            now: clock::now(),
            trust: Arc::new(Trust::new(Vec::new())),
            jails: Vec::new(),
            sources: Vec::new(),
            containers: Vec::new(),
            decoders: HashMap::new(),
            longest,
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
        for ready in &self.jails {
            self.lines.entry(ready.id).or_default();
        }
        self.wanted()
    }

    /// Takes over the logs of containers; what is to be followed now.
    pub(super) fn follow_containers(&mut self, containers: Vec<ContainerLog>) -> Vec<Source> {
        self.containers = containers;
        self.wanted()
    }

    fn wanted(&mut self) -> Vec<Source> {
        let mut sources = Vec::new();
        for ready in &self.jails {
            for pattern in &ready.jail.logpath {
                let id = number(&mut self.sources, ready.id, pattern, None);
                sources.push(Source { id, pattern: pattern.clone(), from: begin(ready) });
            }
        }
        for log in &self.containers {
            let Some(ready) = self.jails.iter().find(|ready| ready.id == log.jail) else { continue };
            let id = number(&mut self.sources, log.jail, &log.path, Some(&log.name));
            // A container that was made while we looked is told of from its first word.
            let from = if log.new { From::Start } else { begin(ready) };
            sources.push(Source { id, pattern: log.path.clone(), from });
        }
        sources
    }

    fn watched(&mut self, file: &FileInfo) -> &mut Watched {
        // A file gets other sources when another pattern comes to match it.
        if self.files.get(&file.id).is_none_or(|watched| watched.sources != file.sources) {
            let (jails, wrapped) = (self.jails_of(&file.sources, false), self.jails_of(&file.sources, true));
            let matcher = |jails: &[JailId]| {
                let members = self.jails.iter().filter(|ready| jails.contains(&ready.id));
                Matcher::new(
                    members.map(|r| (r.id, Arc::clone(&r.filter), Arc::clone(&self.trust))).collect(),
                )
            };
            let watched = Watched {
                matcher: matcher(&jails),
                jails,
                wrapped: (!wrapped.is_empty()).then(|| (matcher(&wrapped), wrapped)),
                sources: file.sources.clone(),
            };
            self.files.insert(file.id, watched);
        }
        self.files.entry(file.id).or_insert_with(|| Watched {
            matcher: Matcher::new(Vec::new()),
            jails: Vec::new(),
            wrapped: None,
            sources: Vec::new(),
        })
    }

    /// The jails that want the file's lines as they are, or those that want what is wrapped in them.
    fn jails_of(&self, sources: &[SourceId], wrapped: bool) -> Vec<JailId> {
        let wants = |id| {
            sources
                .iter()
                .filter_map(|s| self.known(*s))
                .any(|k| k.jail == id && k.container.is_some() == wrapped)
        };
        self.jails.iter().map(|ready| ready.id).filter(|id| wants(*id)).collect()
    }

    fn known(&self, source: SourceId) -> Option<&Known> {
        self.sources.get(usize::try_from(source.0).ok()?)
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
        let files = status.files.into_iter().map(|status| {
            let mut jails = self.jails_of(&status.sources, false);
            jails.extend(self.jails_of(&status.sources, true));
            let container = status.sources.iter().find_map(|s| self.known(*s)?.container.clone());
            FileState { jails, status, container }
        });
        let waiting = status.sources.into_iter().filter_map(|source| {
            // Of containers it is told otherwise.
            let known = self.known(source.id).filter(|known| known.container.is_none())?;
            Some((known.jail, source.waiting_for?))
        });
        Snapshot {
            files: files.collect(),
            waiting: waiting.collect(),
            lines: self.lines.clone(),
            sources: Vec::new(),
        }
    }

    /// Judges one line of a file, or what is wrapped in it.
    fn judge(
        &mut self,
        watched: &mut Watched,
        decoder: Option<&mut docker::Decoder>,
        line: &[u8],
        begin: u64,
        end: u64,
    ) {
        let now = self.now;
        let (batch, lines) = (&mut self.batch, &mut self.lines);
        let mut take = |hit: Hit<'_>, otherwise| {
            batch.hit(&hit, otherwise);
            if let Some(lines) = lines.get_mut(&hit.jail) {
                lines.hit(hit.who);
            }
        };
        if !watched.jails.is_empty() {
            watched.matcher.line(line, now, |hit| take(hit, None));
        }
        if let (Some(decoder), Some((matcher, _))) = (decoder, &mut watched.wrapped) {
            // What lies before the line was too long: at most a line's end stands behind it.
            let length = line.len() as u64;
            decoder.advance(if end - begin > length + 2 { end - length } else { begin }, end);
            if let Some(line) = decoder.record(line) {
                matcher.line(line.text, now, |hit| take(hit, line.at));
            }
        }
    }
}

/// The number of a source, a new one for a new source.
fn number(sources: &mut Vec<Known>, jail: JailId, pattern: &str, container: Option<&String>) -> SourceId {
    let same = |known: &Known| {
        known.jail == jail && known.pattern == pattern && known.container.is_some() == container.is_some()
    };
    let n = sources.iter().position(same).unwrap_or_else(|| {
        sources.push(Known { jail, pattern: pattern.to_owned(), container: container.cloned() });
        sources.len() - 1
    });
    SourceId(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Where a file is begun that was there before.
fn begin(ready: &Ready) -> From {
    match ready.jail.from {
        config::From::Recent => From::Recent(ready.jail.findtime),
        config::From::Start => From::Start,
        config::From::End => From::End,
    }
}

impl Handler for Reader {
    fn block(&mut self, file: &FileInfo, mut lines: Lines<'_>) {
        let now = self.now;
        self.pulse.beat();
        self.watched(file);
        let Some(mut watched) = self.files.remove(&file.id) else { return };
        let counts = |watched: &Watched| {
            (watched.matcher.counts(), watched.wrapped.as_ref().map(|(matcher, _)| matcher.counts()))
        };
        let before = counts(&watched);
        let mut decoder = watched.wrapped.is_some().then(|| {
            let new = || docker::Decoder::new(self.longest);
            let mut decoder = self.decoders.remove(&file.id).unwrap_or_else(new);
            decoder.seek(&file.path, lines.offset());
            decoder
        });
        loop {
            let begin = lines.offset();
            let Some(line) = lines.next() else { break };
            self.judge(&mut watched, decoder.as_mut(), line, begin, lines.offset());
            if self.batch.is_full() {
                // Cut in the middle of a block: what is behind this line belongs to the next batch.
                if let Some(mark) = self.marks.get_mut(&file.id) {
                    let held = decoder.as_ref().and_then(docker::Decoder::resume);
                    *mark = mark.at(held.unwrap_or_else(|| lines.offset()));
                    self.moved.insert(file.id);
                }
                self.hand_over();
            }
            if self.closed {
                return;
            }
        }
        let after = counts(&watched);
        let wrapped = watched.wrapped.as_ref().map(|(_, jails)| jails);
        let of_records =
            before.1.zip(after.1).zip(wrapped).map(|((before, after), jails)| (before, after, jails));
        for (before, after, jails) in
            [Some((before.0, after.0, &watched.jails)), of_records].into_iter().flatten()
        {
            for id in jails {
                if let Some(lines) = self.lines.get_mut(id) {
                    lines.add(before, after, now);
                }
            }
        }
        if let Some(decoder) = decoder {
            self.decoders.insert(file.id, decoder);
        }
        self.files.insert(file.id, watched);
    }

    fn stamp(&mut self, file: &FileInfo, line: &[u8]) -> Option<Timestamp> {
        let now = self.now;
        let watched = self.watched(file);
        if watched.wrapped.is_some() { docker::time(line) } else { watched.matcher.stamp(line, now) }
    }

    fn mark(&mut self, file: &FileInfo, mark: Option<&Mark>) {
        match mark {
            Some(mark) => {
                let held = self.decoders.get(&file.id).and_then(docker::Decoder::resume);
                self.marks.insert(file.id, held.map_or_else(|| mark.clone(), |offset| mark.at(offset)))
            }
            None => self.marks.remove(&file.id),
        };
        self.moved.insert(file.id);
    }

    fn before(&mut self, file: &FileInfo, line: &[u8]) {
        let (now, longest) = (self.now, self.longest);
        let watched = self.watched(file);
        watched.matcher.line(line, now, |_| {});
        if let Some((matcher, _)) = &mut watched.wrapped
            && let Some(line) = docker::Decoder::new(longest).record(line)
        {
            matcher.line(line.text, now, |_| {});
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match &event {
            Event::Closed { file } => {
                self.files.remove(&file.id);
                self.decoders.remove(&file.id);
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
