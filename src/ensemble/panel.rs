//! The one fan-out: every strategy asks its panel here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tracing::debug;

use super::alias::{Member, OnQuorumFailure, Params};
use super::candidate::{self, Candidate};
use super::missed::{Missed, Panel};
use super::quorum::{Quorum, Verdict};
use super::run::Run;
use crate::chat::{Body, Collected, Completion, Edit, Request, Usage};
use crate::telemetry::Ended;
use crate::upstream::{Call, Events, Failure};

/// What providers must not get of a caller's request unless the operator says so: it is kept,
/// billed or meant for one model.
const NOT_SENT: [&str; 4] = ["store", "metadata", "prediction", "web_search_options"];

/// How long members are waited for that may confirm why the others failed.
const CONFIRMATION: Duration = Duration::from_secs(1);

/// What a call ended with, and what it cost.
pub(super) struct Heard {
    pub(super) result: Result<Completion, Failure>,
    pub(super) usage: Option<Usage>,
}

/// Asks every member at once, and waits for as many as the quorum and the grace want. Members that
/// are no longer wanted are cancelled by being dropped.
pub(super) async fn ask(run: &mut Run) -> Panel {
    let ensemble = Arc::clone(&run.ensemble);
    let mut running: FuturesUnordered<_> = ensemble
        .panel
        .iter()
        .enumerate()
        .map(|(index, member)| {
            let body = member_body(&run.request, member);
            let sent = body.len();
            let call = run.call(Call {
                model: Arc::clone(&member.model),
                body,
                stream: false,
                passed: Arc::clone(&run.context.passed),
            });
            async move { (index, sent, hear(call).await) }
        })
        .collect();
    let required = ensemble.panel.iter().filter(|m| m.required).count();
    let mut quorum = Quorum::new(ensemble.quorum, ensemble.panel.len(), required);
    let best_effort = matches!(ensemble.on_quorum_failure, OnQuorumFailure::BestEffort);
    let mut panel = Panel { candidates: Vec::new(), verdict: Verdict::Wait, missed: Vec::new() };
    let mut grace: Option<Instant> = None;
    while let Some((index, sent, heard)) = next(&mut running, grace).await {
        let member = ensemble.panel.get(index);
        let required = member.is_some_and(|m| m.required);
        let answered = heard.result.as_ref().ok().map(|c| c.message.get().len());
        let judged = match heard.result {
            Err(failure) => {
                let model = member.map(|m| &*m.model.name);
                debug!(request_id = %run.context.request_id, model, cause = %failure.chain(), "member failed");
                Err(Missed::Failed(failure))
            }
            Ok(completion) => match candidate::check(&completion, &run.format) {
                Err(why) => Err(Missed::Unusable(why)),
                Ok(()) => Ok(completion),
            },
        };
        run.account.member_ended(
            index,
            &Ended {
                result: judged.as_ref().map_or_else(Missed::label, |_| "usable"),
                usage: heard.usage,
                estimate: answered.map(|bytes| Usage::estimate(sent, bytes)),
            },
        );
        panel.verdict = quorum.observe(required, judged.is_ok());
        match judged {
            Ok(completion) => {
                let weight = member.map_or(1.0, |m| m.weight);
                panel.candidates.push(Candidate { member: index, weight, completion });
            }
            Err(missed) => panel.missed.push((index, missed)),
        }
        let enough = match panel.verdict {
            Verdict::Wait => false,
            Verdict::Reached => true,
            Verdict::Unreachable if best_effort => !panel.candidates.is_empty(),
            // What all members say alike is the caller's to know: the others are given a moment to say so.
            Verdict::Unreachable if panel.shared_cause().is_some() => {
                grace.get_or_insert_with(|| Instant::now() + CONFIRMATION);
                false
            }
            Verdict::Unreachable => break,
        };
        if enough && grace.is_none() {
            grace = ensemble.straggler_grace.map(|grace| Instant::now() + grace);
        }
    }
    panel.candidates.sort_by_key(|c| c.member);
    panel.missed.sort_by_key(|(member, _)| *member);
    panel
}

/// The next member that ends; none when all have, or the grace is over.
async fn next<F: Future>(running: &mut FuturesUnordered<F>, grace: Option<Instant>) -> Option<F::Output> {
    match grace {
        None => running.next().await,
        Some(until) => tokio::time::timeout_at(until, running.next()).await.ok().flatten(),
    }
}

/// Hears a call to its end.
pub(super) async fn hear(call: impl Future<Output = Result<Events, Failure>>) -> Heard {
    let mut collected = Collected::default();
    let mut usage = None;
    let result = async {
        let mut events = call.await?;
        while let Some(event) = events.next().await {
            let event = event?;
            if let crate::chat::Event::Usage(reported) = &event {
                usage = Some(reported.clone());
            }
            collected.push(event).map_err(|e| Failure::Unreadable(e.into()))?;
        }
        Ok(())
    }
    .await;
    let result = result.and_then(|()| {
        collected.finish().map_err(|e| Failure::Unreadable(e.into())).map(|(completion, _)| completion)
    });
    Heard { result, usage }
}

/// The caller's request as one member gets it: the caller's own bytes, shared, with the member's
/// patches between them.
pub fn member_body(request: &Request, member: &Member) -> Body {
    let mut edit = plain(addressed(request, &member.model.model_name), request);
    if let Some(system) = &member.system {
        let message = serde_json::json!({"role": "system", "content": system});
        edit = edit.wrap("messages", Bytes::from(message.to_string()), Bytes::new());
    }
    forced(edit, &member.params).body()
}

/// The caller's request for another model, without what providers must not get.
pub(super) fn addressed<'a>(request: &'a Request, model_name: &str) -> Edit<'a> {
    let model = serde_json::Value::from(model_name).to_string();
    NOT_SENT.into_iter().fold(request.edit().set("model", model), Edit::remove)
}

/// Without streaming, whatever the caller asked for.
pub(super) fn plain<'a>(edit: Edit<'a>, request: &Request) -> Edit<'a> {
    if request.stream { edit.set("stream", "false").remove("stream_options") } else { edit }
}

/// With the fields that the operator forces.
pub(super) fn forced<'a>(edit: Edit<'a>, params: &Params) -> Edit<'a> {
    params.iter().fold(edit, |edit, (name, json)| edit.set(name.clone(), json.clone()))
}
