//! The answer to `status`.

use serde_json::{Value, json};

use super::jails::Ready;
use super::snapshot::{JailLines, Snapshot};
use super::{Agent, policy, shown};
use crate::clock;
use crate::config::duration::Shown;
use crate::types::JailId;

/// Everything, or one jail's part of it.
pub(super) fn status(agent: &Agent, mut snapshot: Snapshot, only: Option<JailId>) -> Value {
    let now = clock::now();
    let uptime = std::time::Duration::from_secs(now.since(agent.started).as_secs());
    let state = agent.guard.state();
    let reading = reading(&snapshot);
    let open = agent.engine.open_counts(now);
    let jails: Vec<Value> = agent
        .jails
        .jails
        .iter()
        .filter(|ready| only.is_none_or(|id| id == ready.id))
        .map(|ready| jail(agent, ready, &open, &mut snapshot))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": state,
        "reading": reading,
        "pid": std::process::id(),
        "uptime": Shown(uptime).to_string(),
        "config": agent.path,
        "tracked": agent.engine.tracked(),
        "repeaters": { "remembered": agent.engine.remembered(), "forgotten": agent.engine.history_forgotten() },
        "kernel": {
            "state": state,
            "backend": agent.guard.choice.backend.word(),
            "reason": agent.guard.choice.why,
            "problem": agent.guard.problem(),
            "bans": agent.engine.bans().count(),
            "repairs": agent.guard.repairs,
            "last_repair": agent.guard.last_repair,
            "read_back": agent.guard.read_back,
            "missing": agent.guard.missing,
            "error": agent.guard.error,
        },
        "ledger": agent.keeper.value(),
        "sinks": agent.sinks.value(),
        "leaks": agent.leaks.value(|id| agent.registry.name(id), only),
        "warnings": agent.jails.warnings,
        "jails": jails,
    })
}

/// So much waits to be read in an agent that is not behind: what came within the last moments.
const NOT_BEHIND: u64 = 1 << 20;

/// How far the agent is behind, all files together; `null` while it keeps up.
fn reading(snapshot: &Snapshot) -> Value {
    let late = || snapshot.files.iter().map(|file| &file.status).filter(|status| status.behind > 0);
    let behind: u64 = late().map(|status| status.behind).sum();
    let size: u64 = late().map(|status| status.size).sum();
    let Some(most) = late().max_by_key(|status| status.behind).filter(|_| behind > NOT_BEHIND) else {
        return Value::Null;
    };
    json!({
        "files": late().count(),
        "behind": behind,
        "percent": size.saturating_sub(behind) * 100 / size.max(1),
        "most": most.path,
    })
}

fn jail(agent: &Agent, ready: &Ready, open: &[u64], snapshot: &mut Snapshot) -> Value {
    let now = clock::now();
    let stats = agent.engine.stats_with(ready.id, open).unwrap_or_default();
    let mut lines = snapshot.lines.remove(&ready.id).unwrap_or_default();
    let files: Vec<Value> = snapshot
        .files
        .iter()
        .filter(|file| file.jails.contains(&ready.id))
        .map(|file| {
            let status = &file.status;
            json!({
                "path": status.path,
                "container": file.container,
                "position": status.position.offset,
                "size": status.size,
                "behind": status.behind,
                "skipped": status.skipped_long,
                "rotations": status.rotations,
                "truncations": status.truncations,
            })
        })
        .collect();
    let waiting: Vec<&str> =
        snapshot.waiting.iter().filter(|(id, _)| *id == ready.id).map(|(_, p)| p.as_str()).collect();
    let sources = |kind: &str| {
        let of_jail = snapshot.sources.iter().filter(|s| s.kind == kind && s.jails.contains(&ready.id));
        of_jail.map(|source| source.told.clone()).collect::<Vec<_>>()
    };
    let last_ban = agent
        .last_bans
        .get(&ready.id)
        .map(|(offender, at)| json!({ "offender": shown(*offender), "at": at.to_string() }));
    json!({
        "jail": ready.jail.name,
        "filter": ready.jail.filter_name,
        "policy": policy(&ready.jail),
        "lines": lines.lines,
        "lines_per_second": lines.rate.per_second(now),
        "missed": lines.missed,
        "ignored": lines.ignored,
        "unattributable": lines.unattributable,
        "offenses": stats.offenses,
        "tracked": stats.tracked,
        "bans": stats.bans_current,
        "bans_total": stats.bans_total,
        "escalated": stats.escalated,
        "prefix_bans": stats.prefix_bans,
        "last_ban": last_ban,
        "allowlisted": stats.allowlisted,
        "already_banned": stats.already_banned,
        "leaks": agent.leaks.of(ready.id),
        "refused": stats.refused,
        "refusals": agent.shield.refusals.of(ready.id),
        "observed": ready.jail.observe,
        "sinks": ready.jail.sinks,
        "too_old": stats.too_old,
        "clamped": stats.future_clamped,
        "forgotten": stats.forgotten,
        "crowded_out": stats.crowded_out,
        "files": files,
        "waiting": waiting,
        "journal": sources("journal"),
        "docker": sources("docker"),
        "listen": sources("listen"),
        "warnings": JailLines::warning(&lines).into_iter().collect::<Vec<_>>(),
    })
}
