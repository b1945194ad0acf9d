//! Judges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Params;

/// A model that judges candidates, and how it is asked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["model"]))]
pub struct Judge {
    /// The direct model asked.
    #[schemars(length(min = 1))]
    pub model: String,
    /// The text that presents the candidates: for the ensemble's own strategy, or one for each.
    /// Default: Consort's own.
    pub prompt: Option<Prompt>,
    /// Request fields that it is asked with, instead of the caller's.
    pub params: Params,
    /// Another direct model, asked when the first one failed before it had said anything.
    #[schemars(length(min = 1))]
    pub fallback: Option<String>,
    /// How much of each candidate the judge is shown, in bytes.
    #[schemars(range(min = 1))]
    pub max_candidate_bytes: usize,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            model: String::new(),
            prompt: None,
            params: Params::default(),
            fallback: None,
            max_candidate_bytes: 32 * 1024,
        }
    }
}

/// The text that presents the candidates to a judge: `{{candidates}}` once, for `rank` and `score` also
/// `{{verdict}}` once, where Consort says in which form to answer, and `{{question}}` and `{{count}}` as
/// wished.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Prompt {
    /// For the ensemble's own strategy; where that is neither `rank` nor `score`, for an answer that the
    /// judge writes.
    Own(String),
    /// For each strategy that may be chosen here.
    Each(Prompts),
}

/// One text for each purpose; Consort's own where there is none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Prompts {
    /// Asks for an answer: strategy `judge`, and `vote.on_no_consensus: judge`.
    pub judge: Option<String>,
    /// Asks which candidate is best: strategy `rank`.
    pub rank: Option<String>,
    /// Asks for a grade of each candidate: strategy `score`.
    pub score: Option<String>,
}
