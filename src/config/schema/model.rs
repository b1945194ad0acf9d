//! Direct models and ensembles, told apart.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackgroundCheck, Cooldown, Ensemble, MAX_MS, Params, RateLimit};
use crate::config::json_schema::{direct_or_ensemble, without_ours};

/// A dollar a token: more is more likely a slip in the unit than a price.
const MAX_USD: u32 = 1000;

/// An alias: a direct model (`provider`, `model_name`), or an ensemble of direct models.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["display_name"]), transform = direct_or_ensemble)]
pub struct Model {
    /// The model name that a caller sends; unique.
    #[schemars(length(min = 1))]
    pub display_name: String,
    /// Direct model: the name of the provider where it lives.
    #[schemars(length(min = 1))]
    pub provider: Option<String>,
    /// Direct model: the provider's name for it.
    #[schemars(length(min = 1, max = 2048))]
    pub model_name: Option<String>,
    /// Direct model: bound on one attempt, streaming included, in ms; 0 = none.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub timeout: u64,
    /// Direct model: how many attempts may follow the first one of a call. They are made after connections and
    /// answers that do not come about and after 408, 409, 429 and 5xx, as long as nothing was said to the caller,
    /// after a pause that grows, or after `retry-after` where that is at most 8 s and within the call's bounds.
    #[schemars(range(min = 0, max = 10))]
    pub retries: u32,
    /// Direct model: when it is left alone since it keeps failing.
    pub cooldown: Cooldown,
    /// Direct model: how much it may be asked, by all ensembles together. A call counts once, with its retries.
    pub rate_limit: Option<RateLimit>,
    /// Direct model: how it is asked whether it is back; without this, a caller's call finds out.
    pub background_check: Option<BackgroundCheck>,
    /// Direct model: the strictest `response_format` that it takes. Verdicts are asked for in it.
    pub response_format: ResponseFormat,
    /// Direct model: what is changed of every request to it, whoever asks it.
    pub request: Rules,
    /// Direct model of `adapter: anthropic`: the bound, in tokens, on an answer whose request has none (4096 unless
    /// it is said here).
    #[schemars(range(min = 1))]
    pub max_tokens_default: Option<u64>,
    /// Direct model: what its tokens cost. Decisions, access logs and metrics tell the sum of each run.
    pub cost: Option<Cost>,
    /// Makes the alias an ensemble: a panel of direct models, and the strategy that makes one answer of theirs.
    pub ensemble: Option<Ensemble>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            display_name: String::new(),
            provider: None,
            model_name: None,
            timeout: 600_000,
            retries: 1,
            cooldown: Cooldown::default(),
            rate_limit: None,
            background_check: None,
            response_format: ResponseFormat::None,
            request: Rules::default(),
            max_tokens_default: None,
            cost: None,
            ensemble: None,
        }
    }
}

/// What a direct model costs, in US dollars for 1,000 tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input_per_1k", "output_per_1k"]))]
pub struct Cost {
    /// Tokens that it reads.
    #[schemars(range(min = 0, max = MAX_USD))]
    pub input_per_1k: f64,
    /// Those of them that it reads from a cache. Default: like all others.
    #[schemars(range(min = 0, max = MAX_USD))]
    pub cached_input_per_1k: Option<f64>,
    /// Tokens that it writes, reasoning included.
    #[schemars(range(min = 0, max = MAX_USD))]
    pub output_per_1k: f64,
}

/// What is changed of every request to a direct model: first `rename`, then `drop`, then `set`; a member's or a
/// judge's own `params` come last.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Fields that are not sent.
    pub drop: Vec<String>,
    /// Fields that go by another name there.
    pub rename: Renames,
    /// Fields that are always sent like this.
    pub set: Params,
    /// What becomes of a field that the adapter cannot carry and that changes what is asked for.
    pub unsupported: Unsupported,
}

/// The names of request fields, and the names that they go by elsewhere.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transform = without_ours)]
pub struct Renames(pub BTreeMap<String, String>);

/// What becomes of a field that an adapter cannot carry.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unsupported {
    /// The model's call fails with a 400 that names it.
    #[default]
    Reject,
    /// It is left out.
    Drop,
}

/// The strictest `response_format` that a direct model takes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// It takes none, and is told the form in words alone.
    #[default]
    None,
    /// That it be a JSON object.
    JsonObject,
    /// That it keep to a JSON Schema, strictly.
    JsonSchema,
}
