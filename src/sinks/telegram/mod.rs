//! `kind: telegram`: messages to a chat by a bot.
//!
//! At most one message a second and twenty a minute (<https://core.telegram.org/bots/faq>); what is more becomes one message about
//! all of it. An answer that does not come leaves open whether the message was sent: it is sent again.

mod api;
mod button;
mod chat;
mod check;
mod message;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::api::{Api, Fault};
use self::button::Poller;
use self::chat::Chat;
pub use self::check::check;
use self::message::Messages;
use super::Context;
use super::event::Event;
use super::notifier::{Notifier, Pace};
use super::template::without_markup;
use super::trouble::Trouble;
use crate::config::sinks::Telegram;

/// A message is tried so often at once: as it is, in the chat's new place, without markup.
const TRIES: usize = 4;

/// A sink of this kind.
pub struct TelegramSink {
    api: Arc<Api>,
    chat: Chat,
    thread: Option<i64>,
    messages: Messages,
    host: String,
    poller: Option<Poller>,
}

impl TelegramSink {
    /// A sink with these settings. Nothing is asked yet, but with an Unban button presses are listened for as long as it lives.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn new(settings: &Telegram, context: &Context) -> Result<Self, Trouble> {
        let api = Arc::new(Api::new(settings)?);
        let chat = Chat::new(settings.chat.clone(), &context.state);
        let poller = context.calls.clone().filter(|_| !settings.users.is_empty()).map(|calls| {
            Poller::start(Arc::clone(&api), chat.clone(), settings.users.clone(), calls, &context.host)
        });
        let messages = Messages::new(settings, &context.host);
        Ok(Self { api, chat, thread: settings.thread, messages, host: context.host.clone(), poller })
    }

    async fn send(
        &self,
        text: &str,
        silent: bool,
        keyboard: Option<Value>,
        events: usize,
    ) -> Result<(), Trouble> {
        let mut html = true;
        let mut moved = false;
        for _ in 0..TRIES {
            let words = if html { text.to_owned() } else { without_markup(text) };
            let mut body = api::message(self.chat.id(), self.thread, &words, html, silent);
            if let Some(keyboard) = &keyboard {
                body["reply_markup"] = keyboard.clone();
            }
            match self.api.call("sendMessage", &body).await {
                Ok(_) => return Ok(()),
                Err(Fault::Said(said)) if said.is_markup() && html => {
                    tracing::warn!("Telegram does not take a message's markup ({}): sent without", said.text);
                    html = false;
                }
                Err(Fault::Said(said)) => match said.moved_to {
                    Some(id) if !moved => {
                        self.chat.move_to(id);
                        moved = true;
                    }
                    _ => return Err(said.trouble(events)),
                },
                Err(fault) => return Err(fault.trouble(events)),
            }
        }
        Err(Trouble::later("Telegram has moved the chat again and again"))
    }
}

impl Notifier for TelegramSink {
    fn pace(&self) -> Pace {
        Pace { gap: Duration::from_secs(1), per_minute: 20 }
    }

    async fn tell(&mut self, events: &[Arc<Event>], room: u32) -> Result<usize, Trouble> {
        let one = match events {
            [] => return Ok(0),
            [event, ..] => {
                let fits = events.len() <= room as usize + 1 && event.kind().is_some();
                fits.then_some(event)
            }
        };
        let count = if one.is_some() { 1 } else { events.len() };
        let events = events.get(..count).unwrap_or_default();
        let silent = self.messages.is_silent(events);
        let (text, keyboard) = match one {
            Some(event) => {
                let keyboard = self.poller.as_ref().and_then(|_| button::keyboard(event, &self.host));
                (self.messages.one(event), keyboard)
            }
            None => (self.messages.digest(events), None),
        };
        self.send(&text, silent, keyboard, count).await?;
        Ok(count)
    }
}
