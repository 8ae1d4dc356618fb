//! Templates of messages in the configuration.

use super::super::cursor::{Cursor, nearest};
use super::super::report::{Report, shown};
use crate::sinks::template::{Escape, Template, TemplateError, known_names};

/// A template that names nothing unknown.
pub(super) fn template(cursor: &Cursor<'_>, escape: Escape, report: &mut Report) -> Option<Template> {
    let text = cursor.some_text(report)?;
    match Template::parse(text, escape) {
        Ok(template) => Some(template),
        Err(TemplateError::Unknown(name)) => {
            let known = known_names(escape);
            let hint = nearest(&name, known.iter().copied()).map_or_else(
                || {
                    let all: Vec<_> = known.iter().copied().collect();
                    format!("known are {} and field.NAME", all.join(", "))
                },
                |near| format!("did you mean `{{{near}}}`?"),
            );
            cursor.mistake(report, format!("there is no `{{{}}}`; {hint}", shown(&name)));
            None
        }
        Err(e) => {
            cursor.mistake(report, e.to_string());
            None
        }
    }
}
