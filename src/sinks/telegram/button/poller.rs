//! Listens for presses, as long as the sink lives.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::api::{Api, Fault};
use super::super::chat::Chat;
use super::order::Orders;
use crate::control::Call;
use crate::sinks::backoff::Backoff;
use crate::sinks::trouble::Trouble;

/// The API answers when there is a press, or after so long.
const WAIT: Duration = Duration::from_secs(50);
/// So many presses at once.
const LIMIT: u32 = 20;
/// Where somebody else has the bot's updates.
const CONFLICT: Duration = Duration::from_secs(30);
/// A predecessor is given so long to go.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// Bots that are listened for: the API lets nobody listen twice.
static POLLED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The task that listens; it ends when this is dropped.
pub(crate) struct Poller(Option<JoinHandle<()>>);

impl Drop for Poller {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Poller {
    /// Begins to listen. Orders go to `calls`.
    pub(crate) fn start(
        api: Arc<Api>,
        chat: Chat,
        users: Vec<i64>,
        calls: mpsc::Sender<Call>,
        host: &str,
    ) -> Self {
        let orders = Orders::new(Arc::clone(&api), chat, users, calls, host);
        let listener = Listener { api, orders, backoff: Backoff::default(), told: None };
        // Outside of a runtime nothing is told either.
        Self(Handle::try_current().ok().map(|runtime| runtime.spawn(listener.run())))
    }
}

struct Listener {
    api: Arc<Api>,
    orders: Orders,
    backoff: Backoff,
    /// The trouble that was logged and has not ended.
    told: Option<String>,
}

impl Listener {
    async fn run(mut self) {
        let _turn = Turn::take(self.api.bot()).await;
        let mut offset = None;
        loop {
            let begun = Instant::now();
            let presses = match self.updates(offset, LIMIT, WAIT).await {
                Ok(presses) => presses,
                Err(fault) => {
                    self.recover(fault).await;
                    continue;
                }
            };
            self.well();
            let last = presses.iter().filter_map(|update| update["update_id"].as_i64()).max();
            let Some(last) = last else {
                // Something that does not wait is no Bot API, and is not to be asked without end.
                if begun.elapsed() < Duration::from_secs(1) {
                    sleep(Duration::from_secs(1)).await;
                }
                continue;
            };
            offset = Some(last.saturating_add(1));
            // First confirmed, then carried out: after a crash a press would otherwise lift a ban of later.
            while let Err(fault) = self.updates(offset, 1, Duration::ZERO).await {
                self.recover(fault).await;
            }
            for update in &presses {
                self.orders.press(&update["callback_query"]).await;
            }
        }
    }

    async fn updates(&self, offset: Option<i64>, limit: u32, wait: Duration) -> Result<Vec<Value>, Fault> {
        let mut body = json!({
            "timeout": wait.as_secs(),
            "limit": limit,
            "allowed_updates": ["callback_query"],
        });
        if let Some(offset) = offset {
            body["offset"] = offset.into();
        }
        match self.api.call_within("getUpdates", &body, wait).await? {
            Value::Array(updates) => Ok(updates),
            _ => Err(Fault::Silence(Trouble::later("Telegram answers with something else than updates"))),
        }
    }

    fn well(&mut self) {
        self.backoff.reset();
        if self.told.take().is_some() {
            tracing::info!("presses of Unban come through again");
        }
    }

    async fn recover(&mut self, fault: Fault) {
        let (message, wait) = match fault {
            Fault::Said(said) if said.code == 409 => (
                format!(
                    "another program has this bot's updates ({}); give the agent a bot of its own, or take its webhook away",
                    said.text
                ),
                CONFLICT,
            ),
            Fault::Said(said) if matches!(said.code, 401 | 403 | 404) => {
                (said.trouble(0).message, self.backoff.refused())
            }
            Fault::Said(said) => (said.trouble(0).message, self.backoff.failed(said.wait)),
            Fault::Silence(trouble) => (trouble.message, self.backoff.failed(None)),
        };
        if self.told.as_ref() != Some(&message) {
            tracing::warn!("presses of Unban do not come through: {message}; trying again");
            self.told = Some(message);
        }
        sleep(wait).await;
    }
}

/// The right to listen for a bot.
struct Turn(String);

impl Turn {
    async fn take(bot: &str) -> Self {
        let begun = Instant::now();
        let mut told = false;
        loop {
            if polled(|bots| bots.insert(bot.to_owned())) {
                return Self(bot.to_owned());
            }
            if begun.elapsed() > PREDECESSOR && !told {
                told = true;
                tracing::warn!(
                    "two sinks have an Unban button by the bot {bot}: presses of one are not heard; give it another bot"
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        polled(|bots| bots.remove(&self.0));
    }
}

fn polled(change: impl FnOnce(&mut BTreeSet<String>) -> bool) -> bool {
    change(&mut POLLED.lock().unwrap_or_else(PoisonError::into_inner))
}
