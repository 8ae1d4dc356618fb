//! From offenses to decisions.
#![warn(clippy::disallowed_methods)]
