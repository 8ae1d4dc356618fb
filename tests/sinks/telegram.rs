//! Telegram, against a stand-in that answers as <https://core.telegram.org/bots/api> says.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use stockade::control::{Call, Request as Order, Response};
use stockade::sinks::event::Event;
use stockade::sinks::{Context, Sinks, check};
use tokio::sync::mpsc;

use crate::http::{Reply, Request, Server};
use crate::support::{banned, config, secret, start, status, tell, until};

const TOKEN: &str = "123456:AAF-abc_DEFghiJKLmno";
const KEY: &str = "AAF-abc_DEFghiJKLmno";

fn ok(result: Value) -> Reply {
    Reply::json(200, &json!({ "ok": true, "result": result }))
}

fn refusal(code: u16, description: &str, parameters: Value) -> Reply {
    let mut body = json!({ "ok": false, "error_code": code, "description": description });
    if !parameters.is_null() {
        body["parameters"] = parameters;
    }
    Reply::json(code, &body)
}

/// The Bot API: whoever has the token may have methods carried out by `handle`.
fn api(mut handle: impl FnMut(&str, &Request) -> Reply + Send + 'static) -> Server {
    Server::start(move |request| {
        assert!(!request.path.contains("//"), "{}", request.path);
        let method = request.path.strip_prefix(&format!("/bot{TOKEN}/")).map(str::to_owned);
        match method {
            // The documentation does not say it, and the API does: what is asked is quoted back by some servers.
            None => refusal(404, &format!("Not Found: {}", request.path), Value::Null),
            Some(method) => handle(&method, request),
        }
    })
}

fn sent(server: &Server) -> Vec<Value> {
    let messages = server.requests().into_iter().filter(|r| r.path.ends_with("/sendMessage"));
    messages.map(|r| r.json()).collect()
}

fn asked(server: &Server, method: &str) -> Vec<Value> {
    server
        .requests()
        .into_iter()
        .filter(|r| r.path.ends_with(&format!("/{method}")))
        .map(|r| r.json())
        .collect()
}

fn settings(url: &str, dir: &Path, more: &str) -> String {
    settings_with(url, dir, more, TOKEN)
}

fn settings_with(url: &str, dir: &Path, more: &str, token: &str) -> String {
    let file = dir.join("token");
    secret(&file, token);
    format!(
        "  tg: {{ kind: telegram, chat_id: -100, token_file: {}, url: '{url}', events: [ban, error, start], timeout: 2s{more} }}",
        file.display()
    )
}

fn done(sinks: &Sinks, count: u64) {
    until(|| sinks.value().to_string(), || status(sinks, "tg")["done"] == count);
}

fn failed_with(sinks: &Sinks, text: &str) -> Value {
    let fails = |v: &Value| v["last_error"]["message"].as_str().is_some_and(|m| m.contains(text));
    until(|| format!("no {text:?}: {}", sinks.value()), || fails(&status(sinks, "tg")));
    status(sinks, "tg")
}

#[test]
fn a_ban_is_one_message_in_html() {
    let dir = tempfile::tempdir().unwrap();
    let server = api(|_, _| ok(json!({ "message_id": 1 })));
    let text = settings(&server.url(), dir.path(), ", thread_id: 7, silent: [ban]");
    let mut sinks = start(&text, dir.path());
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    let messages = sent(&server);
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!(message["chat_id"], -100);
    assert_eq!(message["message_thread_id"], 7);
    assert_eq!(message["parse_mode"], "HTML");
    assert_eq!(message["disable_notification"], true);
    assert_eq!(message["link_preview_options"]["is_disabled"], true);
    assert_eq!(message.get("reply_markup"), None);
    assert_eq!(
        message["text"],
        "⛔ <b>npm</b> on web1: banned <a href=\"https://ipinfo.io/203.0.113.9\">203.0.113.9</a> for 10m\n\
         Bans so far: 2\n\
         Offenses: 5\n\
         Requested host: <code>shop.example</code>\n\
         Container: <code>app:8080</code>\n\
         URI: <code>/wp-login.php?&lt;script&gt;&amp;&quot;</code>\n\
         User agent: <code>evil &lt;b&gt;&quot;agent&quot;&lt;/b&gt; &amp; co</code>"
    );
}

#[test]
fn three_hundred_bans_at_once_are_few_messages_that_count_every_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = api(|_, _| ok(json!({ "message_id": 1 })));
    let mut sinks = start(&settings(&server.url(), dir.path(), ""), dir.path());
    for n in 0..300 {
        sinks.tell(banned(&format!("198.51.{}.{}", n / 200, n % 200)), None);
    }
    drop(sinks.to_write(false));
    sinks.release();
    done(&sinks, 300);
    let messages = sent(&server);
    assert!(messages.len() <= 3, "{} messages", messages.len());
    let mut told = 0;
    for message in &messages {
        let text = message["text"].as_str().unwrap();
        assert!(text.encode_utf16().count() <= 4096, "{text}");
        told += match text.lines().find_map(|line| line.strip_prefix("<b>")?.strip_suffix(" bans</b>")) {
            Some(count) => count.parse::<u32>().unwrap(),
            None => 1,
        };
    }
    assert_eq!(told, 300, "{messages:?}");
}

#[test]
fn messages_keep_a_second_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = api(|_, _| ok(json!({})));
    let mut sinks = start(&settings(&server.url(), dir.path(), ""), dir.path());
    for n in 1..=3 {
        tell(&mut sinks, banned(&format!("203.0.113.{n}")));
    }
    done(&sinks, 3);
    let times: Vec<_> = server.requests().iter().map(|r| r.at).collect();
    assert_eq!(times.len(), 3);
    assert!(times.windows(2).all(|t| t[1] - t[0] >= Duration::from_millis(950)), "{times:?}");
}

#[test]
fn the_time_that_is_asked_for_is_waited() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    let server = api(move |_, _| {
        count += 1;
        match count {
            1 => refusal(429, "Too Many Requests: retry after 3", json!({ "retry_after": 3 })),
            2 => refusal(429, "Too Many Requests", Value::Null).with("retry-after", 2),
            _ => ok(json!({})),
        }
    });
    let mut sinks = start(&settings(&server.url(), dir.path(), ""), dir.path());
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    let times: Vec<_> = server.requests().iter().map(|r| r.at).collect();
    assert_eq!(times.len(), 3);
    assert!(times[1] - times[0] >= Duration::from_secs(3), "{times:?}");
    assert!(times[2] - times[1] >= Duration::from_secs(2), "{times:?}");
    assert_eq!(status(&sinks, "tg")["lost"], 0);
}

#[test]
fn a_group_that_moves_is_followed_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = api(|_, request| match request.json()["chat_id"].as_i64() {
        Some(-100) => refusal(
            400,
            "Bad Request: group chat was upgraded to a supergroup chat",
            json!({ "migrate_to_chat_id": -1_001_234 }),
        ),
        Some(-1_001_234) => ok(json!({})),
        other => panic!("{other:?}"),
    });
    let text = settings(&server.url(), dir.path(), "");
    let mut sinks = start(&text, dir.path());
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    tell(&mut sinks, banned("203.0.113.10"));
    done(&sinks, 2);
    drop(sinks);
    let mut sinks = start(&text, dir.path());
    tell(&mut sinks, banned("203.0.113.11"));
    done(&sinks, 1);
    let chats: Vec<_> = sent(&server).iter().map(|m| m["chat_id"].as_i64().unwrap()).collect();
    assert_eq!(chats, [-100, -1_001_234, -1_001_234, -1_001_234]);
}

#[test]
fn what_telegram_cannot_parse_is_sent_without_markup_and_else_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = api(|_, request| {
        let message = request.json();
        let text = message["text"].as_str().unwrap();
        if text.contains("never") {
            return refusal(400, "Bad Request: message is not liked", Value::Null);
        }
        match message.get("parse_mode") {
            Some(_) => refusal(400, "Bad Request: can't parse entities: Unsupported start tag", Value::Null),
            None => ok(json!({})),
        }
    });
    let mut sinks = start(&settings(&server.url(), dir.path(), ""), dir.path());
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    let messages = sent(&server);
    assert_eq!(messages.len(), 2, "{messages:?}");
    let plain = messages[1]["text"].as_str().unwrap();
    assert!(plain.contains("URI: /wp-login.php?<script>&\"") && !plain.contains("<code>"), "{plain}");
    let fault = stockade::sinks::event::Fault { at: Default::default(), message: "never".to_owned() };
    tell(&mut sinks, Event::Error(fault));
    failed_with(&sinks, "not liked");
    until(|| sinks.value().to_string(), || status(&sinks, "tg")["lost"] == 1);
    tell(&mut sinks, banned("203.0.113.10"));
    done(&sinks, 2);
}

#[test]
fn refusals_say_what_to_do() {
    for (code, description, advice) in [
        (401, "Unauthorized", "check the token"),
        (404, "Not Found", "check the token"),
        (403, "Forbidden: bot was kicked from the supergroup chat", "add it to the chat"),
        (403, "Forbidden: bot was blocked by the user", "press Start"),
        (400, "Bad Request: chat not found", "check chat_id"),
        (400, "Bad Request: message thread not found", "thread_id"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = api(move |_, _| refusal(code, description, Value::Null));
        let mut sinks = start(&settings(&server.url(), dir.path(), ""), dir.path());
        tell(&mut sinks, banned("203.0.113.9"));
        let shown = failed_with(&sinks, advice);
        assert_eq!(
            (&shown["state"], &shown["lost"], &shown["queue"]),
            (&json!("refused"), &json!(0), &json!(1))
        );
        assert_eq!(server.requests().len(), 1, "asked again at once");
    }
}

/// What the agent writes to its log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// nextest runs each test in a process of its own.
    fn begin() -> Self {
        let log = Self::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_token_is_shown_nowhere_whatever_goes_wrong() {
    let log = Log::begin();
    let dir = tempfile::tempdir().unwrap();
    let quoted = format!("the path /bot{TOKEN}/sendMessage and bot123456%3A{KEY} are wrong");
    let body = json!({ "ok": false, "error_code": 500, "description": quoted });
    let body_text = body.to_string().into_bytes();
    // A port that nobody listens at, and a server whose certificate nobody trusts.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tls = Server::start_tls(&dir.path().join("ca"), |_| ok(json!({})));
    let reply = |reply: Reply| {
        let server = Server::start(move |_| reply.clone());
        server.url()
    };
    let quote = |code: u16| {
        let quoted = quoted.clone();
        reply(refusal(code, &quoted, Value::Null))
    };
    let cases = [
        (format!("http://{closed}"), "failed to reach"),
        (format!("https://{}", tls.address), "failed to reach"),
        (reply(Reply::Half(200, body_text.clone())), "failed to reach"),
        (reply(Reply::Close), "failed to reach"),
        (reply(Reply::Stall(Duration::from_secs(3))), "failed to reach"),
        (reply(Reply::Answer(200, Vec::new(), quoted.clone().into_bytes())), "not the Bot API"),
        (reply(Reply::Answer(302, vec![("location", format!("/bot{TOKEN}"))], Vec::new())), "302"),
        (quote(500), "[secret]"),
        (quote(400), "[secret]"),
        (quote(401), "[secret]"),
        (quote(403), "[secret]"),
        (quote(429), "[secret]"),
    ];
    let mut shown = String::new();
    for (url, told) in cases {
        let dir = tempfile::tempdir().unwrap();
        let text = settings(&url, dir.path(), ", unban_button: { users: [42] }");
        let sink = config(&text).sinks.remove(0);
        shown += &format!("{sink:?}");
        let (calls, _orders) = mpsc::channel(1);
        let context = Context { host: "h".to_owned(), calls: Some(calls), ..Context::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let checked = runtime.block_on(check(&sink, &context));
        assert!(!checked[0].good, "{url}: {checked:?}");
        shown += &format!("{checked:?}");
        let mut sinks = Sinks::start(&[sink], context, Vec::new()).unwrap();
        tell(&mut sinks, banned("203.0.113.9"));
        failed_with(&sinks, told);
        shown += &sinks.value().to_string();
    }
    until(|| log.text(), || log.text().contains("presses of Unban do not come through"));
    shown += &log.text();
    assert!(shown.contains("failed to reach") && shown.contains("[secret]"), "{shown}");
    assert!(!shown.contains(KEY), "{shown}");
}

#[test]
fn what_is_no_token_is_not_sent() {
    for token in
        ["hunter2", "123456", "123456:", "12a:AAF-abc_DEFghi", "1:AAF/../../abcdefgh", "1:AAF?abcdefghijk"]
    {
        let dir = tempfile::tempdir().unwrap();
        let server = api(|_, _| ok(json!({})));
        let mut sinks = start(&settings_with(&server.url(), dir.path(), "", token), dir.path());
        tell(&mut sinks, banned("203.0.113.9"));
        let shown = failed_with(&sinks, "@BotFather");
        assert_eq!(shown["state"], "refused");
        assert!(server.requests().is_empty());
    }
}

#[test]
fn half_answers_and_silence_are_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    let server = api(move |_, _| {
        count += 1;
        match count {
            1 => Reply::Half(200, br#"{"ok":true,"result":{}}"#.to_vec()),
            2 => Reply::Close,
            3 => refusal(502, "Bad Gateway", Value::Null),
            _ => ok(json!({})),
        }
    });
    let mut sinks = start(&settings(&server.url(), dir.path(), ""), dir.path());
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    assert_eq!(status(&sinks, "tg")["lost"], 0);
    let texts: BTreeSet<_> = sent(&server).iter().map(Value::to_string).collect();
    assert_eq!(texts.len(), 1, "the same message each time: {texts:?}");
}

#[test]
fn checking_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = api(|method, _| match method {
        "getMe" => ok(json!({ "id": 1, "username": "wall_bot" })),
        "getChat" => ok(json!({ "id": -100, "type": "supergroup", "title": "Bans\u{202e}" })),
        "getWebhookInfo" => ok(json!({ "url": "https://elsewhere.example" })),
        other => panic!("{other}"),
    });
    let text = settings(&server.url(), dir.path(), ", unban_button: { users: [42] }");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let checked = runtime.block_on(check(&config(&text).sinks[0], &Context::default()));
    let told: Vec<_> = checked.iter().map(|c| (c.good, c.text.as_str())).collect();
    assert_eq!(told[0], (true, "the bot @wall_bot answers"));
    assert!(told[1].0 && told[1].1.contains("supergroup `Bans `"), "{told:?}");
    assert!(!told[2].0 && told[2].1.contains("deleteWebhook"), "{told:?}");
    let methods: Vec<_> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(methods.len(), 3, "{methods:?}");
}

/// A press of the button, as the API hands it out.
fn press(update: i64, user: i64, chat: i64, data: &str) -> Value {
    json!({
        "update_id": update,
        "callback_query": {
            "id": format!("q{update}"),
            "from": { "id": user, "is_bot": false, "first_name": "X", "username": "x" },
            "message": { "message_id": 5, "date": 1, "chat": { "id": chat, "type": "supergroup" } },
            "chat_instance": "1",
            "data": data,
        },
    })
}

/// The Bot API with these updates in store, which it hands out until they are confirmed.
fn api_with(updates: impl Fn() -> Vec<Value> + Send + 'static) -> Server {
    api(move |method, request| match method {
        "getUpdates" => {
            let body = request.json();
            assert_eq!(body["allowed_updates"], json!(["callback_query"]));
            let from = body["offset"].as_i64().unwrap_or(0);
            let due: Vec<_> =
                updates().into_iter().filter(|u| u["update_id"].as_i64().unwrap() >= from).collect();
            if due.is_empty() && body["timeout"] != 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            ok(due.into())
        }
        _ => ok(json!({ "message_id": 5 })),
    })
}

/// Sinks whose orders are answered by `answer`, and the orders.
fn with_agent(
    text: &str,
    dir: &Path,
    answer: impl Fn(&Order) -> Response + Send + 'static,
) -> (Sinks, Arc<Mutex<Vec<Order>>>) {
    let (calls, mut orders) = mpsc::channel::<Call>(4);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&seen);
    std::thread::spawn(move || {
        while let Some((order, reply)) = orders.blocking_recv() {
            let answer = answer(&order);
            to.lock().unwrap().push(order);
            drop(reply.send(answer));
        }
    });
    let context =
        Context { host: "web1".to_owned(), state: dir.to_owned(), calls: Some(calls), ..Context::default() };
    (Sinks::start(&config(text).sinks, context, Vec::new()).unwrap(), seen)
}

fn unbanned(_: &Order) -> Response {
    Response::Ok(json!({ "unbanned": [{ "jail": "npm" }], "not_banned": [], "covered": [] }))
}

#[test]
fn a_press_of_unban_lifts_the_ban_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = Arc::new(Mutex::new(None::<String>));
    let due = Arc::clone(&data);
    let server = api_with(move || due.lock().unwrap().iter().map(|data| press(77, 42, -100, data)).collect());
    let text = settings(&server.url(), dir.path(), ", unban_button: { users: [42] }");
    let (mut sinks, orders) = with_agent(&text, dir.path(), unbanned);
    tell(&mut sinks, banned("2001:db8:1:2::/64"));
    done(&sinks, 1);
    let button = sent(&server)[0]["reply_markup"]["inline_keyboard"][0][0].clone();
    assert_eq!(button["text"], "Unban 2001:db8:1:2::/64");
    *data.lock().unwrap() = Some(button["callback_data"].as_str().unwrap().to_owned());
    until(|| "no answer".to_owned(), || !asked(&server, "editMessageReplyMarkup").is_empty());
    let order = Order::Unban { offenders: vec!["2001:db8:1:2::/64".to_owned()], jail: None };
    assert_eq!(*orders.lock().unwrap(), std::slice::from_ref(&order));
    let answers = asked(&server, "answerCallbackQuery");
    assert_eq!(answers[0]["callback_query_id"], "q77");
    assert!(answers[0]["text"].as_str().unwrap().contains("is unbanned (npm)"), "{answers:?}");
    let edit = &asked(&server, "editMessageReplyMarkup")[0];
    assert_eq!((&edit["chat_id"], &edit["message_id"]), (&json!(-100), &json!(5)));
    assert_eq!(edit["reply_markup"], json!({ "inline_keyboard": [] }));
    // It is asked for more, and was confirmed.
    let polls = asked(&server, "getUpdates").len();
    until(|| "no more polls".to_owned(), || asked(&server, "getUpdates").len() > polls + 1);
    assert_eq!(asked(&server, "getUpdates").last().unwrap()["offset"], 78);
    assert_eq!(*orders.lock().unwrap(), [order]);
}

#[test]
fn strangers_and_what_we_did_not_write_lift_nothing() {
    let log = Log::begin();
    let dir = tempfile::tempdir().unwrap();
    let data = Arc::new(Mutex::new(None::<String>));
    let due = Arc::clone(&data);
    let server = api_with(move || {
        let Some(good) = due.lock().unwrap().clone() else { return Vec::new() };
        let other = good.replace("203.0.113.9/32", "0/0");
        let mut presses = vec![
            press(1, 43, -100, &good),
            press(2, 42, -101, &good),
            press(3, 42, -100, &other),
            press(4, 42, -100, "unban all"),
            json!({ "update_id": 5, "callback_query": { "id": "q5", "from": { "id": 42 }, "data": good } }),
            json!({ "update_id": 6, "message": { "text": "/unban" } }),
            json!({ "update_id": 7 }),
        ];
        presses.extend((8..40).map(|n| press(n, 44, -100, &good)));
        presses.push(press(40, 42, -100, "the end"));
        presses
    });
    let text = settings(&server.url(), dir.path(), ", unban_button: { users: [42] }");
    let (mut sinks, orders) = with_agent(&text, dir.path(), unbanned);
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    let button = sent(&server)[0]["reply_markup"]["inline_keyboard"][0][0].clone();
    *data.lock().unwrap() = Some(button["callback_data"].as_str().unwrap().to_owned());
    let answers = || -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        asked(&server, "answerCallbackQuery")
            .iter()
            .map(|a| (text(&a["callback_query_id"]), text(&a["text"])))
            .collect()
    };
    until(|| format!("{:?}", answers()), || answers().iter().any(|(id, _)| id == "q40"));
    assert!(orders.lock().unwrap().is_empty());
    assert!(asked(&server, "editMessageReplyMarkup").is_empty());
    for (id, told) in answers() {
        let ours = ["q3", "q4", "q40"].contains(&id.as_str());
        assert_eq!(told, if ours { "This button is not of this agent." } else { "You may not do that." });
    }
    assert_eq!(answers().len(), 3 + 5, "few strangers are answered: {:?}", answers());
    assert_eq!(log.text().matches("and may not").count(), 5, "{}", log.text());
}

#[test]
fn who_else_has_the_bots_updates_is_told() {
    let log = Log::begin();
    let dir = tempfile::tempdir().unwrap();
    let server = api(|method, _| match method {
        "getUpdates" => refusal(409, "Conflict: terminated by other getUpdates request", Value::Null),
        _ => ok(json!({})),
    });
    let text = settings(&server.url(), dir.path(), ", unban_button: { users: [42] }");
    let (mut sinks, _orders) = with_agent(&text, dir.path(), unbanned);
    // It listens before there is anything to tell.
    until(|| log.text(), || log.text().contains("another program has this bot's updates"));
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    assert_eq!(asked(&server, "getUpdates").len(), 1, "it does not insist");
}

#[test]
fn without_users_there_is_no_button_and_nothing_is_polled() {
    let dir = tempfile::tempdir().unwrap();
    let server = api_with(Vec::new);
    let (mut sinks, _orders) = with_agent(&settings(&server.url(), dir.path(), ""), dir.path(), unbanned);
    tell(&mut sinks, banned("203.0.113.9"));
    done(&sinks, 1);
    assert_eq!(sent(&server)[0].get("reply_markup"), None);
    assert!(asked(&server, "getUpdates").is_empty());
}
