//! What the service manager is told (sd_notify(3)): that the agent enforces, reads its configuration again, ends; in a line
//! what it does; and, to the watchdog, that it is not stuck.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// The follower's thread gives a sign of life every second; after so long without one it is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// The way to the service manager; where there is none, nobody is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifier {
    socket: Option<OsString>,
}

impl Notifier {
    /// As the environment says (`NOTIFY_SOCKET`).
    pub(super) fn from_env() -> Self {
        Self { socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) }
    }

    /// The agent does what it is there for; and what that is.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read again; [`ready`](Self::ready) must follow.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(e) => tracing::debug!("failed to read the steady clock for the service manager: {e}"),
        }
    }

    /// The agent ends.
    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// What the agent does, in a line.
    pub(super) fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let text: Vec<String> = state.iter().map(|state| line(&state.to_string())).collect();
        if let Err(e) = send(socket, text.concat().as_bytes()) {
            tracing::debug!("failed to tell the service manager on {}: {e}", socket.to_string_lossy());
        }
    }
}

/// A newline would begin another assignment.
fn line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.push('\n');
    line
}

/// Never waits: a service manager that does not read must not keep bans from the kernel.
fn send(socket: &OsString, text: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(text, &address).map(drop)
}

/// When the watchdog wants to be fed; it never does where none is set (`WatchdogSec=`).
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Half of the time after which it bites.
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the environment says (`WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub(super) fn from_env() -> Self {
        let every = sd_notify::watchdog_enabled().filter(|bite| !bite.is_zero()).map(|bite| bite / 2);
        Self { every, next: Instant::now() }
    }

    /// When [`feed`](Self::feed) has something to do.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }

    /// Feeds it if it is time to and the follower is well: by the main loop, so that it turns is shown by that.
    pub(super) fn feed(&mut self, notifier: &Notifier, follower: Follower) {
        let now = Instant::now();
        let Some(every) = self.every.filter(|_| self.next <= now) else { return };
        self.next = now + every;
        if follower.is_well() {
            notifier.tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "the follower's thread has been stuck for {} s: the watchdog is not fed",
                follower.silent.as_secs()
            );
        }
    }
}

/// How the follower's thread fares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follower {
    /// How long ago it gave a sign of life.
    pub(super) silent: Duration,
    /// It has handed over all that it may, and waits for us.
    pub(super) waits_for_us: bool,
}

impl Follower {
    fn is_well(self) -> bool {
        self.waits_for_us || self.silent < STUCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (dir, socket, Notifier { socket: Some(path.into()) })
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    const WELL: Follower = Follower { silent: Duration::ZERO, waits_for_us: false };

    #[test]
    fn each_message_is_as_the_manual_says() {
        let (_dir, socket, notifier) = manager();
        notifier.ready("2 jails\nMAINPID=1");
        assert_eq!(heard(&socket).unwrap(), "READY=1\nSTATUS=2 jails MAINPID=1\n");
        notifier.reloading();
        let reloading = heard(&socket).unwrap();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(time.parse::<u64>().unwrap() > 0);
        notifier.stopping();
        assert_eq!(heard(&socket).unwrap(), "STOPPING=1\n");
        Notifier::default().stopping();
        assert_eq!(heard(&socket), None);
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let (_dir, _socket, notifier) = manager();
        // More than the queue of a datagram socket holds (net.unix.max_dgram_qlen, usually 512).
        for _ in 0..20_000 {
            notifier.status("on and on");
        }
    }

    #[test]
    fn an_abstract_socket_is_one_with_an_at() {
        let name = format!("stockade-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier { socket: Some(format!("@{name}").into()) }.stopping();
        assert_eq!(heard(&socket).unwrap(), "STOPPING=1\n");
    }

    #[test]
    fn a_stuck_follower_lets_the_watchdog_bite() {
        let (_dir, socket, notifier) = manager();
        let mut watchdog = Watchdog { every: Some(Duration::ZERO), next: Instant::now() };
        watchdog.feed(&notifier, WELL);
        assert_eq!(heard(&socket).unwrap(), "WATCHDOG=1\n");
        watchdog.feed(&notifier, Follower { silent: STUCK, waits_for_us: false });
        assert_eq!(heard(&socket), None);
        // One that waits for us is not stuck, however long.
        watchdog.feed(&notifier, Follower { silent: STUCK * 100, waits_for_us: true });
        assert_eq!(heard(&socket).unwrap(), "WATCHDOG=1\n");
        watchdog.next += Duration::from_secs(60);
        watchdog.feed(&notifier, WELL);
        assert_eq!(heard(&socket), None, "not due");
    }
}
