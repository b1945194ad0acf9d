//! A call whose answer goes to the caller: made, and heard to its first words. Until then another
//! model may still stand in.

use std::sync::Arc;

use futures_util::StreamExt;
use tracing::warn;

use super::alias::Params;
use super::candidate::{self, Unusable};
use super::error::Cause;
use super::format::Format;
use super::member::{Heard, addressed, forced, plain, streamed};
use super::missed::Missed;
use super::run::Run;
use crate::chat::{Body, Completion, Edit, Event, Request, Thinking, Usage};
use crate::telemetry::{Ended, Part, Seat};
use crate::upstream::{DirectModel, Events, Failure};

/// An answer that has begun: its first words are here, or all of it is.
pub(super) struct Begun {
    /// Whose call it is.
    pub(super) seat: Seat,
    /// What came so far.
    pub(super) first: Vec<Event>,
    /// What follows.
    pub(super) rest: Events,
    /// The bytes of the request.
    pub(super) sent: usize,
    /// Whether it is a fallback's.
    pub(super) by_fallback: bool,
}

/// Asks a model that answers alone, with the caller's own request.
pub(super) async fn alone(run: &mut Run, model: &Arc<DirectModel>) -> Result<Begun, Cause> {
    let body = forced(addressed_as_asked(&run.request, model), model, &Params::new()).body();
    begin(run, model, Part::Fallback, body).await
}

/// The caller's request for this model: streaming exactly when the caller streams, and then with
/// usage, which is ours to sum.
pub(super) fn addressed_as_asked<'a>(request: &'a Request, model: &DirectModel) -> Edit<'a> {
    let edit = addressed(request, &model.model_name);
    if request.stream { streamed(edit) } else { plain(edit, request) }
}

/// Makes the call and waits for its first words.
pub(super) async fn begin(
    run: &mut Run,
    model: &Arc<DirectModel>,
    part: Part,
    body: Body,
) -> Result<Begun, Cause> {
    let sent = body.len();
    let (seat, attempts) = run.account.judge_began(&model.name, part, model.cost);
    let call = run.call(model, body, run.request.stream, attempts);
    let heard = match Opening::new(seat, sent).hear(call, &run.format).await {
        Ok(begun) => return Ok(begun),
        Err(heard) => heard,
    };
    let missed = heard.result.err().unwrap_or(Missed::Unusable(Unusable::Empty));
    let (request_id, why) = (&*run.context.request_id, missed.chain());
    warn!(request_id, alias = %run.ensemble.name, model = %model.name, cause = %why, "answering model failed");
    let estimate = heard.said.map(|said| Usage::estimate(sent, said));
    run.account.ended(seat, &Ended { result: missed.label(), usage: heard.usage, estimate });
    Err(missed.seen())
}

/// What is heard before the first words.
pub(super) struct Opening {
    seat: Seat,
    sent: usize,
    first: Vec<Event>,
    said: usize,
    usage: Option<Usage>,
    thinking: Thinking,
}

impl Opening {
    /// Before anything was heard of a call whose request has so many bytes.
    pub(super) fn new(seat: Seat, sent: usize) -> Self {
        Self { seat, sent, first: Vec::new(), said: 0, usage: None, thinking: Thinking::default() }
    }

    /// Listens until the answer speaks.
    ///
    /// # Errors
    /// What was heard instead.
    pub(super) async fn hear(
        mut self,
        call: impl Future<Output = Result<Events, Failure>>,
        format: &Format,
    ) -> Result<Begun, Heard> {
        match self.first_words(call, format).await {
            Ok(rest) => {
                let Self { seat, sent, first, .. } = self;
                Ok(Begun { seat, first, rest, sent, by_fallback: false })
            }
            Err(missed) => {
                let said = matches!(missed, Missed::Unusable(_)).then_some(self.said);
                Err(Heard { result: Err(missed), usage: self.usage, said })
            }
        }
    }

    /// Listens until the answer speaks; what follows.
    async fn first_words(
        &mut self,
        call: impl Future<Output = Result<Events, Failure>>,
        format: &Format,
    ) -> Result<Events, Missed> {
        let mut events = call.await.map_err(Missed::Failed)?;
        let mut whole = None;
        while let Some(event) = events.next().await {
            let event = event.map_err(Missed::Failed)?;
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
                        return Err(Missed::Unusable(Unusable::Refusal));
                    }
                    // Who answers first is who says something first: members may think as long as they like.
                    speaks = delta.speaks
                        && (matches!(self.seat, Seat::Judge(_)) || delta.answers(&mut self.thinking));
                }
                Event::Usage(usage) => self.usage = Some(usage.clone()),
                Event::Finish(_) | Event::Decision(_) => {}
            }
            self.first.push(event);
            if speaks {
                return Ok(events);
            }
        }
        let whole = whole.ok_or(Missed::Unusable(Unusable::Empty))?;
        check(&whole, format).map_err(Missed::Unusable)?;
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
