//! The plain HTTP door.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_MS;

/// The plain HTTP door, which `listen.http` opens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The keys that open it, sent by callers as `authorization: Bearer …`. Without any it is open to whoever
    /// can reach it.
    pub api_keys: Vec<ApiKey>,
    /// TLS, for a door that no proxy stands in front of.
    pub tls: Option<Tls>,
    /// How long a caller may take to connect and send the head of its first request, in ms.
    #[schemars(range(min = 1, max = MAX_MS))]
    pub head_timeout_ms: u64,
    /// The head of a request, in bytes; over HTTP/2 half as much again, for each header counts as 32 bytes more than it has.
    /// Beyond that a request is a 431.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub max_head_bytes: u32,
    /// The headers of a request over HTTP/1.1. Beyond that it is a 431.
    #[schemars(range(min = 1, max = 1000))]
    pub max_headers: usize,
    /// How long a request's body may take to arrive, in ms.
    #[schemars(range(min = 1, max = MAX_MS))]
    pub body_timeout_ms: u64,
    /// How long a connection may be without a request, and a caller without taking what it is sent, in ms.
    #[schemars(range(min = 1, max = MAX_MS))]
    pub idle_timeout_ms: u64,
    /// How many connections are open at once; further ones wait until others are closed.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            tls: None,
            head_timeout_ms: 10_000,
            max_head_bytes: 64 << 10,
            max_headers: 100,
            body_timeout_ms: 60_000,
            idle_timeout_ms: 120_000,
            max_connections: 10_000,
        }
    }
}

/// A key, by its digest: what `printf %s "$KEY" | sha256sum` prints, behind `sha256:`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ApiKey {
    /// `sha256:` and 64 hexadecimal digits.
    Digest(String),
    /// The same with a name.
    Named(NamedKey),
}

/// A key with a name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "sha256"]))]
pub struct NamedKey {
    /// What logs call it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// 64 hexadecimal digits.
    #[schemars(length(min = 1))]
    pub sha256: String,
}

/// TLS, 1.2 and 1.3, instead of plain text; its files are read anew when they change.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub struct Tls {
    /// A PEM file of the certificate and those that vouch for it.
    #[schemars(length(min = 1))]
    pub cert: String,
    /// A PEM file of its private key.
    #[schemars(length(min = 1))]
    pub key: String,
    /// A PEM file of authorities. Whoever connects must show a certificate that one of them has signed, whatever its
    /// name. Default: nobody is asked for one.
    #[schemars(length(min = 1))]
    pub client_ca: Option<String>,
}
