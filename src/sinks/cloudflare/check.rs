//! Tries credentials and settings, changing nothing.

use reqwest::Method;

use super::api::{Api, Failure};
use super::custom::{CustomRule, Found};
use super::tag::Tag;
use super::{instance, needs};
use crate::config::sinks::{Cloudflare, Credentials, Place};
use crate::sinks::trouble::Trouble;
use crate::sinks::{Checked, Context};

/// Tries the settings, changing nothing. Whether credentials may write shows only in writing: what is needed is told.
///
/// # Errors
/// When a secret cannot be read.
pub async fn check(settings: &Cloudflare, context: &Context) -> Result<Vec<Checked>, Trouble> {
    let needs = needs(&settings.place);
    let mut api = Api::new(settings, needs)?;
    api.unbounded = true;
    let tag = Tag::new(&instance(settings, context, false)?, "");
    let mut found = Vec::new();
    match &settings.place {
        Place::Zone(id) => {
            found.push(rules(&mut api, &tag, &format!("zones/{id}"), &format!("zone {id}"), needs).await);
        }
        Place::Account(id) => {
            found.push(
                rules(&mut api, &tag, &format!("accounts/{id}"), &format!("account {id}"), needs).await,
            );
        }
        Place::List { account, name, rule_in } => {
            found.push(list(&mut api, account, name, needs).await);
            if let Some(zone) = rule_in {
                found.push(rule(&mut api, &CustomRule::new(zone, name, settings.action), name).await);
            }
        }
    }
    if matches!(settings.credentials, Credentials::Token(_)) {
        found.extend(token(&mut api).await);
    }
    Ok(found)
}

/// Reads the rules that are there.
async fn rules(api: &mut Api, tag: &Tag, scope: &str, told: &str, needs: &str) -> Checked {
    let query = [("notes", tag.search()), ("match", "all"), ("per_page", "5")];
    let path = format!("{scope}/firewall/access_rules/rules");
    match api.ask(Method::GET, &path, &query, None).await {
        Ok(answer) => {
            let count = answer["result_info"]["total_count"].as_u64().unwrap_or(0);
            Checked::good(format!(
                "the IP access rules of {told} can be read, {count} of them of this host; to change them, a token needs {needs}"
            ))
        }
        Err(e) => Checked::bad(e.trouble(&format!("failed to read the IP access rules of {told}")).message),
    }
}

async fn list(api: &mut Api, account: &str, name: &str, needs: &str) -> Checked {
    match api.ask(Method::GET, &format!("accounts/{account}/rules/lists"), &[], None).await {
        Ok(answer) => {
            let found = answer["result"].as_array().and_then(|all| all.iter().find(|l| l["name"] == *name));
            match found {
                Some(list) if list["kind"] == "ip" => {
                    let count = list["num_items"].as_u64().unwrap_or(0);
                    Checked::good(format!(
                        "the list {name} can be read and has {count} items; to change it, a token needs {needs}"
                    ))
                }
                Some(_) => Checked::bad(format!(
                    "the account has a list {name} that is not of addresses; name another one with `list`"
                )),
                None => Checked::good(format!(
                    "the account's lists can be read; {name} will be made; for that, a token needs {needs}"
                )),
            }
        }
        Err(e) => Checked::bad(e.trouble("failed to read the account's lists").message),
    }
}

async fn rule(api: &mut Api, rule: &CustomRule, name: &str) -> Checked {
    match rule.find(api).await {
        Ok(Found::Rule { rule: found, .. }) => match rule.judge(&found) {
            None => Checked::good(format!("a custom rule of the zone makes use of the list {name}")),
            Some(odd) => Checked::bad(odd),
        },
        Ok(_) => Checked::good(format!(
            "the zone's custom rules can be read; one for the list {name} will be made"
        )),
        Err(trouble) => Checked::bad(trouble.message),
    }
}

/// When a token ends. Tokens of an account are verified elsewhere: that one is not known here says nothing.
async fn token(api: &mut Api) -> Option<Checked> {
    let answer = match api.ask(Method::GET, "user/tokens/verify", &[], None).await {
        Ok(answer) => answer,
        Err(Failure::Said(_) | Failure::Trouble(_)) => return None,
    };
    let result = &answer["result"];
    match (result["status"].as_str(), result["expires_on"].as_str()) {
        (Some("active"), None) | (None, _) => None,
        (Some("active"), Some(end)) => Some(Checked::good(format!("the API token is valid until {end}"))),
        (Some(status), _) => Some(Checked::bad(format!("the API token is {status}"))),
    }
}
