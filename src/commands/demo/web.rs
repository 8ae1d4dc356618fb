//! A web server of a few lines that has one page and logs as Nginx Proxy Manager does, and a visitor for it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::fs::OpenOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

/// A visitor gives up after this long.
const PATIENCE: Duration = Duration::from_millis(700);
/// A request of ours is far smaller.
const REQUEST_CAP: usize = 2048;

/// Serves `/` and nothing else on `listener` until dropped, logging to `log`.
pub(super) async fn serve(listener: TcpListener, log: &Path) -> Result<()> {
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .await
        .with_context(|| format!("failed to open {}", log.display()))?;
    loop {
        let (mut stream, peer) = listener.accept().await.context("failed to accept a visitor")?;
        let mut request = vec![0; REQUEST_CAP];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..length]);
        let path = request.split(' ').nth(1).unwrap_or("/");
        let status = if path == "/" { 200 } else { 404 };
        let line = format!(
            "[{}] - {status} {status} - GET http demo.example \"{path}\" [Client {}] [Length 0] [Gzip -] \
             [Sent-to 127.0.0.1] \"demo\" \"-\"\n",
            jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000"),
            peer.ip()
        );
        log.write_all(line.as_bytes()).await.context("failed to write the log")?;
        log.flush().await.context("failed to write the log")?;
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // A visitor who is gone is no failure of the server.
        drop(stream.write_all(answer.as_bytes()).await);
    }
}

/// Asks `server` for `path` from the address `source`; the status, or `None` when nothing comes back in time.
pub(super) async fn visit(source: IpAddr, server: SocketAddr, path: &str) -> Result<Option<u16>> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("failed to use the address {source}"))?;
    let conversation = async {
        let mut stream = socket.connect(server).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: demo.example\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.split(' ').nth(1).and_then(|status| status.parse().ok()))
    };
    Ok(tokio::time::timeout(PATIENCE, conversation).await.ok().and_then(Result::ok).flatten())
}
