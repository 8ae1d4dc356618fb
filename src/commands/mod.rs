//! One file per verb of the command line.

mod check;
mod client;
mod completions;
mod demo;
mod explain;
mod link;
mod log;
mod replay;
mod setup;
mod sources;
mod status;
mod stop;
mod test;
mod verify;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cli::{Cli, Command, exit};
use crate::config::{Config, ConfigError, Shipped};
use crate::control::Request;
use crate::daemon;
use crate::filter::{CompileError, builtin};

/// Runs what was asked for.
///
/// # Errors
/// Whatever went wrong; [`exit_code`] tells the code to end with.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run { observe, wait, config } => daemon::run(&config.config, observe, wait),
        Command::Check { config, json, print_ruleset } => check::run(&config.config, json, print_ruleset),
        Command::Status { jail, config, json } => client::status(&config.config, jail, json),
        Command::Bans { jail, config, json } => client::bans(&config.config, jail, json),
        Command::Ban { jail, offenders, time, reason, force, config, json } => {
            client::ban(&config.config, Request::Ban { jail, offenders, time, reason, force }, json)
        }
        // `--all` and offenders exclude each other; no offenders means all.
        Command::Unban { offenders, all: _, jail, config, json } => {
            client::unban(&config.config, Request::Unban { offenders, jail }, json)
        }
        Command::Test { filter, file, config, json, print } => {
            test::run(&config.config, &filter, &file, json, print)
        }
        Command::Replay { logs, jail, config, json } => {
            replay::run(&config.config, &logs, jail.as_deref(), json)
        }
        Command::Explain { line, jail, config } => explain::run(&config.config, &line, jail.as_deref()),
        Command::Verify { address, config, json } => verify::run(&config.config, &address, json),
        Command::Reload { config } => client::reload(&config.config),
        Command::Stop { flush, config } => stop::run(&config.config, flush),
        Command::Ping { config } => client::ping(&config.config),
        Command::Setup { config, yes, observe, root } => setup::run(&config.config, &root, yes, observe),
        Command::Completions { shell } => completions::run(shell),
        Command::Demo => demo::run(),
        Command::Version => print(&format!("stockade {}", env!("CARGO_PKG_VERSION"))),
    }
}

/// Reads a configuration, which may name the shipped filters.
///
/// # Errors
/// All mistakes at once.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    Config::load(path, &SHIPPED)
}

/// The same for commands that also work on a machine without one: then it is empty.
fn load_or_empty(path: &Path) -> Result<Config, ConfigError> {
    if path == Path::new(crate::cli::DEFAULT_CONFIG) && !path.exists() {
        return Config::parse("{}", "no configuration", &SHIPPED);
    }
    load(path)
}

/// Where the agent of this configuration is asked, as far as that can be made out.
pub(crate) fn control_socket(path: &Path) -> PathBuf {
    let paths = Config::paths(path, &SHIPPED);
    paths.map_or_else(|_| PathBuf::from(crate::config::DEFAULT_CONTROL), |paths| paths.control)
}

const SHIPPED: Shipped<'_> = Shipped { names: builtin::NAMES, text: builtin::text };

/// A failure whose exit code is known.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Ends with `code` and says `message`.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Ends with `code`; everything was said already.
    #[must_use]
    pub fn quiet(code: u8) -> Self {
        Self { code, message: String::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code for `error`. What is not classified is the system's refusal.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        failure.code
    } else if error.downcast_ref::<ConfigError>().is_some() || error.downcast_ref::<CompileError>().is_some()
    {
        exit::USAGE
    } else {
        exit::REFUSED
    }
}

/// Whether `error` is only that nobody reads our output any more (`stockade bans | head`).
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

/// One line to standard output; unlike `println!` it does not panic when nobody reads.
fn print(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}
