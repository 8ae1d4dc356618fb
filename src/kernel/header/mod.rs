//! Bans by an address that stands only in the head of a request, because the packet comes from a proxy.

pub mod patterns;

pub use self::patterns::{Pattern, patterns};
