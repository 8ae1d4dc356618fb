//! The program that looks into heads, loaded while other things are done.

use std::thread::JoinHandle;

use nft::bpf::LoadError;

use super::bpf::BpfMatcher;
use crate::config::{Headers, MatcherChoice};
use crate::kernel::Layout;

/// A program that is being loaded. The kernel takes some 50 ms to verify it, in which a starting agent waits for nf_tables
/// anyway.
pub(super) struct Early(JoinHandle<Result<BpfMatcher, LoadError>>);

impl Early {
    /// Begins to load it, where the configuration may want it.
    pub(super) fn begin(config: &Headers, layout: &Layout) -> Option<Self> {
        if !matches!(config.matcher, MatcherChoice::Auto | MatcherChoice::Bpf) {
            return None;
        }
        let (names, prefixes) = (config.names.clone(), layout.prefixes.clone());
        let thread = std::thread::Builder::new().name("bpf".to_owned());
        thread.spawn(move || BpfMatcher::load(&names, &prefixes)).ok().map(Self)
    }

    /// The program; waits for it. `None` where it must be loaded again.
    pub(super) fn take(self) -> Option<Result<BpfMatcher, LoadError>> {
        self.0.join().ok()
    }
}
