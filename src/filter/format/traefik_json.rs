//! Traefik's access log as JSON.
//!
//! Keys are read wherever they stand: their order changes when TLS or service keys are there. The status is
//! `DownstreamStatus`, what the client got; `OriginStatus` is 0 or absent when Traefik answers itself (no router, basic auth).
//! `ClientAddr` is the socket's peer; `ClientHost` is the raw `X-Forwarded-For` header where there is one, so it is only a claim.
//!
//! Hazard: values are escaped, so they cannot become keys. The keys made from headers begin with `request_` and the
//! like and cannot equal one read here. A key that occurs twice makes the line nobody's: Traefik does not write such lines.

use super::object::Members;
use super::{Parsed, status};
use crate::filter::fields::{Field, Fields, Statuses};

pub(super) const FIELDS: &[Field] = &[
    Field::Time,
    Field::Peer,
    Field::Forwarded,
    Field::Status,
    Field::UpstreamStatus,
    Field::Method,
    Field::Scheme,
    Field::Host,
    Field::Uri,
    Field::Protocol,
    Field::UserAgent,
    Field::Referer,
    Field::User,
    Field::SentTo,
    Field::Router,
    Field::Upstream,
    Field::Length,
];

pub(super) fn parse<'a>(line: &'a [u8], interest: &Statuses) -> Parsed<'a> {
    fields(line, interest).unwrap_or(Parsed::Mismatch)
}

fn fields<'a>(line: &'a [u8], interest: &Statuses) -> Option<Parsed<'a>> {
    let mut members = Members::of(line).filter(|_| line.first() == Some(&b'{'))?;
    let mut fields = Fields::of_json(false);
    let (mut local, mut emitted) = (None, None);
    while let Some((key, value)) = members.next().ok()? {
        let field = match key {
            b"ClientAddr" => Field::Peer,
            b"ClientHost" => Field::Forwarded,
            b"ClientUsername" => Field::User,
            b"DownstreamContentSize" => Field::Length,
            b"DownstreamStatus" => Field::Status,
            b"OriginStatus" => Field::UpstreamStatus,
            b"RequestHost" => Field::Host,
            b"RequestMethod" => Field::Method,
            b"RequestPath" => Field::Uri,
            b"RequestProtocol" => Field::Protocol,
            b"RequestScheme" => Field::Scheme,
            b"RouterName" => Field::Router,
            b"ServiceName" => Field::SentTo,
            b"ServiceURL" => Field::Upstream,
            b"StartUTC" => Field::Time,
            b"StartLocal" => {
                local = value.text();
                continue;
            }
            b"time" => {
                emitted = value.text();
                continue;
            }
            b"request_User-Agent" => Field::UserAgent,
            b"request_Referer" => Field::Referer,
            _ => continue,
        };
        if fields.is_set(field) {
            return None;
        }
        let text = value.text()?;
        fields.set(field, text);
        if field == Field::Status && !interest.contains(status(text)?) {
            return Some(Parsed::Skip);
        }
    }
    if !fields.is_set(Field::Status) || !fields.is_set(Field::Peer) {
        return None;
    }
    if !fields.is_set(Field::Time)
        && let Some(time) = local.or(emitted)
    {
        fields.set(Field::Time, time);
    }
    // Traefik writes 0 where no server was asked.
    if fields.get(Field::UpstreamStatus) == Some(b"0") {
        fields.set(Field::UpstreamStatus, b"-");
    }
    Some(Parsed::Fields(fields))
}
