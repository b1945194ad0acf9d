//! Where Envoy finds somebody.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::chat::quoted;

/// An address, as Envoy is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host, by its name or its IP address, and a port.
    Socket {
        /// The host; an IPv6 address stands without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket.
    Pipe(String),
}

/// Neither a host with a port nor a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `host:port` or `unix:/path`")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Pipe(path.to_owned())) } else { Err(AddressError) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_ambiguous = bare.is_none() && host.contains(':');
        let port = port.parse().map_err(|_| AddressError)?;
        if host.is_empty() || is_ambiguous || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(AddressError);
        }
        Ok(Self::Socket { host: host.to_owned(), port })
    }
}

impl Address {
    /// The same as seen by a neighbour: who listens everywhere is asked on the loopback.
    #[must_use]
    pub fn as_seen_locally(self) -> Self {
        match self {
            Self::Socket { host, port } if host == "0.0.0.0" => {
                Self::Socket { host: "127.0.0.1".into(), port }
            }
            Self::Socket { host, port } if host == "::" => Self::Socket { host: "::1".into(), port },
            other => other,
        }
    }

    /// As it is written on a command line.
    #[must_use]
    pub fn argument(&self) -> String {
        match self {
            Self::Socket { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Socket { host, port } => format!("{host}:{port}"),
            Self::Pipe(path) => format!("unix:{path}"),
        }
    }

    /// How Envoy's cluster finds its hosts.
    fn resolution(&self) -> &'static str {
        match self {
            Self::Socket { host, .. } if host.parse::<IpAddr>().is_err() => "STRICT_DNS",
            Self::Socket { .. } | Self::Pipe(_) => "STATIC",
        }
    }
}

/// As Envoy's `Address`, in YAML's flow style.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { host, port } => {
                let is_plain = host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
                let host = if is_plain { host.clone() } else { quoted(host) };
                write!(f, "{{socket_address: {{address: {host}, port_value: {port}}}}}")
            }
            Self::Pipe(path) => write!(f, "{{pipe: {{path: {}}}}}", quoted(path)),
        }
    }
}

/// As templates want it: `address`, `resolution`, and `host` and `port` where it has them.
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (host, port) = match self {
            Self::Socket { host, port } => (Some(host), Some(port)),
            Self::Pipe(_) => (None, None),
        };
        let mut fields = serializer.serialize_struct("Address", 4)?;
        fields.serialize_field("address", &self.to_string())?;
        fields.serialize_field("resolution", self.resolution())?;
        fields.serialize_field("host", &host)?;
        fields.serialize_field("port", &port)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_in_envoys_words() {
        let told = |text: &str| text.parse::<Address>().map(|a| (a.to_string(), a.resolution()));
        for (text, expected, resolution) in [
            ("127.0.0.1:80", "{socket_address: {address: 127.0.0.1, port_value: 80}}", "STATIC"),
            ("[::1]:80", "{socket_address: {address: \"::1\", port_value: 80}}", "STATIC"),
            ("consort.llm:80", "{socket_address: {address: consort.llm, port_value: 80}}", "STRICT_DNS"),
            ("unix:/run/c.sock", "{pipe: {path: \"/run/c.sock\"}}", "STATIC"),
        ] {
            assert_eq!(told(text), Ok((expected.to_owned(), resolution)), "{text}");
        }
        for text in ["", "host", ":80", "host:", "host:70000", "::1:80", "a\nb:80", "unix:relative"] {
            assert_eq!(told(text), Err(AddressError), "{text}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_the_loopback() {
        let seen = |text: &str| text.parse::<Address>().unwrap().as_seen_locally();
        assert_eq!(seen("0.0.0.0:80"), "127.0.0.1:80".parse().unwrap());
        assert_eq!(seen("[::]:80"), "[::1]:80".parse().unwrap());
        assert_eq!(seen("10.0.0.1:80"), "10.0.0.1:80".parse().unwrap());
    }
}
