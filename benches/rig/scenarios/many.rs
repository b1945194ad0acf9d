//! Ten thousand runs that wait at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::request;
use crate::caller;
use crate::cores::{Layout, resident};
use crate::report::{Bound, Cell, Findings, Table, Target};
use crate::stand::{ALIAS, Attachment, Consort, Part, config, envoy};
use crate::stats::Stat;
use crate::{Result, Rig};

const MEMBERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn find(rig: &Rig) -> Result<Findings> {
    let runs = rig.choose(10_000, 1_000);
    rig.say(format!("many: {runs} runs"));
    let layout = Layout::for_ensembles();
    let provider = Part::provider(&layout.provider).await?;
    // Three calls of each run on connections of their own would be more sockets than a process may have.
    let config =
        config(provider.addr, &["hold"; MEMBERS], "0", "min_responses: 3", ", http2: prior_knowledge");
    let consort = Consort::start(&rig.consort, &config, &layout.processor).await?;
    let envoy = envoy(Attachment::Shipped, consort.addr, provider.addr, &layout.envoy).await?;
    let body = request(ALIAS, 1 << 10, false);
    // Connections and threads are no matter of runs.
    let warm = tokio::spawn(caller::crowd(envoy.addr(), &body, 50));
    held(&provider, 50 * MEMBERS).await?;
    provider.release().await;
    warm.await??;
    let ((before, _), (envoy_before, _)) = (resident(consort.id()?)?, resident(envoy.id())?);
    let began = Instant::now();
    let crowd = tokio::spawn(caller::crowd(envoy.addr(), &body, runs));
    let held = held(&provider, runs * MEMBERS).await?;
    let gathered = began.elapsed();
    let ((waiting, _), (envoy_waiting, _)) = (resident(consort.id()?)?, resident(envoy.id())?);
    let released = Instant::now();
    provider.release().await;
    let runs_made = crowd.await??;
    let answered = runs_made.iter().filter(|run| run.is_answered).count();
    let mut refused = BTreeMap::<u16, usize>::new();
    for run in runs_made.iter().filter(|run| !run.is_answered) {
        *refused.entry(run.status.as_u16()).or_default() += 1;
    }
    rig.say(format!("many: {answered} answered, others by status: {refused:?}"));
    let each =
        |before: u64, now: u64| Stat::exactly(now.saturating_sub(before) as f64 / 1024.0 / runs as f64);
    let failed = (runs - answered) as f64;
    let targets = vec![
        Target::new("RSS per waiting run, small body", Bound::AtMost(40.0), each(before, waiting), " KiB"),
        Target::new("waiting runs that failed", Bound::AtMost(0.0), Stat::exactly(failed), ""),
    ];
    let table = Table {
        title: "Many: runs that wait at once, through one Envoy",
        note: "Over HTTP/2 on both sides; each run has three calls on their way. All are released together.",
        columns: vec![
            "runs",
            "calls held",
            "answered",
            "gathered in s",
            "answered in s",
            "Consort's KiB per run",
            "Envoy's KiB per run",
        ],
        rows: vec![vec![
            Cell::from(runs.to_string()),
            Cell::from(held.to_string()),
            Cell::from(answered.to_string()),
            Stat::exactly(gathered.as_secs_f64()).into(),
            Stat::exactly(released.elapsed().as_secs_f64()).into(),
            each(before, waiting).into(),
            each(envoy_before, envoy_waiting).into(),
        ]],
    };
    Ok(Findings { targets, tables: vec![table], invalid_windows: usize::from(failed > 0.0) })
}

/// Waits until the provider holds so many calls, at most a minute; how many it holds then.
async fn held(provider: &Part, calls: usize) -> Result<usize> {
    let began = Instant::now();
    loop {
        let held = provider.held().await?;
        if held >= calls || began.elapsed() > PATIENCE {
            return Ok(held);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
