//! The gRPC service that Envoy's filter calls: one stream per HTTP request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use async_stream::stream;
use futures_util::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{error, info, warn};

use super::exchange::{Exchange, Notice, Step};
use super::joined::joined;
use super::listing::Listing;
use super::marked::{Marked, marked};
use super::route::{Route, route};
use super::server::ExternalProcessor;
use super::{Settings, pb, reply};
use crate::chat::ApiError;
use crate::dispatch::{self, Models, Pacing, Reply, Taken, Whole, too_large};
use crate::ensemble::{Runner, Snapshot};
use crate::limits::Room;
use crate::signing::Spent;
use crate::telemetry::Seldom;
use crate::telemetry::metrics::{self, Counter};

/// The external processor.
#[derive(Clone)]
pub struct Service {
    current: Arc<ArcSwap<Setup>>,
    told: Arc<Told>,
    passed_through: Counter,
    models: Models,
}

/// What one configuration means for this door. A request keeps the one that it began with.
#[derive(Clone)]
pub struct Setup {
    /// The aliases.
    pub snapshot: Arc<Snapshot>,
    /// Runs them.
    pub runner: Runner,
    /// What the operator decided about the door.
    pub settings: Arc<Settings>,
    /// What was taken of what is to be taken once.
    pub spent: Spent,
    /// Where bodies are held.
    pub room: Room,
}

/// A request that has begun.
struct Begun {
    setup: Arc<Setup>,
    told: Arc<Told>,
    passed_through: Counter,
    models: Models,
}

/// What an operator has been told already: once is enough for what every request would repeat.
#[derive(Debug, Default)]
struct Told {
    no_body: AtomicBool,
    unsupported_mode: AtomicBool,
    /// Whether a body has ever come after an override.
    override_works: AtomicBool,
    overrides_in_vain: AtomicU64,
    in_vain_told: Seldom,
}

type Replies = Pin<Box<dyn Stream<Item = Result<pb::ProcessingResponse, Status>> + Send>>;

impl Service {
    /// A processor by what is `current` when a request begins.
    pub fn new(current: Arc<ArcSwap<Setup>>) -> Self {
        Self {
            current,
            told: Arc::default(),
            passed_through: metrics::passed_through(),
            models: Models::from_now(),
        }
    }
}

impl Begun {
    /// Everything happens inside the stream that tonic polls: when Envoy drops it, all of it stops.
    fn converse(
        self,
        mut inbound: Streaming<pb::ProcessingRequest>,
    ) -> impl Stream<Item = Result<pb::ProcessingResponse, Status>> {
        stream! {
            let mut conversation = self.conversation();
            let exchange = &mut conversation.exchange;
            let mut listing = self.listing();
            let taken = 'taken: loop {
                let message = match inbound.message().await {
                    Ok(Some(message)) => message,
                    // Ending in good order would tell Envoy that the request has no body and may go on.
                    Ok(None) => {
                        yield Err(Status::cancelled("ended before its request"));
                        return;
                    }
                    Err(status) => {
                        yield self.broken(exchange, status);
                        return;
                    }
                };
                let mut step = Some(listing.receive(&message).unwrap_or_else(|| exchange.receive(message)));
                if let Some(notice) = exchange.take_notice() {
                    self.told.notice(notice);
                }
                while let Some(now) = step.take() {
                    match now {
                        Step::Send(replies) => {
                            for reply in replies {
                                yield Ok(reply);
                            }
                        }
                        Step::Finish(replies) => {
                            self.passed_through.increment(1);
                            for reply in replies {
                                yield Ok(reply);
                            }
                            return;
                        }
                        Step::Refuse(error) => {
                            yield Ok(refuse(&error, exchange));
                            return;
                        }
                        Step::Tell(whole) => {
                            yield Ok(reply::spelled(Reply::Whole(whole)));
                            return;
                        }
                        Step::Answer(asked) => match marked(&asked.head, &asked.body, &self.setup) {
                            Marked::Ours => step = Some(exchange.pass(asked.body)),
                            Marked::Looping(error) => step = Some(Step::Refuse(error)),
                            Marked::No => match route(*asked, &self.setup.settings) {
                                Route::Run(taken) => break 'taken taken,
                                Route::HandOff(ticket) => {
                                    yield Ok(reply::handed_off(ticket));
                                    return;
                                }
                                Route::Otherwise(detour) => step = Some(exchange.redirect(&detour)),
                            },
                        },
                        Step::Break(violation) => {
                            warn!(%violation, "protocol violation by Envoy");
                            yield Err(Status::failed_precondition(violation.to_string()));
                            return;
                        }
                    }
                }
            };
            // On its own heap: most streams pass through and never need the room that a run takes.
            let mut replies = Box::pin(self.answer(*taken));
            loop {
                tokio::select! {
                    biased;
                    why = gone(&mut inbound) => {
                        yield Err(why);
                        return;
                    }
                    reply = replies.next() => match reply {
                        Some(reply) => yield Ok(reply),
                        None => return,
                    },
                }
            }
        }
    }

    fn answer(&self, taken: Taken) -> impl Stream<Item = pb::ProcessingResponse> + use<> {
        let Settings { commit_after, heartbeat, .. } = *self.setup.settings;
        let pacing = Pacing { commit_after, heartbeat };
        joined(dispatch::replies(taken, self.setup.runner.clone(), pacing)).map(reply::spelled)
    }

    fn conversation(&self) -> Conversation {
        let Settings { mode_override, max_request_bytes, .. } = *self.setup.settings;
        let (snapshot, share) = (Arc::clone(&self.setup.snapshot), self.setup.room.share());
        let exchange = Exchange::new(snapshot, mode_override, max_request_bytes, share);
        Conversation { exchange, told: Arc::clone(&self.told) }
    }

    fn listing(&self) -> Listing {
        Listing::new(Arc::clone(&self.setup.snapshot), self.setup.settings.list_models, self.models)
    }

    /// The stream has ended with an error; what Envoy can still be told.
    fn broken(&self, exchange: &Exchange, status: Status) -> Result<pb::ProcessingResponse, Status> {
        if status.code() != Code::OutOfRange {
            return Err(status);
        }
        // More than tonic decodes. Ending here would let a fail-open filter pass it on unseen.
        warn!(%status, "message from Envoy over the limit");
        Ok(refuse(&too_large(self.setup.settings.max_request_bytes), exchange))
    }
}

/// One stream's exchange. Its end is noticed by its drop, since Envoy resets a stream as often as it
/// ends one.
struct Conversation {
    exchange: Exchange,
    told: Arc<Told>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if self.exchange.awaits_override() {
            self.told.no_body_came();
        } else if self.exchange.was_overridden() {
            self.told.override_works.store(true, Ordering::Relaxed);
        }
    }
}

impl Told {
    fn notice(&self, notice: Notice) {
        let (told, what, remedy) = match notice {
            Notice::NoBody => (
                &self.no_body,
                "Envoy shows no request bodies, so no alias can be recognised",
                "set ext_proc.mode_override to standalone (Envoy 1.40 or newer), or the filter's request_body_mode \
                 to BUFFERED or FULL_DUPLEX_STREAMED",
            ),
            Notice::UnsupportedMode => (
                &self.unsupported_mode,
                "Envoy's request_body_mode is none that Consort can answer from; aliases pass through",
                "set the filter's request_body_mode to NONE, BUFFERED or FULL_DUPLEX_STREAMED",
            ),
        };
        if !told.swap(true, Ordering::Relaxed) {
            error!(remedy, "{what}");
        }
    }

    /// Envoy refuses the override, or a caller has left before its first byte: the stream ends alike.
    /// An error until a body has come after an override.
    fn no_body_came(&self) {
        let requests = self.overrides_in_vain.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.in_vain_told.is_due() {
            return;
        }
        if self.override_works.load(Ordering::Relaxed) {
            warn!(requests, remedy = REMEDY, "{IN_VAIN}");
        } else {
            error!(requests, remedy = REMEDY, "{IN_VAIN}");
        }
    }
}

const IN_VAIN: &str = "no body came after the mode override: Envoy refused it, and requests pass unseen or fail, or \
                       callers left at once";
const REMEDY: &str = "use Envoy 1.40 or newer with allow_mode_override: true and, in allowed_override_modes, \
                      {request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND, \
                      response_header_mode: SKIP, response_body_mode: NONE, response_trailer_mode: SKIP}; \
                      or set request_body_mode to BUFFERED";

/// Answers a request that never became a run.
fn refuse(error: &ApiError, exchange: &Exchange) -> pb::ProcessingResponse {
    let request_id = exchange.request_id();
    info!(%request_id, code = error.label, "request refused");
    reply::spelled(Reply::Whole(Box::new(Whole::error(error, None, &request_id))))
}

/// The caller has left, or Envoy has. What else Envoy says while a request is being answered is of
/// no consequence.
async fn gone(inbound: &mut Streaming<pb::ProcessingRequest>) -> Status {
    loop {
        match inbound.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::cancelled("ended before its answer"),
            Err(status) => return status,
        }
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Service {
    type ProcessStream = Replies;

    async fn process(
        &self,
        request: Request<Streaming<pb::ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let begun = Begun {
            setup: self.current.load_full(),
            told: Arc::clone(&self.told),
            passed_through: self.passed_through.clone(),
            models: self.models,
        };
        Ok(Response::new(Box::pin(begun.converse(request.into_inner()))))
    }
}
