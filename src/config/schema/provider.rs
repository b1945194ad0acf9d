//! Providers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_MS;
use crate::config::secret::Secret;

/// More sockets than one address of ours can have to one of theirs.
const MAX_CONNECTIONS: u32 = 65_535;

/// Where direct models live: an endpoint, its wire format and the credentials for it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "base_url"]))]
pub struct Provider {
    /// What models call it by; unique.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The wire format that it speaks.
    pub adapter: Adapter,
    /// `adapter: openai`: which of the compatible servers it is. `base_url` is then the server's own, and where
    /// chat completions are below it, and how a key is sent, is known.
    pub preset: Option<Preset>,
    /// `preset: azure_deployment`, where it is required, and `azure`: the `api-version` of the query.
    #[schemars(length(min = 1))]
    pub api_version: Option<String>,
    /// Scheme, authority and path prefix, like `https://api.openai.com/v1` or
    /// `https://api.anthropic.com/v1`.
    #[schemars(length(min = 1))]
    pub base_url: String,
    /// The key, best taken from the environment as `${VAR}`. It is sent as `authorization: Bearer …`; to Azure
    /// as `api-key`, to Anthropic as `x-api-key`, to Gemini as `x-goog-api-key`. The word `passthrough` sends
    /// the caller's own `authorization` on, where that is what the provider reads. Without this and
    /// `api_key_file`, calls are not authenticated.
    pub api_key: Option<Secret>,
    /// A file that holds the key, like a mounted secret; a newline at its end is ignored.
    #[schemars(length(min = 1))]
    pub api_key_file: Option<String>,
    /// Whether calls carry a marker, by which Consort behind the same Envoy knows them for its own and lets them pass.
    pub marker: Marker,
    /// How the provider is known, and how Consort is known to it; for base URLs that begin with `https://`.
    pub tls: Option<ProviderTls>,
    /// When HTTP/2 is spoken.
    pub http2: Http2,
    /// The HTTP proxy on the way, like `http://user:password@proxy.internal:3128`, or `none`. Without this, the
    /// environment's HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say so.
    #[schemars(length(min = 1))]
    pub proxy: Option<Secret>,
    /// How many connections there may be to it at a time; 0 = any number. As long as it speaks HTTP/1.1, that is how
    /// many calls there may be, too. What is more waits, within its own bounds.
    #[schemars(range(min = 0, max = MAX_CONNECTIONS))]
    pub max_connections: u32,
    /// How old a connection may be that another call is sent on, in ms; 0 = any age. A name that stands for other
    /// addresses now is followed after this long at the latest.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub max_connection_age_ms: u64,
    /// Bound on a connection's coming about (names, TCP, proxy, TLS), in ms.
    #[schemars(range(min = 1, max = MAX_MS))]
    pub connect_timeout_ms: u64,
    /// Bound on the wait for response headers, in ms; 0 = none.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub first_byte_timeout_ms: u64,
    /// Bound on the wait for each further piece of a body, in ms; 0 = none.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub idle_timeout_ms: u64,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            name: String::new(),
            adapter: Adapter::default(),
            preset: None,
            api_version: None,
            base_url: String::new(),
            api_key: None,
            api_key_file: None,
            marker: Marker::default(),
            tls: None,
            http2: Http2::default(),
            proxy: None,
            max_connections: 0,
            max_connection_age_ms: 300_000,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 0,
            idle_timeout_ms: 120_000,
        }
    }
}

/// How a provider is known, and how Consort is known to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderTls {
    /// A PEM file of certificate authorities to trust beside the public ones.
    #[schemars(length(min = 1))]
    pub ca_file: Option<String>,
    /// The name that the provider's certificate must have, where it is not the host of `base_url`; it is also asked
    /// for (SNI).
    #[schemars(length(min = 1))]
    pub server_name: Option<String>,
    /// A PEM file of Consort's own certificate, and of those that lead to its root.
    #[schemars(length(min = 1))]
    pub certificate_file: Option<String>,
    /// A PEM file of the private key of that certificate.
    #[schemars(length(min = 1))]
    pub key_file: Option<String>,
}

/// Whether calls carry a marker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Marker {
    /// Those to a `model_name` that is also the name of an ensemble of this file; with `listen.http`, that of any of
    /// its models where `base_url` has the scheme of that door. Only these could be taken for a caller's request.
    #[default]
    Auto,
    /// All: for a gateway that gives models other names.
    Always,
    /// None.
    Never,
}

/// When HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Http2 {
    /// Where TLS agrees on it.
    #[default]
    Auto,
    /// Always, and without asking: also with `http://`.
    PriorKnowledge,
}

/// The wire format of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Adapter {
    /// OpenAI chat completions and everything compatible.
    #[default]
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// Gemini's `generateContent`, below a base URL like `https://generativelanguage.googleapis.com/v1beta`.
    Gemini,
}

/// A server that speaks chat completions, with what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Azure OpenAI's v1 API; models are called by their deployment.
    Azure,
    /// Azure OpenAI's dated API: the deployment, which is the `model_name`, stands in the URL.
    AzureDeployment,
    /// Google's compatible endpoint.
    Gemini,
    /// Amazon Bedrock's compatible endpoint.
    Bedrock,
    /// Ollama.
    Ollama,
    /// vLLM.
    Vllm,
    /// llama.cpp's server.
    LlamaCpp,
}
