//! Batches, as commands.

use std::fmt;

use super::object::{base_line, set_lines, table_flag_words};
use crate::batch::{Batch, Change, Object, Verb};

impl fmt::Display for Batch {
    /// One command per line, as `nft -f` reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes().iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

impl fmt::Display for Change {
    /// `add element inet stockade banned4 { 203.0.113.7 timeout 1h }`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = matches!(self.verb, Verb::Add | Verb::Create);
        let verb = self.verb.word();
        match &self.object {
            Object::Table(t) if whole && t.flags != 0 => {
                write!(f, "{verb} table {} {} {{ {}; }}", t.family, t.name, table_flag_words(t))
            }
            Object::Chain(c) if whole && c.base.is_some() => {
                let base = c.base.as_ref().map(|base| base_line(c.family, base)).unwrap_or_default();
                write!(f, "{verb} chain {} {} {} {{ {base} }}", c.family, c.table, c.name)
            }
            Object::Set(s) if whole => {
                write!(f, "{verb} set {} {} {} {{ {}; }}", s.family, s.table, s.name, set_lines(s).join("; "))
            }
            Object::Table(_) | Object::Chain(_) | Object::Set(_) => write!(f, "{verb} {}", self.object),
            Object::Rule(r) if whole => write!(f, "{verb} rule {} {} {} {r}", r.family, r.table, r.chain),
            Object::Rule(r) => {
                let handle = r.handle.unwrap_or(0);
                write!(f, "{verb} rule {} {} {} handle {handle}", r.family, r.table, r.chain)
            }
            Object::Elements(s, elements) => {
                write!(f, "{verb} element {} {} {} {{ ", s.family, s.table, s.name)?;
                for (i, element) in elements.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    if whole { write!(f, "{comma}{element}") } else { write!(f, "{comma}{}", element.key) }?;
                }
                f.write_str(" }")
            }
        }
    }
}
