//! The far side: where it is, what lets us in, and what its answers mean.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use ring::hmac;

use super::super::http::{Answer, Http};
use super::super::secret::{Secret, SecretSource};
use super::super::template::tidy;
use super::super::trouble::Trouble;
use crate::clock;
use crate::config::sinks::{HeaderSource, Preset, UrlSource, Webhook};

/// A part of the URL's path that is so long may be a secret.
const LONG: usize = 12;
/// So much of what the far side says is told.
const SAID: usize = 160;

/// A far side.
pub(super) struct Hook {
    pub(super) http: Http,
    pub(super) preset: Preset,
    method: Method,
    url: Url,
    headers: HeaderMap,
    secret: Option<hmac::Key>,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// It may pass, or somebody has to mend something.
    Trouble(Trouble),
    /// This body is not taken.
    Unfit(String),
}

impl Hook {
    /// The far side of these settings.
    ///
    /// # Errors
    /// When a secret cannot be read, or is none.
    pub(super) fn new(settings: &Webhook) -> Result<Self, Trouble> {
        let mut secrets = Vec::new();
        let mut read = |source: &SecretSource| {
            let secret = source.read().map_err(|e| Trouble::refused(e.to_string()))?;
            secrets.push(secret.clone());
            Ok::<_, Trouble>(secret)
        };
        let text = match &settings.url {
            UrlSource::Plain(url) => url.0.clone(),
            UrlSource::Secret(source) => read(source)?.reveal().to_owned(),
        };
        let url = Url::parse(&text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        let url = url.ok_or_else(|| {
            Trouble::refused(
                "what url_file or url_env says is not an http or https URL without a user and a password",
            )
        })?;
        let mut headers = HeaderMap::new();
        for (name, source) in &settings.headers {
            let text = match source {
                HeaderSource::Plain(text) => text.clone(),
                HeaderSource::Secret(source) => read(source)?.reveal().to_owned(),
            };
            insert(&mut headers, name, &text)?;
        }
        if let Some(token) = settings.token.as_ref().map(&mut read).transpose()? {
            match settings.preset {
                Preset::Gotify => insert(&mut headers, "x-gotify-key", token.reveal())?,
                _ => insert(&mut headers, "authorization", &format!("Bearer {}", token.reveal()))?,
            }
        }
        let secret = settings.secret.as_ref().map(&mut read).transpose()?;
        secrets.extend(parts(&url));
        Ok(Self {
            http: Http::new(&settings.http, secrets)?,
            preset: settings.preset.clone(),
            method: match settings.preset {
                Preset::Matrix(_) => Method::PUT,
                _ if settings.put => Method::PUT,
                _ => Method::POST,
            },
            secret: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes())),
            url,
            headers,
        })
    }

    /// Where it is, without what may be a secret.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The topic that ntfy's URL ends with.
    pub(super) fn topic(&self) -> &str {
        self.url.path().trim_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// The URL with other segments behind its own, of which the last `less` go.
    pub(super) fn url_with(&self, less: usize, more: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            for _ in 0..less {
                segments.pop();
            }
            segments.extend(more);
        }
        url
    }

    /// The root of the server.
    pub(super) fn root(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        url
    }

    fn target(&self, key: &str) -> Url {
        match &self.preset {
            Preset::None | Preset::Discord | Preset::Slack => self.url.clone(),
            // JSON goes to the root, and the topic into it (https://docs.ntfy.sh/publish/#publish-as-json).
            Preset::Ntfy => self.url_with(1, &[]),
            Preset::Gotify => self.url_with(0, &["message"]),
            // The same transaction twice is one message (Matrix client-server API, "Sending events to a room").
            Preset::Matrix(room) => {
                self.url_with(0, &["_matrix", "client", "v3", "rooms", room, "send", "m.room.message", key])
            }
        }
    }

    /// A request with what lets us in.
    pub(super) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.client.request(method, url).headers(self.headers.clone())
    }

    /// Hands a body over. `key` is the same whenever the body is.
    pub(super) async fn send(&self, body: Vec<u8>, key: &str) -> Outcome {
        let mut request = self
            .request(self.method.clone(), self.target(key))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key);
        if let Some(secret) = &self.secret {
            let at = (clock::now().as_millis() / 1000).to_string();
            let signed = [at.as_bytes(), b".", &body].concat();
            let signature = hex(hmac::sign(secret, &signed).as_ref());
            request = request
                .header("x-stockade-timestamp", at)
                .header("x-stockade-signature", format!("sha256={signature}"));
        }
        match self.http.send(request.body(body)).await {
            Ok(answer) => self.outcome(&answer),
            Err(trouble) => Outcome::Trouble(trouble),
        }
    }

    /// What an answer means.
    pub(super) fn outcome(&self, answer: &Answer) -> Outcome {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = ["message", "error", "errorDescription"].iter().find_map(|key| body[key].as_str());
        let text = String::from_utf8_lossy(&answer.body);
        // Cut last: half of a secret would not be found.
        let said = tidy(&self.http.redact(said.unwrap_or(&text)), SAID);
        let colon = if said.is_empty() { "" } else { ": " };
        let message = format!("{} answers {}{colon}{said}", self.origin(), answer.status);
        match answer.status {
            200..=299 => Outcome::Done,
            401 | 403 => Outcome::Trouble(Trouble::refused(format!(
                "{message}; check the token and what it is allowed"
            ))),
            404 | 410 => Outcome::Trouble(Trouble::refused(format!(
                "{message}; nobody listens at that URL (any more)"
            ))),
            300..=399 => Outcome::Trouble(Trouble::refused(format!(
                "{message}; redirects are not followed, write the URL it leads to"
            ))),
            408 | 425 | 429 | 500.. => {
                let asked = wait(&body).max(answer.retry_after());
                Outcome::Trouble(
                    asked.map_or_else(|| Trouble::later(&*message), |wait| Trouble::after(wait, &*message)),
                )
            }
            _ => Outcome::Unfit(message),
        }
    }
}

/// How long to wait, as Discord (seconds, with a fraction) and Matrix (milliseconds) say it.
fn wait(body: &serde_json::Value) -> Option<Duration> {
    let seconds =
        body["retry_after"].as_f64().or_else(|| body["retry_after_ms"].as_f64().map(|ms| ms / 1000.0));
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn insert(headers: &mut HeaderMap, name: &str, text: &str) -> Result<(), Trouble> {
    let name =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| Trouble::refused("a header has no name"))?;
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Trouble::refused(format!("the header {name} cannot hold its value")))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// What of a URL must not be shown.
fn parts(url: &Url) -> Vec<Secret> {
    let path = url.path().trim_end_matches('/');
    let mut parts = vec![url.as_str(), path];
    parts.extend(path.split('/').filter(|part| part.len() >= LONG));
    parts.extend(url.query());
    let mut parts: Vec<Secret> = parts.into_iter().filter(|part| part.len() > 3).map(Secret::form).collect();
    parts.extend(
        url.query_pairs().filter(|(_, value)| value.len() >= LONG).map(|(_, value)| Secret::form(&value)),
    );
    parts
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
