//! How candidates become one answer.

pub(super) mod average;
mod form;
pub(super) mod judge;
pub(super) mod rank;
pub(super) mod score;
mod verdict;
pub(super) mod vote;

#[cfg(fuzzing)]
pub use form::fuzzing;

use std::sync::Arc;

use super::alias::Params;
use super::prompt::Template;
use crate::upstream::DirectModel;

/// How candidates become one answer.
#[derive(Clone, Debug)]
pub enum Strategy {
    /// A judge model writes the answer from the candidates.
    Judge(Judge),
    /// A judge model chooses the best candidate.
    Rank(Rank),
    /// Judge models grade the candidates; the best mean wins.
    Score(Score),
    /// The answer that most members gave.
    Vote(Vote),
    /// The answer with the greatest sum of weights.
    Weighted(Weighted),
    /// The middle of the numbers that members gave.
    Average(Average),
    /// The first usable candidate in time.
    First,
    /// What the one model says, whatever it is: nothing is combined.
    Direct,
}

/// A model that judges candidates, and how it is asked.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The model asked first.
    pub model: Arc<DirectModel>,
    /// The model asked when the first one failed before it had said anything.
    pub fallback: Option<Arc<DirectModel>>,
    /// The text that presents the candidates.
    pub prompt: Template,
    /// Request fields forced on the judge call, as JSON text.
    pub params: Params,
    /// How much of each candidate the judge is shown, in bytes; cut on a character boundary.
    pub max_candidate_bytes: usize,
}

/// Best of n, by a judge's choice.
#[derive(Clone, Debug)]
pub struct Rank {
    /// Who chooses.
    pub judge: Judge,
    /// How it is asked.
    pub mode: RankMode,
}

/// How a ranking judge is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankMode {
    /// Once, about all candidates.
    Listwise,
    /// About every pair, in both orders.
    Pairwise,
}

/// Score averaging.
#[derive(Clone, Debug)]
pub struct Score {
    /// Who grades; never empty.
    pub judges: Vec<Judge>,
}

/// Classes of equal answers, by the number of their members.
#[derive(Clone, Debug)]
pub struct Vote {
    /// What a class needs to win.
    pub require: Require,
    /// What happens when none has it.
    pub on_no_consensus: OnNoConsensus,
    /// From which similarity on two texts count as one answer; 0 to 1.
    pub similarity: f64,
}

/// Classes of equal answers, by the sum of their members' weights.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// What a class needs to win, in weight instead of members, and what happens otherwise.
    pub vote: Vote,
    /// What weights are multiplied by.
    pub confidence: Confidence,
}

/// What a class of equal answers needs to win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// More than any other.
    Plurality,
    /// More than half of what all candidates have, those that abstain included.
    Majority,
    /// Everything that was cast.
    Unanimous,
}

/// What happens when no class has what it needs.
#[derive(Clone, Debug)]
pub enum OnNoConsensus {
    /// A judge writes the answer from the candidates.
    Judge(Judge),
    /// The first candidate in panel order.
    First,
    /// The caller gets an error.
    Fail,
}

/// What weights are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// Nothing.
    Flat,
    /// Each member's exp(mean token logprob), where every member gave logprobs.
    Logprob,
}

/// The middle of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// The median.
    Median,
    /// The mean of what is left without outliers.
    Mean,
}

impl Strategy {
    /// Its name, as configuration and headers have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Judge(_) => "judge",
            Self::Rank(_) => "rank",
            Self::Score(_) => "score",
            Self::Vote(_) => "vote",
            Self::Weighted(_) => "weighted",
            Self::Average(_) => "average",
            Self::First => "first",
            Self::Direct => "direct",
        }
    }

    /// How many judge calls may follow one another, about so many candidates: a fallback follows the judge, an
    /// unreadable verdict is asked for once more, and only so many are asked for at once.
    pub(super) fn judge_rounds(&self, candidates: usize) -> usize {
        let verdicts = |questions: usize| 4 * questions.div_ceil(verdict::MAX_AT_ONCE);
        match self {
            Self::Rank(Rank { mode: RankMode::Listwise, .. }) => verdicts(1),
            Self::Rank(Rank { mode: RankMode::Pairwise, .. }) => {
                verdicts(candidates * candidates.saturating_sub(1))
            }
            Self::Score(score) => verdicts(score.judges.len()),
            Self::Judge(_) => 2,
            Self::Vote(vote) | Self::Weighted(Weighted { vote, .. }) => match vote.on_no_consensus {
                OnNoConsensus::Judge(_) => 2,
                OnNoConsensus::First | OnNoConsensus::Fail => 0,
            },
            Self::Average(_) | Self::First | Self::Direct => 0,
        }
    }

    /// The vote by which it decides, when it does.
    pub(super) fn vote(&self) -> Option<&Vote> {
        match self {
            Self::Vote(vote) | Self::Weighted(Weighted { vote, .. }) => Some(vote),
            _ => None,
        }
    }

    /// The judges that it asks, or may ask.
    pub fn judges_mut(&mut self) -> &mut [Judge] {
        match self {
            Self::Judge(judge) | Self::Rank(Rank { judge, .. }) => std::slice::from_mut(judge),
            Self::Score(score) => &mut score.judges,
            Self::Vote(vote) | Self::Weighted(Weighted { vote, .. }) => match &mut vote.on_no_consensus {
                OnNoConsensus::Judge(judge) => std::slice::from_mut(judge),
                OnNoConsensus::First | OnNoConsensus::Fail => &mut [],
            },
            Self::Average(_) | Self::First | Self::Direct => &mut [],
        }
    }
}
