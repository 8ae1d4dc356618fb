//! Whether a template is HTML that Telegram takes (<https://core.telegram.org/bots/api#html-style>): one wrong tag, and it
//! refuses every message.

use super::Part;

const TAGS: [&str; 16] = [
    "b",
    "strong",
    "i",
    "em",
    "u",
    "ins",
    "s",
    "strike",
    "del",
    "span",
    "tg-spoiler",
    "a",
    "tg-emoji",
    "code",
    "pre",
    "blockquote",
];

/// # Errors
/// What is wrong.
pub(super) fn check(lines: &[Vec<Part>]) -> Result<(), String> {
    let mut open: Vec<String> = Vec::new();
    for line in lines {
        let has_values = line.iter().any(|part| matches!(part, Part::Value(_)));
        let text: String = line
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Value(_) => "x",
            })
            .collect();
        let before = open.clone();
        // How many of those that were open before stay open all the time.
        let mut least = open.len();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['<', '>', '&']) {
            let (_, here) = rest.split_at(at);
            rest = if let Some(tag) = here.strip_prefix('<') {
                let (tag, after) =
                    end_of_tag(tag).ok_or("a `<` is not closed on its line; write &lt; for one")?;
                follow(tag, &mut open)?;
                least = least.min(open.len());
                after
            } else if here.starts_with('&') {
                entity(here)?
            } else {
                return Err("a `>` closes nothing; write &gt; for one".to_owned());
            };
        }
        // Such a line may be left out.
        if has_values && (open != before || least < before.len()) {
            return Err("a line with values in it must close the tags it opens, and no others".to_owned());
        }
    }
    match open.last() {
        Some(tag) => Err(format!("<{tag}> is not closed")),
        None => Ok(()),
    }
}

/// The inside of a tag whose `<` is gone, and what follows its `>`.
fn end_of_tag(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '>' if !quoted => return Some((text.get(..at)?, text.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

fn follow(tag: &str, open: &mut Vec<String>) -> Result<(), String> {
    if let Some(name) = tag.strip_prefix('/') {
        return match open.pop() {
            Some(last) if last == name.trim() => Ok(()),
            Some(last) => Err(format!("</{}> stands where </{last}> is due", name.trim())),
            None => Err(format!("</{}> closes nothing", name.trim())),
        };
    }
    let name = tag.split(char::is_whitespace).next().unwrap_or_default();
    if !TAGS.contains(&name) {
        return Err(format!("there is no <{name}>; known are {}", TAGS.join(", ")));
    }
    open.push(name.to_owned());
    Ok(())
}

/// What follows an entity.
fn entity(text: &str) -> Result<&str, String> {
    let known = ["&lt;", "&gt;", "&amp;", "&quot;"].iter().find_map(|entity| text.strip_prefix(entity));
    known.ok_or_else(|| "write &amp; for a `&`".to_owned())
}

/// A message without its markup.
pub(super) fn plain(html: &str) -> String {
    let mut out = String::new();
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        out.push_str(before);
        rest = end_of_tag(tag).map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
