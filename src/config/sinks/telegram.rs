//! `kind: telegram`.

use super::super::cursor::{Cursor, Section};
use super::super::report::{Report, shown};
use super::template::template;
use super::{HTTP_KEYS, http, secret, url};
use crate::sinks::event::EventKind;
use crate::sinks::http::HttpOptions;
use crate::sinks::secret::SecretSource;
use crate::sinks::template::{Escape, Template};

/// The keys, besides those all sinks have.
pub(super) const KEYS: &[&str] = &[
    "chat_id",
    "token_file",
    "token_env",
    "thread_id",
    "silent",
    "lookup",
    "templates",
    "url",
    "unban_button",
    HTTP_KEYS[0],
    HTTP_KEYS[1],
    HTTP_KEYS[2],
];

/// Where the Bot API is.
const URL: &str = "https://api.telegram.org";
/// Where more is told about an address.
pub(super) const LOOKUP: &str = "https://ipinfo.io/{address}";

/// The settings of a sink of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telegram {
    /// Who is told.
    pub chat: ChatId,
    /// The bot's token, as @BotFather gave it.
    pub token: SecretSource,
    /// A topic of a forum.
    pub thread: Option<i64>,
    /// What is told without a sound.
    pub silent: Vec<EventKind>,
    /// A URL with `{address}` in it.
    pub lookup: Option<String>,
    /// Words of the user's own.
    pub templates: Vec<(EventKind, Template)>,
    /// Where the Bot API is, without a `/` at its end.
    pub url: String,
    /// Whose presses of the Unban button are honoured; none: there is no button.
    pub users: Vec<i64>,
    /// How HTTP is spoken.
    pub http: HttpOptions,
}

/// A chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatId {
    /// A person, a group (negative) or a channel (beginning with -100).
    Number(i64),
    /// A public channel or group, with its `@`.
    Name(String),
}

/// Reads the settings; `None` with mistakes.
pub(super) fn read(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Telegram> {
    if keys.get("chat_id").is_none() {
        cursor
            .mistake(report, "has no chat_id; name the chat: a number such as -1001234567890, or '@channel'");
    }
    let chat = keys.read("chat_id", report, chat);
    let token = secret("token", keys, cursor, report);
    let thread = keys.read("thread_id", report, |c, r| c.whole(1..=i64::MAX as u64, r));
    let lookup = match keys.get("lookup") {
        Some(c) => lookup(&c, report),
        None => Some(LOOKUP.to_owned()),
    };
    let templates = keys.read("templates", report, |c, r| Some(templates(c, r))).unwrap_or_default();
    if lookup.is_none()
        && let (Some(c), true) = (keys.get("templates"), templates.iter().any(|(_, t)| t.names("lookup")))
    {
        c.mistake(report, "one of them holds `{lookup}`, and `lookup` is off; `{link}` does without");
    }
    Some(Telegram {
        thread: thread.and_then(|id| i64::try_from(id).ok()),
        silent: keys.read("silent", report, silent).unwrap_or_default(),
        lookup,
        templates,
        url: keys.read("url", report, url).unwrap_or_else(|| URL.to_owned()),
        users: keys.read("unban_button", report, button).unwrap_or_default(),
        http: http(keys, report),
        chat: chat?,
        token: token?,
    })
}

fn chat(cursor: &Cursor<'_>, report: &mut Report) -> Option<ChatId> {
    let text = cursor.some_text(report)?;
    if let Some(name) = text.strip_prefix('@') {
        let fits =
            (4..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if fits {
            return Some(ChatId::Name(text.to_owned()));
        }
    } else if let Ok(number) = text.parse()
        && number != 0
    {
        return Some(ChatId::Number(number));
    }
    cursor.mistake(report, format!("`{}` is neither a number nor an '@name'", shown(text)));
    None
}

/// All, none, or some.
fn silent(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<EventKind>> {
    match cursor.plain().map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "yes" | "on") => Some(EventKind::ALL.to_vec()),
        Some("false" | "no" | "off") => Some(Vec::new()),
        _ => super::events(cursor, report),
    }
}

/// `off`, or a URL with `{address}` in it.
pub(super) fn lookup(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    if matches!(text, "off" | "no" | "false") {
        return None;
    }
    let tried = reqwest::Url::parse(&text.replace("{address}", "192.0.2.1"));
    let fits = tried.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !fits
        || !text.contains("{address}")
        || text.contains(|c: char| c.is_whitespace() || "\"<>".contains(c))
    {
        cursor.mistake(report, format!("expected `off` or a URL with {{address}} in it, such as {LOOKUP}"));
        return None;
    }
    Some(text.to_owned())
}

fn templates(cursor: &Cursor<'_>, report: &mut Report) -> Vec<(EventKind, Template)> {
    let keys = cursor.section(&EventKind::ALL.map(EventKind::word), report);
    let read = |kind: EventKind| {
        let template = keys.read(kind.word(), report, |c, r| template(c, Escape::Html, r))?;
        Some((kind, template))
    };
    EventKind::ALL.into_iter().filter_map(read).collect()
}

/// `{ users: [1234] }`, or `off`.
fn button(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<i64>> {
    if matches!(cursor.plain(), Some("off" | "no" | "false")) {
        return None;
    }
    let keys = cursor.section(&["users"], report);
    let users = keys.read("users", report, |c, r| {
        Some(c.list(r, |c, r| c.whole(1..=i64::MAX as u64, r).and_then(|id| i64::try_from(id).ok())))
    });
    if cursor.is_map(report) && keys.get("users").is_none_or(|c| c.items().is_empty()) {
        cursor.mistake(report, "has no users; name those who may unban, by their numbers");
    }
    users
}
