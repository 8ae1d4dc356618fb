//! A connection that hands out no more than a line at a time.
//!
//! The library reads ahead. What somebody on the way has put behind the server's answer to STARTTLS would lie in its buffer
//! and be taken for answers that came through TLS (RFC 3207, section 6: it must be discarded). Here such bytes stay where
//! the handshake finds them, and fails. And an answer without an end does not fill the memory.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A server says less in one conversation, TLS included, in bytes.
const MOST: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Lines {
    inner: TcpStream,
    /// What was read and not handed out yet.
    held: Vec<u8>,
    read: usize,
}

impl Lines {
    pub(super) fn new(inner: TcpStream) -> Self {
        Self { inner, held: Vec::new(), read: 0 }
    }
}

impl AsyncRead for Lines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.held.is_empty() {
            let mut bytes = [0; 4096];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            this.read += buffer.filled().len();
            if this.read > MOST {
                return Poll::Ready(Err(io::Error::other("the server says too much")));
            }
            this.held.extend_from_slice(buffer.filled());
        }
        let line = memchr::memchr(b'\n', &this.held).map_or(this.held.len(), |end| end + 1);
        let n = line.min(to.remaining());
        to.put_slice(this.held.get(..n).unwrap_or_default());
        this.held.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lines {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Lines {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr()
    }
}
