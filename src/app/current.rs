//! What is in force, for every listener, and what outlives it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;

use crate::config::{Address, Config};
use crate::ensemble::Runner;
use crate::ext_proc::Setup;
use crate::http::admin::{Admin, InForce, Readiness};
use crate::limits::{Admission, Cooldowns};
use crate::telemetry::LogLevel;
use crate::upstream::{Caller, HttpCaller, Retrying, check};

/// What is in force, and what outlives it: a model that cools down does so under the next configuration too, and runs
/// that are in flight count against the next cap.
pub(super) struct Current {
    door: Arc<ArcSwap<Setup>>,
    shown: Arc<ArcSwap<InForce>>,
    admission: Admission,
    cooldowns: Cooldowns,
    http: Arc<HttpCaller>,
    caller: Arc<dyn Caller>,
    checks: JoinSet<()>,
}

impl Current {
    /// By a first configuration.
    pub(super) fn new(config: &Config) -> Self {
        let (http, cooldowns) = (Arc::new(HttpCaller), Cooldowns::default());
        let admission = Admission::new(config.max_inflight);
        let caller: Arc<dyn Caller> = Arc::new(Retrying::new(Arc::clone(&http), cooldowns.clone()));
        let mut current = Self {
            door: Arc::new(ArcSwap::from_pointee(setup(config, &admission, &caller))),
            shown: Arc::new(ArcSwap::from_pointee(in_force(config))),
            admission,
            cooldowns,
            http,
            caller,
            checks: JoinSet::new(),
        };
        current.begin_checks(config);
        current
    }

    /// Puts another configuration in force. Requests that have begun keep theirs.
    pub(super) async fn replace(&mut self, config: &Config) {
        self.door.store(Arc::new(setup(config, &self.admission, &self.caller)));
        self.shown.store(Arc::new(in_force(config)));
        self.end_checks().await;
        self.begin_checks(config);
    }

    /// Ends the questions to models that have cooled down.
    pub(super) async fn end_checks(&mut self) {
        self.checks.shutdown().await;
    }

    fn begin_checks(&mut self, config: &Config) {
        for model in &config.direct_models {
            if model.background_check.is_some() {
                let (http, cooldowns) = (Arc::clone(&self.http), self.cooldowns.clone());
                self.checks.spawn(check(http, cooldowns, Arc::clone(model)));
            }
        }
    }

    /// What Envoy's door goes by.
    pub(super) fn door(&self) -> Arc<ArcSwap<Setup>> {
        Arc::clone(&self.door)
    }

    /// What operators are told of.
    pub(super) fn admin(
        &self,
        readiness: Arc<Readiness>,
        log_level: LogLevel,
        metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Admin {
        let (current, cooldowns) = (Arc::clone(&self.shown), self.cooldowns.clone());
        Admin { current, readiness, cooldowns, log_level, metrics }
    }
}

fn setup(config: &Config, admission: &Admission, caller: &Arc<dyn Caller>) -> Setup {
    let admission = admission.with_max(config.max_inflight);
    Setup {
        snapshot: Arc::clone(&config.snapshot),
        runner: Runner::new(Arc::clone(caller), admission, config.max_answer_bytes),
        settings: Arc::new(config.ext_proc.clone()),
    }
}

fn in_force(config: &Config) -> InForce {
    let bound = match &config.listen.admin {
        Some(Address::Tcp(address)) => address.rsplit_once(':').map(|(host, _)| host.to_ascii_lowercase()),
        Some(Address::Unix(_)) | None => None,
    };
    InForce {
        config: Arc::clone(&config.shown),
        models: config.direct_models.clone(),
        snapshot: Arc::clone(&config.snapshot),
        hosts: config.admin_hosts.iter().cloned().chain(bound).collect(),
    }
}
