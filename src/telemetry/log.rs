//! What is logged, and from which level on.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

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

/// The level of a running log, which can be changed.
#[derive(Clone, Debug)]
pub struct LogLevel {
    level: Arc<Mutex<LevelFilter>>,
    /// None where somebody else logs.
    filter: Option<Handle<Targets, Registry>>,
}

impl Log {
    /// Begins to log to standard output.
    pub fn to_stdout(self) -> LogLevel {
        let (filter, handle) = reload::Layer::new(targets(self.level));
        let lines = tracing_subscriber::fmt::layer();
        let layer = match self.format {
            LogFormat::Json => lines.json().boxed(),
            LogFormat::Pretty => lines.boxed(),
        };
        // It fails only where somebody logs already: an embedding test.
        let begun = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
        LogLevel { level: Arc::new(Mutex::new(self.level)), filter: begun.is_ok().then_some(handle) }
    }
}

impl LogLevel {
    /// The level of a log that is somebody else's, and so only a note.
    pub fn of_nobody(level: LevelFilter) -> Self {
        Self { level: Arc::new(Mutex::new(level)), filter: None }
    }

    /// The least severe level that is logged.
    pub fn level(&self) -> LevelFilter {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs from this level on.
    pub fn set(&self, level: LevelFilter) {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        // It fails only when the log is gone.
        let _ = self.filter.as_ref().map(|filter| filter.reload(targets(level)));
        *current = level;
    }
}

/// What Consort itself says at the level asked for; below `info`, libraries would drown it.
fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_target(env!("CARGO_CRATE_NAME"), level)
}
