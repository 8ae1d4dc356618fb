//! Rules.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::key::{Addr, Proto};
use crate::compile::{IPPROTO_TCP, IPPROTO_UDP, Known, Need};
use crate::expr::{Expr, Hex, Reject};
use crate::rule::Rule;
use crate::statement::{Field, Operand, Statement};
use crate::value::Value;

impl fmt::Display for Rule {
    /// `ip saddr @banned4 counter packets 0 bytes 0 drop`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = Known::new(self.family);
        let mut words = Vec::new();
        for (i, statement) in self.statements.iter().enumerate() {
            if !implied(statement, self.statements.get(i + 1), &known) {
                words.push(text(statement, &known));
            }
            known.learn(statement);
        }
        if let Some(comment) = &self.comment {
            words.push(format!("comment \"{comment}\""));
        }
        f.write_str(&words.join(" "))
    }
}

/// Whether this is a check that the next condition makes anyway: nft leaves it out.
fn implied(statement: &Statement, next: Option<&Statement>, known: &Known) -> bool {
    let (Some(need), Some(Statement::Match { fields, .. })) = (checks(statement), next) else {
        return false;
    };
    match need {
        // `meta l4proto tcp th dport 80` becomes `tcp dport 80`.
        Need::L4(_) if matches!(fields[..], [Field::ThSport | Field::ThDport]) => {
            matches!(need, Need::L4(IPPROTO_TCP | IPPROTO_UDP)) && !known.has(need)
        }
        need => fields.iter().any(|f| f.needs() == Some(need)),
    }
}

/// What a condition on a protocol alone makes sure of.
fn checks(statement: &Statement) -> Option<Need> {
    let Statement::Match { fields, inverted: false, with: Operand::Bytes(value), .. } = statement else {
        return None;
    };
    match (fields.as_slice(), &**value) {
        ([Field::Nfproto], [2]) => Some(Need::Ip),
        ([Field::Nfproto], [10]) => Some(Need::Ip6),
        ([Field::L4proto], [proto]) => Some(Need::L4(*proto)),
        _ => None,
    }
}

fn text(statement: &Statement, known: &Known) -> String {
    match statement {
        Statement::Match { fields, prefix, inverted, with } => {
            let left: Vec<_> = fields.iter().map(|f| field_name(*f, known)).collect();
            let mut out = left.join(" . ");
            let equal = if let (Some(prefix), Operand::Set(_)) = (prefix, with) {
                out.push_str(&format!(" & {}", mask(fields, *prefix)));
                " =="
            } else {
                ""
            };
            out.push_str(if *inverted { " !=" } else { equal });
            out.push(' ');
            out.push_str(&operand(fields, with));
            out
        }
        Statement::Before(end) => format!("meta time < \"{}\"", date(end / 1_000_000_000)),
        Statement::Counter => "counter packets 0 bytes 0".to_owned(),
        Statement::Verdict(verdict) => verdict.to_string(),
        Statement::Reject(Reject::TcpReset) if needs_tcp(known) => {
            format!("meta l4proto tcp {}", Reject::TcpReset)
        }
        Statement::Reject(reject) => reject.to_string(),
        Statement::Expr(Expr::Counter { packets, bytes }) => {
            format!("counter packets {packets} bytes {bytes}")
        }
        Statement::Expr(Expr::Verdict(verdict)) => verdict.to_string(),
        Statement::Expr(Expr::Reject(reject)) => reject.to_string(),
        Statement::Expr(Expr::Match { name, .. }) => format!("xt match {name}"),
        // nft has no words for single expressions but in its debugging output.
        Statement::Expr(expr) => expr.to_string(),
    }
}

/// The ip and ip6 families do not show the check that comes with a TCP reset.
fn needs_tcp(known: &Known) -> bool {
    !known.has(Need::L4(IPPROTO_TCP)) && !known.is_one_family()
}

fn field_name(field: Field, known: &Known) -> String {
    let th = match known.l4() {
        Some(IPPROTO_TCP) => "tcp",
        Some(IPPROTO_UDP) => "udp",
        _ => "th",
    };
    match field {
        Field::IpSaddr => "ip saddr".to_owned(),
        Field::IpDaddr => "ip daddr".to_owned(),
        Field::Ip6Saddr => "ip6 saddr".to_owned(),
        Field::Ip6Daddr => "ip6 daddr".to_owned(),
        Field::ThSport => format!("{th} sport"),
        Field::ThDport => format!("{th} dport"),
        Field::TcpSport => "tcp sport".to_owned(),
        Field::TcpDport => "tcp dport".to_owned(),
        Field::UdpSport => "udp sport".to_owned(),
        Field::UdpDport => "udp dport".to_owned(),
        Field::Nfproto => "meta nfproto".to_owned(),
        Field::L4proto => "meta l4proto".to_owned(),
        Field::Iifname => "iifname".to_owned(),
        Field::Oifname => "oifname".to_owned(),
        Field::Raw { base, offset, len } => {
            format!("@{},{},{}", base.word(), u32::from(offset) * 8, u32::from(len) * 8)
        }
    }
}

fn operand(fields: &[Field], with: &Operand) -> String {
    match with {
        Operand::Set(set) => format!("@{set}"),
        Operand::Range(first, last) => format!("{}-{}", number(first), number(last)),
        Operand::Net(net) => Value::from(*net).to_string(),
        Operand::Bytes(bytes) => match (fields.first(), &**bytes) {
            (Some(Field::Nfproto), [2]) => "ipv4".to_owned(),
            (Some(Field::Nfproto), [10]) => "ipv6".to_owned(),
            (Some(Field::L4proto), [proto]) => Proto(*proto).to_string(),
            (Some(Field::Iifname | Field::Oifname), name) => {
                let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                format!("\"{}\"", String::from_utf8_lossy(&name[..end]))
            }
            (Some(Field::IpSaddr | Field::IpDaddr), [a, b, c, d]) => {
                Addr(Ipv4Addr::new(*a, *b, *c, *d).into()).to_string()
            }
            (Some(Field::Ip6Saddr | Field::Ip6Daddr), bytes) if bytes.len() == 16 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(bytes);
                Addr(IpAddr::from(octets)).to_string()
            }
            (Some(Field::Raw { .. }), bytes) => number(bytes),
            (_, [a, b]) => u16::from_be_bytes([*a, *b]).to_string(),
            (_, bytes) => number(bytes),
        },
    }
}

/// A point in time as nft(8) writes it where the time zone is UTC: `2030-01-02 03:04:05`. The days are counted as in
/// Howard Hinnant's "chrono-compatible low-level date algorithms", in eras of 400 years that begin in March.
fn date(seconds: u64) -> String {
    const ERA: u64 = 146_097;
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        era * 400 + year + carry,
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// A hexadecimal number without leading zeros.
fn number(bytes: &[u8]) -> String {
    let hex = Hex(bytes).to_string();
    let digits = hex.trim_start_matches("0x").trim_start_matches('0');
    format!("0x{}", if digits.is_empty() { "0" } else { digits })
}

fn mask(fields: &[Field], prefix: u8) -> String {
    let net = match fields.first() {
        Some(Field::IpSaddr | Field::IpDaddr) => {
            Ipv4Net::new(Ipv4Addr::UNSPECIFIED, prefix.min(32)).map(IpNet::from)
        }
        Some(Field::Raw { len, .. }) => {
            let bits: Vec<u8> = (0..u32::from(*len))
                .map(|i| !0xffu8.checked_shr(u32::from(prefix).saturating_sub(i * 8).min(8)).unwrap_or(0))
                .collect();
            return number(&bits);
        }
        _ => Ipv6Net::new(Ipv6Addr::UNSPECIFIED, prefix.min(128)).map(IpNet::from),
    };
    net.map(|net| Addr(net.netmask()).to_string()).unwrap_or_default()
}
