//! Ensembles of the file.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::models::Resolver;
use super::strategy::Parts;
use super::{bound, limits};
use crate::config::problem::{Path, Report};
use crate::config::schema;
use crate::ensemble::prompt::Purpose;
use crate::ensemble::{
    Cascade, Ensemble, Execution, OnJudgeFailure, OnQuorumFailure, Reasoning, SingleCandidate, Trace, When,
};

/// An ensemble as written, and where.
pub(super) struct Draft<'a> {
    pub(super) ensemble: &'a schema::Ensemble,
    pub(super) path: Path,
    /// The ensemble's own strategy; nothing where what it follows from is a stand-in.
    pub(super) own: Option<schema::Strategy>,
    /// Every strategy that a run may have, its own first; nothing where that is not certain.
    pub(super) strategies: Option<Vec<schema::Strategy>>,
}

impl<'a> Draft<'a> {
    fn of(ensemble: &'a schema::Ensemble, path: Path, report: &Report) -> Self {
        let own = match (ensemble.strategy, &ensemble.judge) {
            (Some(strategy), _) => Some(strategy),
            (None, _) if report.doubts(&path.key("strategy")) => None,
            (None, Some(_)) => Some(schema::Strategy::Judge),
            (None, None) if report.doubts(&path.key("judge")) => None,
            (None, None) => Some(schema::Strategy::Vote),
        };
        let chosen = path.key("overrides").key("strategy");
        let strategies = own
            .filter(|_| !report.doubts(&chosen))
            .map(|own| std::iter::once(own).chain(ensemble.overrides.strategy.iter().copied()).collect());
        Self { ensemble, path, own, strategies }
    }

    /// What a judge is asked for where nothing else is said.
    fn purpose(&self) -> Option<Purpose> {
        Some(match self.own? {
            schema::Strategy::Rank => Purpose::Ranking,
            schema::Strategy::Score => Purpose::Scoring,
            _ => Purpose::Synthesis,
        })
    }

    fn execution(&self) -> Option<Execution> {
        let hedge = self.ensemble.first.and_then(|first| first.hedge_ms);
        Some(match (self.ensemble.cascade, hedge, self.ensemble.execution) {
            (Some(schema::Cascade { start, step, agreement }), _, _) => Execution::Cascade(Cascade {
                start: NonZeroUsize::new(start)?,
                step: NonZeroUsize::new(step)?,
                agreement,
            }),
            (None, Some(ms), _) => Execution::Hedged(Duration::from_millis(ms)),
            (None, None, schema::Execution::Sequential) => Execution::Sequential,
            (None, None, schema::Execution::Parallel) => Execution::Parallel,
        })
    }
}

impl Resolver<'_> {
    /// What callers may ask for: the ensembles of `models`, and the ad hoc alias.
    pub(super) fn ensembles(&mut self) -> Vec<Ensemble> {
        let list = Path::root().key("models");
        let mut ensembles = Vec::new();
        for (i, model) in self.file.models.iter().enumerate() {
            if let Some(ensemble) = &model.ensemble {
                let draft = Draft::of(ensemble, list.index(i).key("ensemble"), self.report);
                ensembles.extend(self.ensemble(&model.display_name, &draft));
            }
        }
        if let Some(ad_hoc) = &self.file.overrides.ad_hoc {
            ensembles.extend(self.ad_hoc(ad_hoc, &Path::root().key("overrides").key("ad_hoc")));
        }
        ensembles
    }

    fn ensemble(&mut self, name: &str, draft: &Draft<'_>) -> Option<Ensemble> {
        let Draft { ensemble, path, own, .. } = draft;
        // First, while what the report doubts is what the file's structure leaves in doubt.
        self.rules(draft);
        let panel = self.panel(&ensemble.panel, &path.key("panel"));
        let parts = self.parts(draft);
        let reading = self.reading(&ensemble.answer, *own, &path.key("answer"));
        let quorum = self.quorum(ensemble.min_responses, ensemble.panel.len(), *own, path);
        let on_quorum_failure = self.on_quorum_failure(&ensemble.on_quorum_failure, path);
        let when = ensemble.when.as_ref().map(|text| {
            let when = When::parse(text);
            self.parsed(when, path.key("when"), "is no condition as interpolated")
        });
        let otherwise = ensemble.otherwise.as_ref().map(|name| self.direct(name, path.key("otherwise")));
        let rate_limit = limits::of_ensemble(ensemble.rate_limit.as_ref(), path, self.report);
        let overrides = self.overrides(ensemble, panel.as_deref(), &parts, &path.key("overrides"));
        Some(Ensemble {
            name: name.into(),
            panel: panel?,
            strategy: parts.strategy((*own)?)?,
            reading: reading?,
            quorum: quorum?,
            timeout: bound(ensemble.timeout_ms),
            deadline: bound(ensemble.deadline_ms),
            straggler_grace: ensemble.straggler_grace_ms.map(Duration::from_millis),
            on_quorum_failure: on_quorum_failure?,
            on_judge_failure: match ensemble.on_judge_failure {
                schema::OnJudgeFailure::Best => OnJudgeFailure::Best,
                schema::OnJudgeFailure::Fail => OnJudgeFailure::Fail,
            },
            single_candidate: match ensemble.single_candidate {
                schema::SingleCandidate::Return => SingleCandidate::Return,
                schema::SingleCandidate::Judge => SingleCandidate::Judge,
            },
            execution: draft.execution()?,
            when: if_written(when)?,
            otherwise: if_written(otherwise)?,
            max_inflight: ensemble.max_inflight.and_then(NonZeroUsize::new),
            rate_limit,
            budget: limits::budget(ensemble.budget),
            overrides: overrides?,
            trace: match ensemble.trace {
                schema::Trace::Off => Trace::Off,
                schema::Trace::Header => Trace::Header,
                schema::Trace::Always => Trace::Always,
            },
            reasoning: match ensemble.reasoning {
                schema::Reasoning::Pass => Reasoning::Pass,
                schema::Reasoning::Drop => Reasoning::Drop,
            },
        })
    }

    fn parts(&mut self, draft: &Draft<'_>) -> Parts {
        let Draft { ensemble, path, .. } = draft;
        let judge = ensemble.judge.as_ref();
        let judge = judge.and_then(|judge| self.seat(judge, draft.purpose(), &path.key("judge")));
        let graders = match &ensemble.judges {
            None => judge.iter().cloned().collect(),
            Some(judges) => {
                let list = path.key("judges");
                let seats = judges.iter().enumerate();
                // One with a problem leaves the others, and the file is refused.
                seats
                    .filter_map(|(i, judge)| self.seat(judge, Some(Purpose::Scoring), &list.index(i)))
                    .collect()
            }
        };
        Parts {
            judge,
            graders,
            rank: ensemble.rank.unwrap_or_default(),
            vote: ensemble.vote.unwrap_or_default(),
            weighted: ensemble.weighted.unwrap_or_default(),
            average: ensemble.average.unwrap_or_default(),
        }
    }

    /// How many of `size` members must give a usable candidate.
    pub(super) fn quorum(
        &mut self,
        min_responses: Option<usize>,
        size: usize,
        own: Option<schema::Strategy>,
        path: &Path,
    ) -> Option<NonZeroUsize> {
        let first = own == Some(schema::Strategy::First);
        let quorum = min_responses.unwrap_or(if first { 1 } else { size.min(2) });
        if first && quorum > 1 {
            let what = format!("{quorum} is more than the 1 that strategy `first` needs");
            self.report.add(path.key("min_responses"), what);
        }
        // Without a panel, that is what has been reported.
        if size > 0 && quorum > size {
            self.report.add(path.key("min_responses"), format!("{quorum} is more than the panel's {size}"));
            return None;
        }
        NonZeroUsize::new(quorum)
    }

    fn on_quorum_failure(
        &mut self,
        written: &schema::OnQuorumFailure,
        path: &Path,
    ) -> Option<OnQuorumFailure> {
        match written {
            schema::OnQuorumFailure::Fail => Some(OnQuorumFailure::Fail),
            schema::OnQuorumFailure::BestEffort => Some(OnQuorumFailure::BestEffort),
            schema::OnQuorumFailure::Fallback(model) => {
                let path = path.key("on_quorum_failure").key("fallback");
                self.direct(model, path).map(OnQuorumFailure::Fallback)
            }
        }
    }

    /// What a text of the file was parsed to. The error may cite the text, and so is not shown where the
    /// environment wrote a part of it.
    pub(super) fn parsed<T, E: std::error::Error>(
        &mut self,
        result: Result<T, E>,
        path: Path,
        interpolated: &str,
    ) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let what = if self.written.interpolated(&path) { interpolated.to_owned() } else { error.to_string() };
        self.report.add(path, what);
        None
    }
}

/// What is not written is no problem; what is, and could not be resolved, is one.
pub(super) fn if_written<T>(resolved: Option<Option<T>>) -> Option<Option<T>> {
    match resolved {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}
