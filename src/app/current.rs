//! What is in force, for every listener, and what outlives it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tracing::warn;

use super::door::warn_of_exposure;
use crate::config::{Address, Config};
use crate::ensemble::Runner;
use crate::ext_proc::Setup;
use crate::http::admin::{Admin, InForce, Readiness};
use crate::http::door::{Door, Live};
use crate::limits::{Admission, Cooldowns, Limiter, Room, StoreError};
use crate::signing::Spent;
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::{Decisions, LogLevel, Traces};
use crate::upstream::{Caller, HttpCaller, Limited, Retrying, check};

/// How long a drain waits for runs without a bound of their own.
const LONGEST: Duration = Duration::from_secs(60);

/// How long it may take to tell a shared store what the last runs have cost.
const FLUSH: Duration = Duration::from_secs(2);

/// What is in force, and what outlives it: a model that cools down does so under the next configuration too, and runs
/// that are in flight count against the next cap.
pub(super) struct Current {
    setup: Arc<ArcSwap<Setup>>,
    door: Live,
    /// The same for the operators' own origin.
    playground: Live,
    shown: Arc<ArcSwap<InForce>>,
    exposed: Exposed,
    /// The longest that a run of any configuration yet may take by its own bounds.
    longest_run: Duration,
    lasting: Lasting,
    cooldowns: Cooldowns,
    http: Arc<HttpCaller>,
    metrics: Metrics,
    /// What keeps the limits' store.
    keeping: JoinSet<()>,
    background: JoinSet<()>,
}

/// What others than this machine may reach.
#[derive(Clone, Debug)]
pub(super) struct Exposed {
    /// Where the plain HTTP door is, if they reach it.
    pub(super) door: Option<String>,
    /// Whether they reach the operators' listener.
    pub(super) admin: bool,
}

/// What the runs of every configuration share.
struct Lasting {
    caller: Arc<dyn Caller>,
    admission: Admission,
    limiter: Limiter,
    decisions: Decisions,
    traces: Traces,
    /// What was taken of what is to be taken once.
    spent: Spent,
    room: Room,
}

impl Current {
    /// By a first configuration, whose store of limits remains.
    ///
    /// # Errors
    /// When that store cannot be used.
    pub(super) fn new(
        config: &Config,
        exposed: Exposed,
        admission: Admission,
        metrics: Metrics,
        decisions: Decisions,
        traces: Traces,
    ) -> Result<Self, StoreError> {
        let (http, cooldowns) = (Arc::new(HttpCaller), Cooldowns::default());
        let (limiter, keeper) = Limiter::open(&config.store)?;
        let mut keeping = JoinSet::new();
        keeping.spawn(keeper.keep());
        let retrying = Retrying::new(Arc::clone(&http), cooldowns.clone());
        let caller: Arc<dyn Caller> =
            Arc::new(Limited::new(Arc::new(retrying), limiter.clone()).sparing(cooldowns.clone()));
        let spent = Spent::default();
        let room = Room::new(config.max_held_bytes);
        let lasting = Lasting { caller, admission, limiter, decisions, traces, spent, room };
        let setup = lasting.setup(config);
        let mut current = Self {
            door: Live::new(door(config, &setup)),
            playground: Live::new(exposed.playground(config, &setup)),
            exposed,
            longest_run: Duration::ZERO,
            setup: Arc::new(ArcSwap::from_pointee(setup)),
            shown: Arc::new(ArcSwap::from_pointee(in_force(config))),
            lasting,
            cooldowns,
            http,
            metrics,
            keeping,
            background: JoinSet::new(),
        };
        current.begin(config);
        Ok(current)
    }

    /// Puts another configuration in force. Requests that have begun keep theirs.
    pub(super) async fn replace(&mut self, config: &Config) {
        let setup = self.lasting.setup(config);
        let had_keys = self.door.has_keys();
        self.door.replace(door(config, &setup));
        if had_keys {
            warn_of_exposure(self.exposed.door.as_deref(), self.door.has_keys());
        }
        self.playground.replace(self.exposed.playground(config, &setup));
        self.setup.store(Arc::new(setup));
        self.shown.store(Arc::new(in_force(config)));
        self.end_background().await;
        self.begin(config);
    }

    /// Ends what goes on beside requests.
    pub(super) async fn end_background(&mut self) {
        self.background.shutdown().await;
    }

    /// Tells a shared store of limits what the last runs have cost.
    pub(super) async fn end_limits(&mut self) {
        if tokio::time::timeout(FLUSH, self.lasting.limiter.flush()).await.is_err() {
            warn!("the limits' store could not be told what the last runs have cost");
        }
        self.keeping.shutdown().await;
    }

    /// Counts what the configuration has, and asks models that have cooled down.
    fn begin(&mut self, config: &Config) {
        self.longest_run = self.longest_run.max(longest_run(config));
        self.metrics.announce(
            config.direct_models.iter().map(|model| (&*model.name, model.provider.adapter.provider_name())),
            config.snapshot.ensembles().map(|ensemble| (&*ensemble.name, ensemble.strategy.name())),
        );
        metrics::config_applied();
        self.background.spawn(self.metrics.clone().upkeep());
        self.background.spawn(self.lasting.admission.clone().watch_lateness(config.max_lateness));
        for model in &config.direct_models {
            if model.background_check.is_some() {
                let (http, cooldowns) = (Arc::clone(&self.http), self.cooldowns.clone());
                self.background.spawn(check(http, cooldowns, Arc::clone(model)));
            }
        }
    }

    /// The longest that a run may take by its own bounds, whichever configuration it began with.
    pub(super) fn longest_run(&self) -> Duration {
        self.longest_run
    }

    /// What Envoy's door goes by.
    pub(super) fn setup(&self) -> Arc<ArcSwap<Setup>> {
        Arc::clone(&self.setup)
    }

    /// The plain HTTP door.
    pub(super) fn door(&self) -> Live {
        self.door.clone()
    }

    /// The same for operators, without keys where only this machine reaches them.
    pub(super) fn playground(&self) -> Live {
        self.playground.clone()
    }

    /// What operators are told of.
    pub(super) fn admin(&self, readiness: Arc<Readiness>, log_level: LogLevel) -> Admin {
        let metrics = self.metrics.clone();
        let (current, cooldowns) = (Arc::clone(&self.shown), self.cooldowns.clone());
        let limiter = self.lasting.limiter.clone();
        Admin { current, readiness, cooldowns, limiter, log_level, metrics }
    }
}

impl Lasting {
    fn setup(&self, config: &Config) -> Setup {
        let Self { caller, admission, limiter, decisions, traces, spent, room } = self;
        let admission = admission.with_max(config.max_inflight);
        Setup {
            snapshot: Arc::clone(&config.snapshot),
            runner: Runner::new(Arc::clone(caller), admission, config.max_answer_bytes)
                .limited_by(limiter.clone())
                .recording(decisions.clone())
                .traced(traces.clone()),
            settings: Arc::new(config.ext_proc.clone()),
            spent: spent.clone(),
            room: room.with_max(config.max_held_bytes),
        }
    }
}

impl Exposed {
    fn playground(&self, config: &Config, setup: &Setup) -> Door {
        let door = door(config, setup);
        if self.admin { door } else { door.without_keys() }
    }
}

fn longest_run(config: &Config) -> Duration {
    let ensembles = config.snapshot.ensembles().map(|ensemble| ensemble.longest_run());
    let models = config.direct_models.iter().map(|model| model.timeout);
    ensembles.chain(models).map(|bound| bound.unwrap_or(LONGEST)).max().unwrap_or(LONGEST)
}

fn door(config: &Config, setup: &Setup) -> Door {
    let door = Door::new(Arc::clone(&setup.snapshot), setup.runner.clone(), config.door.clone());
    door.remembering(setup.spent.clone()).within(setup.room.clone())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Pools;

    fn longest_of(models: &str) -> Duration {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("consort.yaml");
        let text =
            format!("providers: [{{name: p, base_url: 'http://127.0.0.1:1/v1'}}]\nmodels: [{models}]\n");
        std::fs::write(&file, text).unwrap();
        longest_run(&crate::config::load_with(&file, &Pools::default()).unwrap())
    }

    #[test]
    fn direct_models_count_in_the_longest_run() {
        let (a, b) =
            ("display_name: a, provider: p, model_name: m", "display_name: b, provider: p, model_name: m");
        let team = "{display_name: e, ensemble: {panel: [{model: a}, {model: b}], deadline_ms: 5000, min_responses: 1, \
                    judge: {model: a}}}";
        let timed = format!("{{{a}, timeout: 90000}}, {{{b}, timeout: 1000}}");
        assert_eq!(longest_of(&timed), Duration::from_secs(90));
        assert_eq!(longest_of(&format!("{{{a}, timeout: 0}}, {{{b}, timeout: 0}}, {team}")), LONGEST);
    }
}
