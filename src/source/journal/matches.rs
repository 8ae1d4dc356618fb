//! Which entries of the journal are wanted.

use std::fmt;

/// Fields in which journald itself writes who logged, as the kernel says it. A sender can call itself (`_COMM`, `_CMDLINE`)
/// and its message what it likes, so these are not among them.
const WHO: &[&str] = &[
    "_UID",
    "_GID",
    "_PID",
    "_EXE",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_CGROUP",
    "_SYSTEMD_SLICE",
    "_SYSTEMD_INVOCATION_ID",
    "_SYSTEMD_OWNER_UID",
    "_AUDIT_LOGINUID",
    "_AUDIT_SESSION",
    "_SELINUX_CONTEXT",
    "_CAP_EFFECTIVE",
    "_KERNEL_SUBSYSTEM",
    "_KERNEL_DEVICE",
];

/// Terms of which one must fit; in a term, fields that are named once must all fit, and of a field that is named several
/// times one value.
///
/// It is kept sorted, so that the same question has the same words however it is written: its text names the place in the
/// journal that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Matches(Vec<Vec<String>>);

/// What is written is no match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// journalctl's own short form.
    #[error("`{0}`: write a program as _EXE={0}")]
    Path(String),
    /// There is no `=`.
    #[error("`{0}` is not FIELD=VALUE, such as _SYSTEMD_UNIT=ssh.service")]
    NoValue(String),
    /// No field has such a name.
    #[error(
        "`{0}` is not the name of a field; they are written in capitals, digits and underscores, such as _SYSTEMD_UNIT"
    )]
    Field(String),
    /// The journal's own addresses of entries.
    #[error("`{0}` cannot be matched; fields that begin with two underscores are addresses of entries")]
    Address(String),
    /// A `+` with nothing on one side.
    #[error("a `+` stands between two terms")]
    EmptyTerm,
    /// A quote has no partner.
    #[error("a quote is not closed")]
    Quote,
    /// A NUL, which no argument can hold.
    #[error("a match cannot hold a NUL")]
    Nul,
}

impl Matches {
    /// Reads it as fail2ban's `journalmatch` and journalctl's arguments are written: `A=1 B=2 + C=3`. A value with blanks
    /// stands in quotes, or the whole of `A=1 2`.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        let mut terms = vec![Vec::new()];
        for word in words(text)? {
            if word == "+" {
                terms.push(Vec::new());
            } else if let Some(term) = terms.last_mut() {
                field(&word)?;
                term.push(word);
            }
        }
        if terms.iter().any(Vec::is_empty) {
            return Err(MatchError::EmptyTerm);
        }
        Ok(Self(terms).sorted())
    }

    /// What a process with this user's id wrote about the container: only dockerd does, and nobody else can say so.
    #[must_use]
    pub fn of_container(name: &str, uid: u32) -> Self {
        Self(vec![vec![format!("CONTAINER_NAME={name}"), format!("_UID={uid}")]]).sorted()
    }

    /// What any of them wants.
    #[must_use]
    pub fn any(all: impl IntoIterator<Item = Self>) -> Self {
        Self(all.into_iter().flat_map(|matches| matches.0).collect()).sorted()
    }

    fn sorted(mut self) -> Self {
        for term in &mut self.0 {
            term.sort();
            term.dedup();
        }
        self.0.sort();
        self.0.dedup();
        self
    }

    /// As journalctl's arguments.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &str> {
        let plus = |n: usize| (n > 0).then_some("+");
        self.0
            .iter()
            .enumerate()
            .flat_map(move |(n, term)| plus(n).into_iter().chain(term.iter().map(String::as_str)))
    }

    /// The same, of this machine's entries alone unless a term names a machine itself.
    pub(crate) fn arguments_on(&self, machine: &str) -> Vec<String> {
        let mut arguments = Vec::new();
        for term in &self.0 {
            if !arguments.is_empty() {
                arguments.push("+".to_owned());
            }
            if !term.iter().any(|field| field.starts_with("_MACHINE_ID=")) {
                arguments.push(format!("_MACHINE_ID={machine}"));
            }
            arguments.extend(term.iter().cloned());
        }
        arguments
    }

    /// What remembers how far these were read, across restarts and whatever the jails.
    #[must_use]
    pub fn source(&self) -> String {
        format!("journal:{self}")
    }

    /// The first term that any local user can write entries for.
    #[must_use]
    pub fn forgeable(&self) -> Option<String> {
        let sure = |field: &String| {
            field.split_once('=').is_some_and(|(name, value)| {
                WHO.contains(&name)
                    || (name == "_TRANSPORT" && matches!(value, "kernel" | "audit" | "driver"))
            })
        };
        self.0.iter().find(|term| !term.iter().any(sure)).map(|term| term.join(" "))
    }
}

impl fmt::Display for Matches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, argument) in self.arguments().enumerate() {
            let blank = if n > 0 { " " } else { "" };
            let quote = if argument.contains(char::is_whitespace) { "'" } else { "" };
            write!(f, "{blank}{quote}{argument}{quote}")?;
        }
        Ok(())
    }
}

fn field(word: &str) -> Result<(), MatchError> {
    if word.contains('\0') {
        return Err(MatchError::Nul);
    }
    if word.starts_with('/') {
        return Err(MatchError::Path(word.to_owned()));
    }
    let Some((name, _)) = word.split_once('=') else { return Err(MatchError::NoValue(word.to_owned())) };
    if name.starts_with("__") {
        return Err(MatchError::Address(name.to_owned()));
    }
    // As journald has it (journal_field_valid in systemd's journal-file.c).
    let fine = (1..=64).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if fine { Ok(()) } else { Err(MatchError::Field(name.to_owned())) }
}

/// Split at blanks, except in quotes.
fn words(text: &str) -> Result<Vec<String>, MatchError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c.is_whitespace() => words.extend(word.take()),
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(MatchError::Quote);
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Matches {
        Matches::parse(text).unwrap()
    }

    #[test]
    fn the_same_question_has_the_same_name() {
        let written = parse("_COMM=sshd _SYSTEMD_UNIT=sshd.service + _SYSTEMD_UNIT=ssh.service");
        let otherwise = parse(
            "_SYSTEMD_UNIT=ssh.service  + _SYSTEMD_UNIT=sshd.service _COMM=sshd _COMM=sshd + _SYSTEMD_UNIT=ssh.service",
        );
        assert_eq!(written, otherwise);
        assert_eq!(
            written.source(),
            "journal:_COMM=sshd _SYSTEMD_UNIT=sshd.service + _SYSTEMD_UNIT=ssh.service"
        );
        assert_eq!(Matches::any([parse("B=2"), parse("A=1")]), parse("A=1 + B=2"));
        assert_eq!(written.arguments().collect::<Vec<_>>().len(), 4);
    }

    #[test]
    fn entries_of_other_machines_are_asked_for_by_name() {
        let matches = parse("A=1 B=2 + C=3 + C=4 _MACHINE_ID=beef");
        assert_eq!(
            matches.arguments_on("cafe").join(" "),
            "_MACHINE_ID=cafe A=1 B=2 + _MACHINE_ID=cafe C=3 + C=4 _MACHINE_ID=beef"
        );
    }

    #[test]
    fn blanks_stand_in_quotes() {
        let matches = parse("'_CMDLINE=sshd: x' A=\"1 2\"");
        assert_eq!(matches.arguments().collect::<Vec<_>>(), ["A=1 2", "_CMDLINE=sshd: x"]);
        assert_eq!(parse(&matches.to_string()), matches);
    }

    #[test]
    fn what_is_no_match_is_told() {
        for (text, told) in [
            ("/usr/sbin/sshd", "`/usr/sbin/sshd`: write a program as _EXE=/usr/sbin/sshd"),
            ("ssh.service", "`ssh.service` is not FIELD=VALUE, such as _SYSTEMD_UNIT=ssh.service"),
            (
                "_systemd_unit=x",
                "`_systemd_unit` is not the name of a field; they are written in capitals, digits and underscores, such as _SYSTEMD_UNIT",
            ),
            (
                "--file=x",
                "`--file` is not the name of a field; they are written in capitals, digits and underscores, such as _SYSTEMD_UNIT",
            ),
            (
                "__CURSOR=x",
                "`__CURSOR` cannot be matched; fields that begin with two underscores are addresses of entries",
            ),
            ("A=1 +", "a `+` stands between two terms"),
            ("", "a `+` stands between two terms"),
            ("A='1", "a quote is not closed"),
            ("A=\0", "a match cannot hold a NUL"),
        ] {
            assert_eq!(Matches::parse(text).unwrap_err().to_string(), told, "{text:?}");
        }
    }

    #[test]
    fn what_anybody_can_write_is_told() {
        assert_eq!(parse("_SYSTEMD_UNIT=a SYSLOG_IDENTIFIER=b + _UID=0").forgeable(), None);
        assert_eq!(parse("_UID=0 + SYSLOG_IDENTIFIER=sshd").forgeable().unwrap(), "SYSLOG_IDENTIFIER=sshd");
        assert_eq!(parse("_COMM=sshd").forgeable().unwrap(), "_COMM=sshd");
        assert_eq!(parse("_TRANSPORT=kernel").forgeable(), None);
        assert_eq!(Matches::of_container("web", 0).forgeable(), None);
    }
}
