//! A batch: changes that happen together or not at all.

use std::fmt;

use crate::chain::Chain;
use crate::element::Element;
use crate::rule::Rule;
use crate::set::Set;
use crate::table::Table;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make it unless it is there.
    Add,
    /// Make it; it must not be there.
    Create,
    /// Remove it; it must be there.
    Delete,
    /// Remove it if it is there (kernel 6.3; older ones refuse the batch with "invalid argument").
    Destroy,
    /// Remove what is in it.
    Flush,
}

impl Verb {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Destroy => "destroy",
            Self::Flush => "flush",
        }
    }
}

/// What a batch can change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// A table. Deleting it deletes everything in it; flushing it removes all its rules.
    Table(Table),
    /// A chain. Flushing it removes its rules.
    Chain(Chain),
    /// A set. Flushing it removes its elements.
    Set(Set),
    /// A rule. Added at the end of its chain; deleted by its handle.
    Rule(Rule),
    /// Elements of a set.
    Elements(Set, Vec<Element>),
}

macro_rules! object_from {
    ($($name:ident)*) => {$(
        impl From<&$name> for Object {
            fn from(object: &$name) -> Self {
                Self::$name(object.clone())
            }
        }

        impl From<$name> for Object {
            fn from(object: $name) -> Self {
                Self::$name(object)
            }
        }
    )*};
}
object_from!(Table Chain Set Rule);

impl fmt::Display for Object {
    /// Its name in a sentence, e.g. `set inet stockade banned4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(t) => write!(f, "table {} {}", t.family, t.name),
            Self::Chain(c) => write!(f, "chain {} {} {}", c.family, c.table, c.name),
            Self::Set(s) => write!(f, "set {} {} {}", s.family, s.table, s.name),
            Self::Rule(r) => write!(f, "rule of chain {} {} {}", r.family, r.table, r.chain),
            Self::Elements(s, elements) => {
                write!(f, "{} elements of set {} {} {}", elements.len(), s.family, s.table, s.name)
            }
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub object: Object,
}

/// Changes in order, that the kernel makes in one transaction: packets see all of them or none.
///
/// ```
/// use nft::{Batch, Family, KeyType, Set, Table};
///
/// let table = Table::new(Family::Inet, "stockade");
/// let banned = Set::new(&table, "banned4", KeyType::Ipv4Addr).timeout();
/// let mut batch = Batch::new();
/// batch.add(&table).add(&banned).add_elements(&banned, [std::net::Ipv4Addr::new(203, 0, 113, 7)]);
/// assert_eq!(batch.changes().len(), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    generation: Option<u32>,
}

impl Batch {
    /// An empty one; committing it does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses the batch ("interrupted system call should be restarted",
    /// [`is_stale`](crate::CommitError::is_stale)) unless the ruleset still is of this
    /// [generation](crate::Connection::generation), that is, unless nobody changed anything since.
    pub fn only_on(&mut self, generation: u32) -> &mut Self {
        self.generation = Some(generation);
        self
    }

    /// Makes it unless it is there. What is there is not changed; when it differs in type the batch is refused.
    pub fn add(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Add, object.into())
    }

    /// Makes it; it must not be there.
    pub fn create(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Create, object.into())
    }

    /// Removes it; it must be there.
    pub fn delete(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Delete, object.into())
    }

    /// Removes it if it is there (kernel 6.3).
    pub fn destroy(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Destroy, object.into())
    }

    /// Removes what is in it.
    pub fn flush(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Flush, object.into())
    }

    /// Adds elements. Those that are there stay as they are before kernel 6.12; since then they get the timeout given,
    /// and without one stay for ever (or for the set's default).
    pub fn add_elements<E: Into<Element>>(
        &mut self,
        set: &Set,
        elements: impl IntoIterator<Item = E>,
    ) -> &mut Self {
        self.elements(Verb::Add, set, elements)
    }

    /// Adds elements, none of which may be there.
    pub fn create_elements<E: Into<Element>>(
        &mut self,
        set: &Set,
        elements: impl IntoIterator<Item = E>,
    ) -> &mut Self {
        self.elements(Verb::Create, set, elements)
    }

    /// Removes elements, all of which must be there.
    pub fn delete_elements<E: Into<Element>>(
        &mut self,
        set: &Set,
        elements: impl IntoIterator<Item = E>,
    ) -> &mut Self {
        self.elements(Verb::Delete, set, elements)
    }

    /// Removes those elements that are there (kernel 6.3).
    pub fn destroy_elements<E: Into<Element>>(
        &mut self,
        set: &Set,
        elements: impl IntoIterator<Item = E>,
    ) -> &mut Self {
        self.elements(Verb::Destroy, set, elements)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What was put in, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How many elements it adds and removes.
    #[must_use]
    pub fn element_count(&self) -> usize {
        let of = |change: &Change| match &change.object {
            Object::Elements(_, elements) => elements.len(),
            _ => 0,
        };
        self.changes.iter().map(of).sum()
    }

    /// The same changes in the same order, as several batches with at most so many elements each (at least one). For
    /// a socket that does not [hold](crate::CommitError::TooLarge) it in one piece; it is no longer one transaction
    /// then, and only the first part is bound to a [generation](Self::only_on).
    #[must_use]
    pub fn parts(&self, elements: usize) -> Vec<Self> {
        let most = elements.max(1);
        let mut parts = vec![Self { changes: Vec::new(), generation: self.generation }];
        let mut room = most;
        let mut push = |change: Change, count: usize| {
            if count > room {
                parts.push(Self::new());
                room = most;
            }
            room -= count;
            if let Some(part) = parts.last_mut() {
                part.changes.push(change);
            }
        };
        for change in &self.changes {
            let Object::Elements(set, all) = &change.object else {
                push(change.clone(), 0);
                continue;
            };
            for some in all.chunks(most) {
                let object = Object::Elements(set.clone(), some.to_vec());
                push(Change { verb: change.verb, object }, some.len());
            }
        }
        parts
    }

    pub(crate) fn generation(&self) -> Option<u32> {
        self.generation
    }

    fn elements<E: Into<Element>>(
        &mut self,
        verb: Verb,
        set: &Set,
        elements: impl IntoIterator<Item = E>,
    ) -> &mut Self {
        let elements: Vec<_> = elements.into_iter().map(Into::into).collect();
        // No elements would be a message that deletes all of them.
        if elements.is_empty() {
            return self;
        }
        self.push(verb, Object::Elements(set.clone(), elements))
    }

    fn push(&mut self, verb: Verb, object: Object) -> &mut Self {
        self.changes.push(Change { verb, object });
        self
    }
}
