//! The programs of others that this backend runs: found, asked what they are, run without a shell.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::confine;

/// Where administrators' programs are, besides `PATH`: an agent started by hand may have a user's path.
const ALSO_IN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What a run may take. A hundred thousand lines take `ipset` less than a second; the lock of iptables may be held by
/// somebody else for as long as we let it (see [`LOCK_WAIT`](super::iptables::LOCK_WAIT)).
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// So much of what a program says against us is kept.
const COMPLAINT_MAX: usize = 400;

/// Why a program did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed.
    #[error("there is no {name} in PATH, /usr/sbin or /sbin (install the package {package})")]
    Missing {
        /// Its name.
        name: &'static str,
        /// What brings it.
        package: &'static str,
    },
    /// It could not be started, or not be talked to.
    #[error("failed to run {}: {source}", .program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not come to an end.
    #[error("{} did not end within {} s", .program.display(), TIME_LIMIT.as_secs())]
    Slow {
        /// Its path.
        program: PathBuf,
    },
    /// It said no.
    #[error("{} {args}: {complaint}", .program.display())]
    Failed {
        /// Its path.
        program: PathBuf,
        /// What it was called with.
        args: String,
        /// What it said on its standard error.
        complaint: String,
    },
}

impl ProgramError {
    /// What the program itself said, if it came to that.
    #[must_use]
    pub fn complaint(&self) -> Option<&str> {
        match self {
            Self::Failed { complaint, .. } => Some(complaint),
            _ => None,
        }
    }
}

/// A program that is installed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// The first of `names` that is somewhere, in that order.
    ///
    /// # Errors
    /// When there is none: the first name and `package` say what would help.
    pub(super) fn find(name: &'static str, package: &'static str) -> Result<Self, ProgramError> {
        Self::look_for(name, &places()).ok_or(ProgramError::Missing { name, package })
    }

    fn look_for(name: &str, places: &[PathBuf]) -> Option<Self> {
        places.iter().map(|dir| dir.join(name)).find(|path| is_executable(path)).map(|path| Self { path })
    }

    /// One of the programs of iptables-legacy: `iptables-legacy-restore`, or an `iptables-restore` that says it is that.
    /// Where that is another program's name (iptables-nft), it would write rules for nf_tables.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn find_legacy(
        sure: &'static str,
        perhaps: &'static str,
        package: &'static str,
    ) -> Result<Self, ProgramError> {
        let places = places();
        if let Some(program) = Self::look_for(sure, &places) {
            return Ok(program);
        }
        if let Some(program) = Self::look_for(perhaps, &places)
            && program.run(&["--version"], "").await?.contains("legacy")
        {
            return Ok(program);
        }
        Err(ProgramError::Missing { name: sure, package })
    }

    /// Runs it with `input` on its standard input, and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be run, does not end in time (then it is killed), or says no.
    pub(super) async fn run(&self, args: &[&str], input: &str) -> Result<String, ProgramError> {
        let failed = |source| ProgramError::Run { program: self.path.clone(), source };
        let out = tokio::time::timeout(TIME_LIMIT, self.output(args, input))
            .await
            .map_err(|_| ProgramError::Slow { program: self.path.clone() })?
            .map_err(failed)?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(ProgramError::Failed {
            program: self.path.clone(),
            args: args.join(" "),
            complaint: complaint(&out),
        })
    }

    async fn output(&self, args: &[&str], input: &str) -> io::Result<Output> {
        let mut command = Command::new(&self.path);
        // Nothing of our environment: some of these programs load libraries from where it says (XTABLES_LIBDIR).
        command.args(args).env_clear().env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = {
            let _lent = confine::lend(confine::LEGACY);
            command.spawn()?
        };
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that ends before it has read everything says itself why.
                drop(stdin.write_all(input.as_bytes()).await);
            }
        };
        let ((), out) = tokio::join!(write, child.wait_with_output());
        out
    }
}

fn places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An empty entry means the working directory, which is nobody's business here.
    let listed = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect::<Vec<_>>();
    listed.into_iter().chain(ALSO_IN.map(PathBuf::from)).collect()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What went wrong, in one line.
fn complaint(out: &Output) -> String {
    let said = String::from_utf8_lossy(&out.stderr);
    let useful = said.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("Try `"));
    let mut text = useful.collect::<Vec<_>>().join("; ");
    if text.is_empty() {
        return out.status.to_string();
    }
    if let Some((at, _)) = text.char_indices().nth(COMPLAINT_MAX) {
        text.truncate(at);
    }
    text.retain(|c| !c.is_control());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &Path, name: &str, text: &str) -> Program {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Program { path }
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_and_nothing_of_our_environment() {
        let dir = tempfile::tempdir().unwrap();
        let cat = script(dir.path(), "cat", "/bin/cat; echo \"$1,$HOME,$CARGO_MANIFEST_DIR\"");
        let long = "x".repeat(300_000);
        assert_eq!(cat.run(&["a b"], &long).await.unwrap(), format!("{long}a b,,\n"));
    }

    #[tokio::test]
    async fn a_refusal_says_who_and_why_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let no = script(dir.path(), "no", "echo 'it: No' >&2; printf 'line \\033[31m2\\n' >&2; exit 2");
        let e = no.run(&["-w", "5"], &"x".repeat(300_000)).await.unwrap_err();
        assert_eq!(e.to_string(), format!("{} -w 5: it: No; line [31m2", no.path.display()));
        assert_eq!(e.complaint(), Some("it: No; line [31m2"));
        let silent = script(dir.path(), "silent", "exit 3");
        assert_eq!(silent.run(&[], "").await.unwrap_err().complaint(), Some("exit status: 3"));
        let gone = Program { path: dir.path().join("gone") };
        assert!(gone.run(&[], "").await.unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn only_a_program_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ipset"), "").unwrap();
        let places = [dir.path().to_owned()];
        assert_eq!(Program::look_for("ipset", &places), None);
        let real = script(dir.path(), "real", "");
        assert_eq!(Program::look_for("real", &places), Some(real));
    }
}
