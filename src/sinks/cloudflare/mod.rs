//! `kind: cloudflare`: bans as IP access rules, or as a list that a custom rule makes use of.
//!
//! Whatever is not ours by its tag is never changed and never removed; and no rule is removed that was not fetched just
//! before, with the value and the tag that it should have. (Others looked for a rule with a filter that was not understood,
//! and removed the first rule of the zone.)

mod api;
mod budget;
mod check;
mod custom;
mod list;
mod rules;
mod tag;
mod target;

use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use self::api::Api;
pub use self::check::check;
use self::custom::CustomRule;
use self::list::List;
use self::rules::Rules;
use self::tag::Tag;
use self::target::{LISTS, RULES, Takes, Targets};
use super::Context;
use super::desired::{Desired, Want};
use super::mirror::{Mirror, Pass};
use super::state::State;
use super::trouble::Trouble;
use crate::clock;
use crate::config::sinks::{Cloudflare, Place};

/// So many of a kind are named in `status`.
const NAMED: usize = 10;

/// A sink of this kind.
#[derive(Debug)]
pub struct CloudflareSink {
    settings: Cloudflare,
    shows: Shows,
    state: Arc<State>,
}

#[derive(Debug)]
enum Shows {
    Rules(Box<Rules>),
    List(Box<List>),
}

impl CloudflareSink {
    /// A sink with these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When a secret cannot be read, or the number of this instance not be kept.
    pub fn new(settings: &Cloudflare, context: &Context, state: &Arc<State>) -> Result<Self, Trouble> {
        let api = Api::new(settings, needs(&settings.place))?;
        let instance = instance(settings, context, true)?;
        let tag = Tag::new(&instance, state.name());
        let shows = match &settings.place {
            Place::Zone(id) => rules(api, tag, format!("zones/{id}"), true, settings),
            Place::Account(id) => rules(api, tag, format!("accounts/{id}"), false, settings),
            Place::List { account, name, rule_in } => {
                let rule = rule_in.as_ref().map(|zone| CustomRule::new(zone, name, settings.action));
                Shows::List(Box::new(List::new(api, tag, account, name, rule)))
            }
        };
        Ok(Self { settings: settings.clone(), shows, state: Arc::clone(state) })
    }

    fn tell(&mut self, targets: &Targets) {
        let named = |nets: Vec<IpNet>| -> Value {
            let names: Vec<String> = nets.iter().take(NAMED).map(|net| target::value(*net)).collect();
            json!({ "count": nets.len(), "some": names })
        };
        let mut odd = Map::new();
        if !targets.unfit.is_empty() {
            odd.insert("not_taken_in_this_width".to_owned(), named(targets.unfit.clone()));
        }
        if targets.beyond > 0 {
            odd.insert("more_than_max".to_owned(), targets.beyond.into());
        }
        let (shown, strange, rejected) = match &mut self.shows {
            Shows::Rules(rules) => {
                let mut lets_through: Vec<IpNet> = targets
                    .all
                    .keys()
                    .filter(|net| rules.strange.get(net).is_some_and(rules::Strange::lets_through))
                    .copied()
                    .collect();
                if !lets_through.is_empty() {
                    lets_through.sort_unstable();
                    odd.insert("let_through_by_rules_of_others".to_owned(), named(lets_through));
                }
                if rules.siblings > 0 {
                    odd.insert("rules_of_other_sinks_of_this_host".to_owned(), rules.siblings.into());
                }
                let strange = targets.all.keys().filter(|net| rules.strange.contains_key(net)).count();
                (rules.shown(), strange, &rules.rejected)
            }
            Shows::List(list) => {
                if let Some(text) = list.oddity() {
                    odd.insert("rule".to_owned(), text.into());
                }
                (list.shown(), list.strange(targets), &list.rejected)
            }
        };
        if let Some((net, why)) = rejected.iter().min() {
            let some = format!("{}: {why}", target::value(*net));
            odd.insert("rejected".to_owned(), json!({ "count": rejected.len(), "first": some }));
        }
        let requests_left = self.api().budget.left(Instant::now());
        self.state.tell("shown", shown.into());
        self.state.tell("shown_by_others", strange.into());
        self.state.tell("requests_left", requests_left.into());
        self.state.tell("oddities", odd.into());
    }

    fn api(&mut self) -> &mut Api {
        match &mut self.shows {
            Shows::Rules(rules) => &mut rules.api,
            Shows::List(list) => &mut list.api,
        }
    }

    fn takes(&self) -> Takes {
        match self.shows {
            Shows::Rules(_) => RULES,
            Shows::List(_) => LISTS,
        }
    }
}

impl Mirror for CloudflareSink {
    async fn pass(&mut self, desired: &Desired, whole: bool) -> Result<Pass, Trouble> {
        let bans: Vec<(IpNet, Vec<Want>)> =
            desired.look(|all| all.iter().map(|(net, wants)| (*net, wants.clone())).collect());
        let now = clock::now();
        let Cloudflare { ipv6_prefix, max, .. } = self.settings;
        let targets = target::targets(bans, self.takes(), ipv6_prefix, max, now);
        let outcome = match &mut self.shows {
            Shows::Rules(rules) => rules.pass(&targets, whole, now).await,
            Shows::List(list) => list.pass(&targets, whole).await,
        };
        self.tell(&targets);
        outcome
    }
}

fn rules(api: Api, tag: Tag, scope: String, is_zone: bool, settings: &Cloudflare) -> Shows {
    let path = format!("{scope}/firewall/access_rules/rules");
    Shows::Rules(Box::new(Rules::new(api, tag, path, is_zone, settings.action)))
}

/// What an API token has to be allowed.
fn needs(place: &Place) -> &'static str {
    match place {
        Place::Zone(_) => "Zone · Firewall Services · Edit",
        Place::Account(_) => "Account · Account Firewall Access Rules · Edit",
        Place::List { rule_in: None, .. } => "Account · Account Filter Lists · Edit",
        Place::List { .. } => {
            "Account · Account Filter Lists · Edit, and Zone · Zone WAF · Edit for the custom rule"
        }
    }
}

fn instance(settings: &Cloudflare, context: &Context, make: bool) -> Result<String, Trouble> {
    match &settings.instance {
        Some(instance) => Ok(instance.clone()),
        None => tag::instance(&context.state, &context.host, make),
    }
}
