//! A call whose answer goes to the caller: made, and heard to its first words. Until then another
//! model may still stand in.

use std::sync::Arc;

use futures_util::StreamExt;
use tracing::warn;

use super::candidate::{self, Unusable};
use super::error::Cause;
use super::format::Format;
use super::panel::{addressed, plain};
use super::run::Run;
use crate::chat::{Body, Completion, Edit, Event, Request, Usage};
use crate::telemetry::Ended;
use crate::upstream::{Call, DirectModel, Events, Failure};

/// An answer that has begun: its first words are here, or all of it is.
pub(super) struct Begun {
    /// What came so far.
    pub(super) first: Vec<Event>,
    /// What follows.
    pub(super) rest: Events,
    /// The bytes of the request.
    pub(super) sent: usize,
    /// Whether it is a fallback's.
    pub(super) by_fallback: bool,
}

/// Why a call gave nothing to begin with.
enum Mute {
    Failed(Failure),
    Unusable(Unusable),
}

/// What was heard before the first words.
#[derive(Default)]
struct Opening {
    first: Vec<Event>,
    said: usize,
    usage: Option<Usage>,
}

/// Asks a model that answers alone, with the caller's own request.
pub(super) async fn alone(run: &mut Run, model: &Arc<DirectModel>) -> Result<Begun, Cause> {
    let body = addressed_as_asked(&run.request, model).body();
    begin(run, model, body).await
}

/// The caller's request for this model: streaming exactly when the caller streams, and then with
/// usage, which is ours to sum.
pub(super) fn addressed_as_asked<'a>(request: &'a Request, model: &DirectModel) -> Edit<'a> {
    let edit = addressed(request, &model.model_name);
    if request.stream {
        edit.set("stream_options", r#"{"include_usage":true}"#)
    } else {
        plain(edit, request)
    }
}

/// Makes the call and waits for its first words.
pub(super) async fn begin(run: &mut Run, model: &Arc<DirectModel>, body: Body) -> Result<Begun, Cause> {
    let sent = body.len();
    run.account.judge_began(&model.name);
    let call = run.call(Call {
        model: Arc::clone(model),
        body,
        stream: run.request.stream,
        passed: Arc::clone(&run.context.passed),
    });
    let mut opening = Opening::default();
    let mute = match opening.first_words(call, &run.format).await {
        Ok(rest) => return Ok(Begun { first: opening.first, rest, sent, by_fallback: false }),
        Err(mute) => mute,
    };
    let (cause, result, why, estimate) = match &mute {
        Mute::Failed(failure) => (Cause::of(failure), failure.label(), failure.chain(), None),
        Mute::Unusable(why) => {
            let estimate = Some(Usage::estimate(sent, opening.said));
            (Cause::Upstream, why.label(), why.label().to_owned(), estimate)
        }
    };
    let request_id = &*run.context.request_id;
    warn!(request_id, alias = %run.ensemble.name, model = %model.name, cause = %why, "answering model failed");
    run.account.judge_ended(&Ended { result, usage: opening.usage, estimate });
    Err(cause)
}

impl Opening {
    /// Listens until the answer speaks; what follows.
    async fn first_words(
        &mut self,
        call: impl Future<Output = Result<Events, Failure>>,
        format: &Format,
    ) -> Result<Events, Mute> {
        let mut events = call.await.map_err(Mute::Failed)?;
        let mut whole = None;
        while let Some(event) = events.next().await {
            let event = event.map_err(Mute::Failed)?;
            let mut speaks = false;
            match &event {
                // The rest of a whole answer is here already: its end decides whether it counts.
                Event::Message(message) => {
                    self.said = message.message.get().len();
                    whole = Some(message.clone());
                }
                Event::Delta(delta) => {
                    self.said += delta.json.len();
                    if delta.refuses() {
                        return Err(Mute::Unusable(Unusable::Refusal));
                    }
                    speaks = delta.speaks;
                }
                Event::Usage(usage) => self.usage = Some(usage.clone()),
                Event::Finish(_) => {}
            }
            self.first.push(event);
            if speaks {
                return Ok(events);
            }
        }
        let whole = whole.ok_or(Mute::Unusable(Unusable::Empty))?;
        check(&whole, format).map_err(Mute::Unusable)?;
        Ok(events)
    }
}

/// An answer may be cut by the caller's own token limit; otherwise it must be one.
fn check(message: &Completion, format: &Format) -> Result<(), Unusable> {
    match candidate::check(message, format) {
        Err(Unusable::Cut) => Ok(()),
        checked => checked,
    }
}
