//! fail2ban's dialect of Python's regular expressions, translated into the `regex` crate's.
//!
//! Tags become groups; what the linear-time engine cannot do is refused by name; the few places where both engines read the
//! same text differently (`\Z`, `\<`, a bare `{`, `[` in a class) are rewritten.

use super::PatternReason;

/// An address, and what may stand around it: brackets, and the prefix of an IPv4-mapped one. What is captured is looked at
/// again by the address parser, so the pattern may be coarse, but it must take all of an address.
const IP4: &str = r"(?:::f{4,6}:)?(?P<@>(?:[0-9]{1,3}\.){3}[0-9]{1,3})";
const IP6: &str = r"(?P<@>(?:[0-9a-fA-F]{0,4}:){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9a-fA-F]{1,4})?)";
const HOST: &str = r"\[?(?:::f{4,6}:)?(?P<@>(?:[0-9]{1,3}\.){3}[0-9]{1,3}|(?:[0-9a-fA-F]{0,4}:){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9a-fA-F]{1,4})?)\]?";

/// A pattern, translated.
#[derive(Debug)]
pub(super) struct Translated {
    /// For the `regex` crate.
    pub(super) regex: String,
    /// Names of the groups that hold an address, the first that took part being the offender's.
    pub(super) addresses: Vec<String>,
    /// What is allowed but doubtful.
    pub(super) warnings: Vec<&'static str>,
}

/// Translates one pattern. With `loose_start`, a leading `^` also takes blanks, which the cut-out time stamp leaves behind.
pub(super) fn translate(pattern: &str, loose_start: bool) -> Result<Translated, PatternReason> {
    let mut t = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 160),
        names: Vec::new(),
        addresses: Vec::new(),
        warnings: Vec::new(),
        greedy: false,
        open: Vec::new(),
    };
    if loose_start && let Some(rest) = t.rest.strip_prefix('^') {
        t.out.push_str(r"^\s*");
        t.rest = rest;
    }
    t.run()?;
    let anchored = pattern.trim_start_matches("(?i)").starts_with('^') && pattern.ends_with('$');
    if t.greedy && !anchored {
        t.warnings.push(
            "a greedy `.*` before the address in a pattern that is not anchored with `^` and `$`: text a client wrote may be taken for the address",
        );
    }
    Ok(Translated { regex: t.out, addresses: t.addresses, warnings: t.warnings })
}

struct Translator<'p> {
    rest: &'p str,
    out: String,
    names: Vec<String>,
    addresses: Vec<String>,
    warnings: Vec<&'static str>,
    /// A greedy wildcard stood before the first address.
    greedy: bool,
    /// Names of tags that are open.
    open: Vec<&'p str>,
}

impl<'p> Translator<'p> {
    fn run(&mut self) -> Result<(), PatternReason> {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '(' => self.group()?,
                '<' => self.tag()?,
                '{' if !is_repetition(self.rest) => self.replace(1, r"\{"),
                '}' if !self.out_ends_repetition() => self.replace(1, r"\}"),
                '.' if self.rest.starts_with(".*") || self.rest.starts_with(".+") => {
                    self.greedy |= self.addresses.is_empty() && !self.rest[2..].starts_with('?');
                    self.copy(2);
                }
                _ => self.copy(c.len_utf8()),
            }
        }
        match self.open.pop() {
            Some(name) => Err(PatternReason::Unclosed(format!("<F-{name}>"))),
            None => Ok(()),
        }
    }

    fn copy(&mut self, bytes: usize) {
        let (text, rest) = self.rest.split_at(bytes);
        self.out.push_str(text);
        self.rest = rest;
    }

    fn replace(&mut self, bytes: usize, with: &str) {
        self.out.push_str(with);
        self.rest = &self.rest[bytes..];
    }

    /// Whether a `}` now closes a repetition that was copied.
    fn out_ends_repetition(&self) -> bool {
        let open = self.out.rfind('{');
        open.is_some_and(|at| {
            !self.out[..at].ends_with('\\')
                && self.out[at + 1..].bytes().all(|b| b.is_ascii_digit() || b == b',')
        }) || self.inside_braced_escape()
    }

    /// `\x{41}`, `\p{L}`
    fn inside_braced_escape(&self) -> bool {
        self.out.rfind('{').is_some_and(|at| {
            let before = &self.out[..at];
            ["\\x", "\\u", "\\U", "\\p", "\\P"].iter().any(|e| before.ends_with(e))
                && !self.out[at..].contains('}')
        })
    }

    fn escape(&mut self, in_class: bool) -> Result<(), PatternReason> {
        let Some(c) = self.rest[1..].chars().next() else {
            return Err(PatternReason::Syntax("it ends in a backslash".into()));
        };
        match c {
            '1'..='9' if !in_class => {
                return Err(PatternReason::Unsupported(format!("the back-reference `\\{c}`")));
            }
            'Z' if !in_class => self.replace(2, r"\z"),
            // Boundaries of words in the `regex` crate, plain characters in Python.
            '<' | '>' => self.replace(2, if c == '<' { "<" } else { ">" }),
            // No escape in Python, and refused by the crate.
            '/' | '"' | '\'' | '=' | ',' | ':' | ';' | '@' | '!' | '%' | '_' | '`' | ' ' => {
                let plain = c.to_string();
                self.replace(2, &plain);
            }
            _ => self.copy(1 + c.len_utf8()),
        }
        Ok(())
    }

    /// `[...]`, in which the crate knows nested classes and set operations, and Python does not.
    fn class(&mut self) -> Result<(), PatternReason> {
        self.copy(1);
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        if self.rest.starts_with(']') {
            self.replace(1, r"\]");
        }
        loop {
            let Some(c) = self.rest.chars().next() else {
                return Err(PatternReason::Syntax("a `[` is not closed".into()));
            };
            match c {
                ']' => {
                    self.copy(1);
                    return Ok(());
                }
                '\\' => self.escape(true)?,
                '[' => self.replace(1, r"\["),
                '&' => self.replace(1, r"\&"),
                '~' => self.replace(1, r"\~"),
                '-' if self.rest.starts_with("--") => self.replace(2, r"-\-"),
                _ => self.copy(c.len_utf8()),
            }
        }
    }

    fn group(&mut self) -> Result<(), PatternReason> {
        let Some(inner) = self.rest.strip_prefix("(?") else {
            self.copy(1);
            return Ok(());
        };
        for (mark, what) in [
            ("=", "the look-ahead `(?=`"),
            ("!", "the look-ahead `(?!`"),
            ("<=", "the look-behind `(?<=`"),
            ("<!", "the look-behind `(?<!`"),
            ("P=", "the back-reference `(?P=`"),
            (">", "the atomic group `(?>`"),
            ("(", "the conditional group `(?(`"),
        ] {
            if inner.starts_with(mark) {
                return Err(PatternReason::Unsupported(what.into()));
            }
        }
        if let Some(comment) = inner.strip_prefix('#') {
            let end =
                comment.find(')').ok_or_else(|| PatternReason::Syntax("a comment is not closed".into()))?;
            self.rest = &comment[end + 1..];
            return Ok(());
        }
        let name = inner.strip_prefix("P<").or_else(|| inner.strip_prefix('<'));
        if let Some((name, rest)) = name.and_then(|n| n.split_once('>')) {
            let unique = self.unique(name);
            if matches!(name, "host" | "ip4" | "ip6" | "fid" | "ip" | "addr") {
                self.addresses.push(unique.clone());
            }
            self.out.push_str(&format!("(?P<{unique}>"));
            self.rest = rest;
            return Ok(());
        }
        self.copy(2);
        Ok(())
    }

    /// `<HOST>`, `<F-USER>...</F-USER>`, `<F-PORT/>`; what is no tag is text.
    fn tag(&mut self) -> Result<(), PatternReason> {
        let Some((tag, after)) = self.rest[1..].split_once('>') else {
            self.copy(1);
            return Ok(());
        };
        let (closing, name) = match tag.strip_prefix('/') {
            Some(name) => (true, name),
            None => (false, tag),
        };
        let (single, name) = match name.strip_suffix('/') {
            Some(name) => (true, name),
            None => (false, name),
        };
        let is_name = |n: &str| {
            !n.is_empty()
                && n.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
        };
        if !is_name(name) {
            self.copy(1);
            return Ok(());
        }
        let Some(custom) = name.strip_prefix("F-") else {
            if closing || single {
                self.copy(1);
                return Ok(());
            }
            match name {
                "HOST" | "ADDR" => self.address(HOST),
                "IP4" => self.address(IP4),
                "IP6" => self.address(IP6),
                "SUBNET" => {
                    self.address(HOST);
                    self.warnings.push(
                        "the prefix length of a `<SUBNET>` is not used: the address alone is the offender",
                    );
                    let cidr = self.unique("cidr");
                    self.out.push_str(&format!("(?:/(?P<{cidr}>[0-9]+))?"));
                }
                "CIDR" => {
                    let cidr = self.unique("cidr");
                    self.out.push_str(&format!("(?P<{cidr}>[0-9]+)"));
                }
                "DNS" => {
                    let dns = self.unique("dns");
                    self.out.push_str(&format!(r"(?P<{dns}>[\w\-.^_]*\w)"));
                }
                "SKIPLINES" => {
                    return Err(PatternReason::Unsupported(
                        "`<SKIPLINES>`, a match over several lines,".into(),
                    ));
                }
                _ => return Err(PatternReason::UnknownTag(format!("<{name}>"))),
            }
            self.rest = after;
            return Ok(());
        };
        self.rest = after;
        if closing {
            if self.open.pop() != Some(custom) {
                return Err(PatternReason::Unclosed(format!("</F-{custom}>")));
            }
            self.out.push(')');
            return Ok(());
        }
        match custom {
            "NOFAIL" | "MLFFORGET" | "MLFGAINED" | "CONTENT" | "SKIPLINES" => {
                return Err(PatternReason::Unsupported(format!(
                    "`<F-{custom}>`, which relates several lines,"
                )));
            }
            "IP4" if single => self.address(IP4),
            "IP6" if single => self.address(IP6),
            "ADDR" | "SUBNET" if single => self.address(HOST),
            "ID" | "IP4" | "IP6" | "ADDR" => {
                let name = self.unique("fid");
                self.addresses.push(name.clone());
                self.out.push_str(&format!("(?P<{name}>"));
                self.finish(custom, single, r"\S+");
            }
            _ => {
                let lower = custom.to_ascii_lowercase().replace('-', "_");
                let name = self.unique(&lower);
                self.out.push_str(&format!("(?P<{name}>"));
                self.finish(custom, single, if custom == "PORT" { r"\w+" } else { r"\S+" });
            }
        }
        Ok(())
    }

    fn finish(&mut self, tag: &'p str, single: bool, default: &str) {
        if single {
            self.out.push_str(default);
            self.out.push(')');
        } else {
            self.open.push(tag);
        }
    }

    fn address(&mut self, pattern: &str) {
        let name = self.unique("host");
        self.out.push_str(&pattern.replace('@', &name));
        self.addresses.push(name);
    }

    /// The name, or with a number if it was used: the crate wants names to differ.
    fn unique(&mut self, name: &str) -> String {
        let mut unique =
            if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name.to_owned() };
        let mut n = 1;
        while self.names.contains(&unique) {
            n += 1;
            unique = format!("{name}_{n}");
        }
        self.names.push(unique.clone());
        unique
    }
}

/// `{3}`, `{3,}`, `{3,5}`, `{,5}`: what Python takes for a repetition.
fn is_repetition(text: &str) -> bool {
    let Some((inner, _)) = text[1..].split_once('}') else { return false };
    inner.bytes().all(|b| b.is_ascii_digit() || b == b',')
        && inner.bytes().filter(|&b| b == b',').count() <= 1
        && inner.starts_with(|c: char| c.is_ascii_digit())
}
