//! What is posted.

use std::sync::Arc;

use ring::digest::{Context as Digest, SHA256};
use serde_json::{Value, json};

use super::super::digest;
use super::super::event::{Event, EventKind, Merged};
use super::super::template::{Facts, Template, tidy};
use super::super::words;
use super::hook::hex;
use crate::config::sinks::{Body, Preset, Webhook};

/// A body without a preset is not much larger, in bytes.
const LARGEST: usize = 256 << 10;
/// A value in a body of the user's own is no longer, in bytes.
const VALUE: usize = 2048;

/// What is said of a ban where the configuration has no words of its own; `link` is an address, and more where links can be.
const BAN: [&str; 2] = [
    "{jail} on {host}: {what} {link} for {length}\n",
    "Bans so far: {count}\nOffenses: {offenses}\nRequested host: {requested_host}\nContainer: {container}\nURI: {uri}\n\
     User agent: {user_agent}\nUser: {user}\nNot in force yet: {problem}",
];
const OTHER: &str = "{host}: {message}";

/// How events become bodies.
pub(super) struct Bodies {
    preset: Preset,
    body: Option<Body>,
    ban: Option<Template>,
    other: Option<Template>,
    host: String,
    lookup: Option<String>,
}

impl Bodies {
    pub(super) fn new(settings: &Webhook, host: &str) -> Self {
        let escape = settings.preset.escape();
        let own = || settings.text.clone();
        let ban = BAN.concat();
        let ban = if escape == super::super::template::Escape::Plain {
            ban.replace("{link}", "{address}")
        } else {
            ban
        };
        Self {
            preset: settings.preset.clone(),
            body: settings.body.clone(),
            ban: own().or_else(|| Template::parse(&ban, escape).ok()),
            other: own().or_else(|| Template::parse(OTHER, escape).ok()),
            host: host.to_owned(),
            lookup: settings.lookup.clone(),
        }
    }

    /// Whether each event stands whole in a body of many.
    pub(super) fn is_list(&self) -> bool {
        self.preset == Preset::None && self.body.is_none()
    }

    /// How many of the first `most` events go into one list.
    pub(super) fn fit(events: &[Arc<Event>], most: usize) -> usize {
        let mut size = 0;
        let fits = |event: &&Arc<Event>| {
            size += serde_json::to_vec(&***event).map_or(0, |text| text.len() + 50);
            size <= LARGEST
        };
        events.iter().take(most).take_while(fits).count().max(1)
    }

    /// The body about `events`, and a key that is the same for the same events.
    pub(super) fn make(&self, events: &[Arc<Event>], topic: &str) -> (Vec<u8>, String) {
        let value = match (&self.body, &self.preset) {
            (Some(body), _) => self.own(body, events),
            (None, Preset::None) => self.list(events),
            (None, preset) => self.message(preset, events, topic),
        };
        let ids: String = events.iter().map(|event| self.id(event)).collect();
        (value.to_string().into_bytes(), sha256(&[ids.as_bytes()]))
    }

    fn facts(&self) -> Facts<'_> {
        Facts { host: &self.host, lookup: self.lookup.as_deref() }
    }

    /// What tells an event from others, also after a restart.
    fn id(&self, event: &Event) -> String {
        let text = serde_json::to_vec(event).unwrap_or_default();
        sha256(&[self.host.as_bytes(), b"\n", &text])
    }

    fn list(&self, events: &[Arc<Event>]) -> Value {
        let value = |event: &Arc<Event>| {
            let mut value = serde_json::to_value(&**event).unwrap_or_default();
            value["id"] = self.id(event).into();
            value["message"] = match &**event {
                // It has this already.
                Event::Error(fault) => fault.message.as_str().into(),
                event => words::line(event).into(),
            };
            value
        };
        json!({
            "host": self.host,
            "version": env!("CARGO_PKG_VERSION"),
            "events": events.iter().map(value).collect::<Value>(),
        })
    }

    fn own(&self, body: &Body, events: &[Arc<Event>]) -> Value {
        match events {
            [event] => self.fill(body, event),
            _ => {
                let mut merged = Merged::default();
                events.iter().for_each(|event| merged.add(event));
                self.fill(body, &Event::Merged(merged))
            }
        }
    }

    fn fill(&self, body: &Body, event: &Event) -> Value {
        match body {
            Body::Literal(value) => value.clone(),
            Body::Text(template) => template.render(event, &self.facts(), VALUE).into(),
            Body::List(items) => items.iter().map(|item| self.fill(item, event)).collect(),
            Body::Map(entries) => Value::Object(
                entries.iter().map(|(key, value)| (key.clone(), self.fill(value, event))).collect(),
            ),
        }
    }

    /// A message in a chat.
    fn message(&self, preset: &Preset, events: &[Arc<Event>], topic: &str) -> Value {
        let text = self.text(preset, events);
        let weight = weight(events);
        match preset {
            // Neither mentions nor pictures of what an attacker wrote (4: SUPPRESS_EMBEDS).
            Preset::Discord => json!({ "content": text, "allowed_mentions": { "parse": [] }, "flags": 4 }),
            Preset::Slack => json!({ "text": text, "unfurl_links": false, "unfurl_media": false }),
            Preset::Ntfy => json!({
                "topic": topic,
                "title": self.title(events),
                "message": text,
                "priority": ([2, 3, 4][weight]),
                "tags": ([["information_source"], ["no_entry"], ["warning"]][weight]),
            }),
            Preset::Gotify => {
                json!({ "title": self.title(events), "message": text, "priority": ([2, 5, 8][weight]) })
            }
            // A notice: programs do not answer it.
            Preset::Matrix(_) | Preset::None => json!({ "msgtype": "m.notice", "body": text }),
        }
    }

    fn text(&self, preset: &Preset, events: &[Arc<Event>]) -> String {
        let escape = preset.escape();
        // Discord takes 2000 characters, ntfy 4096 bytes; longer ones nobody reads.
        let longest = if *preset == Preset::Discord { 1900 } else { 3000 };
        let [event] = events else { return digest::text(events, &self.host, escape, longest) };
        let template = match event.kind() {
            None => return digest::text(events, &self.host, escape, longest),
            Some(EventKind::Ban) => &self.ban,
            Some(_) => &self.other,
        };
        let text = template.as_ref().and_then(|template| template.within(event, &self.facts(), longest));
        text.unwrap_or_else(|| escape.value(&words::line(event), longest / 6))
    }

    fn title(&self, events: &[Arc<Event>]) -> String {
        let what = match events {
            [event] => event.jail().map_or_else(|| "stockade".to_owned(), str::to_owned),
            _ => format!("{} events", events.len()),
        };
        format!("{}: {what}", tidy(&self.host, 100))
    }
}

/// 0 is of no concern, 1 is everyday, 2 wants somebody.
fn weight(events: &[Arc<Event>]) -> usize {
    let weigh = |event: &Arc<Event>| match &**event {
        Event::Start(_) | Event::Stop(_) | Event::Unban(_) => 0,
        Event::Ban(_) | Event::Merged(_) => 1,
        Event::Leak(_) | Event::Error(_) => 2,
    };
    events.iter().map(weigh).max().unwrap_or(0)
}

/// The first 32 digits of the digest of all parts.
fn sha256(parts: &[&[u8]]) -> String {
    let mut digest = Digest::new(&SHA256);
    parts.iter().for_each(|part| digest.update(part));
    let mut text = hex(digest.finish().as_ref());
    text.truncate(32);
    text
}
