//! The agent's own log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;

use crate::config::{Log, LogFormat};

/// Begins to log. What was begun already stays.
pub fn init(log: &Log) {
    // RUST_LOG, where it is set, is for whoever hunts a fault.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.level.word()));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let begun = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
        // The journal has the time already.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().with_ansi(false).try_init()
        }
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    drop(begun);
}
