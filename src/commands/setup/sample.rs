//! The end of a log: which program wrote it, and who comes there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::dialect::Dialect;
use crate::clock;
use crate::config::names::{CLOUDFLARE, LOOPBACK, PRIVATE};
use crate::filter::{Filter, Trust};
use crate::source::docker::Decoder;

/// So many bytes are read of a log, at its end.
const TAIL: u64 = 64 * 1024;
/// A longer line is no line of a log that we know.
const LINE_MAX: usize = 64 * 1024;
/// Fewer lines prove nothing about who comes.
const ENOUGH: usize = 10;

/// What reads samples.
pub(super) struct Sampler {
    filters: Vec<(Dialect, Filter)>,
    nobody: Trust,
    proxies: Trust,
    cloudflare: Vec<IpNet>,
    private: Vec<IpNet>,
}

/// What a log's last lines tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Who wrote most of them.
    pub(super) dialect: Option<Dialect>,
    /// Lines in all.
    pub(super) lines: usize,
    /// Lines of that dialect that name somebody.
    pub(super) named: usize,
    /// Lines whose client is told, perhaps behind proxies.
    clients: usize,
    /// Lines whose peer is Cloudflare.
    cloudflare: usize,
    /// Lines whose client is told by Cloudflare.
    forwarded: usize,
    /// The only private address that all come from.
    only: Option<IpAddr>,
}

impl Sampler {
    pub(super) fn new() -> Result<Self> {
        let mut filters = Vec::new();
        for dialect in Dialect::ALL {
            let definition = dialect.definition().context("a shipped filter is not right")?;
            filters.push((dialect, Filter::compile(dialect.word(), &definition, &TimeZone::UTC)?));
        }
        let nets = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect::<Vec<IpNet>>();
        let private = [nets(&LOOPBACK), nets(&PRIVATE)].concat();
        let cloudflare = nets(&CLOUDFLARE);
        let proxies = Trust::new([private.clone(), cloudflare.clone()].concat());
        Ok(Self { filters, nobody: Trust::new(Vec::new()), proxies, cloudflare, private })
    }

    /// Reads the end of a log; `docker` for one that dockerd keeps.
    pub(super) fn read(&self, file: &mut File, docker: bool) -> io::Result<Sample> {
        let bytes = tail(file)?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        if !docker {
            return Ok(self.look(lines));
        }
        let mut decoder = Decoder::new(LINE_MAX);
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for record in lines {
            texts.extend(decoder.record(record).map(|line| line.text.to_vec()));
        }
        Ok(self.look(texts.iter().map(Vec::as_slice)))
    }

    fn look<'l>(&self, lines: impl Iterator<Item = &'l [u8]> + Clone) -> Sample {
        let now = clock::now();
        let mut found: HashMap<Dialect, usize> = HashMap::new();
        let mut sample = Sample::default();
        for line in lines.clone() {
            sample.lines += 1;
            for (dialect, filter) in &self.filters {
                let examined = filter.examine(line, now, &self.nobody);
                if (examined.format.is_some() || examined.who.is_some()) && dialect.is_sure(line) {
                    *found.entry(*dialect).or_default() += 1;
                    break;
                }
            }
        }
        // The first of those that fit equally many, so that the answer does not change from call to call.
        sample.dialect = Dialect::ALL
            .into_iter()
            .rev()
            .max_by_key(|d| found.get(d).copied())
            .filter(|d| found.contains_key(d));
        let Some((dialect, filter)) = self.filters.iter().find(|(d, _)| Some(*d) == sample.dialect) else {
            return sample;
        };
        let mut peers: HashMap<IpAddr, usize> = HashMap::new();
        for line in lines.filter(|line| dialect.is_sure(line)) {
            let Some(peer) = filter.origin(line, &self.nobody).and_then(|origin| origin.client) else {
                continue;
            };
            let origin = filter.origin(line, &self.proxies);
            let client = origin.is_some_and(|origin| origin.client.is_some());
            let by_cloudflare = self.cloudflare.iter().any(|net| net.contains(&peer));
            sample.named += 1;
            sample.clients += usize::from(client);
            sample.cloudflare += usize::from(by_cloudflare);
            sample.forwarded += usize::from(by_cloudflare && client);
            *peers.entry(peer).or_default() += 1;
        }
        let mut peers = peers.into_keys();
        sample.only = match (peers.next(), peers.next()) {
            (Some(one), None) if self.private.iter().any(|net| net.contains(&one)) => Some(one),
            _ => None,
        };
        sample
    }
}

impl Sample {
    /// Whether most of them come from Cloudflare.
    pub(super) fn behind_cloudflare(&self) -> bool {
        self.cloudflare * 2 > self.named
    }

    /// Whether the log says who is behind Cloudflare.
    pub(super) fn tells_clients(&self) -> bool {
        self.forwarded * 2 > self.cloudflare
    }

    /// The private address that all of them seem to come from, where the log names no other client.
    pub(super) fn gateway(&self) -> Option<IpAddr> {
        self.only.filter(|_| self.clients == 0 && self.named >= ENOUGH)
    }

    /// Whether somebody from elsewhere is named.
    pub(super) fn has_clients(&self) -> bool {
        self.clients > 0 || self.cloudflare > 0
    }
}

/// The last whole lines.
fn tail(file: &mut File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    if from > 0 {
        let whole = memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |end| end + 1);
        bytes.drain(..whole);
    }
    Ok(bytes)
}
