//! Header bans.

mod bpf;
mod lookup;
mod program;
mod shared;
#[cfg(test)]
mod tests;
mod word;

pub use self::bpf::{BpfMatcher, MapError};
