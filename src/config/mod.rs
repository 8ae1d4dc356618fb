//! The configuration: what was typed, and what it means.
//!
//! A file becomes a `tree` of located nodes, then `raw` settings (each value judged by itself), then a [`Config`]
//! (values judged together). A [`Config`] cannot be invalid: nothing after it checks anything again. Mistakes are
//! collected on the way and said all at once, each with its place and with what to do.

mod cursor;
pub mod duration;
mod escalation;
pub mod filter;
mod headers;
pub mod names;
mod ports;
mod raw;
mod report;
pub(crate) mod resolve;
pub mod sinks;
mod size;
mod sources;
mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::headers::{Backend, HeaderAction, Headers, MatcherChoice};
pub use self::names::AllowEntry;
pub use self::report::{ConfigError, Location, Remark};
pub use self::sinks::Sink;
pub use self::sources::Sources;
use crate::engine::Escalation;
use crate::filter::definition::Definition;
use crate::source::Shape;
use crate::source::docker::Selector;
use crate::source::journal::Matches;
use crate::source::syslog::Address;
use crate::types::BanTime;

/// Where the configuration is unless `--config` or `STOCKADE_CONFIG` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/stockade/config.yaml";

/// Where the agent is asked unless `paths.control` says otherwise.
pub const DEFAULT_CONTROL: &str = "/run/stockade/control.sock";

/// A larger file is not a configuration, and is not read.
const SIZE_MAX: u64 = 8 << 20;

/// A configuration, valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The enabled jails, in the order of the file.
    pub jails: Vec<Jail>,
    /// The file's own filters, used by a jail or not, and the shipped ones that jails use.
    pub filters: BTreeMap<String, Arc<Definition>>,
    /// Never banned, whatever the jail.
    pub ignoreip: Vec<AllowEntry>,
    /// May speak for others: who is behind them stands in the line.
    pub trusted_proxies: Vec<AllowEntry>,
    /// Where decisions may go besides the kernel, in the order of the file.
    pub sinks: Vec<Sink>,
    /// Whether and how what Cloudflare connects from is fetched.
    pub cloudflare_ranges: Option<sinks::CloudflareRanges>,
    /// What holds for all sources of a kind, besides files.
    pub sources: Sources,
    /// What enforces bans by the packet's source.
    pub backend: Backend,
    /// Bans by an address in a request head.
    pub headers: Headers,
    /// Where the agent keeps its own files.
    pub paths: Paths,
    /// Bounds on memory.
    pub limits: Limits,
    /// When a line of a banned offender is a leak.
    pub leaks: Leaks,
    /// What the agent itself logs.
    pub log: Log,
    /// What is probably not meant as it is written, in the order of the file.
    pub warnings: Vec<Remark>,
}

/// A watched thing and its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    /// 1 to 64 of `a-z A-Z 0-9 . _ -`, beginning with a letter or a digit; unique.
    pub name: String,
    /// Always true in [`Config::jails`].
    pub enabled: bool,
    /// The name of the filter that finds its offenses.
    pub filter_name: String,
    /// That filter, as it is written; the jails that share a name share it.
    pub filter: Arc<Definition>,
    /// Absolute paths, which may be globs. A jail has at least one of these, or of the three below.
    pub logpath: Vec<String>,
    /// Entries of systemd's journal.
    pub journal: Option<Matches>,
    /// Containers whose logs are followed.
    pub docker: Vec<Selector>,
    /// Where messages of syslog are listened for.
    pub listen: Vec<Address>,
    /// What of an entry or a message its filter is given; `None`: what the filter is made for.
    pub render: Option<Shape>,
    /// Where a file that is there when the agent starts is begun.
    pub from: From,
    /// So many offenses within `findtime` are a ban; at least 1.
    pub maxretry: u32,
    /// At least a second.
    pub findtime: Duration,
    /// At least a second, or without an end.
    pub bantime: BanTime,
    /// How the bans of repeaters grow; `None`: they do not.
    pub escalation: Option<Arc<Escalation>>,
    /// An IPv6 offender is counted and banned as a network of this length; 32 to 128.
    pub ipv6_prefix: u8,
    /// Never banned by this jail, besides [`Config::ignoreip`].
    pub ignoreip: Vec<AllowEntry>,
    /// Everything is decided and told, nothing enforced.
    pub observe: bool,
    /// The names of sinks that its decisions go to; each is in [`Config::sinks`].
    pub sinks: Vec<String>,
    /// Ports a ban closes, sorted; none means all.
    pub ports: Vec<u16>,
    /// The zone of time stamps that carry none: `UTC`, `+01:00` or an IANA name. `None`: the filter's, else the host's.
    pub timezone: Option<String>,
}

/// Where a file that is there when the agent starts is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// At the first line within `findtime`.
    #[default]
    Recent,
    /// At its first line.
    Start,
    /// At its end.
    End,
}

/// Where the agent keeps its own files; absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// A directory.
    pub state: PathBuf,
    /// A Unix socket.
    pub control: PathBuf,
}

/// Bounds on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many offenders are remembered at once, all jails together.
    pub offenders: usize,
    /// So many repeaters are remembered at once, all jails together.
    pub history: usize,
    /// A line of more bytes is skipped.
    pub line: usize,
    /// The agent's own memory stays below so many bytes; see `budget`.
    pub memory: u64,
}

/// When a line of a banned offender is a leak: a request that came through in spite of the ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaks {
    /// What happened within this time after the ban is none: what was under way then may be logged yet.
    pub grace: Duration,
}

/// What the agent itself logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least urgent level that is logged.
    pub level: LogLevel,
    /// The shape of a line.
    pub format: LogFormat,
}

/// A level of the agent's own log; each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What may be wrong.
    Warn,
    /// What was done.
    #[default]
    Info,
    /// Why it was done.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word for it in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The shape of a line of the agent's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For reading.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// The filters that come with the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped<'a> {
    /// Their names.
    pub names: &'a [&'a str],
    /// The document of the filter of that name, as [`filter::definition`] reads it.
    pub text: fn(&str) -> Option<&'static str>,
}

impl Shipped<'_> {
    /// No filters.
    pub const NONE: Self = Self { names: &[], text: |_| None };
}

impl Config {
    /// Reads a file. Besides what is wrong inside, it is a warning when every user may change the file.
    pub fn load(path: &Path, shipped: &Shipped<'_>) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let (bytes, mode) = read_bounded(path).map_err(read)?;
        let name = path.display().to_string();
        let mut config = Self::parse_bytes(&bytes, &name, shipped)?;
        if mode & 0o002 != 0 {
            let text =
                "every user of this host may change this file, and so whom it bans; chmod o-w it".to_owned();
            config
                .warnings
                .insert(0, Remark { file: report::clean(&name).into(), at: None, path: String::new(), text });
        }
        Ok(config)
    }

    /// Reads `text`; `file_name` is what mistakes call it.
    pub fn parse(text: &str, file_name: &str, shipped: &Shipped<'_>) -> Result<Self, ConfigError> {
        Self::parse_bytes(text.as_bytes(), file_name, shipped)
    }

    /// Only where the agent's own files are, also from a file with mistakes elsewhere: a running agent must stay
    /// reachable while its configuration is being edited. Where the file says nothing, or is not there, the default.
    ///
    /// # Errors
    /// When there is a file and it cannot be read.
    pub fn paths(path: &Path, shipped: &Shipped<'_>) -> Result<Paths, ConfigError> {
        let bytes = match read_bounded(path) {
            Ok((bytes, _)) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
                Vec::new()
            }
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Ok(interpret(&bytes, &path.display().to_string(), shipped).0.paths)
    }

    /// Has every jail only observe.
    pub fn observe_all(&mut self) {
        for jail in &mut self.jails {
            jail.observe = true;
        }
    }

    /// As [`Config::parse`], of bytes that may not be text.
    pub fn parse_bytes(bytes: &[u8], file_name: &str, shipped: &Shipped<'_>) -> Result<Self, ConfigError> {
        let (config, report) = interpret(bytes, file_name, shipped);
        Ok(Self { warnings: report.finish()?, ..config })
    }
}

/// The file's bytes and its mode.
fn read_bounded(path: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut bytes = Vec::new();
    // One byte more than is allowed tells a file that is too large from one that just fits.
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

/// What the bytes say, as far as it can be made out, and what is wrong with it.
fn interpret(bytes: &[u8], file_name: &str, shipped: &Shipped<'_>) -> (Config, report::Report) {
    let mut report = report::Report::new(file_name);
    let node = text(bytes, &mut report).and_then(|text| tree::read(text, &mut report));
    // Where there is no document the report says why.
    let raw = node.map(|node| raw::read(&cursor::Cursor::root(&node), &mut report)).unwrap_or_default();
    let config = resolve::resolve(raw, shipped, &mut report);
    (config, report)
}

fn text<'t>(bytes: &'t [u8], report: &mut report::Report) -> Option<&'t str> {
    if bytes.len() as u64 > SIZE_MAX {
        report.mistake(None, "", format!("is larger than {} MiB; is this the right file?", SIZE_MAX >> 20));
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(e) => {
            let before = String::from_utf8_lossy(bytes.get(..e.valid_up_to()).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
            let at = Location { line: count(line), column: count(column) };
            report.mistake(Some(at), "", "is not UTF-8 text from here; save the file as UTF-8");
            None
        }
    }
}
