//! The matcher in BPF: one program for all rules, and maps of the banned addresses.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use ipnet::IpNet;
use nft::bpf::{LoadError, Map, MapKind, Program, boot_time};

use super::program::{Maps, emit};
use crate::clock;
use crate::kernel::disjoint::End;
use crate::types::Timestamp;

/// So many bans fit each map. A map takes 4 MiB for its buckets, the rest as it is filled.
const CAPACITY: u32 = 262_144;
const VALUE: usize = 16;

/// Why a ban is not in the maps.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {what} to the BPF maps: {error}{advice}")]
pub struct MapError {
    what: String,
    error: io::Error,
    advice: &'static str,
}

impl MapError {
    fn new(what: impl ToString, error: io::Error) -> Self {
        // The kernel's word for a full map is "argument list too long".
        let full = error.raw_os_error() == Some(nix::libc::E2BIG);
        let advice = if full { " (the map is full: it holds 262144 bans)" } else { "" };
        Self { what: what.to_string(), error, advice }
    }
}

/// The program and its maps. A rule with its [expression](Self::expr) keeps both alive, also when the agent is dead;
/// bans end on time all the same, because the program looks at their end.
pub struct BpfMatcher {
    program: Program,
    id: u32,
    maps: Maps,
    prefixes: BTreeSet<u8>,
}

impl BpfMatcher {
    /// Loads the program for these header names (in lower case) and lengths of banned IPv6 prefixes.
    ///
    /// # Errors
    /// Without `CAP_BPF` and `CAP_PERFMON`, and where the kernel is too old: before Linux 5.17.
    pub fn load(names: &[String], prefixes: &BTreeSet<u8>) -> Result<Self, LoadError> {
        let hash = |name, key| Map::new(name, MapKind::Hash, key, VALUE, CAPACITY);
        let nets = |name, key| Map::new(name, MapKind::Prefix, key, VALUE, CAPACITY);
        let maps = Maps {
            single4: hash("banned4", 4)?,
            single6: hash("banned6", 16)?,
            prefix6: hash("banned6_prefix", 20)?,
            nets4: nets("nets4", 8)?,
            nets6: nets("nets6", 20)?,
        };
        let program = Program::load("stockade", &emit(names, prefixes, &maps))?;
        Ok(Self { id: program.id()?, program, maps, prefixes: prefixes.clone() })
    }

    /// The match for a rule of any family that carries IP.
    #[must_use]
    pub fn expr(&self) -> nft::Expr {
        self.program.expr()
    }

    /// The kernel's number for the program.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Adds bans, or gives them another end. Networks that are no single addresses, and no prefixes of a configured
    /// length, must not overlap, as in an interval set: of two that cover an address only the longer is looked at.
    ///
    /// # Errors
    /// The first ban that could not be written; those before it of the same kind are.
    pub fn insert(&mut self, bans: &[(IpNet, End)]) -> Result<(), MapError> {
        let clocks = Clocks::read();
        let mut failed = None;
        for (map, place) in self.each() {
            let of_map: Vec<&(IpNet, End)> =
                bans.iter().filter(|(net, _)| self.place(*net) == place).collect();
            if of_map.is_empty() {
                continue;
            }
            let keys: Vec<u8> = of_map.iter().flat_map(|(net, _)| key(place, *net)).collect();
            let values: Vec<u8> = of_map
                .iter()
                .flat_map(|(net, end)| {
                    let packets = if of_map.len() == 1 { self.packets(*net).unwrap_or(0) } else { 0 };
                    [clocks.boot(*end).to_ne_bytes(), packets.to_ne_bytes()].concat()
                })
                .collect();
            if let Err((at, error)) = map.insert(&keys, &values) {
                let what = of_map.get(at).map_or_else(String::new, |(net, _)| net.to_string());
                failed = failed.or_else(|| Some(MapError::new(what, error)));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Removes bans. One that is not there is no error.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&mut self, nets: &[IpNet]) -> Result<(), MapError> {
        for net in nets {
            let place = self.place(*net);
            self.map(place).remove(&key(place, *net)).map_err(|e| MapError::new(net, e))?;
        }
        Ok(())
    }

    /// The bans, when they end, and the packets they matched.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn list(&self) -> Result<Vec<(IpNet, End, u64)>, MapError> {
        let clocks = Clocks::read();
        let mut bans = Vec::new();
        for (map, place) in self.each() {
            map.for_each(|key, value| {
                let (until, packets) = read_value(value);
                bans.extend(net(place, key).map(|net| (net, clocks.end(until), packets)));
            })
            .map_err(|e| MapError::new("a list", e))?;
        }
        Ok(bans)
    }

    /// Packets that all bans in the maps have matched.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn total(&self) -> Result<u64, MapError> {
        let mut total = 0_u64;
        for (map, _) in self.each() {
            map.for_each(|_, value| total = total.saturating_add(read_value(value).1))
                .map_err(|e| MapError::new("a list", e))?;
        }
        Ok(total)
    }

    /// Removes bans that have ended: how many.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn sweep(&mut self, now: Timestamp) -> Result<usize, MapError> {
        let over: Vec<IpNet> = (self.list()?.into_iter())
            .filter(|(_, end, _)| end.is_some_and(|end| end <= now))
            .map(|(net, ..)| net)
            .collect();
        self.remove(&over)?;
        Ok(over.len())
    }

    /// Packets that a ban matched; `None` when there is no such ban.
    #[must_use]
    pub fn packets(&self, net: IpNet) -> Option<u64> {
        let place = self.place(net);
        let value = self.map(place).get(&key(place, net)).ok()??;
        Some(read_value(&value).1)
    }

    /// Runs the program on a packet, given from its IP header on, so many times, without a network. A match counts.
    ///
    /// # Errors
    /// When the system refuses, e.g. a packet longer than a page of memory.
    pub fn dry_run(&self, packet: &[u8], repeat: u32) -> io::Result<nft::bpf::TestRun> {
        self.program.test(packet, repeat)
    }

    fn place(&self, net: IpNet) -> Place {
        match (net, net.prefix_len()) {
            (IpNet::V4(_), 32) => Place::Single4,
            (IpNet::V4(_), _) => Place::Nets4,
            (IpNet::V6(_), 128) => Place::Single6,
            (IpNet::V6(_), length) if self.prefixes.contains(&length) => Place::Prefix6,
            (IpNet::V6(_), _) => Place::Nets6,
        }
    }

    fn map(&self, place: Place) -> &Map {
        match place {
            Place::Single4 => &self.maps.single4,
            Place::Single6 => &self.maps.single6,
            Place::Prefix6 => &self.maps.prefix6,
            Place::Nets4 => &self.maps.nets4,
            Place::Nets6 => &self.maps.nets6,
        }
    }

    fn each(&self) -> impl Iterator<Item = (&Map, Place)> {
        [Place::Single4, Place::Single6, Place::Prefix6, Place::Nets4, Place::Nets6]
            .map(|place| (self.map(place), place))
            .into_iter()
    }
}

/// Which map a ban is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Single4,
    Single6,
    Prefix6,
    Nets4,
    Nets6,
}

fn key(place: Place, net: IpNet) -> Vec<u8> {
    let address = match net.network() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::from(net.prefix_len()).to_ne_bytes();
    match place {
        Place::Single4 | Place::Single6 => address,
        Place::Prefix6 => [address.as_slice(), &length].concat(),
        Place::Nets4 | Place::Nets6 => [&length, address.as_slice()].concat(),
    }
}

/// What [`key`] was made of.
fn net(place: Place, key: &[u8]) -> Option<IpNet> {
    let (address, length) = match place {
        Place::Single4 | Place::Single6 => (key, None),
        Place::Prefix6 => key.split_at_checked(16).map(|(address, length)| (address, Some(length)))?,
        Place::Nets4 | Place::Nets6 => {
            key.split_at_checked(4).map(|(length, address)| (address, Some(length)))?
        }
    };
    let address = match address.len() {
        4 => <[u8; 4]>::try_from(address).ok()?.into(),
        _ => <[u8; 16]>::try_from(address).ok()?.into(),
    };
    match length {
        None => Some(IpNet::from(address)),
        Some(length) => {
            let length = u32::from_ne_bytes(length.try_into().ok()?);
            IpNet::new(address, u8::try_from(length).ok()?).ok()
        }
    }
}

fn read_value(value: &[u8]) -> (u64, u64) {
    let word = |at: usize| {
        let bytes = value.get(at..at + 8).and_then(|b| b.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    };
    (word(0), word(8))
}

/// The time of day and the time since the start, read together.
struct Clocks {
    now: Timestamp,
    boot: Duration,
}

impl Clocks {
    fn read() -> Self {
        Self { now: clock::now(), boot: boot_time() }
    }

    /// When a ban ends, in nanoseconds since the start; 0 for never.
    fn boot(&self, end: End) -> u64 {
        let Some(end) = end else { return 0 };
        let since_start = self.boot.saturating_add(end.since(self.now));
        u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn end(&self, until: u64) -> End {
        (until != 0).then(|| {
            let until = Duration::from_nanos(until);
            match until.checked_sub(self.boot) {
                Some(left) => self.now.saturating_add(left),
                None => self.now,
            }
        })
    }
}
