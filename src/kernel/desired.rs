//! What the sets should hold, given all bans: the other half of every comparison.

use hashbrown::HashMap;
use ipnet::IpNet;

use super::disjoint::{End, disjoint, ends_later};
use super::layout::{Layout, SetId};
use crate::types::{Ban, JailId, Timestamp};

/// What an element should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// When it ends; `None` for never.
    pub end: End,
    /// What its comment says.
    pub comment: String,
}

/// The elements of every set.
pub type Desired = HashMap<(SetId, IpNet), Want>;

/// Tells a jail's name; `None` for one that is gone.
pub type NameOf<'a> = &'a dyn Fn(JailId) -> Option<String>;

/// The elements that `bans` amount to at `now`. Where several jails ban the same offender, the latest end counts; bans
/// that are over count for nothing.
#[must_use]
pub fn desired<'a>(
    layout: &Layout,
    bans: impl Iterator<Item = &'a Ban>,
    name: NameOf<'_>,
    now: Timestamp,
) -> Desired {
    let mut elements: HashMap<(SetId, IpNet), &Ban> = HashMap::new();
    for ban in bans.filter(|ban| is_current(ban, now)) {
        let Some(set) = layout.place(ban.jail, ban.offender) else { continue };
        elements
            .entry((set, ban.offender))
            .and_modify(|held| {
                if ends_later(ban.until, held.until) {
                    *held = ban;
                }
            })
            .or_insert(ban);
    }
    let mut intervals: HashMap<SetId, Vec<(IpNet, End)>> = HashMap::new();
    let mut wants = Desired::with_capacity(elements.len());
    for ((set, offender), ban) in elements {
        if set.kind.is_interval() {
            intervals.entry(set).or_default().push((offender, ban.until));
        }
        wants.insert((set, offender), Want { end: ban.until, comment: comment(ban, name) });
    }
    for (set, nets) in intervals {
        let whole: HashMap<IpNet, Want> =
            nets.iter().filter_map(|(net, _)| Some((*net, wants.remove(&(set, *net))?))).collect();
        for (piece, end) in disjoint(nets) {
            // A piece cut out of a wider ban carries that ban's comment, so that a starting agent takes it over, too.
            let of = |(net, want): &(&IpNet, &Want)| net.contains(&piece) && want.end == end;
            let want = whole.get_key_value(&piece).filter(of).or_else(|| whole.iter().find(of));
            let comment = want.map_or_else(String::new, |(_, want)| want.comment.clone());
            wants.insert((set, piece), Want { end, comment });
        }
    }
    wants
}

/// The element for bans of one and the same offender, and how many there are; `None` when none is current.
#[must_use]
pub fn want<'a>(
    bans: impl Iterator<Item = &'a Ban>,
    name: NameOf<'_>,
    now: Timestamp,
) -> Option<(Want, usize)> {
    let mut count = 0;
    let mut longest: Option<&Ban> = None;
    for ban in bans.filter(|ban| is_current(ban, now)) {
        count += 1;
        if longest.is_none_or(|held| ends_later(ban.until, held.until)) {
            longest = Some(ban);
        }
    }
    longest.map(|ban| (Want { end: ban.until, comment: comment(ban, name) }, count))
}

/// Whether the ban is not over at `now`.
#[must_use]
pub(super) fn is_current(ban: &Ban, now: Timestamp) -> bool {
    ban.until.is_none_or(|until| until > now)
}

/// What an element says about its ban: `npm-404, 15 offenses, 2026-11-21T01:02:03Z`. `nft list` shows it to the admin, and
/// a starting agent reads it back with [`parse_comment`].
#[must_use]
pub(super) fn comment(ban: &Ban, name: NameOf<'_>) -> String {
    let jail = name(ban.jail).unwrap_or_default();
    let forced = if ban.forced { BY_FORCE } else { "" };
    format!("{jail}, {} offenses{forced}, {}", ban.offenses, ban.since)
}

/// What the comment of a ban says that was ordered in spite of whom it hits.
const BY_FORCE: &str = " by force";

/// Whether an element's comment says that its ban was forced.
#[must_use]
pub fn is_forced(comment: &str) -> bool {
    comment.rsplit_once(", ").is_some_and(|(rest, _)| rest.ends_with(BY_FORCE))
}

/// The jail's name, the offenses and the beginning that an element's comment tells; `None` for anybody else's comment.
#[must_use]
pub fn parse_comment(comment: &str) -> Option<(&str, u32, Timestamp)> {
    let (rest, since) = comment.rsplit_once(", ")?;
    let (jail, offenses) = rest.rsplit_once(", ")?;
    let offenses =
        offenses.strip_suffix(BY_FORCE).unwrap_or(offenses).strip_suffix(" offenses")?.parse().ok()?;
    let since: jiff::Timestamp = since.parse().ok()?;
    Some((jail, offenses, Timestamp::from_millis(since.as_millisecond())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NPM: JailId = JailId(0);
    const WEB: JailId = JailId(1);

    fn name(jail: JailId) -> Option<String> {
        Some(if jail == NPM { "npm" } else { "web" }.to_owned())
    }

    fn ban(jail: JailId, offender: &str, until: Option<i64>) -> Ban {
        Ban {
            jail,
            offender: offender.parse().unwrap(),
            since: Timestamp::from_millis(1_500),
            until: until.map(Timestamp::from_secs),
            offenses: 3,
            evidence: crate::types::Evidence::default(),
            forced: false,
        }
    }

    fn listed(bans: &[Ban]) -> Vec<String> {
        let layout = Layout::new([(NPM, "npm", &[][..], 64), (WEB, "web", &[][..], 64)]);
        let wants = desired(&layout, bans.iter(), &name, Timestamp::from_secs(10));
        let mut lines: Vec<String> = wants
            .iter()
            .map(|((set, net), want)| {
                let end =
                    want.end.map_or_else(|| "never".to_owned(), |end| (end.as_millis() / 1000).to_string());
                format!("{} {net} until {end} \"{}\"", layout.name(*set), want.comment)
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_latest_end_of_several_jails_counts() {
        assert_eq!(
            listed(&[ban(NPM, "192.0.2.1/32", Some(60)), ban(WEB, "192.0.2.1/32", Some(90))]),
            ["banned4 192.0.2.1/32 until 90 \"web, 3 offenses, 1970-01-01T00:00:01.5Z\""]
        );
        assert_eq!(
            listed(&[ban(NPM, "192.0.2.1/32", None), ban(WEB, "192.0.2.1/32", Some(90))]),
            ["banned4 192.0.2.1/32 until never \"npm, 3 offenses, 1970-01-01T00:00:01.5Z\""]
        );
    }

    #[test]
    fn a_ban_that_is_over_counts_for_nothing() {
        assert!(listed(&[ban(NPM, "192.0.2.1/32", Some(10))]).is_empty());
    }

    #[test]
    fn overlapping_networks_are_split() {
        assert_eq!(
            listed(&[ban(NPM, "192.0.2.0/24", Some(60)), ban(WEB, "192.0.2.128/25", Some(90))]),
            [
                "nets4 192.0.2.0/25 until 60 \"npm, 3 offenses, 1970-01-01T00:00:01.5Z\"",
                "nets4 192.0.2.128/25 until 90 \"web, 3 offenses, 1970-01-01T00:00:01.5Z\"",
            ]
        );
    }

    #[test]
    fn a_comment_is_read_back() {
        let written = ban(WEB, "192.0.2.1/32", None);
        assert_eq!(parse_comment(&comment(&written, &name)), Some(("web", 3, written.since)));
        assert!(!is_forced(&comment(&written, &name)));
        let forced = comment(&Ban { forced: true, ..written.clone() }, &name);
        assert_eq!(parse_comment(&forced), Some(("web", 3, written.since)));
        assert!(is_forced(&forced));
        assert_eq!(parse_comment("blocked by hand, 2026"), None);
    }
}
