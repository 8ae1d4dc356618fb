//! What is written beside each rule, and by which we know our own: `stockade:INSTANCE/SINK until 2026-11-21T12:00:00Z (sshd,
//! npm)`. Another host, another sink of this host and a person have another tag, or none: theirs are never touched.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::sinks::trouble::Trouble;
use crate::types::Timestamp;

/// The file in `paths.state` that holds the number of this instance.
const FILE: &str = "instance";
/// A note is no longer than this, in bytes: what is more of the jails is left out.
const LONGEST: usize = 400;

/// Whose rules are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// `stockade:INSTANCE/`
    host: String,
    /// `stockade:INSTANCE/SINK `
    own: String,
}

/// What a note of ours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// When the ban was to end; `None` for never.
    pub(super) end: Option<Timestamp>,
}

impl Tag {
    pub(super) fn new(instance: &str, sink: &str) -> Self {
        let host = format!("stockade:{instance}/");
        Self { own: format!("{host}{sink} "), host }
    }

    /// What all notes of this host hold, to search for.
    pub(super) fn search(&self) -> &str {
        &self.host
    }

    /// Whether a note is by another sink of this host.
    pub(super) fn is_sibling(&self, note: &str) -> bool {
        note.starts_with(&self.host) && !note.starts_with(&self.own)
    }

    /// The note of a rule that ends then.
    pub(super) fn note(&self, end: Option<Timestamp>, jails: &[Arc<str>]) -> String {
        let end = match end {
            // Whole seconds: it is for people.
            Some(end) => format!("until {}", Timestamp::from_secs(end.as_millis().div_euclid(1000))),
            None => "for ever".to_owned(),
        };
        let mut note = format!("{}{end} (", self.own);
        for (n, jail) in jails.iter().enumerate() {
            if note.len() + jail.len() + 4 > LONGEST {
                note.push_str(",…");
                break;
            }
            if n > 0 {
                note.push(',');
            }
            note.push_str(jail);
        }
        note.push(')');
        note
    }

    /// What a note says, if it is ours.
    pub(super) fn read(&self, note: &str) -> Option<Noted> {
        let rest = note.strip_prefix(&self.own)?;
        let end = rest.strip_prefix("until ").and_then(|rest| {
            let at: jiff::Timestamp = rest.split(' ').next()?.parse().ok()?;
            Some(Timestamp::from_millis(at.as_millisecond()))
        });
        Some(Noted { end })
    }
}

/// The number of this instance, from `state`; made there if there is none and `make` says so. Without a directory, or with
/// one that is empty and not to be changed, it is `fallback`.
///
/// A number rather than the host's name: containers get a new name each time they are made, and clones of a machine all
/// have the same.
///
/// # Errors
/// When the file can neither be read nor made, or holds something else.
pub(super) fn instance(state: &Path, fallback: &str, make: bool) -> Result<String, Trouble> {
    if state.as_os_str().is_empty() {
        return Ok(sane(fallback));
    }
    let path = state.join(FILE);
    let failed = |e: std::io::Error| Trouble::refused(format!("failed to keep {}: {e}", path.display()));
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim();
            if text.is_empty() || sane(text) != text {
                return Err(Trouble::refused(format!(
                    "{} does not hold the number of this instance; take it away, and remove this host's rules at \
                     Cloudflare by hand",
                    path.display()
                )));
            }
            Ok(text.to_owned())
        }
        Err(e) if e.kind() == ErrorKind::NotFound && !make => Ok(sane(fallback)),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let mut bytes = [0; 6];
            SystemRandom::new()
                .fill(&mut bytes)
                .map_err(|_| Trouble::refused("the system has no random numbers"))?;
            let number: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            // Whole or not at all: a half number after a crash would be another instance.
            let temporary = state.join(format!(".{FILE}.{number}"));
            let write = || {
                let mut options = fs::OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
                writeln!(file, "{number}")?;
                file.sync_all()?;
                // Another sink of this agent may have made it meanwhile: who was first stays.
                match fs::hard_link(&temporary, &path) {
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
                    other => other,
                }
            };
            let written = write();
            drop(fs::remove_file(&temporary));
            written.map_err(failed)?;
            fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(failed)
        }
        Err(e) => Err(failed(e)),
    }
}

/// Only what may stand in a tag.
fn sane(text: &str) -> String {
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let text: String = text.to_ascii_lowercase().chars().filter(fits).take(40).collect();
    if text.is_empty() { "host".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_whose_it_is_and_when_it_ends() {
        let tag = Tag::new("web1", "cf");
        let end = Timestamp::from_millis(1_795_000_000_789);
        let note = tag.note(Some(end), &["npm".into(), "sshd".into()]);
        assert_eq!(note, "stockade:web1/cf until 2026-11-18T11:06:40Z (npm,sshd)");
        assert_eq!(tag.read(&note), Some(Noted { end: Some(Timestamp::from_secs(1_795_000_000)) }));
        let ever = tag.note(None, &["npm".into()]);
        assert_eq!(
            (ever.as_str(), tag.read(&ever)),
            ("stockade:web1/cf for ever (npm)", Some(Noted { end: None }))
        );
        for strange in [
            "",
            "my own",
            "stockade:web1/cf2 for ever (npm)",
            "stockade:web10/cf for ever (npm)",
            "x stockade:web1/cf ",
        ] {
            assert_eq!(tag.read(strange), None, "{strange}");
        }
        assert!(tag.is_sibling("stockade:web1/cf2 for ever (npm)") && !tag.is_sibling(&note));
        assert!(!tag.is_sibling("stockade:web10/cf for ever (npm)"));
        let many: Vec<Arc<str>> = (0..100).map(|n| format!("jail-{n}").into()).collect();
        let long = tag.note(None, &many);
        assert!(long.len() <= LONGEST && long.ends_with(",…)"), "{long}");
    }

    #[test]
    fn an_instance_keeps_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let here = |make| instance(dir.path(), "Web 1!", make);
        assert_eq!(here(false).unwrap(), "web1", "a check makes nothing");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let number = here(true).unwrap();
        assert_eq!((number.len(), here(true).unwrap(), here(false).unwrap()), (12, number.clone(), number));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
        fs::write(dir.path().join(FILE), "a b\n").unwrap();
        assert!(here(true).is_err());
        assert!(instance(&dir.path().join("none"), "web1", true).is_err());
        assert_eq!(instance(Path::new(""), "web1", true).unwrap(), "web1");
    }
}
