//! `cloudflare_ranges`: what Cloudflare connects from, refreshed from its API.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stockade::config::{Config, Shipped, names};
use stockade::daemon::ranges::{Refresher, load};

use crate::http::{Reply, Server};
use crate::support::{net, until};

fn config(state: &Path, more: &str) -> Config {
    let text = format!("paths: {{ state: {} }}\n{more}\n", state.display());
    Config::parse(&text, "f", &Shipped::NONE).unwrap_or_else(|e| panic!("{e}"))
}

fn answer(v4: &[&str], v6: &[&str]) -> Value {
    json!({
        "success": true, "errors": [], "messages": [],
        "result": { "ipv4_cidrs": v4, "ipv6_cidrs": v6, "etag": "38f79d050aa027e3be3865e495dcc9bc" },
    })
}

#[test]
fn they_are_fetched_kept_and_used_by_who_starts_without_a_network() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(|request| {
        assert_eq!((request.path.as_str(), request.header("authorization")), ("/client/v4/ips", None));
        Reply::json(200, &answer(&["104.16.0.0/13", "172.64.0.0/13"], &["2606:4700::/32"]))
    });
    let more = format!("cloudflare_ranges: {{ url: '{}/client/v4/ips' }}", server.url());
    let config = config(state.path(), &more);
    let shipped = load(&config);
    assert_eq!(shipped.len(), names::CLOUDFLARE.len());
    let refresher = Refresher::start(config.cloudflare_ranges.as_ref().unwrap(), state.path()).unwrap();
    let wanted = ["104.16.0.0/13", "172.64.0.0/13", "2606:4700::/32"].map(net);
    until(|| format!("{:?}", load(&config)), || load(&config) == wanted);
    drop(refresher);
    // Fresh as they are they are not asked for again.
    let again = Refresher::start(config.cloudflare_ranges.as_ref().unwrap(), state.path()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(again);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(load(&config), wanted);
    // Who does not want them fetched has those that are shipped.
    assert_eq!(load(&self::config(state.path(), "")), shipped);
}

#[test]
fn what_cannot_be_cloudflares_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let long: Vec<String> = (0..300).map(|n| format!("104.{}.{}.0/24", n / 250, n % 250)).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let good = answer(&["104.16.0.0/13"], &["2606:4700::/32"]);
    let replies = [
        Reply::Close,
        Reply::json(500, &good),
        Reply::Answer(200, vec![], b"<html>captive portal</html>".to_vec()),
        Reply::json(200, &answer(&[], &["2606:4700::/32"])),
        Reply::json(200, &answer(&["104.16.0.0/13", "10.0.0.0/8"], &["2606:4700::/32"])),
        Reply::json(200, &answer(&["0.0.0.0/0"], &["2606:4700::/32"])),
        Reply::json(200, &answer(&["104.16.0.0/13"], &["::/0"])),
        Reply::json(200, &answer(&["104.16.0.0/13", "example.org"], &["2606:4700::/32"])),
        Reply::json(200, &answer(&long, &["2606:4700::/32"])),
    ];
    for reply in replies {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let told = format!("{reply:?}");
        let server = Server::start(move |_| {
            *count.lock().unwrap() += 1;
            reply.clone()
        });
        let more = format!("cloudflare_ranges: {{ url: '{}/ips', refresh: 1h }}", server.url());
        let config = config(state.path(), &more);
        let shipped = load(&config);
        let _refresher = Refresher::start(config.cloudflare_ranges.as_ref().unwrap(), state.path()).unwrap();
        // Asked again: the first answer was refused.
        until(|| told.clone(), || *asked.lock().unwrap() >= 2);
        assert_eq!(load(&config), shipped, "{told}");
    }
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    // Nor is what somebody else has written there.
    std::fs::write(
        state.path().join("cloudflare-ranges.json"),
        r#"{"fetched":"2026-01-01T00:00:00Z","networks":["0.0.0.0/0"]}"#,
    )
    .unwrap();
    let config = config(state.path(), "cloudflare_ranges: {}");
    assert_eq!(load(&config).len(), names::CLOUDFLARE.len());
}
