//! `kind: webhook`: JSON to a URL, as a receiver of the user's own reads it, or as chats want it.
//!
//! Without a preset every event stands whole in a request, up to so many in one. A request whose answer did not come is made again
//! with the same events and the same key, so that a receiver can tell that it has it already.

mod body;
mod check;
mod hook;

use std::sync::Arc;
use std::time::Duration;

use self::body::Bodies;
pub use self::check::check;
use self::hook::{Hook, Outcome};
use super::Context;
use super::event::Event;
use super::notifier::{Notifier, Pace};
use super::trouble::Trouble;
use crate::config::sinks::{Preset, Webhook};

/// A sink of this kind.
pub struct WebhookSink {
    hook: Hook,
    bodies: Bodies,
    pace: Pace,
    /// So many events at most in one request.
    most: usize,
    /// So many at the moment: what was refused is made again in smaller pieces.
    limit: usize,
    /// The events of a request that may have been heard.
    pending: Vec<Arc<Event>>,
}

impl WebhookSink {
    /// A sink with these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn new(settings: &Webhook, context: &Context) -> Result<Self, Trouble> {
        let hook = Hook::new(settings)?;
        if settings.preset == Preset::Ntfy && hook.topic().is_empty() {
            return Err(Trouble::refused("the URL has no topic; write it as https://ntfy.sh/TOPIC"));
        }
        let bodies = Bodies::new(settings, &context.host);
        let gap = if bodies.is_list() { Duration::ZERO } else { Duration::from_secs(1) };
        let most = if bodies.is_list() { settings.batch } else { usize::MAX };
        Ok(Self {
            hook,
            bodies,
            pace: Pace { gap, per_minute: settings.per_minute },
            most,
            limit: most,
            pending: Vec::new(),
        })
    }

    /// How many events, the oldest, the next request is about.
    fn count(&self, events: &[Arc<Event>], room: u32) -> usize {
        if !self.pending.is_empty() && events.starts_with(&self.pending) {
            return self.pending.len();
        }
        if self.bodies.is_list() {
            return Bodies::fit(events, self.limit);
        }
        let one = events.len() <= room as usize + 1;
        if one { 1 } else { events.len().min(self.limit) }
    }
}

impl Notifier for WebhookSink {
    fn pace(&self) -> Pace {
        self.pace
    }

    async fn tell(&mut self, events: &[Arc<Event>], room: u32) -> Result<usize, Trouble> {
        let count = self.count(events, room);
        let events = events.get(..count).unwrap_or_default();
        if events.is_empty() {
            return Ok(0);
        }
        self.pending = events.to_vec();
        let (body, key) = self.bodies.make(events, self.hook.topic());
        match self.hook.send(body, &key).await {
            Outcome::Done => {
                self.pending.clear();
                self.limit = self.limit.saturating_mul(2).min(self.most);
                Ok(count)
            }
            Outcome::Trouble(trouble) => Err(trouble),
            Outcome::Unfit(message) => {
                self.pending.clear();
                if count == 1 {
                    return Err(Trouble::unfit(1, format!("{message}; the event is given up")));
                }
                self.limit = count / 2;
                Err(Trouble::later(format!("{message}; trying fewer events at once")))
            }
        }
    }
}
