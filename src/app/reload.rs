//! The configuration follows its file: a whole new one, or none.

use std::convert::Infallible;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::gauge;
use serde_json::Value;
use tracing::{error, info, warn};

use super::Follow;
use super::current::Current;
use super::grpc::max_message_bytes;
use super::watch::{Fingerprint, Watch};
use crate::config::{self, Config};
use crate::http::admin::Readiness;
use crate::telemetry::LogLevel;

/// What is decided when the process begins: the keys, and where they stand.
const LASTING: [(&str, &str); 3] = [
    ("listen.ext_proc", "/listen/ext_proc"),
    ("listen.admin", "/listen/admin"),
    ("log.format", "/log/format"),
];

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
        tell_metrics(1);
        let first = First { shown: Arc::clone(&config.shown), max_message_bytes: max_message_bytes(&config) };
        Self { config, current, readiness, level, first }
    }

    /// Reads the file again when it has changed, or one that it names, and whenever told to.
    pub(super) async fn follow(&mut self, follow: Option<Follow>) -> Infallible {
        let Some(Follow { file, mut hang_up }) = follow else {
            return pending().await;
        };
        let mut watch = Watch::new();
        watch.look_at(self.files(&file).iter().map(PathBuf::as_path));
        let mut seen = self.fingerprint(&file).await;
        loop {
            let is_told = tokio::select! {
                told = hang_up.recv() => told.is_some(),
                () = watch.settled() => false,
            };
            // Before it is read: what changes meanwhile is another change.
            watch.look_at(self.files(&file).iter().map(PathBuf::as_path));
            let now = self.fingerprint(&file).await;
            if now == seen && !is_told {
                continue;
            }
            seen = now;
            self.reload(&file).await;
            watch.look_at(self.files(&file).iter().map(PathBuf::as_path));
        }
    }

    /// The files that the configuration in force was made of.
    fn files(&self, file: &Path) -> Vec<PathBuf> {
        std::iter::once(file.to_owned()).chain(self.config.watched.iter().cloned()).collect()
    }

    async fn fingerprint(&self, file: &Path) -> Option<Fingerprint> {
        let files = self.files(file);
        let read = move || Fingerprint::of(files.iter().map(PathBuf::as_path));
        tokio::task::spawn_blocking(read).await.ok()
    }

    async fn reload(&mut self, file: &Path) {
        let (file, pools) = (file.to_owned(), self.config.pools.clone());
        match tokio::task::spawn_blocking(move || config::load_with(&file, &pools)).await {
            Ok(Ok(config)) => self.take(config).await,
            Ok(Err(problems)) => self.refuse(problems.iter().map(ToString::to_string).collect()),
            Err(_) => self.refuse(vec!["reading it ended in a panic".to_owned()]),
        }
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
        tell_metrics(generation);
        info!(generation, models, ensembles, "configuration reloaded");
    }

    fn refuse(&self, problems: Vec<String>) {
        error!(problems = problems.join("\n"), "configuration not reloaded: the one before stays in force");
        gauge!("consort_config_last_reload_successful").set(0.0);
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

fn tell_metrics(generation: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!("consort_config_last_reload_successful").set(1.0);
    gauge!("consort_config_last_reload_success_timestamp_seconds").set(now.as_secs_f64());
    gauge!("consort_config_generation").set(generation as f64);
}
