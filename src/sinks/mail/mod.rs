//! `kind: mail`: a digest to people, by a mail server or the host's own sendmail.

mod message;
mod sendmail;
mod smtp;
mod stream;
pub(crate) mod text;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lettre::Address;
use lettre::message::header::{
    ContentTransferEncoding, ContentType, Header, HeaderName, HeaderValue, MIME_VERSION_1_0,
};
use lettre::message::{Body, Mailbox};

use self::message::Found;
use self::smtp::Smtp;
use self::transport::{End, Failure, Letter, Taken};
use super::event::Event;
use super::evidence::{self, Lines, Wanted};
use super::http::HttpOptions;
use super::notifier::{Notifier, Pace};
use super::owner::{IANA, Owners, Registry};
use super::trouble::{Trouble, TroubleKind};
use super::{Book, Checked, Context, process};
use crate::clock;
use crate::config::sinks::{Mail, OwnerSource, Way};

/// Reading logs and asking registries take so long at most, for one message.
const LINES: Duration = Duration::from_secs(5);
const OWNERS: Duration = Duration::from_secs(10);
/// The same when the agent ends; what is remembered of registries is enough then.
const LAST_LINES: Duration = Duration::from_millis(500);
/// A recipient who is not to be reached now is tried so often, about half an hour, while others already have the message.
const TRIES: u32 = 12;

/// A sink of this kind.
pub struct MailSink {
    to: Vec<Address>,
    from: Address,
    host: String,
    subject: String,
    digest: Duration,
    lines: usize,
    timeout: Duration,
    carrier: Carrier,
    owners: Option<Owners>,
    book: Book,
    /// The last message failed: the next is not waited for.
    failed: bool,
    /// The agent ends.
    hurry: bool,
    begun: Option<Begun>,
}

enum Carrier {
    Server(Box<Smtp>),
    Sendmail(PathBuf),
}

/// A message that some have, or may have: it is sent again as it was, to the others, so that its Message-ID tells.
struct Begun {
    id: String,
    /// About so many events, the oldest.
    events: usize,
    left: Vec<Address>,
    tries: u32,
}

impl MailSink {
    /// A sink with these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When a secret or `ca_file` cannot be read, or there is no name to write under.
    pub fn new(settings: &Mail, context: &Context) -> Result<Self, Trouble> {
        let carrier = match &settings.way {
            Way::Server(server) => {
                Carrier::Server(Box::new(Smtp::new(server, &context.host, settings.timeout)?))
            }
            Way::Sendmail(program) => Carrier::Sendmail(program.clone()),
        };
        let registry = match &settings.owner {
            OwnerSource::Off => None,
            OwnerSource::Rdap => Some(Registry::Listed(IANA.to_owned())),
            OwnerSource::RdapAt(url) => Some(Registry::Server(url.clone())),
        };
        let owners = registry.map(|registry| Owners::new(registry, &HttpOptions::default())).transpose()?;
        let host = text::name(&context.host);
        let subject = match &settings.subject {
            Some(subject) => subject.clone(),
            None if host.is_empty() => "stockade".to_owned(),
            None => format!("stockade {host}"),
        };
        Ok(Self {
            to: settings.to.clone(),
            from: sender(settings, &host)?,
            host,
            subject,
            digest: settings.digest,
            lines: settings.lines,
            timeout: settings.timeout,
            carrier,
            owners,
            book: context.book.clone(),
            failed: false,
            hurry: false,
            begun: None,
        })
    }

    /// Lines and owners, as far as they are to be had in time.
    async fn find(&self, events: &[Arc<Event>]) -> Found {
        // Those that have a block of their own, in the order of the blocks.
        let mut wanted: Vec<Wanted> = Vec::new();
        for event in events {
            let Event::Ban(ban) = &**event else { continue };
            match wanted.iter().position(|w| w.jail == ban.jail && w.offender == ban.offender) {
                Some(n) => wanted[n].until = wanted[n].until.max(ban.at),
                None if wanted.len() >= message::BLOCKS => {}
                None => {
                    wanted.push(Wanted { jail: ban.jail.clone(), offender: ban.offender, until: ban.at });
                }
            }
        }
        let offenders: Vec<IpNet> = wanted.iter().map(|w| w.offender).collect();
        let owners = async {
            match &self.owners {
                Some(owners) => owners.of(&offenders, if self.hurry { Duration::ZERO } else { OWNERS }).await,
                None => Default::default(),
            }
        };
        let (lines, owners) = tokio::join!(self.find_lines(wanted), owners);
        Found { lines, owners }
    }

    async fn find_lines(&self, wanted: Vec<Wanted>) -> Lines {
        let count = self.lines;
        // A single line is in the event already.
        let Some(jails) = self.book.jails().filter(|_| count > 1 && !wanted.is_empty()) else {
            return Lines::none(count);
        };
        let (now, patience) = (clock::now(), if self.hurry { LAST_LINES } else { LINES });
        let search =
            tokio::task::spawn_blocking(move || evidence::find(&jails, &wanted, count, now, patience));
        search.await.unwrap_or_else(|_| Lines::none(count))
    }

    /// The whole message.
    fn compose(&self, id: &str, events: &[Arc<Event>], found: Option<&Found>) -> Result<Vec<u8>, Trouble> {
        let failed = |why: String| Trouble::unfit(events.len(), format!("failed to write a message: {why}"));
        let text = message::body(&self.host, events, found);
        // Quoted-printable: ASCII, and no line longer than 76 characters, whatever is in it.
        let body = Body::new_with_encoding(text, ContentTransferEncoding::QuotedPrintable)
            .map_err(|_| failed("it cannot be encoded".to_owned()))?;
        let mut builder = lettre::Message::builder()
            .from(Mailbox::new(None, self.from.clone()))
            .message_id(Some(id.to_owned()))
            .date_now()
            .subject(message::subject(&self.subject, events))
            .header(AutoSubmitted)
            // Not set by the library where a body is given encoded.
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            builder = builder.to(Mailbox::new(None, to.clone()));
        }
        let message = builder.body(body).map_err(|e| failed(e.to_string()))?;
        Ok(message.formatted())
    }

    async fn send(&self, to: &[Address], text: &[u8]) -> Result<Taken, Failure> {
        let letter = Letter { from: &self.from, to, text };
        match &self.carrier {
            Carrier::Server(smtp) => smtp.send(letter).await,
            Carrier::Sendmail(program) => sendmail::send(program, letter, self.timeout).await,
        }
    }

    /// Sends a message; without what attackers wrote if the server will not have it so. A spam filter's, or a virus scanner's,
    /// judgement of a user agent must not keep a ban from being told.
    async fn send_whole(&self, to: &[Address], id: &str, events: &[Arc<Event>]) -> Result<Taken, Failure> {
        let found = self.find(events).await;
        let text = self.compose(id, events, Some(&found))?;
        match self.send(to, &text).await {
            Err(Failure { trouble, end: End::Content }) => {
                tracing::warn!("{}; trying again without pieces of the log", trouble.message);
                let text = self.compose(id, events, None)?;
                self.send(to, &text).await
            }
            sent => sent,
        }
    }

    /// Which of the events the next message is about, and to whom: as before where that message has begun.
    fn next(&mut self, events: &[Arc<Event>], room: u32) -> Begun {
        if let Some(begun) = self.begun.take()
            && let Some(same) = events.get(..begun.events)
            && identity(same, self.from.domain()) == begun.id
        {
            return begun;
        }
        // Alone, unless the minute's last message has to be about all the rest.
        let count = if self.digest.is_zero() && room > 0 && !self.hurry { 1 } else { events.len() };
        let id = identity(events.get(..count).unwrap_or(events), self.from.domain());
        Begun { id, events: count, left: self.to.clone(), tries: 0 }
    }
}

impl Notifier for MailSink {
    fn pace(&self) -> Pace {
        Pace { gap: Duration::from_secs(1), per_minute: 6 }
    }

    fn gather(&self) -> Duration {
        if self.failed { Duration::ZERO } else { self.digest }
    }

    fn hurry(&mut self) {
        self.hurry = true;
    }

    async fn tell(&mut self, events: &[Arc<Event>], room: u32) -> Result<usize, Trouble> {
        let begun = self.next(events, room);
        let about = events.get(..begun.events).unwrap_or(events);
        // Noted before: this may be dropped at any await, and nobody would know how far it came.
        let (to, id) = (begun.left.clone(), begun.id.clone());
        let (count, tries) = (begun.events, begun.tries + 1);
        self.begun = Some(begun);
        let sent = self.send_whole(&to, &id, about).await;
        self.failed = matches!(&sent, Err(failure) if failure.end != End::Content);
        let taken = match sent {
            Ok(taken) => taken,
            Err(Failure { trouble, end }) => {
                // Some may have it already.
                let partly = to.len() < self.to.len();
                let unclear = end == End::Unclear;
                self.begun = self.begun.take().filter(|_| partly || unclear);
                if let Some(begun) = &mut self.begun {
                    begun.tries = tries;
                }
                let late = tries >= TRIES;
                return match trouble.kind {
                    _ if end == End::Content => Err(Trouble::unfit(count, trouble.message)),
                    // The others shall not have it twice.
                    TroubleKind::Refused | TroubleKind::Later(_)
                        if partly && (late || trouble.kind == TroubleKind::Refused) =>
                    {
                        self.begun = None;
                        self.failed = false;
                        let left = text::number(to.len() as u64, "recipient");
                        tracing::warn!("{}; {left} did not get what others got", trouble.message);
                        Ok(count)
                    }
                    _ if unclear && late => {
                        self.begun = None;
                        let message = format!(
                            "{}; sent {tries} times, and nobody knows whether it came",
                            trouble.message
                        );
                        Err(Trouble::unfit(count, message))
                    }
                    _ => Err(trouble),
                };
            }
        };
        for (who, why) in &taken.refused {
            tracing::warn!("mail to {who} is refused, others got it: {}", text::harmless(why, 300));
        }
        let Some((who, why)) = taken.later.first() else {
            self.begun = None;
            return Ok(count);
        };
        let trouble = Trouble::later(format!("mail to {who} is not taken now, others got it: {why}"));
        if tries >= TRIES {
            tracing::warn!("{}; given up", trouble.message);
            self.begun = None;
            return Ok(count);
        }
        self.failed = true;
        let left = taken.later.into_iter().map(|(who, _)| who).collect();
        self.begun = Some(Begun { id, events: count, left, tries });
        Err(trouble)
    }
}

/// Who writes.
fn sender(settings: &Mail, host: &str) -> Result<Address, Trouble> {
    if let Some(from) = &settings.from {
        return Ok(from.clone());
    }
    // Where one logs in with an address, the server lets one write under no other, as a rule.
    if let Way::Server(server) = &settings.way
        && let Some(Ok(address)) = server.user.as_ref().map(|user| user.parse::<Address>())
        && user_is_plain(&address)
    {
        return Ok(address);
    }
    Address::new("stockade", if host.is_empty() { "localhost" } else { host }).map_err(|e| {
        Trouble::refused(format!("no address to write under with the host's name {host}: {e}; set `from`"))
    })
}

fn user_is_plain(address: &Address) -> bool {
    let text = address.to_string();
    !text.starts_with('-') && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),:;<>[]\\".contains(&b))
}

/// A Message-ID that is the same for the same events, so that whoever has it twice can tell.
fn identity(events: &[Arc<Event>], domain: &str) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for event in events {
        // Nothing in an event cannot be written as JSON.
        hash.update(&serde_json::to_vec(&**event).unwrap_or_default());
    }
    let hex: String = hash.finish().as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("<{hex}.stockade@{domain}>")
}

/// RFC 3834, section 5: no machine is to answer.
#[derive(Clone, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Tries the settings, sending no message.
///
/// # Errors
/// When a secret cannot be read.
pub async fn check(settings: &Mail, context: &Context) -> Result<Vec<Checked>, Trouble> {
    let sink = MailSink::new(settings, context)?;
    let mut found = Vec::new();
    match &sink.carrier {
        Carrier::Sendmail(program) => found.push(match process::examine(&program.display().to_string()) {
            Ok(()) => Checked::good(format!("{} can be run; nothing was sent", program.display())),
            Err(why) => Checked::bad(why),
        }),
        Carrier::Server(smtp) => {
            let taken = smtp.try_envelope(&sink.from, &sink.to).await?;
            let bad = taken.refused.iter().chain(&taken.later);
            found.extend(bad.map(|(who, why)| {
                let why = text::harmless(why, 300);
                Checked::bad(format!("{}: does not take mail to {who}: {why}", smtp.name()))
            }));
            if found.is_empty() {
                let login = if let Way::Server(server) = &settings.way
                    && server.user.is_some()
                {
                    ", takes user and password"
                } else {
                    ""
                };
                let to = text::number(sink.to.len() as u64, "recipient");
                let from = &sink.from;
                found.push(Checked::good(format!(
                    "{} answers{login}, and takes mail from {from} to {to}; nothing was sent",
                    smtp.name()
                )));
            }
        }
    }
    if let Some(owners) = &sink.owners {
        // A resolver that everybody may know we know.
        let asked = std::net::IpAddr::from([1, 1, 1, 1]);
        found.push(match owners.try_one(asked).await {
            Ok(Some(owner)) => Checked::good(format!("the registry knows {asked}: {owner}")),
            Ok(None) => Checked::bad(format!("the registry does not know {asked}")),
            Err(trouble) => {
                let kind = if trouble.kind == TroubleKind::Refused { "refuses" } else { "fails" };
                Checked::bad(format!("asking a registry {kind}: {}", trouble.message))
            }
        });
    }
    Ok(found)
}
