//! A conversation with a mail server (RFC 5321), step by step: what a failure means depends on the step.

use std::error::Error as _;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use tokio::net::TcpStream;

use super::stream::Lines;
use super::transport::{End, Failure, Letter, Taken};
use crate::config::sinks::{Encryption, Server};
use crate::sinks::http::provide_crypto;
use crate::sinks::secret::Secret;
use crate::sinks::trouble::{Trouble, chain};

/// A mail server that is written to.
pub(super) struct Smtp {
    server: Server,
    hello: ClientId,
    tls: Option<TlsParameters>,
    login: Option<Login>,
    timeout: Duration,
}

struct Login {
    credentials: Credentials,
    /// What must not be shown: the password, and the shapes in which it is sent.
    secrets: Vec<String>,
}

/// What went wrong in one step.
struct Problem {
    /// What the server answered with.
    code: Option<u16>,
    /// The way to the server cannot be trusted.
    mistrust: bool,
    message: String,
}

impl Smtp {
    /// Nothing is asked yet. `host` is this host's name.
    pub(super) fn new(server: &Server, host: &str, timeout: Duration) -> Result<Self, Trouble> {
        provide_crypto();
        let tls = match server.encryption {
            Encryption::None => None,
            Encryption::Starttls | Encryption::Tls => Some(tls(server)?),
        };
        let login = match (&server.user, &server.password) {
            (Some(user), Some(password)) => {
                let secret = password.read().map_err(|e| Trouble::refused(chain(&e)))?;
                Some(Login::new(user, &secret))
            }
            _ => None,
        };
        // A name without a dot is nobody's name, and refused by some.
        let hello = if host.contains('.') && Address::new("x", host).is_ok() {
            ClientId::Domain(host.to_owned())
        } else {
            ClientId::default()
        };
        Ok(Self { server: server.clone(), hello, tls, login, timeout })
    }

    /// `host:port`, for messages.
    pub(super) fn name(&self) -> String {
        let Server { host, port, .. } = &self.server;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Connects, encrypts, and logs in.
    pub(super) async fn open(&self) -> Result<AsyncSmtpConnection, Trouble> {
        let starts = async {
            match (&self.tls, self.server.encryption) {
                (Some(tls), Encryption::Tls) => {
                    let server = (self.server.host.as_str(), self.server.port);
                    AsyncSmtpConnection::connect_tokio1(
                        server,
                        Some(self.timeout),
                        &self.hello,
                        Some(tls.clone()),
                        None,
                    )
                    .await
                    .map_err(|e| self.problem(&e))
                }
                _ => {
                    let stream = TcpStream::connect((self.server.host.as_str(), self.server.port));
                    let stream = stream.await.map_err(|e| Problem::other(e.to_string()))?;
                    AsyncSmtpConnection::connect_with_transport(Box::new(Lines::new(stream)), &self.hello)
                        .await
                        .map_err(|e| self.problem(&e))
                }
            }
        };
        let mut connection = match tokio::time::timeout(self.timeout, starts).await {
            Ok(begun) => begun.map_err(|p| self.trouble("connecting", p))?,
            Err(_) => return Err(self.trouble("connecting", self.too_late())),
        };
        if let (Some(tls), Encryption::Starttls) = (&self.tls, self.server.encryption) {
            if !connection.can_starttls() {
                let text = "the server offers no STARTTLS, so nothing is sent to it; is the port right (587), or does it want `encryption: tls` (465)?";
                return Err(Trouble::refused(text).context(self.name()));
            }
            let done = self.step(connection.starttls(tls.clone(), &self.hello)).await;
            done.map_err(|p| self.trouble("STARTTLS", p))?;
        }
        if let Some(login) = &self.login {
            let known = [Mechanism::Plain, Mechanism::Login];
            if connection.server_info().get_auth_mechanism(&known).is_none() {
                let text = "the server offers no login that is known here (PLAIN, LOGIN); take user and password out, or use another port";
                return Err(Trouble::refused(text).context(self.name()));
            }
            let done = self.step(connection.auth(&known, &login.credentials)).await;
            done.map_err(|p| self.trouble("logging in", p))?;
        }
        Ok(connection)
    }

    /// Hands a message over.
    pub(super) async fn send(&self, letter: Letter<'_>) -> Result<Taken, Failure> {
        let mut connection = self.open().await?;
        let sent = self.hand_over(&mut connection, letter).await;
        // Politely, but the message is what matters.
        drop(tokio::time::timeout(Duration::from_secs(2).min(self.timeout), connection.quit()).await);
        sent
    }

    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        letter: Letter<'_>,
    ) -> Result<Taken, Failure> {
        let (taken, accepted) = self.envelope(connection, letter.from, letter.to).await?;
        if accepted == 0 {
            let (later, refused) = (taken.later.first(), taken.refused.first());
            let Some((who, why)) = later.or(refused) else {
                return Err(Trouble::refused("nobody to write to").into());
            };
            let message = format!("{}: RCPT TO {who}: {why}", self.name());
            let trouble = if later.is_some() { Trouble::later(message) } else { Trouble::refused(message) };
            return Err(trouble.into());
        }
        let data = self.step(connection.command(Data)).await;
        data.map_err(|p| self.trouble("DATA", p))?;
        match self.step(connection.message(letter.text)).await {
            Ok(_) => Ok(taken),
            Err(problem) => {
                let end = match problem.code {
                    Some(code) if code >= 500 => End::Content,
                    Some(_) => End::NotTaken,
                    None => End::Unclear,
                };
                Err(Failure { trouble: self.trouble("the message", problem), end })
            }
        }
    }

    /// Says from whom and to whom; how many of them were accepted.
    async fn envelope(
        &self,
        connection: &mut AsyncSmtpConnection,
        from: &Address,
        to: &[Address],
    ) -> Result<(Taken, usize), Trouble> {
        let mail = self.step(connection.command(Mail::new(Some(from.clone()), Vec::new()))).await;
        mail.map_err(|p| self.trouble(format_args!("MAIL FROM {from}"), p))?;
        let (mut taken, mut accepted) = (Taken::default(), 0);
        for address in to {
            let rcpt = Rcpt::new(address.clone(), Vec::new());
            match self.step(connection.command(rcpt)).await {
                Ok(_) => accepted += 1,
                // 421: the connection is at its end.
                Err(p) if p.code.is_none_or(|code| code == 421) => {
                    return Err(self.trouble(format_args!("RCPT TO {address}"), p));
                }
                Err(p) if p.code >= Some(500) => taken.refused.push((address.clone(), p.message)),
                Err(p) => taken.later.push((address.clone(), p.message)),
            }
        }
        Ok((taken, accepted))
    }

    /// Goes through a delivery without a message; whom the server does not take now, and why.
    pub(super) async fn try_envelope(&self, from: &Address, to: &[Address]) -> Result<Taken, Trouble> {
        let mut connection = self.open().await?;
        let tried = self.envelope(&mut connection, from, to).await;
        let polite = async {
            drop(connection.command(Rset).await);
            drop(connection.quit().await);
        };
        drop(tokio::time::timeout(Duration::from_secs(2).min(self.timeout), polite).await);
        tried.map(|(taken, _)| taken)
    }

    async fn step<T>(&self, step: impl Future<Output = Result<T, SmtpError>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.timeout, step).await {
            Ok(done) => done.map_err(|e| self.problem(&e)),
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Problem {
        Problem::other(format!("no answer within {} s", self.timeout.as_secs()))
    }

    fn problem(&self, error: &SmtpError) -> Problem {
        let said = error.source().map(ToString::to_string).unwrap_or_default();
        let said = self.redact(&said);
        let code = error.status().map(u16::from);
        let message = match code {
            Some(code) => format!("{code} {said}"),
            None if said.is_empty() => error.to_string(),
            None => said,
        };
        Problem { code, mistrust: is_mistrust(error), message }
    }

    fn redact(&self, text: &str) -> String {
        let secrets = self.login.iter().flat_map(|login| &login.secrets);
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[secret]"))
    }

    /// What a failed step means: 5xx does not pass by itself, and neither does a certificate that is not trusted.
    fn trouble(&self, step: impl Display, problem: Problem) -> Trouble {
        let message = format!("{}: {step}: {}", self.name(), problem.message);
        match problem.code {
            Some(code) if code >= 500 => Trouble::refused(message),
            None if problem.mistrust => {
                Trouble::refused(format!("{message}; name a private authority's certificate with ca_file"))
            }
            _ => Trouble::later(message),
        }
    }
}

impl Problem {
    fn other(message: String) -> Self {
        Self { code: None, mistrust: false, message }
    }
}

impl Login {
    fn new(user: &str, secret: &Secret) -> Self {
        let password = secret.reveal();
        let plain = format!("\0{user}\0{password}");
        Self {
            credentials: Credentials::new(user.to_owned(), password.to_owned()),
            // The longest first: the others may be parts of it.
            secrets: vec![base64(plain.as_bytes()), base64(password.as_bytes()), password.to_owned()],
        }
    }
}

fn tls(server: &Server) -> Result<TlsParameters, Trouble> {
    let mut builder = TlsParameters::builder(server.host.clone());
    if let Some(path) = &server.ca_file {
        let failed =
            |why: String| Trouble::refused(format!("failed to read ca_file {}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        if memchr::memmem::find(&pem, b"BEGIN CERTIFICATE").is_none() {
            return Err(failed("it holds no certificate".to_owned()));
        }
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|e| failed(chain(&e)))?);
    }
    builder.build().map_err(|e| Trouble::refused(format!("failed to begin TLS: {}", chain(&e))))
}

/// Whether a certificate is not trusted, is for another name, or is no more valid.
fn is_mistrust(error: &SmtpError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        // The cause of an error of I/O is not told as its source, but its cause's cause is.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner
            .and_then(|e| e.downcast_ref::<rustls::Error>())
            .or_else(|| error.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// RFC 4648, section 4, as AUTH sends it: for finding it in what a server repeats.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = (0..3).fold(0, |n, i| n << 8 | usize::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS.get(n >> (18 - 6 * i) & 63).copied().unwrap_or(b'=');
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10.
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in pairs {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
