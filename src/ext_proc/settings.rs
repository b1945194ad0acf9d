//! What an operator decides about this door.

use std::time::Duration;

use http::HeaderName;

use crate::limits::KeySource;
use crate::signing::Secrets;

/// What an operator decides about this door.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the request body is asked for.
    pub mode_override: ModeOverride,
    /// Larger bodies of an alias are refused with a 413.
    pub max_request_bytes: usize,
    /// When a streaming run has said nothing for this long, its status is committed.
    pub commit_after: Duration,
    /// The rhythm of SSE comments that hold off idle timers once the status is committed.
    pub heartbeat: Option<Duration>,
    /// What a buffered attachment's message timer is extended to at most, once, when a run begins. It must
    /// not exceed the filter's `max_message_timeout`: Envoy ignores a larger one.
    pub buffered_timeout: Duration,
    /// The request header that names the model that a redirected request goes to.
    pub model_header: Option<HeaderName>,
    /// What tells callers apart where their use is limited.
    pub caller_key: KeySource,
    /// Whether Envoy is to choose the route anew for a redirected request.
    pub clear_route_cache: bool,
    /// Whether callers find the aliases among the models.
    pub list_models: ListModels,
    /// How long tickets hold by which requests are handed to the plain door, where Envoy keeps bodies; none answers
    /// them here.
    pub ticket_ttl: Option<Duration>,
    /// What tickets are signed with, and what markers may be signed with.
    pub secrets: Secrets,
}

/// How the request body is asked for when Envoy's base mode does not send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeOverride {
    /// A response with nothing but the override, before the headers are answered (Envoy ≥ 1.40).
    Standalone,
    /// Not at all: the attachment itself must send bodies.
    Never,
}

/// What becomes of `GET /v1/models`, where the attachment shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListModels {
    /// It passes.
    Off,
    /// The aliases are added to the upstream's list.
    Add,
    /// The list of the aliases is the answer.
    Answer,
}
