//! How much names may take, and where that is counted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_MS;
use crate::config::Secret;

/// How much may be asked; all that is given holds, and at least one bound has to be. A window begins with the first
/// request in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per second.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub rps: Option<u64>,
    /// Requests per minute.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub rpm: Option<u64>,
    /// Tokens per minute, those of prompts and of answers.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub tpm: Option<u64>,
    /// Requests per day.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub rpd: Option<u64>,
    /// Tokens per day, those of prompts and of answers.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub tpd: Option<u64>,
    /// How many may be in flight at once.
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub concurrency: Option<u64>,
    /// Direct model: how long a call may wait for room, within its own bounds, in ms; 0 = not at all, the default.
    #[schemars(range(min = 0, max = MAX_MS))]
    pub wait_ms: u64,
}

/// More is no limit, and no longer counted exactly by everything that counts.
const MAX_COUNT: u64 = 1_000_000_000_000;

/// What an alias may spend.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["usd_per_day"]))]
pub struct Budget {
    /// How much may be spent in a day of UTC, in USD, by the `cost` of the models. From then on requests are refused;
    /// those that have begun come to their end.
    #[schemars(extend("exclusiveMinimum" = 0), range(max = 1_000_000))]
    pub usd_per_day: f64,
}

/// What tells callers of an alias apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallerKey {
    /// Nothing: all callers share the limits of an alias.
    #[default]
    Global,
    /// The value of this request header; only a digest of it is kept.
    Header(#[schemars(length(min = 1))] String),
    /// A value in Envoy's dynamic metadata: the namespace, then the keys that lead there. The filter must forward the
    /// namespace (`metadata_options.forwarding_namespaces`).
    Metadata(#[schemars(inner(length(min = 1)))] Vec<String>),
}

/// Where use is counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// In this process.
    #[default]
    Memory,
    /// In a Redis that several processes share.
    Redis(Redis),
}

/// A Redis, from version 5 on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct Redis {
    /// Its address: `redis://user:password@host:6379/0`, or `rediss://` with TLS.
    pub url: Secret,
    /// What becomes of requests while it does not answer.
    pub on_error: OnError,
    /// How long a request waits for it, in ms.
    #[schemars(range(min = 1, max = 10_000))]
    pub timeout_ms: u64,
    /// What its keys begin with.
    #[schemars(length(min = 1, max = 100))]
    pub prefix: String,
    /// Whether the address is that of a node of a cluster.
    pub cluster: bool,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            on_error: OnError::default(),
            timeout_ms: 50,
            prefix: "consort".to_owned(),
            cluster: false,
        }
    }
}

/// What becomes of requests while the store does not answer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// They go on as if there were no limits.
    #[default]
    Open,
    /// They are refused with a 503.
    Closed,
}
