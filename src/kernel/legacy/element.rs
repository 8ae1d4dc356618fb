//! Elements of sets, as ipset(8) writes and reads them.

use std::time::Duration;

use ipnet::IpNet;

use crate::kernel::desired::Want;
use crate::types::Timestamp;

/// The longest timeout: 2^31 milliseconds in whole seconds (`IPSET_MAX_TIMEOUT` in ipset's source).
pub(super) const LONGEST: Duration = Duration::from_secs(2_147_483);
/// The longest comment in bytes, without a NUL (`IPSET_MAX_COMMENT_SIZE` in linux/netfilter/ipset/ip_set.h).
const COMMENT_MAX: usize = 255;
/// What stands in a comment in front of an end that is further away than a timeout reaches.
const UNTIL: &str = ", until ";
/// Ends in whole seconds, rounded up, listed by another process at another moment.
const TOLERANCE: Duration = Duration::from_secs(3);

/// An element that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) net: IpNet,
    /// What is left of its time; `None` for ever.
    left: Option<Duration>,
    comment: String,
    pub(super) packets: u64,
}

/// The line that adds an element, or gives it another end; `None` when its time is up. A time is rounded up to whole
/// seconds: a ban ends up to a second later than said, never before.
pub(super) fn add(name: &str, net: IpNet, want: &Want, now: Timestamp) -> Option<String> {
    let (timeout, comment) = written(want, now)?;
    Some(format!("add {name} {} timeout {timeout} comment \"{comment}\"", element(net)))
}

/// The line that removes an element.
pub(super) fn del(name: &str, net: IpNet) -> String {
    format!("del {name} {}", element(net))
}

/// What a set of networks takes for `net`: it knows no network of length 0 (ipset(8), hash:net).
pub(super) fn pieces(net: IpNet) -> Vec<IpNet> {
    match net.prefix_len() {
        0 => net.subnets(1).map(Iterator::collect).unwrap_or_default(),
        _ => vec![net],
    }
}

/// Whether an element's end is further away than a timeout reaches, so that it must be given a new one in time.
pub(super) fn is_renewed(want: &Want, now: Timestamp) -> bool {
    want.end.is_some_and(|end| end.since(now) > LONGEST)
}

impl Entry {
    /// When it ends: what its comment says, where that is further away than its timeout could be.
    pub(super) fn end(&self, now: Timestamp) -> Option<Timestamp> {
        self.left.map(|left| self.until().unwrap_or_else(|| now.saturating_add(left)))
    }

    /// The comment that it was given.
    pub(super) fn comment(&self) -> &str {
        match self.until() {
            Some(_) => self.comment.rsplit_once(UNTIL).map_or("", |(comment, _)| comment),
            None => &self.comment,
        }
    }

    fn until(&self) -> Option<Timestamp> {
        let (_, until) = self.comment.rsplit_once(UNTIL)?;
        let until: jiff::Timestamp = until.parse().ok()?;
        Some(Timestamp::from_millis(until.as_millisecond()))
    }

    /// Whether it is as [`add`] would write it, and need not be written for a while.
    pub(super) fn is(&self, want: &Want, now: Timestamp) -> bool {
        let Some((timeout, comment)) = written(want, now) else { return false };
        let wanted = (timeout > 0).then(|| Duration::from_secs(timeout));
        let same_end = match (self.left, wanted) {
            (None, None) => true,
            // Half of the longest time must be left of an end that is still beyond it.
            (Some(left), Some(LONGEST)) if is_renewed(want, now) => left > LONGEST / 2,
            (Some(left), Some(wanted)) => left.abs_diff(wanted) <= TOLERANCE,
            _ => false,
        };
        // An end that has come within reach is not in the comment any more, which is nothing to write the element for.
        same_end && (self.comment == comment || (self.comment() == comment && self.until() == want.end))
    }
}

/// The timeout in seconds (0 is none) and the comment for `want`; `None` when its time is up.
fn written(want: &Want, now: Timestamp) -> Option<(u64, String)> {
    let Some(end) = want.end else { return Some((0, clean(&want.comment))) };
    let left = end.since(now);
    if left.is_zero() {
        return None;
    }
    let mut comment = want.comment.clone();
    if left > LONGEST {
        comment.push_str(UNTIL);
        comment.push_str(&end.to_string());
    }
    let seconds = left.min(LONGEST).as_millis().div_ceil(1000);
    Some((u64::try_from(seconds).unwrap_or(LONGEST.as_secs()), clean(&comment)))
}

/// `ipset restore` reads what stands between quotes up to the next quote, and lines up to their end.
fn clean(comment: &str) -> String {
    let mut text: String =
        comment.chars().map(|c| if c == '"' || c == '\\' || c.is_control() { '_' } else { c }).collect();
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

fn element(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}

/// A line of `ipset save`: `add SET 192.0.2.1 timeout 60 packets 0 bytes 0 comment "..."`; `None` for any other.
pub(super) fn entry(line: &str) -> Option<Entry> {
    let (rest, comment) = match line.split_once(" comment \"") {
        Some((rest, comment)) => (rest, comment.strip_suffix('"')?),
        None => (line, ""),
    };
    let mut words = rest.split_whitespace();
    let ("add", Some(_)) = (words.next()?, words.next()) else { return None };
    let net = words.next()?;
    let net = net.parse().or_else(|_| net.parse::<std::net::IpAddr>().map(IpNet::from)).ok()?;
    let mut entry = Entry { net, left: None, comment: comment.to_owned(), packets: 0 };
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        match key {
            "timeout" => {
                let seconds = value.parse().ok()?;
                entry.left = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            "packets" => entry.packets = value.parse().ok()?,
            _ => {}
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn want(end: Option<i64>) -> Want {
        Want {
            end: end.map(Timestamp::from_secs),
            comment: "npm, 3 offenses, 1970-01-01T00:00:01Z".to_owned(),
        }
    }

    #[test]
    fn lines_as_ipset_reads_them() {
        let banned = "stockade_banned4";
        assert_eq!(
            add(banned, net("192.0.2.1/32"), &want(Some(1_060)), NOW).unwrap(),
            "add stockade_banned4 192.0.2.1 timeout 60 comment \"npm, 3 offenses, 1970-01-01T00:00:01Z\""
        );
        assert_eq!(
            add("stockade_nets6", net("2001:db8::/32"), &want(None), NOW).unwrap(),
            "add stockade_nets6 2001:db8::/32 timeout 0 comment \"npm, 3 offenses, 1970-01-01T00:00:01Z\""
        );
        assert_eq!(del(banned, net("192.0.2.1/32")), "del stockade_banned4 192.0.2.1");
        assert_eq!(add(banned, net("192.0.2.1/32"), &want(Some(1_000)), NOW), None, "its time is up");
        let almost = Want { end: Some(Timestamp::from_millis(1_000_001)), ..want(None) };
        assert!(add(banned, net("192.0.2.1/32"), &almost, NOW).unwrap().contains(" timeout 1 "));
    }

    #[test]
    fn a_network_of_length_0_is_two_halves() {
        assert_eq!(pieces(net("0.0.0.0/0")), [net("0.0.0.0/1"), net("128.0.0.0/1")]);
        assert_eq!(pieces(net("::/0")), [net("::/1"), net("8000::/1")]);
        assert_eq!(pieces(net("::/1")), [net("::/1")]);
    }

    #[test]
    fn a_comment_cannot_leave_its_quotes() {
        let hostile = Want { end: None, comment: "a\" b\nadd x \\".to_owned() };
        let line = add("s", net("192.0.2.1/32"), &hostile, NOW).unwrap();
        assert_eq!(line, "add s 192.0.2.1 timeout 0 comment \"a_ b_add x _\"");
        let long = Want { end: None, comment: "ä".repeat(200) };
        assert_eq!(written(&long, NOW).unwrap().1.len(), 254);
    }

    #[test]
    fn an_end_beyond_the_longest_timeout_stands_in_the_comment() {
        let far = want(Some(90 * 86_400));
        let line = add("s", net("192.0.2.1/32"), &far, NOW).unwrap();
        assert_eq!(
            line,
            "add s 192.0.2.1 timeout 2147483 comment \"npm, 3 offenses, 1970-01-01T00:00:01Z, until 1970-04-01T00:00:00Z\""
        );
        let found = entry(&line).unwrap();
        assert_eq!((found.end(NOW), found.comment()), (far.end, far.comment.as_str()));
        assert!(found.is(&far, NOW));
        let later = NOW.saturating_add(LONGEST / 2);
        let aged = Entry { left: Some(LONGEST / 2), ..found.clone() };
        assert!(!aged.is(&far, later), "it is due to be renewed");
        // Within reach, with the time that is left: nothing to do, though the comment is the longer one.
        let reached = far.end.unwrap().saturating_sub(Duration::from_secs(60));
        let last = Entry { left: Some(Duration::from_secs(60)), ..found };
        assert!(last.is(&far, reached));
        assert!(!last.is(&want(Some(91 * 86_400)), reached), "prolonged");
    }

    #[test]
    fn an_element_is_read_back() {
        let line = "add stockade_banned6_64 2001:db8::/64 timeout 59 packets 7 bytes 9 comment \"a, b c\"";
        let read = entry(line).unwrap();
        assert_eq!((read.net, read.packets, read.comment()), (net("2001:db8::/64"), 7, "a, b c"));
        assert_eq!(read.end(NOW), Some(Timestamp::from_secs(1_059)));
        assert_eq!(entry("add s 192.0.2.1 timeout 0").unwrap().end(NOW), None);
        assert_eq!(entry("add s 192.0.2.1").unwrap().net, net("192.0.2.1/32"));
        assert_eq!(entry("create s hash:ip family inet"), None);
        assert_eq!(entry("add s eth0 timeout 1"), None);
    }

    #[test]
    fn ends_that_differ_by_the_rounding_are_the_same() {
        let line = add("s", net("192.0.2.1/32"), &want(Some(1_060)), NOW).unwrap();
        let found = entry(&line).unwrap();
        assert!(found.is(&want(Some(1_060)), NOW));
        assert!(found.is(&want(Some(1_062)), NOW));
        assert!(!found.is(&want(Some(1_070)), NOW));
        assert!(!found.is(&want(None), NOW));
        assert!(!found.is(&Want { comment: "other".to_owned(), ..want(Some(1_060)) }, NOW));
    }
}
