//! Providers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_MS;
use crate::config::secret::Secret;

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
    /// A PEM file of certificate authorities to trust beside the public ones.
    #[schemars(length(min = 1))]
    pub ca_file: Option<String>,
    /// Bound on TCP connect and TLS handshake together, in ms.
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
            ca_file: None,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 0,
            idle_timeout_ms: 120_000,
        }
    }
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
