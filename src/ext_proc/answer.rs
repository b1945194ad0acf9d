//! An alias's request becomes replies: the run, driven to Envoy's messages.

use std::pin::pin;
use std::sync::Arc;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, interval_at};

use super::exchange::Asked;
use super::{Settings, pb, reply};
use crate::chat::{Answer, ApiError, Collected, Request, sse};
use crate::ensemble::{Context, Failed, Head, Outcome, RunError, Runner};

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
const ANSWERED: &str = "consort_answered";

/// Answers `asked`. The replies end with the terminal one; dropping them cancels the run.
pub(super) fn replies(
    asked: Asked,
    runner: Runner,
    settings: Arc<Settings>,
) -> impl Stream<Item = pb::ProcessingResponse> {
    stream! {
        let request_id = asked.head.request_id();
        let request = match Request::parse(Bytes::from(asked.body)) {
            Ok(request) => request,
            Err(e) => {
                yield reply::error(&ApiError::from(&e), None, &request_id);
                return;
            }
        };
        let mut answering = Answering {
            answer: Answer::new(&asked.ensemble.name, request.include_usage),
            alone: Head { alias: Arc::clone(&asked.ensemble.name), strategy: asked.ensemble.strategy.name(), panel: asked.ensemble.panel.len(), ..Head::default() },
            request_id: Arc::clone(&request_id),
            settings,
        };
        let streams = request.stream;
        let context = Context { request_id, passed: asked.head.passed };
        let run = async move { runner.run(asked.ensemble, request, context).await };
        if streams && asked.can_stream {
            for await reply in answering.streamed(run) {
                yield reply;
            }
        } else {
            if !asked.can_stream {
                yield reply::more_time(answering.settings.buffered_timeout);
            }
            yield match run.await {
                Err(failed) => reply::error(&failed.error, Some(&failed.head), &answering.request_id),
                Ok(outcome) if streams => answering.streamed_whole(outcome).await,
                Ok(outcome) => answering.whole(outcome).await,
            };
        }
    }
}

/// What is the same in every reply of one answer.
struct Answering {
    answer: Answer,
    /// What is known of a run before its answer begins.
    alone: Head,
    request_id: Arc<str>,
    settings: Arc<Settings>,
}

impl Answering {
    /// One JSON object.
    async fn whole(&self, mut outcome: Outcome) -> pb::ProcessingResponse {
        let body = async {
            let mut collected = Collected::default();
            while let Some(event) = outcome.events.next().await {
                collected.push(event?).map_err(internal)?;
            }
            let (completion, usage) = collected.finish().map_err(internal)?;
            let body = self.answer.completion(&completion, &usage).map_err(internal)?;
            self.within_bound(body.len())?;
            Ok(body)
        };
        match body.await {
            Ok(body) => self.immediate(JSON, &outcome.head, &body),
            Err(e) => reply::error(&e, Some(&outcome.head), &self.request_id),
        }
    }

    /// The finished text of a stream, in one piece.
    async fn streamed_whole(&mut self, mut outcome: Outcome) -> pb::ProcessingResponse {
        let mut body = BytesMut::new();
        let text = async {
            while let Some(event) = outcome.events.next().await {
                body.extend_from_slice(&self.answer.event(&event?).map_err(internal)?);
                self.within_bound(body.len())?;
            }
            Ok(())
        };
        match text.await {
            Ok(()) => self.immediate(EVENT_STREAM, &outcome.head, &body.freeze()),
            Err(e) => reply::error(&e, Some(&outcome.head), &self.request_id),
        }
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
                yield reply::stream_piece(&sse::HEARTBEAT, false);
            };
            let mut outcome = match outcome {
                Ok(outcome) => outcome,
                Err(failed) if is_committed => {
                    yield reply::stream_piece(&Answer::error(&failed.error), true);
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
            let mut sent = 0;
            while let Some(event) = outcome.events.next().await {
                let piece = event.and_then(|event| {
                    let piece = self.answer.event(&event).map_err(internal)?;
                    sent += piece.len();
                    self.within_bound(sent).map(|()| piece)
                });
                match piece {
                    Ok(piece) => yield reply::stream_piece(&piece, false),
                    Err(e) => {
                        yield reply::stream_piece(&Answer::error(&e), true);
                        return;
                    }
                }
            }
            // The end has its own piece: whatever came last, Envoy must hear of it.
            yield reply::stream_piece(&Bytes::new(), true);
        }
    }

    fn within_bound(&self, bytes: usize) -> Result<(), ApiError> {
        let max_bytes = self.settings.max_answer_bytes;
        if bytes <= max_bytes {
            return Ok(());
        }
        tracing::warn!(request_id = %self.request_id, max_bytes, "answer over limits.max_answer_bytes ended");
        Err(ApiError::from(&RunError::TooLarge { max_bytes }))
    }

    fn immediate(&self, content_type: &'static str, head: &Head, body: &Bytes) -> pb::ProcessingResponse {
        reply::immediate(
            200,
            reply::fields(content_type, Some(head), &self.request_id),
            body,
            ANSWERED.to_owned(),
        )
    }

    fn stream_head(&self, head: &Head) -> pb::ProcessingResponse {
        let mut fields = reply::fields(EVENT_STREAM, Some(head), &self.request_id);
        fields.push(("cache-control", "no-cache".to_owned()));
        reply::stream_head(fields)
    }
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
