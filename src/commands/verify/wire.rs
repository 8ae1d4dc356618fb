//! Two network namespaces of our own and a wire between them. They have no names: they go with this process, whatever
//! becomes of it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::net::{TcpListener, TcpSocket};

use super::address::Ends;
use crate::cli::exit;
use crate::commands::Failure;
use crate::commands::link::{LOOPBACK, Links};

/// The name of both ends of the wire.
const WIRE: &str = "wire";
/// The wire is up in a fraction of this.
const CARRIER: Duration = Duration::from_secs(2);
/// Connections that wait to be taken.
const BACKLOG: u32 = 64;

/// A network namespace. What the thread opens after [`enter`](Self::enter) is in it, and stays there.
pub(super) struct Namespace(File);

impl Namespace {
    /// Makes one, and moves the thread there.
    fn new() -> Result<Self> {
        let made = match unshare(CloneFlags::CLONE_NEWNET) {
            // Without CAP_SYS_ADMIN a user namespace may give it. While this process has only one thread; see unshare(2).
            Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET),
            made => made,
        };
        made.map_err(|e| {
            let message = format!(
                "failed to make a network namespace: {e} (it takes CAP_SYS_ADMIN: run it as root, in a container with \
                 --cap-add SYS_ADMIN)"
            );
            Failure::new(exit::REFUSED, message)
        })?;
        let path = "/proc/thread-self/ns/net";
        Ok(Self(File::open(path).with_context(|| format!("failed to open {path}"))?))
    }

    /// Moves the thread there.
    pub(super) fn enter(&self) -> Result<()> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).context("failed to change the network namespace")
    }

    /// A socket in it, with this address of its own.
    pub(super) fn socket(&self, address: SocketAddr) -> Result<TcpSocket> {
        self.enter()?;
        let make = || -> io::Result<TcpSocket> {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        make().with_context(|| format!("failed to use the address {address}"))
    }

    /// Listens in it.
    pub(super) fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        let socket = self.socket(address)?;
        socket.listen(BACKLOG).with_context(|| format!("failed to listen on {address}"))
    }

    /// Brings up what is in it. The loopback interface, too: a reset that the ruleset answers to what is sent here
    /// takes it.
    fn up(&self) -> Result<()> {
        self.enter()?;
        let links = Links::open()?;
        links.up(LOOPBACK)?;
        links.up_wire(wire()?)
    }

    /// Waits until packets go out: until then the kernel loses them without a word.
    fn wait(&self) -> Result<()> {
        self.enter()?;
        let (links, index) = (Links::open()?, wire()?);
        let begin = Instant::now();
        while begin.elapsed() < CARRIER {
            if links.is_running(index)? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("the interface {WIRE} did not come up")
    }

    fn address(&self, addresses: &[IpAddr]) -> Result<()> {
        self.enter()?;
        let (links, index) = (Links::open()?, wire()?);
        for address in addresses {
            links.add_address(index, *address)?;
        }
        addresses.first().map_or(Ok(()), |address| links.add_default_route(index, *address))
    }
}

fn wire() -> Result<u32> {
    if_nametoindex(WIRE).with_context(|| format!("failed to find the interface {WIRE}"))
}

/// Where the ruleset is tried.
pub(super) struct Wire {
    /// Where the ruleset is, and the server.
    pub(super) inside: Namespace,
    /// Where the packets come from.
    pub(super) outside: Namespace,
}

impl Wire {
    /// Makes both ends.
    pub(super) fn new(ends: Ends, tried: IpAddr) -> Result<Self> {
        let outside = Namespace::new()?;
        let inside = Namespace::new()?;
        Links::open()?.add_wire(WIRE, outside.0.as_fd())?;
        let both = [&inside, &outside];
        both.iter().try_for_each(|end| end.up())?;
        both.iter().try_for_each(|end| end.wait())?;
        inside.address(&[ends.server])?;
        outside.address(&[ends.harmless, tried])?;
        Ok(Self { inside, outside })
    }
}
