//! What is counted, for scrapers.
//!
//! Counts of runs come from their decisions, all at once at a run's end, so that metrics, logs and decisions
//! cannot tell different stories.

mod record;
mod series;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use ::metrics::{Recorder, counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

use self::record::OPERATION;
use self::series::{Scribe, Series};
use super::decision::{Decision, Outcome};
use super::record::{DEFECT, USABLE};
use crate::signing::Refused;

pub use self::table::*;
pub use ::metrics::{Counter, Gauge};

/// How often values that nobody scrapes are put together.
const UPKEEP: Duration = Duration::from_secs(5);
/// The provider of a model that was never announced.
const UNKNOWN: &str = "_OTHER";

/// The causes of errors that alerts wait for the first of.
const ALARMING: [&str; 2] = [DEFECT, "overloaded"];
/// What tells a call of our own that came back.
const LOOPS: [&str; 4] = ["expired", "other_body", "replayed", "door"];
/// Why something stands in for what an ensemble was made for.
const CAUSES: [&str; 4] = ["quorum_missed", "judge_fallback", "judge_failed", "no_consensus"];

static INSTALLED: OnceLock<Metrics> = OnceLock::new();

/// All metrics of a process, or of a test.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    recorder: Arc<PrometheusRecorder>,
    rendering: PrometheusHandle,
    series: Series,
    /// Who provides each direct model.
    providers: RwLock<HashMap<Box<str>, &'static str>>,
}

/// Installs the metrics of this process, or finds them installed.
pub fn install() -> Metrics {
    let installed = INSTALLED.get_or_init(|| {
        let metrics = Metrics::default();
        // It fails where a program that embeds us has a recorder of its own, which then gets the rest.
        let _ = ::metrics::set_global_recorder(Arc::clone(&metrics.shared.recorder));
        metrics
    });
    installed.clone()
}

/// Counts what has come of a run, where metrics are installed.
pub fn record(decision: &Decision) {
    if let Some(metrics) = INSTALLED.get() {
        metrics.record(decision);
    }
}

/// Counts a request of this alias that goes on to a direct model, where metrics are installed.
pub fn passed_otherwise(alias: &str) {
    if let Some(metrics) = INSTALLED.get() {
        metrics.series().scribe().count(&OTHERWISE, &[alias], 1);
    }
}

/// Counts a request of this alias that is handed to the plain door, where metrics are installed.
pub fn handed_off(alias: &str) {
    if let Some(metrics) = INSTALLED.get() {
        metrics.series().scribe().count(&HANDOFFS, &[alias], 1);
    }
}

/// Counts a ticket that was refused for this reason, where metrics are installed.
pub fn ticket_refused(reason: &'static str) {
    if let Some(metrics) = INSTALLED.get() {
        metrics.series().scribe().count(&TICKETS_REFUSED, &[reason], 1);
    }
}

/// Counts a call of Consort's own that came back, where metrics are installed.
pub fn loop_refused(reason: &'static str) {
    if let Some(metrics) = INSTALLED.get() {
        metrics.series().scribe().count(&LOOPS_REFUSED, &[reason], 1);
    }
}

/// Counts a marker that is nobody's, where metrics are installed.
pub fn marker_ignored() {
    if let Some(metrics) = INSTALLED.get() {
        metrics.series().scribe().count(&MARKERS_IGNORED, &[], 1);
    }
}

/// Where requests that name no alias are counted: to be made once, for a path that every request takes.
pub fn passed_through() -> Counter {
    counter!(PASSTHROUGH.name)
}

/// Where runs in progress are counted.
pub fn inflight() -> Gauge {
    gauge!(INFLIGHT.name)
}

/// Where it stands whether this direct model cools down.
pub fn cooling(model: &str) -> Gauge {
    gauge!(COOLING.name, "model" => model.to_owned())
}

/// Where decisions are counted that a sink did not get.
pub fn decisions_lost() -> Counter {
    counter!(DECISIONS_LOST.name)
}

/// A configuration is in force, the first one or another one.
pub fn config_applied() {
    gauge!(CONFIG_GENERATION.name).increment(1.0);
    gauge!(CONFIG_RELOADED.name).set(1.0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    gauge!(CONFIG_RELOADED_AT.name).set(now.as_secs_f64());
}

/// A configuration was refused; the one before stays in force.
pub fn config_refused() {
    gauge!(CONFIG_RELOADED.name).set(0.0);
}

impl Default for Metrics {
    /// Metrics of their own, with every metric described.
    fn default() -> Self {
        let recorder = Arc::new(builder().build_recorder());
        describe(&*recorder);
        let series = Series::new(Arc::clone(&recorder));
        let mut scribe = series.scribe();
        for metric in ALL.iter().filter(|metric| metric.labels.is_empty()) {
            match metric.kind {
                Kind::Counter => scribe.count(metric, &[], 0),
                Kind::Sum | Kind::Gauge => scribe.add(metric, &[], 0.0),
                Kind::Histogram(_) => scribe.announce(metric, &[]),
            }
        }
        scribe.add(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        drop(scribe);
        let rendering = recorder.handle();
        let providers = RwLock::default();
        Self { shared: Arc::new(Shared { recorder, rendering, series, providers }) }
    }
}

impl Metrics {
    /// Makes the series of a configuration known before anything has happened, so that the first of each is seen
    /// as an increase: direct models with their providers, ensembles with their strategies.
    pub fn announce<'a>(
        &self,
        models: impl Iterator<Item = (&'a str, &'static str)>,
        ensembles: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut scribe = self.series().scribe();
        let providers: HashMap<Box<str>, _> = models.map(|(name, of)| (name.into(), of)).collect();
        for (model, provider) in &providers {
            announce_model(&mut scribe, model, provider);
        }
        for why in Refused::ALL {
            scribe.count(&TICKETS_REFUSED, &[why.label()], 0);
        }
        for why in LOOPS {
            scribe.count(&LOOPS_REFUSED, &[why], 0);
        }
        scribe.count(&MARKERS_IGNORED, &[], 0);
        for (alias, strategy) in ensembles {
            announce_ensemble(&mut scribe, alias, strategy);
        }
        let before = std::mem::replace(&mut *self.providers_mut(), providers.clone());
        for gone in before.keys().filter(|model| !providers.contains_key(*model)) {
            // Nobody calls it any more, so that nobody would ever find it well again.
            scribe.set(&COOLING, &[gone], 0.0);
        }
    }

    /// What scrapers read: Prometheus' text format.
    pub fn render(&self) -> String {
        if let Ok(runtime) = Handle::try_current() {
            self.series().scribe().set(&TASKS, &[], runtime.metrics().num_alive_tasks() as f64);
        }
        let mut text = self.shared.rendering.render();
        // The exporter's counters are whole numbers, so that amounts are gauges to it.
        for sum in ALL.iter().filter(|metric| metric.kind == Kind::Sum) {
            let line = |kind: &str| format!("# TYPE {} {kind}\n", sum.name);
            text = text.replacen(&line("gauge"), &line(sum.kind.label()), 1);
        }
        text
    }

    /// Lets what is counted by `then` be counted here, instead of where the process counts.
    #[cfg(test)]
    pub(crate) fn within<T>(&self, then: impl FnOnce() -> T) -> T {
        ::metrics::with_local_recorder(&*self.shared.recorder, then)
    }

    fn series(&self) -> &Series {
        &self.shared.series
    }

    /// Who provides a direct model, by the convention's names for providers.
    fn provider(&self, model: &str) -> &'static str {
        let providers = self.shared.providers.read().unwrap_or_else(PoisonError::into_inner);
        providers.get(model).copied().unwrap_or(UNKNOWN)
    }

    fn providers_mut(&self) -> RwLockWriteGuard<'_, HashMap<Box<str>, &'static str>> {
        self.shared.providers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts values together again and again, which would pile up where nobody scrapes; never ends.
    pub async fn upkeep(self) {
        let mut due = tokio::time::interval(UPKEEP);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.shared.rendering.run_upkeep();
        }
    }
}

fn builder() -> PrometheusBuilder {
    let mut histograms = ALL.iter().filter_map(|metric| match metric.kind {
        Kind::Histogram(buckets) => Some((metric.name, buckets)),
        _ => None,
    });
    let built = histograms.try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
    });
    // It fails for a histogram without buckets, and there is none.
    built.unwrap_or_default()
}

fn describe(recorder: &impl Recorder) {
    for metric in ALL {
        let (name, unit, help) = (metric.name.into(), Some(metric.unit), metric.help.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Sum | Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
        }
    }
}

fn announce_model(scribe: &mut Scribe, model: &str, provider: &str) {
    scribe.add(&COOLING, &[model], 0.0);
    scribe.add(&COST, &[model], 0.0);
    scribe.count(&MEMBER_CALLS, &[model, USABLE], 0);
    scribe.count(&LIMITED, &["model", model], 0);
    for metric in [&RETRIES, &ESTIMATED] {
        scribe.count(metric, &[model], 0);
    }
    for tokens in ["input", "output"] {
        scribe.announce(&TOKEN_USAGE, &[OPERATION, provider, model, tokens]);
    }
    scribe.announce(&OPERATION_DURATION, &[OPERATION, provider, model, ""]);
    scribe.announce(&FIRST_TOKEN, &[OPERATION, provider, model]);
}

fn announce_ensemble(scribe: &mut Scribe, alias: &str, strategy: &str) {
    for outcome in Outcome::ENDS {
        scribe.count(&REQUESTS, &[alias, strategy, outcome.label()], 0);
    }
    for code in ALARMING {
        scribe.count(&ERRORS, &[alias, code], 0);
    }
    for cause in CAUSES {
        scribe.count(&DEGRADED, &[alias, cause], 0);
    }
    scribe.count(&LIMITED, &["alias", alias], 0);
    for metric in [&STRAGGLERS, &CALLS_SAVED, &OTHERWISE, &HANDOFFS, &CONDITION_FAILURES] {
        scribe.count(metric, &[alias], 0);
    }
    for metric in [&QUORUM_WAIT, &AGREEMENT] {
        scribe.announce(metric, &[alias]);
    }
}

#[cfg(test)]
mod tests;
