//! An alias's request becomes replies: the run, driven to Envoy's messages.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, interval_at};

use super::note::Note;
use super::route::{Given, Taken};
use super::{Settings, pb, reply};
use crate::chat::{Answer, ApiError, Collected, Event, Request, Usage, sse};
use crate::ensemble::{Failed, Head, Outcome, RunError, Runner};

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
/// How long before Envoy's own timer a buffered run is ended, so that it is we who tell the caller.
const MARGIN: Duration = Duration::from_secs(1);

/// Answers what an ensemble has taken. The replies end with the terminal one; dropping them cancels the run.
pub(super) fn replies(
    taken: Taken,
    runner: Runner,
    settings: Arc<Settings>,
) -> impl Stream<Item = pb::ProcessingResponse> {
    stream! {
        let Taken { ensemble, context, request, can_stream } = taken;
        let request_id = Arc::clone(&context.request_id);
        let admitted = match runner.admit(Arc::clone(&ensemble), context).await {
            Ok(admitted) => admitted,
            Err(failed) => {
                yield reply::error(&failed.error, Some(&failed.head), &request_id);
                return;
            }
        };
        let request = match request {
            Given::Unread(body) => Request::parse(body).map_err(RunError::from),
            Given::Read(request) => Ok(request),
            Given::Refused(error) => Err(error),
        };
        let request = match request {
            Ok(request) => request,
            Err(e) => {
                let failed = admitted.refuse(e);
                yield reply::error(&failed.error, Some(&failed.head), &request_id);
                return;
            }
        };
        let answer = Answer::new(&ensemble.name, request.include_usage);
        let mut answering = Answering { answer, alone: admitted.head().clone(), request_id, settings };
        let streams = request.stream;
        if can_stream && streams {
            for await reply in answering.streamed(admitted.run(request, None)) {
                yield reply;
            }
        } else if can_stream {
            yield answering.answered(admitted.run(request, None).await, streams).await;
        } else {
            let longest = ensemble.longest_run().map_or(Duration::MAX, |run| run.saturating_add(MARGIN));
            let timer = answering.settings.buffered_timeout.min(longest);
            let limit = timer.saturating_sub(MARGIN).max(timer / 2);
            yield reply::more_time(timer);
            yield answering.answered(admitted.run(request, Some(limit)).await, streams).await;
        }
    }
}

type Events = BoxStream<'static, Result<Event, ApiError>>;

/// What is the same in every reply of one answer.
struct Answering {
    answer: Answer,
    /// What is known of a run before its answer begins.
    alone: Head,
    request_id: Arc<str>,
    settings: Arc<Settings>,
}

impl Answering {
    /// The answer in one piece: a JSON object, or the finished text of a stream.
    async fn answered(&mut self, run: Result<Outcome, Failed>, streams: bool) -> pb::ProcessingResponse {
        let Outcome { head, events } = match run {
            Ok(outcome) => outcome,
            Err(failed) => return reply::error(&failed.error, Some(&failed.head), &self.request_id),
        };
        let written = if streams { self.stream_text(events).await } else { self.object(events).await };
        match written {
            Ok((body, usage)) => {
                let content_type = if streams { EVENT_STREAM } else { JSON };
                let fields = reply::fields(content_type, Some(&head), &self.request_id);
                let note = Note { head: &head, usage: Some(&usage), code: None };
                reply::immediate(200, fields, &body, "consort_answered".to_owned(), Some(note))
            }
            Err(e) => reply::error(&e, Some(&head), &self.request_id),
        }
    }

    async fn object(&self, mut events: Events) -> Result<(Bytes, Usage), ApiError> {
        let mut collected = Collected::default();
        while let Some(event) = events.next().await {
            collected.push(event?).map_err(internal)?;
        }
        let decision = collected.decision.take();
        let (completion, usage) = collected.finish().map_err(internal)?;
        let body = self.answer.completion(&completion, &usage, decision.as_deref()).map_err(internal)?;
        Ok((body, usage))
    }

    async fn stream_text(&mut self, mut events: Events) -> Result<(Bytes, Usage), ApiError> {
        let mut body = BytesMut::new();
        let mut usage = Usage::default();
        while let Some(event) = events.next().await {
            let event = event?;
            body.extend_from_slice(&self.answer.event(&event).map_err(internal)?);
            if let Event::Usage(sum) = event {
                usage = sum;
            }
        }
        Ok((body.freeze(), usage))
    }

    /// A live stream: its status is committed with the first words, or when the caller has waited
    /// long enough; comments then hold off idle timers until the first words are here.
    fn streamed(
        mut self,
        run: impl Future<Output = Result<Outcome, Failed>>,
    ) -> impl Stream<Item = pb::ProcessingResponse> {
        stream! {
            let mut run = pin!(run);
            let mut is_committed = false;
            let commit = tokio::time::sleep(self.settings.commit_after);
            let mut commit = pin!(commit);
            let mut heartbeat = self.settings.heartbeat.map(|every| interval_at(Instant::now() + self.settings.commit_after + every, every));
            let outcome = loop {
                tokio::select! {
                    biased;
                    outcome = &mut run => break outcome,
                    () = &mut commit, if !is_committed => {
                        is_committed = true;
                        yield self.stream_head(&self.alone);
                    }
                    () = tick(&mut heartbeat), if is_committed => {}
                }
                yield reply::stream_piece(&sse::HEARTBEAT, None);
            };
            let mut outcome = match outcome {
                Ok(outcome) => outcome,
                Err(failed) if is_committed => {
                    yield broken_off(&failed.error, &failed.head);
                    return;
                }
                Err(failed) => {
                    yield reply::error(&failed.error, Some(&failed.head), &self.request_id);
                    return;
                }
            };
            if !is_committed {
                yield self.stream_head(&outcome.head);
            }
            let mut usage = None;
            while let Some(event) = outcome.events.next().await {
                match event.and_then(|event| Ok((self.answer.event(&event).map_err(internal)?, event))) {
                    Ok((piece, event)) => {
                        if let Event::Usage(sum) = event {
                            usage = Some(sum);
                        }
                        if !piece.is_empty() {
                            yield reply::stream_piece(&piece, None);
                        }
                    }
                    Err(e) => {
                        yield broken_off(&e, &outcome.head);
                        return;
                    }
                }
            }
            // The end has its own piece: whatever came last, Envoy must hear of it.
            yield reply::stream_piece(&Bytes::new(), Some(Note { head: &outcome.head, usage: usage.as_ref(), code: None }));
        }
    }

    fn stream_head(&self, head: &Head) -> pb::ProcessingResponse {
        let mut fields = reply::fields(EVENT_STREAM, Some(head), &self.request_id);
        fields.push(("cache-control", "no-cache".to_owned()));
        reply::stream_head(fields)
    }
}

/// The last piece of a stream that cannot be finished.
fn broken_off(error: &ApiError, head: &Head) -> pb::ProcessingResponse {
    reply::stream_piece(&Answer::error(error), Some(Note { head, usage: None, code: Some(error.label) }))
}

async fn tick(heartbeat: &mut Option<tokio::time::Interval>) {
    match heartbeat {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn internal(error: impl std::error::Error) -> ApiError {
    tracing::error!(%error, "answer could not be written");
    ApiError::from(&RunError::Internal)
}
