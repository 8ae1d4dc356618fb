//! `kind: map`.

use std::sync::Arc;

use super::desired::Desired;
use super::mirror::{Mirror, Pass};
use super::state::State;
use super::trouble::Trouble;
use super::{Checked, Context};
use crate::config::sinks::Map;

/// A sink of this kind.
#[derive(Debug)]
pub struct MapSink {}

impl MapSink {
    /// A sink with these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn new(_settings: &Map, _context: &Context, _state: &Arc<State>) -> Result<Self, Trouble> {
        Ok(Self {})
    }
}

impl Mirror for MapSink {
    async fn pass(&mut self, _desired: &Desired, _whole: bool) -> Result<Pass, Trouble> {
        Ok(Pass::default())
    }
}

/// Tries the settings, changing nothing.
///
/// # Errors
/// When a secret cannot be read.
pub async fn check(settings: &Map, context: &Context) -> Result<Vec<Checked>, Trouble> {
    MapSink::new(settings, context, &Arc::new(State::new("check")))?;
    Ok(Vec::new())
}
