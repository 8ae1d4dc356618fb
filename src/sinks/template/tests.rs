use std::collections::BTreeMap;

use super::super::event::{Banned, Merged};
use super::*;
use crate::types::Timestamp;

fn ban(fields: &[(&str, &str)]) -> Event {
    let at = Timestamp::from_millis(1_795_000_000_123);
    Event::Ban(Banned {
        at,
        jail: "npm".to_owned(),
        offender: "2001:db8::/64".parse().unwrap(),
        since: at,
        until: None,
        offenses: 5,
        count: 0,
        prolonged: false,
        observed: true,
        problem: None,
        line: "GET /".to_owned(),
        fields: fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    })
}

const FACTS: Facts<'static> = Facts { host: "web1", lookup: Some("https://l.example/{address}?x") };

fn rendered(text: &str, escape: Escape, event: &Event) -> String {
    Template::parse(text, escape).unwrap().render(event, &FACTS, 40)
}

#[test]
fn names_stand_for_values() {
    let event = ban(&[("host", "a.example"), ("level", "warn"), ("message", "m")]);
    for (text, wanted) in [
        ("{address} {length} {until} {what}", "2001:db8::/64 ever never would have banned"),
        ("{{{jail}}} }}{{", "{npm} }{"),
        ("{at} {host} {requested_host}", "2026-11-18T11:06:40Z web1 a.example"),
        ("{lookup} {offenses}{count}", "https://l.example/2001:db8::?x 5"),
        ("{field.message} {level} {event}", "m warn ban"),
        ("a\n{uri}\nb {uri}\nc", "a\nc"),
        ("{uri}\na", "a"),
        ("{uri}{jail}\n\n", "npm"),
        ("", ""),
    ] {
        assert_eq!(rendered(text, Escape::Plain, &event), wanted, "{text}");
    }
    let link = rendered("{link}", Escape::Html, &event);
    assert_eq!(link, "<a href=\"https://l.example/2001:db8::?x\">2001:db8::/64</a>");
    let merged = Event::Merged(Merged { bans: BTreeMap::from([("npm".to_owned(), 3)]), ..Merged::default() });
    let text =
        Template::parse("{event}: {message}{address}", Escape::Plain).unwrap().render(&merged, &FACTS, 400);
    assert!(text.starts_with("merged: ") && text.contains("npm 3"), "{text}");
}

#[test]
fn every_name_is_known() {
    for name in known_names(Escape::Html) {
        let text = format!("{{{name}}}");
        assert!(Template::parse(&text, Escape::Html).is_ok(), "{name}");
        // Each stands for something in some event.
    }
    assert!(!known_names(Escape::Plain).contains("link"));
}

#[test]
fn what_is_no_template_is_refused() {
    for (text, wanted) in [
        ("{adress}", TemplateError::Unknown("adress".to_owned())),
        ("{}", TemplateError::Unknown(String::new())),
        ("{field.}", TemplateError::Unknown("field.".to_owned())),
        ("{link}", TemplateError::Unknown("link".to_owned())),
        ("{a", TemplateError::Open),
        ("{jail\n}", TemplateError::Open),
        ("a}", TemplateError::Close),
        ("a\u{1b}", TemplateError::Control),
        ("a\u{202e}", TemplateError::Control),
    ] {
        assert_eq!(Template::parse(text, Escape::Plain), Err(wanted), "{text:?}");
    }
    assert_eq!(Template::parse(&"x".repeat(LONGEST + 1), Escape::Plain), Err(TemplateError::Long));
    assert!(Template::parse(&"x".repeat(LONGEST), Escape::Plain).is_ok());
}

#[test]
fn html_is_what_telegram_takes() {
    for good in [
        "<b>{jail}</b>",
        "<pre>\n{line}\n</pre>",
        "<a href=\"{lookup}\">a &amp; b</a>",
        "<blockquote expandable>{line}</blockquote>",
        "<span class=\"tg-spoiler\">x</span> &lt;&gt;&quot;",
    ] {
        assert!(Template::parse(good, Escape::Html).is_ok(), "{good}");
    }
    for bad in [
        "<b>",
        "</b>",
        "<b><i></b></i>",
        "<br>",
        "<div>x</div>",
        "a & b",
        "a < b",
        "a > b",
        "&nbsp;",
        "<b>{uri}\n</b>",
        "<b>\n</b>{uri}<b>\n</b>",
        "<a href=\"x>y</a>",
    ] {
        let refused = Template::parse(bad, Escape::Html);
        assert!(matches!(refused, Err(TemplateError::Markup(_))), "{bad}: {refused:?}");
    }
    assert_eq!(without_markup("<a href=\"x>y\">1 &lt; 2</a> &amp;lt; <b>b"), "1 < 2 &lt; b");
}

#[test]
fn values_are_cut_cleaned_and_never_read_again() {
    let hostile = "{jail}\n\u{1b}[2J\u{202e}\u{200b}<b>&\"`*_@here https://evil.example/";
    let event = ban(&[("uri", hostile)]);
    for escape in [Escape::Plain, Escape::Html, Escape::Markdown, Escape::Slack] {
        let text = Template::parse("{uri}", escape).unwrap().render(&event, &FACTS, 400);
        assert!(text.contains("jail}") && !text.contains("npm"), "{text}");
        assert!(!text.contains(crate::log::is_hostile), "{text:?}");
        assert_eq!(text.contains("https://"), matches!(escape, Escape::Plain | Escape::Html), "{text}");
        assert_eq!(text.contains("<b>"), matches!(escape, Escape::Plain), "{text}");
    }
    assert_eq!(Escape::Html.value("<b>\"&", 99), "&lt;b&gt;&quot;&amp;");
    assert_eq!(Escape::Markdown.value("*a* @here", 99), "\\*a\\* @\u{200b}here");
    assert_eq!(Escape::Slack.value("<!here> *a*", 99), "&lt;!here&gt; \u{200b}*a\u{200b}*");
    assert_eq!(Escape::Markdown.value("2001:db8::1", 99), "2001:db8::1", "an address can be copied");
    assert_eq!(tidy("  aaaé  ", 4), "aaa…");
    assert_eq!(tidy("&&&&", 4), "&&&&");
    // A cut before the escape leaves no half of an entity.
    assert_eq!(
        rendered("{uri}", Escape::Html, &ban(&[("uri", &"&".repeat(99))])),
        format!("{}…", "&amp;".repeat(40))
    );
}
