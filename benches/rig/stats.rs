//! Windows of load, and what several of them say together.

use serde::Serialize;

/// What was seen in one window of load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Window {
    pub requests: u64,
    /// A window with any counts for nothing.
    pub failed: u64,
    pub seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// CPU time of the external processor.
    pub processor_cpu: f64,
    pub envoy_cpu: f64,
}

impl Window {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// CPU ms of the external processor for one request.
    pub fn processor_ms(&self) -> f64 {
        self.processor_cpu * 1e3 / self.requests as f64
    }

    /// CPU ms of Envoy for one request.
    pub fn envoy_ms(&self) -> f64 {
        self.envoy_cpu * 1e3 / self.requests as f64
    }

    pub fn is_valid(&self) -> bool {
        self.failed == 0 && self.requests > 0
    }
}

/// A median with its spread: the median of the distances from it (MAD). NaN where nothing is valid.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stat {
    pub median: f64,
    pub spread: f64,
    /// How many values there were.
    pub n: usize,
}

impl Stat {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        let median = middle(&mut values);
        let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        Self { median, spread: middle(&mut distances), n: values.len() }
    }

    /// What is certain.
    pub fn exactly(value: f64) -> Self {
        Self::of([value])
    }
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values {
        [] => f64::NAN,
        _ => (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0,
    }
}

/// The value below which this share of the values lies.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The rounds of several variants that took turns: `rounds[i]` of each belong together.
#[derive(Clone, Debug, Serialize)]
pub struct Rounds {
    pub names: Vec<&'static str>,
    /// Of each variant, its windows in the order in which they were seen.
    pub windows: Vec<Vec<Window>>,
}

impl Rounds {
    pub fn new(names: &[&'static str]) -> Self {
        Self { names: names.to_vec(), windows: vec![Vec::new(); names.len()] }
    }

    fn of(&self, name: &str) -> &[Window] {
        let at = self.names.iter().position(|known| *known == name);
        at.and_then(|at| self.windows.get(at)).map_or(&[], Vec::as_slice)
    }

    /// A measure of one variant.
    pub fn stat(&self, name: &str, measure: impl Fn(&Window) -> f64) -> Stat {
        Stat::of(self.of(name).iter().filter(|window| window.is_valid()).map(measure))
    }

    /// A measure of one variant over another's, round by round, so that what the machine did meanwhile cancels out.
    pub fn ratio(&self, name: &str, over: &str, measure: impl Fn(&Window) -> f64) -> Stat {
        let pairs = self.of(name).iter().zip(self.of(over));
        Stat::of(pairs.filter(|(a, b)| a.is_valid() && b.is_valid()).map(|(a, b)| measure(a) / measure(b)))
    }

    /// How many windows had a failed request.
    pub fn invalid(&self) -> usize {
        self.windows.iter().flatten().filter(|window| !window.is_valid()).count()
    }
}
