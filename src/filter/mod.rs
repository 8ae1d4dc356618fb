//! From a line to an offense: formats, patterns, and who the offender is.
//!
//! ```text
//! line ─► Matcher ─┬─ format (once per line, for all jails of the file) ─► conditions ─┬─► who (Trust), when (Reader) ─► Hit
//!                  └─ time stamp cut out ─► failregex, ignoreregex ────────────────────┘
//! ```
//! A [`Filter`] is a [`definition::Definition`] compiled. A [`Matcher`] is everything that is done with the lines of one
//! file. Nothing here reads a clock, a file or the environment.
#![warn(clippy::disallowed_methods)]

mod asset;
pub mod builtin;
pub mod client;
mod compile;
mod condition;
pub mod definition;
mod examine;
mod fields;
mod format;
mod matcher;
mod origin;
mod pattern;
pub mod timestamp;

pub use self::client::{Attribution, Trust};
pub use self::compile::{CompileError, Filter};
pub use self::examine::{Examination, Outcome};
pub use self::matcher::{Counts, Hit, Matcher};
pub use self::origin::Origin;
