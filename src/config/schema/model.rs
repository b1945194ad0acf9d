//! Direct models and ensembles, told apart.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackgroundCheck, Cooldown, Ensemble, MAX_MS};
use crate::config::json_schema::direct_or_ensemble;

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
    #[schemars(length(min = 1))]
    pub model_name: Option<String>,
    /// Direct model: bound on one attempt, streaming included, in ms; 0 = none.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub timeout: u64,
    /// Direct model: how many attempts may follow the first one of a call. They are made after connections and
    /// answers that do not come about and after 408, 409, 429 and 5xx, as long as nothing was said to the caller,
    /// after a pause that grows, or after `retry-after` where that is at most 8 s and within the call's bounds.
    #[schemars(range(min = 0, max = 10))]
    pub retries: u32,
    /// Direct model: when it is left alone.
    pub cooldown: Cooldown,
    /// Direct model: how it is asked whether it is back; without this, a caller's call finds out.
    pub background_check: Option<BackgroundCheck>,
    /// Direct model: the strictest `response_format` that it takes. Verdicts are asked for in it.
    pub response_format: ResponseFormat,
    /// Makes the alias an ensemble.
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
            background_check: None,
            response_format: ResponseFormat::None,
            ensemble: None,
        }
    }
}

/// The strictest `response_format` that a direct model takes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// None: it is told the form in words alone.
    #[default]
    None,
    /// `json_object`.
    JsonObject,
    /// `json_schema`, strict.
    JsonSchema,
}
