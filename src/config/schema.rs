//! The configuration as it is written.
//!
//! These types say what a file may contain, and with which defaults; they may hold a wrong
//! configuration, which the next stage refuses. Their documentation becomes the descriptions of the
//! JSON Schema, which editors show, so it is written for operators.
//!
//! Every type reads an incomplete mapping, since what is wrong has been reported and cut out
//! before: a missing name must not hide the mistakes beside it. What is required stands in
//! `required`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::json_schema::{direct_or_ensemble, without_ours};
use super::secret::Secret;

/// A day: longer is more likely a slip in the unit than a wish.
const MAX_MS: u64 = 86_400_000;

/// Configuration of Consort.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Consort")]
pub struct File {
    /// Where Consort listens.
    pub listen: Listen,
    /// Where direct models live.
    pub providers: Vec<Provider>,
    /// The aliases: direct models, and ensembles of them.
    pub models: Vec<Model>,
    /// Bounds on what a request may cost this process.
    pub limits: Limits,
    /// Answers to callers that asked for a stream.
    pub stream: Stream,
    /// The door that Envoy's external processing uses.
    pub ext_proc: ExtProc,
    /// What Consort logs, to standard output.
    pub log: Log,
}

/// Where Consort listens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Envoy's external processing (gRPC): `host:port`, or `unix:/path`.
    #[schemars(length(min = 1))]
    pub ext_proc: String,
}

impl Default for Listen {
    fn default() -> Self {
        Self { ext_proc: "127.0.0.1:50051".to_owned() }
    }
}

/// Where direct models live: an endpoint, its wire format and the credentials for it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "base_url"]))]
pub struct Provider {
    /// What models call it by; unique.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The wire format that it speaks.
    pub adapter: Adapter,
    /// Scheme, authority and path prefix, like `https://api.openai.com/v1`.
    #[schemars(length(min = 1))]
    pub base_url: String,
    /// The key sent as `authorization: Bearer …`, best taken from the environment as `${VAR}`; the
    /// word `passthrough` sends the caller's own `authorization` on. Without this and
    /// `api_key_file`, calls are not authenticated.
    pub api_key: Option<Secret>,
    /// A file that holds the key, like a mounted secret; a newline at its end is ignored.
    #[schemars(length(min = 1))]
    pub api_key_file: Option<String>,
    /// A PEM file of certificate authorities to trust beside the public ones.
    #[schemars(length(min = 1))]
    pub ca_file: Option<String>,
    /// Bound on TCP connect and TLS handshake together, in ms.
    #[schemars(range(min = 1, max = MAX_MS))]
    pub connect_timeout_ms: u64,
    /// Bound on the wait for response headers, in ms; 0 = none.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub first_byte_timeout_ms: u64,
    /// Bound on the wait for each further piece of a body, in ms; 0 = none.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub idle_timeout_ms: u64,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            name: String::new(),
            adapter: Adapter::default(),
            base_url: String::new(),
            api_key: None,
            api_key_file: None,
            ca_file: None,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 0,
            idle_timeout_ms: 120_000,
        }
    }
}

/// The wire format of a provider.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Adapter {
    /// OpenAI chat completions and everything compatible.
    #[default]
    #[serde(rename = "openai")]
    OpenAi,
}

/// An alias: a direct model (`provider`, `model_name`), or an ensemble of direct models.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["display_name"]), transform = direct_or_ensemble)]
pub struct Model {
    /// The model name that a caller sends; unique.
    #[schemars(length(min = 1))]
    pub display_name: String,
    /// Direct model: the name of the provider where it lives.
    #[schemars(length(min = 1))]
    pub provider: Option<String>,
    /// Direct model: the provider's name for it.
    #[schemars(length(min = 1))]
    pub model_name: Option<String>,
    /// Direct model: bound on one attempt, streaming included, in ms; 0 = none.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub timeout: u64,
    /// Makes the alias an ensemble.
    pub ensemble: Option<Ensemble>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            display_name: String::new(),
            provider: None,
            model_name: None,
            timeout: 600_000,
            ensemble: None,
        }
    }
}

/// A panel of direct models, and the judge that makes one answer of theirs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["panel", "judge"]))]
pub struct Ensemble {
    /// The direct models asked, at most `limits.max_panel`; one may appear more than once.
    #[schemars(length(min = 1))]
    pub panel: Vec<Member>,
    /// The model that writes the answer from the candidates.
    pub judge: Judge,
    /// How many usable candidates are needed, at most as many as the panel has members. Default: 2,
    /// or 1 for a panel of one.
    #[schemars(range(min = 1))]
    pub min_responses: Option<usize>,
    /// Bound on each panel call and on the judge call, streaming included, in ms; 0 = none, the
    /// default.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub timeout_ms: u64,
    /// Bound on the whole run, of which each stage gets what is left, in ms; 0 = none, the default.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub deadline_ms: u64,
    /// How much longer to wait for the rest of the panel once there are `min_responses`, in ms; 0 =
    /// not at all. Default: until all have ended.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub straggler_grace_ms: Option<u64>,
    /// What happens with fewer than `min_responses` candidates.
    pub on_quorum_failure: OnQuorumFailure,
    /// What happens when the judge and its fallback failed.
    pub on_judge_failure: OnJudgeFailure,
    /// What happens with a single candidate.
    pub single_candidate: SingleCandidate,
}

/// One place in a panel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["model"]))]
pub struct Member {
    /// The direct model asked.
    #[schemars(length(min = 1))]
    pub model: String,
    /// Its weight where candidates are compared.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub weight: f64,
    /// The temperature that it is asked with, instead of the caller's.
    #[schemars(with = "Option<f64>", range(min = 0))]
    pub temperature: Option<Number>,
    /// The seed that it is asked with, instead of the caller's.
    #[schemars(with = "Option<i64>")]
    pub seed: Option<Number>,
    /// Request fields that it is asked with, instead of the caller's.
    pub params: Params,
    /// Text put before the conversation as a system message.
    pub system: Option<String>,
    /// Whether a run fails without this member, whatever `min_responses` says.
    pub required: bool,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            model: String::new(),
            weight: 1.0,
            temperature: None,
            seed: None,
            params: Params::default(),
            system: None,
            required: false,
        }
    }
}

/// The model that writes the answer from the candidates.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["model"]))]
pub struct Judge {
    /// The direct model asked.
    #[schemars(length(min = 1))]
    pub model: String,
    /// The text that presents the candidates, with `{{candidates}}` once, and `{{question}}` and
    /// `{{count}}` as wished. Default: Consort's own.
    pub prompt: Option<String>,
    /// Request fields that it is asked with, instead of the caller's.
    pub params: Params,
    /// Another direct model, asked when the first one failed before it had said anything.
    #[schemars(length(min = 1))]
    pub fallback: Option<String>,
    /// How much of each candidate the judge is shown, in bytes.
    #[schemars(range(min = 1))]
    pub max_candidate_bytes: usize,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            model: String::new(),
            prompt: None,
            params: Params::default(),
            fallback: None,
            max_candidate_bytes: 32 * 1024,
        }
    }
}

/// Request fields and their values.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transform = without_ours)]
pub struct Params(pub Map<String, Value>);

/// What happens with too few candidates.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnQuorumFailure {
    /// The caller gets an error.
    #[default]
    Fail,
    /// One candidate will do.
    BestEffort,
    /// This direct model answers alone.
    Fallback(#[schemars(length(min = 1))] String),
}

/// What happens when the judge and its fallback failed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnJudgeFailure {
    /// The best candidate is the answer, marked as degraded.
    #[default]
    Best,
    /// The caller gets an error.
    Fail,
}

/// What happens with a single candidate.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SingleCandidate {
    /// It is the answer.
    #[default]
    Return,
    /// The judge still writes one from it.
    Judge,
}

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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: 32 * 1024 * 1024,
            max_response_bytes: 32 * 1024 * 1024,
            max_answer_bytes: 16 * 1024 * 1024,
            max_panel: 16,
            max_inflight: 4096,
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
}

impl Default for ExtProc {
    fn default() -> Self {
        Self { mode_override: ModeOverride::default(), buffered_timeout_ms: 600_000 }
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
