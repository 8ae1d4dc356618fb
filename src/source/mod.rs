//! Sources besides files: systemd's journal, containers' logs, syslog.
//!
//! ```text
//!  journalctl ──JSON──► journal::Entry ───┐
//!  a file of Docker's ──► docker::Decoder ├─► one line, shaped for the filter ─► (matched like a file's)
//!  a datagram ──► syslog::Message ────────┘
//! ```
//! What parses stands apart from what reads, and none of it knows jails. Whatever an entry, a record or a datagram holds, it
//! becomes one line and never two: text that could end a line is written as rsyslog writes it, `#012`.

pub mod docker;
pub mod journal;
mod line;
pub mod syslog;

pub use self::line::Shape;
pub(crate) use self::line::{Head, escape, unbroken};
