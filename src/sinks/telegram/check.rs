//! What `stockade check` tries: nothing is sent.

use serde_json::json;

use super::super::trouble::Trouble;
use super::super::{Checked, Context};
use super::api::Api;
use super::chat::Chat;
use crate::config::sinks::Telegram;

/// Tries the settings, changing nothing.
///
/// # Errors
/// When a secret cannot be read.
pub async fn check(settings: &Telegram, context: &Context) -> Result<Vec<Checked>, Trouble> {
    let api = Api::new(settings)?;
    let mut found = Vec::new();
    match api.call("getMe", &json!({})).await {
        Ok(me) => {
            let name = me["username"].as_str().unwrap_or("without a name");
            found.push(Checked::good(format!("the bot @{name} answers")));
        }
        // Without a bot nothing else can be asked.
        Err(fault) => return Ok(vec![Checked::bad(fault.trouble(0).message)]),
    }
    let chat = Chat::new(settings.chat.clone(), &context.state);
    if let Some(id) = chat.moved() {
        found.push(Checked::bad(format!("the group has become a supergroup; write chat_id: {id}")));
    }
    match api.call("getChat", &json!({ "chat_id": chat.id() })).await {
        Ok(chat) => {
            let title = ["title", "username", "first_name"].iter().find_map(|key| chat[key].as_str());
            let text = format!(
                "it knows the {} `{}`; a message was not sent",
                chat["type"].as_str().unwrap_or("chat"),
                title.unwrap_or_default()
            );
            found.push(Checked::good(super::super::template::tidy(&text, 300)));
        }
        Err(fault) => {
            let moved = match &fault {
                super::api::Fault::Said(said) => said.moved_to,
                super::api::Fault::Silence(_) => None,
            };
            found.push(Checked::bad(match moved {
                Some(id) => format!("the group has become a supergroup; write chat_id: {id}"),
                None => fault.trouble(0).message,
            }));
        }
    }
    if !settings.users.is_empty() {
        found.push(match api.call("getWebhookInfo", &json!({})).await {
            Ok(info) if info["url"].as_str().is_none_or(str::is_empty) => {
                Checked::good(format!("presses of Unban are honoured from {} users", settings.users.len()))
            }
            Ok(_) => Checked::bad(
                "the bot has a webhook, and presses of Unban do not come here; take it away (deleteWebhook), or use a bot of its own",
            ),
            Err(fault) => Checked::bad(fault.trouble(0).message),
        });
    }
    Ok(found)
}
