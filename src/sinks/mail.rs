//! `kind: mail`.

use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::notifier::{Notifier, Pace};
use super::trouble::Trouble;
use super::{Checked, Context};
use crate::config::sinks::Mail;

/// A sink of this kind.
#[derive(Debug)]
pub struct MailSink {}

impl MailSink {
    /// A sink with these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn new(_settings: &Mail, _context: &Context) -> Result<Self, Trouble> {
        Ok(Self {})
    }
}

impl Notifier for MailSink {
    fn pace(&self) -> Pace {
        Pace { gap: Duration::from_secs(1), per_minute: 20 }
    }

    async fn tell(&mut self, events: &[Arc<Event>], _room: u32) -> Result<usize, Trouble> {
        Ok(events.len())
    }
}

/// Tries the settings, changing nothing.
///
/// # Errors
/// When a secret cannot be read.
pub async fn check(settings: &Mail, context: &Context) -> Result<Vec<Checked>, Trouble> {
    MailSink::new(settings, context)?;
    Ok(Vec::new())
}
