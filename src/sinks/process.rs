//! Programs of the administrator's, run with a time limit: never a shell, never more of the environment than they need, and
//! nothing of what they say is believed to be harmless.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// So much of what a program says is kept, in bytes, of each of its two voices; the rest is read and dropped.
const KEPT: usize = 4096;
/// A program that has ended has said what it had to say, but for what is still in the pipe. Whoever it left behind may hold
/// the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Where programs look for others.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// How it ended; `None` when its time was up and it was killed.
    pub(super) status: Option<ExitStatus>,
    /// What it wrote to standard output, cut.
    pub(super) out: Vec<u8>,
    /// What it wrote to standard error, cut.
    pub(super) err: Vec<u8>,
}

impl Outcome {
    /// Whether it ended with 0.
    pub(super) fn is_good(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it ended, and the first thing it complained about: `exit status: 1: nginx: [emerg] …`.
    pub(super) fn text(&self) -> String {
        let how = match self.status {
            Some(status) => status.to_string(),
            None => "its time was up, and it was killed".to_owned(),
        };
        let worst = if self.is_good() { None } else { error_line(&self.err) };
        match worst
            .or_else(|| first_line(&self.err))
            .or_else(|| first_line(&self.out).filter(|_| !self.is_good()))
        {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }
    }
}

/// The first line that is marked as an error: servers warn of this and that before. nginx has `[emerg]`, HAProxy `[ALERT]`.
fn error_line(text: &[u8]) -> Option<String> {
    let marks = ["[emerg]", "[alert]", "[crit]", "[error]", "[ALERT]"];
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::trim).find(|line| marks.iter().any(|mark| line.contains(mark))).map(str::to_owned)
}

/// The first line that says anything.
fn first_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Runs a program in a process group of its own, with `input` on its standard input; the whole group is killed when its time
/// is up, and when this is dropped. Of the environment it has `PATH` and what is given.
pub(super) async fn run<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    words: &[String],
    environment: impl IntoIterator<Item = (K, V)>,
    input: &[u8],
    limit: Duration,
) -> io::Result<Outcome> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
    let mut child = Command::new(program)
        .args(arguments)
        // What the agent was given, tokens among it, is not theirs.
        .env_clear()
        .env("PATH", SEARCH)
        .envs(environment)
        .current_dir("/")
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // It need not read it.
                drop(stdin.write_all(input).await);
            }
        };
        tokio::join!(write, keep(stdout, &mut out), keep(stderr, &mut err));
    };
    let ended = timeout(limit, ended(&mut child, talk)).await;
    let status = match ended {
        Ok(status) => Some(status?),
        Err(_) => {
            // While it is not waited for, its number is nobody else's.
            group.kill();
            child.wait().await?;
            None
        }
    };
    group.0 = None;
    Ok(Outcome { status, out, err })
}

/// Waits for the end of a program while `talk` feeds and hears it.
async fn ended(child: &mut Child, talk: impl Future<Output = ()>) -> io::Result<ExitStatus> {
    tokio::pin!(talk);
    tokio::select! {
        status = child.wait() => {
            tokio::select! {
                () = &mut talk => {}
                () = sleep(LAST_WORDS) => {}
            }
            status
        }
        // It has closed its mouth and runs on.
        () = &mut talk => child.wait().await,
    }
}

/// Reads to the end and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; KEPT];
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            return;
        }
        let room = KEPT.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(piece.get(..room).unwrap_or_default());
    }
}

/// Processes that end with this, unless they have been waited for.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // Nobody is left of it: as well.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a program can be run, and only those who may have it changed; what is wrong with it otherwise.
pub(super) fn examine(program: &str) -> Result<(), String> {
    let path = Path::new(program);
    let file = std::fs::metadata(path).map_err(|e| format!("{program} cannot be run: {e}"))?;
    if !file.is_file() {
        return Err(format!("{program} is no program: it is not a file"));
    }
    if access(path, AccessFlags::X_OK).is_err() {
        return Err(format!("{program} cannot be run by this user; chmod +x it"));
    }
    if file.mode() & 0o022 != 0 {
        return Err(format!(
            "{program} can be changed by others than its owner (mode {:04o}), who would then run what they like; chmod 755 it",
            file.mode() & 0o7777
        ));
    }
    let own = nix::unistd::geteuid().as_raw();
    if file.uid() != 0 && file.uid() != own {
        return Err(format!(
            "{program} belongs to the user {}, who can have it changed; chown it to root",
            file.uid()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn shell(script: &str, limit: Duration) -> Outcome {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, [("A", "b")], b"in", limit).await.unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_says_how_it_ended() {
        let outcome =
            shell("cat; echo \"$A $HOME\"; echo; echo ' oh ' >&2; echo more >&2; exit 3", LONG).await;
        assert_eq!((outcome.text().as_str(), outcome.is_good()), ("exit status: 3: oh", false));
        assert_eq!(outcome.out, b"inb \n\n");
        let warned = shell("echo 'nginx: [warn] a' >&2; echo 'nginx: [emerg] b' >&2; exit 1", LONG).await;
        assert_eq!(warned.text(), "exit status: 1: nginx: [emerg] b");
        assert_eq!(shell("echo said; exit 1", LONG).await.text(), "exit status: 1: said");
        let good = shell("echo said", LONG).await;
        assert_eq!((good.text().as_str(), good.is_good()), ("exit status: 0", true));
        assert_eq!(shell("kill -9 $$", LONG).await.text(), "signal: 9 (SIGKILL)");
        let none = run(&["/nonexistent".to_owned()], [("A", "b")], b"", LONG).await;
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_too_much_is_dropped_and_what_is_left_behind_is_not_waited_for() {
        let outcome = shell("head -c 10000000 /dev/zero; echo done >&2", LONG).await;
        assert_eq!((outcome.out.len(), outcome.text().as_str()), (KEPT, "exit status: 0: done"));
        let begun = Instant::now();
        assert!(shell("sleep 50 & echo x", LONG).await.is_good());
        assert!(begun.elapsed() < Duration::from_secs(40), "it waited for what was left behind");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn when_its_time_is_up_it_and_its_children_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("children");
        let script = format!("trap '' TERM; sleep 600 & echo $! >{}; sleep 600", file.display());
        let outcome = shell(&script, Duration::from_secs(2)).await;
        assert!(outcome.status.is_none() && outcome.text().starts_with("its time was up"));
        let child = std::fs::read_to_string(&file).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        // Gone, or a zombie that nobody has waited for.
        for _ in 0..500 {
            match std::fs::read_to_string(&stat) {
                Ok(text) if !text.contains(") Z ") => sleep(Duration::from_millis(10)).await,
                _ => return,
            }
        }
        panic!("the child lives on");
    }
}
