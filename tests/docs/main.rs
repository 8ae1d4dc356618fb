//! The documentation is true: every command it shows is run by a test, and every file it names is there.
#![expect(clippy::unwrap_used, reason = "what a test relies on and does not find fails the test")]

#[path = "../support/docs.rs"]
mod docs;

#[test]
fn every_block_of_commands_is_run_by_a_test() {
    let mut wrong = Vec::new();
    for file in docs::documents() {
        for block in docs::blocks(&file) {
            let known = docs::RUNNERS.iter().any(|(name, _)| *name == block.runner);
            let commands = matches!(block.language.as_str(), "sh" | "bash" | "console" | "shell");
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
    }
    assert!(wrong.is_empty(), "blocks without a test that runs them:\n{}", wrong.join("\n"));
}
