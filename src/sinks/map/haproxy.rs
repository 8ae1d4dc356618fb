//! HAProxy's runtime socket: the map or list in its memory, changed without a reload.
//!
//! One connection takes one line of commands between `;` and answers each with its text and an empty line (management guide,
//! "Unix Socket commands"; no longer than `tune.bufsize`, 16 KiB as a rule). Measured with 2.6: 10,000 additions in lines of 100
//! take 0.05 s, 10,000 deletions 0.7 s.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::super::mirror::Pass;
use super::super::trouble::Trouble;
use super::format;
use crate::config::sinks::{Map, MapFormat};

/// The longest line of commands, in bytes: well below what HAProxy reads.
const LINE: usize = 4000;
/// Commands in one pass.
const PASS: usize = 2000;
/// A longer answer is none, in bytes: a million entries.
const LONGEST: u64 = 64 << 20;
/// Times of start that are this near are one: both clocks are read a little apart, and one counts whole seconds.
const NEAR: Duration = Duration::from_secs(5);

/// A map or list of HAProxy's.
#[derive(Debug)]
pub(super) struct Runtime {
    socket: PathBuf,
    /// `map` or `acl`.
    what: &'static str,
    name: String,
    /// What a key has beside it, where it has something.
    value: Option<String>,
    timeout: Duration,
    /// Since when times are counted here.
    begun: Instant,
    /// What it held when we last spoke to it; `None` when that is not known.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    process: Process,
    nets: BTreeSet<IpNet>,
    /// What is there in another spelling, or is no address, by HAProxy's reference: nobody wants it.
    strange: BTreeSet<String>,
    /// Keys with another value.
    other: BTreeSet<IpNet>,
}

/// A process of HAProxy's: another one has read its file anew. In a container all of them have the same number.
#[derive(Clone, Copy, Debug)]
struct Process {
    id: u32,
    /// Since [`Runtime::begun`], in milliseconds.
    started: i128,
}

impl Process {
    fn is(self, other: Self) -> bool {
        self.id == other.id && self.started.abs_diff(other.started) < NEAR.as_millis()
    }
}

/// A change, and the command for it.
enum Change {
    Add(IpNet),
    Set(IpNet),
    Delete(IpNet),
    DeleteStrange(String),
}

impl Runtime {
    pub(super) fn new(settings: &Map) -> Option<Self> {
        let is_map = settings.format == MapFormat::HaproxyMap;
        Some(Self {
            socket: settings.socket.clone()?,
            what: if is_map { "map" } else { "acl" },
            name: settings.map.clone(),
            value: is_map.then(|| settings.value.clone()),
            timeout: settings.timeout,
            begun: Instant::now(),
            known: None,
        })
    }

    /// Brings what is in HAProxy's memory nearer to what is wanted.
    pub(super) async fn pass(&mut self, wanted: &BTreeSet<IpNet>, whole: bool) -> Result<Pass, Trouble> {
        let process = self.process().await?;
        // While it is worked at, nothing is known.
        let known = self.known.take().filter(|known| !whole && known.process.is(process));
        let mut known = match known {
            Some(known) => known,
            None => self.look(process).await?,
        };
        let changes = known.changes(wanted);
        let mut pass = Pass { left: changes.len().saturating_sub(PASS), ..Pass::default() };
        let mut changes = changes.into_iter().take(PASS).peekable();
        while changes.peek().is_some() {
            let (mut line, mut batch) = (String::new(), Vec::new());
            while let Some(change) = changes.next_if(|_| line.len() < LINE) {
                if !line.is_empty() {
                    line.push(';');
                }
                line.push_str(&self.command(&change));
                batch.push(change);
            }
            let answer = self.ask(&line).await?;
            self.judge(&answer, batch.len())?;
            pass.changed += batch.len();
            batch.into_iter().for_each(|change| known.note(change));
        }
        self.known = Some(known);
        Ok(pass)
    }

    /// What HAProxy says of itself, and that it knows the file: for `stockade check`.
    pub(super) async fn check(&self) -> Result<String, Trouble> {
        let info = self.ask("show info").await?;
        let version = field(&info, "Version").unwrap_or("of an unknown version").to_owned();
        let known = self.look(self.process().await?).await?;
        Ok(format!(
            "HAProxy {version} answers at {} and has {} entries of {}",
            self.socket.display(),
            known.nets.len() + known.strange.len() + known.other.len(),
            self.name
        ))
    }

    async fn process(&self) -> Result<Process, Trouble> {
        let info = self.ask("show info").await?;
        let id = field(&info, "Pid").and_then(|text| text.parse().ok());
        let up: Option<u64> = field(&info, "Uptime_sec").and_then(|text| text.parse().ok());
        match (id, up) {
            (Some(id), Some(up)) => {
                let now = i128::try_from(self.begun.elapsed().as_millis()).unwrap_or(i128::MAX);
                Ok(Process { id, started: now.saturating_sub(i128::from(up) * 1000) })
            }
            _ => Err(self.odd(&info)),
        }
    }

    /// What is in its memory.
    async fn look(&self, process: Process) -> Result<Known, Trouble> {
        let answer = self.ask(&format!("show {} {}", self.what, self.name)).await?;
        let mut known =
            Known { process, nets: BTreeSet::new(), strange: BTreeSet::new(), other: BTreeSet::new() };
        for line in answer.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_ascii_whitespace();
            let (Some(reference), Some(key)) = (words.next(), words.next()) else {
                return Err(self.odd(&answer));
            };
            if !reference.starts_with("0x") {
                return Err(self.odd(&answer));
            }
            match read(key) {
                Some(net) if format::key(net) != key => {
                    known.strange.insert(reference.to_owned());
                }
                Some(net) if words.next().map(str::to_owned) != self.value => {
                    known.other.insert(net);
                }
                Some(net) => {
                    known.nets.insert(net);
                }
                None => {
                    known.strange.insert(reference.to_owned());
                }
            }
        }
        // A key that is there twice, once with the right value.
        known.nets.retain(|net| !known.other.contains(net));
        Ok(known)
    }

    fn command(&self, change: &Change) -> String {
        let (what, name) = (self.what, &self.name);
        let value = self.value.as_deref().unwrap_or_default();
        match change {
            Change::Add(net) => format!("add {what} {name} {} {value}", format::key(*net)),
            Change::Set(net) => format!("set {what} {name} {} {value}", format::key(*net)),
            Change::Delete(net) => format!("del {what} {name} {}", format::key(*net)),
            Change::DeleteStrange(reference) => format!("del {what} {name} #{reference}"),
        }
    }

    /// An answer to so many commands: empty lines, and nothing else but that something was gone already.
    fn judge(&self, answer: &str, commands: usize) -> Result<(), Trouble> {
        let gone = |line: &&str| line.trim() == "Key not found.";
        let lines = answer.split_terminator('\n');
        let said = lines.clone().filter(|line| !line.trim().is_empty() && !gone(line)).count();
        let ends = lines.filter(|line| line.trim().is_empty()).count();
        if said == 0 && ends == commands { Ok(()) } else { Err(self.odd(answer)) }
    }

    /// What is wrong, where something else was answered than was expected.
    fn odd(&self, answer: &str) -> Trouble {
        let line = answer.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing");
        let text = format!("HAProxy at {} answered `{line}`", self.socket.display());
        if line.starts_with("Unknown map identifier") || line.starts_with("Unknown ACL identifier") {
            let how = if self.what == "map" { "src,map_ip(FILE)" } else { "src -f FILE" };
            return Trouble::refused(format!(
                "{text}: its configuration does not use {} ({how}); set `map` to the name that `show {}` has for it",
                self.name, self.what
            ));
        }
        if line.starts_with("Permission denied") {
            return Trouble::refused(format!("{text}: the stats socket needs `level admin`"));
        }
        if line.contains("is not a valid IPv4 or IPv6 address") {
            return Trouble::refused(format!("{text}: use map_ip, or an ACL of `src`, with {}", self.name));
        }
        Trouble::later(text)
    }

    /// Says one line, and hears the answer to its end.
    async fn ask(&self, line: &str) -> Result<String, Trouble> {
        let socket = self.socket.display();
        let talk = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(line.as_bytes()).await?;
            stream.write_all(b"\n").await?;
            let mut answer = Vec::new();
            stream.take(LONGEST).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        match timeout(self.timeout, talk).await {
            Ok(Ok(answer)) => Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(Err(e)) if e.kind() == ErrorKind::PermissionDenied => Err(Trouble::refused(format!(
                "failed to reach HAProxy at {socket}: {e}; give the user that stockade runs as the right to write to it (`user`, `group` and `mode` of the stats socket)"
            ))),
            Ok(Err(e)) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Err(Trouble::later(format!(
                    "failed to reach HAProxy at {socket}: {e}; does it run, with `stats socket {socket} mode 600 level admin` in its `global` section?"
                )))
            }
            Ok(Err(e)) => Err(Trouble::later(format!("failed to speak with HAProxy at {socket}: {e}"))),
            Err(_) => Err(Trouble::later(format!("HAProxy at {socket} did not answer in time"))),
        }
    }
}

impl Known {
    /// What is to be done, the most urgent first.
    fn changes(&self, wanted: &BTreeSet<IpNet>) -> Vec<Change> {
        let missing = wanted.difference(&self.nets).filter(|net| !self.other.contains(net));
        let sets = wanted.intersection(&self.other);
        let gone = self.nets.union(&self.other).filter(|net| !wanted.contains(net));
        let adds = missing.map(|net| Change::Add(*net));
        adds.chain(sets.map(|net| Change::Set(*net)))
            .chain(gone.map(|net| Change::Delete(*net)))
            .chain(self.strange.iter().map(|reference| Change::DeleteStrange(reference.clone())))
            .collect()
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Add(net) | Change::Set(net) => {
                self.other.remove(&net);
                self.nets.insert(net);
            }
            Change::Delete(net) => {
                self.other.remove(&net);
                self.nets.remove(&net);
            }
            Change::DeleteStrange(reference) => {
                self.strange.remove(&reference);
            }
        }
    }
}

/// An address or a network.
fn read(key: &str) -> Option<IpNet> {
    let net = key.parse::<IpNet>().or_else(|_| key.parse::<std::net::IpAddr>().map(IpNet::from));
    net.ok().map(|net| net.trunc())
}

/// The value of `name` in lines of `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    fields.get(name).map(|value| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(format: MapFormat) -> Runtime {
        Runtime {
            socket: "/run/h.sock".into(),
            what: if format == MapFormat::HaproxyMap { "map" } else { "acl" },
            name: "/m".to_owned(),
            value: (format == MapFormat::HaproxyMap).then(|| "1".to_owned()),
            timeout: Duration::from_secs(1),
            begun: Instant::now(),
            known: None,
        }
    }

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| read(text).unwrap()).collect()
    }

    #[test]
    fn changes_are_the_difference_and_bans_come_first() {
        let mut known = Known {
            process: Process { id: 1, started: 0 },
            nets: nets(&["10.0.0.1", "10.0.0.2"]),
            strange: ["0xaf".to_owned()].into(),
            other: nets(&["10.0.0.3", "10.0.0.4"]),
        };
        let wanted = nets(&["10.0.0.1", "10.0.0.3", "10.0.0.9", "2001:db8::/64"]);
        let runtime = runtime(MapFormat::HaproxyMap);
        let changes = known.changes(&wanted);
        let commands: Vec<String> = changes.iter().map(|change| runtime.command(change)).collect();
        let expected = [
            "add map /m 10.0.0.9 1",
            "add map /m 2001:db8::/64 1",
            "set map /m 10.0.0.3 1",
            "del map /m 10.0.0.2",
            "del map /m 10.0.0.4",
            "del map /m #0xaf",
        ];
        assert_eq!(commands, expected);
        changes.into_iter().for_each(|change| known.note(change));
        assert!(known.nets == wanted && known.changes(&wanted).is_empty());
    }

    #[test]
    fn answers_are_one_empty_line_for_each_command() {
        let runtime = runtime(MapFormat::HaproxyAcl);
        assert!(runtime.judge("\n\n\n", 3).is_ok());
        assert!(runtime.judge("\nKey not found.\n\n", 2).is_ok());
        assert!(runtime.judge("\n\n", 3).is_err(), "one was not answered");
        assert!(runtime.judge("", 1).is_err());
        let trouble =
            runtime.judge("Unknown ACL identifier. Please use #<id> or <file>.\n\n", 1).unwrap_err();
        assert!(trouble.message.contains("(src -f FILE); set `map` to"), "{trouble}");
    }

    #[test]
    fn a_process_is_another_when_it_has_another_number_or_began_later() {
        let one = Process { id: 1, started: 0 };
        assert!(one.is(Process { id: 1, started: -900 }));
        assert!(!one.is(Process { id: 2, started: 0 }));
        assert!(!one.is(Process { id: 1, started: 60_000 }));
    }
}
