//! What comes of a run: an answer's steps, counted on their way to the caller.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tracing::warn;

use super::alias::Ensemble;
use super::begun::Begun;
use super::candidate::Candidate;
use super::error::{Cause, RunError};
use super::run::Run;
use crate::chat::{ApiError, Event, Usage};
use crate::telemetry::Ended;
use crate::telemetry::decision::Outcome as How;
use crate::upstream::Failure;

/// An answer that has begun.
pub struct Outcome {
    /// What its caller is told about it.
    pub head: Head,
    /// Its steps. The last is [`Event::Usage`], the sum over every billed attempt, or an error.
    /// Dropping them cancels what still runs.
    pub events: BoxStream<'static, Result<Event, ApiError>>,
}

/// What a caller is told about an answer, besides the answer.
#[derive(Clone, Debug, Default)]
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
    pub outcome: Option<How>,
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
    pub error: Box<ApiError>,
}

impl Head {
    /// What is known of a run before it has begun.
    pub fn of(ensemble: &Ensemble) -> Self {
        Self {
            alias: Arc::clone(&ensemble.name),
            strategy: ensemble.strategy.name(),
            panel: ensemble.panel.len(),
            ..Self::default()
        }
    }
}

/// Where an answer comes from.
pub(super) enum Source {
    /// A call that has begun to answer.
    Call(Begun),
    /// A member's own answer.
    Member(Candidate),
}

impl Run {
    /// The run's own stream: it owns the run, so that its end is the run's.
    pub(super) fn outcome(self, source: Source) -> Outcome {
        let head = self.head.clone();
        let events = match source {
            Source::Member(candidate) => self.returned(candidate).boxed(),
            Source::Call(begun) => self.relayed(begun).boxed(),
        };
        Outcome { head, events }
    }

    fn returned(self, candidate: Candidate) -> impl Stream<Item = Result<Event, ApiError>> {
        let mut run = self;
        async_stream::stream! {
            if let Err(error) = run.within_bound(candidate.completion.message.get().len()) {
                run.account.failed(error.label);
                yield Err(error);
                return;
            }
            let finish = candidate.completion.finish_reason.clone().unwrap_or_else(|| "stop".into());
            yield Ok(Event::Message(Box::new(candidate.completion)));
            yield Ok(Event::Finish(finish));
            run.close();
            yield Ok(Event::Usage(run.account.usage().clone()));
        }
    }

    fn relayed(self, begun: Begun) -> impl Stream<Item = Result<Event, ApiError>> {
        let Begun { first, mut rest, sent, .. } = begun;
        let mut relay = Relay { run: self, sent, said: 0, pieces: 0, usage: None, is_over: false };
        async_stream::stream! {
            let mut first = first.into_iter();
            let mut finished = false;
            loop {
                let next = match first.next() {
                    Some(event) => Some(Ok(event)),
                    None => rest.next().await,
                };
                let error = match next {
                    None => break,
                    Some(Ok(Event::Usage(usage))) => {
                        relay.usage = Some(usage);
                        continue;
                    }
                    Some(Ok(event)) => {
                        relay.count(&event);
                        finished = finished || matches!(event, Event::Finish(_));
                        match relay.run.within_bound(relay.said + relay.pieces * ENVELOPE) {
                            Ok(()) => {
                                yield Ok(event);
                                continue;
                            }
                            Err(error) => relay.broke_off("too_large", error),
                        }
                    }
                    Some(Err(failure)) => relay.failed(&failure),
                };
                yield Err(error);
                return;
            }
            if !finished {
                yield Ok(Event::Finish("stop".into()));
            }
            relay.over("answered");
            relay.run.close();
            yield Ok(Event::Usage(relay.run.account.usage().clone()));
        }
    }

    /// Envoy holds what a slow caller does not take, so that an answer may not grow without end.
    fn within_bound(&self, said: usize) -> Result<(), ApiError> {
        let max_bytes = self.max_answer_bytes;
        if said <= max_bytes { Ok(()) } else { Err(ApiError::from(&RunError::TooLarge { max_bytes })) }
    }

    /// The answer is whole.
    fn close(&mut self) {
        if let Some(how) = self.head.outcome {
            self.account.settle(how);
        }
    }
}

/// What a caller gets around each piece of a stream, in bytes, give or take an alias's length.
const ENVELOPE: usize = 192;

/// A call whose answer passes by on its way to the caller. However that ends, its cost is counted.
struct Relay {
    run: Run,
    /// The bytes of its request.
    sent: usize,
    /// The bytes of its answer so far.
    said: usize,
    /// In how many pieces they came.
    pieces: usize,
    usage: Option<Usage>,
    is_over: bool,
}

impl Relay {
    fn count(&mut self, event: &Event) {
        self.pieces += 1;
        self.said += match event {
            Event::Message(message) => message.message.get().len(),
            Event::Delta(delta) => delta.json.len(),
            Event::Usage(_) | Event::Finish(_) => 0,
        };
    }

    fn failed(&mut self, failure: &Failure) -> ApiError {
        let request_id = &*self.run.context.request_id;
        warn!(request_id, alias = %self.run.ensemble.name, cause = %failure.chain(), "answer broke off");
        let is_late = self.run.is_out_of_time();
        let error = if is_late { RunError::Timeout } else { RunError::BrokenOff(Cause::of(failure)) };
        self.broke_off(failure.label(), ApiError::from(&error))
    }

    fn broke_off(&mut self, result: &'static str, error: ApiError) -> ApiError {
        self.over(result);
        self.run.account.failed(error.label);
        error
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
