//! The programs whose logs are known, and the jail that is proposed for each.

use crate::config::filter::definition;
use crate::filter::builtin;
use crate::filter::definition::Definition;

/// Who wrote a log, and in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Dialect {
    /// Nginx Proxy Manager.
    Npm,
    /// Traefik, in JSON or CLF.
    Traefik,
    /// nginx, Apache: the combined or common format.
    Combined,
    /// HAProxy's HTTP format.
    Haproxy,
    /// OpenSSH.
    Sshd,
}

/// HAProxy's lines whatever their status: the shipped filter, being an expression, matches offenses only.
const HAPROXY_ANY: &str =
    r"failregex: '^(?:(?:\S+ )?haproxy\[\d+\]: )?<HOST>:\d+ \[[^\]]*\] \S+ \S+ [-+\d/]+ \d{3} '";

impl Dialect {
    /// All of them: what may fit two is the first.
    pub(super) const ALL: [Self; 5] = [Self::Npm, Self::Traefik, Self::Combined, Self::Haproxy, Self::Sshd];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Npm => "Nginx Proxy Manager",
            Self::Traefik => "Traefik",
            Self::Combined => "nginx or Apache",
            Self::Haproxy => "HAProxy",
            Self::Sshd => "sshd",
        }
    }

    /// What understands its lines, whatever they tell.
    pub(super) fn definition(self) -> Option<Definition> {
        let text = match self {
            Self::Npm => builtin::text("npm-404")?,
            Self::Traefik => builtin::text("traefik-forceful-browsing")?,
            Self::Combined => builtin::text("nginx-forceful-browsing")?,
            Self::Haproxy => HAPROXY_ANY,
            Self::Sshd => builtin::text("sshd")?,
        };
        definition(text, self.word()).ok()
    }

    /// Whether a line that fits cannot be another's. Traefik's `genericCLF` is the combined format: without what Traefik
    /// alone writes behind it, it is taken for that.
    pub(super) fn is_sure(self, line: &[u8]) -> bool {
        self != Self::Traefik || line.starts_with(b"{") || line.ends_with(b"ms")
    }
}

/// A jail that may be proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Npm,
    NpmFallback,
    Traefik,
    Nginx,
    Apache,
    Haproxy,
    Sshd,
}

impl Kind {
    pub(super) fn jail(self) -> &'static str {
        match self {
            Self::Npm => "npm-forceful-browsing",
            Self::NpmFallback => "npm-protocol",
            Self::Traefik => "traefik-forceful-browsing",
            Self::Nginx => "nginx-forceful-browsing",
            Self::Apache => "apache-forceful-browsing",
            Self::Haproxy => "haproxy-forceful-browsing",
            Self::Sshd => "sshd",
        }
    }

    pub(super) fn filter(self) -> &'static str {
        match self {
            Self::Apache => "nginx-forceful-browsing",
            kind => kind.jail(),
        }
    }

    /// What the jail is for.
    pub(super) fn purpose(self) -> &'static str {
        match self {
            Self::Npm => {
                "Nginx Proxy Manager, all proxy hosts together: somebody asks for one address after the other that is not there or \
                 not allowed. A missing picture or style sheet does not count."
            }
            Self::NpmFallback => {
                "Nginx Proxy Manager: requests for hosts that it does not serve, and what is no HTTP at all. Scanners that go by \
                 addresses end up there."
            }
            Self::Traefik => {
                "Traefik: somebody asks for one address after the other that is not there or not allowed. A missing picture or \
                 style sheet does not count."
            }
            Self::Nginx => {
                "nginx: somebody asks for one address after the other that is not there or not allowed. A missing picture or style \
                 sheet does not count."
            }
            Self::Apache => {
                "Apache, whose log nginx' filter reads: somebody asks for one address after the other that is not there or not \
                 allowed. A missing picture or style sheet does not count."
            }
            Self::Haproxy => {
                "HAProxy (`option httplog`): somebody asks for one address after the other that is not there or not allowed. A \
                 missing picture or style sheet does not count."
            }
            Self::Sshd => {
                "Passwords are guessed over SSH. Keys that are refused do not count: clients try all they have."
            }
        }
    }

    /// `maxretry`, `findtime`, and why.
    pub(super) fn limits(self) -> Option<(u32, &'static str, &'static str)> {
        match self {
            Self::Sshd => None,
            Self::NpmFallback => Some((
                10,
                "10m",
                "Ten of them within ten minutes: one or two may be a name that still leads here.",
            )),
            _ => Some((
                15,
                "60s",
                "Fifteen within a minute: a page with a few dead links is no attack, a scanner asks for hundreds.",
            )),
        }
    }
}
