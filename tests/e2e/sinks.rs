//! Decisions go beyond the kernel, and never delay it: the real agent with sinks whose far sides work, fail, hang and come back.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Reply, Request, Server};
use crate::world::{INNOCENT4, OFFENDER4, World, eventually, text};
use crate::{NPM_JAIL, nginx, visits_until_blocked};

const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "123456:e2e-secret-token";

/// Telegram's Bot API, as far as a message goes.
fn telegram(world: &World) -> Server {
    Server::start_in(world.server_name(), |request| {
        if request.path.ends_with("/sendMessage") {
            let result = json!({ "message_id": 1, "chat": { "id": 42 }, "date": 0, "text": "" });
            return Reply::json(200, &json!({ "ok": true, "result": result }));
        }
        Reply::json(200, &json!({ "ok": true, "result": { "id": 42, "username": "bot", "type": "private" } }))
    })
}

/// The texts that were sent.
fn messages(server: &Server) -> Vec<String> {
    let sent = |request: &Request| request.path.ends_with("/sendMessage");
    server
        .requests()
        .iter()
        .filter(|r| sent(r))
        .map(|r| r.json()["text"].as_str().unwrap().to_owned())
        .collect()
}

fn secret(world: &World, name: &str, text: &str) {
    let path = world.write(name, text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn sinks(world: &World) -> BTreeMap<String, Value> {
    let out = world.stockade(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)));
    let named = |sink: &Value| (sink["sink"].as_str().unwrap().to_owned(), sink.clone());
    status["sinks"].as_array().unwrap().iter().map(named).collect()
}

fn all_json(world: &World) -> Vec<Value> {
    let out = world.stockade(&["bans", "--json"]);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)))
}

/// What a list holds, without comments.
fn list(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(world.dir().join("banned.txt")).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

fn with_sinks(jails: &str, sinks: &str) -> String {
    format!("{}\nsinks:\n{sinks}", jails.replace("bantime: 1h", "bantime: 1h\n    sinks: [chat, denied]"))
}

/// One attack, from the first request to the end of the agent and the start of the next.
#[test]
fn decisions_reach_sinks_after_the_kernel() {
    let mut world = World::new();
    nginx::start(&mut world);
    let api = telegram(&world);
    secret(&world, "token", TOKEN);
    let config = with_sinks(
        NPM_JAIL,
        &format!(
            "  chat: {{ kind: telegram, chat_id: 42, token_file: DIR/token, url: '{}', events: [start, stop, ban, unban] }}
  denied: {{ kind: map, format: list, path: DIR/banned.txt, interval: 1s }}
",
            api.url()
        ),
    );
    world.start_agent(&config);
    let check = world.stockade(&["check"]);
    assert!(check.status.success(), "{}", text(&check));
    assert!(text(&check).contains("where decisions go besides the kernel\n  ok  chat"), "{}", text(&check));

    visits_until_blocked(&world, OFFENDER4);
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200));
    let told = || eventually(SOON, || messages(&api).len() >= 2 && list(&world) == [OFFENDER4]);
    assert!(told(), "{:?} {:?}\n{}", messages(&api), list(&world), world.agent_log());
    let said = messages(&api);
    assert!(said[0].contains("1 jail") && said[1].contains(OFFENDER4) && said[1].contains("npm"), "{said:?}");
    // What the filter read out of the deciding line.
    assert!(said[1].contains("203.0.113.1") && said[1].contains("curl/"), "{said:?}");

    assert!(world.stockade(&["unban", OFFENDER4]).status.success());
    assert!(
        eventually(SOON, || list(&world).is_empty() && messages(&api).len() == 3),
        "{:?}",
        messages(&api)
    );
    assert!(world.stockade(&["ban", "npm", OFFENDER4]).status.success());
    assert!(eventually(SOON, || list(&world) == [OFFENDER4] && messages(&api).len() == 4));
    let of = sinks(&world);
    assert_eq!(
        (&of["chat"]["state"], &of["chat"]["queue"], &of["chat"]["done"]),
        (&json!("ok"), &json!(0), &json!(4))
    );
    assert_eq!((&of["denied"]["state"], &of["denied"]["queue"]), (&json!("ok"), &json!(1)));

    // The end is told (a second after the message before: sooner it would be left to the next start), and bans that were
    // restored are not.
    std::thread::sleep(Duration::from_millis(1500));
    let out = world.stockade(&["stop"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    assert_eq!(messages(&api).len(), 5, "{:?}", messages(&api));
    assert_eq!(list(&world), [OFFENDER4], "the ban stays, there as in the kernel");
    world.run_agent();
    assert!(eventually(SOON, || messages(&api).len() == 6), "{:?}", messages(&api));
    assert!(world.stockade(&["ban", "npm", "198.51.100.7"]).status.success());
    assert!(eventually(SOON, || messages(&api).len() == 7 && list(&world).len() == 2));
    let said = messages(&api);
    assert!(
        said[4].contains("stopped") && said[5].contains('1') && said[6].contains("198.51.100.7"),
        "{said:?}"
    );

    // And with everything lifted nothing stays behind.
    assert!(world.stockade(&["stop", "--flush"]).status.success());
    assert_eq!(list(&world), [""; 0]);
    let log = world.agent_log();
    assert!(!log.contains("e2e-secret"), "{log}");
    assert!(!text(&check).contains("e2e-secret"));
    assert!(!format!("{of:?}").contains("e2e-secret"));
}

/// Events that arrived at a webhook.
#[derive(Default)]
struct Arrived {
    bans: BTreeMap<String, u32>,
    starts: u32,
}

/// Ten thousand bans while one far side hangs and the other refuses; then the agent is killed; then they are up again. The
/// kernel never waits, and every ban arrives once.
#[test]
fn ten_thousand_bans_against_sinks_that_are_down() {
    const BANS: usize = 10_000;
    let mut world = World::new();
    let up = Arc::new(AtomicBool::new(false));
    let arrived = Arc::new(Mutex::new(Arrived::default()));
    let (is_up, to) = (Arc::clone(&up), Arc::clone(&arrived));
    let hook = Server::start_in(world.server_name(), move |request| {
        if !is_up.load(Ordering::SeqCst) {
            return Reply::Close;
        }
        let mut arrived = to.lock().unwrap();
        for event in request.json()["events"].as_array().unwrap() {
            match event["event"].as_str().unwrap() {
                "ban" => {
                    *arrived.bans.entry(event["offender"].as_str().unwrap().to_owned()).or_default() += 1;
                }
                "start" => arrived.starts += 1,
                other => panic!("{other} is not asked for"),
            }
        }
        Reply::json(200, &json!({}))
    });
    // It takes connections and never says a word.
    let silent = Server::start_in(world.server_name(), |_| Reply::Stall(Duration::from_secs(600)));
    secret(&world, "token", TOKEN);
    let lines: String = (0..BANS).map(|n| format!("bad 198.18.{}.{}\n", n / 256, n % 256)).collect();
    world.write("a.log", "");
    let config = format!(
        "
filters:
  bad: {{ failregex: '^bad <HOST>$' }}
jails:
  npm: {{ filter: bad, logpath: DIR/a.log, from: start, maxretry: 1, findtime: 1h, bantime: 1h, sinks: [hook, chat, denied] }}
sinks:
  hook: {{ kind: webhook, url: '{}/hook', events: [ban, start], per_minute: 6000 }}
  chat: {{ kind: telegram, chat_id: 42, token_file: DIR/token, url: '{}' }}
  denied: {{ kind: map, format: list, path: DIR/banned.txt }}
",
        hook.url(),
        silent.url()
    );
    world.start_agent(&config);
    world.write("a.log", &lines);
    let kernel = |world: &World| {
        let table = world.server("nft", &["-j", "list", "set", "inet", "stockade", "banned4"]);
        table.matches("\"198.18.").count()
    };
    assert!(
        eventually(SOON, || kernel(&world) == BANS),
        "{} of {BANS}\n{}",
        kernel(&world),
        world.agent_log()
    );
    assert!(eventually(SOON, || list(&world).len() == BANS), "the mirror has {}", list(&world).len());
    assert!(eventually(SOON, || sinks(&world)["hook"]["state"] == "failing"), "{:?}", sinks(&world)["hook"]);
    let of = sinks(&world);
    assert!(of["hook"]["queue"].as_u64() >= Some(BANS as u64), "{:?}", of["hook"]);
    assert!(of["hook"]["last_error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{:?}", of["hook"]);
    // Bans by hand are answered at once all the same.
    assert!(world.stockade(&["ban", "npm", "198.51.100.7"]).status.success());

    world.kill_agent();
    up.store(true, Ordering::SeqCst);
    world.run_agent();
    let all = || arrived.lock().unwrap().bans.len() == BANS + 1;
    assert!(eventually(SOON, all), "{} arrived\n{}", arrived.lock().unwrap().bans.len(), world.agent_log());
    assert!(eventually(SOON, || sinks(&world)["hook"]["queue"] == 0 && arrived.lock().unwrap().starts >= 2));
    let twice: Vec<(String, u32)> =
        arrived.lock().unwrap().bans.iter().filter(|(_, n)| **n > 1).map(|(a, n)| (a.clone(), *n)).collect();
    assert!(twice.is_empty(), "told more than once: {twice:?}");
    assert_eq!(all_json(&world).len(), BANS + 1);
    assert!(!world.agent_log().contains("e2e-secret"));
    // Told once and no more, also over another restart.
    let before = hook.requests().len();
    assert!(world.stockade(&["stop"]).status.success());
    assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
    world.run_agent();
    assert!(eventually(SOON, || arrived.lock().unwrap().starts >= 3));
    assert!(arrived.lock().unwrap().bans.values().all(|n| *n == 1));
    assert!(hook.requests().len() <= before + 3);
}

/// What `cloudflare` means in `ignoreip` is what Cloudflare's API says, when that is asked for.
#[test]
fn cloudflares_ranges_are_refreshed() {
    let mut world = World::new();
    world.write("a.log", "");
    let api = Server::start_in(world.server_name(), |_| {
        let result = json!({ "ipv4_cidrs": ["104.16.0.0/13", "185.199.0.0/22"], "ipv6_cidrs": ["2606:4700::/32"], "etag": "x" });
        Reply::json(200, &json!({ "success": true, "errors": [], "messages": [], "result": result }))
    });
    world.configure(&format!(
        "
filters:
  bad: {{ failregex: '^bad <HOST>$' }}
defaults: {{ ignoreip: [cloudflare] }}
jails:
  npm: {{ filter: bad, logpath: DIR/a.log }}
cloudflare_ranges: {{ refresh: 1d, url: '{}/client/v4/ips' }}
",
        api.url()
    ));
    world.run_agent();
    let kept = world.dir().join("state/cloudflare-ranges.json");
    assert!(eventually(SOON, || kept.exists()), "{}", world.agent_log());
    // The agent looks every half minute, and at a reload.
    assert!(world.stockade(&["reload"]).status.success());
    let out = world.stockade(&["ban", "npm", "185.199.1.2"]);
    assert!(!out.status.success() && text(&out).contains("185.199.0.0/22"), "{}", text(&out));
    // One of those that were shipped, and is none any more.
    let out = world.stockade(&["ban", "npm", "188.114.96.1"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(api.requests().len(), 1, "asked once a day");
}

/// A sink that is taken out takes back what it showed; one that comes is shown everything; one that stays is not disturbed.
#[test]
fn sinks_come_and_go_with_a_reload() {
    let mut world = World::new();
    world.write("a.log", "");
    let base = "
filters:
  bad: { failregex: '^bad <HOST>$' }
jails:
  npm: { filter: bad, logpath: DIR/a.log, from: start, maxretry: 1, findtime: 1h, bantime: 1h, sinks: [USED] }
  quiet: { filter: bad, logpath: DIR/b.log, observe: true, bantime: 1h, sinks: [USED] }
  other: { filter: bad, logpath: DIR/c.log, bantime: 1h }
sinks:
";
    let denied = "  denied: { kind: map, format: list, path: DIR/banned.txt }\n";
    let second = "  second: { kind: map, format: list, path: DIR/second.txt }\n";
    let configure = |world: &World, used: &str, sinks: &str| {
        world.configure(&(base.replace("USED", used) + sinks));
    };
    let read = |world: &World, name: &str| {
        let text = std::fs::read_to_string(world.dir().join(name)).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    configure(&world, "denied", denied);
    world.run_agent();
    for (jail, who) in [("npm", "198.51.100.1"), ("quiet", "198.51.100.2"), ("other", "198.51.100.3")] {
        let out = world.stockade(&["ban", jail, who]);
        assert!(out.status.success(), "{}", text(&out));
    }
    let only = |world: &World, name: &str| eventually(SOON, || read(world, name) == ["198.51.100.1"]);
    assert!(
        only(&world, "banned.txt"),
        "of the jail that uses it, and enforces: {:?}",
        read(&world, "banned.txt")
    );
    configure(&world, "denied, second", &format!("{denied}{second}"));
    assert!(world.stockade(&["reload"]).status.success());
    assert!(only(&world, "second.txt") && only(&world, "banned.txt"));
    configure(&world, "second", second);
    assert!(world.stockade(&["reload"]).status.success());
    assert!(eventually(SOON, || read(&world, "banned.txt").is_empty()), "{:?}", read(&world, "banned.txt"));
    assert!(only(&world, "second.txt"));
    assert_eq!(sinks(&world).len(), 1);
    // One that moves does not leave anything where it was; one that is only set up otherwise goes on.
    configure(&world, "second", &second.replace("second.txt", "third.txt"));
    assert!(world.stockade(&["reload"]).status.success());
    assert!(only(&world, "third.txt"));
    assert!(eventually(SOON, || read(&world, "second.txt").is_empty()), "{:?}", read(&world, "second.txt"));
    configure(&world, "second", second);
    assert!(world.stockade(&["reload"]).status.success());
    assert!(only(&world, "second.txt"));
    configure(&world, "second", &second.replace(" }", ", interval: 1s }"));
    assert!(world.stockade(&["reload"]).status.success());
    assert!(only(&world, "second.txt"));
    // A mistake changes nothing.
    configure(&world, "secnod", second);
    let out = world.stockade(&["reload"]);
    assert!(out.status.code() == Some(2) && text(&out).contains("did you mean `second`?"), "{}", text(&out));
    assert!(only(&world, "second.txt"));
}
