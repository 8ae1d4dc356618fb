//! Any log of JSON objects: the filter says by paths what is what.

use super::Parsed;
use super::object::{Members, Value};
use crate::filter::fields::{Fields, SLOTS};

/// The paths a filter names, compiled: `.ts`, `.request.headers.X-Real-Ip`, `.list.0`, `."a key.with dots"`.
///
/// Each has a number, under which the value is found in the fields. A value that occurs twice under one path makes the line nobody's:
/// what wrote it is not the program the filter was made for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    paths: Vec<Vec<Box<[u8]>>>,
    /// As they were written.
    names: Vec<String>,
    /// Paths that must be there, or the line is not understood.
    required: Vec<usize>,
    /// The peer is a list whose sender is unknown.
    pub(crate) list: bool,
}

/// A path could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathsError {
    /// It is no path.
    #[error("`{0}` is not a path: write a dot before every key, as in `.request.status`")]
    Malformed(String),
    /// There are too many.
    #[error("more than {SLOTS} paths in one filter; match on fewer")]
    TooMany,
}

impl Paths {
    /// The number of a path, which is added if it is new.
    pub(crate) fn add(&mut self, path: &str) -> Result<usize, PathsError> {
        let keys = keys(path).ok_or_else(|| PathsError::Malformed(path.into()))?;
        if let Some(known) = self.paths.iter().position(|p| *p == keys) {
            return Ok(known);
        }
        self.push(keys, path)
    }

    /// As [`Paths::add`], but always under the next number.
    pub(crate) fn add_fixed(&mut self, path: Option<&str>) -> Result<usize, PathsError> {
        let keys = match path {
            Some(path) => keys(path).ok_or_else(|| PathsError::Malformed(path.into()))?,
            None => Vec::new(),
        };
        self.push(keys, path.unwrap_or_default())
    }

    /// The paths as written, in the order of their numbers; empty for one that is not there.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// A line without this path is not understood.
    pub(crate) fn require(&mut self, number: usize) {
        self.required.push(number);
    }

    pub(super) fn parse<'a>(&self, line: &'a [u8]) -> Parsed<'a> {
        if line.first() != Some(&b'{') {
            return Parsed::Mismatch;
        }
        let mut found = Found { fields: Fields::of_json(self.list), set: 0 };
        let all = u32::MAX >> (32 - SLOTS.min(self.paths.len()).max(1));
        if self.visit(Value::Object(line), 0, all, &mut found).is_none()
            || self.required.iter().any(|&n| found.set >> n & 1 == 0)
        {
            return Parsed::Mismatch;
        }
        Parsed::Fields(found.fields)
    }

    /// Looks for the `candidates` (a bit per path, all of which led here) in an object or array at `depth`. No deeper
    /// than the longest path, so an attacker's nesting cannot exhaust the stack.
    fn visit<'a>(
        &self,
        value: Value<'a>,
        depth: usize,
        candidates: u32,
        found: &mut Found<'a>,
    ) -> Option<()> {
        let (Value::Object(text) | Value::Array(text)) = value else { return Some(()) };
        let mut members = Members::of(text)?;
        let mut index = 0usize;
        while let Some((key, value)) = members.next().ok()? {
            let (mut here, mut below) = (0u32, 0u32);
            for (n, path) in self.paths.iter().enumerate() {
                let Some(wanted) = path.get(depth).filter(|_| candidates >> n & 1 == 1) else { continue };
                let is = match value_kind(text) {
                    Kind::Object => **wanted == *key,
                    Kind::Array => is_index(wanted, index),
                };
                if is {
                    *(if path.len() == depth + 1 { &mut here } else { &mut below }) |= 1 << n;
                }
            }
            index += 1;
            for n in (0..self.paths.len()).filter(|n| here >> n & 1 == 1) {
                if found.set >> n & 1 == 1 {
                    return None;
                }
                found.set |= 1 << n;
                found.fields.set_slot(n, Some(whole(value)));
            }
            if below != 0 {
                self.visit(value, depth + 1, below, found)?;
            }
        }
        Some(())
    }

    fn push(&mut self, keys: Vec<Box<[u8]>>, name: &str) -> Result<usize, PathsError> {
        if self.paths.len() == SLOTS {
            return Err(PathsError::TooMany);
        }
        self.paths.push(keys);
        self.names.push(name.to_owned());
        Ok(self.paths.len() - 1)
    }
}

struct Found<'a> {
    fields: Fields<'a>,
    set: u32,
}

enum Kind {
    Object,
    Array,
}

fn value_kind(text: &[u8]) -> Kind {
    if text.first() == Some(&b'[') { Kind::Array } else { Kind::Object }
}

/// The text of a single value; of an object or array, its JSON.
fn whole(value: Value<'_>) -> &[u8] {
    match value {
        Value::Text(t) | Value::Word(t) | Value::Object(t) | Value::Array(t) => t,
        Value::Null => b"",
    }
}

fn is_index(wanted: &[u8], index: usize) -> bool {
    std::str::from_utf8(wanted).ok().and_then(|w| w.parse::<usize>().ok()) == Some(index)
}

/// `.a."b.c".0` into its keys. JSON's escapes in keys are not resolved: no known program writes a key that needs one.
fn keys(path: &str) -> Option<Vec<Box<[u8]>>> {
    let mut rest = path;
    let mut out = Vec::new();
    while !rest.is_empty() {
        rest = rest.strip_prefix('.')?;
        let key;
        if let Some(quoted) = rest.strip_prefix('"') {
            (key, rest) = quoted.split_once('"')?;
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            (key, rest) = rest.split_at(end);
        }
        if key.is_empty() {
            return None;
        }
        out.push(key.as_bytes().into());
    }
    (!out.is_empty() && out.len() <= 16).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(paths: &[&str], line: &str) -> Option<Vec<Option<String>>> {
        let mut compiled = Paths::default();
        for path in paths {
            compiled.add(path).unwrap();
        }
        match compiled.parse(line.as_bytes()) {
            Parsed::Fields(f) => Some(
                (0..paths.len()).map(|n| f.text(n).map(|t| String::from_utf8(t.into()).unwrap())).collect(),
            ),
            _ => None,
        }
    }

    #[test]
    fn paths_lead_through_objects_and_arrays() {
        let line = r#"{"a":{"b":"x","c.d":["p","q\u0041"]},"n":404,"z":null}"#;
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(
            find(&[".a.b", ".a.\"c.d\".1", ".n", ".z", ".a.x", ".n.m"], line),
            Some(vec![some("x"), some("qA"), some("404"), None, None, None])
        );
        assert_eq!(find(&[".a.\"c.d\""], line), Some(vec![some(r#"["p","qA"]"#)]));
    }

    #[test]
    fn a_value_in_a_string_is_not_a_member() {
        assert_eq!(
            find(&[".peer"], r#"{"ua":"\",\"peer\":\"9.9.9.9\"","x":{"peer":"9.9.9.9"}}"#),
            Some(vec![None])
        );
        assert_eq!(find(&[".peer"], r#"{"peer":"1.1.1.1","peer":"9.9.9.9"}"#), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["", ".", "a", ".a.", "..a", ".\"a", ".a\"b\"c."] {
            assert!(Paths::default().add(path).is_err(), "{path}");
        }
        let mut full = Paths::default();
        for n in 0..SLOTS {
            full.add(&format!(".k{n}")).unwrap();
        }
        assert_eq!(full.add(".k3"), Ok(3));
        assert_eq!(full.add(".more"), Err(PathsError::TooMany));
    }
}
