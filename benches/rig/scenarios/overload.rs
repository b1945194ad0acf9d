//! Three times as many runs as the processor can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use http::StatusCode;

use super::request;
use crate::caller::{self, Run};
use crate::cores::{Layout, allowed, cpu_seconds, now, pin_self};
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
    let rounds = rig.choose(3, 1);
    let variants = [
        ("as shipped", Attachment::Shipped, "max_lateness_ms: 50", rounds),
        ("with the gate", Attachment::Gated, "max_lateness_ms: 50", rounds),
        ("max_lateness_ms: 10", Attachment::Shipped, "max_lateness_ms: 10", rounds),
        // It takes minutes until nothing is left of a round.
        ("max_lateness_ms: 0 (off)", Attachment::Shipped, "max_lateness_ms: 0", 1),
    ];
    let mut found = Findings::default();
    let mut rows = Vec::new();
    for (name, attachment, limit, rounds) in variants {
        rig.say(format!("overload: {name}"));
        let seen = seen(rig, attachment, limit, rounds).await?;
        rows.push(row(name, &seen));
        match attachment {
            Attachment::Gated => found.targets.extend(targets_of_the_gate(&seen)),
            _ if name == "as shipped" => found.targets.extend(targets(&seen)),
            _ => {}
        }
    }
    found.tables.push(Table {
        title: "Overload: three times as many runs as the processor can do",
        note: "Streamed runs of some 500 words by 3 members and a judge of 0 ms; the processor has a quarter of its core. The peak is that of callers who wait for their answers; the load does not wait. Plain requests are sent every 20 ms.",
        columns: vec![
            "",
            "peak, runs/s",
            "goodput, runs/s",
            "goodput / peak",
            "CPU ms for a run, at the peak",
            "overloaded",
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

/// What came of one round; times in ms.
struct Round {
    peak: Steady,
    overloaded: Steady,
    refused: usize,
    refused_after: [f64; 2],
    idle: [f64; 2],
    normal_after: f64,
}

/// What came of a load while it lasted.
#[derive(Clone, Copy)]
struct Steady {
    /// Runs that were answered, a second.
    goodput: f64,
    /// CPU time of the processor for each of them, in ms.
    cpu: f64,
    /// How long plain requests took meanwhile: p50 and p99, in ms.
    plain: [f64; 2],
}

async fn seen(rig: &Rig, attachment: Attachment, limit: &str, rounds: usize) -> Result<Vec<Round>> {
    let layout = Layout::for_ensembles();
    let provider = Part::provider(&layout.provider).await?;
    let config = config(provider.addr, &["long"; 3], "long", "min_responses: 3", "");
    let config = config.replace("max_inflight: 20000", &format!("max_inflight: 20000, {limit}"));
    let consort = Consort::start(&rig.consort, &config, &layout.processor).await?;
    let envoy = envoy(attachment, consort.addr, provider.addr, &layout.envoy).await?;
    let _ballast = Ballast::on(layout.processor.clone());
    pin_self(&layout.generator);
    let mut seen = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        seen.push(round(rig, envoy.addr(), consort.id()?).await?);
    }
    pin_self(&allowed());
    Ok(seen)
}

async fn round(rig: &Rig, to: SocketAddr, processor: u32) -> Result<Round> {
    let body = request(ALIAS, 1 << 10, true);
    let idle = plain(to, rig.choose(3.0, 1.0)).await?;
    let mut peak: Option<Steady> = None;
    for callers in [8, 32] {
        let seconds = rig.choose(6, 2);
        let span = [1.0, seconds as f64];
        let load = caller::run(to, &body, callers, seconds);
        let (runs, meanwhile) = tokio::try_join!(load, Meanwhile::seen(to, processor, span))?;
        let seen = meanwhile.of(&runs, span);
        if peak.is_none_or(|peak| seen.goodput > peak.goodput) {
            peak = Some(seen);
        }
    }
    let peak = peak.ok_or("there are loads to find the peak")?;
    let seconds = rig.choose(18.0, 6.0);
    let span = [BEGINNING * seconds, seconds];
    let load = caller::apart(to, &body, 3.0 * peak.goodput, seconds);
    let (runs, (meanwhile, normal_after)) = tokio::try_join!(load, async {
        let meanwhile = Meanwhile::seen(to, processor, span).await?;
        Ok((meanwhile, normal_after(to, &body, idle).await?))
    })?;

    let mut refused: Vec<f64> = Vec::new();
    for run in runs.iter().filter(|run| !run.is_answered) {
        if run.status != StatusCode::SERVICE_UNAVAILABLE {
            return Err(format!("a run under overload: {run:?}").into());
        }
        refused.push(run.seconds() * 1e3);
    }
    let overloaded = meanwhile.of(&runs, span);
    let refused_after = quantiles(&mut refused);
    Ok(Round { peak, overloaded, refused: refused.len(), refused_after, idle, normal_after })
}

/// What is seen of the processor while a load lasts.
struct Meanwhile {
    cpu_seconds: f64,
    plain: [f64; 2],
}

impl Meanwhile {
    /// What is seen from the load's beginning to the end of this span, and of the CPU time what falls into it.
    async fn seen(to: SocketAddr, processor: u32, [from, until]: [f64; 2]) -> Result<Self> {
        let (plain, cpu_seconds) = tokio::try_join!(plain(to, until), async {
            tokio::time::sleep(Duration::from_secs_f64(from)).await;
            let before = cpu_seconds(processor)?;
            tokio::time::sleep(Duration::from_secs_f64(until - from)).await;
            Ok(cpu_seconds(processor)? - before)
        })?;
        Ok(Self { cpu_seconds, plain })
    }

    /// With what was answered in the same span.
    fn of(self, runs: &[Run], [from, until]: [f64; 2]) -> Steady {
        let goodput = goodput(runs, from, until);
        Steady { goodput, cpu: self.cpu_seconds * 1e3 / (goodput * (until - from)), plain: self.plain }
    }
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

fn row(name: &str, seen: &[Round]) -> Vec<Cell> {
    let number = |value: fn(&Round) -> f64| Cell::from(stat(seen, value));
    let times = |of: fn(&Round) -> [f64; 2]| {
        let [p50, p99] = [0, 1].map(|which| Stat::of(seen.iter().map(|round| of(round)[which])).median);
        Cell::from(format!("{p50:.1}; {p99:.1}"))
    };
    vec![
        Cell::from(name),
        number(|round| round.peak.goodput),
        number(|round| round.overloaded.goodput),
        number(ratio),
        number(|round| round.peak.cpu),
        number(|round| round.overloaded.cpu),
        number(|round| round.refused as f64),
        times(|round| round.refused_after),
        times(|round| round.idle),
        times(|round| round.peak.plain),
        times(|round| round.overloaded.plain),
        number(|round| round.normal_after),
    ]
}

fn stat(seen: &[Round], value: impl Fn(&Round) -> f64) -> Stat {
    Stat::of(seen.iter().map(value))
}

fn ratio(round: &Round) -> f64 {
    round.overloaded.goodput / round.peak.goodput
}

fn targets(seen: &[Round]) -> Vec<Target> {
    let normal_after = stat(seen, |round| round.normal_after);
    vec![
        Target::new(
            "overload: goodput at three times the peak / the peak",
            Bound::AtLeast(0.9),
            stat(seen, ratio),
            "",
        ),
        Target::new("… all is normal again after", Bound::AtMost(5.0), normal_after, " s"),
    ]
}

/// Plain requests that never reach the processor.
fn targets_of_the_gate(seen: &[Round]) -> Vec<Target> {
    let value = stat(seen, |round| round.overloaded.plain[0] / round.peak.plain[0]);
    let what = "… with the gate, plain requests, p50: overloaded / at the peak";
    vec![Target::new(what, Bound::AtMost(1.5), value, "")]
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
