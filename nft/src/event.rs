//! What others do to the ruleset, as it happens.
//!
//! The kernel tells everything, one's own changes too, each with the address of the socket that made it. It does not
//! tell that an element expired.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::socket::Socket;
use crate::sys;
use crate::table::Family;
use crate::wire::{Message, attributes, messages};

/// Something happened to the ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Made, or changed.
    Added {
        /// [Address](crate::Connection::port_id) of the socket that did it.
        port: u32,
        /// What.
        subject: Subject,
    },
    /// Removed.
    Removed {
        /// Address of the socket that did it.
        port: u32,
        /// What.
        subject: Subject,
    },
    /// The end of a transaction, whose changes came before.
    Committed {
        /// Address of the socket that did it.
        port: u32,
        /// The ruleset's generation from now on.
        generation: u32,
        /// The process that did it.
        pid: u32,
        /// Its name, as in `/proc/PID/comm`.
        comm: String,
    },
    /// Events were lost because they came faster than they were read. Whatever is derived from them must be
    /// compared with a full listing.
    Overrun,
}

/// What an event is about. Names only: to know more, list it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A table.
    Table {
        /// Its family.
        family: Family,
        /// Its name.
        table: Arc<str>,
    },
    /// A chain.
    Chain {
        /// Its table's family.
        family: Family,
        /// Its table.
        table: Arc<str>,
        /// Its name.
        chain: Arc<str>,
    },
    /// A rule.
    Rule {
        /// Its table's family.
        family: Family,
        /// Its table.
        table: Arc<str>,
        /// Its chain.
        chain: Arc<str>,
        /// The kernel's number for it.
        handle: u64,
    },
    /// A set.
    Set {
        /// Its table's family.
        family: Family,
        /// Its table.
        table: Arc<str>,
        /// Its name.
        set: Arc<str>,
    },
    /// Elements of a set.
    Elements {
        /// Its table's family.
        family: Family,
        /// Its table.
        table: Arc<str>,
        /// Its name.
        set: Arc<str>,
        /// The elements' keys, for [`KeyTypes::decode`](crate::KeyTypes::decode). Of an interval both ends come, as
        /// if they were two.
        keys: Vec<Box<[u8]>>,
    },
    /// Another kind of object in a table: the kernel's message type.
    Other {
        /// Its table's family.
        family: Family,
        /// `NFT_MSG_…`.
        message: u16,
    },
}

impl Subject {
    /// The table it is or belongs to.
    #[must_use]
    pub fn table(&self) -> Option<(Family, &str)> {
        match self {
            Self::Table { family, table }
            | Self::Chain { family, table, .. }
            | Self::Rule { family, table, .. }
            | Self::Set { family, table, .. }
            | Self::Elements { family, table, .. } => Some((*family, table)),
            Self::Other { .. } => None,
        }
    }
}

/// A socket that listens.
pub struct Watcher {
    socket: Socket,
    ignored: Vec<u32>,
    pending: VecDeque<Event>,
}

impl Watcher {
    /// Listens in the network namespace of the calling thread. Open it before listing what is there, so that nothing
    /// falls between.
    ///
    /// # Errors
    /// When the system refuses the socket or the subscription (which needs `CAP_NET_ADMIN`).
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(&[sys::NFNLGRP_NFTABLES])?;
        Ok(Self { socket, ignored: Vec::new(), pending: VecDeque::new() })
    }

    /// Skips what the socket with this [address](crate::Connection::port_id) does. The kernel drops it before it is
    /// queued, so that no batch of one's own, however large, causes an overrun.
    pub fn ignore(&mut self, port: u32) {
        if !self.ignored.contains(&port) {
            self.ignored.push(port);
            self.socket.drop_from_ports(&self.ignored);
        }
    }

    /// Waits for the next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the socket fails for another reason than an overrun, which is an event.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let received = match self.socket.receive().await {
                Ok(datagram) => datagram,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.drain();
                    return Ok(Event::Overrun);
                }
                Err(e) => return Err(e),
            };
            // What was queued before the kernel was told.
            let foreign = messages(received).filter(|m| !self.ignored.contains(&m.port));
            self.pending.extend(foreign.filter_map(|m| read(&m)));
        }
    }
}

impl Watcher {
    /// After an overrun the kernel queues nothing, and says nothing of it, until what is queued was read. It is older
    /// than the listing that must follow anyway.
    fn drain(&mut self) {
        while let Some(received) = self.socket.try_receive() {
            match received {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                // The next call meets it again.
                Err(_) => return,
            }
        }
    }
}

pub(crate) fn read(message: &Message<'_>) -> Option<Event> {
    let kind = message.nft_kind()?;
    let port = message.port;
    let family = Family::from_number(message.family());
    let a = message.attributes();
    let name = |attribute| a.str(attribute).map(Arc::<str>::from);
    let subject = match kind {
        sys::NFT_MSG_NEWGEN => {
            return Some(Event::Committed {
                port,
                generation: a.be32(sys::NFTA_GEN_ID)?,
                pid: a.be32(sys::NFTA_GEN_PROC_PID).unwrap_or(0),
                comm: a.str(sys::NFTA_GEN_PROC_NAME).unwrap_or_default(),
            });
        }
        sys::NFT_MSG_NEWTABLE | sys::NFT_MSG_DELTABLE => {
            Subject::Table { family, table: name(sys::NFTA_TABLE_NAME)? }
        }
        sys::NFT_MSG_NEWCHAIN | sys::NFT_MSG_DELCHAIN => {
            Subject::Chain { family, table: name(sys::NFTA_CHAIN_TABLE)?, chain: name(sys::NFTA_CHAIN_NAME)? }
        }
        sys::NFT_MSG_NEWRULE | sys::NFT_MSG_DELRULE => Subject::Rule {
            family,
            table: name(sys::NFTA_RULE_TABLE)?,
            chain: name(sys::NFTA_RULE_CHAIN)?,
            handle: a.be64(sys::NFTA_RULE_HANDLE)?,
        },
        sys::NFT_MSG_NEWSET | sys::NFT_MSG_DELSET => {
            Subject::Set { family, table: name(sys::NFTA_SET_TABLE)?, set: name(sys::NFTA_SET_NAME)? }
        }
        sys::NFT_MSG_NEWSETELEM | sys::NFT_MSG_DELSETELEM => {
            let elements = a.nested(sys::NFTA_SET_ELEM_LIST_ELEMENTS).into_iter().flatten();
            Subject::Elements {
                family,
                table: name(sys::NFTA_SET_ELEM_LIST_TABLE)?,
                set: name(sys::NFTA_SET_ELEM_LIST_SET)?,
                keys: elements
                    .filter_map(|(_, e)| attributes(e).data(sys::NFTA_SET_ELEM_KEY))
                    .map(Into::into)
                    .collect(),
            }
        }
        _ => Subject::Other { family, message: kind },
    };
    // Of an unknown kind it is not known which; "added" is as good, since neither is named.
    let removed = matches!(
        kind,
        sys::NFT_MSG_DELTABLE
            | sys::NFT_MSG_DELCHAIN
            | sys::NFT_MSG_DELRULE
            | sys::NFT_MSG_DELSET
            | sys::NFT_MSG_DELSETELEM
    );
    Some(if removed { Event::Removed { port, subject } } else { Event::Added { port, subject } })
}
