//! Webhooks, against stand-ins that answer as the documentation of each says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use stockade::sinks::event::{Event, Fault};
use stockade::sinks::{Checked, Context, Sinks, check};

use crate::http::{Reply, Request, Server};
use crate::support::{banned, config, secret, start, status, tell, until};

const PATH: &str = "/api/webhooks/1234567890/s3cr3t-Path_of-the-hook";

fn no_content() -> Reply {
    Reply::Answer(204, Vec::new(), Vec::new())
}

/// A sink called `wh` at a server, with other keys.
fn settings(url: &str, more: &str) -> String {
    format!("  wh: {{ kind: webhook, url: '{url}', events: [ban, error, start], timeout: 2s{more} }}")
}

fn done(sinks: &Sinks, count: u64) {
    until(|| sinks.value().to_string(), || status(sinks, "wh")["done"] == count);
}

fn failed_with(sinks: &Sinks, text: &str) -> Value {
    let fails = |v: &Value| v["last_error"]["message"].as_str().is_some_and(|m| m.contains(text));
    until(|| format!("no {text:?}: {}", sinks.value()), || fails(&status(sinks, "wh")));
    status(sinks, "wh")
}

/// Bans told at once.
fn tell_bans(sinks: &mut Sinks, count: u32) {
    for n in 0..count {
        sinks.tell(banned(&std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()), None);
    }
    drop(sinks.to_write(false));
    sinks.release();
}

fn tried(text: &str) -> Vec<Checked> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check(&config(text).sinks[0], &Context::default()))
}

#[test]
fn without_a_preset_events_stand_whole_in_one_signed_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| no_content());
    let [key, token, team] = ["key", "token", "team"].map(|name| dir.path().join(name));
    secret(&key, "sign with this");
    secret(&token, "tok-abc");
    secret(&team, "blue");
    let more = format!(
        ", secret_file: {}, token_file: {}, headers: {{ X-Env: prod, X-Team: {{ value_file: {} }} }}",
        key.display(),
        token.display(),
        team.display()
    );
    let mut sinks = start(&settings(&format!("{}/hook/?a=b", server.url()), &more), dir.path());
    tell_bans(&mut sinks, 3);
    done(&sinks, 3);
    let requests = server.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.query("a")),
        ("POST", "/hook/", Some("b"))
    );
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer tok-abc"),
        ("x-env", "prod"),
        ("x-team", "blue"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    let at = request.header("x-stockade-timestamp").unwrap();
    let signature = request.header("x-stockade-signature").unwrap().strip_prefix("sha256=").unwrap();
    let signature: Vec<u8> =
        (0..64).step_by(2).map(|i| u8::from_str_radix(&signature[i..i + 2], 16).unwrap()).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"sign with this");
    let signed = [at.as_bytes(), b".", &request.body].concat();
    hmac::verify(&key, &signed, &signature).unwrap();

    let body = request.json();
    assert_eq!((&body["host"], &body["version"]), (&json!("web1"), &json!(env!("CARGO_PKG_VERSION"))));
    let events = body["events"].as_array().unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(events[2]["event"], "ban");
    assert_eq!(events[2]["offender"], "10.0.0.2/32");
    assert_eq!(events[2]["jail"], "npm");
    assert_eq!(events[2]["fields"]["user_agent"], "evil <b>\"agent\"</b> & co");
    assert!(events[2]["message"].as_str().unwrap().contains("banned 10.0.0.2 for 10m"));
    let ids: BTreeSet<_> = events.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn ten_thousand_bans_against_a_server_that_is_down_arrive_once() {
    let dir = tempfile::tempdir().unwrap();
    let turn = Arc::new(AtomicU32::new(0));
    let turns = Arc::clone(&turn);
    let server = Server::start(move |_| match turns.fetch_add(1, Ordering::SeqCst) {
        0 | 2 => Reply::Answer(503, vec![("retry-after", "1".to_owned())], b"down".to_vec()),
        1 => Reply::Close,
        _ => no_content(),
    });
    let mut sinks = start(&settings(&server.url(), ", per_minute: 6000"), dir.path());
    tell_bans(&mut sinks, 10_000);
    until(|| sinks.value().to_string(), || turn.load(Ordering::SeqCst) > 1);
    assert_eq!(status(&sinks, "wh")["queue"], 10_000);
    done(&sinks, 10_000);
    // What was refused is not counted as having arrived, and neither is what the server hung up on.
    let requests = server.requests();
    let mut offenders: Vec<String> = Vec::new();
    for request in &requests[3..] {
        let events = request.json()["events"].as_array().unwrap().clone();
        offenders.extend(events.iter().map(|e| e["offender"].as_str().unwrap().to_owned()));
    }
    assert_eq!(offenders.len(), 10_000);
    let distinct: BTreeSet<_> = offenders.iter().collect();
    assert_eq!(distinct.len(), 10_000);
    assert!(requests.len() <= 104, "{}", requests.len());
    assert_eq!((&status(&sinks, "wh")["lost"], &status(&sinks, "wh")["queue"]), (&json!(0), &json!(0)));
}

#[test]
fn what_may_have_arrived_is_told_again_under_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut replies: VecDeque<_> =
        [Reply::Half(200, b"{\"ok\": true}".to_vec()), Reply::Stall(Duration::from_secs(3)), Reply::Close]
            .into();
    let server = Server::start(move |_| replies.pop_front().unwrap_or_else(no_content));
    let mut sinks = start(&settings(&server.url(), ""), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    until(|| "nothing was asked".to_owned(), || !server.requests().is_empty());
    // What comes meanwhile is not mixed with it.
    tell_bans(&mut sinks, 5);
    done(&sinks, 6);
    let requests = server.requests();
    let keys: Vec<_> = requests.iter().map(|r| r.header("idempotency-key").unwrap()).collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
    assert!(keys[..4].iter().all(|key| *key == keys[0]) && keys[4] != keys[0], "{keys:?}");
    assert!(requests[..4].iter().all(|r| r.body == requests[0].body));
    assert_eq!(requests[4].json()["events"].as_array().unwrap().len(), 5);
}

#[test]
fn one_event_that_is_not_taken_does_not_take_others_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&taken);
    let server = Server::start(move |request| {
        let events = request.json()["events"].as_array().unwrap().clone();
        let offenders: Vec<_> = events.iter().map(|e| e["offender"].as_str().unwrap().to_owned()).collect();
        if offenders.iter().any(|o| o == "10.0.0.2/32") {
            return Reply::Answer(422, Vec::new(), b"no 2, please".to_vec());
        }
        to.lock().unwrap().extend(offenders);
        no_content()
    });
    let mut sinks = start(&settings(&server.url(), ""), dir.path());
    tell_bans(&mut sinks, 4);
    done(&sinks, 3);
    failed_with(&sinks, "no 2, please");
    let state = status(&sinks, "wh");
    assert_eq!((&state["lost"], &state["done"]), (&json!(1), &json!(3)), "{state}");
    assert_eq!(*taken.lock().unwrap(), ["10.0.0.0/32", "10.0.0.1/32", "10.0.0.3/32"]);
}

#[test]
fn a_body_of_ones_own_is_always_json() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| no_content());
    let body = r#", method: PUT, per_minute: 3, body: { "text": "{event} {address} at {requested_host}", "n": 1, "list": [true, null, "{{x}}"],
      "agent": { "is": "{user_agent}", "none": "{referer}" } }"#;
    let mut sinks = start(&settings(&server.url(), body), dir.path());
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    let request = server.requests().remove(0);
    assert_eq!(request.method, "PUT");
    assert_eq!(
        request.json(),
        json!({
            "text": "ban 203.0.113.9 at shop.example", "n": 1, "list": [true, null, "{x}"],
            "agent": { "is": "evil <b>\"agent\"</b> & co", "none": "" },
        })
    );
    // Under pressure many become one.
    tell_bans(&mut sinks, 20);
    done(&sinks, 21);
    assert!(server.requests().len() <= 3);
    assert!(server.requests().last().unwrap().text().contains("\"merged  at\""));
}

/// What a preset sends about a ban, about an error, and about 40 bans at once.
fn preset(dir: &Path, path: &str, more: &str) -> Vec<Request> {
    let server = Server::start(|_| Reply::json(200, &json!({ "event_id": "$1" })));
    let token = dir.join("token");
    secret(&token, "tok-abc");
    let more = more.replace("TOKEN", &token.display().to_string());
    let mut sinks =
        start(&settings(&format!("{}{path}", server.url()), &format!(", per_minute: 3{more}")), dir);
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    tell(
        &mut sinks,
        Event::Error(Fault { at: Default::default(), message: "the disk <is> *full*".to_owned() }),
    );
    done(&sinks, 2);
    tell_bans(&mut sinks, 40);
    done(&sinks, 42);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    requests
}

#[test]
fn discord() {
    let dir = tempfile::tempdir().unwrap();
    let requests = preset(dir.path(), PATH, ", preset: discord");
    for request in &requests {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", PATH));
        let body = request.json();
        assert_eq!(body["allowed_mentions"], json!({ "parse": [] }));
        assert!(body["content"].as_str().unwrap().chars().count() <= 2000);
    }
    assert_eq!(
        requests[0].json()["content"],
        "npm on web1: banned [203.0.113.9](<https://ipinfo.io/203.0.113.9>) for 10m\n\
         Bans so far: 2\nOffenses: 5\nRequested host: shop.example\nContainer: app:8080\n\
         URI: /wp-login.php?\\<script\\>&\"\nUser agent: evil \\<b\\>\"agent\"\\</b\\> & co"
    );
    assert_eq!(requests[1].json()["content"], "web1: the disk \\<is\\> \\*full\\*");
    assert!(requests[2].json()["content"].as_str().unwrap().contains("**40 bans**"));
}

#[test]
fn slack() {
    let dir = tempfile::tempdir().unwrap();
    let requests = preset(dir.path(), "/services/T/B/x", ", preset: slack, text: '{message} <{uri}>'");
    assert_eq!(
        requests[0].json()["text"],
        "npm: banned 203.0.113.9 for 10m after 5 offenses, ban number 2 </wp-login.php?&lt;script&gt;&amp;\">"
    );
    assert_eq!(requests[1].json()["unfurl_links"], false);
    assert!(requests[2].json()["text"].as_str().unwrap().contains("*40 bans*\nnpm 40: 10.0.0.0, "));
}

#[test]
fn ntfy() {
    let dir = tempfile::tempdir().unwrap();
    let requests = preset(dir.path(), "/base/my-topic", ", preset: ntfy, token_file: TOKEN");
    let of = |n: usize, key: &str| requests[n].json()[key].clone();
    for (n, request) in requests.iter().enumerate() {
        assert_eq!((request.path.trim_end_matches('/'), of(n, "topic")), ("/base", json!("my-topic")));
        assert_eq!(request.header("authorization"), Some("Bearer tok-abc"));
    }
    assert_eq!((of(0, "title"), of(0, "priority")), (json!("web1: npm"), json!(3)));
    assert_eq!((of(1, "priority"), of(1, "tags")), (json!(4), json!(["warning"])));
    assert!(of(0, "message").as_str().unwrap().contains("banned 203.0.113.9 for 10m"));
}

#[test]
fn gotify() {
    let dir = tempfile::tempdir().unwrap();
    let requests = preset(dir.path(), "", ", preset: gotify, token_file: TOKEN");
    for (request, priority) in requests.iter().zip([5, 8, 5]) {
        assert_eq!((request.path.as_str(), request.header("x-gotify-key")), ("/message", Some("tok-abc")));
        assert_eq!(request.json()["priority"], priority);
    }
}

#[test]
fn matrix() {
    let dir = tempfile::tempdir().unwrap();
    let requests = preset(dir.path(), "", ", preset: matrix, token_file: TOKEN, room: '!a/b:example.org'");
    let mut transactions = BTreeMap::new();
    for request in &requests {
        assert_eq!(
            (request.method.as_str(), request.header("authorization")),
            ("PUT", Some("Bearer tok-abc"))
        );
        let rest =
            request.path.strip_prefix("/_matrix/client/v3/rooms/!a%2Fb:example.org/send/m.room.message/");
        *transactions.entry(rest.unwrap().to_owned()).or_insert(0) += 1;
        assert_eq!(request.json()["msgtype"], "m.notice");
    }
    assert_eq!(transactions.len(), 3, "{transactions:?}");
}

#[test]
fn the_time_that_is_asked_for_is_waited_in_every_spelling() {
    for (reply, least) in [
        // Discord's, Matrix's, and HTTP's own.
        (Reply::json(429, &json!({ "message": "You are being rate limited.", "retry_after": 2.5 })), 2500),
        (Reply::json(429, &json!({ "errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 2000 })), 2000),
        (Reply::Answer(429, Vec::new(), Vec::new()).with("retry-after", 3), 3000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Some(reply);
        let server = Server::start(move |_| first.take().unwrap_or_else(no_content));
        let mut sinks = start(&settings(&server.url(), ""), dir.path());
        tell(&mut sinks, banned("203.0.113.9"));
        done(&sinks, 1);
        let times: Vec<_> = server.requests().iter().map(|r| r.at).collect();
        assert_eq!(times.len(), 2);
        assert!(times[1] - times[0] >= Duration::from_millis(least), "{times:?}");
    }
}

#[test]
fn refusals_are_told_and_no_secret_is() {
    let dir = tempfile::tempdir().unwrap();
    let (url, token) = (dir.path().join("url"), dir.path().join("token"));
    secret(&token, "tok-s3cr3t");
    let quoted = format!("no {PATH} and no s3cr3t-Path_of-the-hook with Bearer tok-s3cr3t");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tls = Server::start_tls(&dir.path().join("ca"), |_| no_content());
    let reply = |code: u16| {
        let quoted = quoted.clone();
        Server::start(move |_| Reply::Answer(code, Vec::new(), quoted.clone().into_bytes())).url()
    };
    let cases = [
        (format!("http://{closed}"), "failed to reach", "failing"),
        (format!("https://{}", tls.address), "failed to reach", "failing"),
        (Server::start(|_| Reply::Half(200, vec![b'x'; 99])).url(), "failed to reach", "failing"),
        (reply(401), "check the token", "refused"),
        (reply(403), "check the token", "refused"),
        (reply(404), "nobody listens", "refused"),
        (reply(410), "nobody listens", "refused"),
        (reply(301), "redirects are not followed", "refused"),
        (reply(500), "[secret]", "failing"),
        (reply(400), "given up", "failing"),
    ];
    for (server, told, state) in cases {
        secret(&url, &format!("{server}{PATH}"));
        for at in [format!("url_file: {}", url.display()), format!("url: '{server}{PATH}'")] {
            let text = format!(
                "  wh: {{ kind: webhook, {at}, preset: discord, token_file: {}, timeout: 2s, events: [ban] }}",
                token.display()
            );
            let mut shown = format!("{:?}", config(&text).sinks);
            let mut sinks = start(&text, dir.path());
            tell(&mut sinks, banned("203.0.113.9"));
            assert_eq!(failed_with(&sinks, told)["state"], state, "{server} {told}");
            shown += &sinks.value().to_string();
            let checked = tried(&text);
            assert!(!checked[0].good, "{checked:?}");
            shown += &format!("{checked:?}");
            assert!(shown.contains(&server) || told == "failed to reach", "{shown}");
            assert!(!shown.contains("s3cr3t"), "{shown}");
        }
    }
}

#[test]
fn checking_posts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    secret(&token, "tok");
    let server = Server::start(|request| {
        assert!(["GET", "HEAD"].contains(&request.method.as_str()), "{request:?}");
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/_matrix/client/v3/joined_rooms") => {
                Reply::json(200, &json!({ "joined_rooms": ["!a:b"] }))
            }
            // A server that answers a HEAD has no body, and so no length here.
            _ => no_content(),
        }
    });
    let token = format!("token_file: {}", token.display());
    for (path, more, paths, good) in [
        ("/hook", String::new(), vec!["/"], true),
        ("/services/x", ", preset: slack".to_owned(), vec!["/"], true),
        (PATH, ", preset: discord".to_owned(), vec![PATH], true),
        ("/t", ", preset: ntfy".to_owned(), vec!["/v1/health"], true),
        ("", format!(", preset: gotify, {token}"), vec!["/health"], true),
        (
            "",
            format!(", preset: matrix, room: '!a:b', {token}"),
            vec!["/_matrix/client/v3/joined_rooms"],
            true,
        ),
        (
            "",
            format!(", preset: matrix, room: '!c:d', {token}"),
            vec!["/_matrix/client/v3/joined_rooms"],
            false,
        ),
    ] {
        let before = server.requests().len();
        let checked = tried(&settings(&format!("{}{path}", server.url()), &more));
        assert_eq!(checked.iter().all(|c| c.good), good, "{more}: {checked:?}");
        let asked: Vec<_> = server.requests().iter().skip(before).map(|r| r.path.clone()).collect();
        assert_eq!(asked, paths, "{more}");
    }
}
