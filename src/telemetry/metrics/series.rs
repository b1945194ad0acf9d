//! The series that have been counted in, at hand by their labels.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::table::Metric;

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The series of one recorder. A recorder looks a series up by labels that it wants to own; here they are
/// compared as they are, so that counting allocates nothing once a series is known.
#[derive(Debug)]
pub(super) struct Series {
    recorder: Arc<PrometheusRecorder>,
    counters: Known<Counter>,
    gauges: Known<Gauge>,
    histograms: Known<Histogram>,
}

type Known<H> = RwLock<HashMap<Box<str>, H>>;

/// Counts, with a place to put the names of series together.
pub(super) struct Scribe<'a> {
    series: &'a Series,
    name: String,
}

impl Series {
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> Self {
        Self { recorder, counters: Known::default(), gauges: Known::default(), histograms: Known::default() }
    }

    pub(super) fn scribe(&self) -> Scribe<'_> {
        Scribe { series: self, name: String::with_capacity(160) }
    }
}

impl Scribe<'_> {
    /// Counts so many more; 0 makes the series known.
    pub(super) fn count(&mut self, metric: &Metric, labels: &[&str], more: u64) {
        self.named(metric, labels);
        let register = |key: &Key| self.series.recorder.register_counter(key, &METADATA);
        with(&self.series.counters, &self.name, metric, labels, register, |counter| counter.increment(more));
    }

    /// Adds an amount.
    pub(super) fn add(&mut self, metric: &Metric, labels: &[&str], more: f64) {
        self.gauge(metric, labels, |gauge| gauge.increment(more));
    }

    /// Says what is so now.
    pub(super) fn set(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        self.gauge(metric, labels, |gauge| gauge.set(value));
    }

    /// Takes a value into a distribution.
    pub(super) fn observe(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        self.histogram(metric, labels, |histogram| histogram.record(value));
    }

    /// Makes a distribution known.
    pub(super) fn announce(&mut self, metric: &Metric, labels: &[&str]) {
        self.histogram(metric, labels, |_| ());
    }

    fn gauge(&mut self, metric: &Metric, labels: &[&str], then: impl FnOnce(&Gauge)) {
        self.named(metric, labels);
        let register = |key: &Key| self.series.recorder.register_gauge(key, &METADATA);
        with(&self.series.gauges, &self.name, metric, labels, register, then);
    }

    fn histogram(&mut self, metric: &Metric, labels: &[&str], then: impl FnOnce(&Histogram)) {
        self.named(metric, labels);
        let register = |key: &Key| self.series.recorder.register_histogram(key, &METADATA);
        with(&self.series.histograms, &self.name, metric, labels, register, then);
    }

    fn named(&mut self, metric: &Metric, labels: &[&str]) {
        self.name.clear();
        self.name.push_str(metric.name);
        for label in labels {
            // Between names, so that no two labels read like two others.
            self.name.push('\u{0}');
            self.name.push_str(label);
        }
    }
}

fn with<H: Clone>(
    known: &Known<H>,
    name: &str,
    metric: &Metric,
    labels: &[&str],
    register: impl FnOnce(&Key) -> H,
    then: impl FnOnce(&H),
) {
    if let Some(handle) = known.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return then(handle);
    }
    let handle = register(&key(metric, labels));
    then(&handle);
    known.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), handle);
}

/// The series' name for its recorder, without the labels that have no value.
fn key(metric: &Metric, labels: &[&str]) -> Key {
    let labels = metric.labels.iter().zip(labels).filter(|(_, value)| !value.is_empty());
    let labels: Vec<Label> = labels.map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name, labels)
}
