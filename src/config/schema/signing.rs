//! What Consort signs with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::secret::Secret;

/// The secrets that Consort signs with what it says to itself by way of Envoy: tickets of the hand-off, and markers on
/// calls of its own. All replicas need the same. Without any, a process makes up one that nobody else knows, which
/// will do for a single replica.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Signing {
    /// Texts of at least 32 bytes, best taken from the environment as `${VAR}`. The first one signs, and all of them
    /// are known. A new one goes behind the old one first, on all replicas, and then before it: thus every replica knows
    /// what any of them signs with.
    pub secrets: Vec<Secret>,
    /// Files that hold such secrets, like mounted ones, after those of `secrets`; a newline at their end is ignored.
    pub secret_files: Vec<String>,
}
