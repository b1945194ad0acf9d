//! Three members and a judge: what a run costs, and what it adds to what its providers take.

use consort_testkit::envoy::Envoy;

use super::{Meter, request, window};
use crate::caller::{self, CHAT};
use crate::cores::{Layout, allowed, pin_self};
use crate::load::Ask;
use crate::report::{Bound, Cell, Findings, Table, Target};
use crate::stand::{ALIAS, Attachment, Consort, Part, config, envoy};
use crate::stats::{Stat, Window, quantile};
use crate::{Result, Rig};

struct Installation {
    provider: Part,
    consort: Consort,
    envoy: Envoy,
}

/// What was seen with so many callers.
#[derive(Default)]
struct Cells {
    windows: Vec<Window>,
    /// Medians of the time from the judge's first byte to the caller's, in ms.
    relayed: Vec<f64>,
}

pub async fn find(rig: &Rig) -> Result<Findings> {
    let mut found = Findings::default();
    let layout = Layout::for_ensembles();
    let callers = rig.choose(vec![1, 16, 64, 256], vec![16, 64]);
    for pace in ["0", "50"] {
        rig.say(format!("ensemble: starting, {pace} ms"));
        let stand = Installation::start(rig, pace, &layout).await?;
        pin_self(&layout.generator);
        let mut rows = Vec::new();
        for is_stream in [false, true] {
            for callers in &callers {
                let seen = stand.seen(rig, pace, is_stream, *callers).await?;
                found.invalid_windows += seen.windows.iter().filter(|window| !window.is_valid()).count();
                found.targets.extend(seen.targets(pace, is_stream, *callers));
                rows.push(seen.row(is_stream, *callers));
            }
        }
        pin_self(&allowed());
        found.tables.push(table(pace, rows));
    }
    Ok(found)
}

fn table(pace: &str, rows: Vec<Vec<Cell>>) -> Table {
    let (title, note) = if pace == "0" {
        (
            "Ensembles: 3 members and a judge, providers of 0 ms",
            "The load is wrk's, and so are the latencies: of whole runs.",
        )
    } else {
        (
            "Ensembles: 3 members and a judge, providers of 50 ms",
            "The callers are the rig's own. The latencies are what a run took beyond its slowest member and its judge, each as the provider measured it for that very run.",
        )
    };
    let columns = vec![
        "answer",
        "c",
        "runs/s",
        "p50 ms",
        "p99 ms",
        "Consort's CPU ms",
        "Envoy's CPU ms",
        "judge's first byte → caller's, p50 ms",
    ];
    Table { title, note, columns, rows }
}

impl Installation {
    async fn start(rig: &Rig, pace: &str, layout: &Layout) -> Result<Self> {
        let provider = Part::provider(&layout.provider).await?;
        let config = config(provider.addr, &[pace; 3], pace, "min_responses: 3", "");
        let consort = Consort::start(&rig.consort, &config, &layout.processor).await?;
        let envoy = envoy(Attachment::Shipped, consort.addr, provider.addr, &layout.envoy).await?;
        Ok(Self { provider, consort, envoy })
    }

    async fn seen(&self, rig: &Rig, pace: &str, is_stream: bool, callers: usize) -> Result<Cells> {
        let mut seen = Cells::default();
        for round in 0..=rig.choose(3, 1) {
            rig.say(format!("ensemble: {pace} ms, stream {is_stream}, c={callers}, round {round}"));
            let seconds = if round == 0 { 1 } else { rig.choose(2, 1) };
            let (window, relayed) = self.window(rig, pace, is_stream, callers, seconds).await?;
            if round > 0 {
                seen.windows.push(window);
                seen.relayed.extend(relayed);
            }
        }
        Ok(seen)
    }

    async fn window(
        &self,
        rig: &Rig,
        pace: &str,
        is_stream: bool,
        callers: usize,
        seconds: u64,
    ) -> Result<(Window, Option<f64>)> {
        let body = request(ALIAS, 1 << 10, is_stream);
        let to = self.envoy.addr();
        self.provider.timings().await?;
        let meter = Meter::start(self.consort.id()?, self.envoy.id())?;
        if pace == "0" {
            let ask = Ask { path: CHAT, body, connections: callers, seconds };
            return Ok((meter.stop(rig.generator.run(to, &ask).await?)?, None));
        }
        let runs = caller::run(to, &body, callers, seconds).await?;
        let metered = meter.stop(Window::default())?;
        let timings = self.provider.timings().await?;
        let seen = window(&runs, &timings, caller::added);
        let mut relayed: Vec<f64> = runs.iter().filter_map(|run| caller::relayed(run, &timings)).collect();
        let relayed = is_stream.then(|| quantile(&mut relayed, 0.5) * 1e3);
        let Window { processor_cpu, envoy_cpu, .. } = metered;
        Ok((Window { processor_cpu, envoy_cpu, ..seen }, relayed))
    }
}

impl Cells {
    fn stat(&self, measure: impl Fn(&Window) -> f64) -> Stat {
        Stat::of(self.windows.iter().filter(|window| window.is_valid()).map(measure))
    }

    fn row(&self, is_stream: bool, callers: usize) -> Vec<Cell> {
        let relayed = Stat::of(self.relayed.iter().copied());
        vec![
            Cell::from(if is_stream { "streamed" } else { "plain" }),
            Cell::from(callers.to_string()),
            self.stat(Window::per_second).into(),
            self.stat(|window| window.p50_ms).into(),
            self.stat(|window| window.p99_ms).into(),
            self.stat(Window::processor_ms).into(),
            self.stat(Window::envoy_ms).into(),
            if relayed.n > 0 { relayed.into() } else { Cell::from("–") },
        ]
    }

    fn targets(&self, pace: &str, is_stream: bool, callers: usize) -> Vec<Target> {
        match (pace, is_stream, callers) {
            ("0", false, 64) => vec![Target::new(
                "ensembles per CPU second of Consort, 0 ms providers, plain, c = 64",
                Bound::AtLeast(3000.0),
                self.stat(|window| 1e3 / window.processor_ms()),
                "/s",
            )],
            ("50", false, 64) => vec![
                Target::new(
                    "added latency, 50 ms providers, c = 64, p50",
                    Bound::AtMost(1.0),
                    self.stat(|window| window.p50_ms),
                    " ms",
                ),
                Target::new("… p99", Bound::AtMost(10.0), self.stat(|window| window.p99_ms), " ms"),
            ],
            ("50", true, 16) => vec![Target::new(
                "judge's first byte → caller's first byte, through Envoy, c = 16, p50",
                Bound::AtMost(1.0),
                Stat::of(self.relayed.iter().copied()),
                " ms",
            )],
            _ => Vec::new(),
        }
    }
}
