//! One thing that was looked at, and what was found.

use serde_json::{Value, json};

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// As it should be.
    Ok,
    /// Something that is configured cannot be enforced.
    No,
    /// It works, but not in the way, or not as far, as one may think.
    Heed,
    /// It could not be seen.
    Unknown,
    /// Not there, and not needed.
    Unneeded,
}

impl Mark {
    /// In front of the line.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::No => "NO",
            Self::Heed => "!!",
            Self::Unknown => "??",
            Self::Unneeded => "--",
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Ok | Self::Heed | Self::Unneeded => true.into(),
            Self::No => false.into(),
            Self::Unknown => Value::Null,
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Configuration,
    Enforcement,
    Process,
    Kernel,
    Host,
    Sinks,
    /// A jail: its name, and its policy in words.
    Jail(String, String),
}

impl Section {
    /// Above its findings.
    pub(super) fn heading(&self) -> String {
        match self {
            Self::Configuration => "configuration".to_owned(),
            Self::Enforcement => "how bans are enforced".to_owned(),
            Self::Process => "what this process may do".to_owned(),
            Self::Kernel => "what this kernel can do".to_owned(),
            Self::Host => "where this is".to_owned(),
            Self::Sinks => "where decisions go besides the kernel".to_owned(),
            Self::Jail(name, policy) => format!("jail {name} ({policy})"),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Enforcement => "enforcement",
            Self::Process => "process",
            Self::Kernel => "kernel",
            Self::Host => "host",
            Self::Sinks => "sinks",
            Self::Jail(..) => "jail",
        }
    }
}

/// A finding.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) section: Section,
    pub(super) mark: Mark,
    /// A word or two.
    pub(super) what: String,
    /// What was found.
    pub(super) told: String,
    /// What it means and what to do; only where something is missing.
    pub(super) advice: Vec<String>,
}

impl Finding {
    pub(super) fn new(
        section: Section,
        mark: Mark,
        what: impl Into<String>,
        told: impl Into<String>,
    ) -> Self {
        Self { section, mark, what: what.into(), told: told.into(), advice: Vec::new() }
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let jail = match &self.section {
            Section::Jail(name, _) => Some(name),
            _ => None,
        };
        json!({
            "section": self.section.word(), "jail": jail, "what": self.what, "ok": self.mark.value(),
            "mark": self.mark.sign(), "told": self.told, "advice": self.advice,
        })
    }
}
