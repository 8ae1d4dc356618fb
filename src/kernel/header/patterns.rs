//! An offender as text: what xt_string must look for to find it in the value of a header, and nobody else.
//!
//! A text is exact on both sides, so that 203.0.113.7 is found neither in 203.0.113.77 nor in 9203.0.113.7. In front of
//! it stands what may precede an address in a list (`X-Forwarded-For: a, b,c`), behind it what may follow one. Which
//! header it stands in cannot be said: any header counts that has such a list.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A text to be looked for; at most 128 bytes, the most xt_string takes (`XT_STRING_MAX_PATTERN_SIZE`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether `A` is `a`.
    pub ignore_case: bool,
}

/// What may stand before an IPv4 address. The colon is that of a header without a space, or of `::ffff:203.0.113.7`.
const BEFORE_V4: [&str; 3] = [" ", ",", ":"];
/// What may stand before an IPv6 address. A colon alone could be its own: `1:2001:db8::1` is somebody else. After the last
/// letter of X-Real-IP or X-Forwarded-For, no digits of an address, it is the header's.
const BEFORE_V6: [&str; 4] = [" ", ",", "p:", "r:"];

/// All texts by which `net` is found: every way a proxy writes one of its addresses holds one of them, and no way to write
/// another address does. `None` where that cannot be said as text, such as for IPv6 networks of 56 bits.
#[must_use]
pub fn patterns(net: IpNet) -> Option<Vec<Pattern>> {
    let (texts, ignore_case) = match net {
        IpNet::V4(net) => (v4(net)?, false),
        IpNet::V6(net) => match unmapped(net) {
            Some(net) => (v4(net)?, false),
            None => (v6(net)?, true),
        },
    };
    let mut all: Vec<Pattern> =
        texts.into_iter().map(|text| Pattern { bytes: text.into_bytes(), ignore_case }).collect();
    all.sort();
    all.dedup();
    Some(all)
}

/// The longest text that is in each of `patterns`: where it is not found, none of them is.
#[must_use]
pub fn common(patterns: &[Pattern]) -> Option<Pattern> {
    let (first, rest) = patterns.split_first()?;
    let whole = first.bytes.len();
    let parts = (1..=whole).rev().flat_map(|n| (0..=whole - n).map(move |at| at..at + n));
    let is_common = |part: &[u8]| rest.iter().all(|p| p.bytes.windows(part.len()).any(|w| w == part));
    let bytes = parts.filter_map(|range| first.bytes.get(range)).find(|part| is_common(part))?.to_vec();
    Some(Pattern { bytes, ignore_case: first.ignore_case })
}

fn v4(net: Ipv4Net) -> Option<Vec<String>> {
    let [a, b, c, _] = net.network().octets();
    let (text, after): (String, &[&str]) = match net.prefix_len() {
        // With a port, or mapped and in brackets.
        32 => (net.addr().to_string(), &["\r", ",", ":", "]"]),
        24 => (format!("{a}.{b}.{c}."), &[""]),
        16 => (format!("{a}.{b}."), &[""]),
        // The text for /8 would be found in version numbers (`rv:109.0`), which are in the heads of any browser.
        _ => return None,
    };
    Some(around(&BEFORE_V4, &[text], after))
}

fn v6(net: Ipv6Net) -> Option<Vec<String>> {
    let groups = net.network().segments();
    let whole = usize::from(net.prefix_len() / 16);
    if net.prefix_len() == 128 {
        let spelled = [net.addr().to_string(), short(&groups), long(&groups)];
        let mut texts = around(&BEFORE_V6, &spelled, &["\r", ","]);
        texts.extend(spelled.iter().map(|text| format!("[{text}]")));
        return Some(texts);
    }
    // One group alone is too little to tell an address from other text.
    if !net.prefix_len().is_multiple_of(16) || whole < 2 {
        return None;
    }
    let groups = groups.get(..whole)?;
    let kept = groups.iter().rposition(|group| *group != 0)? + 1;
    let (head, zeros) = (groups.get(..kept)?, whole - kept);
    // `::` in the middle of the network's own bits says not how many groups it stands for.
    if head.windows(2).any(|pair| pair == [0, 0]) {
        return None;
    }
    let mut spelled = vec![short(groups) + ":", long(groups) + ":"];
    match zeros {
        0 => {}
        // `::` stands for two or more groups (RFC 5952, section 4.2.2), so for those that are the network's.
        1 | 2 => spelled.push(short(head) + "::"),
        _ => return None,
    }
    Some(around(&[&BEFORE_V6[..], &["["]].concat(), &spelled, &[""]))
}

/// The IPv4 network that an IPv4-mapped one (`::ffff:0:0/96`) is.
fn unmapped(net: Ipv6Net) -> Option<Ipv4Net> {
    let address: Ipv4Addr = net.network().to_ipv4_mapped()?;
    Ipv4Net::new(address, net.prefix_len().checked_sub(96)?).ok()
}

/// `2001:db8:0:0`
fn short(groups: &[u16]) -> String {
    groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join(":")
}

/// `2001:0db8:0000:0000`
fn long(groups: &[u16]) -> String {
    groups.iter().map(|group| format!("{group:04x}")).collect::<Vec<_>>().join(":")
}

fn around(before: &[&str], texts: &[String], after: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for text in texts {
        for before in before {
            all.extend(after.iter().map(|after| format!("{before}{text}{after}")));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// xt_string's search.
    fn finds(patterns: &[Pattern], text: &str) -> bool {
        patterns.iter().any(|pattern| {
            text.as_bytes().windows(pattern.bytes.len()).any(|part| {
                if pattern.ignore_case {
                    part.eq_ignore_ascii_case(&pattern.bytes)
                } else {
                    part == pattern.bytes
                }
            })
        })
    }

    /// Every way a proxy writes an address.
    fn spellings(address: IpAddr) -> Vec<String> {
        match address {
            IpAddr::V4(a) => vec![
                a.to_string(),
                format!("{a}:49152"),
                format!("::ffff:{a}"),
                format!("0:0:0:0:0:ffff:{a}"),
                format!("[::ffff:{a}]"),
                format!("[::ffff:{a}]:49152"),
            ],
            IpAddr::V6(a) => {
                let forms = [a.to_string(), short(&a.segments()), long(&a.segments())];
                let cases = forms.iter().flat_map(|form| [form.clone(), form.to_uppercase()]);
                cases.flat_map(|f| [format!("[{f}]"), format!("[{f}]:49152"), f]).collect()
            }
        }
    }

    /// Heads with the spelling at every place of a list.
    fn heads(spelling: &str) -> Vec<String> {
        [
            format!("X-Forwarded-For: {spelling}\r\n"),
            format!("x-real-ip:{spelling}\r\n"),
            format!("CF-Connecting-IP: {spelling}\r\n"),
            format!("X-Forwarded-For: {spelling}, 10.9.9.9\r\n"),
            format!("X-Forwarded-For: 10.9.9.9, {spelling}, fd00::9\r\n"),
            format!("X-Forwarded-For: fd00::9,{spelling},10.9.9.9\r\n"),
            format!("X-Forwarded-For: 10.9.9.9, {spelling}\r\n"),
        ]
        .into_iter()
        .map(|header| format!("GET / HTTP/1.1\r\nHost: example.org\r\n{header}Accept: */*\r\n\r\n"))
        .collect()
    }

    fn check(banned: IpNet, address: IpAddr) {
        let Some(patterns) = patterns(banned) else { return };
        for spelling in spellings(address) {
            for head in heads(&spelling) {
                let found = finds(&patterns, &head);
                assert_eq!(found, banned.contains(&address), "{banned} in {head:?}");
            }
        }
        let common = common(&patterns).unwrap();
        assert!(
            patterns.iter().all(|p| finds(std::slice::from_ref(&common), &String::from_utf8_lossy(&p.bytes)))
        );
    }

    #[test]
    fn what_cannot_be_said_is_not_guessed() {
        for cannot in [
            "2001:db8::/56",
            "2001:db8::/33",
            "2001::/64",
            "2001:0:0:1::/64",
            "2001::/16",
            "::/0",
            "::/64",
            "0:0:1::/48",
            "203.0.112.0/23",
            "203.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.0/31",
        ] {
            assert_eq!(patterns(net(cannot)), None, "{cannot}");
        }
        for can in ["2001:db8::/64", "2001:db8:1::/64", "2001:db8:0:1::/64", "2001:db8::/48", "2001:db8::/32"]
        {
            assert!(patterns(net(can)).is_some(), "{can}");
        }
        assert_eq!(patterns(net("::ffff:192.0.2.1/128")), patterns(net("192.0.2.1/32")));
    }

    #[test]
    fn neighbours_in_the_text_are_others() {
        let found = |text: &str| finds(&patterns(net("203.0.113.7/32")).unwrap(), text);
        for other in ["203.0.113.77", "9203.0.113.7", "1.203.0.113.7", "203.0.113.7.1", "203.0.113.70"] {
            assert!(heads(other).iter().all(|head| !found(head)), "{other}");
        }
        let found = |text: &str| finds(&patterns(net("2001:db8::1/128")).unwrap(), text);
        for other in ["1:2001:db8::1", "2001:db8::1:1", "2001:db8::11", "12001:db8::1", "2001:db8::1.2.3.4"] {
            assert!(heads(other).iter().all(|head| !found(head)), "{other}");
        }
        assert!(found(" 2001:DB8::1\r"));
    }

    #[test]
    fn one_text_tells_whether_to_look_closer() {
        let text =
            |banned| String::from_utf8(common(&patterns(net(banned)).unwrap()).unwrap().bytes).unwrap();
        assert_eq!(text("203.0.113.7/32"), "203.0.113.7");
        assert_eq!(text("203.0.113.0/24"), "203.0.113.");
        assert_eq!(text("2001:db8:1234:5678::/64"), "db8:1234:5678:");
        assert_eq!(text("2a02:8109:a140:5c00::/64"), "2a02:8109:a140:5c00:");
    }

    /// Few values, so that runs of zeros of every length occur, and addresses that share much.
    fn v6() -> impl Strategy<Value = Ipv6Addr> {
        let group =
            prop_oneof![4 => Just(0_u16), 2 => Just(1), 1 => Just(0x11), 1 => Just(0x2001), 1 => Just(0xdb8)];
        // Not IPv4-mapped or -compatible: their first group is zero.
        let first = prop_oneof![Just(0x2001_u16), Just(1), Just(0x11)];
        (first, prop::array::uniform7(group))
            .prop_map(|(a, [b, c, d, e, f, g, h])| Ipv6Addr::new(a, b, c, d, e, f, g, h))
    }

    fn v4() -> impl Strategy<Value = Ipv4Addr> {
        let octet = prop_oneof![Just(1_u8), Just(7), Just(77), Just(11), Just(117), Just(177)];
        prop::array::uniform4(octet).prop_map(Ipv4Addr::from)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn every_spelling_of_what_is_banned_is_found_and_no_other(
            banned in v6(), other in v6(), keep in 0_u8..=128, at in 0_u8..=8
        ) {
            let banned = Ipv6Net::new(banned, at * 16).unwrap().trunc();
            check(banned.into(), other.into());
            // And one that agrees in the first bits.
            let mask = u128::MAX.checked_shr(keep.into()).unwrap_or(0);
            let near = (u128::from(banned.network()) & !mask) | (u128::from(other) & mask);
            check(banned.into(), Ipv6Addr::from(near).into());
        }

        #[test]
        fn every_spelling_of_what_is_banned_is_found_and_no_other_v4(
            banned in v4(), other in v4(), keep in 0_u8..=32, length in prop::sample::select(vec![8_u8, 16, 24, 32])
        ) {
            let banned = Ipv4Net::new(banned, length).unwrap().trunc();
            check(banned.into(), other.into());
            let mask = u32::MAX.checked_shr(keep.into()).unwrap_or(0);
            let near = (u32::from(banned.network()) & !mask) | (u32::from(other) & mask);
            check(banned.into(), Ipv4Addr::from(near).into());
        }
    }
}
