//! Classes of equal answers: what each candidate adds to its own.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::alias::Member;
use super::super::candidate::Candidate;
use super::super::consensus::Open;
use super::{Confidence, Strategy, Weighted};

/// From which similarity on two texts count as one answer where a strategy does not say.
const SIMILARITY: f64 = 0.8;

impl Strategy {
    /// What each candidate adds to its class: one, or its weight, by its confidence where all are known.
    pub(in super::super) fn scores(&self, candidates: &[Candidate]) -> Vec<f64> {
        let Self::Weighted(weighted) = self else {
            return vec![1.0; candidates.len()];
        };
        let confidences = match weighted.confidence {
            Confidence::Flat => None,
            Confidence::Logprob => candidates.iter().map(confidence).collect::<Option<Vec<f64>>>(),
        };
        let confidences = confidences.unwrap_or_else(|| vec![1.0; candidates.len()]);
        candidates
            .iter()
            .zip(confidences)
            .map(|(candidate, confidence)| candidate.weight * confidence)
            .collect()
    }

    /// What a class would gain by a member that has not ended; none where that cannot be known before.
    pub(in super::super) fn gain(&self, member: usize, settings: &Member) -> Option<Open> {
        let weight = settings.weight;
        match self {
            Self::Weighted(Weighted { confidence: Confidence::Logprob, .. }) => None,
            Self::Weighted(_) => Some(Open { member, score: weight, weight }),
            _ => Some(Open { member, score: 1.0, weight }),
        }
    }

    /// From which similarity on two texts count as one answer.
    pub(in super::super) fn similarity(&self) -> f64 {
        self.vote().map_or(SIMILARITY, |vote| vote.similarity)
    }
}

/// The geometric mean of the probabilities of an answer's tokens; none where they were not given.
fn confidence(candidate: &Candidate) -> Option<f64> {
    mean_logprob(candidate.completion.logprobs.as_deref()?).map(f64::exp)
}

fn mean_logprob(logprobs: &RawValue) -> Option<f64> {
    #[derive(Deserialize)]
    struct Logprobs {
        content: Vec<Token>,
    }
    #[derive(Deserialize)]
    struct Token {
        logprob: f64,
    }
    let tokens = serde_json::from_str::<Logprobs>(logprobs.get()).ok()?.content;
    let count = u32::try_from(tokens.len()).ok().filter(|count| *count > 0)?;
    let mean = tokens.iter().map(|token| token.logprob).sum::<f64>() / f64::from(count);
    mean.is_finite().then_some(mean.min(0.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::Completion;
    use crate::ensemble::strategy::{OnNoConsensus, Require, Vote};

    fn candidate(weight: f64, logprobs: Option<&[f64]>) -> Candidate {
        let content =
            logprobs.map(|l| l.iter().map(|l| json!({"token": "x", "logprob": l})).collect::<Vec<_>>());
        let choice =
            json!({"message": {"content": "x"}, "logprobs": {"content": content}, "finish_reason": "stop"});
        let completion = Completion::parse(json!({"choices": [choice]}).to_string().as_bytes()).unwrap();
        Candidate { member: 0, weight, completion, key: None }
    }

    fn weighted(confidence: Confidence) -> Strategy {
        let vote =
            Vote { require: Require::Plurality, on_no_consensus: OnNoConsensus::First, similarity: 0.8 };
        Strategy::Weighted(Weighted { vote, confidence })
    }

    #[test]
    fn confidence_is_the_geometric_mean_of_the_token_probabilities() {
        let half = -std::f64::consts::LN_2;
        let scores = weighted(Confidence::Logprob).scores(&[
            candidate(2.0, Some(&[half, half])),
            candidate(1.0, Some(&[0.0])),
            candidate(1.0, Some(&[2.0 * half, 0.0])),
        ]);
        assert!(scores.iter().zip([1.0, 1.0, 0.5]).all(|(a, b)| (a - b).abs() < 1e-12), "{scores:?}");
    }

    #[test]
    fn nobody_is_surer_than_sure() {
        let scores = weighted(Confidence::Logprob)
            .scores(&[candidate(1.0, Some(&[700.0])), candidate(1.0, Some(&[0.0]))]);
        assert_eq!(scores, [1.0, 1.0]);
    }

    #[test]
    fn where_one_member_gave_no_logprobs_weights_alone_count() {
        for silent in [None, Some(&[][..]), Some(&[f64::NAN][..])] {
            let scores = weighted(Confidence::Logprob)
                .scores(&[candidate(2.0, Some(&[-1.0])), candidate(1.0, silent)]);
            assert_eq!(scores, [2.0, 1.0]);
        }
        assert_eq!(weighted(Confidence::Flat).scores(&[candidate(2.0, Some(&[-1.0]))]), [2.0]);
        assert_eq!(Strategy::First.scores(&[candidate(2.0, None)]), [1.0]);
    }
}
