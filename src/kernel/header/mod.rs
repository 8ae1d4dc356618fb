//! Bans by an address that stands only in the head of a request, because the packet comes from a proxy.

mod bpf;
mod lookup;
pub mod patterns;
mod program;
mod shared;
#[cfg(test)]
mod tests;
mod word;

pub use self::bpf::{BpfMatcher, MapError};
pub use self::patterns::{Pattern, patterns};
