//! What concerns the process as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CallerKey, MAX_MS, Store, Tls};

/// Bounds on what a request may cost this process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A larger request body of an alias is refused with a 413.
    #[schemars(range(min = 1))]
    pub max_request_bytes: usize,
    /// A larger response of a provider is a failed attempt.
    #[schemars(range(min = 1))]
    pub max_response_bytes: usize,
    /// A larger server-sent event of a provider, or a longer line of one, is a failed attempt.
    #[schemars(range(min = 1))]
    pub max_event_bytes: usize,
    /// A larger answer to a caller is ended with an error: Envoy holds what a slow caller does not
    /// take. Each piece of a stream counts with the 192 bytes of its envelope, so that the default is
    /// some 80,000 tokens where a judge sends them one by one.
    #[schemars(range(min = 1))]
    pub max_answer_bytes: usize,
    /// How many members a panel may have.
    #[schemars(range(min = 1, max = 256))]
    pub max_panel: usize,
    /// How many runs may be in flight at once; more are refused with a 503.
    #[schemars(range(min = 1))]
    pub max_inflight: usize,
    /// How late this process may be with its work, in ms, before new runs are refused with a 503: when for a second most
    /// of what was to be done had to wait for longer, there is more of it than the machine can do. 0 = however late.
    #[schemars(range(min = 0, max = 60_000))]
    pub max_lateness_ms: u64,
    /// How much of the bodies of aliases' requests may be held at once, in bytes: while they arrive, and while their
    /// runs last. A request that finds no room is refused with a 503. At least `max_request_bytes`.
    #[schemars(range(min = 1))]
    pub max_held_bytes: usize,
    /// What tells callers apart where their use of an alias is limited.
    pub caller_key: CallerKey,
    /// Where use is counted.
    pub store: Store,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: 32 * 1024 * 1024,
            max_response_bytes: 32 * 1024 * 1024,
            max_event_bytes: 8 * 1024 * 1024,
            max_answer_bytes: 16 * 1024 * 1024,
            max_panel: 16,
            max_inflight: 4096,
            max_lateness_ms: 50,
            max_held_bytes: 1024 * 1024 * 1024,
            caller_key: CallerKey::default(),
            store: Store::default(),
        }
    }
}

/// Answers to callers that asked for a stream.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// When nothing has been said for this long, the status 200 is sent and heartbeats begin, in
    /// ms.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub commit_after_ms: u64,
    /// The time between heartbeats (SSE comments), in ms; 0 = no heartbeats.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub heartbeat_ms: u64,
}

impl Default for Stream {
    fn default() -> Self {
        Self { commit_after_ms: 10_000, heartbeat_ms: 10_000 }
    }
}

/// The door that Envoy's external processing uses.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExtProc {
    /// How the request body is asked for when the filter's own mode does not send it.
    pub mode_override: ModeOverride,
    /// What a `BUFFERED` attachment's message timer is extended to at most when a run begins, in ms; a
    /// run that is bounded more tightly asks for less. It must not exceed the filter's
    /// `max_message_timeout`: Envoy ignores a larger one.
    #[schemars(range(min = 1, max = MAX_MS))]
    pub buffered_timeout_ms: u64,
    /// A request header that is set to the model that a request goes to by `otherwise`, for gateways
    /// that route by one. Default: none.
    #[schemars(length(min = 1))]
    pub model_header: Option<String>,
    /// Whether Envoy is to choose the route anew for a request that goes to `otherwise`; it does where
    /// the filter's `route_cache_action` is `DEFAULT`.
    pub clear_route_cache: bool,
    /// Whether callers find the aliases by `GET /v1/models`, where Envoy has a route that shows it.
    pub list_models: ListModels,
    /// Whether an ensemble's request is handed to the plain HTTP door where Envoy's mode is `BUFFERED`.
    pub handoff: HandOff,
    /// TLS between Envoy and this door. Without `client_ca`, whoever reaches it may ask.
    pub tls: Option<Tls>,
}

impl Default for ExtProc {
    fn default() -> Self {
        Self {
            mode_override: ModeOverride::default(),
            buffered_timeout_ms: 600_000,
            model_header: None,
            clear_route_cache: false,
            list_models: ListModels::default(),
            handoff: HandOff::default(),
            tls: None,
        }
    }
}

/// The hand-off: where Envoy's mode is `BUFFERED`, an ensemble's request is not answered but gets a signed ticket, by
/// which Envoy routes it to the plain HTTP door, which streams. The route is in `deploy/envoy/envoy-handoff.yaml`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HandOff {
    /// Whether requests are handed off. `listen.http` is needed then, and several replicas need the same `signing`.
    pub enabled: bool,
    /// How long a ticket holds, in ms: the way from this door to the other one, upload included. The clocks of
    /// replicas must not differ by more.
    #[schemars(range(min = 1, max = 60_000))]
    pub ticket_ttl_ms: u64,
}

impl Default for HandOff {
    fn default() -> Self {
        Self { enabled: false, ticket_ttl_ms: 10_000 }
    }
}

/// How the request body is asked for when the filter's own mode does not send it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModeOverride {
    /// By a response with nothing but the override (Envoy 1.40 or later).
    #[default]
    Standalone,
    /// Not at all: the filter itself must send bodies.
    Never,
}

/// What becomes of `GET /v1/models` and `/v1/models/{id}`, where Envoy has a route that shows them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListModels {
    /// They pass.
    #[default]
    Off,
    /// The aliases are added to the upstream's list, and described by their names.
    Add,
    /// The list of the aliases is the answer; only other names go on to the upstream.
    Answer,
}

/// Operators' listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The names of hosts, without a port, that it may be called by, beside `localhost`, loopback addresses and
    /// the host that it listens on: a page of another origin must not reach it through a browser. `/livez`,
    /// `/readyz` and `/metrics` answer to every name.
    pub hosts: Vec<String>,
}

/// How Consort ends when it is told to (SIGTERM).
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long requests are still taken after readiness and health have been withdrawn, in ms: until whoever sends
    /// them has seen that. 0 where nobody balances load.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub delay_ms: u64,
    /// How long what runs may then take, in ms. Default: the longest time that an ensemble of the file has by its
    /// `deadline_ms` or `timeout_ms`; 60 s for one without.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub timeout_ms: Option<u64>,
}

/// What Consort logs, to standard output.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// The least severe level that is logged.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// Text for people.
    Pretty,
}

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Failures of Consort itself.
    Error,
    /// What an operator should look at.
    Warn,
    /// One line for each run.
    #[default]
    Info,
    /// Why a member failed, too.
    Debug,
    /// Everything that there is to say.
    Trace,
}
