//! Where messages are listened for.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A UDP port.
    Udp(SocketAddr),
    /// A Unix datagram socket.
    Unix(PathBuf),
}

/// What is written is no such place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither kind.
    #[error("`{0}` is not a place to listen; write udp://127.0.0.1:5514 or unix:///run/stockade/syslog.sock")]
    Unknown(String),
    /// No address and port.
    #[error(
        "`{0}` is not an address and a port, such as 127.0.0.1:5514 or [::1]:5514; host names are not looked up"
    )]
    Udp(String),
    /// Port 0 is any port.
    #[error("port 0 would be another one at each start; name one")]
    NoPort,
    /// Relative, or too long for a socket (unix(7)).
    #[error("`{0}` is not an absolute path of at most 107 bytes")]
    Path(String),
}

impl Address {
    /// Reads `udp://ADDRESS:PORT`, `unix://PATH` or a path.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if let Some(address) = text.strip_prefix("udp://") {
            let address: SocketAddr = address.parse().map_err(|_| AddressError::Udp(address.to_owned()))?;
            return if address.port() == 0 { Err(AddressError::NoPort) } else { Ok(Self::Udp(address)) };
        }
        let path = match text.strip_prefix("unix://") {
            Some(path) => path,
            None if text.starts_with('/') => text,
            None => return Err(AddressError::Unknown(text.to_owned())),
        };
        if !path.starts_with('/') || path.ends_with('/') || path.len() > 107 || path.contains('\0') {
            return Err(AddressError::Path(path.to_owned()));
        }
        Ok(Self::Unix(path.into()))
    }

    /// Whether only this host can send there.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Udp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["udp://127.0.0.1:5514", "udp://[::1]:514", "unix:///run/x.sock"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::parse("/run/x.sock"), Address::parse("unix:///run/x.sock"));
        let local = |text| Address::parse(text).unwrap().is_local();
        assert!(
            local("udp://127.1.2.3:1")
                && local("udp://[::1]:1")
                && local("/x")
                && local("udp://[::ffff:127.0.0.1]:1")
        );
        assert!(!local("udp://0.0.0.0:514") && !local("udp://[::]:514") && !local("udp://192.0.2.1:514"));
        let long = format!("/{}", "x".repeat(107));
        for text in [
            "",
            "tcp://127.0.0.1:1",
            "udp://localhost:1",
            "udp://127.0.0.1",
            "udp://127.0.0.1:0",
            "unix://x",
            "/run/",
            &long,
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }
}
