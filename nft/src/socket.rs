//! The netlink socket: neli opens it, tokio waits for it.

use std::io;
use std::os::fd::AsRawFd;

use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Longer than any datagram the kernel sends here: dumps come in pieces of at most 32 KB, notifications are collected
/// up to a few pages, errors do not repeat the request.
const DATAGRAM_MAX: usize = 256 * 1024;
/// Every element that anybody adds is a notification of its own. Too small a buffer only costs a full comparison.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// What the kernel adds to a datagram's length before it compares it with the buffer, generously.
const SEND_OVERHEAD: usize = 4096;

pub(crate) struct Socket {
    fd: AsyncFd<NlSocket>,
    buf: Vec<u8>,
}

impl Socket {
    /// Opens a socket of the netfilter family, in the network namespace of the calling thread.
    pub(crate) fn open(groups: &[u32]) -> io::Result<Self> {
        let socket = NlSocket::connect(NlFamily::Netfilter, None, Groups::new_groups(groups))?;
        socket.nonblock()?;
        socket.enable_ext_ack(true)?;
        sys::set_cap_ack(socket.as_raw_fd())?;
        sys::set_receive_buffer(socket.as_raw_fd(), RECEIVE_BUFFER)?;
        // SAFETY: the socket owns its descriptor, and nothing replaces or closes it while `AsyncFd` holds the socket.
        let fd = unsafe { AsyncFd::register(socket)? };
        Ok(Self { fd, buf: vec![0; DATAGRAM_MAX] })
    }

    /// The socket's address, by which the kernel tells who made a change.
    pub(crate) fn port_id(&self) -> io::Result<u32> {
        self.fd.get_ref().pid()
    }

    /// Has the kernel drop what these ports cause. An optimisation: it may fail.
    pub(crate) fn drop_from_ports(&self, ports: &[u32]) {
        let _ = sys::drop_from_ports(self.fd.as_raw_fd(), ports);
    }

    /// Makes room to send so many bytes at once; the error is how many there is room for.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), usize> {
        let fd = self.fd.as_raw_fd();
        let needed = bytes + SEND_OVERHEAD;
        let room = || sys::send_buffer(fd).unwrap_or(0);
        if room() >= needed {
            return Ok(());
        }
        // A failure shows in the size.
        let _ = sys::set_send_buffer(fd, needed);
        let room = room();
        if room >= needed { Ok(()) } else { Err(room.saturating_sub(SEND_OVERHEAD)) }
    }

    /// Sends one datagram. The kernel works it off before this returns.
    pub(crate) async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // The kernel takes it at once; asking first saves a turn through the reactor.
        match send_from(self.fd.get_ref(), bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        loop {
            let mut ready = self.fd.writable().await?;
            if let Ok(result) = ready.try_io(|fd| send_from(fd.get_ref(), bytes)) {
                return result;
            }
        }
    }

    /// Receives one datagram. Dropping the future loses nothing.
    pub(crate) async fn receive(&mut self) -> io::Result<&[u8]> {
        let n = loop {
            // Answers are there when the request was sent: asking first saves a turn through the reactor.
            match receive_into(self.fd.get_ref(), &mut self.buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => break other?,
            }
            let mut ready = self.fd.readable().await?;
            // Under the guard, so that a datagram that comes now cannot be missed.
            if let Ok(result) = ready.try_io(|fd| receive_into(fd.get_ref(), &mut self.buf)) {
                break result?;
            }
        };
        self.datagram(n)
    }

    /// Receives a datagram that is there already.
    pub(crate) fn try_receive(&mut self) -> Option<io::Result<&[u8]>> {
        match receive_into(self.fd.get_ref(), &mut self.buf) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(e) => Some(Err(e)),
            Ok(n) => Some(self.datagram(n)),
        }
    }

    /// With `MSG_TRUNC` the length is the datagram's own, even if the buffer was shorter.
    fn datagram(&self, n: usize) -> io::Result<&[u8]> {
        self.buf.get(..n).ok_or_else(|| {
            let text = format!("a netlink message of {n} bytes was cut to {DATAGRAM_MAX}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

fn send_from(socket: &NlSocket, bytes: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(bytes, Msg::empty()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

fn receive_into(socket: &NlSocket, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(&mut *buf, Msg::TRUNC) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|(n, _)| n),
        }
    }
}
