//! Messages of syslog, over UDP or a Unix datagram socket: a datagram is a message is a line.
//!
//! A listener has no memory: what is sent while the agent is down is lost, and so is what comes faster than it is read (over
//! UDP; a Unix socket makes the sender wait). Lost datagrams are counted by the kernel.

mod address;
mod message;
mod socket;

pub use self::address::{Address, AddressError};
pub use self::message::Message;
pub use self::socket::BindError;
pub(crate) use self::socket::{Received, Socket};
