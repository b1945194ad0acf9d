//! What comes of a run: an answer's steps, counted on their way to the caller.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use serde_json::value::RawValue;
use tracing::warn;

use super::alias::Ensemble;
use super::begun::Begun;
use super::candidate::Candidate;
use super::error::{Cause, RunError};
use super::run::Run;
use crate::chat::{ApiError, Collected, Completion, Event, Usage};
use crate::limits::Quota;
use crate::telemetry::decision::Outcome as How;
use crate::telemetry::{Bill, Ended, Seat};
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
    /// The share that the leading class of equal answers has, 0 to 1; none where answers are not compared.
    pub agreement: Option<f64>,
    /// The decision of a run without an answer, where the caller may see it.
    pub decision: Option<Arc<RawValue>>,
    /// What is left of the caller's limits, where the alias has any.
    pub quota: Option<Quota>,
    /// How long the panel took.
    pub panel_time: Duration,
    /// How long the judge took to its first words, when one was asked.
    pub judge_time: Option<Duration>,
    /// What the run costs, up to its end.
    pub bill: Bill,
}

/// A run without an answer.
#[derive(Debug)]
pub struct Failed {
    /// What its caller is told about it.
    pub head: Box<Head>,
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
            let message = &candidate.completion;
            let said = message.message.get().len() + run.pieces(message) * ENVELOPE;
            if let Err(error) = run.within_bound(said) {
                run.account.failed(error.label);
                yield Err(error);
                return;
            }
            if run.account.keeps_texts() {
                run.account.answered(candidate.completion.shown());
            }
            let finish = candidate.completion.finish_reason.clone().unwrap_or_else(|| "stop".into());
            yield Ok(Event::Message(Box::new(candidate.completion)));
            for event in run.ending(Some(finish)) {
                yield Ok(event);
            }
        }
    }

    fn relayed(self, begun: Begun) -> impl Stream<Item = Result<Event, ApiError>> {
        let Begun { seat, first, mut rest, sent, .. } = begun;
        let texts = self.account.keeps_texts().then(Collected::default);
        let mut relay =
            Relay { run: self, seat, sent, said: 0, pieces: 0, texts, usage: None, is_over: false };
        async_stream::stream! {
            let mut first = first.into_iter();
            // A decision is shown with the end of the message, and is not known before its usage.
            let mut finish: Option<Box<str>> = Some("stop".into());
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
                    Some(Ok(Event::Finish(reason))) if relay.run.context.trace => {
                        finish = Some(reason);
                        continue;
                    }
                    Some(Ok(event)) => {
                        relay.count(&event);
                        if matches!(event, Event::Finish(_)) {
                            finish = None;
                        }
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
            relay.over(if matches!(seat, Seat::Member(_)) { "usable" } else { "answered" });
            relay.run.account.chosen(seat);
            for event in relay.run.ending(finish) {
                yield Ok(event);
            }
        }
    }

    /// Envoy holds what a slow caller does not take, so that an answer may not grow without end.
    fn within_bound(&self, said: usize) -> Result<(), ApiError> {
        let max_bytes = self.max_answer_bytes;
        if said <= max_bytes { Ok(()) } else { Err(ApiError::from(&RunError::TooLarge { max_bytes })) }
    }

    /// In how many pieces the caller gets a whole message.
    fn pieces(&self, message: &Completion) -> usize {
        // One that cannot be cut will say so when it is.
        if self.request.stream { message.to_deltas().map_or(1, |deltas| deltas.len()) } else { 1 }
    }

    /// The last events of an answer that is whole: its end, when the caller has not had it, and what it cost.
    fn ending(&mut self, finish: Option<Box<str>>) -> impl Iterator<Item = Event> + use<> {
        if let Some(how) = self.head.outcome {
            self.account.settle(how);
        }
        let decision = self.context.trace.then(|| self.account.to_json().ok()).flatten().map(Event::Decision);
        let usage = Event::Usage(self.account.usage().clone());
        [decision, finish.map(Event::Finish), Some(usage)].into_iter().flatten()
    }
}

/// What a caller gets around each piece of a stream, in bytes, give or take an alias's length.
const ENVELOPE: usize = 192;

/// A call whose answer passes by on its way to the caller. However that ends, its cost is counted.
struct Relay {
    run: Run,
    seat: Seat,
    /// The bytes of its request.
    sent: usize,
    /// The bytes of its answer so far.
    said: usize,
    /// In how many pieces they came.
    pieces: usize,
    /// What was said so far, where texts are kept.
    texts: Option<Collected>,
    usage: Option<Usage>,
    is_over: bool,
}

impl Relay {
    fn count(&mut self, event: &Event) {
        let (said, pieces) = match event {
            Event::Message(message) => (message.message.get().len(), self.run.pieces(message)),
            Event::Delta(delta) => (delta.json.len(), 1),
            Event::Usage(_) | Event::Finish(_) | Event::Decision(_) => (0, 1),
        };
        self.said += said;
        self.pieces += pieces;
        if let Some(texts) = &mut self.texts {
            // What is no piece of a message is noticed where it is written for the caller; of what has a hole nothing is
            // kept.
            if texts.push(event.clone()).is_err() {
                self.texts = None;
            }
        }
    }

    fn failed(&mut self, failure: &Failure) -> ApiError {
        let request_id = &*self.run.context.request_id;
        warn!(request_id, alias = %self.run.ensemble.name, cause = %failure.chain(), "answer broke off");
        let is_late = self.run.is_out_of_time();
        let error = match self.seat {
            _ if is_late => RunError::Timeout,
            Seat::Judge(_) => RunError::BrokenOff(Cause::of(failure)),
            Seat::Member(_) => RunError::MemberBrokeOff(Cause::of(failure)),
        };
        self.broke_off(failure.label(), ApiError::from(&error))
    }

    fn broke_off(&mut self, result: &'static str, error: ApiError) -> ApiError {
        self.over(result);
        self.run.account.failed(error.label);
        error
    }

    fn over(&mut self, result: &'static str) {
        self.is_over = true;
        if let Some(Ok((completion, _))) = self.texts.take().map(Collected::finish) {
            self.run.account.said(self.seat, completion.shown());
            self.run.account.answered(completion.shown());
        }
        let estimate = Some(Usage::estimate(self.sent, self.said));
        self.run.account.ended(self.seat, &Ended { result, usage: self.usage.take(), estimate });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.is_over {
            self.over("cancelled");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::chat::Request;
    use crate::ensemble::fixture::{self, Scripted, fails, says};
    use crate::ensemble::{Context, Runner};
    use crate::limits::Admission;

    /// How the answer ends, within this bound.
    async fn end(panel: Scripted, streams: bool, max_answer_bytes: usize) -> Result<(), &'static str> {
        let runner = Runner::new(Arc::new(panel), Admission::new(1), max_answer_bytes);
        let context = Context { request_id: "request-1".into(), ..Context::default() };
        let admitted = runner.admit(Arc::new(fixture::ensemble("team")), context).await.ok().unwrap();
        let body = json!({"messages": [{"role": "user", "content": "why?"}], "stream": streams});
        let request = Request::parse(Bytes::from(body.to_string())).unwrap();
        let events: Vec<_> = admitted.run(request, None).await.ok().unwrap().events.collect().await;
        events.into_iter().next_back().unwrap().map(|_| ()).map_err(|error| error.label)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_within_the_bound_passes_and_one_past_it_does_not() {
        let long = "x".repeat(2000);
        let panel = || {
            let panel = Scripted::default().model("a", says(10, &long));
            panel.model("b", says(20, "two")).model("c", says(30, "three"))
        };
        // Some 2,050 bytes, in an envelope of 192; for a streaming caller in ten of them.
        for (streams, max_answer_bytes, passes) in
            [(false, 2000, false), (false, 2500, true), (true, 3900, false), (true, 4300, true)]
        {
            let expected = if passes { Ok(()) } else { Err("answer_too_large") };
            let judged = panel().model("judge", says(5, &long));
            assert_eq!(
                end(judged, streams, max_answer_bytes).await,
                expected,
                "{streams} {max_answer_bytes}"
            );
            let selected = panel().model("judge", fails(1, || Failure::Timeout));
            assert_eq!(
                end(selected, streams, max_answer_bytes).await,
                expected,
                "{streams} {max_answer_bytes}"
            );
        }
    }
}
