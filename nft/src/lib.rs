//! nf_tables over netlink: tables, chains, sets, elements and rules as values, one [`Batch`] as one transaction.
//!
//! No C library and no `nft` process. The socket stays open, so that adding an address to a set costs microseconds,
//! and 100,000 of them a tenth of a second.
//!
//! ```no_run
//! use std::net::Ipv4Addr;
//! use std::time::Duration;
//!
//! use nft::{Batch, Chain, ChainType, Connection, Element, Family, Hook, KeyType, Rule, Set, Table, priority};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let table = Table::new(Family::Inet, "stockade");
//! let banned = Set::new(&table, "banned4", KeyType::Ipv4Addr).timeout().counter();
//! let pre = Chain::new(&table, "pre").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
//!
//! let mut batch = Batch::new();
//! batch.add(&table).add(&banned).add(&pre);
//! batch.flush(&pre).add(Rule::new(&pre).ip_saddr_in(&banned).counter().drop());
//! let offender = Element::new(Ipv4Addr::new(203, 0, 113, 7)).timeout(Duration::from_secs(3600));
//! batch.add_elements(&banned, [offender.comment("sshd")]);
//!
//! let mut kernel = Connection::open()?;
//! kernel.commit(&batch).await?;
//! for element in kernel.elements(&banned).await? {
//!     println!("{element}"); // 203.0.113.7 counter packets 0 bytes 0 timeout 1h expires 59m59s comment "sshd"
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Everything prints as nft(8) does, and a [`fake::Fake`] is a kernel without privileges, so this is the same without
//! a network namespace:
//!
//! ```
//! use nft::{Batch, Chain, ChainType, Family, Hook, KeyType, Rule, Set, Table, fake::Fake, priority};
//!
//! let table = Table::new(Family::Inet, "stockade");
//! let banned = Set::new(&table, "banned4", KeyType::Ipv4Addr).timeout();
//! let pre = Chain::new(&table, "pre").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
//! let mut batch = Batch::new();
//! batch.add(&table).add(&banned).add(&pre).add(Rule::new(&pre).ip_saddr_in(&banned).drop());
//!
//! let mut kernel = Fake::new();
//! kernel.apply(&batch)?;
//! assert_eq!(kernel.to_string(), "\
//! table inet stockade {
//! \tset banned4 {
//! \t\ttype ipv4_addr
//! \t\tflags timeout
//! \t}
//!
//! \tchain pre {
//! \t\ttype filter hook prerouting priority raw; policy accept;
//! \t\tip saddr @banned4 drop
//! \t}
//! }
//! ");
//! # Ok::<(), nft::CommitError>(())
//! ```
//!
//! # Words
//!
//! *Add* makes what is absent, *create* wants it absent, *delete* wants it there, *destroy* takes it if it is there,
//! *flush* takes what is in it. A batch happens as a whole or not at all; when the kernel refuses it, the
//! [error](CommitError) says which object or element was at fault, and [`CommitError::is_not_found`] and its sisters
//! say how.
//!
//! # What to know
//!
//! - A [`Connection`] and a [`Watcher`] belong to the network namespace of the thread that opens them.
//! - A [`Watcher`] hears everything that anybody changes, but not that an element expired, and after an
//!   [overrun](Event::Overrun) only a listing helps. Open it before the first listing.
//! - [`Connection::probe`] asks what the kernel would say without changing anything: that is how to find out what it
//!   can do.
//! - Single addresses belong in a hash set. In an [interval](Set::interval) set of 100,000 one more costs 10 ms.
//! - A batch of 100,000 elements is one transaction and works, but takes about twice as long as
//!   batches of a thousand.
//! - Names that are words of nft(8) (`fwd`, `tcp`, `counter`) are fine for the kernel, but `nft -f` cannot read the
//!   ruleset back that `nft list ruleset` printed.

mod batch;
pub mod bpf;
pub mod chain;
mod commit;
mod compile;
mod connection;
mod element;
mod encode;
mod event;
pub mod expr;
pub mod fake;
mod flowtable;
mod get;
mod ipset;
mod kernel;
mod key;
mod list;
mod rule;
mod set;
mod socket;
mod statement;
mod sys;
mod table;
mod text;
mod value;
mod wire;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Change, Object, Verb};
pub use chain::{Base, Chain, ChainType, Hook, Policy, priority};
pub use commit::{CommitError, Rejection};
pub use connection::Connection;
pub use element::{COMMENT_MAX, Counter, Element, Misfit};
pub use event::{Event, Subject, Watcher};
pub use expr::{Expr, PayloadBase, Reject, Verdict};
pub use flowtable::Flowtable;
pub use kernel::Kernel;
pub use key::{Key, KeyType, KeyTypes};
pub use list::ListError;
pub use rule::{ListedRule, Rule};
pub use set::Set;
pub use statement::Field;
pub use table::{Family, Table};
pub use text::{Ruleset, TableContent};
pub use value::Value;
