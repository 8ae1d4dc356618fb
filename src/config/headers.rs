//! `headers`: bans of offenders whose address stands only in a request head; and `backend`.

use super::cursor::Cursor;
use super::report::{Report, shown};

/// So long a header's name may be; the longest registered one that carries an address has 16 bytes.
const NAME_MAX: usize = 40;
/// So many headers are looked for.
const NAMES_MAX: usize = 8;
/// The headers that proxies put the client's address into: nginx' and Nginx Proxy Manager's, everybody's, Cloudflare's.
const NAMES: [&str; 3] = ["x-real-ip", "x-forwarded-for", "cf-connecting-ip"];
const MAX_RULES: u16 = 256;

/// What enforces bans by the packet's source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables where the kernel has it, else the older one.
    #[default]
    Auto,
    /// nf_tables, over netlink.
    Nft,
    /// iptables-legacy and ipset.
    Legacy,
}

/// What is done about a request whose head names a banned address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderAction {
    /// Its connection is reset.
    #[default]
    Reset,
    /// Its packet is dropped.
    Drop,
}

impl HeaderAction {
    /// The word for it in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Drop => "drop",
        }
    }
}

/// What looks into request heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatcherChoice {
    /// The first of the others that this kernel can do and this agent may do.
    #[default]
    Auto,
    /// A BPF program.
    Bpf,
    /// xt_string in nf_tables.
    String,
    /// xt_string in iptables-legacy.
    Legacy,
    /// Nothing.
    Off,
}

impl MatcherChoice {
    /// The word for it in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Bpf => "bpf",
            Self::String => "string",
            Self::Legacy => "legacy",
            Self::Off => "off",
        }
    }
}

/// Bans by an address in a request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The header fields that name the client, lower case; 1 to 8 of at most 40 bytes.
    pub names: Vec<String>,
    /// What is done about a banned one.
    pub action: HeaderAction,
    /// What looks for them.
    pub matcher: MatcherChoice,
    /// So many bans are matched by string, 1 to 4096.
    pub max_rules: u16,
    /// Whether the source in a PROXY protocol header is looked up too.
    pub proxy_protocol: bool,
}

impl Default for Headers {
    fn default() -> Self {
        RawHeaders::default().resolve()
    }
}

/// What the file says of it.
#[derive(Debug, Default)]
pub(super) struct RawHeaders {
    names: Option<Vec<String>>,
    action: Option<HeaderAction>,
    matcher: Option<MatcherChoice>,
    max_rules: Option<u16>,
    proxy_protocol: Option<bool>,
}

impl RawHeaders {
    pub(super) fn resolve(self) -> Headers {
        Headers {
            names: self.names.unwrap_or_else(|| NAMES.map(str::to_owned).into()),
            action: self.action.unwrap_or_default(),
            matcher: self.matcher.unwrap_or_default(),
            max_rules: self.max_rules.unwrap_or(MAX_RULES),
            proxy_protocol: self.proxy_protocol.unwrap_or(true),
        }
    }
}

/// Reads the map `headers`.
pub(super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> RawHeaders {
    let keys = cursor.section(&["names", "action", "matcher", "max_rules", "proxy_protocol"], report);
    let actions = [HeaderAction::Reset, HeaderAction::Drop].map(|a| (a.word(), a));
    let matchers = [
        MatcherChoice::Auto,
        MatcherChoice::Bpf,
        MatcherChoice::String,
        MatcherChoice::Legacy,
        MatcherChoice::Off,
    ]
    .map(|m| (m.word(), m));
    RawHeaders {
        names: keys.read("names", report, names),
        action: keys.read("action", report, |c, r| c.word(&actions, r)),
        matcher: keys.read("matcher", report, |c, r| c.word(&matchers, r)),
        max_rules: keys
            .read("max_rules", report, |c, r| c.whole(1..=4096, r).and_then(|n| u16::try_from(n).ok())),
        proxy_protocol: keys.read("proxy_protocol", report, |c, r| c.flag(r)),
    }
}

/// Reads `backend`.
pub(super) fn backend(cursor: &Cursor<'_>, report: &mut Report) -> Option<Backend> {
    cursor.word(&[("auto", Backend::Auto), ("nft", Backend::Nft), ("legacy", Backend::Legacy)], report)
}

/// Names of header fields: tokens (RFC 9110, section 5.6.2), not counting case.
fn names(cursor: &Cursor<'_>, report: &mut Report) -> Option<Vec<String>> {
    let mut out: Vec<String> = Vec::new();
    for item in cursor.items() {
        let Some(text) = item.some_text(report) else { continue };
        let name = text.to_ascii_lowercase();
        if !name.bytes().all(is_token) {
            let text = format!("`{}` is not the name of a header field, such as X-Real-IP", shown(text));
            item.mistake(report, text);
        } else if name.len() > NAME_MAX {
            item.mistake(report, format!("is longer than {NAME_MAX} bytes, the most that is looked for"));
        } else if !out.contains(&name) {
            out.push(name);
        }
    }
    if cursor.items().is_empty() {
        cursor.mistake(report, "the list is empty; to look into no header write `matcher: off`");
    }
    if out.len() > NAMES_MAX {
        cursor.mistake(report, format!("names {} headers; at most {NAMES_MAX} are looked for", out.len()));
    }
    Some(out)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
