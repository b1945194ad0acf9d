//! What a call is addressed to: a direct model at a provider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::rules::Rules;

use crate::limits::{Cooldown, RateLimit};
use crate::signing::Secrets;
use crate::telemetry::Cost;

/// Where direct models live: an endpoint, its wire format and the credentials for it.
pub struct Provider {
    /// The operator's name for it, unique in a configuration.
    pub name: Arc<str>,
    /// The wire format that it speaks.
    pub adapter: Adapter,
    /// What OpenTelemetry's conventions call it (`gen_ai.provider.name`).
    pub convention: &'static str,
    /// Scheme, authority and path prefix, without a trailing slash.
    pub base_url: Uri,
    /// How calls authenticate.
    pub credential: Credential,
    /// The connection pool and its timeouts.
    pub client: super::client::Client,
}

/// The wire format of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// OpenAI chat completions and everything compatible.
    OpenAi(Endpoint),
    /// Anthropic's Messages.
    Anthropic,
    /// Gemini's `generateContent`.
    Gemini,
}

/// Where chat completions are below a base URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The path, from its first slash; `{model}` stands for the model's name.
    pub path: Box<str>,
    /// The query, without its question mark.
    pub query: Option<Box<str>>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { path: "/chat/completions".into(), query: None }
    }
}

impl Adapter {
    /// Who speaks it, by the names that OpenTelemetry's conventions for generative AI have for providers.
    pub fn provider_name(&self) -> &'static str {
        match self {
            Self::OpenAi(_) => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gcp.gemini",
        }
    }

    /// Fields in the words of the wire format itself, which go through as they are: for an operator's `set` and
    /// `params`, and not for callers, who could overrule what the operator forces.
    pub fn own_fields(&self) -> &'static [&'static str] {
        match self {
            Self::OpenAi(_) => &[],
            Self::Anthropic => &["cache_control", "thinking", "output_config"],
            Self::Gemini => &["cachedContent", "safetySettings", "generationConfig"],
        }
    }
}

/// How calls to a provider authenticate.
#[derive(Clone)]
pub enum Credential {
    /// Not at all.
    None,
    /// By a header of the provider's own.
    Fixed {
        /// Its name, like `authorization`.
        name: HeaderName,
        /// Its value, marked sensitive so that no log shows it.
        value: HeaderValue,
    },
    /// The caller's own `authorization` header travels on.
    Passthrough,
}

impl Credential {
    /// The key of its own, to be kept out of what callers read.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Fixed { value, .. } => {
                let value = value.to_str().ok()?;
                Some(value.strip_prefix("Bearer ").unwrap_or(value))
            }
            Self::None | Self::Passthrough => None,
        }
    }
}

/// An alias for one provider model.
pub struct DirectModel {
    /// The alias (`display_name`).
    pub name: Arc<str>,
    /// Where it lives.
    pub provider: Arc<Provider>,
    /// The provider's name for it.
    pub model_name: String,
    /// The bound of one attempt, streaming included; none when the operator said 0.
    pub timeout: Option<Duration>,
    /// How many attempts may follow the first one of a call.
    pub retries: u32,
    /// When it is left alone; none leaves it in use, whatever happens.
    pub cooldown: Option<Cooldown>,
    /// How much it may be asked; none without a limit.
    pub rate_limit: Option<RateLimit>,
    /// How it is asked whether it is back; none leaves that to a caller's call.
    pub background_check: Option<BackgroundCheck>,
    /// The strictest `response_format` that it takes.
    pub response_format: ResponseFormat,
    /// What the operator changes of every request to it.
    pub rules: Rules,
    /// The `max_tokens` of a request that names none, where the wire format must have one.
    pub max_tokens_default: u64,
    /// What its tokens cost; none when the operator has not said.
    pub cost: Option<Cost>,
    /// What its calls are marked with as Consort's own; none leaves them unmarked.
    pub marker: Option<Secrets>,
}

/// A question to a model that has cooled down, so that no caller's call is the probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundCheck {
    /// How often it is looked whether a question is due.
    pub interval: Duration,
    /// What it is asked.
    pub prompt: String,
    /// How long its answer may be.
    pub max_tokens: u32,
}

/// The strictest `response_format` that a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFormat {
    /// None.
    None,
    /// `json_object`.
    JsonObject,
    /// `json_schema`, strict.
    JsonSchema,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("adapter", &self.adapter)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DirectModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectModel")
            .field("name", &self.name)
            .field("provider", &self.provider.name)
            .field("model_name", &self.model_name)
            .finish_non_exhaustive()
    }
}
