//! One run: panel, quorum, strategy, outcome.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::alias::{Ensemble, Execution, OnQuorumFailure, Reasoning};
use super::answer::{Key, Kind, Reader};
use super::begun;
use super::candidate::Candidate;
use super::consensus::Tally;
use super::direct;
use super::error::RunError;
use super::format::Format;
use super::outcome::{Failed, Head, Outcome, Source};
use super::panel;
use super::quorum::Verdict;
use super::strategy::Strategy;
use crate::chat::{ApiError, Body, Completion, Delta, Event, Request, Thinking};
use crate::limits::{Admission, CallerKey, Demand, Denied, Grant, Lease, Limiter, Permit};
use crate::telemetry::{About, Account, Attempts, Decisions, Door, Traces};
use crate::upstream::{Bounds, Call, Caller, DirectModel, Events, Failure, Passed, bound};

/// Runs ensembles.
#[derive(Clone)]
pub struct Runner {
    caller: Arc<dyn Caller>,
    admission: Admission,
    limiter: Limiter,
    max_answer_bytes: usize,
    decisions: Decisions,
    traces: Traces,
}

/// What a run knows of its caller.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The caller's `x-request-id`, or one made for it.
    pub request_id: Arc<str>,
    /// Who the caller is to the limits; none where all callers share them.
    pub caller_key: Option<CallerKey>,
    /// How many tokens the run may cost ([`Ensemble::estimated_tokens`]).
    pub estimated_tokens: u64,
    /// How it came in.
    pub door: Door,
    /// What travels on to providers.
    pub passed: Arc<Passed>,
    /// The `x-ensemble-…` headers that were sent and mean nothing here.
    pub ignored: Vec<&'static str>,
    /// The `x-ensemble-…` headers that were sent and heeded.
    pub applied: Vec<&'static str>,
    /// Whether the caller gets to see the decision.
    pub trace: bool,
    /// Whether the ensemble took the request because its `when` could not be evaluated.
    pub condition_failed: bool,
}

impl Runner {
    /// Runs ensembles by these calls, within this cap, to answers of at most so many bytes.
    pub fn new(caller: Arc<dyn Caller>, admission: Admission, max_answer_bytes: usize) -> Self {
        Self {
            caller,
            admission,
            limiter: Limiter::default(),
            max_answer_bytes,
            decisions: Decisions::default(),
            traces: Traces::default(),
        }
    }

    /// Waits until runs are to end, finished or not.
    pub fn is_cut(&self) -> impl Future<Output = ()> + Send + use<> {
        self.admission.is_cut()
    }

    /// With the decisions of its runs going there.
    #[must_use]
    pub fn recording(self, decisions: Decisions) -> Self {
        Self { decisions, ..self }
    }

    /// With these limits of aliases, in the place of its own.
    #[must_use]
    pub fn limited_by(self, limiter: Limiter) -> Self {
        Self { limiter, ..self }
    }

    /// With a span for each run.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Gives a run its place; nothing of the request need have been read.
    ///
    /// # Errors
    /// When all places are taken, when the caller is over a limit of the alias or the alias over its budget, and when
    /// that cannot be known.
    pub async fn admit(&self, ensemble: Arc<Ensemble>, context: Context) -> Result<Admitted, Failed> {
        let about = About {
            request_id: &context.request_id,
            alias: &ensemble.name,
            strategy: ensemble.strategy.name(),
            quorum: ensemble.quorum.get(),
            door: context.door,
        };
        let panel = ensemble.panel.iter().map(|m| (&*m.model.name, m.weight));
        let strategy = ensemble.strategy.name();
        let span = self.traces.run(about.request_id, about.alias, strategy, &context.passed.trace());
        let mut account = Account::open(&self.decisions, about, panel).traced(span);
        account.wished(&context.applied, &context.ignored, context.condition_failed);
        let mut head = Head { bill: account.follow_cost(), ..Head::of(&ensemble) };
        let Some(permit) = self.admission.admit_of(&ensemble.name, ensemble.max_inflight) else {
            return Err(failed(&mut account, &head, &RunError::Overloaded));
        };
        let demand = Demand {
            name: &ensemble.name,
            caller: context.caller_key.as_ref(),
            rate: ensemble.rate_limit.as_ref(),
            budget: ensemble.budget,
            tokens: context.estimated_tokens,
        };
        let Grant { lease, reservation, quota } = match self.limiter.admit(demand).await {
            Ok(grant) => grant,
            Err(denied) => {
                if let Denied::Over { quota, .. } = denied {
                    head.quota = Some(quota);
                }
                return Err(failed(&mut account, &head, &RunError::from(&denied)));
            }
        };
        head.quota = quota;
        account.settle_with(Box::new(move |spent| reservation.settle(spent.tokens, spent.usd)));
        Ok(Admitted {
            ensemble,
            context,
            account,
            head,
            caller: Arc::clone(&self.caller),
            max_answer_bytes: self.max_answer_bytes,
            place: (permit, lease),
        })
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
    place: (Permit, Lease),
}

impl Admitted {
    /// What its caller can be told already.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Ends the run: its request cannot be honoured.
    pub fn refuse(mut self, error: impl Into<RunError>) -> Failed {
        failed(&mut self.account, &self.head, &error.into())
    }

    /// Runs the ensemble until its answer begins, within its own bounds. A door that sends answers in one piece
    /// has a `limit` for them.
    ///
    /// # Errors
    /// What the caller is to be told, when there is no answer.
    pub fn run(
        self,
        request: Request,
        limit: Option<Duration>,
    ) -> BoxFuture<'static, Result<Outcome, Failed>> {
        // On its own heap once: inside of what awaits it, it would be there as often as it is handed on.
        Box::pin(self.answered(request, limit))
    }

    async fn answered(self, request: Request, limit: Option<Duration>) -> Result<Outcome, Failed> {
        let deadline = [self.ensemble.deadline, limit].into_iter().flatten().min();
        let mut run = Run {
            format: Arc::new(Format::of(&request)),
            max_tokens: request.read("max_completion_tokens").or_else(|| request.read("max_tokens")),
            reader: Reader::of(&self.ensemble.reads(), &request),
            ensemble: self.ensemble,
            request,
            context: self.context,
            account: self.account,
            head: self.head,
            caller: self.caller,
            deadline: deadline.map(|deadline| Instant::now() + deadline),
            max_answer_bytes: self.max_answer_bytes,
            is_collected: limit.is_some(),
            _place: self.place,
        };
        match run.find_answer().await {
            Ok(begun) => Ok(run.outcome(begun)),
            Err(error) => Err(run.failed(&error)),
        }
    }
}

/// Closes an account with an error, and says what its caller is told.
fn failed(account: &mut Account, head: &Head, error: &RunError) -> Failed {
    let error = Box::new(ApiError::from(error));
    account.failed(error.label);
    Failed { head: Box::new(Head { outcome: None, ..head.clone() }), error }
}

/// A run in progress. Dropping it cancels its calls, frees its place and closes its account.
pub(super) struct Run {
    pub(super) ensemble: Arc<Ensemble>,
    pub(super) request: Request,
    /// What an answer must be to count.
    pub(super) format: Arc<Format>,
    /// How answers are read for comparing.
    pub(super) reader: Reader,
    pub(super) context: Context,
    pub(super) account: Account,
    pub(super) head: Head,
    /// The bound on an answer that the request names.
    max_tokens: Option<u64>,
    caller: Arc<dyn Caller>,
    deadline: Option<Instant>,
    pub(super) max_answer_bytes: usize,
    /// Whether the answer is sent when it is whole, even to a caller that asked for a stream.
    is_collected: bool,
    _place: (Permit, Lease),
}

impl Run {
    /// A call within what is left of the run's time.
    pub(super) fn call(
        &self,
        model: &Arc<DirectModel>,
        body: Body,
        stream: bool,
        attempts: Arc<Attempts>,
    ) -> BoxFuture<'static, Result<Events, Failure>> {
        let bounds = Bounds {
            timeout: self.ensemble.timeout.map(|timeout| Instant::now() + timeout),
            deadline: self.deadline,
        };
        let (model, passed) = (Arc::clone(model), Arc::clone(&self.context.passed));
        let max_tokens = self.max_tokens;
        let call = self.caller.call(Call { model, body, max_tokens, stream, passed, bounds, attempts });
        let call = bound(call, bounds.until());
        match self.ensemble.reasoning {
            Reasoning::Pass => Box::pin(call),
            Reasoning::Drop => Box::pin(async move { Ok(without_reasoning(call.await?)) }),
        }
    }

    pub(super) fn is_out_of_time(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Whether members speak to the caller as they are heard: the first one's words are the answer, and whether
    /// they are one can be told before their end.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.ensemble.strategy, Strategy::First)
            && self.request.stream
            && !self.is_collected
            && matches!(*self.format, Format::Text)
    }

    /// What an answer is compared by; none when it abstains, or when answers are not compared: reading texts
    /// that nobody compares would cost time.
    pub(super) fn key(&self, completion: &Completion) -> Option<Key> {
        self.compares().then(|| self.reader.key(completion)).flatten()
    }

    fn failed(&mut self, error: &RunError) -> Failed {
        let mut failed = failed(&mut self.account, &self.head, error);
        if self.context.trace {
            failed.head.decision = self.account.to_json().ok().map(Arc::from);
        }
        failed
    }

    fn compares(&self) -> bool {
        self.reader.kind() != Kind::Text
            || self.ensemble.strategy.vote().is_some()
            || matches!(self.ensemble.execution, Execution::Cascade(_))
    }

    /// Who agrees with whom.
    pub(super) fn tally(&self, candidates: &[Candidate]) -> Tally {
        let strategy = &self.ensemble.strategy;
        Tally::of(candidates, &strategy.scores(candidates), strategy.similarity())
    }

    async fn find_answer(&mut self) -> Result<Source, RunError> {
        if matches!(self.ensemble.strategy, Strategy::Direct) {
            return direct::ask(self).await.map(Source::Call);
        }
        self.check_numeric()?;
        self.account.panel_began(self.request.stream);
        if self.account.keeps_texts() {
            self.account.asked(&self.request.conversation().last_user);
        }
        let panel = panel::ask(self).await;
        self.account.panel_ended(panel.saved, panel.live.as_ref().map(|begun| begun.seat));
        self.head.panel_time = self.account.panel_time();
        self.head.panel = panel.asked;
        self.head.responses = panel.candidates.len() + usize::from(panel.live.is_some());
        if self.compares() {
            self.head.agreement = self.tally(&panel.candidates).agreement();
            self.account.agreed(self.head.agreement);
        }
        if panel.verdict != Verdict::Reached {
            self.degrade("quorum_missed");
            match &self.ensemble.on_quorum_failure {
                OnQuorumFailure::BestEffort if !panel.candidates.is_empty() => {}
                OnQuorumFailure::Fallback(model) if !self.is_out_of_time() => {
                    let model = Arc::clone(model);
                    return begun::alone(self, &model).await.map(Source::Call).map_err(|_| panel.error(self));
                }
                _ => return Err(panel.error(self)),
            }
        }
        self.combine(panel).await
    }
}

/// Without what models thought aloud.
fn without_reasoning(mut events: Events) -> Events {
    let spoken = async_stream::stream! {
        let mut thinking = Thinking::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Delta(delta)) => {
                    let spoken = delta.without_reasoning();
                    if let Some(delta) = spoken.and_then(|delta| delta.without_thinking(&mut thinking)) {
                        yield Ok(Event::Delta(delta));
                    }
                }
                Ok(Event::Message(message)) => match message.without_reasoning() {
                    Ok(message) => yield Ok(Event::Message(Box::new(message))),
                    Err(error) => yield Err(Failure::Unreadable(error.into())),
                },
                Ok(Event::Finish(reason)) => {
                    let rest = thinking.rest();
                    if !rest.is_empty() {
                        yield Ok(Event::Delta(Delta::of_text(&rest)));
                    }
                    yield Ok(Event::Finish(reason));
                }
                event => yield event,
            }
        }
    };
    spoken.boxed()
}

#[cfg(test)]
mod tests;
