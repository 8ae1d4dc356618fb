//! The custom rule of a zone that makes use of a list.

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Failure, id};
use crate::config::sinks::Action;
use crate::sinks::trouble::Trouble;

const PHASE: &str = "http_request_firewall_custom";

/// The rule.
#[derive(Debug)]
pub(super) struct CustomRule {
    zone: String,
    list: String,
    action: Action,
    /// What a person has done to it.
    pub(super) oddity: Option<String>,
}

/// What there is of it.
pub(super) enum Found {
    /// The zone has no custom rules, nor what holds them.
    NoRuleset,
    /// The zone's rules, without ours.
    Ruleset(String),
    /// Ours, or somebody's own that makes use of the list as ours would.
    Rule { ruleset: String, rule: Value },
}

impl CustomRule {
    pub(super) fn new(zone: &str, list: &str, action: Action) -> Self {
        Self { zone: zone.to_owned(), list: list.to_owned(), action, oddity: None }
    }

    /// By this it is known: one rule for all hosts that share the list.
    fn description(&self) -> String {
        format!("stockade: the list {}", self.list)
    }

    fn expression(&self) -> String {
        format!("(ip.src in ${})", self.list)
    }

    /// Looks for it.
    pub(super) async fn find(&self, api: &mut Api) -> Result<Found, Trouble> {
        let path = format!("zones/{}/rulesets/phases/{PHASE}/entrypoint", self.zone);
        let answer = match api.ask(Method::GET, &path, &[], None).await {
            Ok(answer) => answer,
            Err(Failure::Said(refusal)) if refusal.status == 404 => return Ok(Found::NoRuleset),
            Err(e) => return Err(e.trouble("failed to fetch the zone's custom rules")),
        };
        let ruleset = id(&answer["result"]["id"])?;
        let (description, expression) = (self.description(), self.expression());
        let bare = expression.trim_matches(['(', ')']);
        let is_it = |rule: &&Value| {
            let own = rule["description"] == *description;
            own || rule["expression"].as_str().is_some_and(|e| e.trim_matches(['(', ')']) == bare)
        };
        let rules = answer["result"]["rules"].as_array().map_or(&[][..], Vec::as_slice);
        // Ours goes before somebody's own.
        let rule = rules.iter().filter(is_it).max_by_key(|rule| rule["description"] == *description).cloned();
        Ok(match rule {
            Some(rule) => Found::Rule { ruleset, rule },
            None => Found::Ruleset(ruleset),
        })
    }

    /// Makes it if there is none; what a person has changed about it is told, and left.
    pub(super) async fn ensure(&mut self, api: &mut Api) -> Result<(), Trouble> {
        let rule = json!({
            "description": self.description(),
            "expression": self.expression(),
            "action": self.action.word(),
            "enabled": true,
        });
        let made = match self.find(api).await? {
            Found::NoRuleset => {
                let body = json!({ "name": "default", "kind": "zone", "phase": PHASE, "rules": [rule] });
                api.ask(Method::POST, &format!("zones/{}/rulesets", self.zone), &[], Some(&body)).await
            }
            Found::Ruleset(ruleset) => {
                let path = format!("zones/{}/rulesets/{ruleset}/rules", self.zone);
                api.ask(Method::POST, &path, &[], Some(&rule)).await
            }
            Found::Rule { ruleset, rule: found } => {
                self.oddity = self.judge(&found);
                let is_ours = found["description"] == *self.description();
                let fits = found["action"] == self.action.word();
                if !is_ours || fits {
                    return Ok(());
                }
                // `action` was changed in the configuration.
                let path = format!("zones/{}/rulesets/{ruleset}/rules/{}", self.zone, id(&found["id"])?);
                let mut body = rule;
                body["enabled"] = found["enabled"].clone();
                body["expression"] = found["expression"].clone();
                api.ask(Method::PATCH, &path, &[], Some(&body)).await
            }
        };
        match made {
            Ok(_) => Ok(()),
            Err(Failure::Said(refusal)) => Err(Trouble::refused(format!(
                "Cloudflare takes no custom rule for the list {}: {}; the Free plan has five: make room, or say `rule: false` \
                 and put `{}` into a rule of your own",
                self.list,
                refusal.told(),
                self.expression()
            ))),
            Err(e) => Err(e.trouble("failed to make the custom rule")),
        }
    }

    /// What is odd about it.
    pub(super) fn judge(&self, rule: &Value) -> Option<String> {
        if rule["enabled"] == false {
            return Some(format!("the custom rule for the list {} is switched off", self.list));
        }
        let expression = rule["expression"].as_str().unwrap_or_default();
        if !expression.contains(&format!("${}", self.list)) {
            return Some(format!("the custom rule for the list {} does not name it any more", self.list));
        }
        None
    }
}
