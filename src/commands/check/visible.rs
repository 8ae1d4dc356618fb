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

/// What stops whom.
pub(super) fn judge(
    ready: &Ready,
    seen: &Seen,
    matcher: Option<MatcherChoice>,
    around: &Surroundings<'_>,
    section: &Section,
) -> Finding {
    let Ways { direct, untold, local, remote, cloudflare, nobody } = seen.ways;
    let of_all = seen.ways.total();
    if of_all == 0 {
        let told = if seen.hurried {
            "the logs were not looked at, for want of time: which way clients come is not known"
        } else {
            "no line of the logs names an address yet: which way clients come is not known"
        };
        return Finding::new(section.clone(), Mark::Unknown, "offenders", told);
    }
    // Bans of jails with ports hold by source alone: the ports are those that the client dialed.
    let heads = matcher.filter(|_| ready.jail.ports.is_empty());
    let by_heads = match (heads, ready.jail.ports.is_empty()) {
        (Some(matcher), _) => format!("header bans ({}), where the request is plain HTTP/1", matcher.word()),
        (None, true) => "NOTHING: no header bans".to_owned(),
        (None, false) => "NOTHING: this jail has ports, so that its bans hold by source alone".to_owned(),
    };
    let mut mark = Mark::Ok;
    let mut parts = Vec::new();
    let mut say = |n: usize, who: &str, by: &str| {
        if n > 0 {
            parts.push(format!("{n} of {of_all} lines {who}: stopped by {by}"));
        }
    };
    say(direct, "from clients that connect directly", "source");
    say(local, "through a proxy on this host", "source, if they connect to this host themselves");
    say(untold, "from clients named by the proxy", "source, if they connect to this host themselves");
    say(remote, "through a proxy elsewhere", &by_heads);
    say(cloudflare, "through Cloudflare", &by_heads);
    if nobody > 0 {
        parts.push(format!(
            "{nobody} of {of_all} lines name nobody but trusted proxies: nobody can be banned for them"
        ));
    }
    let mut advice = Vec::new();
    if remote + cloudflare > 0 {
        mark = if heads.is_some() { Mark::Heed } else { Mark::No };
        advice.push(
            "TLS and HTTP/2 cannot be looked into: header bans hold where a proxy passes requests on as plain HTTP/1 through \
             this host"
                .to_owned(),
        );
        if heads.is_none() {
            advice.push(no_heads(ready));
        }
    }
    if cloudflare > 0 {
        advice.push("a Cloudflare sink, which would stop them at Cloudflare, is not configured".to_owned());
    }
    if nobody > 0 {
        mark = if nobody == of_all { Mark::No } else { worse(mark, Mark::Heed) };
        advice.push(
            "let the proxy pass the client's address on and the log name it (X-Forwarded-For, X-Real-IP); where the address is \
             that of a Docker network's gateway, see userland-proxy in Docker's manual"
                .to_owned(),
        );
    }
    if untold + local > 0 {
        let (of_cloudflare, peers) = (around.peers.within(&around.cloudflare), around.peers.addresses.len());
        if of_cloudflare > 0 {
            mark = worse(mark, if heads.is_some() { Mark::Heed } else { Mark::No });
            parts.push(format!("{of_cloudflare} of {peers} connections now open come from Cloudflare"));
            advice.push(format!("who comes through Cloudflare is not stopped by source, but by {by_heads}"));
            if heads.is_none() {
                advice.push(no_heads(ready));
            }
        } else if untold > 0 && peers == 0 {
            advice.push(
                "the log names the client also where it came through Cloudflare or another proxy; no open connection shows \
                 which way clients come"
                    .to_owned(),
            );
        }
    }
    if seen.hurried {
        parts.push("not all files were looked at, for want of time".to_owned());
    }
    let mut finding = Finding::new(section.clone(), mark, "offenders", parts.join("; "));
    finding.advice = advice;
    finding
}

fn no_heads(ready: &Ready) -> String {
    if ready.jail.ports.is_empty() {
        "see above how header bans can be had, or headers.matcher in the configuration".to_owned()
    } else {
        "take `ports` out of this jail, or have the offenders come directly".to_owned()
    }
}

fn worse(a: Mark, b: Mark) -> Mark {
    match (a, b) {
        (Mark::No, _) | (_, Mark::No) => Mark::No,
        (Mark::Heed, _) | (_, Mark::Heed) => Mark::Heed,
        _ => a,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::TimeZone;

    use super::*;
    use crate::commands::SHIPPED;
    use crate::config::Config;
    use crate::daemon::jails::{Jails, Registry};

    /// A jail over JSON lines, with these extra keys.
    fn jail(extra: &str, log: &Path) -> Jails {
        let text = format!(
            "trusted_proxies: [loopback, private, cloudflare]\nfilters:\n  f: {{ format: json, peer: .peer, forwarded: .xff, \
             match: {{ .status: 404 }} }}\njails:\n  web: {{ filter: f, logpath: {}, {extra} }}\n",
            log.display()
        );
        let config = Config::parse(&text, "test", &SHIPPED).unwrap();
        Jails::new(&config, &mut Registry::default()).unwrap()
    }

    /// What is found of a log of these peers and lists, with a matcher or without.
    fn found(lines: &[(&str, &str)], extra: &str, matcher: Option<MatcherChoice>, peers: &[&str]) -> Finding {
        let log = tempfile::NamedTempFile::new().unwrap();
        let text: String = lines
            .iter()
            .map(|(peer, xff)| format!("{{\"peer\": \"{peer}\", \"xff\": \"{xff}\", \"status\": 200}}\n"))
            .collect();
        fs::write(log.path(), text).unwrap();
        let jails = jail(extra, log.path());
        let own = ["172.18.0.0/16".parse().unwrap()];
        let mut around = Surroundings::new(&jails.trust, &own, Instant::now() + Duration::from_secs(60));
        around.peers =
            Peers { addresses: peers.iter().map(|a| a.parse().unwrap()).collect(), forwarded: true };
        let section = Section::Jail("web".into(), String::new());
        judge(&jails.jails[0], &look(&jails.jails[0], &around), matcher, &around, &section)
    }

    const BPF: Option<MatcherChoice> = Some(MatcherChoice::Bpf);

    #[test]
    fn direct_clients_are_stopped_by_source() {
        let direct = found(&[("203.0.113.7", ""), ("203.0.113.8", "1.2.3.4")], "", None, &[]);
        assert_eq!(direct.mark, Mark::Ok);
        assert_eq!(direct.told, "2 of 2 lines from clients that connect directly: stopped by source");
        let behind = found(&[("172.18.0.2", "203.0.113.7")], "", None, &[]);
        assert_eq!(behind.mark, Mark::Ok, "a proxy on this host gets its packets from the client");
        assert!(behind.told.contains("through a proxy on this host: stopped by source"), "{}", behind.told);
    }

    #[test]
    fn clients_of_a_proxy_elsewhere_need_header_bans() {
        for (peer, who) in [("192.168.7.7", "a proxy elsewhere"), ("104.16.1.1", "Cloudflare")] {
            let lines = [(peer, "203.0.113.7")];
            let with = found(&lines, "", BPF, &[]);
            assert_eq!(with.mark, Mark::Heed, "{}", with.told);
            assert!(with.told.contains(who) && with.told.contains("header bans (bpf)"), "{}", with.told);
            assert_eq!(found(&lines, "", None, &[]).mark, Mark::No);
            assert_eq!(found(&lines, "ports: [443]", BPF, &[]).mark, Mark::No, "ports are by source alone");
        }
        let cloudflare = found(&[("172.18.0.2", "203.0.113.7, 104.16.1.1")], "", BPF, &[]);
        assert!(cloudflare.advice.iter().any(|a| a.contains("a Cloudflare sink")), "{:?}", cloudflare.advice);
    }

    #[test]
    fn open_connections_tell_what_the_log_does_not() {
        let lines = [("172.18.0.2", "203.0.113.7")];
        let peers = ["104.16.1.1", "203.0.113.9"];
        assert_eq!(found(&lines, "", None, &peers).mark, Mark::No);
        let with = found(&lines, "", BPF, &peers);
        assert_eq!(with.mark, Mark::Heed);
        assert!(with.told.contains("1 of 2 connections now open come from Cloudflare"), "{}", with.told);
    }

    #[test]
    fn lines_that_name_nobody_ban_nobody() {
        let all = found(&[("172.18.0.1", "")], "", BPF, &[]);
        assert_eq!(all.mark, Mark::No);
        let some = found(&[("172.18.0.1", ""), ("203.0.113.7", "")], "", BPF, &[]);
        assert_eq!(some.mark, Mark::Heed);
        assert_eq!(found(&[], "", BPF, &[]).mark, Mark::Unknown);
    }

    #[test]
    fn nginx_proxy_manager_does_not_tell_who_connected() {
        let text = crate::filter::builtin::text("npm-404").unwrap();
        let definition = crate::config::filter::definition(text, "npm-404").unwrap();
        let filter = Filter::compile("npm-404", &definition, &TimeZone::UTC).unwrap();
        let line = |client: &str| {
            format!(
                "[04/Jan/2025:21:27:00 +0000] - 200 200 - GET https one.example \"/\" [Client {client}] [Length 1] [Gzip -] \
                 [Sent-to app] \"curl\" \"-\""
            )
        };
        let trust = Trust::new(vec!["172.16.0.0/12".parse().unwrap()]);
        let origin = |client: &str| filter.origin(line(client).as_bytes(), &trust).unwrap();
        assert!(!origin("203.0.113.7").told);
        assert_eq!(origin("203.0.113.7").client, Some("203.0.113.7".parse().unwrap()));
        assert_eq!(origin("172.18.0.1").client, None);
    }

    #[test]
    fn a_tail_is_whole_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(file.path(), 100).unwrap(), b"one\ntwo\nthree\n");
        assert_eq!(tail(file.path(), 8).unwrap(), b"three\n");
        assert_eq!(tail(file.path(), 3).unwrap(), b"");
    }
}
