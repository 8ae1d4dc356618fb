//! YAML text as a tree whose every node knows its place.
//!
//! It is built from parser events and not through serde, because serde stops at the first mistake, and because a
//! plain scalar's own text is needed: a regular expression may look like a number.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::report::{Location, Path, Report, clean, shown};

/// A node may stand so deep; the deepest key that means anything stands at 6.
const DEPTH_MAX: usize = 32;

/// How heavy a document may be, aliases written out: a node weighs one, and one more per [`TEXT_PER_WEIGHT`] bytes of
/// text. It stops a file of a few lines whose aliases name aliases from filling the memory.
const WEIGHT_MAX: usize = 400_000;

const TEXT_PER_WEIGHT: usize = 64;

/// Tags that only say what the reader of a key finds out anyway.
const CORE_TAGS: &str = "tag:yaml.org,2002:";

/// A value and its place. An alias has the place of what it stands for: that is where a mistake is mended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: Location,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Scalar(Scalar),
    Seq(Vec<Node>),
    /// In the order of the file, merged entries last; no two keys are alike.
    Map(Vec<(Key, Node)>),
}

/// A scalar's text, and whether it is plain: a quoted one is never nothing or a truth value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) plain: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) at: Location,
    pub(super) text: String,
}

impl Scalar {
    /// Nothing was written, or `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// Reads the one document of `text`. `None`: it is not well formed, and the report says where.
pub(super) fn read(text: &str, report: &mut Report) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        disallow_directives: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder { report, stack: Vec::new(), root: None, anchors: HashMap::new(), weight: 0 };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match next {
            Ok(next) => next,
            Err(e) => {
                let at = location(e.marker().line(), e.marker().col());
                builder.report.mistake(Some(at), Path::Root, syntax(&clean(&e.kind().to_string())));
                return None;
            }
        };
        let at = location(span.start.line(), span.start.col());
        if builder.event(event, &span, at).is_err() {
            return None;
        }
    }
    let nothing = Kind::Scalar(Scalar { text: String::new(), plain: true });
    Some(builder.root.unwrap_or(Node { at: Location { line: 1, column: 1 }, kind: nothing }))
}

/// The parser's words, and what usually helps.
fn syntax(words: &str) -> String {
    const HELP: &[(&str, &str)] = &[
        ("mapping values are not allowed", "text with a `: ` in it must stand in quotes"),
        ("tab", "indent with spaces"),
        ("escape", "use single quotes: in them a backslash is a backslash"),
        ("quoted scalar", "is a quote not closed?"),
        ("cannot start", "put the text in quotes"),
        ("unexpected character", "put the text in quotes"),
    ];
    let help = HELP.iter().find(|(part, _)| words.contains(part)).map_or("", |(_, help)| *help);
    let colon = if help.is_empty() { "" } else { "; " };
    format!("not valid YAML: {words}{colon}{help}")
}

/// The mistake is reported, and nothing more can be read.
struct Stop;

enum Frame {
    Seq { at: Location, anchor: usize, items: Vec<Node> },
    Map(MapFrame),
}

struct MapFrame {
    at: Location,
    anchor: usize,
    entries: Vec<(Key, Node)>,
    seen: HashMap<String, Location>,
    merged: Vec<Node>,
    next: Next,
}

/// What the next node of a map is.
enum Next {
    Key,
    Value(Key),
    Merged,
    /// The value of a key that is a mistake.
    Dropped,
}

struct Builder<'r> {
    report: &'r mut Report,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, usize)>,
    weight: usize,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span, at: Location) -> Result<(), Stop> {
        match event {
            Event::Alias(id) => {
                let Some((node, weight)) = self.anchors.get(&id) else {
                    return self.stop(at, "this alias names the block it stands in");
                };
                let (node, weight) = (node.clone(), *weight);
                self.weigh(at, weight)?;
                self.node(node, 0)
            }
            Event::UnresolvedAlias(name) => {
                let name = shown(&name);
                self.stop(
                    at,
                    format!("no anchor `&{name}` stands above; put text with a leading `*` in quotes"),
                )
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(tag.as_deref(), span, at);
                self.weigh(at, 1 + text.len() / TEXT_PER_WEIGHT)?;
                // A tag such as !!str does what quotes do.
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let kind = Kind::Scalar(Scalar { text: text.into_owned(), plain });
                self.node(Node { at, kind }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), span, at);
                self.weigh(at, 1)?;
                self.stack.push(Frame::Seq { at, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), span, at);
                self.weigh(at, 1)?;
                self.stack.push(Frame::Map(MapFrame {
                    at,
                    anchor,
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    merged: Vec::new(),
                    next: Next::Key,
                }));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentStart(..) if self.root.is_some() => {
                self.stop(at, "a second document begins here; only one is read")
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Stop> {
        match self.stack.pop() {
            Some(Frame::Seq { at, anchor, items }) => self.node(Node { at, kind: Kind::Seq(items) }, anchor),
            Some(Frame::Map(mut map)) => {
                for node in std::mem::take(&mut map.merged) {
                    self.merge(&mut map, node);
                }
                self.node(Node { at: map.at, kind: Kind::Map(map.entries) }, map.anchor)
            }
            None => Ok(()),
        }
    }

    /// Puts a finished node where it belongs.
    fn node(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor > 0 {
            let weight = weight(&node);
            self.weigh(node.at, weight)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::Seq { items, .. }) => items.push(node),
            Some(Frame::Map(map)) => match std::mem::replace(&mut map.next, Next::Key) {
                Next::Key => self.key(node),
                Next::Value(key) => map.entries.push((key, node)),
                Next::Merged => map.merged.push(node),
                Next::Dropped => {}
            },
        }
        Ok(())
    }

    fn key(&mut self, node: Node) {
        let path = self.path();
        let Some(Frame::Map(map)) = self.stack.last_mut() else { return };
        map.next = match node.kind {
            Kind::Scalar(Scalar { text, plain }) => match map.seen.entry(text.clone()) {
                Entry::Occupied(first) => {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", shown(&text));
                    let text = format!("stands here a second time; line {} has the first", first.get().line);
                    self.report.mistake(Some(node.at), path, text);
                    Next::Dropped
                }
                Entry::Vacant(free) => {
                    free.insert(node.at);
                    if plain && text == "<<" { Next::Merged } else { Next::Value(Key { at: node.at, text }) }
                }
            },
            Kind::Seq(_) | Kind::Map(_) => {
                self.report.mistake(Some(node.at), path, "a key is a word, not a list or a map");
                Next::Dropped
            }
        };
    }

    /// The keys that lead to what is being read.
    fn path(&self) -> String {
        let mut out = String::new();
        for frame in &self.stack {
            match frame {
                Frame::Seq { items, .. } => out += &format!("[{}]", items.len()),
                Frame::Map(MapFrame { next: Next::Value(key), .. }) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out += &shown(&key.text);
                }
                Frame::Map(_) => {}
            }
        }
        out
    }

    fn merge(&mut self, map: &mut MapFrame, node: Node) {
        match node.kind {
            Kind::Map(entries) => {
                for (key, value) in entries {
                    // What the map says itself goes before what it merges, and an earlier merge before a later.
                    if let Entry::Vacant(free) = map.seen.entry(key.text.clone()) {
                        free.insert(key.at);
                        map.entries.push((key, value));
                    }
                }
            }
            Kind::Seq(items) => {
                for item in items {
                    if matches!(item.kind, Kind::Map(_)) {
                        self.merge(map, item);
                    } else {
                        let path = self.path();
                        self.report.mistake(Some(item.at), path, MERGE);
                    }
                }
            }
            Kind::Scalar(_) => {
                let path = self.path();
                self.report.mistake(Some(node.at), path, MERGE);
            }
        }
    }

    fn tag(&mut self, tag: Option<&Tag>, span: &Span, at: Location) {
        if tag.is_some_and(|t| t.handle() != CORE_TAGS) {
            let at = span.tag_start().map_or(at, |m| location(m.line(), m.col()));
            let path = self.path();
            let text = "a tag means nothing here; put text with a leading `!` in quotes";
            self.report.mistake(Some(at), path, text);
        }
    }

    fn weigh(&mut self, at: Location, weight: usize) -> Result<(), Stop> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > WEIGHT_MAX {
            return self
                .stop(at, "the document, its aliases written out, is too large to be a configuration");
        }
        Ok(())
    }

    fn stop(&mut self, at: Location, text: impl Into<String>) -> Result<(), Stop> {
        let path = self.path();
        self.report.mistake(Some(at), path, text);
        Err(Stop)
    }
}

const MERGE: &str = "only a map, or a list of maps, can be merged with `<<`";

fn location(line: usize, column: usize) -> Location {
    // The parser counts lines from 1 and columns from 0.
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Location { line: count(line), column: count(column.saturating_add(1)) }
}

fn weight(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar(s) => 1 + s.text.len() / TEXT_PER_WEIGHT,
        Kind::Seq(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, node)| 1 + weight(node)).sum::<usize>(),
    }
}
