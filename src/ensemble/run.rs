//! One run: panel, quorum, strategy, outcome.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::time::Instant;
use tracing::warn;

use super::alias::{Ensemble, OnJudgeFailure, OnQuorumFailure, SingleCandidate, Strategy};
use super::candidate::Candidate;
use super::error::{Cause, RunError};
use super::panel;
use super::quorum::Verdict;
use super::strategy::judge::{self, Begun};
use crate::chat::{ApiError, Event, Request, Usage};
use crate::limits::{Admission, Permit};
use crate::telemetry::decision::Outcome as How;
use crate::telemetry::{Account, Ended};
use crate::upstream::{Call, Caller, Events, Failure, Passed, bound};

/// Runs ensembles.
#[derive(Clone)]
pub struct Runner {
    caller: Arc<dyn Caller>,
    admission: Admission,
}

/// What a run knows of its caller.
#[derive(Clone, Debug)]
pub struct Context {
    /// The caller's `x-request-id`, or one made for it.
    pub request_id: Arc<str>,
    /// What travels on to providers.
    pub passed: Arc<Passed>,
}

/// An answer that has begun.
pub struct Outcome {
    /// What its caller is told about it.
    pub head: Head,
    /// Its steps. The last is [`Event::Usage`], the sum over every billed attempt, or an error.
    /// Dropping them cancels what still runs.
    pub events: BoxStream<'static, Result<Event, ApiError>>,
}

/// What a caller is told about an answer, besides the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// The alias asked.
    pub alias: Arc<str>,
    /// How candidates become one answer.
    pub strategy: &'static str,
    /// How many members were asked.
    pub panel: usize,
    /// How many gave a usable answer.
    pub responses: usize,
    /// How the answer came about; none when there is no answer.
    pub outcome: Option<&'static str>,
    /// How long the panel took.
    pub panel_time: Duration,
    /// How long the judge took to its first words, when one was asked.
    pub judge_time: Option<Duration>,
}

/// A run without an answer.
#[derive(Debug)]
pub struct Failed {
    /// What its caller is told about it.
    pub head: Head,
    /// The error.
    pub error: ApiError,
}

impl Runner {
    /// Runs ensembles by these calls, within this cap.
    pub fn new(caller: Arc<dyn Caller>, admission: Admission) -> Self {
        Self { caller, admission }
    }

    /// Runs `ensemble` for one request, until its answer begins.
    ///
    /// # Errors
    /// What the caller is to be told, when there is no answer.
    pub async fn run(
        &self,
        ensemble: Arc<Ensemble>,
        request: Request,
        context: Context,
    ) -> Result<Outcome, Failed> {
        let head = Head {
            alias: Arc::clone(&ensemble.name),
            strategy: ensemble.strategy.name(),
            panel: ensemble.panel.len(),
            ..Head::default()
        };
        let Some(permit) = self.admission.admit() else {
            return Err(Failed { head, error: ApiError::from(&RunError::Overloaded) });
        };
        let mut run = Run::begin(Arc::clone(&self.caller), ensemble, request, context, head, permit);
        match run.find_answer().await {
            Ok(begun) => Ok(run.outcome(begun)),
            Err(error) => {
                let error = ApiError::from(&error);
                run.account.failed(error.code.as_deref().unwrap_or("invalid_request"));
                Err(Failed { head: run.head.clone(), error })
            }
        }
    }
}

/// A run in progress. Dropping it cancels its calls, frees its place and closes its account.
pub(super) struct Run {
    pub(super) ensemble: Arc<Ensemble>,
    pub(super) request: Request,
    pub(super) context: Context,
    pub(super) account: Account,
    head: Head,
    caller: Arc<dyn Caller>,
    deadline: Option<Instant>,
    _permit: Permit,
}

/// Where an answer comes from.
enum Source {
    /// A call that has begun to answer.
    Call(Begun),
    /// A member's own answer.
    Member(Candidate),
}

impl Run {
    fn begin(
        caller: Arc<dyn Caller>,
        ensemble: Arc<Ensemble>,
        request: Request,
        context: Context,
        head: Head,
        permit: Permit,
    ) -> Self {
        let account = Account::open(
            &context.request_id,
            &ensemble.name,
            ensemble.strategy.name(),
            request.stream,
            ensemble.quorum.get(),
            ensemble.panel.iter().map(|m| (&*m.model.name, m.weight)),
        );
        let deadline = ensemble.deadline.map(|deadline| Instant::now() + deadline);
        Self { ensemble, request, context, account, head, caller, deadline, _permit: permit }
    }

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
                OnQuorumFailure::Fallback(model) => {
                    let model = Arc::clone(model);
                    let answer = judge::alone(self, &model).await;
                    self.settle(how);
                    return answer.map(Source::Call).map_err(|_| panel.error(self));
                }
                OnQuorumFailure::Fail | OnQuorumFailure::BestEffort => return Err(panel.error(self)),
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
        let asked = Instant::now();
        let begun = judge::ask(self, judge, &candidates).await;
        self.head.judge_time = Some(asked.elapsed());
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
        self.head.outcome = Some(match how {
            How::Full => "full",
            How::Quorum => "quorum",
            How::Single => "single",
            _ => "degraded",
        });
    }

    /// The run's own stream: it owns the run, so that its end is the run's.
    fn outcome(self, source: Source) -> Outcome {
        let head = self.head.clone();
        let events = match source {
            Source::Member(candidate) => self.returned(candidate).boxed(),
            Source::Call(begun) => self.relayed(begun).boxed(),
        };
        Outcome { head, events }
    }

    fn returned(self, candidate: Candidate) -> impl futures_util::Stream<Item = Result<Event, ApiError>> {
        let mut run = self;
        async_stream::stream! {
            let finish = candidate.completion.finish_reason.clone().unwrap_or_else(|| "stop".into());
            yield Ok(Event::Message(Box::new(candidate.completion)));
            yield Ok(Event::Finish(finish));
            run.close();
            yield Ok(Event::Usage(run.account.usage().clone()));
        }
    }

    fn relayed(self, begun: Begun) -> impl futures_util::Stream<Item = Result<Event, ApiError>> {
        let Begun { first, mut rest, sent, .. } = begun;
        let mut relay = Relay { run: self, sent, said: 0, usage: None, is_over: false };
        async_stream::stream! {
            let mut first = first.into_iter();
            let mut finished = false;
            loop {
                let next = match first.next() {
                    Some(event) => Some(Ok(event)),
                    None => rest.next().await,
                };
                match next {
                    None => break,
                    Some(Ok(event)) => {
                        relay.count(&event);
                        finished = finished || matches!(event, Event::Finish(_));
                        if !matches!(event, Event::Usage(_)) {
                            yield Ok(event);
                        }
                    }
                    Some(Err(failure)) => {
                        warn!(cause = %failure.chain(), "judge broke off");
                        relay.over(failure.label());
                        let is_late = relay.run.is_out_of_time();
                        let error = if is_late { RunError::Timeout } else { RunError::BrokenOff(Cause::of(&failure)) };
                        let error = ApiError::from(&error);
                        relay.run.account.failed(error.code.as_deref().unwrap_or_default());
                        yield Err(error);
                        return;
                    }
                }
            }
            if !finished {
                yield Ok(Event::Finish("stop".into()));
            }
            relay.over("answered");
            relay.run.close();
            yield Ok(Event::Usage(relay.run.account.usage().clone()));
        }
    }

    /// The answer is whole.
    fn close(&mut self) {
        self.account.settle(match self.head.outcome {
            Some("full") => How::Full,
            Some("quorum") => How::Quorum,
            Some("single") => How::Single,
            _ => How::Degraded,
        });
    }
}

/// A call whose answer passes by on its way to the caller. However that ends, its cost is counted.
struct Relay {
    run: Run,
    /// The bytes of its request.
    sent: usize,
    /// The bytes of its answer so far.
    said: usize,
    usage: Option<Usage>,
    is_over: bool,
}

impl Relay {
    fn count(&mut self, event: &Event) {
        match event {
            Event::Message(message) => self.said += message.message.get().len(),
            Event::Delta(delta) => self.said += delta.json.len(),
            Event::Usage(usage) => self.usage = Some(usage.clone()),
            Event::Finish(_) => {}
        }
    }

    fn over(&mut self, result: &'static str) {
        self.is_over = true;
        let estimate = Some(Usage::estimate(self.sent, self.said));
        self.run.account.judge_ended(&Ended { result, usage: self.usage.take(), estimate });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.is_over {
            self.over("cancelled");
        }
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
