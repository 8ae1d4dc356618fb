//! The connection to the kernel: commits batches, answers questions.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::chain::Chain;
use crate::commit::{CommitError, Rejection};
use crate::element::{self, Element, Listed};
use crate::encode::{self, Encoded, Mode};
use crate::flowtable::Flowtable;
use crate::kernel::Kernel;
use crate::list::ListError;
use crate::rule::ListedRule;
use crate::set::Set;
use crate::socket::Socket;
use crate::sys;
use crate::table::Table;
use crate::wire::{Ack, Message, Writer, attributes, messages};

/// How often a listing is begun anew because the ruleset changed meanwhile.
const DUMP_ATTEMPTS: u32 = 20;
/// A listing that takes long is given up sooner: after so many attempts and so much time.
const LONG_DUMP_ATTEMPTS: u32 = 4;
const LONG_DUMP: Duration = Duration::from_secs(1);
/// How often a set is listed that is just being rebuilt; with a pause before each that doubles, about four seconds.
const REBUILD_ATTEMPTS: u32 = 12;

/// A netlink socket that stays open: a change costs microseconds.
///
/// Methods may be cancelled at any await: a batch that was sent still happens, and what the kernel still has to say
/// about it is skipped by the next call.
pub struct Connection {
    socket: Socket,
    seq: u32,
    /// A listing was begun and not read to its end.
    dumping: bool,
}

impl Connection {
    /// Opens a connection to the network namespace of the calling thread. Opening needs no privileges; whatever is
    /// done with it needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// When the system refuses the socket, e.g. for want of file descriptors, or in a sandbox without netlink.
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one whose I/O is not enabled. (Listing elements also needs its time.)
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(&[])?, seq: 1, dumping: false })
    }

    /// The socket's address. [Events](crate::Event) carry the address of the socket that made the change, so this is
    /// how one's own are told from those of others.
    ///
    /// # Errors
    /// When the system does not tell the socket's address.
    pub fn port_id(&self) -> io::Result<u32> {
        self.socket.port_id()
    }

    /// Makes all changes of the batch, or none. An empty batch is no work.
    ///
    /// # Errors
    /// The first change that the kernel refused, by name; see [`CommitError`].
    pub async fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let encoded = encode::encode(batch, self.seq, Mode::Commit)?;
        if encoded.messages() == 0 {
            return Ok(());
        }
        self.send_batch(&encoded).await?;
        let mut failure = None;
        loop {
            let datagram = self.socket.receive().await.map_err(CommitError::Receive)?;
            for ack in messages(datagram).filter_map(|m| Ack::parse(&m)) {
                // Answers to a call that was cancelled.
                if !encoded.has(ack.seq) {
                    continue;
                }
                if ack.errno != 0 {
                    if ack.seq == encoded.first_seq {
                        // About the batch as a whole; nothing that follows matters.
                        return Err(CommitError::Refused { errno: ack.errno });
                    }
                    // The first failure is the cause, those after it often its consequences.
                    failure = failure.or_else(|| encoded.rejection(&ack));
                }
                if ack.seq == encoded.last_seq {
                    return failure.map_or(Ok(()), |(_, rejection)| Err(CommitError::Rejected(rejection)));
                }
            }
        }
    }

    /// Asks what the kernel would say to each change, in order, without changing anything and without anybody being
    /// notified. A change that builds on a refused one is refused as well. This is how capabilities are found out;
    /// with more than some hundred changes the answers may not fit the socket. What the kernel looks at when a batch is
    /// committed is not told, such as whether `reject` may stand at a base chain's hook.
    ///
    /// # Errors
    /// When the batch as a whole is refused, e.g. for want of `CAP_NET_ADMIN`.
    pub async fn probe(&mut self, batch: &Batch) -> Result<Vec<Result<(), Rejection>>, CommitError> {
        let encoded = encode::encode(batch, self.seq, Mode::Probe)?;
        let mut results: Vec<Result<(), Rejection>> = batch.changes().iter().map(|_| Ok(())).collect();
        if encoded.messages() == 0 {
            return Ok(results);
        }
        self.send_batch(&encoded).await?;
        loop {
            let datagram = self.socket.receive().await.map_err(CommitError::Receive)?;
            for ack in messages(datagram).filter_map(|m| Ack::parse(&m)) {
                if !encoded.has(ack.seq) {
                    continue;
                }
                if ack.errno != 0 {
                    let Some((change, rejection)) = encoded.rejection(&ack) else {
                        return Err(CommitError::Refused { errno: ack.errno });
                    };
                    if results[change].is_ok() {
                        results[change] = Err(rejection);
                    }
                }
                if ack.seq == encoded.last_seq {
                    return Ok(results);
                }
            }
        }
    }

    /// The ruleset's generation: a number that every transaction, whoever made it, increases.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn generation(&mut self) -> Result<u32, ListError> {
        let what = || "the ruleset's generation".to_owned();
        let found = self.list(sys::NFT_MSG_GETGEN, 0, 0, what, |_| {}, read_generation).await?;
        found.first().copied().ok_or_else(|| ListError::Malformed { what: what() })
    }

    /// All tables.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn tables(&mut self) -> Result<Vec<Table>, ListError> {
        let what = || "tables".to_owned();
        self.list(
            sys::NFT_MSG_GETTABLE,
            sys::NLM_F_DUMP,
            0,
            what,
            |_| {},
            |m, all| all.extend(Table::read(m)),
        )
        .await
    }

    /// The chains of a table; none when there is no such table.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, ListError> {
        let what = || format!("chains of table {} {}", table.family, table.name);
        let family = table.family.number();
        let filter = |w: &mut Writer| w.str(sys::NFTA_CHAIN_TABLE, &table.name);
        let mut chains = self
            .list(sys::NFT_MSG_GETCHAIN, sys::NLM_F_DUMP, family, what, filter, |m, all| {
                all.extend(Chain::read(m));
            })
            .await?;
        // Kernels before 6.x list the chains of all tables.
        chains.retain(|c| c.family == table.family && c.table == table.name);
        Ok(chains)
    }

    /// All flowtables.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn flowtables(&mut self) -> Result<Vec<Flowtable>, ListError> {
        let what = || "flowtables".to_owned();
        self.list(
            sys::NFT_MSG_GETFLOWTABLE,
            sys::NLM_F_DUMP,
            0,
            what,
            |_| {},
            |m, all| all.extend(Flowtable::read(m)),
        )
        .await
    }

    /// The named sets of a table; maps are not among them.
    ///
    /// # Errors
    /// See [`ListError`]; also when there is no such table.
    pub async fn sets(&mut self, table: &Table) -> Result<Vec<Set>, ListError> {
        let what = || format!("sets of table {} {}", table.family, table.name);
        let family = table.family.number();
        let filter = |w: &mut Writer| w.str(sys::NFTA_SET_TABLE, &table.name);
        let mut sets = self
            .list(sys::NFT_MSG_GETSET, sys::NLM_F_DUMP, family, what, filter, |m, all| {
                all.extend(Set::read(m));
            })
            .await?;
        sets.retain(|s| {
            s.family == table.family && s.table == table.name && !s.is_anonymous() && !s.is_map()
        });
        Ok(sets)
    }

    /// The rules of a table, chain by chain, in order; none when there is no such table.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn rules(&mut self, table: &Table) -> Result<Vec<ListedRule>, ListError> {
        let what = || format!("rules of table {} {}", table.family, table.name);
        let family = table.family.number();
        let filter = |w: &mut Writer| w.str(sys::NFTA_RULE_TABLE, &table.name);
        let mut rules = self
            .list(sys::NFT_MSG_GETRULE, sys::NLM_F_DUMP, family, what, filter, |m, all| {
                all.extend(ListedRule::read(m));
            })
            .await?;
        rules.retain(|r| r.family == table.family && r.table == table.name);
        Ok(rules)
    }

    /// A set's elements, with the time they have left, in the order of their keys. They are read by the types of the
    /// set given, which need not be the one listed.
    ///
    /// # Errors
    /// See [`ListError`]; also when there is no such set.
    pub async fn elements(&mut self, set: &Set) -> Result<Vec<Element>, ListError> {
        let what = || format!("elements of {}", crate::commit::name(set));
        let filter = |w: &mut Writer| {
            w.str(sys::NFTA_SET_ELEM_LIST_TABLE, &set.table);
            w.str(sys::NFTA_SET_ELEM_LIST_SET, &set.name);
        };
        let read = |m: &Message<'_>, all: &mut Vec<Listed>| {
            let elements = m.attributes().nested(sys::NFTA_SET_ELEM_LIST_ELEMENTS).into_iter().flatten();
            all.extend(elements.filter_map(|(_, e)| Listed::read(set, attributes(e))));
        };
        let family = set.family.number();
        for attempt in 0..REBUILD_ATTEMPTS {
            let listed =
                self.list(sys::NFT_MSG_GETSETELEM, sys::NLM_F_DUMP, family, what, filter, read).await?;
            if let Some(elements) = element::assemble(set, listed) {
                return Ok(elements);
            }
            tokio::time::sleep(Duration::from_millis(1 << attempt)).await;
        }
        Err(ListError::Interrupted { what: what() })
    }

    async fn send_batch(&mut self, encoded: &Encoded<'_>) -> Result<(), CommitError> {
        self.seq = self.seq.wrapping_add(encoded.seqs());
        let bytes = encoded.bytes.len();
        self.socket.reserve(bytes).map_err(|limit| CommitError::TooLarge { bytes, limit })?;
        self.socket.send(&encoded.bytes).await.map_err(CommitError::Send)
    }

    /// Sends a request and reads all of its answer, from the start again when the kernel says that the answer is
    /// not of one piece.
    async fn list<T>(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        what: impl Fn() -> String,
        request: impl Fn(&mut Writer),
        read: impl Fn(&Message<'_>, &mut Vec<T>),
    ) -> Result<Vec<T>, ListError> {
        let begin = Instant::now();
        for attempt in 0..DUMP_ATTEMPTS {
            if attempt >= LONG_DUMP_ATTEMPTS && begin.elapsed() > LONG_DUMP {
                break;
            }
            let answer = self.list_once(kind, flags, family, &request, &read).await;
            match answer.map_err(|source| ListError::Io { what: what(), source })? {
                Answer::Whole(found) => return Ok(found),
                Answer::Errno(libc::EINTR | libc::EAGAIN, _) | Answer::Interrupted => {}
                Answer::Errno(errno, _) => return Err(ListError::Refused { what: what(), errno }),
            }
        }
        Err(ListError::Interrupted { what: what() })
    }

    /// Asks another part of netfilter one question; `kind` says which part, too.
    pub(crate) async fn ask<T>(
        &mut self,
        kind: u16,
        family: u8,
        request: impl Fn(&mut Writer),
        read: impl Fn(&Message<'_>, &mut Vec<T>),
    ) -> io::Result<Vec<T>> {
        match self.ask_once(kind, 0, family, request, read).await? {
            Answer::Whole(found) => Ok(found),
            Answer::Interrupted => Err(io::ErrorKind::Interrupted.into()),
            Answer::Errno(errno, _) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    pub(crate) async fn list_once<T>(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        request: impl Fn(&mut Writer),
        read: impl Fn(&Message<'_>, &mut Vec<T>),
    ) -> io::Result<Answer<T>> {
        let kind = (sys::NFNL_SUBSYS_NFTABLES << 8) | kind;
        self.ask_once(kind, flags, family, request, read).await
    }

    async fn ask_once<T>(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        request: impl Fn(&mut Writer),
        read: impl Fn(&Message<'_>, &mut Vec<T>),
    ) -> io::Result<Answer<T>> {
        // The kernel has one listing per socket: one that was cancelled must be read to its end first.
        while self.dumping && self.socket.try_receive().transpose()?.is_some() {}
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        let dump = flags & sys::NLM_F_DUMP != 0;
        let mut w = Writer::new();
        // A single question is answered without acknowledgement when it succeeds: with one, its end is seen.
        let flags = if dump { flags } else { flags | sys::NLM_F_ACK };
        w.message(kind, flags, seq, family, 0, request);
        self.socket.send(w.as_bytes()).await?;
        self.dumping = dump;
        let mut found = Vec::new();
        let mut interrupted = false;
        let mut generation = None;
        loop {
            let datagram = self.socket.receive().await?;
            for message in messages(datagram).filter(|m| m.seq == seq) {
                interrupted |= message.flags & sys::NLM_F_DUMP_INTR != 0;
                // A listing of elements never has that flag (`nf_tables_dump_set` in net/netfilter/nf_tables_api.c): there
                // it is the generation, in every message, that tells that somebody came between.
                if dump && message.nft_kind().is_some() {
                    let of_message = message.resource();
                    interrupted |= *generation.get_or_insert(of_message) != of_message;
                }
                let end = match message.kind {
                    sys::NLMSG_DONE => Some(done_errno(&message)),
                    sys::NLMSG_ERROR => Some(Ack::parse(&message).map_or(libc::EIO, |ack| ack.errno)),
                    _ => None,
                };
                match end {
                    None => read(&message, &mut found),
                    Some(errno) => {
                        self.dumping = false;
                        return Ok(match errno {
                            0 if interrupted => Answer::Interrupted,
                            0 => Answer::Whole(found),
                            errno => Answer::Errno(errno, found),
                        });
                    }
                }
            }
        }
    }
}

impl Kernel for Connection {
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        Self::commit(self, batch)
    }

    fn probe(
        &mut self,
        batch: &Batch,
    ) -> impl Future<Output = Result<Vec<Result<(), Rejection>>, CommitError>> + Send {
        Self::probe(self, batch)
    }

    fn generation(&mut self) -> impl Future<Output = Result<u32, ListError>> + Send {
        Self::generation(self)
    }

    fn tables(&mut self) -> impl Future<Output = Result<Vec<Table>, ListError>> + Send {
        Self::tables(self)
    }

    fn chains(&mut self, table: &Table) -> impl Future<Output = Result<Vec<Chain>, ListError>> + Send {
        Self::chains(self, table)
    }

    fn sets(&mut self, table: &Table) -> impl Future<Output = Result<Vec<Set>, ListError>> + Send {
        Self::sets(self, table)
    }

    fn rules(&mut self, table: &Table) -> impl Future<Output = Result<Vec<ListedRule>, ListError>> + Send {
        Self::rules(self, table)
    }

    fn elements(&mut self, set: &Set) -> impl Future<Output = Result<Vec<Element>, ListError>> + Send {
        Self::elements(self, set)
    }
}

pub(crate) enum Answer<T> {
    Whole(Vec<T>),
    /// The ruleset changed while it was listed.
    Interrupted,
    /// With what came before it.
    Errno(i32, Vec<T>),
}

/// `NLMSG_DONE` carries an error number too.
fn done_errno(message: &Message<'_>) -> i32 {
    message.payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b).wrapping_neg())
}

fn read_generation(message: &Message<'_>, all: &mut Vec<u32>) {
    if message.nft_kind() == Some(sys::NFT_MSG_NEWGEN) {
        all.extend(message.attributes().be32(sys::NFTA_GEN_ID));
    }
}
