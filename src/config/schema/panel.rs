//! Members of a panel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::config::json_schema::without_ours;

/// One place in a panel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["model"]))]
pub struct Member {
    /// The direct model asked.
    #[schemars(length(min = 1))]
    pub model: String,
    /// Its weight where candidates are compared.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub weight: f64,
    /// The temperature that it is asked with, instead of the caller's.
    #[schemars(with = "Option<f64>", range(min = 0))]
    pub temperature: Option<Number>,
    /// The seed that it is asked with, instead of the caller's.
    #[schemars(with = "Option<i64>")]
    pub seed: Option<Number>,
    /// Request fields that it is asked with, instead of the caller's.
    pub params: Params,
    /// Text put before the conversation as a system message.
    pub system: Option<String>,
    /// Whether a run fails without this member, whatever `min_responses` says.
    pub required: bool,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            model: String::new(),
            weight: 1.0,
            temperature: None,
            seed: None,
            params: Params::default(),
            system: None,
            required: false,
        }
    }
}

/// Request fields and their values.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transform = without_ours)]
pub struct Params(pub Map<String, Value>);
