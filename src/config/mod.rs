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
mod resolve;
pub mod schema;
mod secret;
mod structure;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use crate::ensemble::Snapshot;
use crate::upstream::DirectModel;

pub use json_schema::json_schema;
pub use load::{Environment, Format, Source, load};
pub use problem::{Path, Problem, Problems, Segment};

pub use secret::Secret;

/// A configuration in which every check has passed.
#[derive(Debug)]
pub struct Config {
    /// Where Consort listens.
    pub listen: Listen,
    /// What the operator decided about Envoy's door.
    pub ext_proc: crate::ext_proc::Settings,
    /// The ensembles, by alias.
    pub snapshot: Arc<Snapshot>,
    /// Every direct model, in the file's order, whether an ensemble uses it or not.
    pub direct_models: Vec<Arc<DirectModel>>,
    /// How many runs may be in flight at once; more are refused.
    pub max_inflight: usize,
    /// How large an answer may be, in bytes; a larger one is an error.
    pub max_answer_bytes: usize,
    /// What is logged, and how.
    pub log: Log,
    /// Every file that this was read from: the configuration itself, when it is a file, and those that it names.
    /// Reading it again reads all of them again.
    pub watched: Vec<PathBuf>,
}

/// Where Consort listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Envoy's external processing.
    pub ext_proc: Address,
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

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// The least severe level that is logged.
    pub level: LevelFilter,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Text for people.
    Pretty,
}
