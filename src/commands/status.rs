//! What `stockade status` prints: what a person wants to know at a glance.

use std::fmt::Write;

use serde_json::Value;

use super::client::text;
use crate::daemon::printable;

/// The agent's status object as text.
pub(super) fn render(status: &Value) -> String {
    let mut out = String::new();
    let written = overview(&mut out, status)
        .and_then(|()| list(&status["jails"]).iter().try_for_each(|jail| one(&mut out, jail)));
    debug_assert!(written.is_ok(), "a String takes everything");
    out.truncate(out.trim_end().len());
    out
}

fn overview(out: &mut String, status: &Value) -> std::fmt::Result {
    let kernel = &status["kernel"];
    if status["state"] == "starting" {
        return writeln!(out, "stockade {}, starting: {}", text(&status["version"]), text(&status["doing"]));
    }
    writeln!(
        out,
        "stockade {}, {}, up {}",
        text(&status["version"]),
        text(&status["state"]),
        text(&status["uptime"])
    )?;
    let reading = &status["reading"];
    if let (Some(percent), Some(behind)) = (reading["percent"].as_u64(), reading["behind"].as_u64()) {
        let most = printable(text(&reading["most"]).as_bytes());
        let others = match reading["files"].as_u64() {
            Some(n) if n > 1 => format!(" and {} others", n - 1),
            _ => String::new(),
        };
        writeln!(out, "reading the backlog of {most}{others}: {percent} %, {} to go", size(behind))?;
    }
    if status["state"] == "observing" {
        writeln!(out, "observing: everything is decided and told, nothing is enforced")?;
    }
    write!(out, "kernel: {}, {} bans", text(&kernel["state"]), kernel["bans"])?;
    write!(out, ", backend {} ({})", text(&kernel["backend"]), text(&kernel["reason"]))?;
    if kernel["repairs"].as_u64() > Some(0) {
        write!(out, ", repaired {} times, last {}", kernel["repairs"], text(&kernel["last_repair"]))?;
    }
    writeln!(out)?;
    if kernel["missing"].as_u64() > Some(0) {
        writeln!(
            out,
            "kernel: {} bans were not there after it had taken them, and were written again",
            kernel["missing"]
        )?;
    }
    if let Some(error) = kernel["error"].as_str() {
        writeln!(out, "kernel error: {error}")?;
    }
    if let Some(problem) = kernel["problem"].as_str() {
        writeln!(out, "kernel problem: {problem}")?;
    }
    if let Some(n) = status["repeaters"]["forgotten"].as_u64().filter(|n| *n > 0) {
        writeln!(out, "repeaters: {n} forgotten for want of room (limits.history)")?;
    }
    headers(out, &status["headers"])?;
    let ledger = &status["ledger"];
    if let Some(problem) = ledger["problem"].as_str() {
        writeln!(out, "ledger: not remembering: {problem}")?;
    } else if let Some(bytes) = ledger["bytes"].as_u64().filter(|_| ledger["state"] == "remembering") {
        let kib = bytes.div_ceil(1024);
        writeln!(out, "ledger: {} ({kib} KiB, {} files)", text(&ledger["path"]), ledger["files"])?;
    }
    for sink in list(&status["sinks"]) {
        self::sink(out, sink)?;
    }
    let leaks = &status["leaks"];
    if leaks["count"].as_u64() > Some(0) {
        writeln!(out, "leaks: {} requests of offenders that were banned already", leaks["count"])?;
    }
    for cause in list(&leaks["causes"]) {
        let times = if cause["count"] == 1 { "once" } else { &format!("{} times", cause["count"]) };
        write!(
            out,
            "  {}, {}: {times}, last {}",
            text(&cause["jail"]),
            text(&cause["peer"]),
            text(&cause["last"])
        )?;
        writeln!(out, " by {}: {}", text(&cause["last_offender"]), text(&cause["advice"]))?;
    }
    for warning in list(&status["warnings"]) {
        writeln!(out, "warning: {}", text(warning))?;
    }
    Ok(())
}

/// `sink telegram: ok, 0 to tell, 12 told, last at …`
fn sink(out: &mut String, sink: &Value) -> std::fmt::Result {
    let mirror = sink["role"] == "mirror";
    let (queue, done) = if mirror { ("bans to show", "changes made") } else { ("to tell", "told") };
    write!(out, "sink {}: {}, {} {queue}", text(&sink["sink"]), text(&sink["state"]), sink["queue"])?;
    if let Some(left) = sink["left"].as_u64().filter(|left| *left > 0) {
        write!(out, " ({left} changes to go)")?;
    }
    write!(out, ", {} {done}", sink["done"])?;
    if let Some(lost) = sink["lost"].as_u64().filter(|lost| *lost > 0) {
        write!(out, ", {lost} given up")?;
    }
    if let Some(at) = sink["last_success"].as_str() {
        write!(out, ", last at {at}")?;
    }
    writeln!(out)?;
    if let (Some(message), Some(at)) =
        (sink["last_error"]["message"].as_str(), sink["last_error"]["at"].as_str())
    {
        let what = if sink["retry_at"].is_null() { "recovered from" } else { "error" };
        write!(out, "  {what} at {at}: {}", printable(message.as_bytes()))?;
        match sink["retry_at"].as_str() {
            Some(retry) => writeln!(out, "; trying again at {retry}")?,
            None => writeln!(out)?,
        }
    }
    for note in list(&sink["notes"]) {
        writeln!(out, "  note: {}", printable(text(note).as_bytes()))?;
    }
    Ok(())
}

fn headers(out: &mut String, headers: &Value) -> std::fmt::Result {
    let Some(matcher) = headers["matcher"].as_str() else { return Ok(()) };
    write!(out, "headers: matcher {matcher}")?;
    if let Some(why) = headers["reason"].as_str().filter(|why| !why.is_empty()) {
        write!(out, " ({why})")?;
    }
    writeln!(out, ", {} bans, {} packets stopped", headers["installed"], headers["packets"])?;
    if let Some(error) = headers["error"].as_str() {
        writeln!(out, "headers error: {error}")?;
    }
    for reason in list(&headers["left_out"]["reasons"]) {
        writeln!(out, "headers warning: {}", text(reason))?;
    }
    let examples: Vec<&str> = list(&headers["left_out"]["examples"]).iter().map(text).collect();
    if !examples.is_empty() {
        writeln!(out, "headers warning: left out are {}", examples.join(", "))?;
    }
    for note in list(&headers["notes"]) {
        writeln!(out, "headers note: {}", text(note))?;
    }
    Ok(())
}

fn one(out: &mut String, jail: &Value) -> std::fmt::Result {
    writeln!(out, "\n{} ({})", text(&jail["jail"]), text(&jail["policy"]))?;
    if jail["observed"] == true {
        writeln!(out, "  observed  its bans are decided and told, not enforced")?;
    }
    writeln!(
        out,
        "  lines     {} ({}/s), {} offenses, {} not understood",
        jail["lines"], jail["lines_per_second"], jail["offenses"], jail["missed"]
    )?;
    write!(out, "  bans      {} now, {} in all", jail["bans"], jail["bans_total"])?;
    if let Some(last) = jail["last_ban"]["offender"].as_str() {
        write!(out, ", last {last} at {}", text(&jail["last_ban"]["at"]))?;
    }
    writeln!(out)?;
    for (key, what) in [
        ("escalated", "bans longer than bantime, of repeaters"),
        ("prefix_bans", "bans of prefixes, for many offenders in them"),
        ("unattributable", "offenses only from trusted proxies: nobody to ban"),
        ("allowlisted", "offenses of allowlisted addresses"),
        ("refused", "offenses that would have banned somebody who must not be locked out"),
        ("already_banned", "offenses of addresses already banned"),
        ("leaks", "offenses in spite of a ban (see leaks above)"),
        ("too_old", "offenses too old to ban for"),
        ("clamped", "offenses stamped in the future (clock or time zone of the log)"),
        ("forgotten", "addresses forgotten for want of room (limits.offenders, limits.memory)"),
        ("crowded_out", "bans given up for want of room (limits.memory)"),
    ] {
        if let Some(n) = jail[key].as_u64().filter(|n| *n > 0) {
            writeln!(out, "  note      {n} {what}")?;
        }
    }
    for refusal in list(&jail["refusals"]) {
        writeln!(out, "  refused   at {}: {}", text(&refusal["at"]), text(&refusal["why"]))?;
    }
    for file in list(&jail["files"]) {
        let behind = match file["behind"].as_u64() {
            None | Some(0) => "up to date".to_owned(),
            Some(bytes) => format!("{} behind", size(bytes)),
        };
        let container =
            file["container"].as_str().map_or_else(String::new, |name| format!("{name} (docker), "));
        let path = printable(text(&file["path"]).as_bytes());
        write!(out, "  file      {}{path}: {behind}", printable(container.as_bytes()))?;
        for (key, what) in
            [("rotations", "rotations"), ("truncations", "truncations"), ("skipped", "lines too long")]
        {
            if let Some(n) = file[key].as_u64().filter(|n| *n > 0) {
                write!(out, ", {n} {what}")?;
            }
        }
        writeln!(out)?;
    }
    for pattern in list(&jail["waiting"]) {
        writeln!(out, "  waiting   {}: no such file yet", printable(text(pattern).as_bytes()))?;
    }
    super::sources::render(out, jail)?;
    for warning in list(&jail["warnings"]) {
        writeln!(out, "  warning   {}", text(warning))?;
    }
    Ok(())
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Bytes for a person.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_status_for_a_person() {
        let status = json!({
            "version": "0.1.0", "state": "enforcing", "uptime": "1h2m", "warnings": [],
            "kernel": {"state": "enforcing", "bans": 2, "backend": "nft", "reason": "the kernel has it", "repairs": 1, "missing": 2, "last_repair": "changed by nft (pid 7)", "error": null},
            "repeaters": {"remembered": 100, "forgotten": 3},
            "headers": {
                "matcher": "string", "reason": "bpf: operation not permitted", "installed": 1, "packets": 7, "error": null,
                "left_out": {"count": 2, "reasons": ["2 bans hold by source alone: they are too many"], "examples": ["192.0.2.1"]},
                "notes": ["requests are dropped"],
            },
            "sinks": [
                {"sink": "telegram", "kind": "telegram", "role": "notifier", "state": "failing", "queue": 7, "done": 12, "lost": 1,
                    "last_success": "2026-01-01T00:00:00Z", "retry_at": "2026-01-01T00:02:00Z",
                    "last_error": {"at": "2026-01-01T00:01:00Z", "message": "HTTP status 502"}},
                {"sink": "cf", "kind": "cloudflare", "role": "mirror", "state": "working", "queue": 3, "done": 2, "lost": 0, "left": 1,
                    "last_success": null, "retry_at": null, "last_error": null, "notes": ["1 network cannot be shown"]},
            ],
            "leaks": {"count": 3, "causes": [{"jail": "npm", "peer": "10.0.0.1", "count": 2, "last": "2026-01-01T00:00:00Z",
                "last_offender": "192.0.2.1", "advice": "deny it there"}]},
            "jails": [{
                "jail": "npm", "policy": "15 in 1m, 10m", "lines": 120, "lines_per_second": 3, "offenses": 20,
                "missed": 0, "bans": 1, "bans_total": 2, "escalated": 1, "prefix_bans": 0, "last_ban": {"offender": "192.0.2.1", "at": "2026-01-01T00:00:00Z"},
                "unattributable": 4, "allowlisted": 0, "already_banned": 0, "too_old": 0, "clamped": 0, "forgotten": 0,
                "files": [{"path": "/a.log", "behind": 2048, "rotations": 1, "truncations": 0, "skipped": 0}],
                "waiting": ["/b-*.log"], "warnings": ["all clients appear as 172.18.0.1"],
            }],
        });
        insta::assert_snapshot!(super::render(&status), @r"
        stockade 0.1.0, enforcing, up 1h2m
        kernel: enforcing, 2 bans, backend nft (the kernel has it), repaired 1 times, last changed by nft (pid 7)
        kernel: 2 bans were not there after it had taken them, and were written again
        repeaters: 3 forgotten for want of room (limits.history)
        headers: matcher string (bpf: operation not permitted), 1 bans, 7 packets stopped
        headers warning: 2 bans hold by source alone: they are too many
        headers warning: left out are 192.0.2.1
        headers note: requests are dropped
        sink telegram: failing, 7 to tell, 12 told, 1 given up, last at 2026-01-01T00:00:00Z
          error at 2026-01-01T00:01:00Z: HTTP status 502; trying again at 2026-01-01T00:02:00Z
        sink cf: working, 3 bans to show (1 changes to go), 2 changes made
          note: 1 network cannot be shown
        leaks: 3 requests of offenders that were banned already
          npm, 10.0.0.1: 2 times, last 2026-01-01T00:00:00Z by 192.0.2.1: deny it there

        npm (15 in 1m, 10m)
          lines     120 (3/s), 20 offenses, 0 not understood
          bans      1 now, 2 in all, last 192.0.2.1 at 2026-01-01T00:00:00Z
          note      1 bans longer than bantime, of repeaters
          note      4 offenses only from trusted proxies: nobody to ban
          file      /a.log: 2 KiB behind, 1 rotations
          waiting   /b-*.log: no such file yet
          warning   all clients appear as 172.18.0.1
        ");
    }
}
