//! Whether packets show a jail's offenders, judged by the last lines of its logs.
//!
//! A ban by source stops packets that come from the offender. Behind Cloudflare or a proxy on another host packets come from
//! there, and only the request head names the offender.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::IpNet;

use super::finding::{Finding, Mark, Section};
use crate::config::MatcherChoice;
use crate::config::names::CLOUDFLARE;
use crate::daemon::jails::Ready;
use crate::filter::{Filter, Origin, Trust};
use crate::follow::matching_files;
use crate::kernel::capability::connections::Peers;

/// So many bytes are read of a jail's logs, all together.
const LOOK: u64 = 256 * 1024;
/// So many files of a jail are read, the latest.
const FILES: usize = 8;

/// What is known of the surroundings.
pub(super) struct Surroundings<'a> {
    pub(super) trust: &'a Trust,
    /// The host's own addresses and container networks.
    pub(super) own: &'a [IpNet],
    pub(super) cloudflare: Vec<IpNet>,
    pub(super) peers: Peers,
    /// No log is begun after this moment.
    pub(super) until: Instant,
}

impl<'a> Surroundings<'a> {
    pub(super) fn new(trust: &'a Trust, own: &'a [IpNet], until: Instant) -> Self {
        let cloudflare = CLOUDFLARE.iter().filter_map(|net| net.parse().ok()).collect();
        Self { trust, own, cloudflare, peers: Peers::read(own), until }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.iter().any(|net| net.contains(&address))
    }

    fn is_cloudflare(&self, address: IpAddr) -> bool {
        self.cloudflare.iter().any(|net| net.contains(&address))
    }
}

/// By which ways requests came: how many lines of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ways {
    /// The client connected to who wrote the log.
    direct: usize,
    /// The same, as far as the line tells: the proxy may have put the client in the peer's place.
    untold: usize,
    /// Through proxies on this host only.
    local: usize,
    /// Through a trusted proxy elsewhere.
    remote: usize,
    /// Through Cloudflare.
    cloudflare: usize,
    /// Nobody but trusted proxies is named.
    nobody: usize,
}

impl Ways {
    fn add(&mut self, origin: &Origin, around: &Surroundings<'_>) {
        let way = if origin.client.is_none() {
            &mut self.nobody
        } else if origin.hops.iter().any(|hop| around.is_cloudflare(*hop)) {
            &mut self.cloudflare
        } else if origin.hops.iter().any(|hop| !around.is_own(*hop)) {
            &mut self.remote
        } else if !origin.told {
            &mut self.untold
        } else if origin.hops.is_empty() {
            &mut self.direct
        } else {
            &mut self.local
        };
        *way += 1;
    }

    fn total(&self) -> usize {
        self.direct + self.untold + self.local + self.remote + self.cloudflare + self.nobody
    }

    /// Whether some come from where only request heads tell them apart.
    pub(super) fn need_heads(&self) -> bool {
        self.remote + self.cloudflare > 0
    }
}

/// What was found out about a jail.
pub(super) struct Seen {
    ways: Ways,
    /// Not every file was looked at, for want of time.
    hurried: bool,
}

impl Seen {
    pub(super) fn need_heads(&self) -> bool {
        self.ways.need_heads()
    }
}

/// Reads the end of the jail's logs.
pub(super) fn look(ready: &Ready, around: &Surroundings<'_>) -> Seen {
    let mut files: Vec<PathBuf> =
        ready.jail.logpath.iter().flat_map(|pattern| matching_files(pattern).0).collect();
    let changed = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    files.sort_by_key(|path| std::cmp::Reverse(changed(path)));
    files.dedup();
    files.truncate(FILES);
    let share = LOOK / files.len().max(1) as u64;
    let mut seen = Seen { ways: Ways::default(), hurried: false };
    for file in files {
        if Instant::now() > around.until {
            seen.hurried = true;
            break;
        }
        // What cannot be read is said where logs are.
        if let Ok(bytes) = tail(&file, share) {
            count(&bytes, &ready.filter, around, &mut seen.ways);
        }
    }
    seen
}

fn count(bytes: &[u8], filter: &Filter, around: &Surroundings<'_>, ways: &mut Ways) {
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let Some(origin) = filter.origin(line, around.trust) {
            ways.add(&origin, around);
        }
    }
}

/// Whole lines at the end of a file.
fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    let from = size.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    file.take(most).read_to_end(&mut bytes)?;
    if from > 0 {
        let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..first);
    }
    Ok(bytes)
}

/// What stops whom: a finding for each way that clients come.
pub(super) fn judge(
    ready: &Ready,
    seen: &Seen,
    matcher: Option<MatcherChoice>,
    around: &Surroundings<'_>,
    section: &Section,
) -> Vec<Finding> {
    let Ways { direct, untold, local, remote, cloudflare, nobody } = seen.ways;
    let all = seen.ways.total();
    let finding = |mark, what: &str, told: String| Finding::new(section.clone(), mark, what, told);
    if all == 0 {
        let why = if ready.jail.logpath.is_empty() {
            "only files are looked at here"
        } else if seen.hurried {
            "the logs were not looked at, for want of time"
        } else {
            "no line of the logs names an address yet"
        };
        let told = format!("{why}: which way clients come is not known");
        return vec![finding(Mark::Unknown, "offenders", told)];
    }
    let heads = Heads::of(ready, matcher);
    let mut found = Vec::new();
    if direct > 0 {
        found.push(finding(
            Mark::Ok,
            "offenders, direct",
            format!("{direct} of {all} lines: stopped by source"),
        ));
    }
    if untold + local > 0 {
        let told = format!(
            "{} of {all} lines name clients of a proxy on this host: stopped by source, if they connect to this host \
             themselves",
            untold + local
        );
        found.push(by_own_proxy(finding(Mark::Ok, "offenders, own proxy", told), &heads, around));
    }
    for (n, what, from) in [
        (remote, "offenders, proxy", "through a proxy elsewhere"),
        (cloudflare, "offenders, Cloudflare", "through Cloudflare"),
    ] {
        if n > 0 {
            let told = format!("{n} of {all} lines {from}: stopped by {}", heads.words);
            let mut finding = finding(heads.mark, what, told);
            // Once is enough.
            let said = found.iter().any(|other: &Finding| other.advice.contains(&heads.advice));
            finding.advice.extend((!said).then(|| heads.advice.clone()));
            if from == "through Cloudflare" {
                finding = finding.advice(NO_SINK);
            }
            found.push(finding);
        }
    }
    if nobody > 0 {
        let mark = if nobody == all { Mark::No } else { Mark::Heed };
        let told =
            format!("{nobody} of {all} lines name nobody but trusted proxies: nobody is banned for them");
        found.push(finding(mark, "offenders, unnamed", told).advice(
            "have the proxy pass the client's address on and the log name it (X-Forwarded-For, X-Real-IP); where it is the \
             address of a Docker network's gateway, see userland-proxy in Docker's manual",
        ));
    }
    if seen.hurried {
        let told = "not all files were looked at, for want of time".to_owned();
        found.push(finding(Mark::Unknown, "offenders", told));
    }
    found
}

const NO_SINK: &str = "a Cloudflare sink, which would stop them at Cloudflare, is not configured";

/// What header bans can do for a jail.
struct Heads {
    mark: Mark,
    words: String,
    advice: String,
}

impl Heads {
    fn of(ready: &Ready, matcher: Option<MatcherChoice>) -> Self {
        let plain = "TLS and HTTP/2 cannot be looked into: header bans hold where a proxy passes requests on as plain HTTP/1 \
                     through this host";
        // The ports of a jail are those that the client dialed, which a proxy's packets do not show.
        let (mark, words, advice) = match matcher {
            _ if !ready.jail.ports.is_empty() => (
                Mark::No,
                "NOTHING, as this jail has ports: its bans hold by source alone".to_owned(),
                "take `ports` out of this jail",
            ),
            None => (
                Mark::No,
                "NOTHING, as there are no header bans".to_owned(),
                "see above how header bans can be had (headers.matcher in the configuration)",
            ),
            Some(matcher) => {
                let words = format!("header bans ({}), where the request is plain HTTP/1", matcher.word());
                (Mark::Heed, words, plain)
            }
        };
        Self { mark, words, advice: advice.to_owned() }
    }
}

/// Whether those who come through a proxy on this host connect to it themselves stands in no log; open connections show it.
fn by_own_proxy(mut finding: Finding, heads: &Heads, around: &Surroundings<'_>) -> Finding {
    let (of_cloudflare, peers) = (around.peers.within(&around.cloudflare), around.peers.addresses.len());
    match (of_cloudflare, peers) {
        (0, 0) => finding.told.push_str(", which neither the log nor an open connection shows"),
        (0, _) => finding.told.push_str(&format!("; none of {peers} open connections comes from Cloudflare")),
        _ => {
            finding
                .told
                .push_str(&format!("; but {of_cloudflare} of {peers} open connections come from Cloudflare"));
            finding.mark = heads.mark;
            finding = finding.advice(format!("who comes through Cloudflare is stopped by {}", heads.words));
            finding = finding.advice(heads.advice.clone()).advice(NO_SINK);
        }
    }
    finding
}

#[cfg(test)]
mod tests;
