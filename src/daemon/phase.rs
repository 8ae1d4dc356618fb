//! What a starting agent does, for whoever asks meanwhile.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::notify::Notifier;
use crate::cli::exit;
use crate::clock;
use crate::config::duration::Shown;
use crate::control::{Call, Request, Response};
use crate::types::Timestamp;

/// So many orders may wait for the agent to be up.
const WAITING: usize = 64;

/// What the agent is doing.
pub(super) struct Phase {
    doing: Mutex<String>,
    notifier: Notifier,
    since: Timestamp,
}

impl Phase {
    pub(super) fn new(notifier: Notifier) -> Self {
        Self { doing: Mutex::new("reading the configuration".to_owned()), notifier, since: clock::now() }
    }

    /// The way to the service manager.
    pub(super) fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// It has come to this: a few words that can stand behind "starting: ".
    pub(super) fn set(&self, doing: impl Into<String>) {
        let doing = doing.into();
        tracing::debug!("starting: {doing}");
        self.notifier.status(&format!("starting: {doing}"));
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    /// Answers what can be answered already; the rest waits in `waiting`.
    pub(super) fn answer(&self, (request, reply): Call, waiting: &mut VecDeque<Call>) {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = match request {
            Request::Ping => Response::error(exit::NO, format!("starting: {doing}")),
            Request::Status { .. } => {
                let uptime = std::time::Duration::from_secs(clock::now().since(self.since).as_secs());
                Response::Ok(json!({
                    "version": env!("CARGO_PKG_VERSION"),
                    "state": "starting",
                    "doing": doing,
                    "pid": std::process::id(),
                    "uptime": Shown(uptime).to_string(),
                    "jails": [],
                }))
            }
            request if waiting.len() < WAITING => return waiting.push_back((request, reply)),
            _ => Response::error(exit::UNREACHABLE, format!("starting: {doing}; try again")),
        };
        // Who asked may have gone.
        drop(reply.send(response));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_starting_agent_says_what_it_does_and_keeps_orders_for_later() {
        let phase = Phase::new(Notifier::default());
        phase.set("taking over 3 bans");
        let mut waiting = VecDeque::new();
        let mut ask = |request| {
            let (reply, mut answer) = oneshot::channel();
            phase.answer((request, reply), &mut waiting);
            answer.try_recv().ok()
        };
        assert_eq!(ask(Request::Ping), Some(Response::error(exit::NO, "starting: taking over 3 bans")));
        let Some(Response::Ok(status)) = ask(Request::Status { jail: None }) else { panic!("no status") };
        assert_eq!((&status["state"], &status["doing"]), (&json!("starting"), &json!("taking over 3 bans")));
        for _ in 0..WAITING {
            assert_eq!(ask(Request::Reload), None);
        }
        let Some(Response::Error { code, .. }) = ask(Request::Reload) else { panic!("too many wait") };
        assert_eq!(code, exit::UNREACHABLE);
        assert_eq!(waiting.len(), WAITING);
    }
}
