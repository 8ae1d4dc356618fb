//! From the first breath to the last: an agent that is starting, that works, that ends.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::notify::Notifier;
use super::phase::Phase;
use super::signals::{Ask, Signals};
use super::{Agent, CALLS};
use crate::config::Config;
use crate::control::{self, Server};

/// Runs the agent until a signal or an order ends it.
pub(super) async fn live(path: &Path, config: Config, observe: bool, mut signals: Signals) -> Result<()> {
    let (calls, mut orders) = mpsc::channel(CALLS);
    let notifier = Notifier::from_env();
    let phase = Phase::new(notifier.clone());
    let server = Server::bind(&config.paths.control).await?;
    let own_calls = calls.clone();
    // It answers from the beginning: an agent that takes long to start says why.
    let server = server.start(calls).context("failed to serve the control socket")?;
    let (mut waiting, mut reload) = (VecDeque::new(), false);
    let start = async {
        // Who enforces nothing is in nobody's way.
        let alone = if observe { None } else { Some(control::Alone::claim().await?) };
        Ok((alone, Agent::start(path, config, observe, &phase, own_calls).await?))
    };
    let mut start = std::pin::pin!(start);
    let started = loop {
        tokio::select! {
            biased;
            ask = signals.next() => match ask {
                Ask::Stop => break Ok(None),
                Ask::Reload => reload = true,
            },
            started = &mut start => break started.map(Some),
            Some(call) = orders.recv() => phase.answer(call, &mut waiting),
        }
    };
    let ended = match started {
        Ok(Some((alone, (mut agent, batches)))) => {
            signals.started();
            notifier.ready(&agent.summary());
            agent.tell_start();
            if reload {
                agent.signal(Ask::Reload).await;
            }
            while let Some((request, reply)) = waiting.pop_front().filter(|_| agent.stop.is_none()) {
                agent.request(request, reply).await;
                agent.carry_out().await;
            }
            let ended = agent.work(&mut signals, batches, orders).await;
            notifier.stopping();
            let server = server.close().await;
            let stopped = agent.end().await;
            server.end();
            drop(alone);
            return ended.and(stopped);
        }
        Ok(None) => {
            tracing::info!("stopped while starting");
            Ok(())
        }
        Err(e) => Err(e),
    };
    notifier.stopping();
    server.close().await.end();
    ended
}
