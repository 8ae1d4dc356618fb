//! Small templates of messages: `{name}` stands for a value, `{{` and `}}` for braces. Values are what attackers wrote: they
//! are cut, cleaned and escaped, and never read as a template again.

mod markup;
mod values;

use std::collections::BTreeSet;

use thiserror::Error;

pub use self::values::{FIELDS, Facts, NAMES};
use super::event::Event;

/// The longest text of a template, in bytes: room is left for its values.
pub const LONGEST: usize = 2000;

/// A value is no longer, in bytes, at first and where the message would otherwise be too long.
const VALUE: [usize; 5] = [400, 200, 100, 50, 20];

/// What a message is written in: how values are escaped for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Text without markup, also inside of JSON, whose strings are escaped when it is written.
    Plain,
    /// Telegram's HTML.
    Html,
    /// Discord's Markdown.
    Markdown,
    /// Slack's mrkdwn.
    Slack,
}

/// A template that names nothing unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    escape: Escape,
    lines: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Name),
}

/// What stands in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// One of [`NAMES`] or [`FIELDS`].
    Known(&'static str),
    /// `field.NAME`: a field of the filter, whatever it is called.
    Field(String),
}

/// Why a text is no template.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// Nothing has this name.
    #[error("there is no `{{{0}}}`")]
    Unknown(String),
    /// A brace that is not closed.
    #[error("a `{{` is not closed on its line; write `{{{{` for a brace")]
    Open,
    /// A brace that was not opened.
    #[error("a `}}` closes nothing; write `}}}}` for a brace")]
    Close,
    /// It is long.
    #[error("is longer than {LONGEST} bytes")]
    Long,
    /// It holds what is no text.
    #[error("holds a control character")]
    Control,
    /// Telegram would refuse it.
    #[error("is not the HTML that Telegram takes: {0}")]
    Markup(String),
}

impl Template {
    /// Reads a template for messages of a kind. White space at its end is not part of it.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str, escape: Escape) -> Result<Self, TemplateError> {
        let text = text.trim_end();
        if text.len() > LONGEST {
            return Err(TemplateError::Long);
        }
        let lines = text.split('\n').map(|text| line(text, escape)).collect::<Result<Vec<_>, _>>()?;
        if escape == Escape::Html {
            markup::check(&lines).map_err(TemplateError::Markup)?;
        }
        Ok(Self { escape, lines })
    }

    /// The message about an event, of which no value is longer than `longest` bytes before it is escaped. What an event does not
    /// have is empty; a line all of whose values are empty is left out.
    #[must_use]
    pub fn render(&self, event: &Event, facts: &Facts<'_>, longest: usize) -> String {
        let mut out = String::new();
        let mut first = true;
        for line in &self.lines {
            let mut text = String::new();
            let (mut values, mut filled) = (0, 0);
            for part in line {
                match part {
                    Part::Text(part) => text.push_str(part),
                    Part::Value(name) => {
                        let value = self.value(name, event, facts, longest);
                        values += 1;
                        filled += usize::from(!value.is_empty());
                        text.push_str(&value);
                    }
                }
            }
            if values > 0 && filled == 0 {
                continue;
            }
            if !first {
                out.push('\n');
            }
            first = false;
            out.push_str(text.trim_end());
        }
        out
    }

    /// The message of at most `bytes` bytes, with its values cut as far as that takes: before they are escaped, and so neither a
    /// tag nor an entity ever is. `None` where even that is too long, or nothing is said at all.
    #[must_use]
    pub fn within(&self, event: &Event, facts: &Facts<'_>, bytes: usize) -> Option<String> {
        let tried = VALUE.into_iter().map(|longest| self.render(event, facts, longest));
        tried.into_iter().find(|text| text.len() <= bytes && !text.is_empty())
    }

    fn value(&self, name: &Name, event: &Event, facts: &Facts<'_>, longest: usize) -> String {
        match name {
            Name::Known("link") => {
                let address = self.escape.value(&values::known("address", event, facts), longest);
                let url = values::known("lookup", event, facts);
                self.escape.link(&address, &url)
            }
            Name::Known(name) => self.escape.value(&values::known(name, event, facts), longest),
            Name::Field(name) => self.escape.value(values::field(name, event), longest),
        }
    }

    /// Whether `{name}` stands in it.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.lines.iter().flatten().any(|part| matches!(part, Part::Value(Name::Known(n)) if *n == name))
    }
}

fn line(text: &str, escape: Escape) -> Result<Vec<Part>, TemplateError> {
    if text.contains(|c: char| c != '\t' && crate::log::is_hostile(c)) {
        return Err(TemplateError::Control);
    }
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = brace.strip_prefix("{{") {
            plain.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            plain.push('}');
            rest = after;
        } else if let Some(inside) = brace.strip_prefix('{') {
            let (word, after) = inside.split_once('}').ok_or(TemplateError::Open)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(name(word, escape)?));
            rest = after;
        } else {
            return Err(TemplateError::Close);
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

fn name(word: &str, escape: Escape) -> Result<Name, TemplateError> {
    if let Some(field) = word.strip_prefix("field.")
        && !field.is_empty()
    {
        return Ok(Name::Field(field.to_owned()));
    }
    let known = known_names(escape).into_iter().find(|known| *known == word);
    known.map(Name::Known).ok_or_else(|| TemplateError::Unknown(word.to_owned()))
}

/// What may stand in braces, besides `field.NAME`.
#[must_use]
pub fn known_names(escape: Escape) -> BTreeSet<&'static str> {
    let all = NAMES.iter().chain(FIELDS.iter().map(|(name, _)| name)).copied();
    all.filter(|name| *name != "link" || escape != Escape::Plain).collect()
}

impl Escape {
    /// A value that others wrote: one line of at most `longest` bytes before it is escaped, which moves no cursor and is no markup.
    #[must_use]
    pub fn value(self, text: &str, longest: usize) -> String {
        self.escape(&tidy(text, longest))
    }

    /// Text of ours.
    #[must_use]
    pub fn escape(self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match (self, c) {
                (Self::Html | Self::Slack, '&') => out.push_str("&amp;"),
                (Self::Html | Self::Slack, '<') => out.push_str("&lt;"),
                (Self::Html | Self::Slack, '>') => out.push_str("&gt;"),
                (Self::Html, '"') => out.push_str("&quot;"),
                // An emphasis that is opened would go on through our own words.
                (Self::Slack, '*' | '_' | '~' | '`') => {
                    out.push('\u{200b}');
                    out.push(c);
                }
                (
                    Self::Markdown,
                    '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '[' | ']' | '(' | ')' | '#',
                ) => {
                    out.push('\\');
                    out.push(c);
                }
                (Self::Markdown, '@') => out.push_str("@\u{200b}"),
                // An address that looks like a link is made one.
                (Self::Markdown | Self::Slack, ':') if chars.peek() == Some(&'/') => {
                    out.push_str(":\u{200b}");
                }
                _ => out.push(c),
            }
        }
        out
    }

    /// Text of ours, so that it stands out.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        let text = self.escape(text);
        match self {
            Self::Plain => text,
            Self::Html => format!("<b>{text}</b>"),
            Self::Markdown => format!("**{text}**"),
            Self::Slack => format!("*{text}*"),
        }
    }

    /// `text`, escaped already, that leads to `url`, if there is one.
    fn link(self, text: &str, url: &str) -> String {
        if text.is_empty() || url.is_empty() {
            return text.to_owned();
        }
        match self {
            Self::Plain => text.to_owned(),
            Self::Html => format!("<a href=\"{}\">{text}</a>", self.escape(url)),
            // The angle brackets keep Discord from showing a preview.
            Self::Markdown => format!("[{text}](<{url}>)"),
            Self::Slack => format!("<{}|{text}>", self.escape(url)),
        }
    }
}

/// A message in Telegram's HTML without its markup.
#[must_use]
pub fn without_markup(html: &str) -> String {
    markup::plain(html)
}

/// One line of at most `longest` bytes, and a `…` where it was cut; what would move a cursor or reorder what is read is a space.
#[must_use]
pub fn tidy(text: &str, longest: usize) -> String {
    let mut out = String::new();
    for c in text.trim().chars() {
        if out.len() + c.len_utf8() > longest {
            out.push('…');
            break;
        }
        out.push(if is_unseen(c) || crate::log::is_hostile(c) { ' ' } else { c });
    }
    out
}

/// Characters without a width, which hide what is written or stack upon it.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{300}'..='\u{36f}')
}

#[cfg(test)]
mod tests;
