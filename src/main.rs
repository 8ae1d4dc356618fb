//! The `stockade` program: reads the command line, runs the command, prints what went wrong once.

use std::process::ExitCode;

use clap::Parser;
use stockade::cli::{Cli, exit};
use stockade::commands;

fn main() -> ExitCode {
    // clap ends with 2 for wrong usage and 0 for --help, as documented.
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) if commands::is_broken_pipe(&error) => ExitCode::from(exit::DONE),
        Err(error) => {
            let message = format!("{error:#}");
            if !message.is_empty() {
                eprintln!("stockade: {message}");
            }
            ExitCode::from(commands::exit_code(&error))
        }
    }
}
