//! Everything that is done with the lines of one file.

use std::sync::Arc;

use regex::bytes::{CaptureLocations, RegexSet};

use super::client::{Attribution, Trust};
use super::compile::{Filter, Kind, Structured, Verdict};
use super::fields::{Field, Fields, Statuses};
use super::format::{Format, Memory, Parsed, Paths};
use super::pattern::{self, Patterns};
use super::timestamp::Reader;
use crate::types::{JailId, Timestamp};

/// The jails of one file. Each format parses a line once for all of them.
#[derive(Debug)]
pub struct Matcher {
    seats: Vec<Seat>,
    lanes: Vec<Lane>,
    /// Seats whose filter is made of patterns.
    regex_seats: Vec<usize>,
    /// Whether a line can match any of them, when there are several.
    any_regex: Option<RegexSet>,
    scratch: Vec<u8>,
    counts: Counts,
}

/// An offense as the log tells it; who is responsible may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<'a> {
    /// The jail whose filter matched.
    pub jail: JailId,
    /// Whom it is held against.
    pub who: Attribution,
    /// The log's time, if the line has one that can be read.
    pub at: Option<Timestamp>,
    /// The line.
    pub line: &'a [u8],
}

/// What became of the lines, since the matcher was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All lines.
    pub lines: u64,
    /// Lines some jail matched.
    pub matched: u64,
    /// Lines some jail would have matched, had it not ignored them, and no jail matched.
    pub ignored: u64,
    /// Lines that no format understood and no pattern matched. Where this grows and nothing matches, a jail watches a file of another format.
    pub missed: u64,
    /// Hits (not lines) that can be held against nobody.
    pub unattributable: u64,
}

/// One jail.
#[derive(Debug)]
struct Seat {
    jail: JailId,
    filter: Arc<Filter>,
    trust: Arc<Trust>,
    reader: Reader,
    locations: Vec<CaptureLocations>,
    /// The line that was last understood by one of its formats; the later ones are not asked then.
    understood: u64,
}

/// One format and the seats that want it.
#[derive(Debug)]
struct Lane {
    format: Format,
    /// Whose paths are looked for, if the format is JSON.
    paths: Option<Arc<Filter>>,
    interest: Statuses,
    memory: Memory,
    seats: Vec<usize>,
    /// Some seat is in another lane too.
    shared: bool,
}

impl Matcher {
    /// A matcher for the lines of one file, in the order they were written.
    #[must_use]
    pub fn new(jails: Vec<(JailId, Arc<Filter>, Arc<Trust>)>) -> Self {
        let mut matcher = Self {
            seats: Vec::with_capacity(jails.len()),
            lanes: Vec::new(),
            regex_seats: Vec::new(),
            any_regex: None,
            scratch: Vec::new(),
            counts: Counts::default(),
        };
        for (n, (jail, filter, trust)) in jails.into_iter().enumerate() {
            let mut locations = Vec::new();
            match &filter.kind {
                Kind::Structured(structured) => matcher.enter_lanes(n, &filter, structured),
                Kind::Regex(patterns) => {
                    locations = patterns.locations();
                    matcher.regex_seats.push(n);
                }
            }
            let reader = Reader::new(filter.zone.clone());
            matcher.seats.push(Seat { jail, filter, trust, reader, locations, understood: 0 });
        }
        if matcher.regex_seats.len() > 1 {
            matcher.any_regex = Patterns::union(matcher.seats.iter().filter_map(|s| s.filter.patterns()));
        }
        matcher
    }

    /// Judges one line (without its newline) and gives every hit to `out`. `now` is for stamps that lack the year.
    #[inline]
    pub fn line<'l>(&mut self, line: &'l [u8], now: Timestamp, mut out: impl FnMut(Hit<'l>)) {
        self.counts.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return;
        }
        let mut seen = Seen::default();
        for lane in &mut self.lanes {
            let parsed =
                lane.format.parse(line, &lane.interest, paths_of(lane.paths.as_ref()), &mut lane.memory);
            let fields = match parsed {
                Parsed::Mismatch => continue,
                Parsed::Skip => None,
                Parsed::Fields(fields) => Some(fields),
            };
            seen.understood = true;
            if fields.is_none() && !lane.shared {
                continue;
            }
            for &n in &lane.seats {
                let seat = &mut self.seats[n];
                if seat.understood == self.counts.lines {
                    continue;
                }
                seat.understood = self.counts.lines;
                if let Some(fields) = &fields {
                    seat.judge(fields, line, now, &mut seen, &mut out);
                }
            }
        }
        if !self.regex_seats.is_empty() {
            self.search(line, now, &mut seen, &mut out);
        }
        self.counts.matched += u64::from(seen.matched);
        self.counts.ignored += u64::from(seen.ignored && !seen.matched);
        self.counts.missed += u64::from(!seen.understood);
        self.counts.unattributable += seen.unattributable;
    }

    /// The time of a line, whether it is an offense or not, as any format of the file reads it.
    #[must_use]
    pub fn stamp(&mut self, line: &[u8], now: Timestamp) -> Option<Timestamp> {
        for lane in &self.lanes {
            let Some(&first) = lane.seats.first() else { continue };
            if let Some(stamp) = lane.format.stamp(line, paths_of(lane.paths.as_ref()))
                && let Some(at) = self.seats[first].reader.read(stamp, now)
            {
                return Some(at);
            }
        }
        let first = *self.regex_seats.first()?;
        let range = super::timestamp::detect(line)?;
        self.seats[first].reader.read(&line[range], now)
    }

    /// What became of the lines so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Puts a seat into a lane per format of its filter, such that a filter's formats are asked in its order.
    fn enter_lanes(&mut self, seat: usize, filter: &Arc<Filter>, structured: &Structured) {
        let mut from = 0;
        for &format in &structured.formats {
            let fits = |l: &Lane| {
                l.format == format && l.paths.as_ref().is_none_or(|other| Arc::ptr_eq(other, filter))
            };
            let at = match self.lanes.iter().skip(from).position(fits) {
                Some(at) => from + at,
                None => {
                    self.lanes.push(Lane {
                        format,
                        paths: (format == Format::Json).then(|| Arc::clone(filter)),
                        interest: Statuses::NONE,
                        memory: Memory::default(),
                        seats: Vec::new(),
                        shared: false,
                    });
                    self.lanes.len() - 1
                }
            };
            let lane = &mut self.lanes[at];
            lane.interest.extend(&structured.interest);
            lane.shared |= structured.formats.len() > 1;
            lane.seats.push(seat);
            from = at + 1;
        }
    }

    fn search<'l>(&mut self, line: &'l [u8], now: Timestamp, seen: &mut Seen, out: &mut impl FnMut(Hit<'l>)) {
        let (text, stamp) = pattern::cut(line, &mut self.scratch);
        if self.any_regex.as_ref().is_some_and(|set| !set.is_match(text)) {
            return;
        }
        for &n in &self.regex_seats {
            let seat = &mut self.seats[n];
            let Some(patterns) = seat.filter.patterns() else { continue };
            let Some(found) = patterns.find(text, &mut seat.locations) else { continue };
            seen.understood = true;
            if patterns.ignored(text).is_some() {
                seen.ignored = true;
                continue;
            }
            let who = match found.address {
                Some(peer) => seat.trust.offender(peer, b""),
                None => Attribution::Unattributable { peer: None },
            };
            let at = stamp.clone().and_then(|range| seat.reader.read(&line[range], now));
            seen.hit(who);
            out(Hit { jail: seat.jail, who, at, line });
        }
    }
}

impl Seat {
    fn judge<'l>(
        &mut self,
        fields: &Fields<'l>,
        line: &'l [u8],
        now: Timestamp,
        seen: &mut Seen,
        out: &mut impl FnMut(Hit<'l>),
    ) {
        let Kind::Structured(structured) = &self.filter.kind else { return };
        match structured.judge(fields) {
            Verdict::Passed => {}
            Verdict::Ignored(_) => seen.ignored = true,
            Verdict::Matched(_) => {
                let who = fields.attribution(&self.trust);
                let at = fields.get(Field::Time).and_then(|stamp| self.reader.read(stamp, now));
                seen.hit(who);
                out(Hit { jail: self.jail, who, at, line });
            }
        }
    }
}

/// What was made of one line.
#[derive(Default)]
struct Seen {
    understood: bool,
    matched: bool,
    ignored: bool,
    unattributable: u64,
}

impl Seen {
    fn hit(&mut self, who: Attribution) {
        self.matched = true;
        self.unattributable += u64::from(who.offender().is_none());
    }
}

impl Filter {
    fn patterns(&self) -> Option<&Patterns> {
        match &self.kind {
            Kind::Regex(patterns) => Some(patterns),
            Kind::Structured(_) => None,
        }
    }
}

fn paths_of(filter: Option<&Arc<Filter>>) -> Option<&Paths> {
    match &filter?.kind {
        Kind::Structured(structured) => Some(&structured.paths),
        Kind::Regex(_) => None,
    }
}

#[cfg(test)]
mod tests;
