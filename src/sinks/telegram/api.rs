//! The Bot API (<https://core.telegram.org/bots/api>): methods, and what its answers mean.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::http::{Answer, Http};
use super::super::secret::Secret;
use super::super::trouble::Trouble;
use crate::config::sinks::Telegram;

/// A bot.
pub(super) struct Api {
    http: Http,
    url: String,
    token: Secret,
    timeout: Duration,
}

/// What came of a method that was not carried out.
#[derive(Debug)]
pub(super) enum Fault {
    /// There was no whole answer: it may have been carried out.
    Silence(Trouble),
    /// It was refused.
    Said(Said),
}

/// A refusal in the API's words.
#[derive(Debug)]
pub(super) struct Said {
    /// As in HTTP.
    pub(super) code: u16,
    /// For people, and hardly for programs: without our secrets.
    pub(super) text: String,
    /// How long to wait.
    pub(super) wait: Option<Duration>,
    /// The group is now this supergroup.
    pub(super) moved_to: Option<i64>,
}

impl Api {
    /// The bot of these settings.
    ///
    /// # Errors
    /// When the token or `ca_file` cannot be read, or what is read is no token.
    pub(super) fn new(settings: &Telegram) -> Result<Self, Trouble> {
        let token = settings.token.read().map_err(|e| Trouble::refused(e.to_string()))?;
        let (id, key) = token.reveal().split_once(':').unwrap_or_default();
        let is_key = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        // It becomes a part of the URL.
        if id.is_empty()
            || !id.bytes().all(|b| b.is_ascii_digit())
            || key.len() < 8
            || !key.bytes().all(is_key)
        {
            return Err(Trouble::refused(
                "the token is none of Telegram's; write it as @BotFather gave it, such as 123456:ABC-DEF",
            ));
        }
        // The key alone is as secret, and whatever encodes a `:` leaves it as it is.
        let secrets = vec![token.clone(), Secret::form(key)];
        let http = Http::new(&settings.http, secrets)?;
        Ok(Self { http, url: settings.url.clone(), timeout: settings.http.timeout, token })
    }

    /// What tells this bot from others, and is no secret.
    pub(super) fn bot(&self) -> &str {
        self.token.reveal().split(':').next().unwrap_or_default()
    }

    /// Has a method carried out, and yields its result.
    pub(super) async fn call(&self, method: &str, body: &Value) -> Result<Value, Fault> {
        self.call_within(method, body, Duration::ZERO).await
    }

    /// The same for a method that answers when something happens, or after `wait`.
    pub(super) async fn call_within(
        &self,
        method: &str,
        body: &Value,
        wait: Duration,
    ) -> Result<Value, Fault> {
        let url = format!("{}/bot{}/{method}", self.url, self.token.reveal());
        let request = self.http.client.post(url).json(body).timeout(self.timeout + wait);
        let answer = self.http.send(request).await.map_err(Fault::Silence)?;
        self.read(&answer)
    }

    fn read(&self, answer: &Answer) -> Result<Value, Fault> {
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.is_success() {
            return match body.get_mut("result").map(Value::take) {
                Some(result) if body["ok"] == true => Ok(result),
                _ => Err(Fault::Silence(Trouble::later(format!(
                    "what {} answers is not the Bot API; check url",
                    self.url
                )))),
            };
        }
        let parameters = &body["parameters"];
        let wait = parameters["retry_after"].as_u64().map(Duration::from_secs);
        let text = body["description"].as_str().unwrap_or("no reason is given");
        Err(Fault::Said(Said {
            code: answer.status,
            text: self.http.redact(text),
            wait: wait.max(answer.retry_after()),
            moved_to: parameters["migrate_to_chat_id"].as_i64(),
        }))
    }
}

impl Said {
    /// Whether the message's markup is to blame.
    pub(super) fn is_markup(&self) -> bool {
        self.code == 400 && self.text.contains("can't parse")
    }

    /// What it means for a message about so many events.
    pub(super) fn trouble(&self, events: usize) -> Trouble {
        let Self { code, text, wait, .. } = self;
        match code {
            401 | 404 => Trouble::refused(format!(
                "Telegram does not know this bot ({text}); check the token, and url if it is set"
            )),
            403 => Trouble::refused(format!(
                "Telegram does not let the bot write there ({text}); add it to the chat, or press Start in a private one"
            )),
            // The chat is not as the configuration says; the message is not to blame.
            400 if self.is_chat() => Trouble::refused(format!(
                "Telegram does not find the chat or topic ({text}); check chat_id and thread_id, and whether the bot is in it"
            )),
            408 | 409 | 420 | 425 | 429 | 300..=399 | 500.. => {
                let message = format!("Telegram answers {code}: {text}");
                match wait {
                    Some(wait) => Trouble::after(*wait, message),
                    None => Trouble::later(message),
                }
            }
            _ => Trouble::unfit(
                events,
                format!("Telegram does not take a message ({code}: {text}); it is given up"),
            ),
        }
    }

    fn is_chat(&self) -> bool {
        const WORDS: [&str; 8] = [
            "chat not found",
            "thread not found",
            "topic_",
            "peer_id_invalid",
            "not enough rights",
            "have no rights",
            "upgraded to a supergroup",
            "chat_id is empty",
        ];
        let text = self.text.to_ascii_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    }
}

impl Fault {
    /// As [`Said::trouble`].
    pub(super) fn trouble(self, events: usize) -> Trouble {
        match self {
            Self::Silence(trouble) => trouble,
            Self::Said(said) => said.trouble(events),
        }
    }
}

/// What all messages have in common.
pub(super) fn message(chat: Value, thread: Option<i64>, text: &str, html: bool, silent: bool) -> Value {
    let mut body = json!({
        "chat_id": chat,
        "text": text,
        // Nobody's server is to be asked about what an attacker wrote.
        "link_preview_options": { "is_disabled": true },
        "disable_notification": silent,
    });
    if html {
        body["parse_mode"] = "HTML".into();
    }
    if let Some(thread) = thread {
        body["message_thread_id"] = thread.into();
    }
    body
}
