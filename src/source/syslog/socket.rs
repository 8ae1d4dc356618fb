//! The socket of a listener.

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrLike as _, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use super::address::Address;

/// What the kernel may keep for us while we are busy, in bytes. The default (net.core.rmem_default) holds a few hundred
/// messages.
const BUFFER: usize = 4 << 20;

/// Why a listener does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else does.
    #[error(
        "failed to listen at {address}: another program listens there already (syslogd? end it, or take another address)"
    )]
    InUse {
        /// Where.
        address: Address,
    },
    /// There is a file that is no socket.
    #[error(
        "failed to listen at {address}: there is a file that is no socket; remove it, or take another path"
    )]
    NoSocket {
        /// Where.
        address: Address,
    },
    /// Anything else.
    #[error("failed to listen at {address}: {source}")]
    Io {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket. Its file is removed with it.
#[derive(Debug)]
pub(crate) struct Socket {
    handle: Handle,
    /// What the kernel had dropped when it last said so.
    dropped: u32,
}

#[derive(Debug)]
enum Handle {
    Udp(UdpSocket),
    Unix(UnixDatagram, PathBuf, (u64, u64)),
}

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// So much of the buffer it fills, in bytes.
    pub(crate) length: usize,
    /// It was longer.
    pub(crate) cut: bool,
    /// Who sent it, over UDP.
    pub(crate) from: Option<IpAddr>,
}

impl Socket {
    /// Listens at `address`; a socket's file gets the mode. What an agent that was killed left there is replaced.
    ///
    /// # Errors
    /// When somebody else listens there, or it is not allowed.
    pub(crate) fn bind(address: &Address, mode: u32) -> Result<Self, BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address: address.clone() },
            _ => BindError::Io { address: address.clone(), source },
        };
        let handle = match address {
            Address::Udp(at) => {
                let socket = UdpSocket::bind(at).map_err(failed)?;
                // What is dropped is told with the next message (socket(7)).
                setsockopt(&socket, sockopt::RxqOvfl, &1).map_err(|e| failed(e.into()))?;
                // Without the privilege the system's own limit holds.
                if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
                    setsockopt(&socket, sockopt::RcvBuf, &BUFFER).map_err(|e| failed(e.into()))?;
                }
                Handle::Udp(socket)
            }
            Address::Unix(path) => {
                if !is_free(path).map_err(failed)? {
                    return Err(BindError::NoSocket { address: address.clone() });
                }
                let socket = UnixDatagram::bind(path).map_err(failed)?;
                let meta = fs::symlink_metadata(path).map_err(failed)?;
                let socket =
                    Self { handle: Handle::Unix(socket, path.clone(), (meta.dev(), meta.ino())), dropped: 0 };
                socket.set_mode(mode).map_err(failed)?;
                return Ok(socket);
            }
        };
        Ok(Self { handle, dropped: 0 })
    }

    /// Who may send, for a Unix socket: whoever may write its file (unix(7)).
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        match &self.handle {
            Handle::Udp(_) => Ok(()),
            Handle::Unix(_, path, _) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        }
    }

    /// Whether the file is still there that leads here. Somebody may clean `/run`.
    pub(crate) fn is_reachable(&self) -> bool {
        match &self.handle {
            Handle::Udp(_) => true,
            Handle::Unix(_, path, known) => is_ours(path, *known),
        }
    }

    /// To be waited for.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.handle {
            Handle::Udp(socket) => socket.as_fd(),
            Handle::Unix(socket, ..) => socket.as_fd(),
        }
    }

    /// The next datagram, if there is one.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut control = nix::cmsg_space!(u32);
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.as_fd().as_raw_fd();
        let message = loop {
            match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
                Ok(message) => break message,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        };
        let mut dropped = self.dropped;
        if let Ok(controls) = message.cmsgs() {
            for control in controls {
                if let ControlMessageOwned::RxqOvfl(n) = control {
                    dropped = n;
                }
            }
        }
        let from = message.address.as_ref().filter(|address| address.len() > 0).and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()).to_canonical()))
        });
        let received =
            Received { length: message.bytes, cut: message.flags.contains(MsgFlags::MSG_TRUNC), from };
        self.dropped = dropped;
        Ok(Some(received))
    }

    /// Datagrams the kernel has dropped because we were too slow, as of the last one received.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.into()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Handle::Unix(_, path, known) = &self.handle
            && is_ours(path, *known)
        {
            drop(fs::remove_file(path));
        }
    }
}

fn is_ours(path: &Path, known: (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == known)
}

/// Makes room at `path`: its directory, and no socket that nobody listens at. Not if there is something else.
fn is_free(path: &Path) -> io::Result<bool> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Ok(false),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e),
    }
    match UnixDatagram::unbound()?.connect(path) {
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map(|()| true),
        // Another kind of socket: a stream's.
        Err(e) if e.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/x.sock");
        let address = Address::Unix(path.clone());
        let mut socket = Socket::bind(&address, 0o620).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        let again = Socket::bind(&address, 0o620).unwrap_err().to_string();
        assert!(again.contains("another program listens there already"), "{again}");
        let mut buffer = [0; 4];
        assert_eq!(socket.receive(&mut buffer).unwrap(), None);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"12345", &path).unwrap();
        assert_eq!(socket.receive(&mut buffer).unwrap(), Some(Received { length: 4, cut: true, from: None }));
        assert!(socket.is_reachable());
        drop(socket);
        assert!(!path.exists());
        // Left by one that was killed.
        drop(UnixDatagram::bind(&path).unwrap());
        drop(Socket::bind(&address, 0o666).unwrap());
        fs::write(&path, "not a socket").unwrap();
        let told = Socket::bind(&address, 0o666).unwrap_err().to_string();
        assert!(told.contains("no socket"), "{told}");
        assert!(path.exists(), "what is not ours stays");
    }

    #[test]
    fn who_sent_it_is_told() {
        // Loopback only; the port is the kernel's choice.
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut socket = Socket::bind(&Address::Udp(port), 0).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"hello", port).unwrap();
        let mut buffer = [0; 16];
        let wanted = Received { length: 5, cut: false, from: Some([127, 0, 0, 1].into()) };
        assert_eq!(socket.receive(&mut buffer).unwrap(), Some(wanted));
        assert!(matches!(Socket::bind(&Address::Udp(port), 0), Err(BindError::InUse { .. })));
    }

    #[test]
    fn what_the_kernel_dropped_is_counted() {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut socket = Socket::bind(&Address::Udp(port), 0).unwrap();
        setsockopt(&socket.as_fd(), sockopt::RcvBuf, &4096).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            sender.send_to(&[b'x'; 500], port).unwrap();
        }
        let mut buffer = [0; 512];
        let mut got = 0;
        while socket.receive(&mut buffer).unwrap().is_some() {
            got += 1;
        }
        // The count comes with the next one that finds room.
        sender.send_to(b"x", port).unwrap();
        assert!(socket.receive(&mut buffer).unwrap().is_some());
        assert_eq!(got + socket.dropped(), 200);
    }
}
