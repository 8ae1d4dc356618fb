//! Which containers are meant.

use std::fmt;

use super::container::Container;

/// A container by its name, or containers by a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// The one of this name, whichever that is at the time.
    Name(String),
    /// All that have the label, with this value if one is given.
    Label(String, Option<String>),
}

/// What is written names no container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// `label=` with nothing behind it.
    #[error("names no label; write label=KEY or label=KEY=VALUE")]
    NoLabel,
    /// Docker has no such names.
    #[error("`{0}` is not the name of a container; write a name as `docker ps` shows it, or label=KEY=VALUE")]
    Name(String),
}

impl Selector {
    /// Reads `NAME`, `label=KEY` or `label=KEY=VALUE`.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn parse(text: &str) -> Result<Self, SelectError> {
        let text = text.trim();
        if let Some(label) = text.strip_prefix("label=") {
            let (key, value) = label.split_once('=').map_or((label, None), |(key, value)| (key, Some(value)));
            if key.is_empty() {
                return Err(SelectError::NoLabel);
            }
            return Ok(Self::Label(key.to_owned(), value.map(str::to_owned)));
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        // As dockerd has it (names.RestrictedNameChars).
        let fine = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if fine { Ok(Self::Name(name.to_owned())) } else { Err(SelectError::Name(text.to_owned())) }
    }

    /// Whether the container is meant.
    #[must_use]
    pub fn fits(&self, container: &Container) -> bool {
        match self {
            Self::Name(name) => container.name == *name,
            Self::Label(key, None) => container.labels.contains_key(key),
            Self::Label(key, Some(value)) => container.labels.get(key) == Some(value),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Label(key, None) => write!(f, "label={key}"),
            Self::Label(key, Some(value)) => write!(f, "label={key}={value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_told_apart() {
        let name = |n: &str| Selector::Name(n.to_owned());
        let label = |k: &str, v: Option<&str>| Selector::Label(k.to_owned(), v.map(str::to_owned));
        for (text, wanted) in [
            ("web", name("web")),
            ("/web-1_a.b", name("web-1_a.b")),
            ("label=a.b/c", label("a.b/c", None)),
            ("label=a=", label("a", Some(""))),
            ("label=a=b=c", label("a", Some("b=c"))),
        ] {
            let read = Selector::parse(text).unwrap();
            assert_eq!(read, wanted);
            assert_eq!(Selector::parse(&read.to_string()).unwrap(), read);
        }
        for text in ["", "-a", "../x", "a/b", "a b", "label=", "label==x"] {
            assert!(Selector::parse(text).is_err(), "{text:?}");
        }
    }
}
