//! Who owns a network, asked of a registry that answers as RFC 9083 says, or does not.

use std::time::Duration;

use serde_json::{Value, json};
use stockade::sinks::http::HttpOptions;
use stockade::sinks::owner::{Owners, Registry};

use crate::http::{Reply, Request, Server};
use crate::smtp::{Act, Manner, Smtp};
use crate::support::{banned, net, start, status, tell, until};

/// As the example of RFC 9083, section 5.4, with the extension cidr0.
fn network(name: &str, first: &str, last: &str) -> Value {
    json!({
        "rdapConformance": ["rdap_level_0", "cidr0"],
        "objectClassName": "ip network",
        "handle": "XXXX-RIR",
        "startAddress": first,
        "endAddress": last,
        "ipVersion": "v4",
        "name": name,
        "type": "DIRECT ALLOCATION",
        "country": "AU",
        "cidr0_cidrs": [{ "v4prefix": first, "length": 24 }],
        "entities": [{
            "objectClassName": "entity",
            "roles": ["registrant"],
            "vcardArray": ["vcard", [
                ["version", {}, "text", "4.0"],
                ["fn", {}, "text", "Joe User Ltd\r\nBcc: evil@example.com\u{202e}"],
                ["email", {}, "text", "joe.user@example.com"]
            ]],
            "entities": [{
                "objectClassName": "entity",
                "roles": ["abuse", "technical"],
                "vcardArray": ["vcard", [["email", { "type": "work" }, "text", "abuse@example.com"]]]
            }]
        }]
    })
}

fn rdap(value: &Value) -> Reply {
    Reply::json(200, value).with("content-type", "application/rdap+json")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn at(server: &Server) -> Owners {
    Owners::new(Registry::Server(server.url()), &HttpOptions::default()).unwrap()
}

/// What is known of these in the end.
fn known(owners: &Owners, offenders: &[&str], patience: Duration) -> Vec<Option<String>> {
    let nets: Vec<_> = offenders.iter().map(|o| net(o)).collect();
    let found = runtime().block_on(owners.of(&nets, patience));
    nets.iter().map(|net| found.get(net).map(|owner| owner.to_string())).collect()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_network_is_asked_about_once() {
    let server = Server::start(|request| {
        assert_eq!(request.header("authorization"), None);
        match request.path.as_str() {
            "/ip/5.1.2.3" => rdap(&network("RTR-1", "5.1.2.0", "5.1.2.255")),
            "/ip/6.0.0.1" => rdap(&network("ALL", "0.0.0.0", "255.255.255.255")),
            _ => Reply::json(404, &json!({ "errorCode": 404 })),
        }
    });
    let owners = at(&server);
    let joe = "5.1.2.0/24, RTR-1, Joe User Ltd\\r\\nBcc: evil@example.com\\u{202e}, AU, abuse@example.com";
    assert_eq!(
        known(&owners, &["5.1.2.3", "192.168.1.1", "2001:db8::/64"], LONG),
        [Some(joe.to_owned()), None, None]
    );
    assert_eq!(
        known(&owners, &["5.1.2.3", "5.1.2.77", "9.9.9.9"], LONG),
        [Some(joe.to_owned()), Some(joe.to_owned()), None]
    );
    // An answer about the whole Internet is believed for the one address; what is not known is not asked for again.
    assert!(known(&owners, &["6.0.0.1"], LONG)[0].is_some());
    assert_eq!(known(&owners, &["9.9.9.9", "6.0.0.2"], LONG), [None, None]);
    let asked: Vec<String> = server.requests().iter().map(|r| r.path.clone()).collect();
    assert_eq!(asked, ["/ip/5.1.2.3", "/ip/9.9.9.9", "/ip/6.0.0.1", "/ip/6.0.0.2"]);
}

#[test]
fn the_registry_is_found_through_the_list() {
    let registry = Server::start(|request| match request.path.as_str() {
        "/rir/ip/5.1.2.3" => rdap(&network("A", "5.1.2.0", "5.1.2.255")),
        "/rir/ip/2a00::" => rdap(&network("B", "2a00::", "2a00::ffff")),
        _ => Reply::json(404, &json!({})),
    });
    let url = registry.url();
    let list = Server::start(move |request| match request.path.as_str() {
        "/rdap/ipv4.json" => Reply::json(
            200,
            &json!({ "version": "1.0", "services": [[["5.0.0.0/8"], [format!("{url}/rir/")]], [["7.0.0.0/8"], ["ftp://x/"]]] }),
        ),
        "/rdap/ipv6.json" => {
            Reply::json(200, &json!({ "services": [[["2a00::/12"], [format!("{url}/rir")]]] }))
        }
        _ => Reply::json(404, &json!({})),
    });
    let owners =
        Owners::new(Registry::Listed(format!("{}/rdap", list.url())), &HttpOptions::default()).unwrap();
    let found = known(&owners, &["5.1.2.3", "5.1.2.4", "8.8.8.8", "7.0.0.1", "2a00::/64"], LONG);
    let names: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(names, [true, true, false, false, true], "{found:?}");
}

#[test]
fn redirects_are_followed_three_times() {
    let server = Server::start(|request: &Request| {
        let hop = |to: String| Reply::Answer(302, vec![("location", to)], Vec::new());
        match request.path.as_str() {
            "/ip/5.0.0.1" => hop("/1".to_owned()),
            "/1" => hop("2".to_owned()),
            "/2" => hop("/3".to_owned()),
            "/3" => rdap(&network("FAR", "5.0.0.0", "5.0.0.255")),
            "/ip/6.0.0.1" => hop("/ip/6.0.0.1".to_owned()),
            "/ip/7.0.0.1" => hop("file:///etc/passwd".to_owned()),
            _ => hop("http://[".to_owned()),
        }
    });
    let owners = at(&server);
    let found = known(&owners, &["5.0.0.1", "6.0.0.1", "7.0.0.1", "8.0.0.1"], LONG);
    assert!(found[0].as_ref().is_some_and(|o| o.contains("FAR")), "{found:?}");
    assert_eq!(found[1..], [None, None, None]);
    assert_eq!(server.requests().iter().filter(|r| r.path == "/ip/6.0.0.1").count(), 4);
}

#[test]
fn what_does_not_answer_is_not_waited_for() {
    let server = Server::start(|request| match request.path.as_str() {
        "/ip/5.0.0.1" => rdap(&network("GOOD", "5.0.0.0", "5.0.0.255")),
        "/ip/6.0.0.1" => Reply::Half(200, vec![b' '; 1000]),
        "/ip/7.0.0.1" => Reply::Close,
        "/ip/8.0.0.1" => Reply::Answer(200, Vec::new(), vec![b'['; 1 << 20]),
        _ => Reply::json(500, &json!({})),
    });
    let found = known(&at(&server), &["6.0.0.1", "7.0.0.1", "8.0.0.1", "9.0.0.1", "5.0.0.1"], LONG);
    assert!(found[4].is_some() && found[..4].iter().all(Option::is_none), "{found:?}");
    // What was not waited for is asked about again; what failed is not, for a while.
    let mut slow = true;
    let server = Server::start(move |_| match std::mem::take(&mut slow) {
        true => Reply::Stall(Duration::from_secs(3600)),
        false => rdap(&network("SLOW", "5.0.0.0", "5.0.0.255")),
    });
    let owners = at(&server);
    assert_eq!(known(&owners, &["5.0.0.1"], Duration::from_millis(300)), [None]);
    assert!(known(&owners, &["5.0.0.1"], LONG)[0].is_some());
}

#[test]
fn not_more_than_some_are_asked_about() {
    let server = Server::start(|_| Reply::json(404, &json!({})));
    let many: Vec<String> = (1..200).map(|n| format!("5.{n}.0.1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    known(&at(&server), &many, LONG);
    assert_eq!(server.requests().len(), 20);
}

#[test]
fn a_mail_shows_the_owner() {
    let registry = Server::start(|_| rdap(&network("RTR-1", "5.1.2.0", "5.1.2.255")));
    let server = Smtp::start(Manner::default(), |_| Act::Usual);
    let dir = tempfile::tempdir().unwrap();
    let settings = format!(
        "  mail: {{ to: a@example.org, server: '{}', encryption: none, digest: 1s, owner: rdap, rdap_url: '{}' }}",
        server.address,
        registry.url()
    );
    let mut sinks = start(&settings, dir.path());
    tell(&mut sinks, banned("5.1.2.3"));
    tell(&mut sinks, banned("10.1.2.3"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["done"] == 2);
    let mail = server.mails().remove(0);
    let body = mail.body();
    assert_eq!(body.matches("\n  network: 5.1.2.0/24, RTR-1, Joe User Ltd\\r\\nBcc").count(), 1, "{body}");
    assert!(mail.headers().iter().all(|(name, _)| name != "Bcc"));
    assert_eq!(registry.requests().len(), 1);
}
