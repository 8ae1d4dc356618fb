//! One change, as the kernel makes it.

use std::time::Duration;

use super::elements::Elements;
use super::{State, TableState};
use crate::batch::{Change, Object, Verb};
use crate::chain::Chain;
use crate::commit::Rejection;
use crate::element::Element;
use crate::expr::{Expr, Verdict};
use crate::rule::Rule;
use crate::set::Set;
use crate::table::{Family, Table};

type Outcome = Result<(), i32>;

impl State {
    pub(super) fn apply(
        &mut self,
        change: &Change,
        now: Duration,
        old_timeouts: bool,
    ) -> Result<(), Rejection> {
        let refused = |errno| Rejection::new(change, None, errno);
        match &change.object {
            Object::Table(t) => self.change_table(change.verb, t).map_err(refused),
            Object::Chain(c) => self.change_chain(change.verb, c).map_err(refused),
            Object::Set(s) => self.change_set(change.verb, s).map_err(refused),
            Object::Rule(r) => self.change_rule(change.verb, r).map_err(refused),
            Object::Elements(set, elements) => {
                self.change_elements(change.verb, set, elements, now, old_timeouts).map_err(
                    |(element, errno)| Rejection::new(change, element.and_then(|i| elements.get(i)), errno),
                )
            }
        }
    }

    fn change_table(&mut self, verb: Verb, table: &Table) -> Outcome {
        let found =
            self.tables.iter().position(|t| t.table.family == table.family && t.table.name == table.name);
        match (verb, found) {
            (Verb::Add, None) | (Verb::Create, None) => {
                let table = Table { handle: Some(self.handle()), ..table.clone() };
                self.tables.push(TableState { table, sets: Vec::new(), chains: Vec::new() });
                Ok(())
            }
            (Verb::Add, Some(i)) => {
                self.tables[i].table.flags = table.flags;
                Ok(())
            }
            (Verb::Create, Some(_)) => Err(libc::EEXIST),
            (Verb::Delete | Verb::Destroy, Some(i)) => {
                self.tables.remove(i);
                Ok(())
            }
            (Verb::Flush, Some(i)) => {
                self.tables[i].chains.iter_mut().for_each(|(_, rules)| rules.clear());
                Ok(())
            }
            (verb, None) => absent(verb),
        }
    }

    fn change_chain(&mut self, verb: Verb, chain: &Chain) -> Outcome {
        let handle = self.handle();
        let table = self.table_mut(chain.family, &chain.table).ok_or(libc::ENOENT)?;
        let found = table.chains.iter().position(|(c, _)| c.name == chain.name);
        match (verb, found) {
            (Verb::Add, None) | (Verb::Create, None) => {
                table.chains.push((Chain { handle: Some(handle), ..chain.clone() }, Vec::new()));
                Ok(())
            }
            (Verb::Create, Some(_)) => Err(libc::EEXIST),
            (Verb::Add, Some(i)) => match (&chain.base, &mut table.chains[i].0.base) {
                (None, _) => Ok(()),
                (Some(new), Some(old))
                    if (&new.kind, new.hook, new.priority) == (&old.kind, old.hook, old.priority) =>
                {
                    old.policy = new.policy;
                    Ok(())
                }
                _ => Err(libc::EEXIST),
            },
            (Verb::Delete | Verb::Destroy, Some(i)) => {
                let name = table.chains[i].0.name.clone();
                let called = table.chains.iter().enumerate().any(|(j, (_, rules))| {
                    j != i && rules.iter().flat_map(Rule::exprs).any(|e| target(&e) == Some(&*name))
                });
                if called {
                    return Err(libc::EBUSY);
                }
                table.chains.remove(i);
                Ok(())
            }
            (Verb::Flush, Some(i)) => {
                table.chains[i].1.clear();
                Ok(())
            }
            (verb, None) => absent(verb),
        }
    }

    fn change_set(&mut self, verb: Verb, set: &Set) -> Outcome {
        let handle = self.handle();
        let table = self.table_mut(set.family, &set.table).ok_or(libc::ENOENT)?;
        let found = table.sets.iter().position(|(s, _)| s.name == set.name);
        match (verb, found) {
            (Verb::Add, None) | (Verb::Create, None) => {
                table.sets.push((Set { handle: Some(handle), ..set.clone() }, Elements::default()));
                Ok(())
            }
            (Verb::Create, Some(_)) => Err(libc::EEXIST),
            (Verb::Add, Some(i)) => {
                let old = &table.sets[i].0;
                let same = Set { handle: old.handle, ..set.clone() } == *old;
                if same { Ok(()) } else { Err(libc::EEXIST) }
            }
            (Verb::Delete | Verb::Destroy, Some(i)) => {
                let name = table.sets[i].0.name.clone();
                let rules = table.chains.iter().flat_map(|(_, rules)| rules);
                if rules.flat_map(Rule::exprs).any(|e| looked_up(&e) == Some(&*name)) {
                    return Err(libc::EBUSY);
                }
                table.sets.remove(i);
                Ok(())
            }
            (Verb::Flush, Some(i)) => {
                table.sets[i].1 = Elements::default();
                Ok(())
            }
            (verb, None) => absent(verb),
        }
    }

    fn change_rule(&mut self, verb: Verb, rule: &Rule) -> Outcome {
        let handle = self.handle();
        let table = self.table_mut(rule.family, &rule.table).ok_or(libc::ENOENT)?;
        let Some(chain) = table.chains.iter().position(|(c, _)| c.name == rule.chain) else {
            return absent(verb);
        };
        if matches!(verb, Verb::Add | Verb::Create) {
            for expr in rule.exprs() {
                let set = looked_up(&expr).is_none_or(|s| table.sets.iter().any(|(t, _)| *t.name == *s));
                let chain = target(&expr).is_none_or(|c| table.chains.iter().any(|(t, _)| *t.name == *c));
                if !set || !chain {
                    return Err(libc::ENOENT);
                }
            }
            table.chains[chain].1.push(Rule { handle: Some(handle), ..rule.clone() });
            return Ok(());
        }
        let rules = &mut table.chains[chain].1;
        match rules.iter().position(|r| rule.handle.is_some() && r.handle == rule.handle) {
            Some(i) => {
                rules.remove(i);
                Ok(())
            }
            None => absent(verb),
        }
    }

    /// The error says at which element, unless it is about the set.
    fn change_elements(
        &mut self,
        verb: Verb,
        set: &Set,
        elements: &[Element],
        now: Duration,
        old_timeouts: bool,
    ) -> Result<(), (Option<usize>, i32)> {
        let found = self
            .table_mut(set.family, &set.table)
            .and_then(|t| t.sets.iter_mut().find(|(s, _)| s.name == set.name));
        // Even for "destroy" the set must be there.
        let Some((there, stored)) = found else { return Err((None, libc::ENOENT)) };
        for (i, element) in elements.iter().enumerate() {
            let outcome = match verb {
                Verb::Add | Verb::Create => {
                    stored.add(there, element, now, verb == Verb::Create, old_timeouts)
                }
                Verb::Delete | Verb::Flush | Verb::Destroy => match stored.remove(there, element, now) {
                    Err(libc::ENOENT) if verb == Verb::Destroy => Ok(()),
                    other => other,
                },
            };
            outcome.map_err(|errno| (Some(i), errno))?;
        }
        Ok(())
    }

    fn table_mut(&mut self, family: Family, name: &str) -> Option<&mut TableState> {
        self.tables.iter_mut().find(|t| t.table.family == family && *t.table.name == *name)
    }

    fn handle(&mut self) -> u64 {
        self.last_handle += 1;
        self.last_handle
    }
}

/// To destroy what is not there is no error (unless it is its table that is not there).
fn absent(verb: Verb) -> Outcome {
    if verb == Verb::Destroy { Ok(()) } else { Err(libc::ENOENT) }
}

fn looked_up(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Lookup { set, .. } => Some(set),
        _ => None,
    }
}

fn target(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
        _ => None,
    }
}
