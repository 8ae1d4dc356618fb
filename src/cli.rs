//! The command line: what may be typed, and the exit codes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Exit codes, the same for every command.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// A check or a lookup says no.
    pub const NO: u8 = 1;
    /// Wrong usage or configuration.
    pub const USAGE: u8 = 2;
    /// The agent is not reachable.
    pub const UNREACHABLE: u8 = 3;
    /// The kernel or the system refused.
    pub const REFUSED: u8 = 4;
}

/// Where the configuration is looked for.
pub use crate::config::DEFAULT_PATH as DEFAULT_CONFIG;

/// Follows proxy logs, counts offenses per jail and bans offenders in nf_tables.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 a check or a lookup says no, 2 wrong usage or configuration, \
    3 the agent is not reachable, 4 the kernel or the system refused.";

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub struct ConfigArg {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "STOCKADE_CONFIG", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// One verb each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent in the foreground
    Run {
        /// Decide and tell everything, enforce nothing
        #[arg(long)]
        observe: bool,
        /// Where there is no configuration, or one with mistakes, wait for a right one instead of ending
        #[arg(long)]
        wait: bool,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Say whether the configuration is right and what will be enforced where
    Check {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Print the ruleset as nft text and nothing else
        #[arg(long)]
        print_ruleset: bool,
    },
    /// Show what the agent does, jail by jail
    Status {
        /// Only this jail
        jail: Option<String>,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the current bans
    Bans {
        /// Only this jail's
        #[arg(long)]
        jail: Option<String>,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Ban addresses or networks by hand
    Ban {
        /// In this jail's name
        jail: String,
        /// Addresses or networks (203.0.113.7, 2001:db8::/48)
        #[arg(required = true, value_name = "ADDRESS|CIDR")]
        offenders: Vec<String>,
        /// How long (2h, 1d12h, permanent) [default: the jail's bantime]
        #[arg(long = "for", value_name = "DURATION", allow_hyphen_values = true)]
        time: Option<String>,
        /// Why, shown by `bans`
        #[arg(long)]
        reason: Option<String>,
        /// Ban even what is never banned (see ignoreip), and who would be locked out
        #[arg(long)]
        force: bool,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Lift bans
    Unban {
        /// Addresses or networks
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ADDRESS|CIDR")]
        offenders: Vec<String>,
        /// Every ban
        #[arg(long)]
        all: bool,
        /// Only this jail's
        #[arg(long)]
        jail: Option<String>,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show what a filter makes of a log (as fail2ban-regex)
    Test {
        /// A filter's name, or a failregex
        #[arg(value_name = "FILTER|REGEX")]
        filter: String,
        /// The log, - for standard input
        file: PathBuf,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object per line, the summary last
        #[arg(long)]
        json: bool,
        /// Print the lines of this outcome
        #[arg(long, value_enum, value_name = "OUTCOME")]
        print: Option<Outcome>,
    },
    /// Run jails over old logs in log time: who would have been banned, when, why
    Replay {
        /// The logs, oldest first, - for standard input
        #[arg(required = true, value_name = "LOG")]
        logs: Vec<PathBuf>,
        /// Only this jail
        #[arg(long)]
        jail: Option<String>,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object per decision, the summary last
        #[arg(long)]
        json: bool,
    },
    /// Explain one line step by step: format, fields, filter, offender, decision
    Explain {
        /// The line, - to read it from standard input
        line: String,
        /// Only this jail
        #[arg(long)]
        jail: Option<String>,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Prove that an address is blocked: try it against a copy of the installed ruleset
    Verify {
        /// An address, or a network of which one address is tried
        #[arg(value_name = "ADDRESS|CIDR")]
        address: String,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Have the agent read its configuration again
    Reload {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// End the agent; bans stay in the kernel until they run out
    Stop {
        /// Also remove the table, and with it every ban
        #[arg(long)]
        flush: bool,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Ask whether the agent does what it is there for
    Ping {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Look at this host, propose a configuration, and write it when told to
    Setup {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArg,
        /// Write it without asking
        #[arg(long)]
        yes: bool,
        /// Then run the jails over the last day's logs: who would have been banned
        #[arg(long)]
        observe: bool,
        /// Look at the host whose files are below this directory
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Print the completion of this command line for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// See it work in a network namespace of its own; nothing on this host is touched
    Demo,
    /// Print the version
    Version,
}

/// What became of a line in `test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    /// It is an offense.
    Matched,
    /// It is not one.
    Missed,
    /// It would be one, but `ignore` or `ignoreregex` says otherwise.
    Ignored,
}

impl Outcome {
    /// The word for it in output.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Missed => "missed",
            Self::Ignored => "ignored",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
