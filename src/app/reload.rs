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
use crate::limits::StoreSettings;
use crate::telemetry::{LogLevel, metrics};
use crate::upstream::Pools;

/// What is decided when the process begins: the keys, and where they stand.
const LASTING: [(&str, &str); 12] = [
    ("listen.ext_proc", "/listen/ext_proc"),
    ("ext_proc.tls", "/ext_proc/tls"),
    ("listen.http", "/listen/http"),
    ("http.tls", "/http/tls"),
    ("http.head_timeout_ms", "/http/head_timeout_ms"),
    ("http.max_head_bytes", "/http/max_head_bytes"),
    ("http.max_headers", "/http/max_headers"),
    ("http.idle_timeout_ms", "/http/idle_timeout_ms"),
    ("listen.admin", "/listen/admin"),
    ("listen.socket_access", "/listen/socket_access"),
    ("decisions", "/decisions"),
    ("log.format", "/log/format"),
];

/// What is, too: an address in it is a secret, and a smaller bound is kept.
const STORE: &str = "limits.store";
const MAX_REQUEST_BYTES: &str = "limits.max_request_bytes";

/// Reads a configuration, and what the file and those that it names held *before* that: a later change, however soon it
/// comes, is one.
pub(super) fn read(file: &Path, earlier: &Pools) -> (Result<Config, Problems>, Fingerprint) {
    let mut seen = Fingerprint::of([file.to_owned()]);
    loop {
        let config = config::load_with(file, earlier);
        // One that is refused may lack just what a file will hold that is not there yet.
        let named = match &config {
            Ok(config) => &config.watched,
            Err(problems) => problems.files(),
        };
        if named.iter().all(|file| seen.knows(file)) {
            return (config, seen);
        }
        seen = Fingerprint::of(named.iter().cloned().chain([file.to_owned()]));
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
    /// With its secrets, which are not shown.
    store: StoreSettings,
    max_message_bytes: usize,
}

impl Reloader {
    /// With a first configuration, which is in force already.
    pub(super) fn new(config: Config, current: Current, readiness: Arc<Readiness>, level: LogLevel) -> Self {
        let first = First::of(&config);
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
        let Ok((config, seen)) = tokio::task::spawn_blocking(move || read(&file, &pools)).await else {
            self.refuse(vec!["reading it ended in a panic".to_owned()]);
            return None;
        };
        match config {
            Ok(config) => self.take(config).await,
            Err(problems) => self.refuse(problems.iter().map(ToString::to_string).collect()),
        }
        Some(seen)
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
    fn of(config: &Config) -> Self {
        Self {
            shown: Arc::clone(&config.shown),
            store: config.store.clone(),
            max_message_bytes: max_message_bytes(config),
        }
    }

    /// The keys of what `config` wants otherwise and does not get.
    fn differs_in(&self, config: &Config) -> Vec<&'static str> {
        let differs = |pointer: &str| config.shown.pointer(pointer) != self.shown.pointer(pointer);
        let keys = LASTING.into_iter().filter(|(_, pointer)| differs(pointer)).map(|(key, _)| key);
        let other_store = (config.store != self.store).then_some(STORE);
        let larger = (max_message_bytes(config) > self.max_message_bytes).then_some(MAX_REQUEST_BYTES);
        keys.chain(other_store).chain(larger).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(folder: &Path, text: &str) -> (Result<Config, Problems>, Fingerprint) {
        let file = folder.join("consort.yaml");
        fs::write(&file, text).unwrap();
        read(&file, &Pools::default())
    }

    #[test]
    fn a_file_that_is_named_and_not_there_is_looked_at_too() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("later.key");
        let text =
            format!("providers: [{{name: p, base_url: 'https://h', api_key_file: '{}'}}]", key.display());
        let (refused, seen) = config(folder.path(), &text);
        assert!(refused.is_err() && seen.knows(&key), "{seen:?}");
        assert_eq!(seen.again(), seen);
        fs::write(&key, "sk-later").unwrap();
        assert_ne!(seen.again(), seen);
        assert!(config(folder.path(), &text).0.is_ok());
    }

    #[test]
    fn a_store_that_differs_only_in_its_secret_needs_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = |more: &str| {
            let text = format!("limits: {{store: {{redis: {{url: 'redis://:one@h/0'{more}}}}}}}");
            config(folder.path(), &text).0.unwrap()
        };
        let first = First::of(&store(""));
        assert_eq!(first.differs_in(&store("")), [""; 0]);
        assert_eq!(first.differs_in(&store(", timeout_ms: 51")), [STORE]);
        let text = "limits: {store: {redis: {url: 'redis://:two@h/0'}}}";
        assert_eq!(first.differs_in(&config(folder.path(), text).0.unwrap()), [STORE]);
    }

    #[test]
    fn operators_can_read_what_needs_a_restart() {
        let text = include_str!("../../docs/operations.md");
        let (_, section) = text.split_once("## Reload").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        for key in LASTING.into_iter().map(|(key, _)| key).chain([STORE, MAX_REQUEST_BYTES]) {
            assert!(section.contains(&format!("`{key}`")), "{key}");
        }
    }
}
