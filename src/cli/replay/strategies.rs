//! The strategies that are tried, each as an ensemble of the configuration.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::answers::AnswerKind;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Strategy {
    /// The answer that most members gave.
    Vote,
    /// The answer with the greatest sum of weights.
    Weighted,
    /// A vote, one member after the other until it is decided.
    Sequential,
    /// A vote, two members at first and one more at a time while they disagree.
    Cascade,
    /// The median of the members' numbers.
    Median,
    /// The mean of the members' numbers without outliers.
    Mean,
    /// The first answer in time.
    First,
    /// A judge writes the answer.
    Judge,
    /// A judge chooses one answer of all.
    Rank,
    /// A judge chooses one answer of every two.
    Pairwise,
    /// A judge grades all answers.
    Score,
}

/// What the rows' ensembles have in common.
pub(super) struct Common<'a> {
    /// The members' aliases, in panel order.
    pub(super) members: &'a [String],
    /// Their weights, for the one row that weighs.
    pub(super) weights: &'a [f64],
    /// How answers are read.
    pub(super) answer: AnswerKind,
    /// The longest that one call may take, in ms.
    pub(super) timeout_ms: u64,
}

impl Strategy {
    /// What its ensemble is asked by.
    pub(super) fn alias(self) -> String {
        format!("ensemble-{}", self.word())
    }

    /// The alias of the judge that has its part in it, where one has.
    pub(super) fn judge(self) -> Option<&'static str> {
        match self {
            Self::Judge => Some("judge-that-writes"),
            Self::Rank | Self::Pairwise => Some("judge-that-chooses"),
            Self::Score => Some("judge-that-grades"),
            _ => None,
        }
    }

    /// Whether it can be had of such answers and so many members: only numbers have a middle, and a cascade
    /// begins with two.
    pub(super) fn takes(self, answer: AnswerKind, members: usize) -> bool {
        match self {
            Self::Median | Self::Mean => answer == AnswerKind::Number,
            Self::Cascade => members > 1,
            _ => true,
        }
    }

    /// What the table calls it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Vote => "vote (plurality)",
            Self::Weighted => "weighted",
            Self::Sequential => "vote, sequential",
            Self::Cascade => "cascade (start 2, step 1), vote",
            Self::Median => "average (median)",
            Self::Mean => "average (mean)",
            Self::First => "first",
            Self::Judge => "judge",
            Self::Rank => "rank (listwise)",
            Self::Pairwise => "rank (pairwise)",
            Self::Score => "score",
        }
    }

    /// An element of the configuration's `models`.
    pub(super) fn ensemble(self, common: &Common<'_>) -> Value {
        let weight = |weight: f64| if self == Self::Weighted { weight } else { 1.0 };
        let places = common.members.iter().zip(common.weights);
        let panel: Vec<Value> =
            places.map(|(model, w)| json!({"model": model, "weight": weight(*w)})).collect();
        let mut ensemble = json!({
            "panel": panel,
            "strategy": match self {
                Self::Vote | Self::Sequential | Self::Cascade => "vote",
                Self::Weighted => "weighted",
                Self::Median | Self::Mean => "average",
                Self::First => "first",
                Self::Judge => "judge",
                Self::Rank | Self::Pairwise => "rank",
                Self::Score => "score",
            },
            "answer": common.answer.word(),
            "timeout_ms": common.timeout_ms,
            "trace": "always",
        });
        let settings = match self {
            Self::Sequential => Some(("execution", json!("sequential"))),
            Self::Cascade => Some(("cascade", json!({"start": 2, "step": 1}))),
            Self::Mean => Some(("average", json!({"of": "mean"}))),
            Self::Pairwise => Some(("rank", json!({"mode": "pairwise"}))),
            _ => None,
        };
        let judge = self.judge().map(|model| ("judge", json!({"model": model})));
        if let Value::Object(ensemble) = &mut ensemble {
            ensemble
                .extend([settings, judge].into_iter().flatten().map(|(key, value)| (key.to_owned(), value)));
        }
        json!({"display_name": self.alias(), "ensemble": ensemble})
    }

    fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
