//! A web server as a process of a test, and its visitors.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::until;

/// A server in the foreground, which ends with this.
pub(super) struct Server {
    child: Child,
    port: u16,
    output: PathBuf,
}

/// A directory that servers can read whatever user they run as.
pub(super) fn directory() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A port that nobody listens at.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts a program and waits until it answers at the port.
    pub(super) fn start(dir: &Path, port: u16, words: &[&str]) -> Self {
        let output = dir.join("output");
        let file = fs::File::options().create(true).append(true).open(&output).unwrap();
        let child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; tests/run installs it", words[0]));
        let server = Self { child, port, output };
        until(|| server.said(), || server.answers());
        server
    }

    /// What it has said.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn answers(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// What a client at `address`, behind a proxy on this host, gets: the status, or 444 where the connection ends without a word.
    pub(super) fn visit(&self, address: &str) -> u16 {
        self.page(address).0
    }

    /// Status and body.
    pub(super) fn page(&self, address: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let forged = "203.0.113.250, ";
        write!(
            stream,
            "GET /index.txt HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forged}{address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        // A server that closes may also reset.
        drop(stream.read_to_string(&mut answer));
        if answer.is_empty() {
            return (444, answer);
        }
        let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer}")).parse().unwrap();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }

    /// Waits until the client gets this.
    pub(super) fn expect(&self, address: &str, status: u16, told: impl Fn() -> String) {
        let got = || self.page(address);
        until(
            || format!("{address} gets {:?}, not {status}\n{}\n{}", got(), told(), self.said()),
            || got().0 == status,
        );
    }

    /// Ends it, and waits until it has ended.
    pub(super) fn stop(&mut self) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = kill(id, Signal::SIGTERM);
        for _ in 0..500 {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
