//! `kind: webhook`.

use std::fmt;

use super::super::cursor::{Cursor, Section};
use super::super::report::{Report, shown};
use super::super::tree::Kind as Tree;
use super::telegram::{LOOKUP, lookup};
use super::template::template;
use super::{HTTP_KEYS, http, optional_secret};
use crate::sinks::http::HttpOptions;
use crate::sinks::secret::SecretSource;
use crate::sinks::template::{Escape, Template, known_names};

/// The keys, besides those all sinks have.
pub(super) const KEYS: &[&str] = &[
    "url",
    "url_file",
    "url_env",
    "preset",
    "method",
    "headers",
    "token_file",
    "token_env",
    "secret_file",
    "secret_env",
    "room",
    "body",
    "text",
    "lookup",
    "per_minute",
    "batch",
    HTTP_KEYS[0],
    HTTP_KEYS[1],
    HTTP_KEYS[2],
];

/// The settings of a sink of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is.
    pub url: UrlSource,
    /// Who listens there.
    pub preset: Preset,
    /// PUT in the place of POST.
    pub put: bool,
    /// Headers of the user's own.
    pub headers: Vec<(String, HeaderSource)>,
    /// What lets us in.
    pub token: Option<SecretSource>,
    /// What bodies are signed with.
    pub secret: Option<SecretSource>,
    /// A body of the user's own.
    pub body: Option<Body>,
    /// Words of the user's own, for presets.
    pub text: Option<Template>,
    /// A URL with `{address}` in it.
    pub lookup: Option<String>,
    /// Requests within a minute.
    pub per_minute: u32,
    /// Events in one request, without a preset and a body.
    pub batch: usize,
    /// How HTTP is spoken.
    pub http: HttpOptions,
}

/// Where the URL stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlSource {
    /// In the configuration.
    Plain(Hidden),
    /// It is a secret.
    Secret(SecretSource),
}

/// A URL whose path may be a secret: its `Debug` says where it is, and no more.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = reqwest::Url::parse(&self.0);
        write!(f, "{}/[…]", url.map_or_else(|_| String::new(), |url| url.origin().ascii_serialization()))
    }
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// In the configuration.
    Plain(String),
    /// It is a secret.
    Secret(SecretSource),
}

/// Who listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Something of the user's own.
    None,
    /// A webhook of Discord.
    Discord,
    /// An incoming webhook of Slack.
    Slack,
    /// A topic of ntfy.
    Ntfy,
    /// An application of Gotify.
    Gotify,
    /// This room of Matrix.
    Matrix(String),
}

impl Preset {
    /// How its messages are written.
    #[must_use]
    pub fn escape(&self) -> Escape {
        match self {
            Self::Discord => Escape::Markdown,
            Self::Slack => Escape::Slack,
            Self::None | Self::Ntfy | Self::Gotify | Self::Matrix(_) => Escape::Plain,
        }
    }

    /// How many requests a minute it takes in good humour: Discord 30 for each channel, Slack one a second, ntfy.sh and Synapse one
    /// in five seconds after a burst.
    fn per_minute(&self) -> u32 {
        match self {
            Self::None | Self::Slack | Self::Gotify => 60,
            Self::Discord => 30,
            Self::Ntfy | Self::Matrix(_) => 12,
        }
    }
}

/// JSON whose texts are templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A number, `true`, `false` or `null`.
    Literal(serde_json::Value),
    /// A text.
    Text(Template),
    /// A list.
    List(Vec<Self>),
    /// A map.
    Map(Vec<(String, Self)>),
}

#[derive(Clone, Copy)]
enum Word {
    None,
    Discord,
    Slack,
    Ntfy,
    Gotify,
    Matrix,
}

/// Reads the settings; `None` with mistakes.
pub(super) fn read(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Webhook> {
    let url = address(keys, cursor, report);
    let preset = preset(keys, cursor, report)?;
    let own = preset == Preset::None;
    let of_own = ["body", "batch", "method", "secret_file", "secret_env"];
    for key in if own { &["text"][..] } else { &of_own } {
        if let Some(c) = keys.get(key) {
            let hint = if own { "write `body`" } else { "take it out, or the preset" };
            c.mistake(
                report,
                format!("is for sinks {} a preset; {hint}", if own { "with" } else { "without" }),
            );
        }
    }
    let body = keys.read("body", report, body);
    let words = [("POST", false), ("PUT", true)];
    Some(Webhook {
        put: keys.read("method", report, |c, r| c.word(&words, r)).unwrap_or_default(),
        headers: keys.read("headers", report, |c, r| Some(headers(c, r))).unwrap_or_default(),
        token: optional_secret("token", keys, report),
        secret: optional_secret("secret", keys, report),
        body,
        text: keys.read("text", report, |c, r| template(c, preset.escape(), r)),
        lookup: match keys.get("lookup") {
            Some(c) => lookup(&c, report),
            None => Some(LOOKUP.to_owned()),
        },
        per_minute: whole("per_minute", 6000, keys, report).unwrap_or_else(|| preset.per_minute()),
        batch: whole("batch", 1000, keys, report).unwrap_or(100) as usize,
        http: http(keys, report),
        preset,
        url: url?,
    })
}

fn whole(key: &str, most: u32, keys: &Section<'_>, report: &mut Report) -> Option<u32> {
    keys.read(key, report, |c, r| c.whole(1..=u64::from(most), r)).and_then(|n| u32::try_from(n).ok())
}

fn address(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<UrlSource> {
    let of_secret = optional_secret("url", keys, report).map(UrlSource::Secret);
    let secret = ["url_file", "url_env"].into_iter().find_map(|key| keys.get(key));
    match (keys.get("url"), secret) {
        (Some(c), None) => {
            let text = c.some_text(report)?;
            let checked = super::url(&c, report);
            // Its last `/` may mean something.
            checked.map(|_| UrlSource::Plain(Hidden(text.trim().to_owned())))
        }
        (Some(_), Some(c)) => {
            c.mistake(report, "stands beside url; take one of them out");
            None
        }
        (None, Some(_)) => of_secret,
        (None, None) => {
            cursor.mistake(
                report,
                "has no url; write it, or where it is a secret (Discord, Slack) name a file of mode 600 with url_file",
            );
            None
        }
    }
}

fn preset(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Preset> {
    let words = [
        ("none", Word::None),
        ("discord", Word::Discord),
        ("slack", Word::Slack),
        ("ntfy", Word::Ntfy),
        ("gotify", Word::Gotify),
        ("matrix", Word::Matrix),
    ];
    let word = match keys.get("preset") {
        Some(c) => c.word(&words, report)?,
        None => Word::None,
    };
    let room = keys.read("room", report, |c, r| {
        let text = c.some_text(r)?;
        let fits = text
            .strip_prefix('!')
            .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic()));
        if !fits {
            c.mistake(
                r,
                format!("`{}` is not a room's ID, such as '!abc:example.org' (not an alias)", shown(text)),
            );
        }
        fits.then(|| text.to_owned())
    });
    match (word, keys.get("room")) {
        (Word::Matrix, None) => cursor
            .mistake(report, "has no room; write the ID that its settings show, such as '!abc:example.org'"),
        (Word::Matrix, Some(_)) => {}
        (_, Some(c)) => c.mistake(report, "is for `preset: matrix`"),
        (_, None) => {}
    }
    let token = ["token_file", "token_env"].iter().any(|key| keys.get(key).is_some());
    if matches!(word, Word::Matrix | Word::Gotify) && !token {
        cursor.mistake(
            report,
            "has no token_file; name a file of mode 600 that holds the token (or a variable with token_env)",
        );
    }
    Some(match word {
        Word::None => Preset::None,
        Word::Discord => Preset::Discord,
        Word::Slack => Preset::Slack,
        Word::Ntfy => Preset::Ntfy,
        Word::Gotify => Preset::Gotify,
        Word::Matrix => Preset::Matrix(room?),
    })
}

/// Headers that are ours to set.
const OURS: [&str; 7] = [
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "idempotency-key",
    "user-agent",
];

fn headers(cursor: &Cursor<'_>, report: &mut Report) -> Vec<(String, HeaderSource)> {
    let mut headers = Vec::new();
    for (key, value) in cursor.entries(report) {
        let name = key.text.to_ascii_lowercase();
        let is_name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !is_name || OURS.contains(&name.as_str()) || name.starts_with("x-stockade-") {
            let why = if is_name { "is set by the agent" } else { "is not the name of a header" };
            value.mistake(report, format!("{why}; take it out"));
            continue;
        }
        let source = match &value.node.kind {
            Tree::Map(_) => {
                let keys = value.section(&["value_file", "value_env"], report);
                super::secret("value", &keys, &value, report).map(HeaderSource::Secret)
            }
            _ => value.text(report).and_then(|text| {
                let fits = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
                if !fits {
                    value.mistake(report, "holds what no header can hold");
                }
                fits.then(|| HeaderSource::Plain(text.to_owned()))
            }),
        };
        headers.extend(source.map(|source| (name, source)));
    }
    headers
}

/// JSON, which is YAML, whose texts are templates.
fn body(cursor: &Cursor<'_>, report: &mut Report) -> Option<Body> {
    if !matches!(cursor.node.kind, Tree::Map(_) | Tree::Seq(_)) {
        cursor.mistake(report, "expected a map: JSON as it is, or its YAML, whose texts are templates");
        return None;
    }
    part(cursor, report)
}

fn part(cursor: &Cursor<'_>, report: &mut Report) -> Option<Body> {
    match &cursor.node.kind {
        Tree::Scalar(s) if s.is_null() => Some(Body::Literal(serde_json::Value::Null)),
        Tree::Scalar(s) => {
            let literal = serde_json::from_str(&s.text).ok().filter(|v: &serde_json::Value| !v.is_string());
            match literal.filter(|_| s.plain) {
                Some(value) => Some(Body::Literal(value)),
                None if s.text.trim().is_empty() => Some(Body::Literal(s.text.as_str().into())),
                None => template(cursor, Escape::Plain, report).map(Body::Text),
            }
        }
        Tree::Seq(_) => {
            // All of them are read, and then none where one is a mistake.
            let items: Vec<_> = cursor.items().iter().map(|item| part(item, report)).collect();
            items.into_iter().collect::<Option<_>>().map(Body::List)
        }
        Tree::Map(entries) => {
            // What YAML makes of a template without quotes.
            if let [(key, node)] = entries.as_slice()
                && known_names(Escape::Plain).contains(key.text.as_str())
                && matches!(&node.kind, Tree::Scalar(s) if s.is_null())
            {
                cursor.mistake(report, format!("put `{{{}}}` in quotes", key.text));
                return None;
            }
            let entries = cursor.entries(report);
            let read = entries.iter().map(|(key, value)| Some((key.text.clone(), part(value, report)?)));
            let read: Vec<_> = read.collect();
            read.into_iter().collect::<Option<_>>().map(Body::Map)
        }
    }
}
