//! Bans of offenders whose address is only in the request head, with real nginx on both sides of the agent's host.

use std::time::Duration;

use crate::hops::{BRIDGED4, BRIDGED6, HOST4, Hops, Outcome, ROUTED4, ROUTED6, WAYS};
use crate::world::{eventually, text};

const SOON: Duration = Duration::from_secs(5);
const BANNED4: &str = "203.0.113.66";
const BANNED6: &str = "2001:db8:0:66::/64";

/// A request with these lines of headers.
fn head(headers: &[&str]) -> Vec<u8> {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET /path HTTP/1.1\r\nHost: example.org\r\n{lines}Accept: */*\r\n\r\n").into_bytes()
}

fn world(headers: &str) -> Hops {
    let mut hops = Hops::new();
    hops.start_nginx();
    hops.start_agent(headers);
    hops
}

/// A real proxy in between, all ways it has, both families.
fn visitors_are_told_apart(matcher: &str, action: &str, status: u16) {
    let hops = world(&format!("headers: {{ matcher: {matcher}, action: {action} }}"));
    hops.ban(&[BANNED4, BANNED6]);
    let state = &hops.status()["headers"];
    assert_eq!(
        (state["matcher"].as_str(), state["installed"].as_u64()),
        (Some(matcher), Some(2)),
        "{state:#}"
    );
    for (way, port) in WAYS {
        for innocent in ["203.0.113.77", "2001:db8:0:77::1"] {
            assert_eq!(hops.visit(innocent, port), 200, "{innocent} by {way}\n{}", hops.seen());
        }
        for offender in [BANNED4, "2001:db8:0:66::1"] {
            assert_eq!(hops.visit(offender, port), status, "{offender} by {way}\n{}", hops.seen());
        }
    }
    if matcher != "legacy" {
        let bans: serde_json::Value = serde_json::from_str(&hops.said(&["bans", "--json"])).unwrap();
        for ban in bans.as_array().unwrap() {
            assert!(ban["header_packets"].as_u64() >= Some(4), "each way has stopped some: {ban:#}");
        }
        assert!(hops.status()["headers"]["packets"].as_u64() >= Some(8));
    }
    hops.said(&["unban", "--all"]);
    for (way, port) in WAYS {
        assert_eq!(hops.visit(BANNED4, port), 200, "by {way}\n{}", hops.seen());
        assert_eq!(hops.visit("2001:db8:0:66::1", port), 200, "by {way}\n{}", hops.seen());
    }
}

#[test]
fn a_proxys_visitors_are_told_apart_by_bpf_reset() {
    visitors_are_told_apart("bpf", "reset", 502);
}

#[test]
fn a_proxys_visitors_are_told_apart_by_bpf_drop() {
    visitors_are_told_apart("bpf", "drop", 504);
}

#[test]
fn a_proxys_visitors_are_told_apart_by_string_reset() {
    visitors_are_told_apart("string", "reset", 502);
}

#[test]
fn a_proxys_visitors_are_told_apart_by_string_drop() {
    visitors_are_told_apart("string", "drop", 504);
}

#[test]
fn a_proxys_visitors_are_told_apart_by_legacy_reset() {
    visitors_are_told_apart("legacy", "reset", 502);
}

#[test]
fn a_proxys_visitors_are_told_apart_by_legacy_drop() {
    visitors_are_told_apart("legacy", "drop", 504);
}

/// Heads that name 203.0.113.66 or an address of 2001:db8:0:66::/64, or 2001:db8::99, in every way that proxies write it.
fn offending() -> Vec<Vec<u8>> {
    let mut heads: Vec<Vec<u8>> = [
        "X-Forwarded-For: 203.0.113.66",
        "x-forwarded-for: 203.0.113.66",
        "X-REAL-IP: 203.0.113.66",
        "Cf-Connecting-Ip: 203.0.113.66",
        "X-Forwarded-For: 203.0.113.66, 198.51.100.1, 10.0.0.1",
        "X-Forwarded-For: 198.51.100.1, 203.0.113.66, 10.0.0.1",
        "X-Forwarded-For: 198.51.100.1, 10.0.0.1, 203.0.113.66",
        "X-Forwarded-For: 198.51.100.1,203.0.113.66,10.0.0.1",
        "X-Real-IP:203.0.113.66",
        "X-Forwarded-For: 203.0.113.66:49152",
        "X-Forwarded-For: ::ffff:203.0.113.66",
        "X-Forwarded-For: [::ffff:203.0.113.66]:49152",
        "X-Forwarded-For: 2001:db8:0:66::1",
        "X-Forwarded-For: 2001:DB8:0:66:A:B:C:D",
        "X-Real-IP:2001:db8:0:66::1",
        "X-Forwarded-For: 2001:0db8:0000:0066:0000:0000:0000:0001",
        "X-Forwarded-For: fd00::1, [2001:db8:0:66::1]:443, 10.0.0.1",
        "X-Forwarded-For: fd00::1, 2001:db8:0:66::1",
        "X-Forwarded-For: 2001:db8::99",
        "X-Forwarded-For: 2001:db8:0:0:0:0:0:99, 10.0.0.1",
        "X-Forwarded-For: [2001:DB8::99]",
    ]
    .iter()
    .map(|line| head(&[line]))
    .collect();
    heads.push(head(&["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.66"]));
    heads.push(head(&["X-Real-IP: 10.0.0.1", "X-Forwarded-For: 10.0.0.2", "CF-Connecting-IP: 203.0.113.66"]));
    // The offender's own headers stand in front of what the proxy adds.
    heads.push(head(&["X-Forwarded-For: 127.0.0.1, ::1, unknown, 8.8.8.8, 203.0.113.66"]));
    heads.push(head(&["X-Forwarded-For: garbage;;,,,, , 203.0.113.66"]));
    // A long request line does not push the header out of sight: what is sent at once passes a host as one packet, until it
    // leaves by a device that cannot cut it up itself.
    let long = "a".repeat(3000);
    heads.push(format!("GET /{long} HTTP/1.1\r\nHost: a\r\nX-Real-IP: 203.0.113.66\r\n\r\n").into_bytes());
    heads.push(format!("POST /?{} HTTP/1.0\r\nX-Real-IP: 203.0.113.66\r\n\r\n", &long[..900]).into_bytes());
    heads
}

/// Heads that name others, some of whom look alike.
fn innocent() -> Vec<Vec<u8>> {
    let mut heads: Vec<Vec<u8>> = [
        "X-Forwarded-For: 203.0.113.6",
        "X-Forwarded-For: 203.0.113.666",
        "X-Forwarded-For: 203.0.113.166",
        "X-Forwarded-For: 3.203.0.113.66",
        "X-Forwarded-For: 9203.0.113.66",
        "X-Forwarded-For: 203.0.113.66.1",
        "X-Forwarded-For: 203.0.113.67, 203.0.113.65",
        "X-Forwarded-For: 2001:db8:0:6::66",
        "X-Forwarded-For: 2001:db8:0:660::1",
        "X-Forwarded-For: 1:2001:db8:0:66::1",
        "X-Forwarded-For: 2001:db8:1:66::1",
        "X-Forwarded-For: 2001:db8:66::1",
        "X-Forwarded-For: 2001:db8::9",
        "X-Forwarded-For: 2001:db8::99:1",
        "X-Forwarded-For: 2001:db8::1:99",
        "X-Forwarded-For: [2001:db8::990]",
        "Accept-Language: en",
    ]
    .iter()
    .map(|line| head(&[line]))
    .collect();
    // No header that names a client.
    heads.push(head(&["X-Other: 203.0.113.66"]));
    heads
}

fn spellings(matcher: &str) {
    let hops = world(&format!("headers: {{ matcher: {matcher} }}"));
    hops.ban(&[BANNED4, BANNED6, "2001:db8::99/128"]);
    for to in [ROUTED4, ROUTED6] {
        for head in innocent() {
            let said = String::from_utf8_lossy(&head);
            assert_eq!(hops.request(to, &head), Outcome::Answered, "{to}: {said}\n{}", hops.seen());
        }
        for head in offending() {
            let said = String::from_utf8_lossy(&head);
            assert_eq!(hops.request(to, &head), Outcome::Reset, "{to}: {said}\n{}", hops.seen());
        }
    }
}

#[test]
fn every_spelling_is_found_and_no_other_by_bpf() {
    spellings("bpf");
}

#[test]
fn every_spelling_is_found_and_no_other_by_string() {
    spellings("string");
}

#[test]
fn every_spelling_is_found_and_no_other_by_legacy() {
    spellings("legacy");
}

/// Between two containers on one bridge, with and without br_netfilter.
fn on_a_bridge(matcher: &str) {
    let hops = world(&format!("headers: {{ matcher: {matcher} }}"));
    hops.ban(&[BANNED4, BANNED6]);
    // br_netfilter shows bridged packets to the table inet, whose reset comes first. Without it there is only the table
    // bridge, which can drop in any kernel, and reset only with CONFIG_NFT_BRIDGE_REJECT.
    let state = hops.status();
    let drops = state["headers"]["notes"].to_string().contains("NFT_BRIDGE_REJECT");
    for (shown, stopped) in [(1, Outcome::Reset), (0, if drops { Outcome::Silence } else { Outcome::Reset })]
    {
        for setting in ["iptables", "ip6tables"] {
            hops.set(&format!("net/bridge/bridge-nf-call-{setting}"), shown);
        }
        for to in [BRIDGED4, BRIDGED6] {
            for line in ["X-Real-IP: 203.0.113.66", "X-Real-IP: 2001:db8:0:66::7"] {
                assert_eq!(
                    hops.request(to, &head(&[line])),
                    stopped,
                    "{to}: {line}, {shown}\n{}",
                    hops.seen()
                );
            }
            assert_eq!(
                hops.request(to, &head(&["X-Real-IP: 203.0.113.6"])),
                Outcome::Answered,
                "{to}, {shown}"
            );
        }
    }
}

#[test]
fn containers_on_one_bridge_by_bpf() {
    on_a_bridge("bpf");
}

#[test]
fn containers_on_one_bridge_by_string() {
    on_a_bridge("string");
}

/// For the host's own services, and from a proxy on the host to what it serves.
fn on_the_host(matcher: &str) {
    let hops = world(&format!("headers: {{ matcher: {matcher} }}"));
    hops.ban(&[BANNED4]);
    let (bad, good) = (head(&["X-Real-IP: 203.0.113.66"]), head(&["X-Real-IP: 203.0.113.6"]));
    assert_eq!(hops.request(HOST4, &bad), Outcome::Reset, "{}", hops.seen());
    assert_eq!(hops.request(HOST4, &good), Outcome::Answered);
    for to in ["127.0.0.1", "::1", ROUTED4] {
        assert_eq!(hops.request_from_host(to, &bad), Outcome::Reset, "{to}\n{}", hops.seen());
        assert_eq!(hops.request_from_host(to, &good), Outcome::Answered, "{to}");
    }
}

#[test]
fn a_proxy_on_the_host_by_bpf() {
    on_the_host("bpf");
}

#[test]
fn a_proxy_on_the_host_by_string() {
    on_the_host("string");
}

#[test]
fn a_proxy_on_the_host_by_legacy() {
    on_the_host("legacy");
}

/// A dead agent's bans hold, and end.
fn without_an_agent(matcher: &str) {
    let mut hops = world(&format!("headers: {{ matcher: {matcher} }}"));
    hops.ban(&[BANNED4]);
    hops.ban(&["203.0.113.5", "--for", "2s"]);
    hops.kill_agent();
    let (lasting, short) = (head(&["X-Real-IP: 203.0.113.66"]), head(&["X-Real-IP: 203.0.113.5"]));
    assert_eq!(hops.request(ROUTED4, &short), Outcome::Reset, "{}", hops.seen());
    assert!(eventually(SOON, || hops.request(ROUTED4, &short) == Outcome::Answered), "{}", hops.seen());
    assert_eq!(hops.request(ROUTED4, &lasting), Outcome::Reset, "{}", hops.seen());
    // The next one takes them over.
    hops.run_agent();
    assert_eq!(hops.request(ROUTED4, &lasting), Outcome::Reset, "{}", hops.seen());
    assert_eq!(hops.status()["headers"]["installed"], 1);
    assert!(hops.stockade(&["stop", "--flush"]).status.success());
    assert_eq!(hops.request(ROUTED4, &lasting), Outcome::Answered);
    let left = hops.host("nft", &["list", "tables"]);
    assert_eq!(left, "", "nothing of ours stays");
}

#[test]
fn without_an_agent_bans_hold_and_end_by_bpf() {
    without_an_agent("bpf");
}

#[test]
fn without_an_agent_bans_hold_and_end_by_string() {
    without_an_agent("string");
}

#[test]
fn without_an_agent_bans_hold_and_end_by_legacy() {
    without_an_agent("legacy");
}

/// What an agent leaves in iptables-legacy the next one removes, whatever its own matcher is.
#[test]
fn another_matcher_removes_what_legacy_left() {
    let mut hops = world("headers: { matcher: legacy }");
    hops.ban(&[BANNED4]);
    hops.kill_agent();
    let saved =
        |hops: &Hops| hops.host("iptables-legacy-save", &[]) + &hops.host("ip6tables-legacy-save", &[]);
    assert!(saved(&hops).contains("STOCKADE_H"), "{}", saved(&hops));
    hops.start_agent("headers: { matcher: bpf }");
    assert!(!saved(&hops).contains("STOCKADE"), "{}", saved(&hops));
    assert_eq!(hops.request(ROUTED4, &head(&["X-Real-IP: 203.0.113.66"])), Outcome::Reset);
    hops.configure("headers: { matcher: legacy }");
    hops.said(&["reload"]);
    assert_eq!(hops.request(ROUTED4, &head(&["X-Real-IP: 203.0.113.66"])), Outcome::Reset);
    hops.configure("headers: { matcher: off }");
    hops.said(&["reload"]);
    assert_eq!(hops.request(ROUTED4, &head(&["X-Real-IP: 203.0.113.66"])), Outcome::Answered);
    assert!(!saved(&hops).contains("STOCKADE"), "{}", saved(&hops));
}

/// The agent without the capabilities that BPF wants: it says what to grant, and takes the next best.
#[test]
fn without_the_capabilities_the_next_best_is_taken() {
    let mut hops = Hops::new();
    hops.start_nginx();
    hops.configure("headers: { matcher: auto }");
    hops.run_agent_as(&["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"]);
    let status = hops.status();
    let state = &status["headers"];
    assert_eq!(state["matcher"], "string", "{state:#}");
    assert!(state["reason"].as_str().unwrap().contains("grant CAP_BPF and CAP_PERFMON"), "{state:#}");
    assert!(hops.agent_log().contains("grant CAP_BPF and CAP_PERFMON"), "{}", hops.agent_log());
    hops.ban(&[BANNED4]);
    assert_eq!(hops.request(ROUTED4, &head(&["X-Real-IP: 203.0.113.66"])), Outcome::Reset);
}

#[test]
fn a_matcher_that_cannot_be_is_told_and_source_bans_go_on() {
    let mut hops = Hops::new();
    hops.start_nginx();
    hops.configure("headers: { matcher: bpf }");
    hops.run_agent_as(&["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"]);
    // The proxy itself, as a source.
    hops.ban(&[BANNED4, "10.1.0.2"]);
    let status = hops.status();
    assert_eq!(status["state"], "enforcing", "{status:#}");
    let error = status["headers"]["error"].as_str().unwrap();
    assert!(error.contains("bpf: ") && error.contains("grant CAP_BPF and CAP_PERFMON"), "{error}");
    let listed = hops.host("nft", &["list", "table", "inet", "stockade"]);
    assert!(listed.contains(BANNED4), "{listed}");
    assert!(hops.said(&["status"]).contains("headers error: "));
    assert_ne!(hops.visit("203.0.113.77", WAYS[0].1), 200, "the proxy cannot reach the application any more");
}

fn repaired(matcher: &str) {
    let hops = world(&format!("headers: {{ matcher: {matcher} }}"));
    hops.ban(&[BANNED4]);
    let bad = head(&["X-Real-IP: 203.0.113.66"]);
    for (n, command) in [
        "flush ruleset",
        "delete table bridge stockade",
        "flush table inet stockade",
        "flush chain bridge stockade headers",
    ]
    .into_iter()
    .enumerate()
    {
        hops.host("nft", &command.split(' ').collect::<Vec<_>>());
        let wanted = u64::try_from(n).unwrap() + 1;
        assert!(
            eventually(SOON, || hops.status()["kernel"]["repairs"].as_u64() >= Some(wanted)),
            "{command}\n{}",
            hops.seen()
        );
        for to in [ROUTED4, BRIDGED4] {
            assert_ne!(hops.request(to, &bad), Outcome::Answered, "{to} after {command}\n{}", hops.seen());
        }
        assert_eq!(hops.status()["headers"]["error"], serde_json::Value::Null);
    }
}

#[test]
fn what_others_remove_is_repaired_by_bpf() {
    repaired("bpf");
}

#[test]
fn what_others_remove_is_repaired_by_string() {
    repaired("string");
}

/// The documented limit: what comes in several packets is seen only where one of them holds both the request line and the
/// header.
fn in_several_packets(matcher: &str) {
    let hops = world(&format!("headers: {{ matcher: {matcher} }}"));
    hops.ban(&[BANNED4]);
    let request = |parts: &[&str]| {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        hops.request_in_parts(ROUTED4, &parts)
    };
    let line = "GET / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(
        request(&[&format!("{line}X-Real-IP: 203.0.113.66\r\n"), "Accept: */*\r\n\r\n"]),
        Outcome::Reset
    );
    assert_eq!(request(&[line, "X-Real-IP: 203.0.113.66\r\n\r\n"]), Outcome::Answered);
    assert_eq!(request(&[&format!("{line}X-Real-IP: 203.0."), "113.66\r\n\r\n"]), Outcome::Answered);
    // The second request on a connection is looked at as the first is.
    let (good, bad) = (head(&["X-Real-IP: 10.0.0.1"]), head(&["X-Real-IP: 203.0.113.66"]));
    let outcomes = hops.requests(ROUTED4, &[&good, &good, &bad]);
    assert_eq!(outcomes, [Outcome::Answered, Outcome::Answered, Outcome::Reset]);
}

#[test]
fn a_head_in_several_packets_is_a_limit_of_bpf() {
    in_several_packets("bpf");
}

#[test]
fn a_head_in_several_packets_is_a_limit_of_string() {
    in_several_packets("string");
}

/// A PROXY protocol header of version 2, and a request behind it.
fn proxied(source: &str) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match source.parse().unwrap() {
        std::net::IpAddr::V4(a) => {
            bytes.extend(b"\x11\0\x0c");
            bytes.extend(a.octets());
            bytes.extend([10, 0, 0, 1, 0x99, 0x99, 0, 80]);
        }
        std::net::IpAddr::V6(a) => {
            bytes.extend(b"\x21\0\x24");
            bytes.extend(a.octets());
            bytes.extend([0; 16]);
            bytes.extend([0x99, 0x99, 0, 80]);
        }
    }
    bytes.extend(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    bytes
}

fn proxy_protocol(headers: &str, stopped: Outcome) {
    let hops = world(headers);
    hops.ban(&[BANNED4, BANNED6, "198.51.100.0/24", "2001:db8:7::/48", "2001:db8::99/128"]);
    for to in [ROUTED4, ROUTED6] {
        for banned in ["203.0.113.66", "198.51.100.9", "2001:db8:0:66::5", "2001:db8:7:8::9", "2001:db8::99"]
        {
            let outcome = hops.request_by_proxy_protocol(to, &proxied(banned));
            assert_eq!(outcome, stopped, "{banned}\n{}", hops.seen());
        }
        for other in ["203.0.113.67", "198.51.101.9", "2001:db8:0:67::5", "2001:db8::98"] {
            assert_eq!(hops.request_by_proxy_protocol(to, &proxied(other)), Outcome::Answered, "{other}");
        }
    }
}

#[test]
fn the_proxy_protocol_is_looked_into_without_a_matcher() {
    proxy_protocol("headers: { matcher: off }", Outcome::Reset);
}

#[test]
fn the_proxy_protocol_is_looked_into_beside_a_matcher() {
    proxy_protocol("headers: { matcher: string, action: drop }", Outcome::Silence);
}

/// The program also knows version 1, and both on a bridge.
#[test]
fn the_proxy_protocol_is_looked_into_by_bpf() {
    let hops = world("headers: { matcher: bpf }");
    hops.ban(&[BANNED4, BANNED6]);
    let version_1 = |line: &str| format!("PROXY {line}\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let banned = [
        version_1("TCP4 203.0.113.66 10.0.0.1 49152 80"),
        version_1("TCP6 2001:db8:0:66::9 fd00::1 49152 80"),
        proxied(BANNED4),
        proxied("2001:db8:0:66::9"),
    ];
    let others = [
        version_1("TCP4 203.0.113.6 10.0.0.1 49152 80"),
        version_1("TCP6 2001:db8:0:67::9 fd00::1 49152 80"),
        proxied("203.0.113.6"),
    ];
    let ask = |to: &str, head: &[u8]| hops.request_by_proxy_protocol(to, head);
    for bridge_is_shown in [1, 0] {
        for setting in ["iptables", "ip6tables"] {
            hops.set(&format!("net/bridge/bridge-nf-call-{setting}"), bridge_is_shown);
        }
        for to in [ROUTED4, ROUTED6, BRIDGED4, BRIDGED6] {
            for head in &banned {
                assert_ne!(ask(to, head), Outcome::Answered, "{to} {head:?}\n{}", hops.seen());
            }
            for head in &others {
                assert_eq!(ask(to, head), Outcome::Answered, "{to} {head:?}\n{}", hops.seen());
            }
        }
    }
    hops.configure("headers: { matcher: bpf, proxy_protocol: false }");
    hops.said(&["reload"]);
    for head in &banned {
        assert_eq!(ask(ROUTED4, head), Outcome::Answered, "{head:?}\n{}", hops.seen());
    }
    assert_eq!(hops.request(ROUTED4, &head(&["X-Real-IP: 203.0.113.66"])), Outcome::Reset);
}

#[test]
fn nothing_is_looked_into_where_that_is_off() {
    let hops = world("headers: { matcher: off, proxy_protocol: false }");
    hops.ban(&[BANNED4]);
    assert_eq!(hops.request_by_proxy_protocol(ROUTED4, &proxied(BANNED4)), Outcome::Answered);
    assert_eq!(hops.request(ROUTED4, &head(&["X-Real-IP: 203.0.113.66"])), Outcome::Answered);
    let listed = hops.host("nft", &["list", "ruleset"]);
    assert!(!listed.contains("header") && !listed.contains("bridge"), "{listed}");
}

/// Networks of any length, of which some are in others.
#[test]
fn networks_are_banned_by_bpf() {
    let hops = world("headers: { matcher: bpf }");
    hops.ban(&["198.51.100.0/22", "2001:db8:100::/40", "--for", "2h"]);
    hops.ban(&["198.51.101.0/24", "2001:db8:100::/56", "--for", "1h"]);
    let ask =
        |address: &str| hops.request(ROUTED4, &head(&[&format!("X-Forwarded-For: 10.0.0.1, {address}")]));
    let inside = ["198.51.100.1", "198.51.101.255", "198.51.103.9", "2001:db8:1ff::1", "2001:db8:100:ff::1"];
    for address in inside {
        assert_eq!(ask(address), Outcome::Reset, "{address}\n{}", hops.seen());
    }
    for address in ["198.51.104.1", "198.51.99.255", "2001:db8:200::1", "2001:db8:ff::1"] {
        assert_eq!(ask(address), Outcome::Answered, "{address}\n{}", hops.seen());
    }
    // The wider ban goes on when the narrower one in it is lifted.
    hops.said(&["unban", "198.51.101.0/24", "2001:db8:100::/56"]);
    for address in inside {
        assert_eq!(ask(address), Outcome::Reset, "{address}\n{}", hops.seen());
    }
    hops.said(&["unban", "--all"]);
    for address in inside {
        assert_eq!(ask(address), Outcome::Answered, "{address}\n{}", hops.seen());
    }
    assert_eq!(hops.status()["headers"]["installed"], 0);
}

#[test]
fn a_ban_of_some_ports_is_by_source_alone() {
    let hops = world("headers: { matcher: string }");
    assert!(hops.stockade(&["ban", "some", BANNED4]).status.success());
    assert_eq!(hops.request(ROUTED4, &head(&["X-Real-IP: 203.0.113.66"])), Outcome::Answered);
    assert_eq!(hops.status()["headers"]["installed"], 0);
    assert!(hops.host("nft", &["list", "table", "inet", "stockade"]).contains(BANNED4));
}

#[test]
fn what_does_not_fit_is_told_and_those_that_end_last_are_in_force() {
    let hops = world("headers: { matcher: string, max_rules: 2 }");
    for (offender, time) in
        [("203.0.113.1", "1h"), ("203.0.113.2", "3h"), ("203.0.113.3", "permanent"), ("203.0.113.4", "2h")]
    {
        hops.ban(&[offender, "--for", time]);
    }
    hops.ban(&["2001:db8:1:100::/56", "--for", "permanent"]);
    let ask = |n: u8| hops.request(ROUTED4, &head(&[&format!("X-Real-IP: 203.0.113.{n}")]));
    assert_eq!([1, 2, 3, 4].map(ask), [Outcome::Answered, Outcome::Reset, Outcome::Reset, Outcome::Answered]);
    let status = hops.status();
    let state = &status["headers"];
    assert_eq!(state["installed"], 2);
    assert_eq!(state["left_out"]["count"], 3, "{state:#}");
    assert_eq!(state["left_out"]["reasons"].as_array().unwrap().len(), 2, "{state:#}");
    let log = hops.agent_log();
    assert_eq!(log.matches("more than headers.max_rules").count(), 1, "once, not with every ban:\n{log}");
    assert_eq!(log.matches("cannot be told from others by their text").count(), 1, "{log}");
    let told = hops.said(&["status"]);
    assert!(told.contains("headers warning: 2 bans hold by source alone"), "{told}");
    // One goes, the next takes its place.
    hops.said(&["unban", "203.0.113.3"]);
    assert_eq!([1, 2, 4].map(ask), [Outcome::Answered, Outcome::Reset, Outcome::Reset]);
}

#[test]
fn a_reload_takes_another_matcher_and_other_names() {
    let hops = world("headers: { matcher: string }");
    hops.ban(&[BANNED4]);
    let (real, own) = (head(&["X-Real-IP: 203.0.113.66"]), head(&["True-Client-IP: 203.0.113.66"]));
    assert_eq!(
        (hops.request(ROUTED4, &real), hops.request(ROUTED4, &own)),
        (Outcome::Reset, Outcome::Answered)
    );
    for (headers, outcomes) in [
        ("{ matcher: bpf, names: [True-Client-IP] }", (Outcome::Answered, Outcome::Reset)),
        ("{ matcher: bpf, names: [True-Client-IP], action: drop }", (Outcome::Answered, Outcome::Silence)),
        ("{ matcher: bpf, names: [X-Real-IP, True-Client-IP] }", (Outcome::Reset, Outcome::Reset)),
        ("{ matcher: string, names: [True-Client-IP], action: drop }", (Outcome::Answered, Outcome::Silence)),
        ("{ matcher: off }", (Outcome::Answered, Outcome::Answered)),
        ("{ matcher: string }", (Outcome::Reset, Outcome::Answered)),
    ] {
        hops.configure(&format!("headers: {headers}"));
        let out = hops.stockade(&["reload"]);
        assert!(out.status.success(), "{}", text(&out));
        let got = (hops.request(ROUTED4, &real), hops.request(ROUTED4, &own));
        assert_eq!(got, outcomes, "{headers}\n{}", hops.seen());
    }
    let repairs = &hops.status()["kernel"]["repairs"];
    assert_eq!(repairs, 0, "what we do ourselves is no change by others: {}", hops.agent_log());
}
