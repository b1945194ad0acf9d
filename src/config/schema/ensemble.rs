//! Ensembles.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    Answer, Average, Budget, First, Judge, MAX_MS, Member, Overrides, Rank, RateLimit, Strategy, Vote,
    Weighted,
};
use crate::config::json_schema::false_is_off;

/// A panel of direct models, and the strategy that makes one answer of theirs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["panel"]))]
pub struct Ensemble {
    /// The direct models asked, at most `limits.max_panel`; one may appear more than once.
    #[schemars(length(min = 1))]
    pub panel: Vec<Member>,
    /// How the candidates become one answer. Default: `judge` where there is a judge, else `vote`.
    pub strategy: Option<Strategy>,
    /// The model that writes, ranks or scores. Required by the strategies `judge`, `rank` and `score`
    /// and by `vote.on_no_consensus: judge`.
    pub judge: Option<Judge>,
    /// Strategy `score`: the models that grade. Default: `judge` alone.
    #[schemars(length(min = 1))]
    pub judges: Option<Vec<Judge>>,
    /// How an answer is read for comparing.
    pub answer: Answer,
    /// Settings of strategy `rank`.
    pub rank: Option<Rank>,
    /// Settings of the strategies `vote` and `weighted`.
    pub vote: Option<Vote>,
    /// Settings of strategy `weighted`.
    pub weighted: Option<Weighted>,
    /// Settings of strategy `average`.
    pub average: Option<Average>,
    /// Settings of strategy `first`.
    pub first: Option<First>,
    /// In which order the panel is asked.
    pub execution: Execution,
    /// Asks a few members at first, and more while they disagree.
    pub cascade: Option<Cascade>,
    /// Which requests are the ensemble's: a CEL expression over `request` and `random`. Default: all.
    #[schemars(length(min = 1))]
    pub when: Option<String>,
    /// The direct model that the other requests go to, by way of Envoy.
    #[schemars(length(min = 1))]
    pub otherwise: Option<String>,
    /// How many usable candidates are needed, at most as many as the panel has members. Default: 2,
    /// or 1 for a panel of one and for strategy `first`.
    #[schemars(range(min = 1))]
    pub min_responses: Option<usize>,
    /// Bound on each panel call and on each judge call, streaming included, in ms; 0 = none, the
    /// default.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub timeout_ms: u64,
    /// Bound on the whole run, of which each stage gets what is left, in ms; 0 = none, the default.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub deadline_ms: u64,
    /// How much longer to wait for the rest of the panel once there are `min_responses`, in ms; 0 =
    /// not at all. Default: until all have ended.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub straggler_grace_ms: Option<u64>,
    /// What happens with fewer than `min_responses` candidates.
    pub on_quorum_failure: OnQuorumFailure,
    /// What happens when the judge and its fallback failed.
    pub on_judge_failure: OnJudgeFailure,
    /// What happens with a single candidate.
    pub single_candidate: SingleCandidate,
    /// How many runs of it may be in flight at once, whoever asks; more are refused with a 503. Default: as many as
    /// `limits.max_inflight` leaves it.
    #[schemars(range(min = 1))]
    pub max_inflight: Option<usize>,
    /// How much each caller (`limits.caller_key`) may ask.
    pub rate_limit: Option<RateLimit>,
    /// What the ensemble may spend, whoever asks.
    pub budget: Option<Budget>,
    /// What callers may change by `x-ensemble-…` headers.
    pub overrides: Overrides,
    /// Whether callers see the decision, in the response body under `consort`.
    #[serde(deserialize_with = "word_or_false")]
    pub trace: Trace,
    /// Whether callers see what models thought aloud.
    pub reasoning: Reasoning,
}

/// What happens with too few candidates.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnQuorumFailure {
    /// The caller gets an error.
    #[default]
    Fail,
    /// One candidate will do.
    BestEffort,
    /// This direct model answers alone.
    Fallback(#[schemars(length(min = 1))] String),
}

/// What happens when the judge and its fallback failed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnJudgeFailure {
    /// The best candidate is the answer, marked as degraded.
    #[default]
    Best,
    /// The caller gets an error.
    Fail,
}

/// What happens with a single candidate.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SingleCandidate {
    /// It is the answer.
    #[default]
    Return,
    /// The judge still writes one from it.
    Judge,
}

/// In which order the panel is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// All at once.
    #[default]
    Parallel,
    /// One after the other, in panel order, until there is a decision.
    Sequential,
}

/// A panel that ends as soon as those who were asked agree.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cascade {
    /// How many members are asked at first, at most as many as the panel has.
    #[schemars(range(min = 2))]
    pub start: usize,
    /// How many are added while they disagree.
    #[schemars(range(min = 1))]
    pub step: usize,
    /// The share of the most common answer among those who gave one that is agreement.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub agreement: f64,
}

impl Default for Cascade {
    fn default() -> Self {
        Self { start: 2, step: 1, agreement: 1.0 }
    }
}

/// Whether callers see the decision of their run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = false_is_off)]
pub enum Trace {
    /// Never.
    #[default]
    Off,
    /// When they ask for it by `x-ensemble-trace: true`.
    Header,
    /// Always.
    Always,
}

/// Reads `off` also as tools of YAML 1.1 hand it on.
fn word_or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Trace, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(false) => Ok(Trace::Off),
        word => Trace::deserialize(word).map_err(D::Error::custom),
    }
}

/// Whether callers see what models thought aloud.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// As it was given.
    #[default]
    Pass,
    /// Not at all.
    Drop,
}
