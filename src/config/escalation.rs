//! `escalation`: longer bans for repeaters, and bans of whole prefixes.
//!
//! It may stand in the document, in the defaults of jails and in a jail; each key goes by the innermost that has it.

use std::time::Duration;

use super::cursor::{Cursor, Section};
use super::raw::span;
use super::report::{Location, Report, shown};
use crate::engine::{Escalation, Formula, Growth, Neighbours};
use crate::types::BanTime;

const KEYS: &[&str] =
    &["multipliers", "formula", "factor", "max", "jitter", "across", "memory", "decay", "neighbours"];
const NEIGHBOURS: &[&str] = &["after", "within", "ipv6", "ipv4"];

/// So many multipliers are read.
const MULTIPLIERS_MAX: usize = 100;
/// A larger multiplier or factor makes of a second more than a lifetime.
const NUMBER_MAX: f64 = 1e9;
/// No prefix wider than these: a /48 is what a provider gives to one site, a /24 the smallest that is routed.
const WIDEST_IPV6: u8 = 48;
const WIDEST_IPV4: u8 = 24;

/// What the file says of it in one place.
#[derive(Clone, Debug, Default)]
pub(super) struct RawEscalation {
    /// `on` or `off` in place of a map. A map is as good as `on`.
    on: Option<bool>,
    growth: Option<Growth>,
    factor: Option<f64>,
    max: Option<Option<Duration>>,
    jitter: Option<Duration>,
    across: Option<bool>,
    memory: Option<Place<Duration>>,
    decay: Option<Option<Duration>>,
    neighbours: Option<RawNeighbours>,
    /// Of `max`.
    max_at: Option<(Location, String)>,
}

#[derive(Clone, Debug, Default)]
struct RawNeighbours {
    on: Option<bool>,
    after: Option<u32>,
    within: Option<Place<Duration>>,
    ipv6: Option<Vec<u8>>,
    ipv4: Option<Option<u8>>,
}

/// A value that is judged with another one later on.
#[derive(Clone, Debug)]
struct Place<T> {
    value: T,
    at: Location,
    path: String,
}

impl<T> Place<T> {
    fn of(cursor: &Cursor<'_>, value: T) -> Self {
        Self { value, at: cursor.at(), path: cursor.path.to_string() }
    }
}

/// Reads `escalation`.
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> Option<RawEscalation> {
    if let Some(on) = switch(cursor) {
        return Some(RawEscalation { on: Some(on), ..RawEscalation::default() });
    }
    let keys = cursor.section(KEYS, report);
    let mut raw = RawEscalation {
        on: Some(true),
        growth: growth(&keys, report),
        factor: keys.read("factor", report, number),
        max: keys.read("max", report, |c, r| length_or(c, "none", r)),
        jitter: keys.read("jitter", report, span),
        across: keys.read("across", report, |c, r| c.flag(r)),
        memory: keys.read("memory", report, |c, r| Some(Place::of(c, long(c, r)?))),
        decay: keys.read("decay", report, |c, r| length_or(c, "off", r)),
        neighbours: keys.read("neighbours", report, neighbours),
        max_at: None,
    };
    raw.max_at = keys.get("max").map(|c| (c.at(), c.path.to_string()));
    Some(raw)
}

/// Multipliers or a formula. Two ways to say the same thing in one place contradict each other.
fn growth(keys: &Section<'_>, report: &mut Report) -> Option<Growth> {
    let multipliers = keys.get("multipliers");
    let formula = keys.get("formula");
    if let (Some(m), Some(f)) = (&multipliers, &formula) {
        let Location { line, column } = m.at();
        let text = format!("stands beside `multipliers` (at {line}:{column}); take one of them out");
        f.mistake(report, text);
    }
    let multipliers = multipliers.and_then(|c| self::multipliers(&c, report));
    let formula = formula.and_then(|c| self::formula(&c, report));
    multipliers.or(formula)
}

fn multipliers(cursor: &Cursor<'_>, report: &mut Report) -> Option<Growth> {
    let mut all = Vec::new();
    for item in cursor.items() {
        let Some(text) = item.some_text(report) else { continue };
        // fail2ban writes them in one text, with spaces.
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            match positive(word) {
                Some(n) => all.push(n),
                None => {
                    item.mistake(
                        report,
                        format!("`{}` is not a multiplier: a number above 0, such as 5", shown(word)),
                    );
                }
            }
        }
    }
    if cursor.items().is_empty() {
        cursor.mistake(report, "the list is empty; write at least one multiplier, or take the key out");
    }
    if all.len() > MULTIPLIERS_MAX {
        cursor
            .mistake(report, format!("names {} multipliers; at most {MULTIPLIERS_MAX} are read", all.len()));
    }
    (!all.is_empty()).then(|| Growth::Multipliers(all.into()))
}

fn formula(cursor: &Cursor<'_>, report: &mut Report) -> Option<Growth> {
    let text = cursor.some_text(report)?;
    match Formula::parse(text) {
        Ok(formula) => Some(Growth::Formula(formula)),
        Err(e) => {
            cursor.mistake(report, format!("`{}`: {e}", shown(text)));
            None
        }
    }
}

fn neighbours(cursor: &Cursor<'_>, report: &mut Report) -> Option<RawNeighbours> {
    if let Some(on) = switch(cursor) {
        return Some(RawNeighbours { on: Some(on), ..RawNeighbours::default() });
    }
    let keys = cursor.section(NEIGHBOURS, report);
    let small = |n: u64| u8::try_from(n).ok();
    Some(RawNeighbours {
        on: Some(true),
        after: keys.read("after", report, |c, r| c.whole(2..=200, r).and_then(|n| u32::try_from(n).ok())),
        within: keys.read("within", report, |c, r| Some(Place::of(c, long(c, r)?))),
        ipv6: keys.read("ipv6", report, |c, r| match switch(c) {
            Some(false) => Some(Vec::new()),
            _ => Some(c.list(r, |c, r| c.whole(WIDEST_IPV6.into()..=127, r).and_then(small))),
        }),
        ipv4: keys.read("ipv4", report, |c, r| match switch(c) {
            Some(false) => Some(None),
            _ => c.whole(WIDEST_IPV4.into()..=31, r).and_then(small).map(Some),
        }),
    })
}

/// `on` or `off`, where something else may stand, too.
fn switch(cursor: &Cursor<'_>) -> Option<bool> {
    let text = cursor.plain()?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A length above 0, or the word for none.
fn length_or(cursor: &Cursor<'_>, none: &str, report: &mut Report) -> Option<Option<Duration>> {
    let is = cursor.plain().is_some_and(|text| text.eq_ignore_ascii_case(none));
    if is || (none == "off" && switch(cursor) == Some(false)) {
        return Some(None);
    }
    match span(cursor, report)? {
        Duration::ZERO => {
            cursor.mistake(report, format!("must be longer than 0; write `{none}` to do without"));
            None
        }
        d => Some(Some(d)),
    }
}

/// A length above 0.
fn long(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    let d = span(cursor, report)?;
    if d.is_zero() {
        cursor.mistake(report, "must be longer than 0");
        return None;
    }
    Some(d)
}

fn number(cursor: &Cursor<'_>, report: &mut Report) -> Option<f64> {
    let n = positive(cursor.text(report)?);
    if n.is_none() {
        cursor.mistake(
            report,
            format!("expected a number above 0, such as 1 or 0.5, found {}", cursor.found()),
        );
    }
    n
}

fn positive(text: &str) -> Option<f64> {
    // `parse` would take `inf`, `nan` and `1e300`, too.
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|n| plain && *n > 0.0 && *n <= NUMBER_MAX)
}

/// What holds for a jail: of the places, the innermost first, each key's first.
pub(super) fn resolve(
    layers: [Option<&RawEscalation>; 3],
    bantime: BanTime,
    report: &mut Report,
) -> Option<Escalation> {
    fn first<T>(layers: [Option<&RawEscalation>; 3], of: impl Fn(&RawEscalation) -> Option<T>) -> Option<T> {
        layers.into_iter().flatten().find_map(of)
    }
    if !first(layers, |e| e.on)? {
        return None;
    }
    let plain = Escalation::default();
    let max = first(layers, |e| e.max).unwrap_or(plain.max);
    if let (Some(max), BanTime::For(bantime)) = (max, bantime)
        && max < bantime
        && let Some((at, path)) = first(layers, |e| e.max_at.clone())
    {
        report.warning(Some(at), path, "is shorter than a jail's bantime, so repeaters are banned for less");
    }
    let memory = first(layers, |e| e.memory.clone());
    let length = memory.as_ref().map_or(plain.memory, |m| m.value);
    let neighbours = neighbours_of(layers.map(|e| e?.neighbours.as_ref()), length, memory, report);
    Some(Escalation {
        growth: first(layers, |e| e.growth.clone()).unwrap_or(plain.growth),
        factor: first(layers, |e| e.factor).unwrap_or(plain.factor),
        max,
        jitter: first(layers, |e| e.jitter).unwrap_or(plain.jitter),
        across: first(layers, |e| e.across).unwrap_or(plain.across),
        memory: length,
        decay: first(layers, |e| e.decay).unwrap_or(plain.decay),
        neighbours,
    })
}

fn neighbours_of(
    layers: [Option<&RawNeighbours>; 3],
    memory: Duration,
    memory_at: Option<Place<Duration>>,
    report: &mut Report,
) -> Option<Neighbours> {
    fn first<T>(layers: [Option<&RawNeighbours>; 3], of: impl Fn(&RawNeighbours) -> Option<T>) -> Option<T> {
        layers.into_iter().flatten().find_map(of)
    }
    if !first(layers, |n| n.on).unwrap_or(true) {
        return None;
    }
    let plain = Neighbours::default();
    let within = first(layers, |n| n.within.clone());
    if let Some(within) = &within
        && within.value > memory
    {
        let place = memory_at.map_or_else(String::new, |m| format!(" (at {}:{})", m.at.line, m.at.column));
        let text =
            format!("is longer than escalation.memory{place}, after which bans are forgotten; shorten it");
        report.mistake(Some(within.at), &within.path, text);
    }
    let mut ipv6 = first(layers, |n| n.ipv6.clone()).unwrap_or_else(|| plain.ipv6.to_vec());
    ipv6.sort_unstable_by(|a, b| b.cmp(a));
    ipv6.dedup();
    Some(Neighbours {
        after: first(layers, |n| n.after).unwrap_or(plain.after),
        within: within.map_or_else(|| plain.within.min(memory), |w| w.value),
        ipv6: ipv6.into(),
        ipv4: first(layers, |n| n.ipv4).unwrap_or(plain.ipv4),
    })
}
