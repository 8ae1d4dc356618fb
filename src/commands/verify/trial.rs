//! The trial: packets of the address, and requests that name it, against the copy.
//!
//! Nothing is believed that was not seen the other way round: before there are rules, the address must get through; with
//! the rules, a harmless one must.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use nft::Connection;

use super::address::{Asked, Ends};
use super::installed::{Counted, Cover, Installed, counted};
use super::probe::{MORE_PATIENCE, Outcome, PATIENCE, Probe, serve, try_all};
use super::wire::{Namespace, Wire};

/// Ports of jails that are tried, at most.
const MAX_PORTS: usize = 200;
/// Fields that hold a list of addresses, each proxy adding one.
const LISTS: [&str; 1] = ["x-forwarded-for"];

/// What a trial has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Blocked,
    NotBlocked,
    /// Nothing: why.
    Unknown(String),
}

/// Which ports are closed to the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    All,
    Some(Vec<u16>),
}

/// As a packet's source.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) verdict: Verdict,
    pub(super) ports: Ports,
    /// The elements that did it; where nothing is blocked, those that should have.
    pub(super) by: Vec<Cover>,
}

/// Where a request is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It arrives from the network.
    Arriving,
    /// A proxy on the host itself sends it out.
    Sent,
}

/// One header field, one way.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) way: Way,
    pub(super) verdict: Verdict,
}

/// In the heads of requests.
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) verdict: Verdict,
    pub(super) fields: Vec<Field>,
    /// The rules that did it.
    pub(super) by: Vec<Counted>,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) source: Source,
    pub(super) heads: Heads,
}

impl Findings {
    fn unknown(why: &str) -> Self {
        let verdict = Verdict::Unknown(why.to_owned());
        let source = Source { verdict: verdict.clone(), ports: Ports::Some(Vec::new()), by: Vec::new() };
        Self { source, heads: Heads { verdict, fields: Vec::new(), by: Vec::new() } }
    }
}

/// Tries the address against what is installed.
pub(super) async fn hold(asked: &Asked, names: &[String], installed: &Installed) -> Result<Findings> {
    let taken = |address| !installed.covers(address).is_empty();
    let Some(ends) = Ends::choose(asked, taken) else {
        return Ok(Findings::unknown("every address that could be the harmless one is banned, too"));
    };
    let wire = Wire::new(ends, asked.address)?;
    let mut ports: Vec<u16> = installed.ports().into_iter().take(MAX_PORTS).collect();
    // First a port that no jail is about. There are fewer jails' ports than ports.
    ports.insert(0, (49_152..).find(|port| !ports.contains(port)).unwrap_or(u16::MAX));
    let any = ports[0];
    for port in &ports {
        serve(wire.inside.listen(SocketAddr::new(ends.server, *port))?);
    }
    serve(wire.outside.listen(SocketAddr::new(ends.harmless, any))?);
    let trial = Trial { asked, ends, wire, any };

    if let Some(why) = trial.control(asked.address, "before there were rules, the address").await? {
        return Ok(Findings::unknown(&why));
    }
    trial.wire.inside.enter()?;
    let mut copy = Connection::open()?;
    installed.write(&mut copy).await?;
    if let Some(why) = trial.control(ends.harmless, "a harmless address").await? {
        return Ok(Findings::unknown(&why));
    }
    let source = trial.source(&ports, installed, &mut copy).await?;
    let heads = trial.heads(names, installed, &mut copy).await?;
    Ok(Findings { source, heads })
}

struct Trial<'a> {
    asked: &'a Asked,
    ends: Ends,
    wire: Wire,
    /// The port that no jail is about.
    any: u16,
}

impl Trial<'_> {
    /// Whether what must get through does, both ways: why not, otherwise.
    async fn control(&self, from: IpAddr, who: &str) -> Result<Option<String>> {
        let arriving = Probe::new(from, SocketAddr::new(self.ends.server, self.any));
        let (outside, inside) = (&self.wire.outside, &self.wire.inside);
        let mut outcomes = patiently(outside, &[arriving]).await?;
        outcomes.extend(patiently(inside, &[self.sent(None)]).await?);
        let bad = outcomes.into_iter().find(|outcome| *outcome != Outcome::Passed);
        Ok(bad.map(|outcome| {
            let what = match outcome {
                Outcome::Failed(e) => e,
                Outcome::Reset => "connection reset".to_owned(),
                _ => "no answer".to_owned(),
            };
            format!("{who} ({from}) did not get through either: {what}")
        }))
    }

    async fn source(&self, ports: &[u16], installed: &Installed, copy: &mut Connection) -> Result<Source> {
        let address = self.asked.address;
        let to = |port: &u16| Probe::new(address, SocketAddr::new(self.ends.server, *port));
        let probes: Vec<Probe> = ports.iter().map(to).collect();
        let mut outcomes = try_all(&self.wire.outside, &probes, PATIENCE).await?;
        let mut covers = installed.covers_now(copy, address).await?;
        if outcomes.contains(&Outcome::Lost) && !covers.iter().any(has_counted) {
            again(&self.wire.outside, &probes, &mut outcomes, MORE_PATIENCE).await?;
            covers = installed.covers_now(copy, address).await?;
        }
        let blocked: Vec<u16> =
            each(ports, &outcomes).filter(|(_, o)| o.is_blocked()).map(|(p, _)| *p).collect();
        let failed = outcomes.iter().find_map(failure);
        let verdict = match failed {
            Some(why) => Verdict::Unknown(why),
            None if blocked.is_empty() => Verdict::NotBlocked,
            None => Verdict::Blocked,
        };
        if verdict == Verdict::Blocked && covers.iter().any(|cover| cover.packets.is_some()) {
            covers.retain(has_counted);
        }
        let ports = if blocked.len() == ports.len() { Ports::All } else { Ports::Some(blocked) };
        Ok(Source { verdict, ports, by: covers })
    }

    async fn heads(&self, names: &[String], installed: &Installed, copy: &mut Connection) -> Result<Heads> {
        let nothing = |verdict| Heads { verdict, fields: Vec::new(), by: Vec::new() };
        if let Some(why) = &installed.without_heads {
            return Ok(nothing(Verdict::Unknown(why.clone())));
        }
        if !installed.has_heads() {
            return Ok(nothing(Verdict::NotBlocked));
        }
        let harmless = self.ends.harmless.to_string();
        let value = |name: &str, address: &str| {
            let list = LISTS.contains(&name);
            (name.to_owned(), if list { format!("{harmless}, {address}") } else { address.to_owned() })
        };
        let probes = |address: &str| -> [Vec<Probe>; 2] {
            let headers = || names.iter().map(|name| value(name, address));
            let arriving = Probe::new(self.ends.harmless, SocketAddr::new(self.ends.server, self.any));
            [
                headers().map(|header| Probe { header: Some(header), ..arriving.clone() }).collect(),
                headers().map(|header| self.sent(Some(header))).collect(),
            ]
        };
        let ways = [(Way::Arriving, &self.wire.outside), (Way::Sent, &self.wire.inside)];
        for ((_, from), probes) in ways.iter().zip(probes(&harmless)) {
            let outcomes = patiently(from, &probes).await?;
            if let Some(bad) = outcomes.iter().position(|outcome| *outcome != Outcome::Passed) {
                let why =
                    format!("a request that names {harmless} in {} did not get through either", names[bad]);
                return Ok(nothing(Verdict::Unknown(why)));
            }
        }
        let before = counted(installed, copy).await?;
        let mut fields = Vec::new();
        for ((way, from), probes) in ways.iter().zip(probes(&self.asked.address.to_string())) {
            let mut outcomes = try_all(from, &probes, PATIENCE).await?;
            // A drop that no rule has counted may be a machine that is busy.
            if outcomes.contains(&Outcome::Lost) && counted(installed, copy).await? == before {
                again(from, &probes, &mut outcomes, MORE_PATIENCE).await?;
            }
            fields.extend(each(names, &outcomes).map(|(name, outcome)| Field {
                name: name.clone(),
                way: *way,
                verdict: match failure(outcome) {
                    Some(why) => Verdict::Unknown(why),
                    None if outcome.is_blocked() => Verdict::Blocked,
                    None => Verdict::NotBlocked,
                },
            }));
        }
        let unknown = fields.iter().find(|field| matches!(field.verdict, Verdict::Unknown(_)));
        let verdict = match unknown {
            Some(field) => field.verdict.clone(),
            None if fields.iter().all(|field| field.verdict == Verdict::Blocked) => Verdict::Blocked,
            None => Verdict::NotBlocked,
        };
        let is_new = |rule: &Counted| !before.contains(rule);
        let by = counted(installed, copy).await?.into_iter().filter(is_new).collect();
        Ok(Heads { verdict, fields, by })
    }

    fn sent(&self, header: Option<(String, String)>) -> Probe {
        Probe { source: self.ends.server, to: SocketAddr::new(self.ends.harmless, self.any), header }
    }
}

fn has_counted(cover: &Cover) -> bool {
    cover.packets.is_some_and(|packets| packets > 0)
}

fn failure(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Failed(why) => Some(why.clone()),
        _ => None,
    }
}

fn each<'a, T>(tried: &'a [T], outcomes: &'a [Outcome]) -> impl Iterator<Item = (&'a T, &'a Outcome)> {
    tried.iter().zip(outcomes)
}

/// Tries what ought to get through, in short turns at first: an IPv6 address is there only some time after it was added.
async fn patiently(from: &Namespace, probes: &[Probe]) -> Result<Vec<Outcome>> {
    let mut outcomes = vec![Outcome::Lost; probes.len()];
    for patience in [PATIENCE / 20, PATIENCE / 5, PATIENCE, MORE_PATIENCE] {
        again(from, probes, &mut outcomes, patience).await?;
    }
    Ok(outcomes)
}

/// Tries what was lost once more.
async fn again(
    from: &Namespace,
    probes: &[Probe],
    outcomes: &mut [Outcome],
    patience: Duration,
) -> Result<()> {
    let lost: Vec<usize> =
        outcomes.iter().enumerate().filter(|(_, o)| **o == Outcome::Lost).map(|(n, _)| n).collect();
    let probes: Vec<Probe> = lost.iter().filter_map(|n| probes.get(*n).cloned()).collect();
    for (n, outcome) in lost.into_iter().zip(try_all(from, &probes, patience).await?) {
        outcomes[n] = outcome;
    }
    Ok(())
}
