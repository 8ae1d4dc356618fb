//! The filters that come with the program, as the configuration would write them.

/// The text of a shipped filter: a YAML map with the keys of a [`super::definition::Definition`].
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    TEXTS.iter().find(|t| t.0 == name).map(|t| t.1)
}

/// The names of all shipped filters, sorted.
#[must_use]
pub fn names() -> Vec<&'static str> {
    NAMES.to_vec()
}

/// The names of all shipped filters, sorted.
pub const NAMES: &[&str] = &[
    "haproxy-forceful-browsing",
    "nginx-forceful-browsing",
    "npm-403",
    "npm-404",
    "npm-forbidden",
    "npm-forceful-browsing",
    "npm-protocol",
    "sshd",
    "traefik-forceful-browsing",
];

const TEXTS: [(&str, &str); 9] = [
    ("haproxy-forceful-browsing", include_str!("haproxy-forceful-browsing.yaml")),
    ("nginx-forceful-browsing", include_str!("nginx-forceful-browsing.yaml")),
    ("npm-403", include_str!("npm-403.yaml")),
    ("npm-404", include_str!("npm-404.yaml")),
    ("npm-forbidden", include_str!("npm-forbidden.yaml")),
    ("npm-forceful-browsing", include_str!("npm-forceful-browsing.yaml")),
    ("npm-protocol", include_str!("npm-protocol.yaml")),
    ("sshd", include_str!("sshd.yaml")),
    ("traefik-forceful-browsing", include_str!("traefik-forceful-browsing.yaml")),
];
