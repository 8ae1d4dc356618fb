use super::super::super::event::{Banned, Fault, Merged, Started};
use super::*;
use crate::config::sinks::ChatId;
use crate::sinks::secret::SecretSource;
use crate::types::Timestamp;

fn settings() -> Telegram {
    Telegram {
        chat: ChatId::Number(1),
        token: SecretSource::Env("X".to_owned()),
        thread: None,
        silent: vec![EventKind::Start],
        lookup: Some("https://ipinfo.io/{address}".to_owned()),
        templates: Vec::new(),
        url: String::new(),
        users: Vec::new(),
        http: Default::default(),
    }
}

fn ban(hostile: &str) -> Event {
    let at = Timestamp::from_secs(1_795_000_000);
    let fields = ["host", "uri", "user_agent", "sent_to", "user"];
    Event::Ban(Banned {
        at,
        jail: "npm".to_owned(),
        offender: "203.0.113.9/32".parse().unwrap(),
        since: at,
        until: Some(at.saturating_add(std::time::Duration::from_secs(600))),
        offenses: 5,
        count: 2,
        prolonged: false,
        observed: false,
        problem: None,
        line: hostile.to_owned(),
        fields: fields.map(|name| (name.to_owned(), hostile.to_owned())).into(),
    })
}

#[test]
fn every_default_is_a_template() {
    for (kind, words) in WORDS {
        assert!(Template::parse(words, Escape::Html).is_ok(), "{kind}: {words}");
    }
    assert_eq!(Messages::new(&settings(), "h").templates.len(), EventKind::ALL.len());
}

#[test]
fn a_ban_is_told_with_what_led_to_it() {
    let messages = Messages::new(&settings(), "web1");
    let mut event = ban("-");
    let Event::Ban(banned) = &mut event else { unreachable!() };
    banned.fields.insert("host".to_owned(), "shop.example".to_owned());
    banned.fields.insert("uri".to_owned(), "/?a=<b>&\"c\"".to_owned());
    assert_eq!(
        messages.one(&event),
        "⛔ <b>npm</b> on web1: banned <a href=\"https://ipinfo.io/203.0.113.9\">203.0.113.9</a> for 10m\n\
         Bans so far: 2\n\
         Offenses: 5\n\
         Requested host: <code>shop.example</code>\n\
         URI: <code>/?a=&lt;b&gt;&amp;&quot;c&quot;</code>"
    );
    let off = Messages::new(&Telegram { lookup: None, ..settings() }, "web1");
    assert!(off.one(&event).contains("banned 203.0.113.9 for 10m"), "{}", off.one(&event));
}

/// Tags that are open at the end, and text that is no entity, in what is to be HTML.
fn broken(html: &str) -> Option<String> {
    Template::parse(&html.replace(['{', '}'], ""), Escape::Html)
        .err()
        .map(|e| e.to_string())
        .filter(|e| !e.contains("longer"))
}

#[test]
fn whatever_is_in_a_line_the_message_is_short_and_its_markup_whole() {
    let messages = Messages::new(&settings(), "<web&1>");
    let hostiles = [
        "<".repeat(3000),
        "&".repeat(3000),
        "\"'&amp;<b>".repeat(300),
        "</code></a><a href=\"https://evil.example\">".repeat(50),
        "{address}{{".repeat(200),
        "\u{202e}\u{1b}[2J\n\r\0".repeat(200),
        "🦀".repeat(1000),
        "é\u{301}".repeat(1000),
    ];
    for hostile in hostiles {
        for event in
            [ban(&hostile), Event::Error(Fault { at: Timestamp::default(), message: hostile.clone() })]
        {
            let text = messages.one(&event);
            assert!(text.len() <= LONGEST, "{}", text.len());
            assert_eq!(broken(&text), None, "{text}");
            assert!(!text.contains("<a href=\"https://evil"), "{text}");
            assert!(text.chars().all(|c| c == '\n' || !crate::log::is_hostile(c)), "{text:?}");
        }
        let many = std::iter::repeat_n(
            Arc::new(Event::Error(Fault { at: Timestamp::default(), message: hostile })),
            50,
        )
        .collect::<Vec<_>>();
        let text = messages.digest(&many);
        assert!(text.len() <= LONGEST && broken(&text).is_none(), "{text}");
    }
}

#[test]
fn the_users_words_are_said_and_cut_where_they_are_too_long() {
    let all = "{line}{field.uri}{field.user}".repeat(20);
    let template = |text: &str| vec![(EventKind::Ban, Template::parse(text, Escape::Html).unwrap())];
    let own = Telegram { templates: template("{address} <i>{field.uri}</i>"), ..settings() };
    assert_eq!(Messages::new(&own, "h").one(&ban("/x")), "203.0.113.9 <i>/x</i>");
    let own = Telegram { templates: template(&all), ..settings() };
    let text = Messages::new(&own, "h").one(&ban(&"<".repeat(2000)));
    assert!(text.len() <= LONGEST && broken(&text).is_none(), "{} {text}", text.len());
    // What leaves nothing to say is said in our words.
    let own = Telegram { templates: template("{field.none}"), ..settings() };
    assert!(Messages::new(&own, "h").one(&ban("/x")).contains("203.0.113.9"));
}

#[test]
fn silence_is_kept_where_all_of_it_is_silent() {
    let messages = Messages::new(&settings(), "h");
    let start = Arc::new(Event::Start(Started {
        at: Timestamp::default(),
        version: "1".to_owned(),
        jails: 1,
        bans: 0,
        backend: "nft".to_owned(),
    }));
    let merged = Arc::new(Event::Merged(Merged::default()));
    assert!(messages.is_silent(&[Arc::clone(&start)]));
    assert!(!messages.is_silent(&[Arc::clone(&start), Arc::new(ban("x"))]));
    assert!(!messages.is_silent(&[start, merged]));
}
