//! Cloudflare's API, version 4: requests within the budget, and answers taken apart.
//!
//! An answer is `{"success": bool, "errors": [{"code", "message"}], "result": …, "result_info": {…}}`.

use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;

use super::budget::{Budget, WINDOW};
use crate::config::sinks::{Cloudflare, Credentials};
use crate::sinks::http::{Answer, Http};
use crate::sinks::secret::Secret;
use crate::sinks::trouble::Trouble;

/// Codes of errors that mean the credentials: wrong, malformed, or without a permission.
const CREDENTIALS: [u64; 7] = [6003, 6111, 9103, 9106, 9107, 9109, 10000];
/// No such zone or account, or not for these credentials: "could not route to …, perhaps your object identifier is invalid".
const NO_ROUTE: [u64; 2] = [7000, 7003];
/// Where less than this part of what Cloudflare allows is left, people may need it.
const RESERVE: u64 = 10;

/// Who asks, and how often.
#[derive(Debug)]
pub(super) struct Api {
    http: Http,
    base: Url,
    headers: HeaderMap,
    pub(super) budget: Budget,
    /// What credentials need to be allowed, told when they are not.
    needs: &'static str,
    /// Asks whatever the budget says: for the few requests of a check.
    pub(super) unbounded: bool,
}

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is nobody's in particular: the connection, the credentials, the limits.
    Trouble(Trouble),
    /// The API says no to this request.
    Said(Refusal),
}

/// The API's no.
#[derive(Debug)]
pub(super) struct Refusal {
    /// 2xx, or 4xx but 401, 403 and 429 with the time to wait.
    pub(super) status: u16,
    pub(super) codes: Vec<u64>,
    /// In its own words, without secrets.
    pub(super) text: String,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl Failure {
    /// As a trouble that may pass.
    pub(super) fn trouble(self, what: &str) -> Trouble {
        match self {
            Self::Trouble(trouble) => trouble,
            Self::Said(refusal) => Trouble::later(format!("{what}: {}", refusal.told())),
        }
    }
}

impl Refusal {
    pub(super) fn told(&self) -> String {
        match self.codes.first() {
            Some(code) => format!("{} (error {code})", self.text),
            None if self.text.is_empty() => format!("HTTP status {}", self.status),
            None => format!("HTTP status {}: {}", self.status, self.text),
        }
    }
}

impl Api {
    pub(super) fn new(settings: &Cloudflare, needs: &'static str) -> Result<Self, Trouble> {
        let unread = |e: crate::sinks::secret::SecretError| Trouble::refused(e.to_string());
        let (secret, headers) = match &settings.credentials {
            Credentials::Token(source) => {
                let token = source.read().map_err(unread)?;
                let bearer = header(&format!("Bearer {}", token.reveal()))?;
                (token, vec![("authorization", bearer)])
            }
            Credentials::Key { email, key } => {
                let key = key.read().map_err(unread)?;
                let (email, value) = (header(email)?, header(key.reveal())?);
                (key, vec![("x-auth-email", email), ("x-auth-key", value)])
            }
        };
        let base =
            Url::parse(&format!("{}/", settings.url)).map_err(|_| Trouble::refused("url is not a URL"))?;
        Ok(Self {
            http: Http::new(&settings.http, secrets(secret))?,
            base,
            headers: headers
                .into_iter()
                .map(|(name, value)| (reqwest::header::HeaderName::from_static(name), value))
                .collect(),
            budget: Budget::new(settings.requests, Instant::now()),
            needs,
            unbounded: false,
        })
    }

    /// Makes one request; the whole answer where it is a yes.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut url = self.base.join(path).map_err(|_| Trouble::refused("url and ids make no URL"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.client.request(method, url).headers(self.headers.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        self.budget.spend(Instant::now());
        let answer = self.http.send(request).await?;
        self.heed(&answer);
        self.read(&answer)
    }

    /// Whether a request may be made now.
    pub(super) fn may_ask(&mut self) -> bool {
        self.unbounded || self.budget.is_open(Instant::now())
    }

    fn read(&mut self, answer: &Answer) -> Result<Value, Failure> {
        let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let errors = value.as_ref().and_then(|v| v["errors"].as_array()).map_or(&[][..], Vec::as_slice);
        let codes: Vec<u64> = errors.iter().filter_map(|e| e["code"].as_u64()).collect();
        let text: Vec<&str> = errors.iter().filter_map(|e| e["message"].as_str()).take(3).collect();
        let text = self.http.redact(&text.join("; "));
        let refusal = Refusal { status: answer.status, codes, text };
        let means = |codes: &[u64]| refusal.codes.iter().any(|code| codes.contains(code));
        match answer.status {
            429 => match answer.retry_after() {
                Some(wait) => {
                    self.budget.close(Instant::now() + wait);
                    Err(Trouble::after(wait, "Cloudflare's limit of requests is reached").into())
                }
                // Of a list that is being changed: its own affair.
                None => Err(Failure::Said(refusal)),
            },
            500.. => Err(answer.trouble(&refusal.text).context("Cloudflare's API failed").into()),
            401 | 403 => Err(self.refused(&refusal).into()),
            400.. if means(&CREDENTIALS) => Err(self.refused(&refusal).into()),
            400.. if means(&NO_ROUTE) => Err(Trouble::refused(format!(
                "Cloudflare knows no such zone or account, or not for these credentials: {}",
                refusal.told()
            ))
            .into()),
            400.. => Err(Failure::Said(refusal)),
            _ => match value {
                Some(value) if value["success"] == true => Ok(value),
                Some(value) if value["success"] == false => Err(Failure::Said(refusal)),
                // Somebody else's page, or half an answer.
                _ => Err(Trouble::later(format!(
                    "what came back with HTTP status {} is not an answer of Cloudflare's API",
                    answer.status
                ))
                .into()),
            },
        }
    }

    fn refused(&self, refusal: &Refusal) -> Trouble {
        Trouble::refused(format!(
            "Cloudflare refuses the credentials: {}; an API token needs the permission {}",
            refusal.told(),
            self.needs
        ))
    }

    /// Obeys the headers about limits: where little is left of what Cloudflare allows, it is left to others.
    fn heed(&mut self, answer: &Answer) {
        let text = |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let quotas: Vec<u64> = items(text("ratelimit-policy")).iter().filter_map(|i| field(i, "q")).collect();
        for (n, item) in items(text("ratelimit")).iter().enumerate() {
            let (Some(remaining), Some(reset)) = (field(item, "r"), field(item, "t")) else { continue };
            // Small quotas are short bursts, and have no room for a reserve.
            let reserve = quotas.get(n).filter(|quota| **quota >= 1000).map_or(0, |quota| quota / RESERVE);
            if remaining <= reserve {
                self.budget.close(Instant::now() + Duration::from_secs(reset).min(WINDOW));
            }
        }
    }
}

fn secrets(secret: Secret) -> Vec<Secret> {
    vec![secret]
}

fn header(text: &str) -> Result<HeaderValue, Trouble> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| Trouble::refused("the credentials do not fit a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The items of a structured header (RFC 9651): `"default";r=50;t=30, "burst";r=9;t=1`.
fn items(header: &str) -> Vec<&str> {
    header.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
}

fn field(item: &str, name: &str) -> Option<u64> {
    item.split(';').filter_map(|part| part.trim().split_once('=')).find(|(n, _)| *n == name)?.1.parse().ok()
}

/// An id that came back, if it can be part of a URL.
pub(super) fn id(value: &Value) -> Result<String, Trouble> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    match value.as_str() {
        Some(id) if (1..=64).contains(&id.len()) && id.bytes().all(fits) => Ok(id.to_owned()),
        _ => Err(Trouble::later("an answer of Cloudflare's API lacks an id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_about_limits_are_read() {
        let header = "\"default\";r=50;t=30, \"burst\"; r=9 ;t=1";
        let found: Vec<_> = items(header).iter().map(|i| (field(i, "r"), field(i, "t"))).collect();
        assert_eq!(found, [(Some(50), Some(30)), (Some(9), Some(1))]);
        assert!(items("").is_empty());
        assert_eq!(field("\"x\";r=-1", "r"), None);
    }

    #[test]
    fn an_id_cannot_lead_elsewhere() {
        assert_eq!(id(&"92f17202ed8bd63d69a66b86a49a8f6b".into()).unwrap().len(), 32);
        for wrong in ["", "../x", "a/b", "a?b", "%2e"] {
            assert!(id(&wrong.into()).is_err(), "{wrong}");
        }
        assert!(id(&Value::Null).is_err());
    }
}
