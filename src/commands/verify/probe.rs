//! Real connections over the wire: what becomes of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::wire::Namespace;

/// What is not answered in this time is lost. Over a wire inside one kernel an answer takes a tenth of a millisecond.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);
/// The same where nothing was counted that would explain the loss: this machine may just be busy.
pub(super) const MORE_PATIENCE: Duration = Duration::from_millis(1500);
/// So many connections at once.
const AT_ONCE: usize = 64;
const HEAD_MAX: usize = 4096;
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The request was answered.
    Passed,
    /// It was reset.
    Reset,
    /// Nothing came back.
    Lost,
    /// Something else, that says nothing about the ruleset.
    Failed(String),
}

impl Outcome {
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self, Self::Reset | Self::Lost)
    }
}

/// A request from an address to another.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) source: IpAddr,
    pub(super) to: SocketAddr,
    /// A header field and its value.
    pub(super) header: Option<(String, String)>,
}

impl Probe {
    pub(super) fn new(source: IpAddr, to: SocketAddr) -> Self {
        Self { source, to, header: None }
    }

    fn head(&self) -> String {
        let header =
            self.header.as_ref().map_or_else(String::new, |(name, value)| format!("{name}: {value}\r\n"));
        format!("GET / HTTP/1.1\r\nHost: stockade.invalid\r\n{header}User-Agent: stockade\r\n\r\n")
    }
}

/// Makes these requests from `namespace`, many at once: what became of each.
pub(super) async fn try_all(
    namespace: &Namespace,
    probes: &[Probe],
    patience: Duration,
) -> Result<Vec<Outcome>> {
    let mut outcomes = vec![Outcome::Lost; probes.len()];
    let mut rest = probes.iter().enumerate();
    loop {
        let mut running = JoinSet::new();
        for (n, probe) in rest.by_ref().take(AT_ONCE) {
            let socket = namespace.socket(SocketAddr::new(probe.source, 0))?;
            let (to, head) = (probe.to, probe.head());
            running.spawn(async move { (n, exchange(socket, to, &head, patience).await) });
        }
        if running.is_empty() {
            return Ok(outcomes);
        }
        while let Some(ended) = running.join_next().await {
            let (n, outcome) = ended?;
            outcomes[n] = outcome;
        }
    }
}

/// Answers every request, until dropped with the runtime.
pub(super) fn serve(listener: TcpListener) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::with_capacity(HEAD_MAX);
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(ANSWER).await
}

async fn exchange(socket: TcpSocket, to: SocketAddr, head: &str, patience: Duration) -> Outcome {
    let talk = async {
        let mut stream = socket.connect(to).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = vec![0; ANSWER.len()];
        stream.read_exact(&mut answer).await.map(drop)
    };
    match timeout(patience, talk).await {
        Err(_) => Outcome::Lost,
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(e)) => match e.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            // A reject by ICMP.
            | io::ErrorKind::PermissionDenied => Outcome::Reset,
            _ => Outcome::Failed(e.to_string()),
        },
    }
}
