//! Tokens and passwords: read from a file or the environment, and never shown.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A longer secret is none, in bytes.
const LONGEST: u64 = 4096;
/// Where container engines put secrets, and systemd those of `LoadCredential=`, by modes (or access lists, which show as the
/// group's bits) that say more than they mean: the directory itself is the container's, or the service's, own.
const MOUNTED: [&str; 2] = ["/run/secrets", "/run/credentials"];

/// Where a secret is kept; the configuration itself holds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of the agent's environment.
    Env(String),
}

/// A secret. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("failed to read the secret in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others could read it, or change it.
    #[error("the secret in {} can be read or changed by others (mode {mode:04o}); chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It says nothing that can be a secret.
    #[error("{place} holds no secret: one line of 1 to {LONGEST} printable ASCII characters is expected")]
    Unfit {
        /// The file or the variable.
        place: String,
    },
    /// There is no such variable.
    #[error("the environment has no variable {0} (systemd: EnvironmentFile= or LoadCredential= and a file)")]
    NoVariable(String),
}

impl SecretSource {
    /// Reads it. Files of others' making may change: read it again when the far side refuses it.
    ///
    /// # Errors
    /// See [`SecretError`]; none of them holds any of the secret.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let (text, place) = match self {
            Self::File(path) => (read(path)?, path.display().to_string()),
            Self::Env(name) => {
                let value = std::env::var_os(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?;
                (value.into_string().unwrap_or_default(), format!("the variable {name}"))
            }
        };
        let line = text.lines().next().unwrap_or_default().trim();
        // A control character in a header or a URL would be an error of the HTTP library, which may print it.
        if line.is_empty() || !line.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(SecretError::Unfit { place });
        }
        Ok(Secret(line.to_owned()))
    }
}

fn read(path: &Path) -> Result<String, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    let others = if MOUNTED.iter().any(|dir| path.starts_with(dir)) { 0o022 } else { 0o077 };
    if mode & others != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(failed)?;
    Ok(String::from_utf8(text).unwrap_or_default())
}

impl Secret {
    /// Another form of a secret, or a part of one, that must not be shown either.
    #[must_use]
    pub(crate) fn form(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The secret itself, to be given to the far side and to nobody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` without the secret in it: for what others wrote, and may quote it back.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[secret]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_a_line_of_a_file_that_others_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = SecretSource::File(path.clone());
        assert!(matches!(source.read(), Err(SecretError::Read { .. })));
        for (text, secret) in [
            ("abc\n", Some("abc")),
            (" a b \r\nmore", Some("a b")),
            ("\nabc", None),
            ("", None),
            ("a\u{1}", None),
        ] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(source.read().ok().as_ref().map(Secret::reveal), secret, "{text:?}");
        }
        std::fs::write(&path, "abc").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = source.read();
            assert_eq!(read.is_ok(), good, "{mode:o}");
            assert!(good || read.unwrap_err().to_string().ends_with("chmod 600 it"));
        }
    }

    #[test]
    fn it_is_not_shown() {
        let secret = Secret("tok".to_owned());
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(secret.redact("GET /bottok/x"), "GET /bot[secret]/x");
    }
}
