//! The documentation is true: every command it shows is run by a test, every configuration is one, every link leads somewhere.
//!
//! Needs root, `ip`, `nft`, `unshare` and `mount`; `tests/run` installs what is missing. Nothing is skipped.
#![expect(clippy::unwrap_used, reason = "what a test relies on and does not find fails the test")]

#[path = "../support/docs.rs"]
mod docs;
mod host;
mod page;

use std::fs;
use std::path::Path;

use clap::Parser as _;
use clap::error::ErrorKind;
use stockade::cli::Cli;

use docs::{blocks, documents};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every name that may stand in `<!-- runs: NAME -->`, and the test that runs those blocks.
const RUNNERS: &[(&str, &str)] = &[
    ("host", "tests/docs: with an agent on a host in namespaces of its own"),
    ("ci", "continuous integration itself, word for word: tests/docs sees that it does"),
    ("deb", "tests/packages: on a Debian that was made for it"),
    ("rpm", "tests/packages: with rpm's own tools"),
    ("container", "tests/docker: with a Docker engine of its own"),
];

#[test]
fn every_block_of_commands_is_run_by_a_test() {
    let mut wrong = Vec::new();
    for file in documents() {
        for block in blocks(&file) {
            let known = RUNNERS.iter().any(|(name, _)| *name == block.runner);
            // Without a language it is a drawing or what something prints.
            let commands =
                block.is_commands() || block.text.lines().any(|line| line.starts_with("stockade "));
            if commands != known {
                wrong.push(format!(
                    "{}:{}: {:?} {:?}",
                    file.display(),
                    block.line,
                    block.language,
                    block.runner
                ));
            }
        }
        let text = fs::read_to_string(top().join(&file)).unwrap();
        wrong.extend(
            text.lines()
                .filter(|l| l.starts_with("    stockade "))
                .map(|l| format!("{}: {l}", file.display())),
        );
    }
    assert!(wrong.is_empty(), "blocks that no test runs, or that are not commands:\n{}", wrong.join("\n"));
}

/// `stockade verify ADDRESS` within a sentence is not run, but it must be something that can be typed.
#[test]
fn every_command_within_a_sentence_is_one() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in documents() {
        let text = fs::read_to_string(top().join(&file)).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        // Every second piece between single quotes is code.
        for code in prose.split('`').skip(1).step_by(2).filter(|code| code.starts_with("stockade ")) {
            seen += 1;
            let words = code.split_whitespace().map(|word| word.trim_matches('"'));
            if let Err(e) = Cli::try_parse_from(words)
                && !matches!(e.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelp)
            {
                wrong.push(format!("{}: {code}: {e}", file.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_continuous_integration_is_said_to_run_it_runs() {
    let scripts: String =
        [".ci/run", "tests/run"].iter().map(|path| fs::read_to_string(top().join(path)).unwrap()).collect();
    let blocks = docs::run_by("ci");
    assert!(!blocks.is_empty());
    for block in blocks {
        for command in block.text.lines() {
            assert!(
                scripts.lines().map(str::trim).any(|line| {
                    // Behind a # stands what a line does in place of.
                    line.trim_start_matches("exec ") == command || line.ends_with(&format!(" # {command}"))
                }),
                "{}:{}: {command}",
                block.file.display(),
                block.line
            );
        }
    }
}
