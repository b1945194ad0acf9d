//! The operator's file, from text to runtime types.
//!
//! ```text
//! file text ─┬─ load ──▶ tree ── interpolate ──▶ tree ── structure ──▶ schema::File ── resolve ──▶ Config
//! CONSORT__… ┘                   ${VAR}                  JSON Schema                   names, files
//! ```
//!
//! Every stage reports what it finds and hands on what is sound, so that one start shows all
//! mistakes of a file. [`schema`] may hold a wrong configuration; [`Config`] cannot.

mod interpolate;
mod json_schema;
mod load;
mod problem;
mod reference;
mod resolve;
pub mod schema;
mod secret;
mod structure;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::ensemble::Snapshot;
use crate::http::{ServerTls, door};
use crate::limits::StoreSettings;
use crate::telemetry::{Log, Sinks};
use crate::upstream::{DirectModel, Pools};

pub use json_schema::json_schema;
pub use load::{Environment, Format, Source, load, load_with};
pub use problem::{Path, Problem, Problems, Segment};
pub use reference::reference;

pub use secret::Secret;

/// A configuration in which every check has passed.
#[derive(Debug)]
pub struct Config {
    /// Where Consort listens.
    pub listen: Listen,
    /// What the operator decided about Envoy's door.
    pub ext_proc: crate::ext_proc::Settings,
    /// That door's TLS, where it speaks it.
    pub ext_proc_tls: Option<Arc<ServerTls>>,
    /// What the operator decided about the plain HTTP door.
    pub door: door::Settings,
    /// Whether tickets or markers are signed with a secret that this process alone knows.
    pub signs_alone: bool,
    /// How that door's connections are held to their time.
    pub connections: door::Connections,
    /// The ensembles and the direct models, by alias.
    pub snapshot: Arc<Snapshot>,
    /// Every direct model, in the file's order, whether an ensemble uses it or not.
    pub direct_models: Vec<Arc<DirectModel>>,
    /// How many runs may be in flight at once; more are refused.
    pub max_inflight: usize,
    /// How late work may be before runs are refused; none: however late.
    pub max_lateness: Option<Duration>,
    /// How much of requests' bodies may be held at once, in bytes.
    pub max_held_bytes: usize,
    /// How large an answer may be, in bytes; a larger one is an error.
    pub max_answer_bytes: usize,
    /// Where use is counted.
    pub store: StoreSettings,
    /// What is logged, and how.
    pub log: Log,
    /// Where decisions go, besides the log.
    pub decisions: Sinks,
    /// How the process ends.
    pub drain: Drain,
    /// The names, beside those of this machine, that the admin listener may be reached by.
    pub admin_hosts: Vec<String>,
    /// The connection pools of the providers, for the next configuration to go on with.
    pub pools: Pools,
    /// The files, beside the configuration's own, that were read: it means something else when one of them changes.
    pub watched: Vec<PathBuf>,
    /// The whole file with its defaults, for operators to see: secrets are redacted, and what came from the
    /// environment stands as it is written.
    pub shown: Arc<Value>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long requests are still taken after readiness has been withdrawn.
    pub delay: Duration,
    /// How long what runs may then take; none leaves it the longest time that an ensemble has.
    pub timeout: Option<Duration>,
}

/// Where Consort listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Envoy's external processing.
    pub ext_proc: Address,
    /// Operators' listener; none when it is turned off.
    pub admin: Option<Address>,
    /// The plain HTTP door, where it is open.
    pub http: Option<Address>,
    /// The permissions of a Unix socket that Envoy or callers connect to.
    pub socket_mode: u32,
}

/// An address to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; the host may still need resolving.
    Tcp(String),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
