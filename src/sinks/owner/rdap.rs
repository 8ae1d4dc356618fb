//! RDAP: which registry is asked (RFC 9224), how (RFC 9082), and what it answers (RFC 9083).

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::header::{ACCEPT, LOCATION};
use serde_json::Value;
use tokio::time::Instant;

use super::{Owner, Registry};
use crate::sinks::http::{Answer, Http};
use crate::sinks::trouble::{Trouble, chain};

/// So many redirects are followed.
const REDIRECTS: usize = 3;
/// The list of registries is read anew after this.
const LIST: Duration = Duration::from_secs(24 * 3600);
/// So deep entities are looked at: a registrant's own contacts.
const DEPTH: usize = 3;

/// An owner, and the range it was answered for.
pub(super) type Found = (Owner, Option<(IpAddr, IpAddr)>);

#[derive(Debug)]
pub(super) struct Rdap {
    registry: Registry,
    http: Http,
    /// IANA's lists, for IPv4 and IPv6.
    lists: Mutex<[Option<List>; 2]>,
}

#[derive(Clone, Debug)]
struct List {
    services: Vec<(IpNet, String)>,
    until: Instant,
}

impl Rdap {
    pub(super) fn new(registry: Registry, http: Http) -> Self {
        Self { registry, http, lists: Mutex::default() }
    }

    /// Who owns the network of `address`; `None`: its registry knows nothing.
    pub(super) async fn owner(&self, address: IpAddr) -> Result<Option<Found>, Trouble> {
        let base = match &self.registry {
            Registry::Server(url) => url.clone(),
            Registry::Listed(url) => match self.listed(url, address).await? {
                Some(base) => base,
                None => return Ok(None),
            },
        };
        let answer = self.get(&format!("{}/ip/{address}", base.trim_end_matches('/'))).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        if !answer.is_success() {
            return Err(answer.trouble(""));
        }
        parse(&answer.body).map(Some)
    }

    /// The registry responsible.
    async fn listed(&self, url: &str, address: IpAddr) -> Result<Option<String>, Trouble> {
        let (at, file) = if address.is_ipv4() { (0, "ipv4.json") } else { (1, "ipv6.json") };
        let known = self.lists.lock().unwrap_or_else(PoisonError::into_inner)[at].clone();
        if let Some(list) = known.filter(|list| list.until > Instant::now()) {
            return Ok(list.server(address));
        }
        let answer = self.get(&format!("{url}/{file}")).await?;
        if !answer.is_success() {
            return Err(answer.trouble("").context("the list of registries"));
        }
        let list = List { services: services(&answer.body)?, until: Instant::now() + LIST };
        let server = list.server(address);
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(list);
        Ok(server)
    }

    /// Follows some redirects, and none from https to http.
    async fn get(&self, url: &str) -> Result<Answer, Trouble> {
        let mut url = Url::parse(url).map_err(|e| Trouble::later(format!("no URL: {}", chain(&e))))?;
        for _ in 0..=REDIRECTS {
            let request =
                self.http.client.get(url.clone()).header(ACCEPT, "application/rdap+json, application/json");
            let answer = self.http.send(request).await?;
            let next = match answer.status {
                301 | 302 | 303 | 307 | 308 => answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()),
                _ => return Ok(answer),
            };
            let next = next
                .and_then(|to| url.join(to).ok())
                .filter(|to| to.scheme() == "https" || (to.scheme() == "http" && url.scheme() == "http"));
            url = next.ok_or_else(|| Trouble::later("a redirect to nowhere, or out of TLS"))?;
        }
        Err(Trouble::later(format!("more than {REDIRECTS} redirects")))
    }
}

impl List {
    /// The server for the longest prefix that holds the address.
    fn server(&self, address: IpAddr) -> Option<String> {
        let of = self.services.iter().filter(|(net, _)| net.contains(&address));
        of.max_by_key(|(net, _)| net.prefix_len()).map(|(_, url)| url.clone())
    }
}

/// RFC 9224, section 3: `"services": [[["1.0.0.0/8", …], ["https://…/", …]], …]`.
fn services(body: &[u8]) -> Result<Vec<(IpNet, String)>, Trouble> {
    let value: Value = json(body).map_err(|trouble| trouble.context("the list of registries"))?;
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut services = Vec::new();
    for service in value["services"].as_array().into_iter().flatten() {
        let urls = texts(&service[1]);
        let Some(url) = urls.iter().find(|url| url.starts_with("https://")).or_else(|| urls.first()) else {
            continue;
        };
        services.extend(texts(&service[0]).iter().filter_map(|net| Some((net.parse().ok()?, url.clone()))));
    }
    Ok(services)
}

fn json(body: &[u8]) -> Result<Value, Trouble> {
    serde_json::from_slice(body).map_err(|e| Trouble::later(format!("the answer is no JSON: {e}")))
}

/// RFC 9083, section 5.4: an object of the class `ip network`.
fn parse(body: &[u8]) -> Result<Found, Trouble> {
    let value = json(body)?;
    if value["objectClassName"] != "ip network" {
        return Err(Trouble::later("the answer is about no network"));
    }
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (first, last) = (text("startAddress"), text("endAddress"));
    let range = first.parse().ok().zip(last.parse().ok());
    let mut owner = Owner {
        name: text("name"),
        handle: text("handle"),
        range: cidrs(&value).unwrap_or_else(|| format!("{first} - {last}")),
        country: text("country"),
        ..Owner::default()
    };
    entities(&value, DEPTH, &mut owner);
    Ok((owner.tidied(), range))
}

/// The extension `cidr0`: a range as prefixes.
fn cidrs(value: &Value) -> Option<String> {
    let cidr = |value: &Value| -> Option<String> {
        let prefix = value["v4prefix"].as_str().or_else(|| value["v6prefix"].as_str())?;
        Some(format!("{prefix}/{}", value["length"].as_u64()?))
    };
    let all: Option<Vec<String>> = value["cidr0_cidrs"].as_array()?.iter().take(4).map(cidr).collect();
    all.map(|all| all.join(" ")).filter(|text| !text.is_empty())
}

fn entities(value: &Value, depth: usize, owner: &mut Owner) {
    if depth == 0 {
        return;
    }
    for entity in value["entities"].as_array().into_iter().flatten().take(20) {
        let has =
            |role: &str| entity["roles"].as_array().is_some_and(|roles| roles.iter().any(|r| r == role));
        if has("registrant") && owner.organisation.is_empty() {
            owner.organisation = vcard(entity, "fn").or_else(|| vcard(entity, "org")).unwrap_or_default();
        }
        if has("abuse") && owner.abuse.is_empty() {
            owner.abuse = vcard(entity, "email").unwrap_or_default();
        }
        entities(entity, depth - 1, owner);
    }
}

/// A property of a jCard (RFC 7095): `["vcard", [["fn", {}, "text", "Example"], …]]`.
fn vcard(entity: &Value, property: &str) -> Option<String> {
    let properties = entity["vcardArray"][1].as_array()?;
    let found = properties.iter().find(|p| p[0] == property)?;
    found[3].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_names_the_registry() {
        // As the example of RFC 9224, section 5.1.
        let body = br#"{"version":"1.0","services":[
            [["198.51.100.0/24","192.0.0.0/8"],["https://rir1.example.com/myrdap/"]],
            [["203.0.113.0/24","192.0.2.0/24"],["http://example.org/","https://example.org/"]],
            [["x"],["https://y/"]], [["203.0.113.0/28"],[]], 5]}"#;
        let list = List { services: services(body).unwrap(), until: Instant::now() };
        let server = |text: &str| list.server(text.parse().unwrap());
        assert_eq!(server("192.1.2.3").as_deref(), Some("https://rir1.example.com/myrdap/"));
        assert_eq!(server("192.0.2.3").as_deref(), Some("https://example.org/"));
        assert_eq!(server("8.8.8.8"), None);
        assert!(services(b"x").is_err());
        assert!(services(b"[]").unwrap().is_empty());
    }

    #[test]
    fn no_answer_can_do_harm() {
        for body in ["", "x", "[]", "{}", "5", r#"{"objectClassName":"domain"}"#, "[[[[[[["] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        let odd = r#"{"objectClassName":"ip network","name":5,"entities":[{"roles":"abuse","vcardArray":5},7],"cidr0_cidrs":[{}],
            "startAddress":"x"}"#;
        let (owner, range) = parse(odd.as_bytes()).unwrap();
        assert_eq!((owner.name.as_str(), owner.abuse.as_str(), range), ("", "", None));
        let deep = format!("{}{}", r#"{"entities":["#.repeat(100_000), "]}".repeat(100_000));
        assert!(parse(deep.as_bytes()).is_err());
    }
}
