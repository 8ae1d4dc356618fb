//! `kind: cloudflare`.

use super::super::cursor::{Cursor, Section};
use super::super::report::{Report, shown};
use super::{HTTP_KEYS, http, optional_secret, url};
use crate::sinks::http::HttpOptions;
use crate::sinks::secret::SecretSource;

/// The keys, besides those all sinks have.
pub(super) const KEYS: &[&str] = &[
    "zone_id",
    "account_id",
    "token_file",
    "token_env",
    "email",
    "key_file",
    "key_env",
    "mode",
    "action",
    "list",
    "rule",
    "instance",
    "requests",
    "ipv6_prefix",
    "max",
    "url",
    HTTP_KEYS[0],
    HTTP_KEYS[1],
    HTTP_KEYS[2],
];

/// Where the API is, unless `url` says otherwise.
const URL: &str = "https://api.cloudflare.com/client/v4";
/// Of 1,200 in five minutes (developers.cloudflare.com/fundamentals/api/reference/limits): half is left to people.
const REQUESTS: u64 = 600;
/// An account has room for 50,000 rules in all, a list for about 10,000 items.
const MAX: u64 = 10_000;

/// The settings of a sink of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloudflare {
    /// What shows the bans.
    pub place: Place,
    /// Who we are to the API.
    pub credentials: Credentials,
    /// What becomes of a request from a banned address.
    pub action: Action,
    /// What rules of this host are called; `None`: by a number of its own, kept in `paths.state`. Lower case.
    pub instance: Option<String>,
    /// At most so many requests in any five minutes.
    pub requests: u32,
    /// Longer IPv6 prefixes, single addresses too, are banned as this one: 32, 48, 64, or 128 for as they are.
    pub ipv6_prefix: u8,
    /// At most so many rules or items of ours.
    pub max: usize,
    /// The API, without a `/` at its end.
    pub url: String,
    /// How HTTP is spoken.
    pub http: HttpOptions,
}

/// What shows the bans. Ids are 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// IP access rules of a zone.
    Zone(String),
    /// IP access rules of an account, for all its zones.
    Account(String),
    /// A list of an account, and the zone whose custom rule refers to it, if that rule is to be ours.
    List {
        /// The account.
        account: String,
        /// `^[a-z0-9_]{1,50}$`
        name: String,
        /// The zone.
        rule_in: Option<String>,
    },
}

/// Who we are to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A token with few permissions.
    Token(SecretSource),
    /// The global key: it may do everything that its owner may.
    Key {
        /// The owner's address.
        email: String,
        /// The key.
        key: SecretSource,
    },
}

/// What becomes of a request from a banned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `block`
    Block,
    /// `challenge`
    Challenge,
    /// `js_challenge`
    JsChallenge,
    /// `managed_challenge`
    ManagedChallenge,
}

impl Action {
    const ALL: [Self; 4] = [Self::Block, Self::Challenge, Self::JsChallenge, Self::ManagedChallenge];

    /// The API's word for it, and ours.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Challenge => "challenge",
            Self::JsChallenge => "js_challenge",
            Self::ManagedChallenge => "managed_challenge",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Rules,
    List,
}

/// Reads the settings; `None` with mistakes.
pub(super) fn read(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Cloudflare> {
    let mode = keys
        .read("mode", report, |c, r| c.word(&[("rules", Mode::Rules), ("list", Mode::List)], r))
        .unwrap_or(Mode::Rules);
    let place = match mode {
        Mode::Rules => rules(keys, cursor, report),
        Mode::List => list(keys, cursor, report),
    };
    let credentials = credentials(keys, cursor, report);
    let actions = Action::ALL.map(|action| (action.word(), action));
    let action = keys.read("action", report, |c, r| c.word(&actions, r)).unwrap_or(Action::Block);
    let instance = keys.read("instance", report, instance);
    let requests = keys.read("requests", report, |c, r| c.whole(10..=100_000, r)).unwrap_or(REQUESTS);
    if let Some(c) = keys.get("requests").filter(|_| requests > 1200) {
        c.warning(
            report,
            "Cloudflare blocks who makes more than 1,200 requests in five minutes; is it meant?",
        );
    }
    let prefixes: &[(&str, u8)] = match mode {
        Mode::Rules => &[("32", 32), ("48", 48), ("64", 64), ("128", 128)],
        // A list takes nothing longer than a /64.
        Mode::List => &[("32", 32), ("48", 48), ("64", 64)],
    };
    let ipv6_prefix = keys.read("ipv6_prefix", report, |c, r| c.word(prefixes, r)).unwrap_or(64);
    let max = keys.read("max", report, |c, r| c.whole(1..=50_000, r)).unwrap_or(MAX);
    let url = keys.read("url", report, url).unwrap_or_else(|| URL.to_owned());
    let http = http(keys, report);
    Some(Cloudflare {
        place: place?,
        credentials: credentials?,
        action,
        instance,
        requests: u32::try_from(requests).unwrap_or(u32::MAX),
        ipv6_prefix,
        max: usize::try_from(max).unwrap_or(usize::MAX),
        url,
        http,
    })
}

fn rules(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Place> {
    for key in ["list", "rule"] {
        if let Some(c) = keys.get(key) {
            c.mistake(report, "is for mode: list");
        }
    }
    let zone = keys.read("zone_id", report, id);
    let account = keys.read("account_id", report, id);
    match (keys.get("zone_id"), keys.get("account_id")) {
        (None, None) => {
            cursor.mistake(
                report,
                "has no zone_id and no account_id; both stand on the zone's overview page in Cloudflare's dashboard",
            );
            None
        }
        (Some(_), Some(second)) => {
            second.mistake(
                report,
                "stands beside zone_id: rules are the zone's, or the account's and so hold for all its zones; take one out",
            );
            None
        }
        _ => zone.map(Place::Zone).or_else(|| account.map(Place::Account)),
    }
}

fn list(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Place> {
    let zone = keys.read("zone_id", report, id);
    let account = keys.read("account_id", report, id);
    if keys.get("account_id").is_none() {
        cursor.mistake(report, "has no account_id: a list is the account's");
    }
    let name = match keys.get("list") {
        Some(c) => list_name(&c, report),
        None => Some("stockade".to_owned()),
    };
    let rule = keys.read("rule", report, |c, r| c.flag(r)).unwrap_or(true);
    if rule && keys.get("zone_id").is_none() {
        cursor.mistake(
            report,
            "has no zone_id for the custom rule that makes use of the list; name the zone, or say `rule: false` and refer to \
             the list in a rule of your own",
        );
        return None;
    }
    if let Some(c) = keys.get("zone_id").filter(|_| !rule) {
        c.warning(report, "is not used with `rule: false`");
    }
    Some(Place::List { account: account?, name: name?, rule_in: if rule { Some(zone?) } else { None } })
}

/// An id becomes part of a URL: nothing but what an id is.
fn id(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        cursor.mistake(report, format!("`{}` is not an id: 32 hexadecimal digits", shown(text)));
        return None;
    }
    Some(text.to_ascii_lowercase())
}

fn list_name(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if text.len() > 50 || !text.bytes().all(fits) {
        cursor.mistake(
            report,
            format!("`{}` is not a name of a list: up to 50 of a-z, 0-9 and _", shown(text)),
        );
        return None;
    }
    Some(text.to_owned())
}

fn instance(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if text.len() > 40 || !text.bytes().all(fits) {
        cursor.mistake(report, format!("`{}` is not up to 40 of a-z, 0-9, `.`, `_` and `-`", shown(text)));
        return None;
    }
    Some(text.to_owned())
}

fn credentials(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Credentials> {
    let token = optional_secret("token", keys, report);
    let key = optional_secret("key", keys, report);
    let named = |what: &str| keys.get(&format!("{what}_file")).or_else(|| keys.get(&format!("{what}_env")));
    match (named("token"), keys.get("email")) {
        (Some(_), None) => {
            if let Some(key) = named("key") {
                key.mistake(report, "stands beside a token; take one of them out");
                return None;
            }
            token.map(Credentials::Token)
        }
        (None, Some(email)) => {
            let email = address(&email, report);
            if named("key").is_none() {
                cursor.mistake(report, "has an email, and no key_file with the global key");
            }
            Some(Credentials::Key { email: email?, key: key? })
        }
        (Some(_), Some(email)) => {
            email.mistake(report, "stands beside a token; take one of them out");
            None
        }
        (None, None) => {
            cursor.mistake(
                report,
                "has no token_file; name a file of mode 600 that holds an API token (or a variable with token_env)",
            );
            None
        }
    }
}

/// It becomes a header.
fn address(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    if text.len() > 254 || !text.contains('@') || !text.bytes().all(|b| b.is_ascii_graphic()) {
        cursor.mistake(report, format!("`{}` is not a mail address", shown(text)));
        return None;
    }
    Some(text.to_owned())
}
