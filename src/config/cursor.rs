//! Typed reading of a tree: each step either yields a value or reports what is wrong with it.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::report::{Location, Path, Report, shown};
use super::tree::{Key, Kind, Node};

/// A node and the keys that lead to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) node: &'a Node,
    pub(super) path: Path<'a>,
}

/// A map that was found to hold known keys; unknown ones are reported already.
pub(super) struct Section<'a> {
    path: Path<'a>,
    entries: &'a [(Key, Node)],
}

impl<'a> Cursor<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, path: Path::Root }
    }

    pub(super) fn at(&self) -> Location {
        self.node.at
    }

    pub(super) fn mistake(&self, report: &mut Report, text: impl Into<String>) {
        report.mistake(Some(self.node.at), self.path, text);
    }

    pub(super) fn warning(&self, report: &mut Report, text: impl Into<String>) {
        report.warning(Some(self.node.at), self.path, text);
    }

    /// The entries of a map whose keys are the user's own.
    pub(super) fn entries(&self, report: &mut Report) -> Vec<(&'a Key, Cursor<'_>)> {
        let entry =
            |(key, node): &'a (Key, Node)| (key, Cursor { node, path: Path::Key(&self.path, &key.text) });
        self.map(report).iter().map(entry).collect()
    }

    /// A map with these keys and no others.
    pub(super) fn section(&self, known: &[&str], report: &mut Report) -> Section<'_> {
        self.section_with(known, |_| None, report)
    }

    /// The same, where of some unknown keys more is known: what there is to say of them.
    pub(super) fn section_with(
        &self,
        known: &[&str],
        hint: impl Fn(&str) -> Option<String>,
        report: &mut Report,
    ) -> Section<'_> {
        let entries = self.map(report);
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                let path = Path::Key(&self.path, &key.text);
                let near = || nearest(&key.text, known.iter().copied());
                let hint =
                    match hint(&key.text).or_else(|| near().map(|word| format!("did you mean `{word}`?"))) {
                        Some(hint) => hint,
                        None => format!("known here are {}", known.join(", ")),
                    };
                report.mistake(Some(key.at), path, format!("unknown key; {hint}"));
            }
        }
        Section { path: self.path, entries }
    }

    /// What stands under `key` in a map; nothing is reported.
    pub(super) fn quiet(&self, key: &str) -> Option<Cursor<'_>> {
        let Kind::Map(entries) = &self.node.kind else { return None };
        let (key, node) = entries.iter().find(|(k, _)| k.text == key)?;
        Some(Cursor { node, path: Path::Key(&self.path, &key.text) })
    }

    /// Whether this is a map or nothing; anything else is reported.
    pub(super) fn is_map(&self, report: &mut Report) -> bool {
        let is = match &self.node.kind {
            Kind::Map(_) => true,
            Kind::Scalar(s) => s.is_null(),
            Kind::Seq(_) => false,
        };
        if !is {
            self.mistake(report, format!("expected a map, found {}", self.found()));
        }
        is
    }

    /// Nothing written is a map without entries: under `jails:` all may be commented out.
    fn map(&self, report: &mut Report) -> &'a [(Key, Node)] {
        match &self.node.kind {
            Kind::Map(entries) => entries,
            _ => {
                self.is_map(report);
                &[]
            }
        }
    }

    /// The items of a list, or the one item that stands in place of a list.
    pub(super) fn items(&self) -> Vec<Cursor<'_>> {
        match &self.node.kind {
            Kind::Seq(items) => {
                let item = |(i, node)| Cursor { node, path: Path::Item(&self.path, i) };
                items.iter().enumerate().map(item).collect()
            }
            _ => vec![*self],
        }
    }

    /// One or a list of what `read` reads; what it cannot read is reported and left out.
    pub(super) fn list<T>(
        &self,
        report: &mut Report,
        read: impl Fn(&Cursor<'_>, &mut Report) -> Option<T>,
    ) -> Vec<T> {
        self.items().iter().filter_map(|item| read(item, report)).collect()
    }

    /// The text of a scalar; numbers and truth values are text too.
    pub(super) fn text(&self, report: &mut Report) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar(s) if s.is_null() => {
                self.mistake(report, "has no value; give one or take the key out");
                None
            }
            Kind::Scalar(s) => Some(&s.text),
            Kind::Seq(_) => {
                self.mistake(report, "expected one value, found a list");
                None
            }
            Kind::Map(_) => {
                self.mistake(
                    report,
                    "expected one value, found a map; text with a `: ` in it or a `:` at its end must stand in quotes",
                );
                None
            }
        }
    }

    /// The text of a scalar, if it is one; nothing is reported.
    pub(super) fn plain(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar(s) if !s.is_null() => Some(&s.text),
            _ => None,
        }
    }

    /// As [`Cursor::text`], but never empty.
    pub(super) fn some_text(&self, report: &mut Report) -> Option<&'a str> {
        let text = self.text(report)?;
        if text.trim().is_empty() {
            self.mistake(report, "is empty");
            return None;
        }
        Some(text)
    }

    /// A whole number in `range`.
    pub(super) fn whole(&self, range: RangeInclusive<u64>, report: &mut Report) -> Option<u64> {
        let text = self.text(report)?;
        let (low, high) = (range.start(), range.end());
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if plain && text.len() > 1 && text.starts_with('0') {
            self.mistake(
                report,
                format!("`{}` begins with 0, which some read as octal; write it without", shown(text)),
            );
            return None;
        }
        // What does not fit 64 bits is above every range.
        let n = if plain { text.parse().unwrap_or(u64::MAX) } else { 0 };
        if !plain || !range.contains(&n) {
            let text = format!("expected a whole number from {low} to {high}, found {}", self.found());
            self.mistake(report, text);
            return None;
        }
        Some(n)
    }

    /// `true` or `false`; also `yes`, `no`, `on` and `off`, as YAML 1.1 and fail2ban have them.
    pub(super) fn flag(&self, report: &mut Report) -> Option<bool> {
        let text = self.text(report)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => {
                self.mistake(report, format!("expected true or false, found {}", self.found()));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)], report: &mut Report) -> Option<T> {
        let text = self.text(report)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.mistake(report, format!("expected one of {}, found {}", all.join(", "), self.found()));
        None
    }

    /// An absolute path (a glob is one too).
    pub(super) fn absolute(&self, report: &mut Report) -> Option<&'a str> {
        let text = self.some_text(report)?;
        if !text.starts_with('/') {
            let text = format!("`{}` is a relative path; write it from `/`", shown(text));
            self.mistake(report, text);
            return None;
        }
        if text.contains('\0') {
            self.mistake(report, "a path cannot hold a NUL");
            return None;
        }
        Some(text)
    }

    /// An absolute path of one file.
    pub(super) fn path(&self, report: &mut Report) -> Option<PathBuf> {
        self.absolute(report).map(PathBuf::from)
    }

    /// What stands here, for a message.
    pub(super) fn found(&self) -> String {
        match &self.node.kind {
            Kind::Scalar(s) if s.is_null() => "nothing".to_owned(),
            Kind::Scalar(s) => format!("`{}`", shown(&s.text)),
            Kind::Seq(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}

impl Section<'_> {
    pub(super) fn get(&self, key: &str) -> Option<Cursor<'_>> {
        let (key, node) = self.entries.iter().find(|(k, _)| k.text == key)?;
        Some(Cursor { node, path: Path::Key(&self.path, &key.text) })
    }

    /// What `read` makes of this key's value; `None` when the key is absent or its value a mistake.
    pub(super) fn read<T>(
        &self,
        key: &str,
        report: &mut Report,
        read: impl FnOnce(&Cursor<'_>, &mut Report) -> Option<T>,
    ) -> Option<T> {
        read(&self.get(key)?, report)
    }
}

/// The word that was probably meant: one edit in three letters, not counting case, `-` and `_`.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const LONGEST: usize = 64;
    let bare =
        |w: &str| w.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_ascii_lowercase();
    if word.len() > LONGEST {
        return None;
    }
    let wanted = bare(word);
    known
        .map(|k| (strsim::damerau_levenshtein(&wanted, &bare(k)), k))
        .filter(|(edits, k)| *edits <= (k.len().max(wanted.len()) / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, k)| k)
}
