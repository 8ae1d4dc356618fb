//! A definition, compiled.

use jiff::tz::TimeZone;

use super::condition::Condition;
use super::definition::{Clause, Definition};
use super::fields::{Field, Statuses};
use super::format::{Format, Paths};
use super::pattern::Patterns;
use super::timestamp;

/// A filter, ready to be used by any number of jails.
#[derive(Clone, Debug)]
pub struct Filter {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The zone of stamps that carry none.
    pub(super) zone: TimeZone,
    warnings: Vec<String>,
}

/// A definition could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter `{filter}`, key `{key}`{}: {reason}", .pattern.as_ref().map(|p| format!(", pattern `{p}`")).unwrap_or_default())]
pub struct CompileError {
    /// The filter's name.
    pub filter: String,
    /// The key of the definition: `format`, `match`, `failregex`, ...
    pub key: &'static str,
    /// The pattern, path or name that was refused.
    pub pattern: Option<String>,
    /// What is wrong and what to do.
    pub reason: String,
}

/// The two kinds of filters.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Structured(Box<Structured>),
    Regex(Box<Patterns>),
}

/// Conditions on the fields of a format.
#[derive(Clone, Debug)]
pub(super) struct Structured {
    pub(super) formats: Vec<Format>,
    pub(super) matches: Vec<Condition>,
    pub(super) ignore: Vec<Condition>,
    /// Statuses with which a line can match.
    pub(super) interest: Statuses,
    /// The paths of [`Format::Json`].
    pub(super) paths: Paths,
}

/// What the conditions say of a line's fields: which `match`, which `ignore`, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Matched(usize),
    Ignored(usize),
    Passed,
}

impl Filter {
    /// Compiles a definition. Stamps without a zone are meant in its `timezone`, or else in `zone`.
    ///
    /// # Errors
    /// Names the filter, the key, what was refused and why.
    pub fn compile(name: &str, definition: &Definition, zone: &TimeZone) -> Result<Self, CompileError> {
        let compiler = Compiler { name, definition };
        let zone = match &definition.timezone {
            Some(text) => compiler.zone(text)?,
            None => zone.clone(),
        };
        let (kind, warnings) = match (definition.formats.is_empty(), definition.failregex.is_empty()) {
            (false, false) => {
                return Err(compiler.error(
                    "failregex",
                    None,
                    "a filter has either `format` or `failregex`, not both",
                ));
            }
            (true, true) => {
                return Err(compiler.error(
                    "format",
                    None,
                    "is missing; a filter needs `format` and `match`, or `failregex`",
                ));
            }
            (false, true) => (Kind::Structured(Box::new(compiler.structured()?)), Vec::new()),
            (true, false) => {
                let (patterns, warnings) = compiler.patterns()?;
                (Kind::Regex(Box::new(patterns)), warnings)
            }
        };
        Ok(Self { name: name.to_owned(), kind, zone, warnings })
    }

    /// The same filter for a log whose stamps are meant in `zone`, whatever the definition says.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is made for lines as syslog writes them into files, with host and program before the message: patterns are,
    /// since fail2ban's are, and sshd's format. Formats of access logs and of JSON know no such head.
    #[must_use]
    pub fn reads_syslog(&self) -> bool {
        match &self.kind {
            Kind::Structured(structured) => structured.formats.contains(&Format::Sshd),
            Kind::Regex(_) => true,
        }
    }

    /// What is allowed but doubtful, each with the pattern's number; to be shown once, when the configuration is read.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Structured {
    pub(super) fn judge(&self, fields: &super::fields::Fields<'_>) -> Verdict {
        let Some(matched) = self.matches.iter().position(|c| c.holds(fields)) else { return Verdict::Passed };
        match self.ignore.iter().position(|c| c.holds(fields)) {
            Some(ignored) => Verdict::Ignored(ignored),
            None => Verdict::Matched(matched),
        }
    }
}

struct Compiler<'d> {
    name: &'d str,
    definition: &'d Definition,
}

impl Compiler<'_> {
    fn error(&self, key: &'static str, pattern: Option<&str>, reason: impl ToString) -> CompileError {
        CompileError {
            filter: self.name.to_owned(),
            key,
            pattern: pattern.map(ToOwned::to_owned),
            reason: reason.to_string(),
        }
    }

    fn patterns(&self) -> Result<(Patterns, Vec<String>), CompileError> {
        let d = self.definition;
        self.without(
            &["match", "ignore", "time", "peer", "forwarded"],
            "belongs to a `format`, and the filter has `failregex`",
        )?;
        Patterns::compile(&d.failregex, &d.ignoreregex)
            .map_err(|(key, pattern, reason)| self.error(key, Some(&pattern), reason))
    }

    fn structured(&self) -> Result<Structured, CompileError> {
        let d = self.definition;
        self.without(
            &["ignoreregex"],
            "belongs to `failregex`; state what a `format` ignores under `ignore`",
        )?;
        let mut formats = Vec::with_capacity(d.formats.len());
        for name in &d.formats {
            let Some(format) = Format::named(name) else {
                let known: Vec<&str> = Format::NAMES.iter().map(|n| n.1).collect();
                return Err(self.error(
                    "format",
                    Some(name),
                    format!("is not known; there are {}", known.join(", ")),
                ));
            };
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        let mut paths = Paths::default();
        if formats.contains(&Format::Json) {
            if formats.len() > 1 {
                return Err(self.error(
                    "format",
                    Some("json"),
                    "stands alone: its fields are paths, those of other formats are names",
                ));
            }
            self.json(&mut paths)?;
        } else {
            self.without(
                &["time", "peer", "forwarded"],
                "is a path of `format: json`; other formats know where it is",
            )?;
        }
        if d.matches.is_empty() {
            return Err(self.error("match", None, "is missing: without it no line is an offense"));
        }
        let matches = self.conditions("match", &d.matches, &formats, &mut paths)?;
        let ignore = self.conditions("ignore", &d.ignore, &formats, &mut paths)?;
        let mut interest = Statuses::NONE;
        for condition in &matches {
            condition.add_interest(&mut interest);
        }
        Ok(Structured { formats, matches, ignore, interest, paths })
    }

    fn conditions(
        &self,
        key: &'static str,
        clauses: &[Clause],
        formats: &[Format],
        paths: &mut Paths,
    ) -> Result<Vec<Condition>, CompileError> {
        clauses
            .iter()
            .map(|clause| Condition::compile(clause, formats, paths).map_err(|e| self.error(key, None, e)))
            .collect()
    }

    /// Time, peer and forwarded get the numbers that the fields of these names have. A forwarded list alone is a peer that is a list.
    fn json(&self, paths: &mut Paths) -> Result<(), CompileError> {
        let d = self.definition;
        let (peer, forwarded) = match (&d.peer, &d.forwarded) {
            (None, None) => {
                let reason = "is missing: the path of the address that connected, such as `.remote_ip`";
                return Err(self.error("peer", None, reason));
            }
            (None, Some(_)) => {
                paths.list = true;
                (("forwarded", &d.forwarded), ("forwarded", &None))
            }
            (Some(_), _) => (("peer", &d.peer), ("forwarded", &d.forwarded)),
        };
        for (key, path) in [("time", &d.time), peer, forwarded] {
            paths.add_fixed(path.as_deref()).map_err(|e| self.error(key, path.as_deref(), e))?;
        }
        paths.require(Field::Peer as usize);
        Ok(())
    }

    /// None of these keys may be there.
    fn without(&self, keys: &[&'static str], reason: &str) -> Result<(), CompileError> {
        let d = self.definition;
        for &key in keys {
            let present = match key {
                "match" => !d.matches.is_empty(),
                "ignore" => !d.ignore.is_empty(),
                "ignoreregex" => !d.ignoreregex.is_empty(),
                "time" => d.time.is_some(),
                "peer" => d.peer.is_some(),
                _ => d.forwarded.is_some(),
            };
            if present {
                return Err(self.error(key, None, reason));
            }
        }
        Ok(())
    }

    fn zone(&self, text: &str) -> Result<TimeZone, CompileError> {
        timestamp::zone(text).ok_or_else(|| {
            self.error("timezone", Some(text), "is neither an IANA name, nor UTC, nor like +01:00")
        })
    }
}

#[cfg(test)]
mod tests;
