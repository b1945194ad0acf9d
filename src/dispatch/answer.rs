//! An alias's request becomes replies: the run, driven to what its caller is told.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, interval_at};

use super::reply::{EVENT_STREAM, JSON, Reply, Summary, Whole, fields};
use super::route::{Delivery, Given, Taken};
use crate::chat::{Answer, ApiError, Collected, Event, Usage, sse};
use crate::ensemble::{Failed, Head, Outcome, RunError, Runner};

/// How long before the door's own bound a run is ended, so that it is we who tell the caller.
const MARGIN: Duration = Duration::from_secs(1);

/// When a stream speaks although there is nothing to say.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    /// When a streaming run has said nothing for this long, its status is committed.
    pub commit_after: Duration,
    /// The rhythm of SSE comments that hold off idle timers once the status is committed.
    pub heartbeat: Option<Duration>,
}

/// Answers what an ensemble has taken. The replies end with the terminal one; dropping them cancels the run. So does
/// the end of a drain, of which the caller is told.
pub fn replies(taken: Taken, runner: Runner, pacing: Pacing) -> impl Stream<Item = Reply> + Send {
    stream! {
        let (ensemble, request_id) = (Arc::clone(&taken.ensemble), Arc::clone(&taken.context.request_id));
        let mut cut = pin!(runner.is_cut());
        let mut is_committed = false;
        {
            let mut replies = pin!(to_the_end(taken, runner, pacing));
            loop {
                tokio::select! {
                    biased;
                    () = &mut cut => break,
                    reply = replies.next() => match reply {
                        Some(reply) => {
                            is_committed |= matches!(reply, Reply::Head(_));
                            yield reply;
                        }
                        None => return,
                    },
                }
            }
        }
        let head = Head::of(&ensemble);
        let error = ApiError::new(503, "draining", "the service is ending; send the request again")
            .retry_after(Some(1));
        yield if is_committed {
            broken_off(&error, head)
        } else {
            Reply::Whole(Box::new(Whole::error(&error, Some(&head), &request_id)))
        };
    }
}

fn to_the_end(taken: Taken, runner: Runner, pacing: Pacing) -> impl Stream<Item = Reply> + Send {
    stream! {
        let Taken { ensemble, context, request, delivery } = taken;
        let request_id = Arc::clone(&context.request_id);
        let admitted = match runner.admit(Arc::clone(&ensemble), context).await {
            Ok(admitted) => admitted,
            Err(failed) => {
                yield refused(&failed, &request_id);
                return;
            }
        };
        let request = match request {
            Given::Unread(body) => ensemble.read(body).map_err(RunError::from),
            Given::Read(request) => Ok(request),
            Given::Refused(error) => Err(error),
        };
        let request = match request {
            Ok(request) => request,
            Err(e) => {
                yield refused(&admitted.refuse(e), &request_id);
                return;
            }
        };
        let answer = Answer::new(&ensemble.name, request.include_usage);
        let mut answering = Answering { answer, alone: admitted.head().clone(), request_id, pacing };
        let streams = request.stream;
        match delivery {
            Delivery::Live if streams => {
                for await reply in answering.streamed(admitted.run(request, None)) {
                    yield reply;
                }
            }
            Delivery::Live => yield answering.answered(admitted.run(request, None).await, streams).await,
            Delivery::Whole { within } => {
                let longest = ensemble.longest_run().map_or(Duration::MAX, |run| run.saturating_add(MARGIN));
                let timer = within.min(longest);
                let limit = timer.saturating_sub(MARGIN).max(timer / 2);
                yield Reply::Waiting(timer);
                yield answering.answered(admitted.run(request, Some(limit)).await, streams).await;
            }
        }
    }
}

fn refused(failed: &Failed, request_id: &str) -> Reply {
    Reply::Whole(Box::new(Whole::error(&failed.error, Some(&failed.head), request_id)))
}

type Events = BoxStream<'static, Result<Event, ApiError>>;

/// What is the same in every reply of one answer.
struct Answering {
    answer: Answer,
    /// What is known of a run before its answer begins.
    alone: Head,
    request_id: Arc<str>,
    pacing: Pacing,
}

impl Answering {
    /// The answer in one piece: a JSON object, or the finished text of a stream.
    async fn answered(&mut self, run: Result<Outcome, Failed>, streams: bool) -> Reply {
        let Outcome { head, events } = match run {
            Ok(outcome) => outcome,
            Err(failed) => return refused(&failed, &self.request_id),
        };
        let written = if streams { self.stream_text(events).await } else { self.object(events).await };
        Reply::Whole(Box::new(match written {
            Ok((body, usage)) => Whole {
                status: 200,
                fields: fields(if streams { EVENT_STREAM } else { JSON }, Some(&head), &self.request_id),
                body,
                label: "answered",
                summary: Some(Summary { head: Box::new(head), usage: Some(usage), code: None }),
            },
            Err(e) => Whole::error(&e, Some(&head), &self.request_id),
        }))
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
    fn streamed(mut self, run: impl Future<Output = Result<Outcome, Failed>>) -> impl Stream<Item = Reply> {
        stream! {
            let mut run = pin!(run);
            let Pacing { commit_after, heartbeat } = self.pacing;
            let mut is_committed = false;
            let mut commit = pin!(tokio::time::sleep(commit_after));
            let mut heartbeat = heartbeat.map(|every| interval_at(Instant::now() + commit_after + every, every));
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
                yield Reply::Piece(sse::HEARTBEAT);
            };
            let mut outcome = match outcome {
                Ok(outcome) => outcome,
                Err(failed) if is_committed => {
                    yield broken_off(&failed.error, *failed.head);
                    return;
                }
                Err(failed) => {
                    yield refused(&failed, &self.request_id);
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
                            yield Reply::Piece(piece);
                        }
                    }
                    Err(e) => {
                        yield broken_off(&e, outcome.head);
                        return;
                    }
                }
            }
            // The end has its own piece: whatever came last, the door must hear of it.
            yield Reply::End(Bytes::new(), Summary { head: Box::new(outcome.head), usage, code: None });
        }
    }

    fn stream_head(&self, head: &Head) -> Reply {
        let mut fields = fields(EVENT_STREAM, Some(head), &self.request_id);
        fields.push(("cache-control", "no-cache".to_owned()));
        Reply::Head(fields)
    }
}

/// The last piece of a stream that cannot be finished.
fn broken_off(error: &ApiError, head: Head) -> Reply {
    let summary = Summary { head: Box::new(head), usage: None, code: Some(error.label) };
    Reply::End(Answer::error(error), summary)
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
