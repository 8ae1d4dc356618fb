//! What `stockade check` tries: nothing is posted.

use reqwest::Method;

use super::super::trouble::Trouble;
use super::super::{Checked, Context};
use super::hook::{Hook, Outcome};
use crate::config::sinks::{Preset, Webhook};

/// Tries the settings, changing nothing.
///
/// # Errors
/// When a secret cannot be read.
pub async fn check(settings: &Webhook, _context: &Context) -> Result<Vec<Checked>, Trouble> {
    let hook = Hook::new(settings)?;
    let origin = hook.origin();
    // What is asked must do nothing, and tell as much as it can: a foreign server may take even a GET for an order, so that
    // only its root is asked, and with HEAD.
    let (method, url, told) = match &hook.preset {
        Preset::Discord => (Method::GET, hook.url_with(0, &[]), "knows the webhook"),
        Preset::Ntfy => {
            (Method::GET, hook.url_with(1, &["v1", "health"]), "is well; the token was not tried")
        }
        Preset::Gotify => (Method::GET, hook.url_with(0, &["health"]), "is well; the token was not tried"),
        Preset::Matrix(_) => {
            (Method::GET, hook.url_with(0, &["_matrix", "client", "v3", "joined_rooms"]), "takes the token")
        }
        Preset::None | Preset::Slack => {
            let root = hook.root();
            // Without the credentials: they are for another path.
            let tried = hook.http.send(hook.http.client.head(root)).await;
            return Ok(vec![match tried {
                Ok(answer) => Checked::good(format!(
                    "{origin} answers (status {} for its root); nothing was posted",
                    answer.status
                )),
                Err(trouble) => Checked::bad(trouble.message),
            }]);
        }
    };
    let answer = match hook.http.send(hook.request(method, url)).await {
        Ok(answer) => answer,
        Err(trouble) => return Ok(vec![Checked::bad(trouble.message)]),
    };
    let found = match hook.outcome(&answer) {
        Outcome::Done => Checked::good(format!("{origin} {told}; nothing was posted")),
        Outcome::Trouble(trouble) => Checked::bad(trouble.message),
        Outcome::Unfit(message) => Checked::bad(message),
    };
    let mut all = vec![found];
    if let Preset::Matrix(room) = &hook.preset
        && all.iter().all(|c| c.good)
    {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let joined =
            body["joined_rooms"].as_array().is_some_and(|rooms| rooms.iter().any(|r| r == room.as_str()));
        if !joined {
            all.push(Checked::bad(format!(
                "the token's user is not in the room {room}; invite it, and have it join"
            )));
        }
    }
    Ok(all)
}
