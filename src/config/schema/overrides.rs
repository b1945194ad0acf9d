//! What callers may change by headers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Budget, MAX_MS, RateLimit, Strategy};

/// What callers may change of an ensemble by `x-ensemble-…` headers: nothing by default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// `x-ensemble-strategy`: the strategies that they may choose, each with this ensemble's settings.
    pub strategy: Vec<Strategy>,
    /// `x-ensemble-models`: the direct models that they may form a panel of, at most `limits.max_panel`. One
    /// of the panel keeps its place's settings.
    pub models: Vec<String>,
    /// `x-ensemble-judge`: the direct models that they may choose as the judge.
    pub judge: Vec<String>,
    /// `x-ensemble-min-responses`: whether they may set how many usable candidates are needed.
    pub min_responses: bool,
    /// `x-ensemble-enable: false`: whether they may go to `otherwise`.
    pub enable: bool,
}

/// What callers may form by headers without an ensemble of the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileOverrides {
    /// An alias without a panel of its own: callers form one by `x-ensemble-models`.
    pub ad_hoc: Option<AdHoc>,
}

/// An alias without a panel of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["alias", "models"]))]
pub struct AdHoc {
    /// The model name that a caller sends; unique among `models`.
    #[schemars(length(min = 1))]
    pub alias: String,
    /// The direct models that a panel may be formed of.
    #[schemars(length(min = 1))]
    pub models: Vec<String>,
    /// The strategies that callers may choose; the first is the default. Without it: `judge` where there is
    /// a judge, else `vote`.
    #[schemars(length(min = 1))]
    pub strategy: Option<Vec<Strategy>>,
    /// The direct models that may judge; the first is the default.
    pub judge: Vec<String>,
    /// How many usable candidates are needed where callers do not say. Default: 2, or 1 for a panel of one
    /// and for strategy `first`.
    #[schemars(range(min = 1))]
    pub min_responses: Option<usize>,
    /// As in an ensemble.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub timeout_ms: u64,
    /// As in an ensemble.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub deadline_ms: u64,
    /// As in an ensemble.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub straggler_grace_ms: Option<u64>,
    /// As in an ensemble.
    pub answer: Answer,
    /// As in an ensemble.
    #[schemars(range(min = 1))]
    pub max_inflight: Option<usize>,
    /// As in an ensemble.
    pub rate_limit: Option<RateLimit>,
    /// As in an ensemble.
    pub budget: Option<Budget>,
}
