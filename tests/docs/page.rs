//! What stands in the documents besides commands: configurations, the ruleset, links, and the crates.

use std::fs;
use std::path::Path;
use std::process::Command;

use stockade::commands::load;

use crate::docs::{blocks, documents};
use crate::top;

/// Keys at the top of a configuration of ours; what begins with another key is somebody else's file.
const KEYS: &[&str] = &[
    "ignoreip",
    "trusted_proxies",
    "defaults",
    "escalation",
    "jails",
    "filters",
    "sinks",
    "docker",
    "headers",
    "paths",
    "leaks",
    "limits",
    "log",
    "backend",
    "syslog",
    "journal",
    "cloudflare_ranges",
];

fn key_of(text: &str) -> &str {
    let line =
        text.lines().find(|line| !line.starts_with('#') && !line.trim().is_empty()).unwrap_or_default();
    line.split(':').next().unwrap_or_default()
}

#[test]
fn every_configuration_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let (mut tried, mut wrong) = (0, Vec::new());
    for file in documents() {
        for block in
            blocks(&file).into_iter().filter(|b| b.language == "yaml" && KEYS.contains(&key_of(&b.text)))
        {
            // A sink that is shown alone may be used by jails that are not; one that is named stands elsewhere.
            fs::write(&path, &block.text).unwrap();
            tried += 1;
            if let Err(e) = load(&path) {
                wrong.push(format!("{}:{}: {e}", file.display(), block.line));
            }
        }
    }
    assert!(tried >= 10, "only {tried} configurations were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_ruleset_that_is_shown_is_the_one_that_is_installed() {
    let file = Path::new("docs/kernel.md");
    let blocks = blocks(file);
    let config = &blocks.iter().find(|b| b.language == "yaml").unwrap().text;
    let shown = &blocks.iter().find(|b| b.language == "nft").unwrap().text;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, config).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_stockade"))
        .args(["check", "--print-ruleset", "--config", path.to_str().unwrap()])
        .output()
        .unwrap();
    let printed = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(shown.trim(), printed.trim(), "docs/kernel.md shows another ruleset than is installed");
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in documents() {
        let text = fs::read_to_string(top().join(&file)).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            seen += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if path.is_empty() {
                top().join(&file)
            } else {
                top().join(file.parent().unwrap()).join(path)
            };
            let there = to.exists()
                && (anchor.is_empty() || headings(&fs::read_to_string(&to).unwrap()).any(|h| h == anchor));
            if !there {
                wrong.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} links were found");
    assert!(wrong.is_empty(), "links to nowhere:\n{}", wrong.join("\n"));
}

/// Anchors of a document's headings, as common renderers make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        line.trim_start_matches('#')
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'))
            .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
            .collect()
    })
}

#[test]
fn every_dependency_is_told_with_its_reason() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let told = fs::read_to_string(top().join("docs/dependencies.md")).unwrap();
    let mut inside = false;
    let mut missing = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside
            && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty())
        {
            let ours = name == "stockade-nft";
            let named = told
                .lines()
                .filter(|line| line.starts_with('|'))
                .filter_map(|line| line.split('|').nth(1))
                .any(|cell| cell.split(',').any(|it| it.trim() == name));
            if !ours && !named {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "docs/dependencies.md does not say what these are for: {missing:?}");
}
