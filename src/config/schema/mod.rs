//! The configuration as it is written.
//!
//! These types say what a file may contain, and with which defaults; they may hold a wrong
//! configuration, which the next stage refuses. Their documentation becomes the descriptions of the
//! JSON Schema, which editors show, so it is written for operators.
//!
//! Every type reads an incomplete mapping, since what is wrong has been reported and cut out
//! before: a missing name must not hide the mistakes beside it. What is required stands in
//! `required`.

mod answer;
mod decisions;
mod ensemble;
mod health;
mod http;
mod judge;
mod limits;
mod model;
mod overrides;
mod panel;
mod process;
mod provider;
mod signing;
mod strategy;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use answer::{Answer, AnswerKind, AnswerSpec, AnswerWord};
pub use decisions::{DecisionFile, Decisions};
pub use ensemble::{
    Cascade, Ensemble, Execution, OnJudgeFailure, OnQuorumFailure, Reasoning, SingleCandidate, Trace,
};
pub use health::{BackgroundCheck, Cooldown};
pub use http::{ApiKey, Http, NamedKey, Tls};
pub use judge::{Judge, Prompt, Prompts};
pub use limits::{Budget, CallerKey, OnError, RateLimit, Redis, Store};
pub use model::{Cost, Model, ResponseFormat, Rules, Unsupported};
pub use overrides::{AdHoc, FileOverrides, Overrides};
pub use panel::{Member, Params};
pub use process::{
    Admin, Drain, ExtProc, HandOff, Limits, ListModels, Log, LogFormat, LogLevel, ModeOverride, Stream,
};
pub use provider::{Adapter, Http2, Marker, Preset, Provider, ProviderTls};
pub use signing::Signing;
pub use strategy::{
    Average, AverageOf, Confidence, First, OnNoConsensus, Rank, RankMode, Require, Strategy, Vote, Weighted,
};

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
    /// What callers may form without an ensemble of the file.
    pub overrides: FileOverrides,
    /// Bounds on what a request may cost this process.
    pub limits: Limits,
    /// Answers to callers that asked for a stream.
    pub stream: Stream,
    /// The door that Envoy's external processing uses.
    pub ext_proc: ExtProc,
    /// Operators' listener.
    pub admin: Admin,
    /// How Consort ends when it is told to (SIGTERM).
    pub drain: Drain,
    /// The plain HTTP door.
    pub http: Http,
    /// What Consort signs with: tickets of the hand-off, and markers on calls of its own.
    pub signing: Signing,
    /// What Consort logs, to standard output.
    pub log: Log,
    /// Where the record of every run goes, besides the log.
    pub decisions: Decisions,
}

/// Where Consort listens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Envoy's external processing (gRPC): `host:port`, or `unix:/path`.
    #[schemars(length(min = 1))]
    pub ext_proc: String,
    /// What operators ask: readiness, metrics, the configuration in force, the state of models. `host:port`, or
    /// `unix:/path`, or `none`. It has no authentication of its own, so that it should stay on loopback.
    #[schemars(length(min = 1))]
    pub admin: String,
    /// The same ensembles, and the direct models, as an OpenAI-compatible server: `host:port`, or `unix:/path`.
    /// Default: none.
    #[schemars(length(min = 1))]
    pub http: Option<String>,
    /// Who may connect to the sockets of `ext_proc` and `http`. That of `admin` is for the user alone that Consort
    /// runs as.
    pub socket_access: SocketAccess,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            ext_proc: "127.0.0.1:50051".to_owned(),
            admin: "127.0.0.1:9902".to_owned(),
            http: None,
            socket_access: SocketAccess::default(),
        }
    }
}

/// Who may connect to a Unix socket.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SocketAccess {
    /// The user that Consort runs as (mode 0600).
    Owner,
    /// Its group, too (0660).
    #[default]
    Group,
    /// Whoever can enter the directory (0666).
    Everyone,
}
