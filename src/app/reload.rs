//! The configuration follows its file: a whole new one, or none.

use std::convert::Infallible;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tracing::{error, info, warn};

use super::Follow;
use super::current::Current;
use super::grpc::max_message_bytes;
use super::watch::{Fingerprint, Watch};
use crate::config::{self, Config, Problems};
use crate::http::admin::Readiness;
use crate::telemetry::{LogLevel, metrics};
use crate::upstream::Pools;

/// What is decided when the process begins: the keys, and where they stand.
const LASTING: [(&str, &str); 9] = [
    ("listen.ext_proc", "/listen/ext_proc"),
    ("listen.http", "/listen/http"),
    ("http.tls", "/http/tls"),
    ("http.head_timeout_ms", "/http/head_timeout_ms"),
    ("http.idle_timeout_ms", "/http/idle_timeout_ms"),
    ("listen.admin", "/listen/admin"),
    ("decisions", "/decisions"),
    ("limits.store", "/limits/store"),
    ("log.format", "/log/format"),
];

/// Reads a configuration, and what the file and those that it names held *before* that: a later change, however soon it
/// comes, is one.
pub(super) fn read(file: &Path, earlier: &Pools) -> Result<(Config, Fingerprint), Problems> {
    let mut seen = Fingerprint::of([file.to_owned()]);
    loop {
        let config = config::load_with(file, earlier)?;
        if config.watched.iter().all(|file| seen.knows(file)) {
            return Ok((config, seen));
        }
        seen = Fingerprint::of(config.watched.into_iter().chain([file.to_owned()]));
    }
}

/// Puts configurations in force.
pub(super) struct Reloader {
    /// What is in force.
    pub(super) config: Config,
    pub(super) current: Current,
    readiness: Arc<Readiness>,
    level: LogLevel,
    /// What the process began with.
    first: First,
}

struct First {
    shown: Arc<Value>,
    max_message_bytes: usize,
}

impl Reloader {
    /// With a first configuration, which is in force already.
    pub(super) fn new(config: Config, current: Current, readiness: Arc<Readiness>, level: LogLevel) -> Self {
        let first = First { shown: Arc::clone(&config.shown), max_message_bytes: max_message_bytes(&config) };
        Self { config, current, readiness, level, first }
    }

    /// Reads the file again when it has changed, or one that it names, and whenever told to.
    pub(super) async fn follow(&mut self, follow: Option<Follow>) -> Infallible {
        let Some(Follow { file, mut seen, mut hang_up }) = follow else {
            return pending().await;
        };
        let (mut watch, mut is_told) = (Watch::new(), false);
        loop {
            // A link leads elsewhere now, or a directory is another one. What moves from here on is noticed, and what
            // has moved before is seen next.
            watch.look_at(seen.files());
            let earlier = seen.clone();
            let now = tokio::task::spawn_blocking(move || earlier.again()).await.unwrap_or(seen.clone());
            if now == seen && !is_told {
                is_told = tokio::select! {
                    told = hang_up.recv() => told.is_some(),
                    () = watch.settled() => false,
                };
                continue;
            }
            is_told = false;
            seen = self.reload(&file).await.unwrap_or(now);
        }
    }

    /// What the file and those that it names held, when it could be taken.
    async fn reload(&mut self, file: &Path) -> Option<Fingerprint> {
        let (file, pools) = (file.to_owned(), self.config.pools.clone());
        let problems = match tokio::task::spawn_blocking(move || read(&file, &pools)).await {
            Ok(Ok((config, seen))) => {
                self.take(config).await;
                return Some(seen);
            }
            Ok(Err(problems)) => problems.iter().map(ToString::to_string).collect(),
            Err(_) => vec!["reading it ended in a panic".to_owned()],
        };
        self.refuse(problems);
        None
    }

    async fn take(&mut self, config: Config) {
        let needs_restart = self.first.differs_in(&config);
        for key in &needs_restart {
            warn!(key, "the change of this key takes effect with a restart; the rest is in force");
        }
        if config.log.level != self.config.log.level {
            self.level.set(config.log.level);
        }
        self.current.replace(&config).await;
        let (models, ensembles) = (config.direct_models.len(), config.snapshot.ensembles().count());
        self.config = config;
        let generation = self.readiness.reloaded(needs_restart);
        info!(generation, models, ensembles, "configuration reloaded");
    }

    fn refuse(&self, problems: Vec<String>) {
        error!(problems = problems.join("\n"), "configuration not reloaded: the one before stays in force");
        metrics::config_refused();
        self.readiness.refused(problems);
    }
}

impl First {
    /// The keys of what `config` wants otherwise and does not get.
    fn differs_in(&self, config: &Config) -> Vec<&'static str> {
        let differs = |pointer: &str| config.shown.pointer(pointer) != self.shown.pointer(pointer);
        let keys = LASTING.into_iter().filter(|(_, pointer)| differs(pointer)).map(|(key, _)| key);
        let larger = max_message_bytes(config) > self.max_message_bytes;
        keys.chain(larger.then_some("limits.max_request_bytes")).collect()
    }
}
