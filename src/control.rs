//! The control socket: one request and one reply per line of JSON, over a Unix socket of mode 0600.
//!
//! The socket's mode is the whole access control: who may connect may ban and unban.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::confine::hint;
use crate::kernel::capability::privilege::{Capability, Privileges};

/// A request longer than this is refused: `ban` with 10,000 addresses fits.
const REQUEST_CAP: u64 = 1 << 20;
/// A peer that connects and says nothing is let go after this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// An agent that was told to stop has ended by then.
const HANDOVER: Duration = Duration::from_secs(2);

/// What can be asked of a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Is anybody there?
    Ping,
    /// What the agent does and how each jail fares.
    Status {
        /// Only this jail.
        jail: Option<String>,
    },
    /// The current bans.
    Bans {
        /// Only this jail's.
        jail: Option<String>,
    },
    /// Ban addresses or networks by hand.
    Ban {
        /// In this jail's name.
        jail: String,
        /// Addresses or networks as typed.
        offenders: Vec<String>,
        /// How long, as typed (`2h`, `permanent`); the jail's `bantime` when absent.
        time: Option<String>,
        /// Why, for whoever reads the list later.
        reason: Option<String>,
        /// Also what `ignoreip` says is never banned.
        force: bool,
    },
    /// Lift bans.
    Unban {
        /// Addresses or networks as typed; empty for all.
        offenders: Vec<String>,
        /// Only this jail's.
        jail: Option<String>,
    },
    /// Read the configuration again.
    Reload,
    /// End the agent.
    Stop {
        /// Also remove the table, and with it every ban, from the kernel.
        flush: bool,
    },
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It was done; what was asked for.
    Ok(serde_json::Value),
    /// It was not done.
    Error {
        /// Exit code the client should end with (see `cli`).
        code: u8,
        /// What failed and what to do, lower case.
        message: String,
    },
}

impl Response {
    /// A refusal.
    pub fn error(code: u8, message: impl Into<String>) -> Self {
        Self::Error { code, message: message.into() }
    }
}

/// A request under way and the place for its reply.
pub type Call = (Request, oneshot::Sender<Response>);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Two agents would undo each other's work in the kernel.
    #[error("another agent already answers on {}; stop it first (stockade stop)", .0.display())]
    Busy(PathBuf),
    /// The same, with another control socket.
    #[error("another agent (pid {0}) enforces in this network namespace already; stop it first")]
    NotAlone(i32),
    /// The system refused.
    #[error("failed to open the control socket {} (set paths.control to a writable place{})", path.display(), hint(path, source))]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The right to be the one agent of this network namespace: two would undo each other's bans for ever, whatever their
/// control sockets are called. Held as an abstract Unix socket, whose names belong to the namespace (unix(7)).
#[derive(Debug)]
pub struct Alone {
    _socket: Option<net::UnixListener>,
}

/// What came of one try to claim it.
enum Claim {
    Had(Alone),
    /// An agent of this pid has it.
    Held(i32),
    /// Its name is taken, and nobody is there any more: it ended between the two questions.
    Ending(io::Error),
}

impl Alone {
    /// Claims it, waiting a moment for an agent that is just ending.
    ///
    /// # Errors
    /// [`BindError::NotAlone`] when another agent has it.
    pub async fn claim() -> Result<Self, BindError> {
        Self::claim_as(b"stockade").await
    }

    async fn claim_as(name: &[u8]) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: PathBuf::from("@stockade"), source };
        let end = tokio::time::Instant::now() + HANDOVER;
        loop {
            let refusal = match Self::try_claim(name).map_err(failed)? {
                Claim::Had(alone) => return Ok(alone),
                Claim::Held(pid) => BindError::NotAlone(pid),
                Claim::Ending(e) => failed(e),
            };
            if tokio::time::Instant::now() >= end {
                return Err(refusal);
            }
            // Each try leaves a connection in the queue of who has it, which holds thousands.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn try_claim(name: &[u8]) -> io::Result<Claim> {
        let name = net::SocketAddr::from_abstract_name(name)?;
        match net::UnixListener::bind_addr(&name) {
            Ok(socket) => return Ok(Claim::Had(Self { _socket: Some(socket) })),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(e),
        }
        // Anybody may take an abstract name. Who is neither root nor us nor may change nf_tables is no agent, and must not keep
        // us out.
        let who = match net::UnixStream::connect_addr(&name) {
            Ok(stream) => getsockopt(&stream, PeerCredentials)?,
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(Claim::Ending(e)),
            Err(e) => return Err(e),
        };
        let own = who.uid() == 0 || who.uid() == nix::unistd::geteuid().as_raw();
        if own || may_change_nf_tables(who.pid()) {
            return Ok(Claim::Held(who.pid()));
        }
        tracing::warn!(uid = who.uid(), "somebody else holds the agent's name: going on without it");
        Ok(Claim::Had(Self { _socket: None }))
    }
}

/// Whether that process may change nf_tables here, and not only in a user namespace of its own.
fn may_change_nf_tables(pid: i32) -> bool {
    let map = |who: &str| std::fs::read_to_string(format!("/proc/{who}/uid_map")).ok();
    let (theirs, ours) = (map(&pid.to_string()), map("self"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    theirs.is_some()
        && theirs == ours
        && Privileges::told_by(&status).holds(Capability::NetAdmin) == Some(true)
}

/// The listening socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    file: Bound,
}

impl Server {
    /// Opens the socket at `path`, making its directory, and replacing what a crashed agent left.
    ///
    /// # Errors
    /// [`BindError::Busy`] when an agent answers there.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(BindError::Busy(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                // What refuses may be a crashed agent's socket, or no socket at all.
                if !std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
                    return Err(failed(io::Error::other("something is there that is no socket")));
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(e) => return Err(failed(e)),
        }
        // The mode must be right from the first moment on: a chmod after the bind would leave a gap.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        nix::sys::stat::umask(before);
        let listener = bound.map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, file: Bound(path.to_owned()) })
    }

    /// Serves on a thread of its own: however long the agent's loop takes over a batch of bans, connections are
    /// accepted and requests are read meanwhile, so that they are the next that it looks at.
    ///
    /// # Errors
    /// When the system has no thread or no descriptors left.
    pub fn start(self, calls: mpsc::Sender<Call>) -> io::Result<Serving> {
        let Self { listener, file } = self;
        let listener = listener.into_std()?;
        let (closed, close) = oneshot::channel::<oneshot::Sender<()>>();
        let (ended, end) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(async {
                match UnixListener::from_std(listener) {
                    Ok(listener) => tokio::select! {
                        biased;
                        gone = close => {
                            drop(file);
                            // Who asked may have gone.
                            drop(gone.map(|gone| gone.send(())));
                        }
                        () = accept(listener, calls) => {}
                    },
                    Err(e) => tracing::error!("the control socket cannot be served: {e}"),
                }
                // Replies may still be under way.
                drop(end.await);
            });
        })?;
        Ok(Serving { closed, ended, thread })
    }
}

/// The thread that serves.
#[derive(Debug)]
pub struct Serving {
    closed: oneshot::Sender<oneshot::Sender<()>>,
    ended: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Serving {
    /// Takes the socket away. What was asked before can still be answered until what is returned is ended.
    pub async fn close(self) -> Answering {
        let (gone, wait) = oneshot::channel();
        if self.closed.send(gone).is_ok() {
            drop(wait.await);
        }
        Answering { ended: self.ended, thread: self.thread }
    }
}

/// The thread that serves nobody new.
#[derive(Debug)]
pub struct Answering {
    ended: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Answering {
    /// Ends the thread. An answer that is not written by now never is.
    pub fn end(self) {
        drop(self.ended);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the control socket panicked");
        }
    }
}

/// The socket's file, as long as somebody listens.
#[derive(Debug)]
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        // Nothing to do about a failure: the next start replaces the file.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Lets an answer be written that was given, before this process ends.
pub async fn linger() {
    // The first process of a container takes all others along when it ends: whoever asked from within is to print the answer.
    let first = std::process::id() == 1;
    tokio::time::sleep(Duration::from_millis(if first { 500 } else { 20 })).await;
}

/// Accepts connections, handing each request to `calls`.
async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, calls.clone()));
            }
            Err(e) => {
                tracing::warn!("failed to accept a control connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut read).take(REQUEST_CAP);
        match tokio::time::timeout(REQUEST_TIMEOUT, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(n)) if n > 0 => {}
            _ => return,
        }
        let response = if line.last() == Some(&b'\n') {
            answer(&line, &calls).await
        } else {
            Response::error(2, format!("a request must be one line of at most {REQUEST_CAP} bytes"))
        };
        let Ok(mut text) = serde_json::to_vec(&response) else { return };
        text.push(b'\n');
        if write.write_all(&text).await.is_err() {
            return;
        }
    }
}

async fn answer(line: &[u8], calls: &mpsc::Sender<Call>) -> Response {
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(e) => return Response::error(2, format!("not a request: {e}")),
    };
    let (reply, response) = oneshot::channel();
    if calls.send((request, reply)).await.is_err() {
        return Response::error(3, "the agent is stopping");
    }
    response.await.unwrap_or_else(|_| Response::error(3, "the agent is stopping"))
}

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("no agent answers on {}: {source} ({})", path.display(), advice(source))]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent hung up or did not speak our language.
    #[error("the agent on {} did not answer properly: {reason}", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        reason: String,
    },
}

impl CallError {
    /// Whether there is nobody on the socket at all.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "the socket is root's alone: use sudo",
        _ => "is `stockade run` up, and does --config name the same paths.control?",
    }
}

/// Asks the agent on `path` and waits for the reply, at most `timeout`.
///
/// # Errors
/// When nobody answers, or not in time.
pub async fn call(path: &Path, request: &Request, timeout: Duration) -> Result<Response, CallError> {
    let unreachable = |source| CallError::Unreachable { path: path.to_owned(), source };
    let garbled = |reason: String| CallError::Garbled { path: path.to_owned(), reason };
    let conversation = async {
        let mut stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let mut text = serde_json::to_vec(request).map_err(|e| garbled(e.to_string()))?;
        text.push(b'\n');
        stream.write_all(&text).await.map_err(unreachable)?;
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line).await.map_err(unreachable)?;
        if line.is_empty() {
            return Err(garbled("it hung up".to_owned()));
        }
        serde_json::from_slice(&line).map_err(|e| garbled(e.to_string()))
    };
    match tokio::time::timeout(timeout, conversation).await {
        Ok(result) => result,
        Err(_) => Err(garbled(format!("no answer within {} s", timeout.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    use std::os::fd::AsRawFd as _;

    use super::*;

    /// An agent that started while another one was ending failed with "connection refused": the name was still taken, and
    /// nobody listened any more.
    #[tokio::test]
    async fn an_agent_that_is_just_ending_is_waited_for() {
        let name = format!("stockade-test-{}", std::process::id());
        // Bound, and without anybody who listens: as in the moment in which a process goes.
        let ending = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(ending.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).unwrap()).unwrap();
        assert!(matches!(Alone::try_claim(name.as_bytes()), Ok(Claim::Ending(_))));
        let claim = tokio::spawn({
            let name = name.clone();
            async move { Alone::claim_as(name.as_bytes()).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(ending);
        let alone = claim.await.unwrap().unwrap();
        assert!(matches!(Alone::try_claim(name.as_bytes()), Ok(Claim::Held(_))));
        drop(alone);
        assert!(matches!(Alone::try_claim(name.as_bytes()), Ok(Claim::Had(_))));
    }
}
