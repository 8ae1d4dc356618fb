//! The program, run by the kernel on packets made here. Loading programs needs root (CAP_BPF, CAP_PERFMON).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use super::bpf::BpfMatcher;
use crate::clock;

const NAMES: [&str; 3] = ["x-real-ip", "x-forwarded-for", "cf-connecting-ip"];
const BANNED: [&str; 7] = [
    "203.0.113.7/32",
    "198.51.100.0/24",
    "2001:db8::7/128",
    "2001:db8:0:66::/64",
    "2001:db8:77::/56",
    "2001:db8:4000::/34",
    "::1:0:0:1/128",
];

fn matcher() -> BpfMatcher {
    let names: Vec<String> = NAMES.map(str::to_owned).into();
    let mut matcher = match BpfMatcher::load(&names, &BTreeSet::from([56, 64])) {
        Ok(matcher) => matcher,
        Err(e) => panic!("{e}\n(this test loads a BPF program: run it as root)"),
    };
    let bans: Vec<(IpNet, _)> = BANNED.iter().map(|net| (net.parse().unwrap(), None)).collect();
    matcher.insert(&bans).unwrap();
    matcher
}

/// A TCP packet with this payload, from its IP header on.
fn packet(payload: &[u8], six: bool) -> Vec<u8> {
    let tcp =
        [&[0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x18, 1, 0, 0, 0, 0, 0][..], &[1; 12]].concat();
    let length = (tcp.len() + payload.len()) as u16;
    let mut packet = if six {
        let mut head = vec![0x60, 0, 0, 0];
        head.extend(length.to_be_bytes());
        head.extend([6, 64]);
        head.extend([0xfd; 32]);
        head
    } else {
        let mut head = vec![0x45, 0];
        head.extend((length + 20).to_be_bytes());
        head.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        head
    };
    packet.extend(tcp);
    packet.extend(payload);
    packet
}

fn run(matcher: &BpfMatcher, payload: impl AsRef<[u8]>) -> bool {
    let results: Vec<u32> =
        [false, true].map(|six| matcher.dry_run(&packet(payload.as_ref(), six), 1).unwrap().returned).into();
    assert_eq!(results[0], results[1], "over IPv4 and IPv6 alike: {}", payload.as_ref().escape_ascii());
    results[0] == 1
}

fn request(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: example.org\r\n{headers}\r\nAccept: */*\r\n\r\n")
}

#[test]
fn every_spelling_of_a_banned_address_is_found() {
    let matcher = matcher();
    for headers in [
        "X-Real-IP: 203.0.113.7",
        "x-real-ip:203.0.113.7",
        "X-FORWARDED-FOR: 203.0.113.7",
        "CF-Connecting-IP: 203.0.113.7",
        "X-Forwarded-For: 192.0.2.1, 203.0.113.7",
        "X-Forwarded-For: 203.0.113.7, 192.0.2.1",
        "X-Forwarded-For: 192.0.2.1,203.0.113.7,192.0.2.2",
        "X-Forwarded-For: unknown, 203.0.113.7",
        "X-Forwarded-For: 203.0.113.77, 203.0.113.7",
        "X-Forwarded-For: 203.0.113.7:51234",
        "X-Forwarded-For: ::ffff:203.0.113.7",
        "X-Forwarded-For: ::FFFF:cb00:7107",
        "X-Forwarded-For: [::ffff:203.0.113.7]:443",
        "X-Forwarded-For: 0:0:0:0:0:ffff:203.0.113.7",
        "X-Real-IP: \t203.0.113.7\t",
        "X-Real-IP: \"203.0.113.7\"",
        "X-Real-IP: 198.51.100.200",
        "X-Real-IP: 2001:db8::7",
        "X-Real-IP: 2001:DB8::7",
        "X-Real-IP: 2001:0db8:0000:0000:0000:0000:0000:0007",
        "X-Real-IP: 2001:db8:0:0:0:0:0:7",
        "X-Real-IP: [2001:db8::7]:8080",
        "X-Real-IP: 2001:db8::7%eth0",
        "X-Real-IP: 2001:db8::0.0.0.7",
        "X-Forwarded-For: 192.0.2.1, 2001:db8:0:66:a:b:c:d",
        "X-Forwarded-For: 2001:db8:0:66::, 192.0.2.1",
        "X-Real-IP: 2001:db8:77:ff::1",
        "X-Real-IP: 2001:db8:7fff::1",
        "X-Real-IP: 0:0:0:0:1::1",
        "X-Real-IP: ::1:0:0:1",
        "X-Real-IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nCF-Connecting-IP: 203.0.113.7",
        "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 203.0.113.7",
    ] {
        assert!(run(&matcher, request(headers)), "{headers}");
    }
}

#[test]
fn what_is_not_a_banned_address_passes() {
    let matcher = matcher();
    for headers in [
        "X-Real-IP: 192.0.2.1",
        "X-Real-IP: 203.0.113.77",
        "X-Real-IP: 203.0.113.70",
        "X-Real-IP: 1203.0.113.7",
        "X-Real-IP: 9.203.0.113.7",
        "X-Real-IP: 203.0.113.7.9",
        "X-Real-IP: x203.0.113.7",
        "X-Real-IP: 203.0.113.7x",
        "X-Real-IP: 203.0.113",
        "X-Real-IP: 203.0.113.263",
        "X-Real-IP: 203.0..113.7",
        "X-Real-IP: cb.0.113.7",
        "X-Real-IP: 3405803783",
        "X-Other: 203.0.113.7",
        "X-Real-IP-Not: 203.0.113.7",
        "XX-Real-IP: 203.0.113.7",
        "User-Agent: X-Real-IP: 203.0.113.7",
        "User-Agent: 203.0.113.7",
        "X-Real-IP: 2001:db8::8",
        "X-Real-IP: 2001:db8::7:0",
        "X-Real-IP: 2001:db8:0:67::1",
        "X-Real-IP: 2001:db8:78::1",
        "X-Real-IP: 2001:db8:8000::1",
        "X-Real-IP: 2001:db8:::7",
        "X-Real-IP: 2001:db8::0::7",
        "X-Real-IP: 2001:db8:0:0:0:0:7",
        "X-Real-IP: 2001:db8:0:0:0:0:0:0:7",
        "X-Real-IP: 2001:db8:0:0:0:0:0:7:",
        "X-Real-IP: 2001:0db8:0:0:0:0:0:00007",
        "X-Real-IP: 2001:db8::g7",
        "X-Real-IP: ::fffe:203.0.113.7",
        "X-Real-IP: ",
        "X-Real-IP:",
    ] {
        assert!(!run(&matcher, request(headers)), "{headers}");
    }
    let body = "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nX-Real-IP: 203.0.113.7\r\n\r\n";
    assert!(!run(&matcher, body), "what stands in the body is no header");
    let upload = "x y z\r\nX-Real-IP: 203.0.113.7\r\n\r\n";
    assert!(!run(&matcher, upload), "that is no request");
    assert!(!run(&matcher, ""), "an acknowledgement");
}

#[test]
fn a_long_request_line_does_not_hide_the_header() {
    let matcher = matcher();
    for length in (0..130).chain([1000, 2999, 3000, 3001]) {
        let head = format!("GET /{} HTTP/1.1\r\nX-Real-IP: 203.0.113.7\r\n\r\n", "a".repeat(length));
        assert!(run(&matcher, &head), "{length}");
    }
    let junk = "192.0.2.1, ".repeat(250);
    assert!(run(&matcher, request(&format!("X-Forwarded-For: {junk}203.0.113.7"))), "a long list");
    let many = "A: b\r\n".repeat(400);
    assert!(run(&matcher, request(&format!("{many}X-Real-IP: 203.0.113.7"))), "many headers");
    let tiny = "a:\n".repeat(400);
    assert!(run(&matcher, request(&format!("{tiny}X-Real-IP: 203.0.113.7"))), "bare line feeds");
}

#[test]
fn the_packet_may_end_anywhere() {
    let matcher = matcher();
    let head = "GET / HTTP/1.1\r\nHost: example.org\r\nX-Real-IP: 203.0.113.7\r\n\r\n";
    let needed = head.find("203").unwrap() + "203.0.113.7".len();
    for end in 0..=head.len() {
        let found = run(&matcher, &head[..end]);
        // The end of the packet ends the word, too: what was cut off could only be more digits, or nothing.
        assert_eq!(found, end >= needed, "{end}");
    }
}

#[test]
fn proxy_protocol_names_its_source() {
    let matcher = matcher();
    for (line, banned) in [
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", true),
        ("PROXY TCP4 203.0.113.77 192.0.2.1 56324 443\r\n", false),
        ("PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", true),
        ("PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\n", false),
        ("PROXY TCP6 2001:db8:0:67:1111:2222:3333:4444 2001:db8::7 5 443\r\n", false),
        ("PROXY UNKNOWN 203.0.113.7 203.0.113.7 56324 443\r\n", false),
        ("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nX-Real-IP: 203.0.113.7\r\n\r\n", true),
        (
            "PROXY TCP4 192.0.2.9 192.0.2.1 56324 443\r\nGET / HTTP/1.1\r\nX-Real-IP: 203.0.113.7\r\n\r\n",
            true,
        ),
        ("PROXY TCP4 192.0.2.9 192.0.2.1 56324 443\r\nGET / HTTP/1.1\r\nX-Real-IP: 192.0.2.9\r\n\r\n", false),
    ] {
        assert_eq!(run(&matcher, line), banned, "{line}");
    }
    let version2 = |source: IpAddr, rest: &str| {
        let (family, length) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
        let mut out = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
        out.extend([family, 0, length]);
        match source {
            IpAddr::V4(source) => out.extend([source.octets(), [192, 0, 2, 1]].concat()),
            IpAddr::V6(source) => out.extend([source.octets(), Ipv6Addr::LOCALHOST.octets()].concat()),
        }
        out.extend([0xdc, 4, 1, 0xbb]);
        out.extend(rest.as_bytes());
        out
    };
    let banned = request("X-Real-IP: 203.0.113.7");
    for (source, rest, expected) in [
        ("203.0.113.7", "", true),
        ("203.0.113.8", "", false),
        ("2001:db8:0:66::99", "", true),
        ("2001:db8:0:67::99", "", false),
        ("192.0.2.1", banned.as_str(), true),
        ("192.0.2.1", "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", false),
    ] {
        assert_eq!(run(&matcher, version2(source.parse().unwrap(), rest)), expected, "{source} {rest}");
    }
}

#[test]
fn a_ban_ends_by_itself_and_is_counted() {
    let mut matcher = matcher();
    let net: IpNet = "192.0.2.200/32".parse().unwrap();
    let head = request("X-Real-IP: 192.0.2.200");
    assert!(!run(&matcher, &head));
    let end = clock::now().saturating_add(Duration::from_millis(300));
    matcher.insert(&[(net, Some(end))]).unwrap();
    assert!(run(&matcher, &head));
    assert_eq!(matcher.packets(net), Some(2));
    let told: Vec<_> = matcher.list().unwrap().into_iter().filter(|(of, ..)| *of == net).collect();
    let [(_, Some(listed), 2)] = told[..] else { panic!("{told:?}") };
    assert!(listed.since(end).max(end.since(listed)) < Duration::from_millis(50));
    // Another end keeps the count.
    matcher.insert(&[(net, Some(end))]).unwrap();
    assert_eq!(matcher.packets(net), Some(2));
    std::thread::sleep(Duration::from_millis(350));
    assert!(!run(&matcher, &head), "it has ended");
    assert_eq!(matcher.sweep(clock::now()).unwrap(), 1);
    assert_eq!(matcher.packets(net), None);
    matcher.remove(&[net]).unwrap();
    assert_eq!(matcher.list().unwrap().len(), BANNED.len());
}

#[test]
fn many_bans_are_listed_whole() {
    let mut matcher = matcher();
    let bans: Vec<(IpNet, _)> =
        (0..100_000u32).map(|n| (IpNet::from(IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n))), None)).collect();
    matcher.insert(&bans).unwrap();
    let listed: BTreeSet<IpNet> = matcher.list().unwrap().into_iter().map(|(net, ..)| net).collect();
    assert_eq!(listed.len(), bans.len() + BANNED.len());
    assert!(bans.iter().all(|(net, _)| listed.contains(net)));
}

/// What an address is to the program, written naively.
fn is_banned(word: &str) -> bool {
    let without_zone = word.split('%').next().unwrap_or_default();
    let address = match without_zone.parse::<IpAddr>() {
        Ok(IpAddr::V6(six)) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
        Ok(four) => four,
        Err(_) => return false,
    };
    BANNED.iter().any(|net| net.parse::<IpNet>().unwrap().contains(&address))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Words of the characters that addresses are made of: found exactly when std's parser says that they are a banned
    /// address. What only the program reads as an address (a port, leading zeros in an octet, a stray colon at the
    /// beginning) is left out.
    #[test]
    fn words_are_read_as_std_reads_them(
        words in prop::collection::vec("(::|2001:db8|:|0|7|66|203\\.0\\.113|\\.7|\\.0|ffff|g){1,6}", 400)
    ) {
        let matcher = matcher();
        for word in words {
            let stray = word.starts_with(':') && !word.starts_with("::");
            let port = word.split_once(':').is_some_and(|(before, _)| before.matches('.').count() == 3)
                || word.rfind(':').is_some_and(|at| word[..at].contains('.'));
            if stray || port || word.split('.').any(|part| part.len() > 1 && part.starts_with('0') && part.len() < 4) {
                continue;
            }
            prop_assert_eq!(run(&matcher, request(&format!("X-Real-IP: {word}"))), is_banned(&word), "{}", word);
        }
    }
}
