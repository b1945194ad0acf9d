//! A member's call: its request, and hearing its answer.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use super::alias::{Member, Params};
use super::begun::{Begun, Opening};
use super::missed::Missed;
use super::run::Run;
use crate::chat::{Body, Collected, Completion, Edit, Event, Request, Usage, quoted};
use crate::telemetry::Seat;
use crate::upstream::{DirectModel, Events, Failure};

/// What providers must not get of a caller's request unless the operator says so: it is kept,
/// billed or meant for one model.
const NOT_SENT: [&str; 4] = ["store", "metadata", "prediction", "web_search_options"];

/// What a call ended with, and what it cost.
pub(super) struct Heard {
    pub(super) result: Result<Completion, Missed>,
    pub(super) usage: Option<Usage>,
    /// The bytes of its answer, when it gave one.
    pub(super) said: Option<usize>,
}

/// What came of a member.
pub(super) enum Said {
    /// Its whole answer, or its failure.
    Whole(Box<Heard>),
    /// It has begun to speak, and its words go to the caller as they come.
    Live(Box<Begun>),
}

/// Begins a member's call. Where its words may go to the caller as they come, it is heard to the first ones;
/// otherwise to its end.
pub(super) fn begin(
    run: &mut Run,
    index: usize,
    member: &Member,
) -> BoxFuture<'static, (usize, usize, Said)> {
    let attempts = run.account.member_began(index, member.model.cost);
    let is_live = run.is_live();
    let body = body_of(&run.request, member, is_live);
    let sent = body.len();
    let call = run.call(&member.model, body, is_live, attempts);
    if is_live {
        let format = Arc::clone(&run.format);
        let seat = Seat::Member(index);
        let first_words = async move { Opening::new(seat, sent).hear(call, &format).await };
        first_words
            .map(move |heard| match heard {
                Ok(begun) => (index, sent, Said::Live(Box::new(begun))),
                Err(heard) => (index, sent, Said::Whole(Box::new(heard))),
            })
            .boxed()
    } else {
        hear(call).map(move |heard| (index, sent, Said::Whole(Box::new(heard)))).boxed()
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
            if let Event::Usage(reported) = &event {
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
    let said = result.as_ref().ok().map(|completion| completion.message.get().len());
    Heard { result: result.map_err(Missed::Failed), usage, said }
}

/// The caller's request as one member gets it: the caller's own bytes, shared, with the member's
/// patches between them.
pub fn member_body(request: &Request, member: &Member) -> Body {
    body_of(request, member, false)
}

fn body_of(request: &Request, member: &Member, is_live: bool) -> Body {
    let edit = addressed(request, &member.model.model_name);
    let mut edit = if is_live { streamed(edit) } else { plain(edit, request) };
    if let Some(system) = &member.system {
        let message = serde_json::json!({"role": "system", "content": system});
        edit = edit.wrap("messages", Bytes::from(message.to_string()), Bytes::new());
    }
    forced(edit, &member.model, &member.params).body()
}

/// The caller's request for another model, without what providers must not get.
pub(super) fn addressed<'a>(request: &'a Request, model_name: &str) -> Edit<'a> {
    NOT_SENT.into_iter().fold(request.edit().set("model", quoted(model_name)), Edit::remove)
}

/// Without streaming, whatever the caller asked for.
pub(super) fn plain<'a>(edit: Edit<'a>, request: &Request) -> Edit<'a> {
    if request.stream { edit.set("stream", "false").remove("stream_options") } else { edit }
}

/// A request that streams already, with usage, which is ours to sum.
pub(super) fn streamed(edit: Edit<'_>) -> Edit<'_> {
    edit.set("stream_options", r#"{"include_usage":true}"#)
}

/// As the operator has it: without what only an operator may say in the words of the model's wire format, by the
/// model's own rules, and then with the fields that the seat forces. These are called what the model calls them, too.
pub(super) fn forced<'a>(edit: Edit<'a>, model: &'a DirectModel, params: &Params) -> Edit<'a> {
    let rules = &model.rules;
    let own = model.provider.adapter.own_fields();
    let edit = own.iter().fold(edit, |edit, name| edit.remove(*name));
    params
        .iter()
        .fold(rules.apply(edit), |edit, (name, json)| edit.set(rules.name_of(name).to_owned(), json.clone()))
}
