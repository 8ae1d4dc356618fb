//! A local program that takes a message on its standard input, as sendmail(8) of any mail server does.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::text::harmless;
use super::transport::{End, Failure, Letter, Taken};
use crate::sinks::trouble::Trouble;

/// So much of what it says is read, in bytes.
const SAID: u64 = 4096;
/// What it ends with where somebody has to mend something (sysexits.h).
const EX_USAGE: i32 = 64;
const EX_DATAERR: i32 = 65;
const EX_NOUSER: i32 = 67;
const EX_NOHOST: i32 = 68;
const EX_NOPERM: i32 = 77;
const EX_CONFIG: i32 = 78;

/// Runs it, never through a shell. It is killed when it takes longer than `timeout`, or is not waited for any more.
pub(super) async fn send(program: &Path, letter: Letter<'_>, timeout: Duration) -> Result<Taken, Failure> {
    let name = program.display();
    let mut command = Command::new(program);
    // -i: a dot alone is no end. Recipients are arguments, and none of them begins with a dash (nor would it be an option).
    command.arg("-i").arg("-f").arg(letter.from.to_string()).arg("--");
    command.args(letter.to.iter().map(ToString::to_string));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.kill_on_drop(true).current_dir("/").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let failed = |e: std::io::Error| {
        let message = format!("failed to run {name}: {e}");
        match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => Trouble::refused(message),
            _ => Trouble::later(message),
        }
    };
    let mut child = command.spawn().map_err(failed)?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let text = letter.text;
    let write = async move {
        match stdin {
            // What breaks here shows in its exit status.
            Some(mut stdin) => stdin.write_all(text).await.is_ok() && stdin.shutdown().await.is_ok(),
            None => false,
        }
    };
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            let _what_came = (&mut stderr).take(SAID).read_to_end(&mut said).await;
            let _rest = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        said
    });
    let run = async { tokio::join!(write, child.wait()) };
    let Ok((whole, status)) = tokio::time::timeout(timeout, run).await else {
        let message = format!("{name} did not end within {} s and was killed", timeout.as_secs());
        return Err(Failure { trouble: Trouble::later(message), end: End::Unclear });
    };
    // What it has left running in the background may keep the pipe open for ever.
    let said = tokio::time::timeout(Duration::from_millis(200), reading.join_next()).await;
    let said = said.ok().flatten().and_then(Result::ok).unwrap_or_default();
    let said = harmless(String::from_utf8_lossy(&said).trim(), 300);
    let status = status.map_err(|e| Trouble::later(format!("failed to wait for {name}: {e}")))?;
    if status.success() && whole {
        return Ok(Taken::default());
    }
    let why = match (status.success(), said.is_empty()) {
        (true, _) => "it did not read the whole message".to_owned(),
        (false, true) => status.to_string(),
        (false, false) => format!("{status}: {said}"),
    };
    let message = format!("{name}: {why}");
    Err(match status.code() {
        Some(EX_USAGE | EX_NOUSER | EX_NOHOST | EX_NOPERM | EX_CONFIG) => Trouble::refused(message).into(),
        Some(EX_DATAERR) => Failure { trouble: Trouble::refused(message), end: End::Content },
        _ => Trouble::later(message).into(),
    })
}

/// What is wrong with the program, if anything is.
pub(super) fn look(program: &Path) -> Result<(), String> {
    let name = program.display();
    let file = std::fs::metadata(program).map_err(|e| format!("{name}: {e}"))?;
    if !file.is_file() {
        return Err(format!("{name} is no file"));
    }
    // By the rights of who asks, as execve(2) has it.
    nix::unistd::access(program, nix::unistd::AccessFlags::X_OK)
        .map_err(|e| format!("{name} cannot be run: {}", e.desc()))
}
