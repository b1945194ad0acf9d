//! Three times as many runs as the processor can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use http::StatusCode;

use super::request;
use crate::caller::{self, Run};
use crate::cores::{Layout, allowed, now, pin_self};
use crate::report::{Bound, Cell, Findings, Table, Target};
use crate::stand::{ALIAS, Attachment, Consort, Part, config, envoy};
use crate::stats::{Stat, quantile};
use crate::{Result, Rig};

/// Threads that share the processor's core and never rest: what it can do is a quarter then, so that the rest of the rig
/// can ask for three times as much on the same machine.
const BALLAST: usize = 3;
/// The share of a load that is no steady state: a second's crowd is let in before it counts as one that lasts.
const BEGINNING: f64 = 1.0 / 3.0;
/// How long it rests between two looks whether all is normal again.
const LOOK: Duration = Duration::from_millis(100);

pub async fn find(rig: &Rig) -> Result<Findings> {
    let variants = [
        ("as shipped", Attachment::Shipped, "max_lateness_ms: 50"),
        ("with the gate", Attachment::Gated, "max_lateness_ms: 50"),
        ("max_lateness_ms: 10", Attachment::Shipped, "max_lateness_ms: 10"),
        ("max_lateness_ms: 0 (off)", Attachment::Shipped, "max_lateness_ms: 0"),
    ];
    let mut found = Findings::default();
    let mut rows = Vec::new();
    for (name, attachment, limit) in variants {
        rig.say(format!("overload: {name}"));
        let seen = seen(rig, attachment, limit).await?;
        rows.push(seen.row(name));
        match attachment {
            Attachment::Gated => found.targets.extend(seen.targets_of_the_gate()),
            _ if name == "as shipped" => found.targets.extend(seen.targets()),
            _ => {}
        }
    }
    found.tables.push(Table {
        title: "Overload: three times as many runs as the processor can do",
        note: "Streamed runs of some 500 words by 3 members and a judge of 0 ms; the processor has a quarter of its core. The peak is that of callers who wait for their answers; the load does not wait. Plain requests are sent every 20 ms.",
        columns: vec![
            "",
            "peak, runs/s",
            "asked/s",
            "goodput, runs/s",
            "refused",
            "refused after, p50; p99 ms",
            "plain, idle: p50; p99 ms",
            "plain, at the peak",
            "plain, overloaded",
            "normal after s",
        ],
        rows,
    });
    Ok(found)
}

/// What came of one variant; times in ms.
struct Seen {
    peak: f64,
    asked: f64,
    goodput: f64,
    refused: usize,
    refused_after: [f64; 2],
    idle: [f64; 2],
    at_peak: [f64; 2],
    overloaded: [f64; 2],
    normal_after: f64,
}

async fn seen(rig: &Rig, attachment: Attachment, limit: &str) -> Result<Seen> {
    let layout = Layout::for_ensembles();
    let provider = Part::provider(&layout.provider).await?;
    let config = config(provider.addr, &["long"; 3], "long", "min_responses: 3", "");
    let config = config.replace("max_inflight: 20000", &format!("max_inflight: 20000, {limit}"));
    let consort = Consort::start(&rig.consort, &config, &layout.processor).await?;
    let envoy = envoy(attachment, consort.addr, provider.addr, &layout.envoy).await?;
    let (to, body) = (envoy.addr(), request(ALIAS, 1 << 10, true));
    let _ballast = Ballast::on(layout.processor.clone());
    pin_self(&layout.generator);

    let idle = plain(to, rig.choose(3.0, 1.0)).await?;
    let (mut peak, mut at_peak) = (0.0, idle);
    for callers in [8, 32] {
        let seconds = rig.choose(5, 2);
        let (runs, plain) =
            tokio::try_join!(caller::run(to, &body, callers, seconds), plain(to, seconds as f64))?;
        let answered = goodput(&runs, 1.0, seconds as f64);
        if answered > peak {
            (peak, at_peak) = (answered, plain);
        }
    }
    let (asked, seconds) = (3.0 * peak, rig.choose(24.0, 6.0));
    let (runs, (overloaded, normal_after)) =
        tokio::try_join!(caller::apart(to, &body, asked, seconds), async {
            let overloaded = plain(to, seconds).await?;
            Ok((overloaded, normal_after(to, &body, idle).await?))
        })?;
    pin_self(&allowed());

    let mut refused: Vec<f64> = Vec::new();
    for run in runs.iter().filter(|run| !run.is_answered) {
        if run.status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(format!("a run under overload: {run:?}").into());
        }
        refused.push(run.seconds() * 1e3);
    }
    Ok(Seen {
        peak,
        asked,
        goodput: goodput(&runs, BEGINNING * seconds, seconds),
        refused: refused.len(),
        refused_after: quantiles(&mut refused),
        idle,
        at_peak,
        overloaded,
        normal_after,
    })
}

/// Runs that were answered, a second, between these two times after the first began.
fn goodput(runs: &[Run], from: f64, to: f64) -> f64 {
    let begun = runs.iter().map(|run| run.begun).min().unwrap_or_default();
    let ended = |run: &&Run| (from..to).contains(&((run.ended - begun) as f64 / 1e9));
    runs.iter().filter(|run| run.is_answered).filter(ended).count() as f64 / (to - from)
}

/// Asks a plain model for so long; how long answers took, in ms.
async fn plain(to: SocketAddr, seconds: f64) -> Result<[f64; 2]> {
    let body = request("plain", 1 << 10, false);
    let runs = caller::apart(to, &body, 50.0, seconds).await?;
    let answered = runs.iter().filter(|run| run.is_answered).count();
    if answered < runs.len() {
        return Err(format!("{answered} of {} plain requests were answered", runs.len()).into());
    }
    Ok(quantiles(&mut runs.iter().map(|run| run.seconds() * 1e3).collect::<Vec<f64>>()))
}

/// After how many seconds runs are answered again, several at once, and plain requests as quickly as before, or almost.
async fn normal_after(to: SocketAddr, body: &str, idle: [f64; 2]) -> Result<f64> {
    let began = now();
    loop {
        let runs = caller::apart(to, body, 100.0, 0.05).await?;
        let [p50, _] = plain(to, 0.2).await?;
        let since = (now() - began) as f64 / 1e9;
        if runs.iter().all(|run| run.is_answered) && p50 < 2.0 * idle[0] + 5.0 {
            return Ok(since);
        }
        if since > 300.0 {
            return Err("nothing is normal five minutes after the load".into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn quantiles(values: &mut [f64]) -> [f64; 2] {
    [quantile(values, 0.5), quantile(values, 0.99)]
}

impl Seen {
    fn row(&self, name: &str) -> Vec<Cell> {
        let number = |value: f64| Cell::from(Stat::exactly(value));
        let times = |[p50, p99]: [f64; 2]| Cell::from(format!("{p50:.1}; {p99:.1}"));
        vec![
            Cell::from(name),
            number(self.peak),
            number(self.asked),
            number(self.goodput),
            Cell::from(self.refused.to_string()),
            times(self.refused_after),
            times(self.idle),
            times(self.at_peak),
            times(self.overloaded),
            number(self.normal_after),
        ]
    }

    fn targets(&self) -> Vec<Target> {
        let exactly = Stat::exactly;
        vec![
            Target::new(
                "overload: goodput at three times the peak / the peak",
                Bound::AtLeast(0.9),
                exactly(self.goodput / self.peak),
                "",
            ),
            Target::new("… all is normal again after", Bound::AtMost(5.0), exactly(self.normal_after), " s"),
        ]
    }

    /// Plain requests that never reach the processor.
    fn targets_of_the_gate(&self) -> Vec<Target> {
        let value = Stat::exactly(self.overloaded[0] / self.at_peak[0]);
        vec![Target::new(
            "… with the gate, plain requests, p50: overloaded / at the peak",
            Bound::AtMost(1.5),
            value,
            "",
        )]
    }
}

/// Threads that never rest, until this is dropped.
struct Ballast(Arc<AtomicBool>);

impl Ballast {
    fn on(cores: Vec<usize>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..BALLAST {
            let (is_over, cores) = (Arc::clone(&is_over), cores.clone());
            thread::spawn(move || {
                pin_self(&cores);
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(is_over)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
