//! The agent's own log, on standard error: for a person, for the journal, or as JSON.
//!
//! A line is an event and an event is a line, whatever is in it: names of files, what others answer and pieces of log lines are
//! other people's text. In JSON it is escaped by nature; in text, what would break a line, move a cursor or reorder what is read
//! is written as `\n`, `\u{202e}` and so on.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

/// Held lines are written when they come to so many bytes.
const HELD: usize = 64 << 10;

/// Begins to log. What was begun already stays.
pub fn init(log: &Log) {
    // RUST_LOG, where it is set, is for whoever hunts a fault.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.level.word()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr);
    let format = Format::default().with_target(false);
    let begun = match log.format {
        LogFormat::Json => {
            begin(builder.json().with_target(false).flatten_event(true).with_ansi(false).finish())
        }
        // The journal has the time already, and the level as a number in front.
        LogFormat::Text if is_journal() => {
            let inner = format.without_time().with_level(false).with_ansi(false);
            begin(builder.with_ansi(false).event_format(Lines { inner, journal: true }).finish())
        }
        LogFormat::Text => {
            let ansi = io::stderr().is_terminal();
            let inner = format.with_ansi(ansi);
            begin(builder.with_ansi(ansi).event_format(Lines { inner, journal: false }).finish())
        }
    };
    drop(begun);
}

fn begin<S>(subscriber: S) -> Result<(), TryInitError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    subscriber.with(Errors).try_init()
}

/// So many errors wait to be heard; there are more only when something is very wrong, and then the first ones tell.
const WAITING: usize = 64;

static LISTENER: Mutex<Option<mpsc::Sender<String>>> = Mutex::new(None);

/// What is logged as an error from now on, for those who do not read the log. Whoever called it before hears no more.
pub(crate) fn errors() -> mpsc::Receiver<String> {
    let (listener, errors) = mpsc::channel(WAITING);
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    errors
}

/// Passes errors on.
struct Errors;

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        if let Some(listener) = &*LISTENER.lock().unwrap_or_else(PoisonError::into_inner) {
            drop(listener.try_send(text.finish()));
        }
    }
}

/// An event's message, after its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let text = format!("{}{}", self.fields, self.message);
        text.chars().map(|c| if is_hostile(c) { ' ' } else { c }).collect()
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.push_str(&format!("{} {value:?}: ", field.name()));
        }
    }
}

/// Whether standard error is the journal itself: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)). The variable
/// alone proves nothing: it is inherited by whoever is started with another standard error.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(own) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    File::from(own).metadata().is_ok_and(|file| names(&stream, file.dev(), file.ino()))
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    let parts = stream.split_once(':').and_then(|(d, i)| Some((d.parse().ok()?, i.parse().ok()?)));
    parts == Some((device, inode))
}

/// Text, one line for each event.
struct Lines<T> {
    inner: Format<Full, T>,
    /// With the level as sd-daemon(3) has it, `<4>`, so that `journalctl -p warning` finds it.
    journal: bool,
}

impl<S, N, T> FormatEvent<S, N> for Lines<T>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    T: FormatTime,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        let ansi = writer.has_ansi_escapes();
        self.inner.format_event(context, Writer::new(&mut text), event)?;
        if self.journal {
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        }
        escape(text.trim_end_matches('\n'), ansi, &mut writer)?;
        writer.write_char('\n')
    }
}

/// A level of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Writes `text` without what a line must not hold. Where there are colours, those alone stay that `tracing_subscriber` writes:
/// whoever writes one of them into a message gains a colour by it.
fn escape(text: &str, ansi: bool, to: &mut impl fmt::Write) -> fmt::Result {
    let is_colour = |rest: &str| ansi && COLOURS.iter().any(|colour| rest.starts_with(colour));
    let mut begin = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| is_hostile(*c)) {
        let (before, rest) = (text.get(begin..at).unwrap_or_default(), text.get(at..).unwrap_or_default());
        if !is_colour(rest) {
            to.write_str(before)?;
            write!(to, "{}", c.escape_debug())?;
            begin = at + c.len_utf8();
        }
    }
    to.write_str(text.get(begin..).unwrap_or_default())
}

/// Plain, bold, dim, italic; red, green, yellow, blue, magenta.
const COLOURS: [&str; 9] =
    ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m"];

/// Whether a character would break a line, move the cursor, or reorder what is read.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

thread_local! {
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Gathers what this thread logs, to be written in one go when the guard is dropped. A burst of bans would otherwise
/// cost a system call each, and where the log is a file in a directory that is followed, a notification each.
#[must_use]
pub(crate) fn hold() -> Held {
    LINES.with_borrow_mut(|lines| *lines = Some(Vec::new()));
    Held
}

/// See [`hold`].
pub(crate) struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        let lines = LINES.with_borrow_mut(Option::take).unwrap_or_default();
        // There is nowhere to tell that telling failed.
        drop(io::stderr().write_all(&lines));
    }
}

/// Standard error, unless this thread holds its lines.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|held| match held {
            Some(lines) => {
                lines.extend_from_slice(text);
                if lines.len() >= HELD {
                    let written = io::stderr().write_all(lines);
                    lines.clear();
                    written?;
                }
                Ok(text.len())
            }
            None => io::stderr().write(text),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const HOSTILE: &str = "a\nERROR forged\r\n\x1b[2J\u{2028}\u{202e}b\0\t\u{85}\u{9b}31m\u{7f} <3>forged {\"level\":\"ERROR\"}";

    /// What is logged with each of the shapes, with text of others in each place of an event.
    fn logged(journal: bool, ansi: bool) -> String {
        let sink = Sink::default();
        let to = sink.clone();
        let inner = Format::default().with_target(false).with_ansi(ansi).without_time();
        let inner = if journal { inner.with_level(false) } else { inner };
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(ansi)
            .event_format(Lines { inner, journal })
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, hostile_events);
        let text = sink.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    fn hostile_events() {
        tracing::info!("following {HOSTILE}");
        tracing::warn!(jail = HOSTILE, "field");
        tracing::error!(path = %HOSTILE, "displayed field");
        tracing::info!(error = ?io::Error::other(HOSTILE), "{}", HOSTILE);
    }

    #[test]
    fn no_text_of_others_breaks_a_line() {
        for (journal, ansi) in [(false, false), (false, true), (true, false)] {
            let text = logged(journal, ansi);
            assert_eq!(text.lines().count(), 4, "{text:?}");
            assert!(!text.contains("\x1b[2J"), "{text:?}");
            let plain = COLOURS.iter().filter(|_| ansi).fold(text, |text, colour| text.replace(colour, ""));
            assert!(plain.chars().all(|c| c == '\n' || !is_hostile(c)), "{plain:?}");
        }
    }

    #[test]
    fn the_journal_gets_the_level_in_front() {
        let text = logged(true, false);
        let begins: Vec<_> = text.lines().map(|line| line.chars().take(5).collect::<String>()).collect();
        assert_eq!(begins, ["<6>fo", "<4>fi", "<3>di", "<6>a\\"]);
    }

    #[test]
    fn each_event_is_one_json_object() {
        let sink = Sink::default();
        let to = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || to.clone()).finish();
        tracing::subscriber::with_default(subscriber, hostile_events);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[1]["jail"], HOSTILE);
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(names("9:1234", 9, 1234));
        for stream in ["9:1235", "8:1234", "9", "", "9:", "x:1234", "9:1234:1"] {
            assert!(!names(stream, 9, 1234), "{stream}");
        }
    }
}
