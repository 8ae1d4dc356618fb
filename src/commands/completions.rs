//! `stockade completions`: what a shell needs to complete this command line.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::print;
use crate::cli::Cli;

/// Prints the completion script for `shell`.
pub(super) fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stockade", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
