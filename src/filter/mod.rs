//! From a line to an offense: formats, patterns, and who the offender is.
#![warn(clippy::disallowed_methods)]

pub mod definition;
