//! How Envoy knows Consort, and Consort Envoy.

use std::net::IpAddr;

use serde::Serialize;
use serde::ser::Serializer;

use super::Address;
use crate::chat::quoted;

/// What Consort is called where its address is no name.
const NAME: &str = "consort";

/// The TLS of a cluster. Its files are Envoy's to read.
#[derive(Clone, Debug, Serialize)]
pub struct Tls {
    /// The authorities of which one must have signed Consort's certificate.
    #[serde(serialize_with = "as_yaml")]
    ca: String,
    /// The name, or the IP address, that must stand in it.
    #[serde(serialize_with = "as_yaml")]
    name: String,
    is_address: bool,
    /// What Envoy shows.
    certificate: Option<ClientFiles>,
}

/// Envoy's own certificate.
#[derive(Clone, Debug, Serialize)]
pub struct ClientFiles {
    /// The certificate, and those that vouch for it.
    #[serde(serialize_with = "as_yaml")]
    pub cert: String,
    /// Its private key.
    #[serde(serialize_with = "as_yaml")]
    pub key: String,
}

impl Tls {
    /// With who is found at `address`, by another name where one is given.
    pub fn with(
        address: &Address,
        name: Option<String>,
        ca: String,
        certificate: Option<ClientFiles>,
    ) -> Self {
        let host = match address {
            Address::Socket { host, .. } => host,
            Address::Pipe(_) => NAME,
        };
        let name = name.unwrap_or_else(|| host.to_owned());
        Self { ca, is_address: name.parse::<IpAddr>().is_ok(), name, certificate }
    }
}

#[expect(clippy::ptr_arg, reason = "serde passes the field's own type")]
fn as_yaml<S: Serializer>(text: &String, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&quoted(text))
}
