//! `kind: mail`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::Address;

use super::super::cursor::{Cursor, Section};
use super::super::raw::span;
use super::super::report::{Report, shown};
use super::{optional_secret, timeout, url};
use crate::sinks::secret::SecretSource;

/// The keys, besides those all sinks have.
pub(super) const KEYS: &[&str] = &[
    "to",
    "from",
    "server",
    "encryption",
    "unencrypted",
    "user",
    "password_file",
    "password_env",
    "ca_file",
    "sendmail",
    "digest",
    "subject",
    "lines",
    "owner",
    "rdap_url",
    "timeout",
];

/// The keys that say nothing where there is no server.
const OF_SERVER: [&str; 6] =
    ["encryption", "unencrypted", "user", "password_file", "password_env", "ca_file"];

/// So many may be written to.
const RECIPIENTS: usize = 20;

/// The settings of a sink of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Who is written to: 1 to 20, ASCII.
    pub to: Vec<Address>,
    /// Who writes; `None`: the user if that is an address, else `stockade@` this host.
    pub from: Option<Address>,
    /// Which way a message goes.
    pub way: Way,
    /// So long events are gathered for one message; zero: each is told alone.
    pub digest: Duration,
    /// What each subject begins with; `None`: `stockade` and this host.
    pub subject: Option<String>,
    /// So many lines are shown of each offender, at most.
    pub lines: usize,
    /// How it is found out who owns an offender's network.
    pub owner: OwnerSource,
    /// Each step of a delivery is done within this time.
    pub timeout: Duration,
}

/// Which way a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a mail server.
    Server(Box<Server>),
    /// By a program that takes a message on its standard input, as sendmail(8) does.
    Sendmail(PathBuf),
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// How the way there is protected.
    pub encryption: Encryption,
    /// Who logs in.
    pub user: Option<String>,
    /// With what; there is one if and only if there is a user.
    pub password: Option<SecretSource>,
    /// Certificates in PEM that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How the way to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// STARTTLS (RFC 3207), or nothing is sent.
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Tls,
    /// Not at all.
    None,
}

impl Encryption {
    /// The port for it.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }

    /// The word for it in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starttls => "starttls",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }
}

/// How it is found out who owns an offender's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerSource {
    /// It is not.
    Off,
    /// The registry responsible is asked (RFC 9082), found through IANA's list (RFC 9224).
    Rdap,
    /// This server is asked; `/ip/ADDRESS` is added.
    RdapAt(String),
}

/// Reads the settings; `None` with mistakes.
pub(super) fn read(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Mail> {
    let to = keys.read("to", report, recipients);
    if keys.get("to").is_none() {
        cursor.mistake(report, "has no `to`; say who is to be written to, such as admin@example.org");
    }
    let from = keys.read("from", report, address);
    let way = way(keys, cursor, report);
    let digest = keys.read("digest", report, digest).unwrap_or(Duration::from_secs(15 * 60));
    let subject = keys.read("subject", report, subject);
    let lines = keys.read("lines", report, |c, r| c.whole(0..=100, r)).unwrap_or(10);
    let owner = owner(keys, report);
    let timeout = keys.read("timeout", report, timeout).unwrap_or(Duration::from_secs(60));
    let lines = usize::try_from(lines).unwrap_or(0);
    Some(Mail { to: to?, from, way: way?, digest, subject, lines, owner, timeout })
}

fn recipients(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<Address>> {
    let wanted = cursor.items().len();
    let mut to = cursor.list(report, address);
    if wanted == 0 || wanted > RECIPIENTS {
        cursor.mistake(report, format!("expected 1 to {RECIPIENTS} addresses, found {wanted}"));
        return None;
    }
    let mut seen = Vec::new();
    to.retain(|address| {
        let new = !seen.contains(address);
        seen.push(address.clone());
        new
    });
    (!to.is_empty()).then_some(to)
}

/// A plain address: no display name, no quoted part, nothing but ASCII. It stands in commands and headers as it is, and in
/// a program's arguments.
fn address(cursor: &Cursor<'_>, report: &mut Report) -> Option<Address> {
    let text = cursor.some_text(report)?;
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"(),:;<>[]\\".contains(&b);
    let parsed = Some(text)
        .filter(|text| text.bytes().all(plain) && !text.starts_with('-') && text.len() <= 254)
        .and_then(|text| text.parse::<Address>().ok());
    if parsed.is_none() {
        cursor.mistake(report, format!("`{}` is no mail address such as admin@example.org", shown(text)));
    }
    parsed
}

fn way(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Way> {
    let server = server(keys, report);
    let sendmail = keys.read("sendmail", report, |c, r| c.path(r));
    match (keys.get("server"), keys.get("sendmail")) {
        (Some(_), Some(second)) => {
            second.mistake(report, "stands beside server; take one of them out");
            None
        }
        (Some(_), None) => server.map(|server| Way::Server(Box::new(server))),
        (None, Some(_)) => {
            for key in OF_SERVER {
                if let Some(found) = keys.get(key) {
                    found.mistake(report, "is about a server, and sendmail has none");
                }
            }
            sendmail.map(Way::Sendmail)
        }
        (None, None) => {
            cursor.mistake(
                report,
                "has no server; name your mail server, or `sendmail: /usr/sbin/sendmail` where this host sends mail itself",
            );
            None
        }
    }
}

fn server(keys: &Section<'_>, report: &mut Report) -> Option<Server> {
    let words = [Encryption::Starttls, Encryption::Tls, Encryption::None].map(|e| (e.word(), e));
    let encryption =
        keys.read("encryption", report, |c, r| c.word(&words, r)).unwrap_or(Encryption::Starttls);
    let unencrypted = keys.read("unencrypted", report, |c, r| c.flag(r)).unwrap_or(false);
    let user = keys.read("user", report, one_line);
    let password = optional_secret("password", keys, report);
    let ca_file = keys.read("ca_file", report, |c, r| c.path(r));
    let cursor = keys.get("server")?;
    let (host, port) = host_and_port(&cursor, report)?;
    let key = |name| keys.get(name);
    match (key("user"), key("password_file").or_else(|| key("password_env"))) {
        (Some(user), None) => {
            user.mistake(report, "has no password; name a file of mode 600 that holds it with password_file");
        }
        (None, Some(password)) => password.mistake(report, "has no user; say who logs in with `user`"),
        _ => {}
    }
    if encryption == Encryption::None && !is_loopback(&host) {
        if let Some(user) = key("user") {
            user.mistake(
                report,
                "would send its password unencrypted; take `encryption: none` out, or log in to loopback only",
            );
        } else if !unencrypted && let Some(encryption) = key("encryption") {
            encryption.mistake(
                report,
                "lets everybody on the way read along; it is for loopback, or add `unencrypted: yes` if that is meant",
            );
        }
    }
    Some(Server {
        port: port.unwrap_or_else(|| encryption.port()),
        host,
        encryption,
        user,
        password,
        ca_file,
    })
}

/// `HOST`, `HOST:PORT`, an address, or `[ADDRESS]:PORT`.
fn host_and_port(cursor: &Cursor<'_>, report: &mut Report) -> Option<(String, Option<u16>)> {
    let text = cursor.some_text(report)?;
    let parts = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => Some((host, None)),
        Some((host, port)) => port.strip_prefix(':').map(|port| (host, Some(port))),
        None if text.parse::<IpAddr>().is_ok() => Some((text, None)),
        None => Some(text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))),
    };
    let name = |host: &str| {
        !host.is_empty()
            && host.len() <= 253
            && !host.starts_with(['-', '.'])
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let read =
        parts.filter(|(host, _)| host.parse::<IpAddr>().is_ok() || name(host)).and_then(|(host, port)| {
            match port {
                None => Some((host.to_owned(), None)),
                Some(port) => Some((host.to_owned(), Some(port.parse().ok().filter(|port| *port > 0)?))),
            }
        });
    if read.is_none() {
        let hint = "is no server such as mail.example.org, mail.example.org:587 or [2001:db8::1]:587";
        cursor.mistake(report, format!("`{}` {hint}", shown(text)));
    }
    read
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn one_line(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    if text.len() > 200 || text.contains(crate::log::is_hostile) {
        cursor.mistake(report, "must be one line of at most 200 bytes, without control characters");
        return None;
    }
    Some(text.to_owned())
}

fn subject(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    one_line(cursor, report).map(|text| text.trim().to_owned())
}

fn digest(cursor: &Cursor<'_>, report: &mut Report) -> Option<Duration> {
    if cursor.plain() == Some("off") {
        return Some(Duration::ZERO);
    }
    let time = span(cursor, report)?;
    if time > Duration::from_secs(24 * 3600) {
        cursor.mistake(report, "must be at most 1d; `off` sends a message for each event");
        return None;
    }
    Some(time)
}

fn owner(keys: &Section<'_>, report: &mut Report) -> OwnerSource {
    let asked = keys.read("owner", report, |c, r| c.word(&[("off", false), ("rdap", true)], r));
    let at = keys.read("rdap_url", report, url);
    match (asked, at) {
        (Some(true), Some(at)) => OwnerSource::RdapAt(at),
        (Some(true), None) => OwnerSource::Rdap,
        (_, at) => {
            if let (Some(_), Some(url)) = (at, keys.get("rdap_url")) {
                url.mistake(report, "has no effect without `owner: rdap`");
            }
            OwnerSource::Off
        }
    }
}
