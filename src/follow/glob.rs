//! Patterns of paths: matching a name, and walking the directories that a pattern names.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::position::Identity;

/// A pattern, cut at its slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Component>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    Literal(OsString),
    Glob(Box<[u8]>),
}

/// Whether `path`, which is absolute, is one that a source with this pattern follows.
#[must_use]
pub fn pattern_matches(pattern: &str, path: &Path) -> bool {
    Pattern::parse(pattern).fits_path(path)
}

/// The regular files that a source with this pattern would follow now, sorted; and what cannot be looked at, with why. What
/// is not there is neither.
#[must_use]
pub fn matching_files(pattern: &str) -> (Vec<PathBuf>, Vec<(PathBuf, io::Error)>) {
    let Walk { candidates, mut failed, .. } = Pattern::parse(pattern).walk(&mut Directories::default());
    let mut files = Vec::new();
    for path in candidates {
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => files.push(path),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => failed.push((path, e)),
        }
    }
    files.sort_unstable();
    files.dedup();
    (files, failed)
}

/// What walking a pattern found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Paths that may be files: all that match, and a path without a glob whether it exists or not.
    pub(super) candidates: Vec<PathBuf>,
    /// Directories in which a name of the given depth decides, to be watched.
    pub(super) interests: Vec<(PathBuf, usize)>,
    /// What to wait for if nothing is found: the first part of the path that does not exist.
    pub(super) missing: Option<PathBuf>,
    /// Directories that could not be listed.
    pub(super) failed: Vec<(PathBuf, io::Error)>,
}

/// Directories that were already looked at in this walk: many patterns share them.
#[derive(Debug, Default)]
pub(super) struct Directories(HashMap<PathBuf, Option<(PathBuf, Identity)>>);

impl Directories {
    /// The directory's path without symbolic links, and its identity; `None` if it is not there.
    pub(super) fn find(&mut self, path: &Path) -> Option<&(PathBuf, Identity)> {
        if !self.0.contains_key(path) {
            let found = fs::metadata(path)
                .ok()
                .filter(fs::Metadata::is_dir)
                .and_then(|metadata| Some((fs::canonicalize(path).ok()?, Identity::of(&metadata))));
            self.0.insert(path.to_owned(), found);
        }
        self.0.get(path)?.as_ref()
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Self {
        let components = text.split('/').filter(|part| !part.is_empty() && *part != ".").map(|part| {
            if part.contains(['*', '?', '[']) {
                Component::Glob(part.as_bytes().into())
            } else {
                Component::Literal(part.into())
            }
        });
        Self(components.collect())
    }

    /// Whether `name` fits the part at `depth`.
    pub(super) fn fits(&self, depth: usize, name: &OsStr) -> bool {
        self.0.get(depth).is_some_and(|component| component.fits(name))
    }

    /// Whether the part at `depth` is the last: a file's name rather than a directory's.
    pub(super) fn is_last(&self, depth: usize) -> bool {
        depth + 1 == self.0.len()
    }

    /// Whether the last part is a glob, so that what it finds was not named by anybody.
    pub(super) fn ends_in_glob(&self) -> bool {
        matches!(self.0.last(), Some(Component::Glob(_)))
    }

    /// Whether the whole `path` fits.
    pub(super) fn fits_path(&self, path: &Path) -> bool {
        // The last part first: it is what tells most paths apart.
        if !path.file_name().is_some_and(|name| self.0.last().is_some_and(|last| last.fits(name))) {
            return false;
        }
        let Ok(path) = path.strip_prefix("/") else { return false };
        let mut names = path.iter();
        self.0.iter().all(|component| names.next().is_some_and(|name| component.fits(name)))
            && names.next().is_none()
    }

    /// Finds what matches now.
    pub(super) fn walk(&self, directories: &mut Directories) -> Walk {
        let mut walk = Walk::default();
        self.descend(PathBuf::from("/"), 0, directories, &mut walk);
        walk
    }

    fn descend(&self, directory: PathBuf, depth: usize, directories: &mut Directories, walk: &mut Walk) {
        // Literal parts need no listing: go down to the last directory that exists.
        let mut directory = directory;
        let mut depth = depth;
        while let Some(Component::Literal(name)) = self.0.get(depth) {
            let next = directory.join(name);
            if self.is_last(depth) {
                walk.interests.push((directory, depth));
                walk.missing.get_or_insert_with(|| next.clone());
                walk.candidates.push(next);
                return;
            }
            if directories.find(&next).is_none() {
                walk.interests.push((directory.clone(), depth));
                walk.missing.get_or_insert(next);
                // The file's own path is kept in view all the same if nothing but literal parts is left of it.
                if self.0[depth..].iter().all(|part| matches!(part, Component::Literal(_))) {
                    walk.candidates.push(self.0[depth..].iter().fold(directory, |path, part| match part {
                        Component::Literal(name) => path.join(name),
                        Component::Glob(_) => path,
                    }));
                }
                return;
            }
            directory = next;
            depth += 1;
        }
        if depth < self.0.len() {
            self.list(&directory, depth, directories, walk);
        }
    }

    /// The part at `depth` is a glob.
    fn list(&self, directory: &Path, depth: usize, directories: &mut Directories, walk: &mut Walk) {
        walk.interests.push((directory.to_owned(), depth));
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return walk.failed.push((directory.to_owned(), error)),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return walk.failed.push((directory.to_owned(), error)),
            };
            if !self.fits(depth, &entry.file_name()) {
                continue;
            }
            let path = entry.path();
            if self.is_last(depth) {
                walk.candidates.push(path);
            } else if directories.find(&path).is_some() {
                self.descend(path, depth + 1, directories, walk);
            }
        }
    }
}

impl Component {
    fn fits(&self, name: &OsStr) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::Glob(glob) => {
                let name = name.as_bytes();
                // As in a shell, and for its reason: editors and rsync keep half-written files under such names.
                (name.first() != Some(&b'.') || glob.first() == Some(&b'.')) && matches(glob, name)
            }
        }
    }
}

/// Whether the name ends like that of a file that is compressed and so holds no lines.
pub(super) fn is_compressed(path: &Path) -> bool {
    let extension = path.extension().map(OsStr::as_bytes);
    matches!(extension, Some(b"gz" | b"bz2" | b"xz" | b"zst"))
}

/// Shell matching of one name: `*` any characters, `?` one, `[a-z]` one of a class, `[!a-z]` one that is not.
///
/// Time is at most the product of both lengths: only the last `*` is ever gone back to.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (pattern, name);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', rest)) = p.split_first() {
            star = Some((rest, n));
            p = rest;
        } else if let Some((rest_p, rest_n)) = step(p, n) {
            (p, n) = (rest_p, rest_n);
        } else if p.is_empty() && n.is_empty() {
            return true;
        } else {
            // The last star takes one character more.
            let Some((after, from)) = star else { return false };
            if from.is_empty() {
                return false;
            }
            let from = &from[character(from).1..];
            star = Some((after, from));
            (p, n) = (after, from);
        }
    }
}

/// Matches one character, if both have one.
fn step<'p, 'n>(pattern: &'p [u8], name: &'n [u8]) -> Option<(&'p [u8], &'n [u8])> {
    if pattern.is_empty() || name.is_empty() {
        return None;
    }
    let (c, length) = character(name);
    let rest = &name[length..];
    if pattern[0] == b'?' {
        return Some((&pattern[1..], rest));
    }
    if pattern[0] == b'['
        && let Some((holds, after)) = class(&pattern[1..], c)
    {
        return holds.then_some((after, rest));
    }
    let (wanted, length) = character(pattern);
    (wanted == c).then_some((&pattern[length..], rest))
}

/// Reads a class after its `[`: whether it holds `c`, and what follows it; `None` if it is never closed, in which
/// case the bracket stands for itself.
fn class(pattern: &[u8], c: u32) -> Option<(bool, &[u8])> {
    let (negated, mut p) = match pattern.first() {
        Some(b'!' | b'^') => (true, &pattern[1..]),
        _ => (false, pattern),
    };
    let mut holds = false;
    let mut first = true;
    loop {
        if p.is_empty() {
            return None;
        }
        if p[0] == b']' && !first {
            return Some((holds != negated, &p[1..]));
        }
        first = false;
        let (low, length) = character(p);
        p = &p[length..];
        let mut high = low;
        if p.len() >= 2 && p[0] == b'-' && p[1] != b']' {
            let (end, length) = character(&p[1..]);
            high = end;
            p = &p[1 + length..];
        }
        holds |= (low..=high).contains(&c);
    }
}

/// The first character and its length in bytes; a byte that is not UTF-8 is a character of its own, unlike any other.
fn character(bytes: &[u8]) -> (u32, usize) {
    for length in 1..=bytes.len().min(4) {
        if let Some(c) = std::str::from_utf8(&bytes[..length]).ok().and_then(|text| text.chars().next()) {
            return (u32::from(c), length);
        }
    }
    (0x11_0000 + bytes.first().copied().map_or(0, u32::from), 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, yes, no) in [
            ("*.log", &["a.log", "a.log.log"][..], &[".log", "a.log.1", "log", ".a.log"][..]),
            ("proxy-host-*_access.log", &["proxy-host-1_access.log"], &["proxy-host-1_error.log"]),
            ("a?c", &["abc", "aéc"], &["ac", "abbc"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "-x"]),
            ("[!a-c]x", &["dx"], &["ax", "x"]),
            ("[^a]", &["b"], &["a"]),
            ("[]]", &["]"], &["[", "[]]"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[*]", &["*"], &["a"]),
            ("[abc", &["[abc"], &["a"]),
            ("*a*b*", &["ab", "xaxxbx"], &["ba", "a"]),
            (".*", &[".x"], &["x"]),
            ("*", &["x"], &[".x"]),
        ] {
            let glob = Component::Glob(pattern.as_bytes().into());
            for name in yes {
                assert!(glob.fits(OsStr::new(name)), "{pattern} should fit {name}");
            }
            for name in no {
                assert!(!glob.fits(OsStr::new(name)), "{pattern} should not fit {name}");
            }
        }
        assert!(Component::Glob(b"a?*"[..].into()).fits(OsStr::from_bytes(b"a\xff")));
        assert!(!Component::Glob(b"a?b"[..].into()).fits(OsStr::from_bytes(b"a\xff\xfeb")));
    }

    #[test]
    fn a_path_fits_part_by_part() {
        let pattern = Pattern::parse("/srv/*/logs//access-?.log");
        assert!(pattern.fits_path(Path::new("/srv/a/logs/access-1.log")));
        for path in [
            "/srv/a/b/logs/access-1.log",
            "/srv/a/logs",
            "srv/a/logs/access-1.log",
            "/srv/a/logs/access-1.log/x",
        ] {
            assert!(!pattern.fits_path(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_hostile_name_costs_little() {
        // Exponential in a matcher that tries every star again.
        let pattern = b"*a".repeat(100);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &b"a".repeat(255)));
    }

    /// The definition, word by word.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.first() {
            None => name.is_empty(),
            Some(b'*') => (0..=name.len()).any(|n| naive(&pattern[1..], &name[n..])),
            Some(b'?') => !name.is_empty() && naive(&pattern[1..], &name[1..]),
            Some(c) => name.first() == Some(c) && naive(&pattern[1..], &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*?]{0,6}", name in "[ab]{0,7}") {
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), naive(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_bytes_are_a_pattern(pattern in prop::collection::vec(any::<u8>(), 0..12), name in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = matches(&pattern, &name);
            prop_assert!(matches(b"*", &name));
        }
    }
}
