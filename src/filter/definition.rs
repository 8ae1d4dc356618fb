//! What a filter is, as the configuration (or a shipped file) states it. Nothing here is compiled yet.

/// A filter as written. Either structured (`formats` with `matches`) or regex (`failregex`); a filter may have several
/// formats, of which the first that understands a line is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// Names of formats, e.g. `npm`; key `format:` takes one name or a list.
    pub formats: Vec<String>,
    /// A line is an offense when one of these holds (key `match:`, a map or a list of maps).
    pub matches: Vec<Clause>,
    /// ... unless one of these holds (key `ignore:`, a map or a list of maps).
    pub ignore: Vec<Clause>,
    /// fail2ban's `failregex`: one or a list.
    pub failregex: Vec<String>,
    /// fail2ban's `ignoreregex`: one or a list.
    pub ignoreregex: Vec<String>,
    /// For `format: json`: path of the time stamp, e.g. `.ts` or `.request.time` (key `time:`).
    pub time: Option<String>,
    /// For `format: json`: path of the address that connected (key `peer:`).
    pub peer: Option<String>,
    /// For `format: json`: path of a forwarded list (key `forwarded:`).
    pub forwarded: Option<String>,
    /// IANA name, `UTC`, or `+01:00`: the zone of time stamps that carry none (key `timezone:`); default: the host's.
    pub timezone: Option<String>,
}

/// All of these conditions hold. The field is a format's field name (`status`, `uri`, `user_agent`, ...) or, for
/// `format: json`, a path that begins with a dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause(pub Vec<(String, Vec<Pattern>)>);

/// One acceptable value of a field; a list of them is met by any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Exactly this number.
    Number(i64),
    /// A number in this range, both ends included: `400-499`, or `4xx`.
    Range(i64, i64),
    /// The field is absent, empty or `-` (written `-`).
    Absent,
    /// A regular expression that must match somewhere in the field's bytes.
    Regex(String),
}
