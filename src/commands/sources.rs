//! What `stockade status` prints of a jail's sources besides files.

use std::fmt::{Result, Write};

use serde_json::Value;

use super::client::text;
use super::status::list;
use crate::daemon::printable;

/// Appends the jail's journal, containers and listeners.
pub(super) fn render(out: &mut String, jail: &Value) -> Result {
    for source in list(&jail["journal"]) {
        write!(out, "  journal   {}: {} entries", shown(&source["match"]), source["entries"])?;
        if let Some(last) = source["last_entry"].as_str() {
            write!(out, ", last of {last}")?;
        }
        counted(
            out,
            source,
            &[("malformed", "not read"), ("skipped", "too long"), ("restarts", "restarts of journalctl")],
        )?;
        problem(out, source)?;
    }
    for source in list(&jail["docker"]) {
        let containers = list(&source["containers"]);
        for container in containers {
            let id: String = text(&container["id"]).chars().take(12).collect();
            write!(
                out,
                "  docker    {} ({id}): logs by {}",
                shown(&container["name"]),
                shown(&container["driver"])
            )?;
            if container["running"] == false {
                write!(out, ", stopped")?;
            }
            problem(out, container)?;
        }
        if containers.is_empty() {
            write!(out, "  docker    {}", shown(&source["select"]))?;
            problem(out, source)?;
        }
    }
    for source in list(&jail["listen"]) {
        write!(out, "  listen    {}: {} messages", shown(&source["address"]), source["received"])?;
        counted(
            out,
            source,
            &[
                ("dropped", "lost (they came too fast)"),
                ("refused", "refused (syslog.senders)"),
                ("malformed", "that are not syslog's"),
                ("skipped", "too long"),
            ],
        )?;
        problem(out, source)?;
    }
    Ok(())
}

fn counted(out: &mut String, source: &Value, counts: &[(&str, &str)]) -> Result {
    for (key, what) in counts {
        if let Some(n) = source[*key].as_u64().filter(|n| *n > 0) {
            write!(out, ", {n} {what}")?;
        }
    }
    Ok(())
}

/// Ends the line, with what is wrong.
fn problem(out: &mut String, source: &Value) -> Result {
    match source["problem"].as_str() {
        Some(problem) => writeln!(out, ": {}", printable(problem.as_bytes())),
        None => writeln!(out),
    }
}

fn shown(value: &Value) -> String {
    printable(text(value).as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn sources_for_a_person() {
        let jail = json!({
            "journal": [{"match": "_SYSTEMD_UNIT=ssh.service", "entries": 7, "last_entry": "2026-01-01T00:00:00Z",
                "malformed": 0, "skipped": 1, "restarts": 2, "problem": null},
                {"match": "A=\u{1b}", "entries": 0, "problem": "there is no journalctl"}],
            "docker": [{"select": "web", "problem": null, "containers": [
                {"name": "web", "id": "0123456789abcdef", "driver": "local", "running": false, "problem": "it cannot be followed"}]},
                {"select": "label=a", "containers": [], "problem": "no such container yet"}],
            "listen": [{"address": "udp://127.0.0.1:5514", "received": 9, "dropped": 3, "refused": 0, "problem": null}],
        });
        let mut out = String::new();
        super::render(&mut out, &jail).unwrap();
        insta::assert_snapshot!(out, @r"
        ");
    }
}
