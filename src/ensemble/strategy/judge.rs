//! A judge model writes the answer from the candidates.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tracing::warn;

use super::super::alias::{Judge, Params};
use super::super::candidate::{self, Candidate, Unusable};
use super::super::error::Cause;
use super::super::format::Format;
use super::super::panel::{addressed, forced, plain};
use super::super::prompt::Filling;
use super::super::run::Run;
use crate::chat::{Body, Completion, Event, Request, Usage};
use crate::telemetry::Ended;
use crate::upstream::{Call, DirectModel, Events, Failure};

/// An answer that has begun: its first words are here, or all of it is.
pub(in super::super) struct Begun {
    /// What came so far.
    pub(in super::super) first: Vec<Event>,
    /// What follows.
    pub(in super::super) rest: Events,
    /// What a provider that reports no usage is taken to have read.
    pub(in super::super) sent: usize,
    /// Whether it is the fallback's.
    pub(in super::super) by_fallback: bool,
}

/// Asks the judge, and its fallback when it failed before it had said anything.
pub(in super::super) async fn ask(
    run: &mut Run,
    judge: &Judge,
    candidates: &[Candidate],
) -> Result<Begun, Cause> {
    let prompt = judge.prompt.fill(&Filling {
        candidates,
        question: &if judge.prompt.shows_question() { run.request.last_user_text() } else { String::new() },
        seed: &run.context.request_id,
        nonce: rand::random(),
        max_candidate_bytes: judge.max_candidate_bytes,
    });
    let message = serde_json::json!({"role": "user", "content": prompt});
    let message = Bytes::from(message.to_string());
    let begun = begin(run, &judge.model, &message, &judge.params).await;
    match (begun, &judge.fallback) {
        (Err(_), Some(fallback)) => {
            let begun = begin(run, fallback, &message, &judge.params).await?;
            Ok(Begun { by_fallback: true, ..begun })
        }
        (begun, _) => begun,
    }
}

async fn begin(
    run: &mut Run,
    model: &Arc<DirectModel>,
    message: &Bytes,
    params: &Params,
) -> Result<Begun, Cause> {
    let edit = addressed(&run.request, &model.model_name).wrap("messages", Bytes::new(), message.clone());
    let body = forced(as_asked(edit, &run.request), params).body();
    answer(run, model, body).await
}

/// Asks a model that answers alone, without a prompt of ours.
pub(in super::super) async fn alone(run: &mut Run, model: &Arc<DirectModel>) -> Result<Begun, Cause> {
    let body = as_asked(addressed(&run.request, &model.model_name), &run.request).body();
    answer(run, model, body).await
}

/// Streaming exactly when the caller streams, and then with usage, which is ours to sum.
fn as_asked<'a>(edit: crate::chat::Edit<'a>, request: &Request) -> crate::chat::Edit<'a> {
    if request.stream {
        edit.set("stream_options", r#"{"include_usage":true}"#)
    } else {
        plain(edit, request)
    }
}

/// Makes the call and waits for its first words: until then another model may still stand in.
async fn answer(run: &mut Run, model: &Arc<DirectModel>, body: Body) -> Result<Begun, Cause> {
    let sent = body.len();
    run.account.judge_began(&model.name);
    let call = run.call(Call {
        model: Arc::clone(model),
        body,
        stream: run.request.stream,
        passed: Arc::clone(&run.context.passed),
    });
    let mut first = Vec::new();
    let mut usage = None;
    let mut said = 0;
    let failed = async {
        let mut events = call.await.map_err(Failed::Call)?;
        while let Some(event) = events.next().await {
            let event = event.map_err(Failed::Call)?;
            match &event {
                Event::Message(message) => {
                    // The rest of a whole answer is here already.
                    let mut whole = vec![event.clone()];
                    while let Some(event) = events.next().await {
                        whole.push(event.map_err(Failed::Call)?);
                    }
                    usage = whole.iter().find_map(reported);
                    said = message.message.get().len();
                    check(message, &run.format)?;
                    first.append(&mut whole);
                    return Ok(events);
                }
                Event::Delta(delta) => {
                    said += delta.json.len();
                    let speaks = delta.speaks;
                    if speaks && delta.refuses() {
                        return Err(Failed::Unusable(Unusable::Refusal.label()));
                    }
                    first.push(event);
                    if speaks {
                        return Ok(events);
                    }
                }
                Event::Finish(_) => first.push(event),
                Event::Usage(reported) => {
                    usage = Some(reported.clone());
                    first.push(event);
                }
            }
        }
        Err(Failed::Unusable("empty"))
    };
    match failed.await {
        Ok(rest) => Ok(Begun { first, rest, sent, by_fallback: false }),
        Err(failed) => {
            let (cause, label) = match &failed {
                Failed::Call(failure) => (Cause::of(failure), failure.label()),
                Failed::Unusable(label) => (Cause::Upstream, *label),
            };
            let why = match &failed {
                Failed::Call(failure) => failure.chain(),
                Failed::Unusable(label) => (*label).to_owned(),
            };
            let request_id = &*run.context.request_id;
            warn!(request_id, alias = %run.ensemble.name, model = %model.name, cause = %why, "judge failed");
            let answered = matches!(failed, Failed::Unusable(_));
            let estimate = answered.then(|| Usage::estimate(sent, said));
            run.account.judge_ended(&Ended { result: label, usage, estimate });
            Err(cause)
        }
    }
}

enum Failed {
    Call(Failure),
    Unusable(&'static str),
}

/// A judge's answer may be cut by the caller's own token limit; otherwise it must be one.
fn check(message: &Completion, format: &Format) -> Result<(), Failed> {
    match candidate::check(message, format) {
        Ok(()) | Err(Unusable::Cut) => Ok(()),
        Err(why) => Err(Failed::Unusable(why.label())),
    }
}

fn reported(event: &Event) -> Option<Usage> {
    match event {
        Event::Usage(usage) => Some(usage.clone()),
        _ => None,
    }
}
