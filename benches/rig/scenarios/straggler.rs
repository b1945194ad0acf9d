//! Two of three are enough, and the third never answers.

use super::{request, window};
use crate::caller::{self, Run};
use crate::cores::{Layout, allowed, pin_self};
use crate::report::{Bound, Cell, Findings, Table, Target};
use crate::stand::{ALIAS, Attachment, Consort, Part, config, envoy};
use crate::stats::{Stat, Window};
use crate::{Result, Rig};

/// How long the third is waited for, once two have answered.
const GRACE_MS: f64 = 100.0;
/// How long it is waited for without a grace.
const TIMEOUT_MS: f64 = 500.0;

pub async fn find(rig: &Rig) -> Result<Findings> {
    let layout = Layout::for_ensembles();
    let mut found = Findings::default();
    let mut rows = Vec::new();
    for (name, fields, waits_ms) in [
        ("grace of 100 ms", "timeout_ms: 5000, straggler_grace_ms: 100", Some(GRACE_MS)),
        ("no grace, a timeout of 500 ms", "timeout_ms: 500", None),
    ] {
        rig.say(format!("straggler: {name}"));
        let provider = Part::provider(&layout.provider).await?;
        let fields = format!("min_responses: 2, {fields}");
        // A model that always times out would cool down, and no longer be waited for.
        let paces = config(provider.addr, &["20", "20", "stall"], "20", &fields, "");
        let config =
            paces.replace("model_name: m}", "model_name: m, retries: 0, cooldown: {enabled: false}}");
        let consort = Consort::start(&rig.consort, &config, &layout.processor).await?;
        let envoy = envoy(Attachment::Shipped, consort.addr, provider.addr, &layout.envoy).await?;
        pin_self(&layout.generator);
        let mut windows: Vec<Window> = Vec::new();
        for round in 0..=rig.choose(3, 1) {
            let runs =
                caller::run(envoy.addr(), &request(ALIAS, 1 << 10, false), 16, rig.choose(2, 1)).await?;
            let timings = provider.timings().await?;
            // Beyond what has to be waited for: the two and their grace, or the third's timeout; and the judge.
            let beyond = |run: &Run, timings: &_| match waits_ms {
                Some(grace) => Some(caller::added(run, timings)? - grace / 1e3),
                None => {
                    let of: &std::collections::HashMap<String, crate::provider::Timing> = timings;
                    Some(run.seconds() - of.get(&run.id)?.judge as f64 / 1e9 - TIMEOUT_MS / 1e3)
                }
            };
            if round > 0 {
                windows.push(window(&runs, &timings, beyond));
            }
        }
        pin_self(&allowed());
        found.invalid_windows += windows.iter().filter(|window| !window.is_valid()).count();
        let stat = |measure: fn(&Window) -> f64| {
            Stat::of(windows.iter().filter(|window| window.is_valid()).map(measure))
        };
        let (p50, p99) = (stat(|window| window.p50_ms), stat(|window| window.p99_ms));
        rows.push(vec![Cell::from(name), stat(Window::per_second).into(), p50.into(), p99.into()]);
        if waits_ms.is_some() {
            found.targets.push(Target::new(
                "straggler: beyond grace and judge, p50",
                Bound::AtMost(10.0),
                p50,
                " ms",
            ));
            found.targets.push(Target::new("… p99", Bound::AtMost(10.0), p99, " ms"));
        }
    }
    found.tables.push(Table {
        title: "Straggler: 2 of 3 are enough, the third never answers; c = 16",
        note: "What a run takes beyond its two members, the grace and the judge; without a grace, beyond the timeout and the judge.",
        columns: vec!["", "runs/s", "beyond, p50 ms", "beyond, p99 ms"],
        rows,
    });
    Ok(found)
}
