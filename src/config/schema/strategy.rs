//! Strategies and their settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_MS;

/// How candidates become one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A judge writes the answer from the candidates.
    Judge,
    /// A judge chooses the best candidate.
    Rank,
    /// Judges grade the candidates; the best mean wins.
    Score,
    /// The answer that most members gave.
    Vote,
    /// The answer with the greatest sum of weights.
    Weighted,
    /// The middle of the numbers that members gave.
    Average,
    /// The first usable candidate in time; the others are cancelled.
    First,
}

impl Strategy {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Rank => "rank",
            Self::Score => "score",
            Self::Vote => "vote",
            Self::Weighted => "weighted",
            Self::Average => "average",
            Self::First => "first",
        }
    }
}

/// Settings of strategy `rank`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rank {
    /// How the judge is asked.
    pub mode: RankMode,
}

/// How a ranking judge is asked.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RankMode {
    /// Once, about all candidates.
    #[default]
    Listwise,
    /// About every pair of candidates, in both orders.
    Pairwise,
}

/// Settings of the strategies `vote` and `weighted`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vote {
    /// What an answer needs to win: in members for `vote`, in weight for `weighted`.
    pub require: Require,
    /// What happens when none has it. Default: `judge` where there is a judge, else `first`.
    pub on_no_consensus: Option<OnNoConsensus>,
    /// From which similarity on two texts count as one answer.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1))]
    pub similarity: f64,
}

impl Default for Vote {
    fn default() -> Self {
        Self { require: Require::Plurality, on_no_consensus: None, similarity: 0.8 }
    }
}

/// What an answer needs to win.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Require {
    /// More than any other.
    #[default]
    Plurality,
    /// More than half of what all candidates have, those without a readable answer included.
    Majority,
    /// Everything that was cast.
    Unanimous,
}

/// What happens when no answer has what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNoConsensus {
    /// The judge writes the answer from the candidates.
    Judge,
    /// The first candidate in panel order is the answer.
    First,
    /// The caller gets an error.
    Fail,
}

/// Settings of strategy `weighted`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Weighted {
    /// What weights are multiplied by. Default: nothing.
    pub confidence: Option<Confidence>,
}

/// What weights are multiplied by.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Each member's exp(mean token logprob), where every member gave logprobs.
    Logprob,
}

/// Settings of strategy `average`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Average {
    /// Which middle of the numbers is the answer.
    pub of: AverageOf,
}

/// Which middle of numbers is meant.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AverageOf {
    /// The median.
    #[default]
    Median,
    /// The mean of what is left without outliers.
    Mean,
}

/// Settings of strategy `first`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct First {
    /// Starts members one after the other with this delay, in ms, while none has answered. Default: all at
    /// once.
    #[schemars(range(min = 1, max = MAX_MS))]
    pub hedge_ms: Option<u64>,
}
