//! What this kernel can do about request heads, found out with transactions that are never committed.

use nft::{Batch, CommitError, Connection, Expr, Family, Hook, Rejection, Rule, Table, priority};

use super::rules::{AFTER_BR_NETFILTER, base, gate, stop};
use crate::kernel::capability::modules;

/// A table that is never made: whatever is in our own cannot be in the way.
const PROBE: &str = "stockade_probe";

/// How a packet is told that may begin a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// By the first byte of its payload (`@ih`, Linux 5.16).
    Inner,
    /// By a byte behind a TCP header of the usual length.
    Transport,
}

/// What the kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Can {
    /// How a packet is told that may begin a request.
    pub gate: Gate,
    /// Resets connections at prerouting and output (Linux 5.9).
    pub reset: bool,
    /// Has the family bridge.
    pub bridge: Option<CanBridge>,
    /// What it cannot do, and what is done instead.
    pub notes: Vec<String>,
}

/// What it can do in the family bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanBridge {
    /// Resets connections (CONFIG_NFT_BRIDGE_REJECT).
    pub reset: bool,
}

impl Can {
    /// What a recent kernel of a distribution can do.
    #[must_use]
    pub fn all() -> Self {
        Self { gate: Gate::Inner, reset: true, bridge: Some(CanBridge { reset: false }), notes: Vec::new() }
    }

    /// Asks the kernel.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn find(connection: &mut Connection, wants_reset: bool) -> Result<Self, CommitError> {
        let mut notes = Vec::new();
        let table = Table::new(Family::Inet, PROBE);
        let hooks = [Hook::Prerouting, Hook::Output];
        let inner =
            refused(connection, &table, &hooks, priority::RAW, |rule| gate(rule, Gate::Inner)).await?;
        let gate_at = if inner.is_some() { Gate::Transport } else { Gate::Inner };
        if inner.is_some() {
            notes.push(
                "this kernel cannot look at the payload by itself (Linux 5.16 can): PROXY protocol headers are not looked \
                 at, and more packets are searched than need be"
                    .to_owned(),
            );
        }
        let resets = |rule| stop(gate(rule, gate_at), true);
        let mut reset = wants_reset;
        if wants_reset && modules::is_older_than(5, 9) {
            // Which hooks it may stand at is looked at when a batch is committed: a probe would not show it.
            notes.push(
                "requests are dropped where `action: reset` would reset them: that takes Linux 5.9"
                    .to_owned(),
            );
            reset = false;
        } else if wants_reset
            && let Some(e) = refused(connection, &table, &hooks, priority::RAW, resets).await?
        {
            notes.push(format!("requests are dropped where `action: reset` would reset them: {e}"));
            reset = false;
        }
        let table = Table::new(Family::Bridge, PROBE);
        let pass = |rule| gate(rule, gate_at);
        let bridge = match refused(connection, &table, &[Hook::Forward], priority::BRIDGE_FILTER, pass)
            .await?
        {
            Some(e) => {
                notes.push(format!(
                    "requests between containers on one bridge are seen only with net.bridge.bridge-nf-call-iptables=1, \
                     because this kernel has no tables of family bridge: {e}"
                ));
                None
            }
            None if wants_reset => {
                let hook = [Hook::Prerouting];
                let refusal = refused(connection, &table, &hook, AFTER_BR_NETFILTER, resets).await?;
                if refusal.is_some() {
                    notes.push(
                        "between containers on one bridge, requests are dropped where br_netfilter does not let them be \
                         reset (CONFIG_NFT_BRIDGE_REJECT)"
                            .to_owned(),
                    );
                }
                Some(CanBridge { reset: refusal.is_none() })
            }
            None => Some(CanBridge { reset: false }),
        };
        Ok(Self { gate: gate_at, reset, bridge, notes })
    }

    /// Whether rules of our tables may hold this expression: why not, otherwise. Where only the family bridge refuses
    /// it, that family is given up, which is noted.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn takes(
        &mut self,
        connection: &mut Connection,
        expr: &Expr,
    ) -> Result<Option<Rejection>, CommitError> {
        let table = Table::new(Family::Inet, PROBE);
        let hooks = [Hook::Prerouting, Hook::Output];
        let with = |rule: Rule| rule.expr(expr.clone());
        if let Some(e) = refused(connection, &table, &hooks, priority::RAW, with).await? {
            return Ok(Some(e));
        }
        if self.bridge.is_some() {
            let table = Table::new(Family::Bridge, PROBE);
            let hooks = [Hook::Forward];
            if let Some(e) = refused(connection, &table, &hooks, priority::BRIDGE_FILTER, with).await? {
                self.notes.push(format!("requests between containers on one bridge are not looked at: {e}"));
                self.bridge = None;
            }
        }
        Ok(None)
    }
}

/// What the kernel says to base chains at these hooks with this rule; `None` when it would take them.
async fn refused(
    connection: &mut Connection,
    table: &Table,
    hooks: &[Hook],
    priority: i32,
    fill: impl Fn(Rule) -> Rule,
) -> Result<Option<Rejection>, CommitError> {
    let mut batch = Batch::new();
    batch.add(table);
    for (n, hook) in hooks.iter().enumerate() {
        let chain = base(table, &format!("probe{n}"), *hook, priority);
        batch.add(&chain).add(fill(Rule::new(&chain)));
    }
    let results = connection.probe(&batch).await?;
    Ok(results.into_iter().find_map(Result::err))
}
