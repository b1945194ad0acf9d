//! One run: panel, quorum, strategy, outcome.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::alias::{Ensemble, OnJudgeFailure, OnQuorumFailure, SingleCandidate, Strategy};
use super::begun;
use super::candidate::Candidate;
use super::error::{Cause, RunError};
use super::format::Format;
use super::outcome::{Failed, Head, Outcome, Source};
use super::panel;
use super::quorum::Verdict;
use super::strategy::judge;
use crate::chat::{ApiError, Request, RequestError};
use crate::limits::{Admission, Permit};
use crate::telemetry::Account;
use crate::telemetry::decision::Outcome as How;
use crate::upstream::{Call, Caller, Events, Failure, Passed, bound};

/// Runs ensembles.
#[derive(Clone)]
pub struct Runner {
    caller: Arc<dyn Caller>,
    admission: Admission,
    max_answer_bytes: usize,
}

/// What a run knows of its caller.
#[derive(Clone, Debug)]
pub struct Context {
    /// The caller's `x-request-id`, or one made for it.
    pub request_id: Arc<str>,
    /// What travels on to providers.
    pub passed: Arc<Passed>,
}

impl Runner {
    /// Runs ensembles by these calls, within this cap, to answers of at most so many bytes.
    pub fn new(caller: Arc<dyn Caller>, admission: Admission, max_answer_bytes: usize) -> Self {
        Self { caller, admission, max_answer_bytes }
    }

    /// Gives a run its place; nothing of the request need have been read.
    ///
    /// # Errors
    /// When all places are taken.
    pub fn admit(&self, ensemble: Arc<Ensemble>, context: Context) -> Result<Admitted, Failed> {
        let mut account = Account::open(
            &context.request_id,
            &ensemble.name,
            ensemble.strategy.name(),
            ensemble.quorum.get(),
            ensemble.panel.iter().map(|m| (&*m.model.name, m.weight)),
        );
        let head = Head::of(&ensemble);
        match self.admission.admit() {
            Some(permit) => Ok(Admitted {
                ensemble,
                context,
                account,
                head,
                caller: Arc::clone(&self.caller),
                max_answer_bytes: self.max_answer_bytes,
                permit,
            }),
            None => Err(failed(&mut account, &head, &RunError::Overloaded)),
        }
    }
}

/// A run that has its place and its account, and no request yet.
pub struct Admitted {
    ensemble: Arc<Ensemble>,
    context: Context,
    account: Account,
    head: Head,
    caller: Arc<dyn Caller>,
    max_answer_bytes: usize,
    permit: Permit,
}

impl Admitted {
    /// Ends the run: its request cannot be honoured.
    pub fn refuse(mut self, error: RequestError) -> Failed {
        failed(&mut self.account, &self.head, &RunError::Request(error))
    }

    /// Runs the ensemble until its answer begins, within its own bounds and this one.
    ///
    /// # Errors
    /// What the caller is to be told, when there is no answer.
    pub async fn run(self, request: Request, limit: Option<Duration>) -> Result<Outcome, Failed> {
        let deadline = [self.ensemble.deadline, limit].into_iter().flatten().min();
        let mut run = Run {
            format: Format::of(&request),
            ensemble: self.ensemble,
            request,
            context: self.context,
            account: self.account,
            head: self.head,
            caller: self.caller,
            deadline: deadline.map(|deadline| Instant::now() + deadline),
            max_answer_bytes: self.max_answer_bytes,
            _permit: self.permit,
        };
        match run.find_answer().await {
            Ok(begun) => Ok(run.outcome(begun)),
            Err(error) => Err(failed(&mut run.account, &run.head, &error)),
        }
    }
}

/// Closes an account with an error, and says what its caller is told.
fn failed(account: &mut Account, head: &Head, error: &RunError) -> Failed {
    let error = Box::new(ApiError::from(error));
    account.failed(error.label);
    Failed { head: Head { outcome: None, ..head.clone() }, error }
}

/// A run in progress. Dropping it cancels its calls, frees its place and closes its account.
pub(super) struct Run {
    pub(super) ensemble: Arc<Ensemble>,
    pub(super) request: Request,
    /// What an answer must be to count.
    pub(super) format: Format,
    pub(super) context: Context,
    pub(super) account: Account,
    pub(super) head: Head,
    caller: Arc<dyn Caller>,
    deadline: Option<Instant>,
    pub(super) max_answer_bytes: usize,
    _permit: Permit,
}

impl Run {
    /// A call within what is left of the run's time.
    pub(super) fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        let timeout = self.ensemble.timeout.map(|timeout| Instant::now() + timeout);
        let until = [timeout, self.deadline].into_iter().flatten().min();
        Box::pin(bound(self.caller.call(call), until))
    }

    pub(super) fn is_out_of_time(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    async fn find_answer(&mut self) -> Result<Source, RunError> {
        self.account.panel_began(self.request.stream);
        let panel = panel::ask(self).await;
        self.account.panel_ended();
        self.head.panel_time = self.account.panel_time();
        self.head.responses = panel.candidates.len();
        let mut how =
            if panel.candidates.len() == self.ensemble.panel.len() { How::Full } else { How::Quorum };
        if panel.verdict != Verdict::Reached {
            how = How::Degraded;
            match &self.ensemble.on_quorum_failure {
                OnQuorumFailure::BestEffort if !panel.candidates.is_empty() => {}
                OnQuorumFailure::Fallback(model) if !self.is_out_of_time() => {
                    let model = Arc::clone(model);
                    let Ok(begun) = begun::alone(self, &model).await else {
                        return Err(panel.error(self));
                    };
                    self.settle(how);
                    return Ok(Source::Call(begun));
                }
                _ => return Err(panel.error(self)),
            }
        }
        self.combine(panel.candidates, how).await
    }

    async fn combine(&mut self, mut candidates: Vec<Candidate>, how: How) -> Result<Source, RunError> {
        let ensemble = Arc::clone(&self.ensemble);
        if candidates.len() == 1 && ensemble.single_candidate == SingleCandidate::Return {
            let how = if how == How::Degraded { how } else { How::Single };
            return self.select(candidates, how);
        }
        let Strategy::Judge(judge) = &ensemble.strategy;
        let begun = if self.is_out_of_time() {
            Err(Cause::Timeout)
        } else {
            let asked = Instant::now();
            let begun = judge::ask(self, judge, &candidates).await;
            self.head.judge_time = Some(asked.elapsed());
            begun
        };
        match begun {
            Ok(begun) => {
                self.settle(if begun.by_fallback { How::Degraded } else { how });
                Ok(Source::Call(begun))
            }
            Err(cause) if ensemble.on_judge_failure == OnJudgeFailure::Fail => {
                Err(if self.is_out_of_time() { RunError::Timeout } else { RunError::Judge(cause) })
            }
            Err(_) => {
                candidates.sort_by(|a, b| b.weight.total_cmp(&a.weight));
                self.select(candidates, How::Degraded)
            }
        }
    }

    /// The first of these candidates is the answer.
    fn select(&mut self, candidates: Vec<Candidate>, how: How) -> Result<Source, RunError> {
        let chosen = candidates.into_iter().next().ok_or(RunError::Internal)?;
        self.account.chosen(chosen.member);
        self.settle(how);
        Ok(Source::Member(chosen))
    }

    fn settle(&mut self, how: How) {
        self.head.outcome = Some(how);
    }
}

impl Strategy {
    /// Its name, as configuration and headers have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Judge(_) => "judge",
        }
    }
}

#[cfg(test)]
mod tests;
