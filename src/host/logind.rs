//! Who is logged in, as systemd-logind knows it: newer systems have no utmp any more.
//!
//! One file for each session, `KEY=value` lines written by `session_save` of logind (src/login/logind-session.c). They are
//! no interface that systemd promises, but have been the same since 2011, and asking over D-Bus would need a D-Bus.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::sessions::Session;

/// A session's file is a few hundred bytes.
const MOST: u64 = 16 << 10;
/// More sessions than this are not looked at.
const SESSIONS: usize = 5000;

/// The sessions from other hosts whose leading process `lives`. A directory that is not there has none.
///
/// # Errors
/// When there is a directory and it cannot be listed.
pub(super) fn sessions(dir: &Path, lives: impl Fn(u32) -> bool) -> io::Result<Vec<Session>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries.take(SESSIONS).flatten() {
        // `1.ref` is a FIFO: to open it would wait for a writer.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let mut text = Vec::new();
        // A session may end meanwhile.
        if File::open(entry.path()).and_then(|file| file.take(MOST).read_to_end(&mut text)).is_ok() {
            found.extend(session(&String::from_utf8_lossy(&text), &lives));
        }
    }
    Ok(found)
}

fn session(text: &str, lives: impl Fn(u32) -> bool) -> Option<Session> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .filter(|value| !value.is_empty())
    };
    // `closing`: the user is gone, some process of the session is still there.
    if value("STATE")? == "closing" {
        return None;
    }
    if value("LEADER").and_then(|pid| pid.parse().ok()).is_some_and(|pid| !lives(pid)) {
        return None;
    }
    let address = value("REMOTE_HOST")?.parse().ok()?;
    let user = value("USER").or_else(|| value("UID")).unwrap_or("?");
    let on = value("TTY").or_else(|| value("SERVICE")).unwrap_or("no terminal");
    Session::new(user, on, address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As logind of systemd 252 writes it.
    const SSH: &str = "# This is private data. Do not parse.\nUID=0\nUSER=root\nACTIVE=1\nIS_DISPLAY=1\nSTATE=active\n\
                       REMOTE=1\nTYPE=tty\nORIGINAL_TYPE=tty\nCLASS=user\nSCOPE=session-4.scope\n\
                       FIFO=/run/systemd/sessions/4.ref\nTTY=pts/0\nREMOTE_HOST=192.0.2.7\nSERVICE=sshd\nPOSITION=0\n\
                       LEADER=1234\nAUDIT=4\nREALTIME=1700000000000000\nMONOTONIC=1000000\n";

    fn told(text: &str) -> Option<String> {
        session(text, |pid| pid == 1234).map(|s| s.to_string())
    }

    #[test]
    fn a_session_from_elsewhere_is_found() {
        assert_eq!(told(SSH).as_deref(), Some("root on pts/0 from 192.0.2.7"));
        let no_terminal = SSH.replace("TTY=pts/0\n", "").replace("192.0.2.7", "2001:db8::7");
        assert_eq!(told(&no_terminal).as_deref(), Some("root on sshd from 2001:db8::7"));
        for (from, to) in [
            ("STATE=active", "STATE=closing"),
            ("LEADER=1234", "LEADER=1235"),
            ("REMOTE_HOST=192.0.2.7", "REMOTE_HOST=client.example.org"),
            ("REMOTE_HOST=192.0.2.7\n", ""),
            ("STATE=active\n", ""),
        ] {
            assert_eq!(told(&SSH.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(sessions(&dir.path().join("none"), |_| true).unwrap().is_empty());
        fs::write(dir.path().join("4"), SSH).unwrap();
        fs::write(dir.path().join("5"), b"STATE=active\nREMOTE_HOST=192.0.2.8\nUSER=\xff\x1b[2J\n").unwrap();
        nix::unistd::mkfifo(&dir.path().join("4.ref"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let mut found: Vec<String> =
            sessions(dir.path(), |_| true).unwrap().iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|line| line.chars().all(|c| !c.is_control())), "{found:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(STATE|LEADER|REMOTE_HOST|USER|TTY|[^=]{0,5})?(=)?.{0,40}(\n.{0,40}){0,6}") {
            drop(session(&text, |_| true));
        }
    }
}
