//! What is said about it, to people and to programs.

use serde_json::{Value, json};

use super::address::Asked;
use super::installed::{Counted, Cover};
use super::trial::{Field, Findings, Heads, Ports, Source, Verdict, Way};

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::NotBlocked => "not blocked",
            Self::Unknown(_) => "cannot tell",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Unknown(why) => Some(why),
            _ => None,
        }
    }

    /// As people are told: what is not stopped must not be overlooked.
    fn said(&self) -> String {
        match self {
            Self::Blocked => "blocked".to_owned(),
            Self::NotBlocked => "NOT blocked".to_owned(),
            Self::Unknown(why) => format!("cannot tell: {why}"),
        }
    }
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Arriving => "arriving",
            Self::Sent => "sent",
        }
    }

    fn said(self) -> &'static str {
        match self {
            Self::Arriving => "in a request that arrives",
            Self::Sent => "in a request that a proxy on this host sends",
        }
    }
}

/// Whether it is blocked, by source or by header; `None` where that cannot be told.
pub(super) fn blocked(findings: &Findings) -> Option<bool> {
    match (&findings.source.verdict, &findings.heads.verdict) {
        (Verdict::Blocked, _) | (_, Verdict::Blocked) => Some(true),
        (Verdict::Unknown(_), _) | (_, Verdict::Unknown(_)) => None,
        (Verdict::NotBlocked, Verdict::NotBlocked) => Some(false),
    }
}

/// For people.
pub(super) fn text(asked: &Asked, findings: &Findings) -> String {
    let mut lines = Vec::new();
    if asked.is_network() {
        lines.push(format!("of {}, {} was tried", asked.net, asked.address));
    }
    source_text(asked, &findings.source, &mut lines);
    heads_text(asked, &findings.heads, &mut lines);
    lines.join("\n")
}

fn source_text(asked: &Asked, source: &Source, lines: &mut Vec<String>) {
    let on = match (&source.verdict, &source.ports) {
        (Verdict::Blocked, Ports::Some(ports)) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!(" on ports {} and on no other", ports.join(", "))
        }
        _ => String::new(),
    };
    lines.push(format!("source {}: {}{on}", asked.address, source.verdict.said()));
    let by = if source.verdict == Verdict::Blocked { "by" } else { "although there is" };
    lines.extend(source.by.iter().map(|cover| format!("  {by} {}", cover_text(cover))));
}

fn cover_text(cover: &Cover) -> String {
    let jail = cover.jail.as_ref().map_or_else(String::new, |jail| format!(" of jail {jail}"));
    let left = match cover.left {
        Some(left) => format!("{} seconds left", left.as_secs()),
        None => "permanent".to_owned(),
    };
    format!("{} in set {}{jail}, {left}", cover.element, cover.set)
}

fn heads_text(asked: &Asked, heads: &Heads, lines: &mut Vec<String>) {
    let address = asked.address;
    let same = heads.fields.iter().all(|field| field.verdict == heads.verdict);
    match (&heads.verdict, heads.fields.is_empty()) {
        (Verdict::NotBlocked, true) => {
            lines.push(format!("header with {address}: NOT blocked, no rule looks into request heads"));
        }
        (verdict, true) => lines.push(format!("header with {address}: {}", verdict.said())),
        (verdict, false) if same => {
            let arriving = heads.fields.iter().filter(|field| field.way == Way::Arriving);
            let names: Vec<&str> = arriving.map(|field| field.name.as_str()).collect();
            lines.push(format!(
                "header {} with {address}: {}, in requests that arrive and in those that a proxy on this host sends",
                names.join(", "),
                verdict.said()
            ));
        }
        (_, false) => lines.extend(heads.fields.iter().map(|field| {
            format!("header {} with {address} {}: {}", field.name, field.way.said(), field.verdict.said())
        })),
    }
    lines.extend(heads.by.iter().map(|rule| format!("  by {}", rule_text(rule))));
}

fn rule_text(rule: &Counted) -> String {
    let comment = rule.comment.as_ref().map_or_else(String::new, |comment| format!(" ({comment})"));
    format!("a rule of chain {} in table {} stockade{comment}", rule.chain, rule.family)
}

/// For programs. The keys stay.
pub(super) fn json(asked: &Asked, findings: &Findings) -> Value {
    json!({
        "asked": asked_text(asked),
        "address": asked.address.to_string(),
        "installed": true,
        "blocked": blocked(findings),
        "source": source_json(&findings.source),
        "headers": heads_json(&findings.heads),
    })
}

/// The same where there is nothing to try it against.
pub(super) fn json_nothing(asked: &Asked) -> Value {
    json!({
        "asked": asked_text(asked),
        "address": asked.address.to_string(),
        "installed": false,
        "blocked": false,
        "source": null,
        "headers": null,
    })
}

fn asked_text(asked: &Asked) -> String {
    if asked.is_network() { asked.net.to_string() } else { asked.address.to_string() }
}

fn source_json(source: &Source) -> Value {
    let ports = match &source.ports {
        Ports::All => json!("all"),
        Ports::Some(ports) => json!(ports),
    };
    let by = |cover: &Cover| {
        json!({
            "set": cover.set, "element": cover.element, "jail": cover.jail,
            "seconds_left": cover.left.map(|left| left.as_secs()), "packets": cover.packets,
        })
    };
    json!({
        "verdict": source.verdict.word(), "why": source.verdict.why(), "ports": ports,
        "elements": source.by.iter().map(by).collect::<Vec<_>>(),
    })
}

fn heads_json(heads: &Heads) -> Value {
    let field = |field: &Field| {
        json!({
            "name": field.name, "way": field.way.word(), "verdict": field.verdict.word(),
            "why": field.verdict.why(),
        })
    };
    let by = |rule: &Counted| {
        json!({
            "table": format!("{} stockade", rule.family), "chain": rule.chain, "comment": rule.comment,
        })
    };
    json!({
        "verdict": heads.verdict.word(), "why": heads.verdict.why(),
        "tried": heads.fields.iter().map(field).collect::<Vec<_>>(),
        "rules": heads.by.iter().map(by).collect::<Vec<_>>(),
    })
}
