//! `kind: cloudflare` against a stand-in that behaves as Cloudflare's documentation says.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use stockade::clock;
use stockade::sinks::desired::Want;
use stockade::sinks::{Checked, Context, Sinks, check};
use stockade::types::JailId;
use tempfile::TempDir;

use crate::cloudflare_api::{ACCOUNT, Api, EMAIL, TOKEN, ZONE};
use crate::http::Reply;
use crate::support::{config, names, net, secret, start, status, until, want};

const NAME: &str = "cloudflare";

/// A running sink, and where it writes.
struct Run {
    sinks: Sinks,
    _state: TempDir,
}

fn settings(api: &Api, state: &Path, more: &str) -> String {
    let token = state.join("token");
    secret(&token, TOKEN);
    let place = if more.contains("_id:") { String::new() } else { format!("zone_id: {ZONE}, ") };
    format!(
        "  {NAME}: {{ {place}token_file: {}, url: '{}', instance: web1, timeout: 2s, {more} }}",
        token.display(),
        api.url()
    )
}

fn run(api: &Api, more: &str) -> Run {
    let state = tempfile::tempdir().unwrap();
    let sinks = start(&settings(api, state.path(), more), state.path());
    Run { sinks, _state: state }
}

impl Run {
    fn ban(&self, offender: &str, want: &Want) {
        self.sinks.ban(&names(&[NAME]), net(offender), want);
    }

    fn unban(&self, offender: &str, jail: u16) {
        self.sinks.unban(&names(&[NAME]), net(offender), JailId(jail));
    }

    fn status(&self) -> Value {
        status(&self.sinks, NAME)
    }

    /// Waits until what it does is done.
    fn until_ok(&self) {
        until(|| self.status().to_string(), || self.status()["state"] == "ok" && self.status()["left"] == 0);
    }

    fn until_values(&self, api: &Api, notes: &str, wanted: &[&str]) {
        until(
            || format!("{:?} but {wanted:?}: {}", api.values(notes), self.status()),
            || api.values(notes) == wanted,
        );
    }

    fn end(&mut self, withdraw: bool) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.sinks.end(Duration::from_secs(20), withdraw))
    }
}

/// As many requests as the stand-in can answer.
const FAST: &str = "requests: 100000";

fn checked(api: &Api, more: &str, state: &Path) -> Vec<Checked> {
    let config = config(&settings(api, state, more));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check(&config.sinks[0], &Context::default()))
}

#[test]
fn a_ban_is_a_rule_with_its_jail_and_its_end_and_goes_with_it() {
    let api = Api::start();
    let run = run(&api, "");
    let one = want(1);
    run.ban("192.0.2.1", &one);
    run.ban("2001:db8::1", &one);
    run.ban("198.51.100.0/24", &one);
    run.ban("203.0.113.0/30", &one);
    let wanted = [
        "192.0.2.1",
        "198.51.100.0/24",
        "2001:0db8:0000:0000:0000:0000:0000:0000/64",
        "203.0.113.0",
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.3",
    ];
    run.until_values(&api, "", &wanted);
    let end = one.until.unwrap().as_millis() / 1000 * 1000;
    let end = stockade::types::Timestamp::from_millis(end);
    assert_eq!(api.notes("192.0.2.1").unwrap(), format!("stockade:web1/{NAME} until {end} (jail1)"));
    for rule in api.world().rules.values() {
        assert_eq!(rule["mode"], "block");
    }
    run.until_ok();
    assert_eq!(run.status()["shown"], 7);
    run.unban("203.0.113.0/30", 1);
    run.unban("2001:db8::1", 1);
    run.until_values(&api, "", &["192.0.2.1", "198.51.100.0/24"]);
    run.until_ok();
    assert_eq!(api.world().deleted.len(), 5);
    // No rule is removed unseen.
    let requests = api.server.requests();
    for (n, request) in requests.iter().enumerate().filter(|(_, r)| r.method == "DELETE") {
        assert!(
            requests[..n].iter().any(|r| r.method == "GET" && r.path == request.path),
            "{}",
            request.path
        );
    }
    // Nor are any looked for without a filter.
    let path = format!("/client/v4/zones/{ZONE}/firewall/access_rules/rules");
    assert!(
        requests.iter().filter(|r| r.method == "GET" && r.path == path).all(|r| {
            r.query("notes") == Some("stockade:web1/") || r.query("configuration.value").is_some()
        })
    );
}

#[test]
fn an_address_that_several_jails_ban_is_one_rule_until_the_last_ban_ends() {
    let api = Api::start();
    let run = run(&api, "");
    run.ban("192.0.2.1", &want(1));
    run.ban("192.0.2.1", &want(2));
    // Two addresses of one /64 are one rule as well.
    run.ban("2001:db8::1", &want(1));
    run.ban("2001:db8::2", &want(2));
    run.until_ok();
    until(|| run.status().to_string(), || run.status()["shown"] == 2);
    assert!(api.notes("192.0.2.1").unwrap().ends_with("(jail1,jail2)"));
    run.unban("192.0.2.1", 1);
    run.unban("2001:db8::1", 1);
    run.ban("192.0.2.9", &want(1));
    until(|| run.status().to_string(), || run.status()["shown"] == 3);
    run.until_ok();
    assert_eq!(api.world().deleted, [] as [Value; 0]);
    run.unban("192.0.2.1", 2);
    run.unban("2001:db8::2", 2);
    run.until_values(&api, "", &["192.0.2.9"]);
}

#[test]
fn a_ban_that_ends_much_later_is_noted_and_one_that_ends_a_little_later_is_not() {
    let api = Api::start();
    let run = run(&api, "");
    run.ban("192.0.2.1", &want(1));
    run.until_ok();
    until(|| run.status().to_string(), || run.status()["shown"] == 1);
    let before = api.notes("192.0.2.1").unwrap();
    let later = |time: u64| {
        let mut want = want(1);
        want.until = Some(clock::now().saturating_add(Duration::from_secs(time)));
        want
    };
    run.ban("192.0.2.1", &later(3600 + 900));
    run.ban("192.0.2.2", &want(1));
    until(|| run.status().to_string(), || run.status()["shown"] == 2);
    run.until_ok();
    assert_eq!(api.notes("192.0.2.1").unwrap(), before);
    run.ban("192.0.2.1", &later(30 * 86400));
    until(|| api.notes("192.0.2.1").unwrap(), || api.notes("192.0.2.1").unwrap() != before);
    let mut ever = want(1);
    ever.until = None;
    run.ban("192.0.2.1", &ever);
    until(|| api.notes("192.0.2.1").unwrap(), || api.notes("192.0.2.1").unwrap().contains(" for ever "));
    assert_eq!((api.count("PATCH"), api.count("DELETE")), (2, 0));
}

#[test]
fn what_a_crash_left_is_adopted_or_removed_and_nothing_of_a_stranger() {
    let api = Api::start();
    let own = |value: &str| {
        drop(api.put(value, "block", &format!("stockade:web1/{NAME} until 2026-01-01T00:00:00Z (npm)")));
    };
    // Several pages of leftovers; two of them are still wanted, in the API's own spelling.
    for n in 0..130 {
        own(&format!("192.0.2.{n}"));
    }
    own("2001:db8::/64");
    let strange = [
        ("198.51.100.1", "office, never block"),
        ("198.51.100.2", "stockade:web2/cloudflare for ever (npm)"),
        ("198.51.100.3", "stockade:web1/other for ever (npm)"),
        ("198.51.100.4", "see stockade:web1/cloudflare for ever (npm)"),
        ("198.51.100.5", "STOCKADE:WEB1/CLOUDFLARE for ever (npm)"),
        ("198.51.100.0/24", ""),
    ];
    for (value, notes) in strange {
        api.put(value, "block", notes);
    }
    // Our words at another level: the zone's list shows it too.
    let words = format!("stockade:web1/{NAME} for ever (npm)");
    api.world().put_rule("198.51.100.6", "block", &words, "organization");
    let run = run(&api, FAST);
    run.ban("192.0.2.77", &want(1));
    run.ban("2001:db8::5", &want(1));
    run.ban("203.0.113.5", &want(1));
    run.until_ok();
    let kept = ["192.0.2.77", "2001:0db8:0000:0000:0000:0000:0000:0000/64", "203.0.113.5"];
    let mut all: Vec<&str> = kept.iter().copied().chain(strange.map(|(value, _)| value)).collect();
    all.push("198.51.100.6");
    all.sort_unstable();
    run.until_values(&api, "", &all);
    assert_eq!(api.world().deleted.len(), 129);
    assert_eq!(run.status()["oddities"]["rules_of_other_sinks_of_this_host"], 1);
    let posted: Vec<String> = api.world().posted.keys().cloned().collect();
    assert_eq!(posted, ["203.0.113.5"], "what is there is not sent again");
}

#[test]
fn a_strangers_rule_for_the_same_address_is_left_alone_and_told_if_it_lets_through() {
    let api = Api::start();
    api.put("192.0.2.1", "block", "by hand");
    api.put("192.0.2.2", "whitelist", "office");
    api.put("192.0.2.0/24", "challenge", "stockade:web2/cloudflare for ever (npm)");
    api.put("2001:db8::/64", "whitelist", "office");
    let before = api.world().rules.clone();
    let mut run = run(&api, "");
    for offender in ["192.0.2.1", "192.0.2.2", "192.0.2.0/24", "2001:db8::1", "192.0.2.3"] {
        run.ban(offender, &want(1));
    }
    until(|| run.status().to_string(), || run.status()["shown"] == 1);
    run.until_ok();
    let status = run.status();
    assert_eq!(status["shown_by_others"], 4);
    let through = json!({ "count": 1, "some": ["192.0.2.2"] });
    assert_eq!(status["oddities"]["let_through_by_rules_of_others"], through, "{status}");
    run.unban("192.0.2.1", 1);
    run.unban("192.0.2.2", 1);
    run.unban("192.0.2.0/24", 1);
    run.until_ok();
    assert_eq!(run.end(true), [] as [&str; 0]);
    assert_eq!(api.world().rules, before);
    assert_eq!(api.count("PATCH"), 0);
}

#[test]
fn withdrawing_removes_what_is_ours_and_that_only() {
    let api = Api::start();
    api.put("198.51.100.1", "block", "by hand");
    let mut run = run(&api, FAST);
    for n in 0..60 {
        run.ban(&format!("192.0.2.{n}"), &want(1));
    }
    until(|| run.status().to_string(), || run.status()["shown"] == 60);
    run.until_ok();
    // Somebody made one of them his own.
    let theirs =
        api.world().rules.values().find(|rule| rule["configuration"]["value"] == "192.0.2.7").unwrap()["id"]
            .clone();
    api.world().rules.get_mut(theirs.as_str().unwrap()).unwrap()["notes"] = json!("now mine");
    assert_eq!(run.end(true), [] as [&str; 0]);
    assert_eq!(api.values(""), ["192.0.2.7", "198.51.100.1"]);
}

#[test]
fn ending_leaves_the_rules_and_the_next_agent_takes_them_over() {
    let api = Api::start();
    let mut first = run(&api, FAST);
    first.ban("192.0.2.1", &want(1));
    first.ban("192.0.2.2", &want(1));
    until(|| first.status().to_string(), || first.status()["shown"] == 2);
    first.end(false);
    let second = run(&api, FAST);
    second.ban("192.0.2.2", &want(1));
    second.until_values(&api, "", &["192.0.2.2"]);
    assert_eq!(api.world().posted["192.0.2.2"], 1);
}

#[test]
fn two_hosts_with_one_zone_do_not_touch_each_others_rules() {
    let api = Api::start();
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let begin = |state: &Path| {
        // Each with a number of its own, though both hosts have one name.
        let settings = settings(&api, state, FAST).replace("instance: web1, ", "");
        start(&settings, state)
    };
    let (mut one, two) = (begin(a.path()), begin(b.path()));
    let all = names(&[NAME]);
    one.ban(&all, net("192.0.2.1"), &want(1));
    two.ban(&all, net("192.0.2.2"), &want(1));
    let shown = |sinks: &Sinks| status(sinks, NAME)["shown"] == 1;
    until(|| one.value().to_string(), || shown(&one) && shown(&two));
    one.ban(&all, net("192.0.2.2"), &want(1));
    two.ban(&all, net("192.0.2.1"), &want(1));
    let both = |sinks: &Sinks| status(sinks, NAME)["shown_by_others"] == 1;
    until(|| one.value().to_string(), || both(&one) && both(&two));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(one.end(Duration::from_secs(20), true)), [] as [&str; 0]);
    assert_eq!(api.values(""), ["192.0.2.2"]);
    let number = std::fs::read_to_string(a.path().join("instance")).unwrap();
    let again = begin(a.path());
    again.ban(&all, net("192.0.2.3"), &want(1));
    until(|| again.value().to_string(), || api.notes("192.0.2.3").is_some());
    assert!(api.notes("192.0.2.3").unwrap().starts_with(&format!("stockade:{}/", number.trim())));
}

#[test]
fn a_rule_that_somebody_removed_is_there_again_after_everything_was_compared() {
    let api = Api::start();
    let run = run(&api, FAST);
    run.ban("192.0.2.1", &want(1));
    run.ban("192.0.2.2", &want(1));
    until(|| run.status().to_string(), || run.status()["shown"] == 2);
    run.until_ok();
    api.world().rules.clear();
    // A failure in the middle of a change is followed by a comparison, as every hour is.
    api.world().half = 1;
    run.ban("192.0.2.3", &want(1));
    run.until_values(&api, "", &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    run.until_ok();
    assert_eq!(
        api.world().posted["192.0.2.3"],
        1,
        "what was made with half an answer is found, not made again"
    );
    assert_eq!(run.status()["shown"], 3);
}

#[test]
fn ten_thousand_bans_against_an_api_that_is_down_then_up_arrive_once_each() {
    let api = Api::start();
    for n in 0..300 {
        api.put(&format!("198.51.{}.{}", n / 250, n % 250), "block", "somebody's");
    }
    let strangers = api.world().rules.clone();
    api.world().always = Some(Reply::Answer(503, vec![], b"<html>no</html>".to_vec()));
    let run = run(&api, "requests: 100000, max: 20000");
    let since = clock::now();
    for n in 0..10_000_u32 {
        let [.., a, b] = n.to_be_bytes();
        let mut want = want(1);
        want.since = since;
        run.ban(&format!("192.0.{a}.{b}"), &want);
    }
    until(|| run.status().to_string(), || run.status()["state"] == "failing");
    let message = run.status()["last_error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("HTTP status 503"), "{message}");
    api.world().always = None;
    let end = std::time::Instant::now() + Duration::from_secs(240);
    while run.status()["shown"] != 10_000 {
        assert!(std::time::Instant::now() < end, "{}", run.status());
        std::thread::sleep(Duration::from_millis(50));
    }
    run.until_ok();
    let world = api.world();
    assert_eq!((world.posted.len(), world.posted.values().max()), (10_000, Some(&1)));
    assert_eq!((world.deleted.len(), world.rules.len()), (0, 10_300));
    assert!(strangers.iter().all(|(id, rule)| world.rules.get(id) == Some(rule)));
}

#[test]
fn the_limit_is_obeyed_and_the_most_valuable_go_first() {
    let api = Api::start();
    api.world().allowed = Some((6, Duration::from_secs(2)));
    let run = run(&api, FAST);
    let mut bans: Vec<(String, Want)> = (0..10).map(|n| (format!("192.0.2.{n}"), want(1))).collect();
    bans[7].1.count = 9;
    bans[3].1.offenses = 0;
    bans[5].1.until = None;
    bans[5].1.count = 3;
    // All at once, for one pass to see them all.
    run.sinks.show(|_| bans.iter().map(|(offender, want)| (net(offender), want.clone())).collect());
    until(|| run.status().to_string(), || api.world().posted.len() >= 3);
    let first = || -> Vec<String> {
        let requests = api.server.requests();
        let posts = requests.iter().filter(|r| r.method == "POST").take(3);
        posts.map(|r| r.json()["configuration"]["value"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(first(), ["192.0.2.5", "192.0.2.3", "192.0.2.7"]);
    until(|| run.status().to_string(), || run.status()["shown"] == 10);
    run.until_ok();
    assert_eq!(api.world().impatient, 0, "it asked while it was to wait");
    assert_eq!(api.world().posted.values().max(), Some(&1));
}

#[test]
fn no_more_requests_are_made_than_are_allowed_and_new_bans_get_their_turn() {
    let api = Api::start();
    // Ten at once, eight a minute then: what the API itself would allow is much more.
    let run = run(&api, "requests: 50");
    let all = |count: u32, more: &[&str]| {
        run.sinks.show(|_| {
            let old = (0..count).map(|n| (net(&format!("192.0.2.{n}")), want(1)));
            let mut by_hand = want(2);
            by_hand.offenses = 0;
            old.chain(more.iter().map(|offender| (net(offender), by_hand.clone()))).collect()
        });
    };
    all(100, &[]);
    // One to look, nine rules.
    until(|| run.status().to_string(), || run.status()["shown"] == 9);
    assert_eq!(api.server.requests().len(), 10);
    assert_eq!((run.status()["state"].clone(), run.status()["left"].clone()), (json!("working"), json!(91)));
    all(100, &["198.51.100.7"]);
    until(|| run.status().to_string(), || api.server.requests().len() > 10);
    assert_eq!(api.server.requests()[10].json()["configuration"]["value"], "198.51.100.7");
}

#[test]
fn what_has_ended_before_its_turn_is_not_sent_and_no_more_than_max_are_kept() {
    let api = Api::start();
    let run = run(&api, "max: 2");
    let mut over = want(1);
    over.until = Some(clock::now());
    run.ban("192.0.2.1", &over);
    for (offender, count) in [("192.0.2.2", 1), ("192.0.2.3", 2), ("192.0.2.4", 3)] {
        let mut want = want(1);
        want.count = count;
        run.ban(offender, &want);
    }
    run.until_values(&api, "", &["192.0.2.3", "192.0.2.4"]);
    run.until_ok();
    assert_eq!(run.status()["oddities"]["more_than_max"], 1);
    run.unban("192.0.2.4", 1);
    run.until_values(&api, "", &["192.0.2.2", "192.0.2.3"]);
    assert!(!api.world().posted.contains_key("192.0.2.1"));
}

#[test]
fn what_cloudflare_does_not_take_is_told() {
    let api = Api::start();
    let run = run(&api, "ipv6_prefix: 128");
    for offender in ["192.0.0.0/6", "2001:db8::/80", "203.0.113.66", "2001:db8::1"] {
        run.ban(offender, &want(1));
    }
    run.until_values(&api, "", &["2001:0db8:0000:0000:0000:0000:0000:0001"]);
    run.until_ok();
    let odd = &run.status()["oddities"];
    assert_eq!(
        odd["not_taken_in_this_width"],
        json!({ "count": 2, "some": ["192.0.0.0/6", "2001:db8::/80"] })
    );
    assert_eq!(odd["rejected"]["count"], 1);
    assert!(odd["rejected"]["first"].as_str().unwrap().starts_with("203.0.113.66: "), "{odd}");
}

#[test]
fn another_action_is_put_into_the_rules_that_are_there() {
    let api = Api::start();
    let mut first = run(&api, FAST);
    first.ban("192.0.2.1", &want(1));
    until(|| first.status().to_string(), || first.status()["shown"] == 1);
    first.end(false);
    let second = run(&api, "action: managed_challenge");
    second.ban("192.0.2.1", &want(1));
    let mode = || api.world().rules.values().next().unwrap()["mode"].clone();
    until(|| second.status().to_string(), || mode() == "managed_challenge");
    assert_eq!((api.count("POST"), api.count("DELETE")), (1, 0));
}

#[test]
fn broken_answers_lose_nothing_and_double_nothing() {
    let api = Api::start();
    api.put("198.51.100.1", "block", "by hand");
    api.world().instead = vec![
        Reply::Close,
        Reply::Half(200, b"{\"success\":true,\"result\":[],\"result_info\":{}}".to_vec()),
        Reply::Stall(Duration::from_secs(4)),
    ];
    let run = run(&api, FAST);
    run.ban("192.0.2.1", &want(1));
    run.ban("192.0.2.2", &want(1));
    run.until_values(&api, "stockade:", &["192.0.2.1", "192.0.2.2"]);
    api.world().instead = vec![Reply::Answer(200, vec![], b"<html>captive portal</html>".to_vec())];
    run.unban("192.0.2.1", 1);
    run.until_values(&api, "stockade:", &["192.0.2.2"]);
    assert_eq!(api.world().posted.values().max(), Some(&1));
    assert_eq!(api.values("").len(), 2);
}

#[test]
fn wrong_credentials_are_refused_and_the_secret_is_told_to_nobody() {
    let api = Api::start();
    let state = tempfile::tempdir().unwrap();
    let wrong = "wrong-token-that-is-not-to-be-shown";
    let text = settings(&api, state.path(), "");
    secret(&state.path().join("token"), wrong);
    let sinks = start(&text, state.path());
    sinks.ban(&names(&[NAME]), net("192.0.2.1"), &want(1));
    until(|| sinks.value().to_string(), || status(&sinks, NAME)["state"] == "refused");
    let shown = sinks.value().to_string();
    assert!(shown.contains("error 9109") && shown.contains("Zone · Firewall Services · Edit"), "{shown}");
    assert!(shown.contains("[secret]") && !shown.contains(wrong), "{shown}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(check(&config(&text).sinks[0], &Context::default()));
    assert!(!found[0].good && !format!("{found:?}").contains(wrong), "{found:?}");
    // Asked seldom, for it may be mended: not at once.
    assert!(api.server.requests().len() <= 3);
    secret(&state.path().join("token"), TOKEN);
    api.world().may = false;
    let found = runtime.block_on(check(&config(&text).sinks[0], &Context::default()));
    assert!(!found[0].good && found[0].text.contains("error 10000"), "{found:?}");
}

#[test]
fn the_global_key_and_an_account_will_do() {
    let api = Api::start();
    api.world().key = Some("144c9defac04969c7bfad8efaa8ea194".to_owned());
    let state = tempfile::tempdir().unwrap();
    let key = state.path().join("key");
    secret(&key, "144c9defac04969c7bfad8efaa8ea194");
    let text = format!(
        "  {NAME}: {{ account_id: {ACCOUNT}, email: {EMAIL}, key_file: {}, url: '{}', instance: web1 }}",
        key.display(),
        api.url()
    );
    let sinks = start(&text, state.path());
    sinks.ban(&names(&[NAME]), net("192.0.2.1"), &want(1));
    until(|| sinks.value().to_string(), || api.values("") == ["192.0.2.1"]);
    assert_eq!(api.server.requests()[0].header("authorization"), None);
    assert!(api.server.requests()[0].path.contains(&format!("/accounts/{ACCOUNT}/firewall/")));
}

#[test]
fn a_check_changes_nothing_and_says_what_is_needed() {
    let api = Api::start();
    let state = tempfile::tempdir().unwrap();
    api.put("192.0.2.1", "block", "stockade:web1/cloudflare for ever (npm)");
    let found = checked(&api, "", state.path());
    assert!(found.iter().all(|c| c.good) && found[0].text.contains("1 of them of this host"), "{found:?}");
    assert!(found[0].text.contains("Zone · Firewall Services · Edit"), "{found:?}");
    let list = format!("mode: list, account_id: {ACCOUNT}, zone_id: {ZONE}");
    let found = checked(&api, &list, state.path());
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|c| c.good && c.text.contains("will be made")), "{found:?}");
    api.world().put_list("stockade", "redirect");
    let found = checked(&api, &list, state.path());
    assert!(!found[0].good && found[0].text.contains("not of addresses"), "{found:?}");
    let found = checked(&api, &format!("zone_id: {}", "0".repeat(32)), state.path());
    assert!(!found[0].good && found[0].text.contains("no such zone"), "{found:?}");
    assert!(api.server.requests().iter().all(|request| request.method == "GET"));
    let files: Vec<_> = std::fs::read_dir(state.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["token"]);
}

/// Settings of a list with its rule.
fn list(more: &str) -> String {
    format!("mode: list, account_id: {ACCOUNT}, zone_id: {ZONE}, {FAST}, {more}")
}

#[test]
fn a_list_and_its_rule_are_made_once_and_filled_by_operations() {
    let api = Api::start();
    api.world().slowness = 2;
    api.world().custom =
        Some(vec![json!({ "id": "aa", "description": "mine", "expression": "true", "action": "log" })]);
    let mut first = run(&api, &list(""));
    for offender in ["192.0.2.1", "192.0.2.2", "198.51.96.0/20", "2001:db8::1"] {
        first.ban(offender, &want(1));
    }
    let wanted = ["192.0.2.1", "192.0.2.2", "198.51.96.0/20", "2001:db8::/64"];
    until(|| first.status().to_string(), || api.items("stockade") == wanted);
    first.until_ok();
    first.unban("192.0.2.1", 1);
    until(|| first.status().to_string(), || api.items("stockade") == wanted[1..]);
    first.end(false);
    let second = run(&api, &list(""));
    second.ban("192.0.2.2", &want(1));
    until(|| second.status().to_string(), || api.items("stockade") == ["192.0.2.2"]);
    second.until_ok();
    let world = api.world();
    assert_eq!((world.lists.len(), world.custom.as_ref().unwrap().len()), (1, 2));
    let rule = &world.custom.as_ref().unwrap()[1];
    assert_eq!((&rule["expression"], &rule["action"]), (&json!("(ip.src in $stockade)"), &json!("block")));
    assert_eq!(world.posted.values().max(), Some(&1));
}

#[test]
fn items_of_strangers_stay_whatever_is_banned() {
    let api = Api::start();
    let id = api.world().put_list("stockade", "ip");
    let strange = ["192.0.2.1", "192.0.2.2", "198.51.100.0/24"];
    for (n, ip) in strange.into_iter().enumerate() {
        let comment = ["by hand", "stockade:web2/cloudflare for ever (npm)", ""][n];
        api.world().put_item(&id, ip, comment);
    }
    for n in 0..250 {
        api.world().put_item(&id, &format!("203.0.113.{n}"), &format!("stockade:web1/{NAME} for ever (npm)"));
    }
    let mut run = run(&api, &list(""));
    run.ban("192.0.2.1", &want(1));
    run.ban("192.0.2.9", &want(1));
    run.ban("203.0.113.9", &want(1));
    let wanted = ["192.0.2.1", "192.0.2.2", "192.0.2.9", "198.51.100.0/24", "203.0.113.9"];
    until(|| run.status().to_string(), || api.items("stockade") == wanted);
    run.until_ok();
    assert_eq!(
        (run.status()["shown"].clone(), run.status()["shown_by_others"].clone()),
        (json!(2), json!(1))
    );
    run.unban("192.0.2.1", 1);
    assert_eq!(run.end(true), [] as [&str; 0]);
    assert_eq!(api.items("stockade"), strange);
    assert!(!api.world().posted.contains_key("192.0.2.1"), "an item that is there would be overwritten");
}

#[test]
fn an_operation_of_somebody_else_is_waited_for_and_a_failed_one_is_told() {
    let api = Api::start();
    api.world().put_list("stockade", "ip");
    api.world().occupy();
    let run = run(&api, &list(""));
    run.ban("192.0.2.1", &want(1));
    until(|| run.status().to_string(), || api.count("POST") >= 2);
    assert!(run.status()["state"] != "failing", "{}", run.status());
    api.world().finish();
    until(|| run.status().to_string(), || api.items("stockade") == ["192.0.2.1"]);
    run.until_ok();
    api.world().room = Some(1);
    run.ban("192.0.2.2", &want(1));
    let failed = || run.status()["last_error"]["message"].as_str().unwrap_or_default().to_owned();
    until(|| run.status().to_string(), || failed().contains("maximum number of items"));
    api.world().room = None;
    until(|| run.status().to_string(), || api.items("stockade") == ["192.0.2.1", "192.0.2.2"]);
}

#[test]
fn one_item_that_is_not_taken_does_not_keep_the_others_out() {
    let api = Api::start();
    let run = run(&api, &list(""));
    run.sinks.show(|_| (60..80).map(|n| (net(&format!("203.0.113.{n}")), want(1))).collect());
    until(|| run.status().to_string(), || api.items("stockade").len() == 19);
    run.until_ok();
    assert_eq!(run.status()["oddities"]["rejected"]["count"], 1, "{}", run.status());
}

#[test]
fn a_zone_without_room_for_a_rule_and_a_rule_that_is_off_are_told() {
    let api = Api::start();
    api.world().custom = Some((0..5).map(|n| json!({ "id": n.to_string(), "expression": "true" })).collect());
    let state = tempfile::tempdir().unwrap();
    let sinks = start(&settings(&api, state.path(), &list("")), state.path());
    sinks.ban(&names(&[NAME]), net("192.0.2.1"), &want(1));
    until(|| sinks.value().to_string(), || status(&sinks, NAME)["state"] == "refused");
    let shown = sinks.value().to_string();
    assert!(shown.contains("Free plan has five") && shown.contains("rule: false"), "{shown}");
    // One of the five does it already.
    api.world().custom.as_mut().unwrap()[2] =
        json!({ "id": "x", "expression": "ip.src in $stockade", "action": "block", "enabled": false });
    let run = run(&api, &list(""));
    run.ban("192.0.2.1", &want(1));
    until(|| run.status().to_string(), || api.items("stockade") == ["192.0.2.1"]);
    run.until_ok();
    assert!(run.status()["oddities"]["rule"].as_str().unwrap().contains("switched off"));
    assert_eq!(api.world().custom.as_ref().unwrap().len(), 5);
}

#[test]
fn another_zone_is_another_place() {
    let api = Api::start();
    let state = tempfile::tempdir().unwrap();
    let mut sinks = start(&settings(&api, state.path(), FAST), state.path());
    sinks.ban(&names(&[NAME]), net("192.0.2.1"), &want(1));
    until(|| sinks.value().to_string(), || api.values("") == ["192.0.2.1"]);
    let account = settings(&api, state.path(), &format!("account_id: {ACCOUNT}, {FAST}"));
    sinks.reconfigure(&config(&account).sinks).unwrap();
    sinks.show(|_| vec![(net("192.0.2.2"), want(1))]);
    until(|| sinks.value().to_string(), || api.values("") == ["192.0.2.2"]);
}
