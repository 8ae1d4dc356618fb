//! The agent's own log, on standard error.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::EnvFilter;

use crate::config::{Log, LogFormat};

/// Held lines are written when they come to so many bytes.
const HELD: usize = 64 << 10;

/// Begins to log. What was begun already stays.
pub fn init(log: &Log) {
    // RUST_LOG, where it is set, is for whoever hunts a fault.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.level.word()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr).with_target(false);
    let begun = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
        // The journal has the time already.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().with_ansi(false).try_init()
        }
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    drop(begun);
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
