//! What is wrong with a configuration, and where: collected, so that all of it is said at once.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

/// At most so many mistakes are kept: after them it is the wrong file, and the list is of no more help.
const MISTAKES_KEPT: usize = 100;

/// A place in a file; both numbers count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// A mistake or a warning: where it is, what is wrong there, and what to do about it.
///
/// Shown as `config.yaml:14:5: jails.npm.maxrety: unknown key; did you mean `maxretry`?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The file, as it was named to the reader.
    pub file: Arc<str>,
    /// Where in it; `None` when it is about the file as a whole.
    pub at: Option<Location>,
    /// The keys that lead there, joined by dots; empty for the whole document.
    pub path: String,
    /// What is wrong, and what to do. One line, no control characters.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Location { line, column }) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("failed to read the configuration {} (--config names another)", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It was read, and holds these mistakes, in the order of the file; never empty.
    #[error("{}", Lines(.0))]
    Mistakes(Vec<Remark>),
}

impl ConfigError {
    /// All mistakes, in the order of the file; none when the file could not be read.
    #[must_use]
    pub fn mistakes(&self) -> &[Remark] {
        match self {
            Self::Read { .. } => &[],
            Self::Mistakes(all) => all,
        }
    }
}

struct Lines<'a>(&'a [Remark]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, remark) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            remark.fmt(f)?;
        }
        Ok(())
    }
}

/// The keys that lead to a node, as a list on the stack: it costs nothing until a mistake is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => {
                parent.fmt(f)?;
                if !matches!(parent, Self::Root) {
                    f.write_str(".")?;
                }
                if key.is_empty() { f.write_str("\"\"") } else { f.write_str(&shown(key)) }
            }
            Self::Item(parent, index) => {
                parent.fmt(f)?;
                write!(f, "[{index}]")
            }
        }
    }
}

/// Text of the file made fit for a message: nothing a terminal would obey, and not endless.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => clean(text.get(..end).unwrap_or_default()) + "…",
        None => clean(text),
    }
}

/// Text without anything a terminal would obey: control characters, and those that change the direction of writing.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let layout = matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || layout {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Collects mistakes and warnings about one file.
#[derive(Debug)]
pub(super) struct Report {
    file: Arc<str>,
    mistakes: Vec<Remark>,
    warnings: Vec<Remark>,
    unsaid: usize,
}

impl Report {
    pub(super) fn new(file: &str) -> Self {
        Self { file: clean(file).into(), mistakes: Vec::new(), warnings: Vec::new(), unsaid: 0 }
    }

    pub(super) fn mistake(&mut self, at: Option<Location>, path: impl fmt::Display, text: impl Into<String>) {
        if self.mistakes.len() >= MISTAKES_KEPT {
            self.unsaid += 1;
            return;
        }
        let remark = self.remark(at, path, text.into());
        // A block that several jails merge is wrong once, not once per jail.
        if !self.mistakes.iter().any(|m| same_cause(m, &remark)) {
            self.mistakes.push(remark);
        }
    }

    pub(super) fn warning(&mut self, at: Option<Location>, path: impl fmt::Display, text: impl Into<String>) {
        if self.warnings.len() < MISTAKES_KEPT {
            let remark = self.remark(at, path, text.into());
            if !self.warnings.iter().any(|m| same_cause(m, &remark)) {
                self.warnings.push(remark);
            }
        }
    }

    /// Takes over what was said about another text.
    pub(super) fn absorb(&mut self, mistakes: &[Remark]) {
        self.mistakes.extend_from_slice(mistakes);
    }

    /// The warnings if there was no mistake, else all mistakes, in the order of the file.
    pub(super) fn finish(mut self) -> Result<Vec<Remark>, ConfigError> {
        if self.mistakes.is_empty() {
            self.warnings.sort_by_key(|r| r.at);
            return Ok(self.warnings);
        }
        // Those about another text (a shipped filter) come last.
        self.mistakes.sort_by_key(|r| (r.file != self.file, r.at));
        if self.unsaid > 0 {
            let text = format!("{} more mistakes are not shown; mend these first", self.unsaid);
            let more = self.remark(None, "", text);
            self.mistakes.push(more);
        }
        Err(ConfigError::Mistakes(self.mistakes))
    }

    fn remark(&self, at: Option<Location>, path: impl fmt::Display, text: String) -> Remark {
        Remark { file: Arc::clone(&self.file), at, path: path.to_string(), text }
    }
}

fn same_cause(a: &Remark, b: &Remark) -> bool {
    a.at.is_some() && a.at == b.at && a.text == b.text
}
