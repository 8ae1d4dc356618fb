//! `cloudflare_ranges`: what Cloudflare connects from, fetched from its API.

use std::time::Duration;

use super::super::cursor::Cursor;
use super::super::raw::span;
use super::super::report::Report;
use super::url;

const URL: &str = "https://api.cloudflare.com/client/v4/ips";
const DAILY: Duration = Duration::from_secs(86_400);

/// How Cloudflare's ranges are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudflareRanges {
    /// So often: 1 minute to 90 days.
    pub refresh: Duration,
    /// From where, without credentials.
    pub url: String,
}

/// Reads it; that it stands there switches it on.
pub(in super::super) fn read(cursor: &Cursor<'_>, report: &mut Report) -> CloudflareRanges {
    let keys = cursor.section(&["refresh", "url"], report);
    let refresh = keys.read("refresh", report, |c, r| {
        let time = span(c, r)?;
        if time < Duration::from_secs(60) || time > DAILY * 90 {
            c.mistake(r, "must be from 1m to 90d");
            return None;
        }
        Some(time)
    });
    CloudflareRanges {
        refresh: refresh.unwrap_or(DAILY),
        url: keys.read("url", report, url).unwrap_or_else(|| URL.to_owned()),
    }
}
