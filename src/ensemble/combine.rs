//! From what a panel said to the source of the answer.

use std::sync::Arc;

use tokio::time::Instant;

use super::alias::{Ensemble, Execution, OnJudgeFailure, SingleCandidate};
use super::answer::Kind;
use super::candidate::Candidate;
use super::error::{Cause, RunError};
use super::missed::Panel;
use super::outcome::Source;
use super::run::Run;
use super::strategy::average::{Middle, middle};
use super::strategy::{Average, Judge, OnNoConsensus, Require, Strategy, Weighted, judge, rank, score};
use crate::chat::RequestError;
use crate::telemetry::Seat;
use crate::telemetry::decision::Outcome as How;

impl Run {
    /// An average needs numbers, and neither tool calls nor JSON without a pointer into it are.
    pub(super) fn check_numeric(&self) -> Result<(), RequestError> {
        let what = "is not supported: this ensemble averages numbers";
        match (&self.ensemble.strategy, self.reader.kind()) {
            (Strategy::Average(_), Kind::ToolCall) => {
                let param = if self.request.raw("tools").is_some() { "tools" } else { "functions" };
                Err(RequestError::Unsupported { param, what })
            }
            (Strategy::Average(_), Kind::Json) if !self.ensemble.reading.has_pointer() => {
                Err(RequestError::Unsupported { param: "response_format", what })
            }
            _ => Ok(()),
        }
    }

    /// The strategy makes one answer of what the panel said.
    pub(super) async fn combine(&mut self, panel: Panel) -> Result<Source, RunError> {
        let ensemble = Arc::clone(&self.ensemble);
        self.settle(how(&ensemble, self.head.responses, panel.asked));
        if let Some(begun) = panel.live {
            return Ok(Source::Call(begun));
        }
        let candidates = panel.candidates;
        if panel.is_agreed {
            let place = self.tally(&candidates).winner(Require::Plurality, &candidates);
            return self.select(candidates, place);
        }
        match &ensemble.strategy {
            Strategy::Average(average) => self.average(*average, candidates),
            strategy if strategy.returns_single(ensemble.single_candidate) && candidates.len() == 1 => {
                self.select(candidates, Some(0))
            }
            Strategy::Judge(judge) => self.synthesise(judge, candidates).await,
            Strategy::Rank(rank) => {
                let asked = Instant::now();
                let chosen = rank::choose(self, rank, &candidates).await;
                self.judged(asked);
                self.choose(candidates, chosen)
            }
            Strategy::Score(score) => {
                let asked = Instant::now();
                let chosen = score::choose(self, score, &candidates).await;
                self.judged(asked);
                self.choose(candidates, chosen)
            }
            Strategy::Vote(vote) | Strategy::Weighted(Weighted { vote, .. }) => {
                match self.tally(&candidates).winner(vote.require, &candidates) {
                    Some(place) => self.select(candidates, Some(place)),
                    None => self.without_consensus(&vote.on_no_consensus, candidates).await,
                }
            }
            Strategy::First | Strategy::Direct => self.select(candidates, Some(0)),
        }
    }

    async fn synthesise(&mut self, judge: &Judge, candidates: Vec<Candidate>) -> Result<Source, RunError> {
        if self.is_out_of_time() {
            return self.without_judge(candidates, Cause::Timeout);
        }
        let asked = Instant::now();
        let begun = judge::ask(self, judge, &candidates).await;
        self.judged(asked);
        match begun {
            Ok(begun) => {
                if begun.by_fallback {
                    self.degrade("judge_fallback");
                }
                Ok(Source::Call(begun))
            }
            Err(cause) => self.without_judge(candidates, cause),
        }
    }

    /// The candidate that judges chose is the answer.
    fn choose(
        &mut self,
        candidates: Vec<Candidate>,
        chosen: Result<usize, Cause>,
    ) -> Result<Source, RunError> {
        match chosen {
            Ok(place) => self.select(candidates, Some(place)),
            Err(cause) => self.without_judge(candidates, cause),
        }
    }

    /// The judge and its fallback failed.
    fn without_judge(&mut self, candidates: Vec<Candidate>, cause: Cause) -> Result<Source, RunError> {
        match self.ensemble.on_judge_failure {
            OnJudgeFailure::Fail if self.is_out_of_time() => Err(RunError::Timeout),
            OnJudgeFailure::Fail => Err(RunError::Judge(cause)),
            OnJudgeFailure::Best => {
                self.degrade("judge_failed");
                let best = rank::best(&candidates, candidates.iter().map(|_| Some(0.0)));
                self.select(candidates, best)
            }
        }
    }

    /// No class of answers has what it needs.
    async fn without_consensus(
        &mut self,
        fallback: &OnNoConsensus,
        candidates: Vec<Candidate>,
    ) -> Result<Source, RunError> {
        self.degrade("no_consensus");
        match fallback {
            OnNoConsensus::Judge(judge) => self.synthesise(judge, candidates).await,
            OnNoConsensus::First => self.select(candidates, Some(0)),
            OnNoConsensus::Fail => Err(RunError::NoConsensus),
        }
    }

    fn average(&mut self, average: Average, mut candidates: Vec<Candidate>) -> Result<Source, RunError> {
        let middle = middle(average, &candidates, |completion| self.reader.number(completion));
        let Middle { place, rewritten } =
            middle.map_err(|_| RunError::Internal)?.ok_or(RunError::NotNumeric)?;
        if let (Some(candidate), Some(rewritten)) = (candidates.get_mut(place), rewritten) {
            candidate.completion = rewritten;
        }
        self.select(candidates, Some(place))
    }

    /// The candidate at this place is the answer.
    fn select(&mut self, candidates: Vec<Candidate>, place: Option<usize>) -> Result<Source, RunError> {
        let chosen = place.and_then(|place| candidates.into_iter().nth(place)).ok_or(RunError::Internal)?;
        self.account.chosen(Seat::Member(chosen.member));
        Ok(Source::Member(chosen))
    }

    fn judged(&mut self, asked: Instant) {
        self.head.judge_time = Some(asked.elapsed());
    }

    /// How the answer came about, unless something stood in before.
    pub(super) fn settle(&mut self, how: How) {
        self.head.outcome.get_or_insert(how);
    }

    /// Something stood in for what the ensemble was made for: the caller and the record are told.
    pub(super) fn degrade(&mut self, why: &'static str) {
        self.account.degraded(why);
        self.head.outcome = Some(How::Degraded);
    }
}

impl Strategy {
    /// Whether it has nothing to do where there is one candidate only.
    fn returns_single(&self, single_candidate: SingleCandidate) -> bool {
        match self {
            Self::Judge(_) => single_candidate == SingleCandidate::Return,
            Self::First => false,
            _ => true,
        }
    }
}

/// How an answer comes about of so many usable ones.
fn how(ensemble: &Ensemble, usable: usize, asked: usize) -> How {
    if usable == 1 && ensemble.strategy.returns_single(ensemble.single_candidate) {
        How::Single
    } else if usable == ensemble.panel.len() {
        How::Full
    } else if matches!(ensemble.execution, Execution::Cascade(_)) && asked < ensemble.panel.len() {
        How::Cascade
    } else {
        How::Quorum
    }
}
