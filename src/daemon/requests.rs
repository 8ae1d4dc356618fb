//! What comes over the control socket, and what is answered.

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Agent, Stop, orders, shown, status};
use crate::cli::exit;
use crate::clock;
use crate::commands::exit_code;
use crate::control::{Request, Response};
use crate::engine::Reply;
use crate::types::{Ban, Decision, JailId, UnbanReason};

impl Agent {
    pub(super) async fn request(&mut self, request: Request, reply: oneshot::Sender<Response>) {
        let response = match request {
            Request::Ping => self.pong(),
            Request::Status { jail } => {
                let packets = self.guard.headers.total().await;
                self.of_jail(jail.as_deref(), |agent, only| {
                    let snapshot = agent.worker.as_ref().map(super::Worker::snapshot).unwrap_or_default();
                    let mut status = status::status(agent, snapshot, only);
                    status["headers"] = agent.guard.headers.status(packets);
                    status
                })
            }
            Request::Bans { jail } => self.bans(jail.as_deref()).await,
            Request::Ban { jail, offenders, time, reason, force } => {
                self.ban(&jail, &offenders, time.as_deref(), reason.as_deref(), force).await
            }
            Request::Unban { offenders, jail } => self.unban(&offenders, jail.as_deref()).await,
            Request::Reload => match self.reload().await {
                Ok(warnings) => {
                    let lifted = self.decided().await.len();
                    let jails = self.jails.jails.len();
                    Response::Ok(json!({ "jails": jails, "lifted": lifted, "warnings": warnings }))
                }
                Err(e) => {
                    super::tell_mistakes(&e);
                    Response::error(exit_code(&e), format!("{e:#}\nthe old configuration stays in force"))
                }
            },
            Request::Stop { flush } => {
                self.stop = Some(Stop { flush, reply: Some(reply) });
                return;
            }
        };
        // Who asked may have gone.
        drop(reply.send(response));
    }

    /// Only an agent that does what it is there for answers as if all were well: a health check may rely on it.
    fn pong(&self) -> Response {
        match (self.guard.state(), &self.guard.error) {
            ("enforcing", _) => Response::Ok(json!("pong")),
            ("observing", _) => Response::Ok(json!("pong (observing: nothing is enforced)")),
            (state, Some(error)) => Response::error(exit::NO, format!("{state}: {error}")),
            (state, None) => Response::error(exit::NO, state),
        }
    }

    fn running(&self) -> impl Iterator<Item = JailId> + Clone {
        self.jails.jails.iter().map(|ready| ready.id)
    }

    fn of_jail(&self, name: Option<&str>, then: impl FnOnce(&Self, Option<JailId>) -> Value) -> Response {
        match name.map(|name| orders::jail(name, &self.registry, self.running())).transpose() {
            Ok(only) => Response::Ok(then(self, only)),
            Err(e) => Response::error(exit::NO, e.to_string()),
        }
    }

    async fn bans(&mut self, jail: Option<&str>) -> Response {
        let now = clock::now();
        let packets = self.guard.packets(now).await;
        let in_headers = self.guard.headers.packets().await;
        self.of_jail(jail, |agent, only| {
            let mut bans: Vec<&Ban> =
                agent.engine.bans().filter(|ban| only.is_none_or(|id| id == ban.jail)).collect();
            bans.sort_by_key(|ban| (ban.since, ban.offender));
            let list = bans.into_iter().map(|ban| {
                let mut value = agent.ban_value(ban);
                value["packets"] = json!(packets.of(ban));
                value["header_packets"] = json!(agent.guard.headers.of_ban(&in_headers, ban));
                value
            });
            Value::Array(list.collect())
        })
    }

    async fn ban(
        &mut self,
        jail: &str,
        offenders: &[String],
        time: Option<&str>,
        reason: Option<&str>,
        force: bool,
    ) -> Response {
        self.raise_shield_by_hand().await;
        let command = orders::jail(jail, &self.registry, self.running())
            .and_then(|id| orders::ban(&self.engine, id, offenders, time, reason, force));
        let command = match command {
            Ok(command) => command,
            Err(e) => return Response::error(e.code(), e.to_string()),
        };
        let reply = match self.engine.command(command, clock::now()) {
            Ok(Reply::Banned { unchanged, .. }) => unchanged,
            Ok(Reply::Unbanned { .. }) => 0,
            Err(e) => return Response::error(exit::NO, e.to_string()),
        };
        let banned = self.decided().await;
        if let Some(response) = self.refused() {
            return response;
        }
        let observed =
            orders::jail(jail, &self.registry, self.running()).is_ok_and(|id| self.jails.observed(id));
        let notes: Vec<String> = observed
            .then(|| format!("{jail} only observes: this is not enforced (see observe in stockade.yaml)"))
            .into_iter()
            .collect();
        Response::Ok(json!({ "banned": banned, "unchanged": reply, "notes": notes }))
    }

    async fn unban(&mut self, offenders: &[String], jail: Option<&str>) -> Response {
        let command = jail
            .map(|name| orders::jail(name, &self.registry, self.running()))
            .transpose()
            .and_then(|only| orders::unban(offenders, only));
        let command = match command {
            Ok(command) => command,
            Err(e) => return Response::error(e.code(), e.to_string()),
        };
        let (absent, covered) = match self.engine.command(command, clock::now()) {
            Ok(Reply::Unbanned { absent, covered, .. }) => (absent, covered),
            Ok(Reply::Banned { .. }) => (Vec::new(), Vec::new()),
            Err(e) => return Response::error(exit::NO, e.to_string()),
        };
        let unbanned = self.decided().await;
        if let Some(response) = self.refused() {
            return response;
        }
        let covered: Vec<Value> = covered
            .into_iter()
            .map(|c| json!({ "offender": shown(c.net), "by": shown(c.by), "jail": self.registry.name(c.jail) }))
            .collect();
        let absent: Vec<String> = absent.into_iter().map(shown).collect();
        Response::Ok(json!({ "unbanned": unbanned, "not_banned": absent, "covered": covered }))
    }

    /// Carries the decisions of an order out before it is answered: who is told "banned" may rely on it.
    async fn decided(&mut self) -> Vec<Value> {
        let decisions = self.carry_out().await;
        // Nor may it be undone by a crash.
        if !self.keeper.flush(&mut self.engine, &self.registry, &mut self.sinks).await {
            tracing::warn!("an order is in force and not written to the ledger yet");
        }
        // Bans that ran out meanwhile, or were found to hit somebody who is logged in, are none of the order's doing.
        let of_order =
            |d: &&Decision| !matches!(d, Decision::Unban(_, UnbanReason::Expired | UnbanReason::Protected));
        decisions.iter().filter(of_order).map(|d| self.ban_value(d.ban())).collect()
    }

    /// What to answer when the kernel did not take an order.
    fn refused(&self) -> Option<Response> {
        let error = self.guard.error.as_ref()?;
        Some(Response::error(
            exit::REFUSED,
            format!("decided, but not in force yet: {error}; the agent keeps trying"),
        ))
    }

    pub(super) fn ban_value(&self, ban: &Ban) -> Value {
        json!({
            "offender": shown(ban.offender),
            "jail": self.registry.name(ban.jail),
            "since": ban.since.to_string(),
            "until": ban.until.map(|until| until.to_string()),
            "offenses": ban.offenses,
            "evidence": printable(&ban.evidence),
            "forced": ban.forced,
            "observed": self.jails.observed(ban.jail),
        })
    }
}

/// What `stop` is answered.
pub(super) fn stopped(bans: usize, removed: &Result<()>, unfinished: &[String]) -> Response {
    match removed {
        Ok(()) => Response::Ok(json!({ "bans": bans, "unfinished": unfinished })),
        Err(e) => Response::error(exit::REFUSED, format!("stopped, but {e:#}")),
    }
}

/// Text from a log for a terminal: what is not printable could move the cursor or change colours there.
pub(crate) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .map(|c| if crate::log::is_hostile(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_drive_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\xff\n"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\u{fffd}b");
    }
}
