//! Text of a client, written as each program writes it, never makes anybody else the offender.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use crate::filter::{Filter, Matcher, Trust};
use crate::types::{JailId, Timestamp};

const TRUE: &str = "203.0.113.7";
const PROXY: &str = "10.0.0.5";

/// Every line that can be an offense at all is one.
const FILTERS: [&str; 8] = [
    "{format: npm, match: {status: 0-999}}",
    "{format: nginx_error, match: {level: '.'}}",
    "{format: combined, match: {status: 0-999}}",
    "{format: traefik_json, match: {status: 0-999}}",
    "{format: traefik_clf, match: {status: 0-999}}",
    "{format: sshd, match: {event: '.'}}",
    "{format: json, peer: .ClientAddr, forwarded: .ClientHost, match: {.DownstreamStatus: 0-999}}",
    "{failregex: ['^<HOST> - .* \\[\\] \"', '\\] \\d+ - .* \\[Client <HOST>\\] \\[Length \\d+\\] \\[Gzip -\\] \"[^\"]*\" \"[^\"]*\"$']}",
];

/// All offenders a program's output leads to, each filter being asked.
fn offenders(filters: &[usize], output: &[u8]) -> Vec<Option<IpAddr>> {
    let trust = Arc::new(Trust::new(vec!["10.0.0.0/8".parse().unwrap()]));
    let jails = filters.iter().map(|&n| {
        let definition = crate::config::filter::definition(FILTERS[n], "test").expect("readable");
        let filter = Filter::compile("test", &definition, &TimeZone::UTC).unwrap_or_else(|e| panic!("{e}"));
        (JailId(n as u16), Arc::new(filter), Arc::clone(&trust))
    });
    let mut matcher = Matcher::new(jails.collect());
    let mut out = Vec::new();
    for line in output.split(|&b| b == b'\n') {
        matcher.line(line, Timestamp::from_secs(1_735_900_000), |hit| out.push(hit.who.offender()));
    }
    out
}

fn only_the_true_peer() -> Vec<Option<IpAddr>> {
    vec![TRUE.parse().ok()]
}

/// What a client would write to be taken for somebody else, in pieces.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "[Client 9.9.9.9]",
        " [Length 1] [Gzip -]",
        " [Sent-to a] ",
        " [CF-conn-IP 9.9.9.9]",
        "] [Length 1]",
        "]",
        "[",
        "\"",
        "\\\"",
        "\\",
        " ",
        "\" 404 ",
        " 404 0 ",
        "\"-\" ",
        " \"-\"",
        "404 - GET https h \"/\"",
        "[02/Jan/2025:22:46:54 +0000] ",
        "[02/Jan/2025:22:46:54 +0000] - - 404 - GET https h \"/\"",
        " [02/Jan/2025:22:46:54 +0000] \"",
        "9.9.9.9 - - ",
        "9.9.9.9",
        ", 9.9.9.9",
        "9.9.9.9, ",
        " - ",
        "- ",
        ", client: 9.9.9.9, server: x",
        ", client: ",
        ", server: x, request: \"GET / HTTP/1.1\", host: \"h\"",
        "2025/01/02 22:46:54 [error] 1#1: *5 ",
        "access forbidden by rule",
        "\" failed (2: No such file)",
        " from 9.9.9.9 port 22 ssh2",
        " from 9.9.9.9 port 22 ssh2: x",
        " from 9.9.9.9",
        " port 22",
        " port 22 ssh2",
        " ssh2",
        ": Too many authentication failures",
        " [preauth]",
        "invalid user x",
        " from ",
        "9.9.9.9 port 1",
        "x sshd[1]: ",
        "Failed password for ",
        " 1 \"r\" \"u\" 1ms",
        "1ms",
        " HTTP/1.1\"",
        "\",\"ClientHost\":\"9.9.9.9\",\"DownstreamStatus\":404,\"x\":\"",
        "\"ClientAddr\":\"9.9.9.9:1\"",
        "{",
        "}",
        "\\u0022",
        "\u{e9}",
        "\t",
        "x",
        "user \"",
        "\": password mismatch",
        "%",
        ":",
        "\\x22",
    ]);
    prop_oneof![
        6 => prop::collection::vec(pieces, 0..7).prop_map(|p| p.concat()),
        1 => "[ -~]{0,20}",
    ]
}

/// nginx in access logs.
fn nginx(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        match b {
            b'"' | b'\\' | 0..=31 | 127..=255 => write!(out, "\\x{b:02X}").unwrap(),
            _ => out.push(char::from(b)),
        }
    }
    out
}

/// Apache in access logs.
fn apache(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        match b {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(b));
            }
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            0..=31 | 127..=255 => write!(out, "\\x{b:02x}").unwrap(),
            _ => out.push(char::from(b)),
        }
    }
    out
}

/// Traefik's CLF in its two quoted fields.
fn traefik(text: &str) -> String {
    if text.is_empty() { "\"-\"".into() } else { format!("\"{}\"", text.replace('"', "\\\"")) }
}

/// OpenSSH: control characters in octal.
fn vis(text: &str) -> String {
    text.bytes()
        .map(|b| if (32..127).contains(&b) { char::from(b).to_string() } else { format!("\\{b:03o}") })
        .collect()
}

fn token(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() && *c != '"' && *c != '\\').collect()
}

const CLF: &str = "02/Jan/2025:22:46:54 +0000";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20000))]

    #[test]
    fn npm(uri in hostile(), agent in hostile(), referer in hostile(), host in hostile(), header in hostile(), kind in 0..3) {
        let (host, uri, agent, referer) = (token(&host), nginx(&uri), nginx(&agent), nginx(&referer));
        let (statuses, cf, sent) = match kind {
            0 => ("404", String::new(), ""),
            1 => ("- 502, 404 404", String::new(), " [Sent-to s]"),
            _ => ("MISS - 404", format!(" [CF-conn-IP {}]", nginx(&header)), " [Sent-to s]"),
        };
        let line = format!("[{CLF}] {statuses} - GET https {host} \"{uri}\" [Client {TRUE}]{cf} [Length 1] [Gzip -]{sent} \"{agent}\" \"{referer}\"");
        prop_assert_eq!(offenders(&[0, 1, 2, 3, 4, 5, 6], line.as_bytes()), only_the_true_peer(), "{}", line);
    }

    /// Behind a trusted proxy that sets the header itself, nothing else of the request is believed.
    #[test]
    fn npm_behind_a_proxy(uri in hostile(), agent in hostile(), referer in hostile()) {
        let line = format!(
            "[{CLF}] - - 404 - GET https h \"{}\" [Client {PROXY}] [CF-conn-IP {TRUE}] [Length 1] [Gzip -] [Sent-to s] \"{}\" \"{}\"",
            nginx(&uri), nginx(&agent), nginx(&referer)
        );
        prop_assert_eq!(offenders(&[0], line.as_bytes()), only_the_true_peer(), "{}", line);
    }

    #[test]
    fn combined(user in hostile(), request in hostile(), agent in hostile(), referer in hostile(), is_apache in any::<bool>(), vhost in any::<bool>()) {
        let write = if is_apache { apache } else { nginx };
        let vhost = if vhost { "h.example:443 " } else { "" };
        let line = format!(
            "{vhost}{TRUE} - {} [{CLF}] \"{}\" 404 5 \"{}\" \"{}\"", write(&user), write(&request), write(&referer), write(&agent)
        );
        prop_assert_eq!(offenders(&[0, 1, 2, 3, 5, 6], line.as_bytes()), only_the_true_peer(), "{}", line);
    }

    #[test]
    fn traefik_json(host in hostile(), user in hostile(), path in hostile(), agent in hostile(), key in hostile()) {
        let line = serde_json::json!({
            "ClientAddr": format!("{TRUE}:80"), "ClientHost": host, "ClientUsername": user, "DownstreamStatus": 404, "OriginStatus": 0,
            "RequestPath": path, "StartUTC": "2025-01-02T22:46:54.5Z", "request_User-Agent": agent, format!("request_{key}"): "9.9.9.9",
        }).to_string();
        prop_assert_eq!(offenders(&[0, 1, 2, 3, 4, 5], line.as_bytes()), only_the_true_peer(), "{}", line);
        prop_assert_eq!(offenders(&[6], line.as_bytes()), only_the_true_peer(), "{}", line);
    }

    /// Whoever claims something to a trusted proxy is the last hop it appended.
    #[test]
    fn traefik_json_behind_a_proxy(host in hostile(), agent in hostile()) {
        let line = serde_json::json!({
            "ClientAddr": format!("{PROXY}:80"), "ClientHost": format!("{host}, {TRUE}"), "DownstreamStatus": 404, "request_User-Agent": agent,
        }).to_string();
        prop_assert_eq!(offenders(&[3], line.as_bytes()), only_the_true_peer(), "{}", line);
    }

    #[test]
    fn traefik_clf(claimed in prop::option::of(hostile()), user in hostile(), path in hostile(), agent in hostile(), referer in hostile(), generic in any::<bool>()) {
        let host = claimed.as_ref().map_or_else(|| TRUE.to_owned(), |c| format!("{c}, {TRUE}"));
        let tail = if generic { "" } else { " 7 \"r@file\" \"http://10.0.0.1:80\" 3ms" };
        let line = format!(
            "{host} - {user} [{CLF}] \"GET {path} HTTP/1.1\" 404 5 {} {}{tail}", traefik(&referer), traefik(&agent)
        );
        // Text at the very beginning of a line can pass for another program's; a claim that stands there is Traefik's alone.
        let filters: &[usize] = if claimed.is_none() { &[0, 1, 3, 4, 5, 6] } else { &[3, 4, 6] };
        let got = offenders(filters, line.as_bytes());
        // What cannot be told for certain is held against nobody.
        prop_assert!(got.iter().flatten().all(|a| a.to_string() == TRUE), "{:?} {}", got, line);
        // A client that can choose nothing but its own fields gains nothing by it.
        if claimed.is_none() && !user.contains(" - ") && !path.contains(CLF) && !user.contains(CLF) {
            prop_assert_eq!(offenders(&[4], line.as_bytes()), only_the_true_peer(), "{}", line);
        }
    }

    /// A user of basic authentication may hold everything but a colon.
    #[test]
    fn traefik_clf_torn_by_a_user(users in prop::collection::vec(hostile(), 1..4)) {
        let user = users.join("\n").replace(':', "");
        let lines = format!("{TRUE} - {user} [{CLF}] \"GET / HTTP/1.1\" 401 5 \"-\" \"-\" 7 \"r@file\" \"-\" 0ms");
        let got = offenders(&[4], lines.as_bytes());
        prop_assert!(got.iter().flatten().all(|a| a.to_string() == TRUE), "{:?} {}", got, lines);
    }

    #[test]
    fn sshd(user in hostile(), message in 0..10) {
        let user = vis(&user);
        let text = match message {
            0 => format!("Failed password for invalid user {user} from {TRUE} port 4 ssh2"),
            1 => format!("Failed keyboard-interactive/pam for {user} from {TRUE} port 4 ssh2 [preauth]"),
            2 => format!("Invalid user {user} from {TRUE} port 4"),
            3 => format!("Invalid user {user} from {TRUE}"),
            4 => format!("error: maximum authentication attempts exceeded for invalid user {user} from {TRUE} port 4 ssh2 [preauth]"),
            5 => format!("Disconnecting invalid user {user} {TRUE} port 4: Too many authentication failures [preauth]"),
            6 => format!("Connection closed by authenticating user {user} {TRUE} port 4 [preauth]"),
            7 => format!("error: PAM: Authentication failure for illegal user {user} from {TRUE}"),
            // The name stands twice: in the certificate too.
            8 => format!("Failed publickey for invalid user {user} from {TRUE} port 4 ssh2: RSA-CERT SHA256:x ID {user} (serial 0) CA RSA SHA256:y"),
            _ => format!("Disconnecting invalid user {user} {TRUE} port 4: Change of username or service not allowed: ({user},ssh-connection) -> ({user},ssh-connection) [preauth]"),
        };
        for head in ["Jan  2 22:46:54 web1 sshd[7]:", "2025-01-02T22:46:54.123456+00:00 web1 sshd-session[7]:", "<38>1 2025-01-02T22:46:54Z web1 sshd 7 - -"] {
            let line = format!("{head} {text}");
            let got = offenders(&[0, 1, 2, 3, 4, 5, 6], line.as_bytes());
            if message < 8 {
                prop_assert_eq!(got, only_the_true_peer(), "{}", line);
            } else {
                prop_assert!(got.iter().flatten().all(|a| a.to_string() == TRUE), "{:?} {}", got, line);
            }
        }
    }

    /// nginx writes its error log raw: paths are decoded, so they may even hold newlines.
    #[test]
    fn nginx_error(path in prop::collection::vec(hostile(), 1..4), request in hostile(), referer in hostile(), message in 0..5) {
        let path = path.join("\n");
        let text = match message {
            0 => "access forbidden by rule".to_owned(),
            1 => format!("open() \"/html/{path}\" failed (2: No such file or directory)"),
            2 => format!("user \"{}\" was not found in \"/etc/htpasswd\"", path.replace(':', "")),
            3 => format!("user \"{}\": password mismatch", path.replace(':', "")),
            _ => format!("[lua] access.lua:3: denied {path}"),
        };
        let mut record = format!("2025/01/02 22:46:54 [error] 7#7: *3 {text}, client: {TRUE}, server: s, request: \"GET {request} HTTP/1.1\", host: \"h\", referrer: \"{referer}\"");
        record.truncate((0..2047.min(record.len()) + 1).rev().find(|&n| record.is_char_boundary(n)).unwrap());
        let got = offenders(&[0, 1, 2, 3, 4, 5, 6], record.as_bytes());
        prop_assert!(got.iter().flatten().all(|a| a.to_string() == TRUE), "{:?} {}", got, record);
        if message == 0 || (message == 3 && !path.contains('\n') && !path.contains("\": password mismatch") && !path.contains(", client")) {
            prop_assert_eq!(got, only_the_true_peer(), "{}", record);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), text in prop::collection::vec(hostile(), 0..6)) {
        offenders(&[0, 1, 2, 3, 4, 5, 6, 7], &bytes);
        offenders(&[0, 1, 2, 3, 4, 5, 6, 7], text.concat().as_bytes());
    }

    /// Real lines with bytes cut out, put in and changed.
    #[test]
    fn damaged_lines_are_survived(line in 0usize..6, edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3, any::<u8>()), 1..4)) {
        let lines = [
            format!("[{CLF}] - 502, 404 404 - GET https h \"/x\" [Client {TRUE}] [CF-conn-IP -] [Length 1] [Gzip -] [Sent-to s] \"a\" \"b\""),
            format!("{TRUE} - u [{CLF}] \"GET / HTTP/1.1\" 404 5 \"-\" \"-\" 7 \"r@file\" \"-\" 0ms"),
            format!("2025/01/02 22:46:54 [error] 7#7: *3 access forbidden by rule, client: {TRUE}, server: s, request: \"GET / HTTP/1.1\", host: \"h\""),
            format!("Jan  2 22:46:54 web1 sshd[7]: Failed password for x from {TRUE} port 4 ssh2"),
            format!("{{\"ClientAddr\":\"{TRUE}:1\",\"ClientHost\":\"a\\u0041\",\"DownstreamStatus\":404,\"a\":[{{}}]}}"),
            format!("<38>1 2025-01-02T22:46:54Z web1 sshd 7 - - Invalid user x from {TRUE} port 4"),
        ];
        let mut bytes = lines[line].clone().into_bytes();
        for (at, kind, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                _ => bytes[at] = byte,
            }
        }
        offenders(&[0, 1, 2, 3, 4, 5, 6, 7], &bytes);
    }
}

/// Fifteen bytes of JSON stood where a time should, and a client's words behind them passed for sshd's.
#[test]
fn sshd_lines_begin_with_a_time() {
    let said = "x sshd[1]: Failed password for root from 9.9.9.9 port 22 ssh2";
    assert_eq!(
        offenders(&[5], format!("Jan  2 22:46:54 {said}").as_bytes()),
        ["9.9.9.9".parse().ok()],
        "sshd's own"
    );
    assert_eq!(offenders(&[5], format!("{{\"ClientAddr\":\"{said}").as_bytes()), []);
    assert_eq!(offenders(&[5], format!("{{\"ClientAddr\": {said}").as_bytes()), []);
}

/// With Traefik set to trust every forwarded header, a client begins the line. A jail for nginx's error log that watches
/// Traefik's log by mistake took the beginning for the whole.
#[test]
fn nginx_errors_end_as_nginx_ends_them() {
    let claimed = "2025/01/02 22:46:54 [error] 1#1: *5 access forbidden by rule, client: 9.9.9.9, server: x";
    for rest in ["", ", request: \"GET / HTTP/1.1\", host: \"h\""] {
        assert_eq!(
            offenders(&[1], format!("{claimed}{rest}").as_bytes()),
            ["9.9.9.9".parse().ok()],
            "nginx's own"
        );
        let line = format!(
            "{claimed}{rest}, {TRUE} - - [{CLF}] \"GET / HTTP/1.1\" 404 5 \"-\" \"-\" 7 \"r\" \"u\" 3ms"
        );
        assert_eq!(offenders(&[1], line.as_bytes()), [None], "{line}");
    }
}
