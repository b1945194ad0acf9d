//! Strategies, complete with their settings and judges.

use super::judge::Seat;
use crate::config::schema;
use crate::ensemble::prompt::Purpose;
use crate::ensemble::{
    Average, Confidence, OnNoConsensus, Rank, RankMode, Require, Score, Strategy, Vote, Weighted,
};

/// What the strategies of one alias are made of.
#[derive(Default)]
pub(super) struct Parts {
    /// The judge, if there is one.
    pub(super) judge: Option<Seat>,
    /// Who grades.
    pub(super) graders: Vec<Seat>,
    /// Settings of `rank`.
    pub(super) rank: schema::Rank,
    /// Settings of `vote` and `weighted`.
    pub(super) vote: schema::Vote,
    /// Settings of `weighted`.
    pub(super) weighted: schema::Weighted,
    /// Settings of `average`.
    pub(super) average: schema::Average,
}

impl Parts {
    /// The strategy of this name; nothing where it lacks a judge.
    pub(super) fn strategy(&self, name: schema::Strategy) -> Option<Strategy> {
        Some(match name {
            schema::Strategy::Judge => Strategy::Judge(self.judge.as_ref()?.judge(Purpose::Synthesis)),
            schema::Strategy::Rank => Strategy::Rank(Rank {
                judge: self.judge.as_ref()?.judge(Purpose::Ranking),
                mode: match self.rank.mode {
                    schema::RankMode::Listwise => RankMode::Listwise,
                    schema::RankMode::Pairwise => RankMode::Pairwise,
                },
            }),
            schema::Strategy::Score => {
                let judges: Vec<_> = self.graders.iter().map(|seat| seat.judge(Purpose::Scoring)).collect();
                Strategy::Score(Score { judges: (!judges.is_empty()).then_some(judges)? })
            }
            schema::Strategy::Vote => Strategy::Vote(self.vote()?),
            schema::Strategy::Weighted => Strategy::Weighted(Weighted {
                vote: self.vote()?,
                confidence: match self.weighted.confidence {
                    None => Confidence::Flat,
                    Some(schema::Confidence::Logprob) => Confidence::Logprob,
                },
            }),
            schema::Strategy::Average => Strategy::Average(match self.average.of {
                schema::AverageOf::Median => Average::Median,
                schema::AverageOf::Mean => Average::Mean,
            }),
            schema::Strategy::First => Strategy::First,
        })
    }

    fn vote(&self) -> Option<Vote> {
        let judge = self.judge.as_ref().map(|seat| seat.judge(Purpose::Synthesis));
        Some(Vote {
            require: match self.vote.require {
                schema::Require::Plurality => Require::Plurality,
                schema::Require::Majority => Require::Majority,
                schema::Require::Unanimous => Require::Unanimous,
            },
            on_no_consensus: match self.vote.on_no_consensus {
                Some(schema::OnNoConsensus::Judge) => OnNoConsensus::Judge(judge?),
                Some(schema::OnNoConsensus::First) => OnNoConsensus::First,
                Some(schema::OnNoConsensus::Fail) => OnNoConsensus::Fail,
                None => judge.map_or(OnNoConsensus::First, OnNoConsensus::Judge),
            },
            similarity: self.vote.similarity,
        })
    }
}
