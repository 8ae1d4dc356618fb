//! What a press does.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::super::api::Api;
use super::super::chat::Chat;
use crate::control::{Call, Request, Response};
use crate::daemon::shown;
use crate::sinks::template::tidy;

/// The agent answers within this time.
const ANSWER: Duration = Duration::from_secs(30);
/// So many strangers are answered within a minute: each answer is a request.
const STRANGERS: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// An answer is no longer, in bytes: Telegram shows 200 characters.
const LONGEST: usize = 190;

/// Carries orders out.
pub(super) struct Orders {
    api: Arc<Api>,
    chat: Chat,
    users: Vec<i64>,
    calls: mpsc::Sender<Call>,
    host: String,
    strangers: Strangers,
}

/// Those who press and may not, within a minute.
#[derive(Default)]
struct Strangers {
    since: Option<Instant>,
    count: u32,
}

impl Strangers {
    /// Another one; whether to answer.
    fn another(&mut self) -> bool {
        if self.since.is_none_or(|since| since.elapsed() > MINUTE) {
            *self = Self { since: Some(Instant::now()), count: 0 };
        }
        self.count += 1;
        self.count <= STRANGERS
    }
}

impl Orders {
    pub(super) fn new(
        api: Arc<Api>,
        chat: Chat,
        users: Vec<i64>,
        calls: mpsc::Sender<Call>,
        host: &str,
    ) -> Self {
        Self { api, chat, users, calls, host: host.to_owned(), strangers: Strangers::default() }
    }

    /// Does what a press, a `CallbackQuery` of the API, asks for, if whoever pressed may.
    pub(super) async fn press(&mut self, query: &Value) {
        let Some(id) = query["id"].as_str() else { return };
        let (user, chat) = (&query["from"], &query["message"]["chat"]);
        let allowed = user["id"].as_i64().is_some_and(|id| self.users.contains(&id)) && self.chat.is(chat);
        let who = who(user);
        if !allowed {
            if self.strangers.another() {
                tracing::warn!("{who} pressed Unban in the Telegram chat {}, and may not", chat["id"]);
                self.answer(id, "You may not do that.").await;
            }
            return;
        }
        let Some(offender) = super::offender(query["data"].as_str().unwrap_or_default(), &self.host) else {
            return self.answer(id, "This button is not of this agent.").await;
        };
        let (done, text) = self.unban(offender).await;
        tracing::info!("{who} pressed Unban for {} in Telegram: {text}", shown(offender));
        self.answer(id, &text).await;
        if done {
            let message = &query["message"]["message_id"];
            let body = json!({
                "chat_id": chat["id"],
                "message_id": message,
                "reply_markup": { "inline_keyboard": [] },
            });
            self.call("editMessageReplyMarkup", &body).await;
        }
    }

    /// Whether nothing is left to be done, and what came of it.
    async fn unban(&self, offender: IpNet) -> (bool, String) {
        let (reply, answer) = oneshot::channel();
        let request = Request::Unban { offenders: vec![offender.to_string()], jail: None };
        let asked = async {
            self.calls.send((request, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(ANSWER, asked).await {
            Ok(Some(Response::Ok(value))) => outcome(offender, &value),
            Ok(Some(Response::Error { message, .. })) => (false, format!("Not unbanned: {message}")),
            Ok(None) => (false, "Not unbanned: the agent is ending".to_owned()),
            Err(_) => (false, "The agent has not answered yet; see `stockade bans`".to_owned()),
        }
    }

    async fn answer(&self, id: &str, text: &str) {
        let body = json!({ "callback_query_id": id, "text": tidy(text, LONGEST), "show_alert": true });
        self.call("answerCallbackQuery", &body).await;
    }

    /// What is done for whoever pressed: that it fails changes nothing.
    async fn call(&self, method: &str, body: &Value) {
        if let Err(fault) = self.api.call(method, body).await {
            tracing::debug!("Telegram's {method}: {}", fault.trouble(0));
        }
    }
}

fn outcome(offender: IpNet, value: &Value) -> (bool, String) {
    let offender = shown(offender);
    let array = |key: &str| value[key].as_array().map_or(&[][..], Vec::as_slice);
    let jails: Vec<&str> = array("unbanned").iter().filter_map(|ban| ban["jail"].as_str()).collect();
    if !jails.is_empty() {
        return (true, format!("{offender} is unbanned ({})", jails.join(", ")));
    }
    match array("covered").first() {
        Some(ban) => {
            let text = |key: &str| ban[key].as_str().unwrap_or_default();
            (
                false,
                format!("{offender} falls under the ban of {} by {}, which stays", text("by"), text("jail")),
            )
        }
        None => (true, format!("{offender} is not banned any more")),
    }
}

/// A user in the log: the number, for names are chosen freely.
fn who(user: &Value) -> String {
    match user["username"].as_str() {
        Some(name) => format!("the user {} (@{})", user["id"], tidy(name, 40)),
        None => format!("the user {}", user["id"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_told_as_it_is() {
        let told = |value| outcome("192.0.2.1/32".parse().unwrap(), &value);
        let ban = |jail: &str| json!({ "jail": jail, "offender": "192.0.2.1" });
        assert_eq!(
            told(json!({ "unbanned": [ban("a"), ban("b")], "not_banned": [], "covered": [] })),
            (true, "192.0.2.1 is unbanned (a, b)".to_owned())
        );
        let (done, text) = told(json!({ "unbanned": [], "not_banned": ["192.0.2.1"], "covered": [] }));
        assert!(done && text.contains("not banned any more"), "{text}");
        let covered = json!({ "offender": "192.0.2.1", "by": "192.0.2.0/24", "jail": "a" });
        let (done, text) = told(json!({ "unbanned": [], "covered": [covered] }));
        assert!(!done && text.contains("192.0.2.0/24"), "{text}");
    }

    #[test]
    fn few_strangers_are_answered() {
        let mut strangers = Strangers::default();
        assert_eq!((0..100).filter(|_| strangers.another()).count(), STRANGERS as usize);
    }
}
