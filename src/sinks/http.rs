//! One way to speak HTTP for all sinks: bounded in time and size, TLS by rustls, no redirects, no secret in an error.

use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Proxy, RequestBuilder};

use super::secret::Secret;
use super::trouble::{Trouble, chain};

/// A larger answer is no answer, in bytes.
const LONGEST: usize = 8 << 20;
/// A connection comes about within this time.
const CONNECT: Duration = Duration::from_secs(10);

/// What sinks that speak HTTP have in common in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// A request is answered within this time.
    pub timeout: Duration,
    /// Certificates in PEM that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy to go through, `http://…`; variables of the environment are not heeded.
    pub proxy: Option<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), ca_file: None, proxy: None }
    }
}

/// A client, and what must not be shown.
#[derive(Clone, Debug)]
pub struct Http {
    /// Makes requests; they go out by [`Http::send`] only.
    pub client: Client,
    secrets: Vec<Secret>,
}

/// What came back, whatever the status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 100 to 999.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Http {
    /// A client. What the far side says is told without `secrets`.
    ///
    /// # Errors
    /// When `ca_file` cannot be read or holds no certificate, or the proxy is no URL.
    pub fn new(options: &HttpOptions, secrets: Vec<Secret>) -> Result<Self, Trouble> {
        provide_crypto();
        let mut builder = Client::builder()
            .user_agent(concat!("stockade/", env!("CARGO_PKG_VERSION")))
            .timeout(options.timeout)
            .connect_timeout(CONNECT.min(options.timeout))
            // A redirect would carry the credentials to somewhere else.
            .redirect(Policy::none())
            .no_proxy();
        if let Some(path) = &options.ca_file {
            let said = |e: &dyn std::error::Error| {
                Trouble::refused(format!("failed to read ca_file {}: {}", path.display(), chain(e)))
            };
            let pem = std::fs::read(path).map_err(|e| said(&e))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| said(&e))?;
            if certificates.is_empty() {
                return Err(Trouble::refused(format!("ca_file {} holds no certificate", path.display())));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(proxy) = &options.proxy {
            let proxy = Proxy::all(proxy)
                .map_err(|e| Trouble::refused(format!("proxy: {}", chain(&e.without_url()))))?;
            builder = builder.proxy(proxy);
        }
        let client =
            builder.build().map_err(|e| Trouble::refused(format!("failed to begin HTTP: {}", chain(&e))))?;
        Ok(Self { client, secrets })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no whole answer in time: it may pass. A status is no error here: see [`Answer::trouble`].
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, Trouble> {
        // The URL may hold a token (Telegram): of it only the server's name is told.
        let said = |e: reqwest::Error| self.redact(&chain(&e.without_url()));
        let (client, request) = request.build_split();
        let request =
            request.map_err(|e| Trouble::refused(format!("failed to make a request: {}", said(e))))?;
        let server = request.url().origin().ascii_serialization();
        let failed = |e: reqwest::Error| Trouble::later(format!("failed to reach {server}: {}", said(e)));
        let mut response = client.execute(request).await.map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LONGEST {
                return Err(Trouble::later(format!(
                    "the answer of {server} is longer than {} MiB",
                    LONGEST >> 20
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    /// `text` without our secrets: for what the far side wrote.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| secret.redact(&text))
    }
}

impl Answer {
    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// How long the far side asks to be left alone: seconds or a date (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = jiff::fmt::rfc2822::parse(text).ok()?;
        let at: SystemTime = at.timestamp().into();
        Some(at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// What a status that is not 2xx means as a rule: 401 and 403 are refusals, the rest may pass. `said` is the reason
    /// in the far side's words, without secrets.
    #[must_use]
    pub fn trouble(&self, said: &str) -> Trouble {
        let message = if said.is_empty() {
            format!("HTTP status {}", self.status)
        } else {
            format!("HTTP status {}: {said}", self.status)
        };
        match self.status {
            401 | 403 => Trouble::refused(message),
            _ => match self.retry_after() {
                Some(wait) => Trouble::after(wait, message),
                None => Trouble::later(message),
            },
        }
    }
}

/// TLS is rustls with ring: said once for the process.
pub fn provide_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Only who was first is heeded: it can be nobody but us.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}
