//! `kind: map`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::cursor::{Cursor, Section};
use super::super::report::{Report, shown};
use super::super::sources;
use super::program;

/// The keys, besides those all sinks have.
pub(super) const KEYS: &[&str] =
    &["format", "path", "value", "mode", "test", "reload", "interval", "timeout", "socket", "map"];

/// The settings of a sink of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Whose file it is.
    pub format: MapFormat,
    /// The file.
    pub path: PathBuf,
    /// What an offender maps to, where the format has values.
    pub value: String,
    /// The mode of a file that was not there before.
    pub mode: u32,
    /// The program, and its arguments, that says whether the server can read the new file.
    pub test: Option<Vec<String>>,
    /// The program, and its arguments, that has the server read it.
    pub reload: Option<Vec<String>>,
    /// The file is written, and the server told, once in so long at most.
    pub interval: Duration,
    /// A program ends, and the socket answers, within this.
    pub timeout: Duration,
    /// HAProxy's runtime socket.
    pub socket: Option<PathBuf>,
    /// What HAProxy calls the file: the path in its own configuration, or `#` and a number.
    pub map: String,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapFormat {
    /// nginx, to be included in a `geo` block.
    NginxGeo,
    /// nginx, to be included in a `map` block: single addresses.
    NginxMap,
    /// Apache, `RewriteMap … txt:`: single addresses.
    Apache,
    /// Apache, to be included in a `<RequireAll>` block.
    ApacheRequire,
    /// HAProxy, for `map_ip(…)`.
    HaproxyMap,
    /// HAProxy, for `-f`.
    HaproxyAcl,
    /// One address or network a line.
    List,
}

impl MapFormat {
    /// The words for them in the configuration.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("nginx-geo", Self::NginxGeo),
        ("nginx-map", Self::NginxMap),
        ("apache", Self::Apache),
        ("apache-require", Self::ApacheRequire),
        ("haproxy-map", Self::HaproxyMap),
        ("haproxy-acl", Self::HaproxyAcl),
        ("list", Self::List),
    ];

    /// Whether what is read from the file has a value beside the address.
    #[must_use]
    pub fn has_values(self) -> bool {
        !matches!(self, Self::ApacheRequire | Self::HaproxyAcl | Self::List)
    }

    /// Whether HAProxy reads it.
    #[must_use]
    pub fn is_haproxy(self) -> bool {
        matches!(self, Self::HaproxyMap | Self::HaproxyAcl)
    }
}

/// Reads the settings; `None` with mistakes.
pub(super) fn read(keys: &Section<'_>, cursor: &Cursor<'_>, report: &mut Report) -> Option<Map> {
    for (key, hint) in [("format", "nginx-geo"), ("path", "/etc/nginx/stockade/banned.conf")] {
        if keys.get(key).is_none() {
            cursor.mistake(report, format!("has no {key}; add `{key}:`, such as {hint}"));
        }
    }
    let format = keys.read("format", report, |c, r| c.word(&MapFormat::WORDS, r));
    let path = keys.read("path", report, file);
    let value = keys.read("value", report, value);
    let mode = keys.read("mode", report, sources::mode);
    let test = keys.read("test", report, program::read);
    let reload = keys.read("reload", report, program::read);
    let interval = program::time("interval", (1, 3600), keys, report);
    let timeout = program::time("timeout", (1, 600), keys, report);
    let socket = keys.read("socket", report, |c, r| c.path(r));
    let map = keys.read("map", report, name);
    let (format, path) = (format?, path?);

    if let Some(c) = keys.get("value").filter(|_| !format.has_values()) {
        c.mistake(report, "this format has no values; take it out");
    }
    for key in ["socket", "map"] {
        if let Some(c) = keys.get(key).filter(|_| !format.is_haproxy()) {
            c.mistake(report, "is for HAProxy: formats haproxy-map and haproxy-acl");
        }
    }
    match (keys.get("socket"), keys.get("map"), keys.get("reload")) {
        (Some(_), _, Some(c)) => {
            c.mistake(report, "stands beside socket, which makes it needless; take one of them out");
        }
        (None, Some(c), _) if format.is_haproxy() => {
            c.mistake(report, "says what to call the file at HAProxy's socket; add `socket:`");
        }
        (Some(c), None, None) if !path.to_string_lossy().chars().all(is_plain_for_haproxy) => {
            c.mistake(report, "HAProxy cannot be told of a path with a blank, a `;` or the like; add `map:`, `#` and a number");
        }
        _ => {}
    }
    match (keys.get("test"), keys.get("reload")) {
        (Some(c), None) => c.mistake(report, "tests what nothing reloads; add `reload:`"),
        (None, Some(c)) if reload.as_ref().is_some_and(|words| is_nginx(words)) => c.warning(
            report,
            "nginx says `reloaded` also when its configuration is wrong; add `test:` with its `-t`, such as [/usr/sbin/nginx, -t]",
        ),
        _ => {}
    }
    Some(Map {
        format,
        map: map.unwrap_or_else(|| path.display().to_string()),
        path,
        value: value.unwrap_or_else(|| "1".to_owned()),
        mode: mode.unwrap_or(0o644),
        test,
        reload,
        interval: interval.unwrap_or(Duration::from_secs(5)),
        timeout: timeout.unwrap_or(Duration::from_secs(30)),
        socket,
    })
}

/// Whether `nginx -s reload` stands there, also inside of a container.
fn is_nginx(words: &[String]) -> bool {
    let is = |word: &String| Path::new(word).file_name().is_some_and(|name| name == "nginx");
    words.iter().skip_while(|word| !is(word)).any(|word| word == "-s")
}

fn file(cursor: &Cursor<'_>, report: &mut Report) -> Option<PathBuf> {
    let path = cursor.path(report)?;
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        cursor.mistake(report, "is a directory; name a file in it");
        return None;
    }
    Some(path)
}

/// A word that means itself in all of the formats.
fn value(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if text.len() > 64 || !text.bytes().all(plain) {
        cursor.mistake(report, format!("`{}`: use up to 64 of a-z A-Z 0-9 _ - .", shown(text)));
        return None;
    }
    Some(text.to_owned())
}

/// The CLI of HAProxy has words between blanks, commands between `;`, and `\` before what is neither.
fn name(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.some_text(report)?;
    if !text.chars().all(is_plain_for_haproxy) {
        cursor
            .mistake(report, "cannot be said at HAProxy's socket: it has a blank, a `;`, a `\\` or the like");
        return None;
    }
    Some(text.to_owned())
}

/// Whether HAProxy's socket takes this in a name as it is.
fn is_plain_for_haproxy(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, ';' | '\\' | '<' | '>' | '"' | '\'')
}
