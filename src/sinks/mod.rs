//! Where decisions go besides the kernel, after the kernel has them.
//!
//! [Mirrors](mirror::Mirror) show the bans as they are and are brought in line by difference; [notifiers](notifier::Notifier)
//! tell once. Each sink has a task of its own, all of them on one thread of their own: whatever a far side does, the agent
//! adds to a map or a queue and goes on.

pub mod backoff;
pub mod cloudflare;
pub mod desired;
mod digest;
pub mod event;
pub mod evidence;
pub mod exec;
pub mod http;
pub mod mail;
pub mod map;
pub mod mirror;
pub mod notifier;
pub mod outbox;
pub mod owner;
mod process;
pub mod queue;
pub mod secret;
pub mod state;
pub mod telegram;
pub mod template;
mod thread;
pub mod trouble;
pub mod webhook;
pub mod words;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use self::desired::{Desired, Want};
use self::event::{Event, EventKind};
use self::mirror::{End, Mirror};
use self::notifier::Notifier;
use self::outbox::{Outbox, Row};
use self::queue::Queue;
use self::state::State;
use self::thread::Thread;
use self::trouble::Trouble;
use crate::config::sinks::Kind;
use crate::config::{Config, Sink};
use crate::control::Call;
use crate::daemon::jails::Jails;
use crate::types::JailId;

/// A sink that is no longer configured has so long to take back what it shows.
const FAREWELL: Duration = Duration::from_secs(120);

/// Notifiers have so long for their last words where mirrors are waited for longer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What sinks need to know of the agent.
#[derive(Clone, Default)]
pub struct Context {
    /// The host's name, for people who have several.
    pub host: String,
    /// `paths.state`, for what is kept besides the ledger.
    pub state: PathBuf,
    /// Where orders go, as from the control socket; `None` outside of an agent.
    pub calls: Option<mpsc::Sender<Call>>,
    /// The jails.
    pub book: Book,
}

impl Context {
    /// What is known of this host and this configuration; no jails yet.
    #[must_use]
    pub fn of(config: &Config, calls: Option<mpsc::Sender<Call>>) -> Self {
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        Self {
            host: host.unwrap_or_else(|_| "localhost".to_owned()),
            state: config.paths.state.clone(),
            calls,
            book: Book::default(),
        }
    }
}

/// The jails as they are configured now, for sinks that read logs.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Option<Jails>>>);

impl Book {
    /// The jails; `None` outside of an agent.
    #[must_use]
    pub fn jails(&self) -> Option<Jails> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other jails.
    pub fn set(&self, jails: Jails) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(jails);
    }
}

/// What trying a sink without changing anything has shown: for `stockade check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether it is as it should be.
    pub good: bool,
    /// What was tried and what came of it, and what to do if that is not good. No secret.
    pub text: String,
}

impl Checked {
    /// As it should be.
    #[must_use]
    pub fn good(text: impl Into<String>) -> Self {
        Self { good: true, text: text.into() }
    }

    /// Something is to be done.
    #[must_use]
    pub fn bad(text: impl Into<String>) -> Self {
        Self { good: false, text: text.into() }
    }
}

/// Tries a sink's credentials and settings, changing nothing.
pub async fn check(sink: &Sink, context: &Context) -> Vec<Checked> {
    let found = match &sink.kind {
        Kind::Cloudflare(s) => cloudflare::check(s, context).await,
        Kind::Map(s) => map::check(s, context).await,
        Kind::Telegram(s) => telegram::check(s, context).await,
        Kind::Webhook(s) => webhook::check(s, context).await,
        Kind::Mail(s) => mail::check(s, context).await,
        Kind::Exec(s) => exec::check(s, context).await,
    };
    found.unwrap_or_else(|trouble| vec![Checked::bad(trouble.message)])
}

/// All sinks of an agent.
pub struct Sinks {
    entries: Vec<Entry>,
    /// Started with the first sink.
    thread: Option<Thread>,
    context: Context,
    outbox: Outbox,
    /// Told when something was told, and need not be kept.
    done: Arc<Notify>,
}

struct Entry {
    sink: Sink,
    name: Arc<str>,
    state: Arc<State>,
    part: Part,
    ends: mpsc::Sender<End>,
}

enum Part {
    Mirror(Arc<Desired>),
    Notifier(Arc<Queue>),
}

impl Sinks {
    /// Starts all that are configured. `left` is what the agent before this one had not told yet.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(sinks: &[Sink], context: Context, left: Vec<Row>) -> io::Result<Self> {
        let mut all = Self {
            entries: Vec::new(),
            thread: None,
            context,
            outbox: Outbox::after(&left),
            done: Arc::new(Notify::new()),
        };
        for sink in sinks {
            all.add(sink)?;
        }
        all.hand_on(left);
        Ok(all)
    }

    /// Gives sinks what their predecessors had to tell.
    fn hand_on(&mut self, rows: Vec<Row>) {
        for row in rows {
            let to = self.entries.iter().find(|entry| *entry.name == *row.sink);
            match to.map(|entry| &entry.part) {
                Some(Part::Notifier(queue)) => {
                    queue.push(row.id, &row.event);
                    queue.release(row.id);
                }
                // The sink is gone, and so is what it would have told.
                _ => self.outbox.gone(row.id),
            }
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the sink of that name is a mirror.
    #[must_use]
    pub fn is_mirror(&self, name: &str) -> bool {
        self.entries.iter().any(|e| e.sink.name == name && e.sink.kind.is_mirror())
    }

    /// Whether any of `names` tells this.
    #[must_use]
    pub fn anybody_hears(&self, names: &[String], kind: EventKind) -> bool {
        self.entries.iter().any(|e| names.contains(&e.sink.name) && e.hears(kind))
    }

    fn add(&mut self, sink: &Sink) -> io::Result<()> {
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(Thread::start()?),
        };
        let (ends, ended) = mpsc::channel(1);
        let state = Arc::new(State::new(&sink.name));
        let task = Task { thread, state: Arc::clone(&state), done: Arc::clone(&self.done), ended };
        let context = self.context.clone();
        let part = match sink.kind.clone() {
            Kind::Cloudflare(s) => {
                let state = Arc::clone(&state);
                task.mirror(move || cloudflare::CloudflareSink::new(&s, &context, &state))
            }
            Kind::Map(s) => {
                let state = Arc::clone(&state);
                task.mirror(move || map::MapSink::new(&s, &context, &state))
            }
            Kind::Telegram(s) => task.notifier(move || telegram::TelegramSink::new(&s, &context)),
            Kind::Webhook(s) => task.notifier(move || webhook::WebhookSink::new(&s, &context)),
            Kind::Mail(s) => task.notifier(move || mail::MailSink::new(&s, &context)),
            Kind::Exec(s) => task.notifier(move || exec::ExecSink::new(&s, &context)),
        };
        self.entries.push(Entry { sink: sink.clone(), name: sink.name.as_str().into(), state, part, ends });
        Ok(())
    }

    /// Puts other sinks in the place of those that run; those that stay the same are not disturbed. A mirror that is no more
    /// takes back what it shows. New mirrors show nothing until [`show`](Self::show).
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn reconfigure(&mut self, sinks: &[Sink]) -> io::Result<()> {
        let (stay, go) = std::mem::take(&mut self.entries).into_iter().partition(|e| sinks.contains(&e.sink));
        self.entries = stay;
        let mut untold = Vec::new();
        for entry in go {
            // A file is its path, whatever the sink is called; rules at Cloudflare have the sink's name in their tags.
            let named = |sink: &Sink| sink.name == entry.sink.name || matches!(sink.kind, Kind::Map(_));
            let stays = |sink: &Sink| named(sink) && sink.kind.takes_over_from(&entry.sink.kind);
            let stays = sinks.iter().any(stays);
            // One that is only set up otherwise takes over what its predecessor has shown or has to tell.
            untold.extend(self.dismiss(entry, !stays));
        }
        for sink in sinks {
            if !self.entries.iter().any(|e| e.sink.name == sink.name) {
                self.add(sink)?;
            }
        }
        self.hand_on(untold);
        // In the order of the file, as `status` shows them.
        self.entries.sort_by_key(|e| sinks.iter().position(|sink| *sink == e.sink));
        Ok(())
    }

    /// Ends a sink; what it has not told.
    fn dismiss(&mut self, entry: Entry, withdraw: bool) -> Vec<Row> {
        let mut untold = Vec::new();
        let (done, over) = oneshot::channel();
        // A notifier ends at once: what it did not tell is another one's, or nobody's.
        let mut by = Instant::now();
        match &entry.part {
            Part::Mirror(desired) => {
                by += FAREWELL;
                if withdraw {
                    desired.replace([]);
                }
            }
            Part::Notifier(queue) => {
                queue.take_done().into_iter().for_each(|id| self.outbox.gone(id));
                untold.extend(rows(&entry.name, queue));
            }
        }
        let end = End { by, withdraw, done };
        // A task that does not listen has panicked.
        drop(entry.ends.try_send(end));
        if let Some(thread) = self.thread.as_ref().filter(|_| withdraw && entry.sink.kind.is_mirror()) {
            let name = entry.sink.name;
            thread.spawn(async move {
                match over.await {
                    Ok(true) => tracing::info!("the sink {name} is gone, and has taken back what it showed"),
                    _ => {
                        tracing::error!(
                            "the sink {name} is gone, and could not take back all that it showed"
                        );
                    }
                }
            });
        }
        untold
    }

    /// Gives each mirror all bans that it is to show. `bans` is asked with the sink's name.
    pub fn show(&self, bans: impl Fn(&str) -> Vec<(IpNet, Want)>) {
        for entry in &self.entries {
            if let Part::Mirror(desired) = &entry.part {
                desired.replace(bans(&entry.sink.name));
            }
        }
    }

    /// A ban, or another end of one, for mirrors among `names`.
    pub fn ban(&self, names: &[String], offender: IpNet, want: &Want) {
        self.mirrors(names).for_each(|desired| desired.ban(offender, want.clone()));
    }

    /// The end of a ban, for mirrors among `names`.
    pub fn unban(&self, names: &[String], offender: IpNet, jail: JailId) {
        self.mirrors(names).for_each(|desired| desired.unban(offender, jail));
    }

    fn mirrors(&self, names: &[String]) -> impl Iterator<Item = &Arc<Desired>> {
        self.entries.iter().filter(|e| names.contains(&e.sink.name)).filter_map(|e| match &e.part {
            Part::Mirror(desired) => Some(desired),
            Part::Notifier(_) => None,
        })
    }

    /// Tells an event to the notifiers among `names`, or to all, as far as they hear of its kind. It is told when it is
    /// [released](Self::release).
    pub fn tell(&mut self, event: Event, names: Option<&[String]>) {
        let Some(kind) = event.kind() else { return };
        let event = Arc::new(event);
        for entry in &self.entries {
            if names.is_some_and(|names| !names.contains(&entry.sink.name)) || !entry.hears(kind) {
                continue;
            }
            if let Part::Notifier(queue) = &entry.part {
                let item = queue.push(self.outbox.next(), &event);
                self.outbox.put(Row { id: item.id, sink: Arc::clone(&entry.name), event: item.event });
            }
        }
    }

    /// What is to be written to the ledger: all that is not told, or what has changed.
    pub fn to_write(&mut self, all: bool) -> outbox::Changes {
        self.gather_done();
        if all {
            let rows = self.entries.iter().flat_map(|entry| match &entry.part {
                Part::Notifier(queue) => rows(&entry.name, queue),
                Part::Mirror(_) => Vec::new(),
            });
            return self.outbox.all(rows.collect());
        }
        self.outbox.changes()
    }

    fn gather_done(&mut self) {
        for entry in &self.entries {
            if let Part::Notifier(queue) = &entry.part {
                queue.take_done().into_iter().for_each(|id| self.outbox.gone(id));
            }
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.outbox.is_clean()
    }

    /// What was to be written is, or cannot be, or there is no ledger: it may be told. Without what came since.
    pub fn release(&mut self) {
        let up_to = self.outbox.release();
        for entry in &self.entries {
            if let Part::Notifier(queue) = &entry.part {
                queue.release(up_to);
            }
        }
    }

    /// Waits until something was told that is still in the ledger; then it is to be written. Cancel-safe.
    pub async fn told(&self) {
        self.done.notified().await;
    }

    /// Notes what was told.
    pub fn note_told(&mut self) {
        self.gather_done();
    }

    /// The jails as they are configured now.
    pub fn set_jails(&self, jails: &Jails) {
        self.context.book.set(jails.clone());
    }

    /// For `status`.
    #[must_use]
    pub fn value(&self) -> Value {
        let value = |entry: &Entry| match &entry.part {
            Part::Mirror(desired) => {
                entry.state.value(entry.sink.kind.word(), "mirror", desired.len() as u64)
            }
            Part::Notifier(queue) => entry.state.value(entry.sink.kind.word(), "notifier", queue.untold()),
        };
        self.entries.iter().map(value).collect()
    }

    /// Ends all sinks, at the latest after `patience`: notifiers say their last words. With `withdraw` mirrors take back what
    /// they show. The names of those that could not do all of it.
    pub async fn end(&mut self, patience: Duration, withdraw: bool) -> Vec<String> {
        let now = Instant::now();
        let by = now + patience;
        let mut waiting = Vec::new();
        for entry in &self.entries {
            let (done, over) = oneshot::channel();
            // Who lifts all bans waits for mirrors; people can be told later.
            let notifier = matches!(entry.part, Part::Notifier(_));
            let by = if withdraw && notifier { by.min(now + LAST_WORDS) } else { by };
            if let Part::Mirror(desired) = &entry.part
                && withdraw
            {
                desired.replace([]);
            }
            if entry.ends.try_send(End { by, withdraw, done }).is_ok() {
                waiting.push((entry, over));
            }
        }
        let mut unfinished = Vec::new();
        for (entry, over) in waiting {
            // A moment more than the task itself has.
            let end = by + Duration::from_millis(50);
            if !matches!(tokio::time::timeout_at(end, over).await, Ok(Ok(true))) {
                unfinished.push(entry.sink.name.clone());
            }
        }
        self.gather_done();
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
        unfinished
    }
}

/// What a sink has not told.
fn rows(name: &Arc<str>, queue: &Queue) -> Vec<Row> {
    let row = |item: queue::Item| Row { id: item.id, sink: Arc::clone(name), event: item.event };
    queue.items().into_iter().map(row).collect()
}

impl Entry {
    fn hears(&self, kind: EventKind) -> bool {
        matches!(self.part, Part::Notifier(_)) && self.sink.events.contains(&kind)
    }
}

/// A task that is about to begin.
struct Task<'a> {
    thread: &'a Thread,
    state: Arc<State>,
    done: Arc<Notify>,
    ended: mpsc::Receiver<End>,
}

impl Task<'_> {
    fn mirror<M: Mirror>(self, make: impl Fn() -> Result<M, Trouble> + Send + 'static) -> Part {
        let desired = Arc::new(Desired::default());
        self.thread.spawn(mirror::run(make, Arc::clone(&desired), self.state, self.ended));
        Part::Mirror(desired)
    }

    fn notifier<N: Notifier>(self, make: impl Fn() -> Result<N, Trouble> + Send + 'static) -> Part {
        let queue = Arc::new(Queue::default());
        self.thread.spawn(notifier::run(make, Arc::clone(&queue), self.state, self.done, self.ended));
        Part::Notifier(queue)
    }
}
