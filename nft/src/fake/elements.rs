//! The elements of a set in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::element::{Counter, Element, Span, span};
use crate::set::{Set, millis};
use crate::value::Raw;

/// Elements by the first key they match. Shared until it is changed, so that a batch can be undone by keeping the
/// old one.
#[derive(Clone, Debug, Default)]
pub(super) struct Elements(Arc<BTreeMap<Vec<u8>, Stored>>);

#[derive(Clone, Debug)]
struct Stored {
    element: Element,
    /// The last key it matches.
    last: Vec<u8>,
    /// On the fake's clock.
    ends: Option<Duration>,
}

impl Stored {
    fn is_live(&self, now: Duration) -> bool {
        self.ends.is_none_or(|ends| ends > now)
    }
}

impl Elements {
    pub(super) fn list(&self, set: &Set, now: Duration) -> Vec<Element> {
        let live = self.0.values().filter(|s| s.is_live(now));
        live.map(|s| Element {
            expires: s.ends.map(|ends| ends.saturating_sub(now)),
            counter: set.counter.then(Counter::default),
            ..s.element.clone()
        })
        .collect()
    }

    pub(super) fn add(
        &mut self,
        set: &Set,
        element: &Element,
        now: Duration,
        create: bool,
        old_timeouts: bool,
    ) -> Result<(), i32> {
        if element.timeout.is_some() && !set.has_timeout() {
            return Err(libc::EINVAL);
        }
        let (first, last) = bounds(set, element)?;
        let elements = Arc::make_mut(&mut self.0);
        let timeout = element.timeout.map(|t| Duration::from_millis(millis(t)));
        let ends = timeout.or(set.timeout).map(|t| now.saturating_add(t));
        // Expired ones are not seen, and make room.
        if let Some(there) = elements.get_mut(&first).filter(|s| s.last == last && s.is_live(now)) {
            if create {
                return Err(libc::EEXIST);
            }
            // Without a timeout it stays for ever, or for the set's default anew; the comment stays as it was.
            if !old_timeouts {
                there.ends = ends;
                there.element.timeout = timeout.filter(|t| set.timeout != Some(*t));
            }
            return Ok(());
        }
        let mut live = elements.iter().filter(|(_, s)| s.is_live(now));
        if set.is_interval() && live.clone().any(|(f, s)| overlaps(set, (f, &s.last), (&first, &last))) {
            return Err(libc::ENOTEMPTY);
        }
        if let Some(size) = set.size
            && live.by_ref().count() >= size as usize
        {
            return Err(libc::ENFILE);
        }
        let element = Element {
            key: element.key.clone(),
            timeout: timeout.filter(|t| set.timeout != Some(*t)),
            expires: None,
            comment: element.comment.clone(),
            counter: None,
        };
        elements.insert(first, Stored { element, last, ends });
        Ok(())
    }

    pub(super) fn remove(&mut self, set: &Set, element: &Element, now: Duration) -> Result<(), i32> {
        let (first, last) = bounds(set, element)?;
        let elements = Arc::make_mut(&mut self.0);
        match elements.get(&first) {
            Some(s) if s.last == last && s.is_live(now) => {
                elements.remove(&first);
                Ok(())
            }
            _ => Err(libc::ENOENT),
        }
    }
}

/// Whether two elements of an interval set match a common key; of a concatenation: in every field.
fn overlaps(set: &Set, a: (&[u8], &[u8]), b: (&[u8], &[u8])) -> bool {
    if !set.is_interval() {
        return false;
    }
    let mut at = 0;
    set.key.types().iter().all(|kind| {
        let field = at..at + kind.byte_len() as usize;
        at += (kind.byte_len() as usize).next_multiple_of(4);
        let part = |bytes: &'_ [u8]| bytes.get(field.clone()).unwrap_or(&[]).to_vec();
        part(a.0) <= part(b.1) && part(b.0) <= part(a.1)
    })
}

fn bounds(set: &Set, element: &Element) -> Result<(Vec<u8>, Vec<u8>), i32> {
    let (first, last) = match span(set, &element.key).map_err(|_| libc::EINVAL)? {
        Span::Single(key) => (key, key),
        Span::Closed(first, last) => (first, last),
        Span::HalfOpen(first, Some(end)) => (first, end.predecessor()),
        Span::HalfOpen(first, None) => (first, Raw::new(&[0xff; 64][..first.as_bytes().len()])),
    };
    Ok((first.as_bytes().to_vec(), last.as_bytes().to_vec()))
}
