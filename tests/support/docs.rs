//! The commands that the documentation shows, so that tests can run what a reader is told to run.
//!
//! A fenced block of commands (```` ```sh ````) has a comment in front of it that says which test runs it:
//! `<!-- runs: NAME -->`. `tests/docs` refuses a block without one, and one whose name no test claims.

use std::fs;
use std::path::{Path, PathBuf};

/// One block of commands.
#[derive(Debug)]
pub(crate) struct Block {
    /// The file, from the top of the tree.
    pub(crate) file: PathBuf,
    /// The line of its first command, from 1.
    pub(crate) line: usize,
    /// Who runs it; empty when nobody does.
    pub(crate) runner: String,
    /// The language behind the fence.
    pub(crate) language: String,
    /// The text between the fences.
    pub(crate) text: String,
}

impl Block {
    /// Whether somebody is to type what stands in it.
    pub(crate) fn is_commands(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "bash" | "console" | "shell")
    }
}

/// All documents for people: the README, CONTRIBUTING and `docs/`.
pub(crate) fn documents() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<PathBuf> = fs::read_dir(top)
        .unwrap()
        .chain(fs::read_dir(top.join("docs")).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .map(|path| path.strip_prefix(top).unwrap().to_owned())
        .collect();
    found.sort();
    found
}

/// Every fenced block of `file`, whatever its language.
pub(crate) fn blocks(file: &Path) -> Vec<Block> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let (mut found, mut runner) = (Vec::new(), String::new());
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(name) = line.trim().strip_prefix("<!-- runs: ").and_then(|l| l.strip_suffix(" -->")) {
            name.clone_into(&mut runner);
        } else if let Some(language) = line.trim().strip_prefix("```") {
            let inside: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            found.push(Block {
                file: file.to_owned(),
                line: number + 2,
                runner: std::mem::take(&mut runner),
                language: language.to_owned(),
                text: inside.join("\n"),
            });
        } else if !line.trim().is_empty() {
            runner.clear();
        }
    }
    found
}

/// The blocks of all documents that `runner` has to run, in the order of the files.
pub(crate) fn run_by(runner: &str) -> Vec<Block> {
    documents()
        .iter()
        .flat_map(|file| blocks(file))
        .filter(|block| block.is_commands() && block.runner == runner)
        .collect()
}
