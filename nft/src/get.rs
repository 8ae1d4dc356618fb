//! Elements asked for by their keys.
//!
//! ```text
//! NFT_MSG_GETSETELEM, no NLM_F_DUMP { table, set, elements { key, ... } }
//! ```
//!
//! The kernel looks the keys up one after the other and answers each with a message of its own, until one is not there: then
//! it says ENOENT and leaves the rest (`nf_tables_getsetelem` in net/netfilter/nf_tables_api.c). An element whose time is over is
//! not there. So the number of answers tells which one is missing, and the next question begins behind it.

use std::io;

use crate::connection::{Answer, Connection};
use crate::element::{self, Element, Listed, Span};
use crate::key::Key;
use crate::list::ListError;
use crate::set::Set;
use crate::sys;
use crate::value::Raw;
use crate::wire::{Message, Writer, attributes};

/// So many keys are asked for at once. All answers wait in the socket before the first can be read; these take less than a
/// receive buffer of the default size.
const AT_ONCE: usize = 64;
/// How often a question is put again that the kernel could not answer for want of room.
const ATTEMPTS: u32 = 20;

impl Connection {
    /// The elements of these keys, in the order of the keys; `None` for one that is not there (or does not fit the set, or
    /// has run out). Costs a few microseconds per key whatever the size of the set; an interval set, however, is listed
    /// whole, and a key found only if an element has exactly that range.
    ///
    /// Of a set that is not there, no element is.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn get(&mut self, set: &Set, keys: &[Key]) -> Result<Vec<Option<Element>>, ListError> {
        if set.is_interval() {
            let listed = match self.elements(set).await {
                Err(e) if e.is_not_found() => Vec::new(),
                listed => listed?,
            };
            let find = |key: &Key| listed.binary_search_by(|element| element.key.cmp(key)).ok();
            return Ok(keys.iter().map(|key| listed.get(find(key)?).cloned()).collect());
        }
        let wanted: Vec<(usize, Raw)> = (keys.iter().enumerate())
            .filter_map(|(n, key)| match element::span(set, key) {
                Ok(Span::Single(raw)) => Some((n, raw)),
                _ => None,
            })
            .collect();
        let mut found = vec![None; keys.len()];
        let mut next = 0;
        let mut at_once = AT_ONCE;
        while next < wanted.len() {
            let asked = &wanted[next..wanted.len().min(next + at_once)];
            let (elements, whole) = self.get_some(set, asked).await?;
            for ((n, _), element) in asked.iter().zip(&elements) {
                found[*n] = Some(element.clone());
            }
            next += elements.len();
            if whole {
                at_once = (at_once * 2).min(AT_ONCE);
            } else {
                // One is missing, and where one is, more may be: a question that breaks off is work for nothing.
                next += 1;
                at_once = (at_once / 4).max(1);
            }
        }
        Ok(found)
    }

    /// The elements of the first of these keys, and whether those were all.
    async fn get_some(
        &mut self,
        set: &Set,
        asked: &[(usize, Raw)],
    ) -> Result<(Vec<Element>, bool), ListError> {
        let what = || format!("elements of {}", crate::commit::name(set));
        let request = |w: &mut Writer| {
            w.str(sys::NFTA_SET_ELEM_LIST_TABLE, &set.table);
            w.str(sys::NFTA_SET_ELEM_LIST_SET, &set.name);
            w.nest(sys::NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                for (_, raw) in asked {
                    w.nest(sys::NFTA_LIST_ELEM, |w| w.data(sys::NFTA_SET_ELEM_KEY, raw.as_bytes()));
                }
            });
        };
        let read = |m: &Message<'_>, all: &mut Vec<Element>| {
            let elements = m.attributes().nested(sys::NFTA_SET_ELEM_LIST_ELEMENTS).into_iter().flatten();
            all.extend(
                elements.filter_map(|(_, e)| Listed::read(set, attributes(e))).map(Listed::into_element),
            );
        };
        for _ in 0..ATTEMPTS {
            let answer = self
                .list_once(sys::NFT_MSG_GETSETELEM, 0, set.family.number(), request, read)
                .await
                .map_err(|source| ListError::Io { what: what(), source })?;
            match answer {
                Answer::Whole(found) if found.len() == asked.len() => return Ok((found, true)),
                Answer::Whole(_) => return Err(ListError::Malformed { what: what() }),
                Answer::Errno(libc::ENOENT, found) if found.len() < asked.len() => return Ok((found, false)),
                Answer::Errno(libc::EINTR | libc::EAGAIN, _) | Answer::Interrupted => {}
                Answer::Errno(errno, _) => return Err(ListError::Refused { what: what(), errno }),
            }
        }
        Err(ListError::Io { what: what(), source: io::Error::from_raw_os_error(libc::EAGAIN) })
    }
}
