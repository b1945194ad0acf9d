//! A body of 10 MB with images, for five members and a judge.

use crate::caller;
use crate::cores::{Layout, forget_peak, resident};
use crate::report::{Bound, Cell, Findings, Table, Target};
use crate::stand::{ALIAS, Attachment, Consort, Part, config, envoy};
use crate::stats::Stat;
use crate::{Result, Rig};

const BODY: usize = 10_000_000;
const IMAGES: usize = 5;

pub async fn find(rig: &Rig) -> Result<Findings> {
    rig.say("big: starting");
    let layout = Layout::for_ensembles();
    let provider = Part::provider(&layout.provider).await?;
    let config = config(provider.addr, &["50"; 5], "50", "min_responses: 5", "");
    let body = with_images();
    let mut counted = Consort::start_counted(&rig.counted, &config, &layout.processor).await?;
    let through = envoy(Attachment::Shipped, counted.addr, provider.addr, &layout.envoy).await?;
    let (mut peaks, mut failed) = (Vec::new(), 0);
    for round in 0..=rig.choose(5, 2) {
        rig.say(format!("big: heap, round {round}"));
        let (before, _) = counted.heap().await?;
        failed += usize::from(!caller::once(through.addr(), &body).await?.is_answered);
        let (_, peak) = counted.heap().await?;
        if round > 0 {
            peaks.push(peak.saturating_sub(before) as f64 / 1e6);
        }
    }
    drop(through);
    let consort = Consort::start(&rig.consort, &config, &layout.processor).await?;
    let through = envoy(Attachment::Shipped, consort.addr, provider.addr, &layout.envoy).await?;
    let mut resident_peaks = Vec::new();
    for round in 0..=rig.choose(5, 2) {
        rig.say(format!("big: resident memory, round {round}"));
        forget_peak(consort.id()?)?;
        let (before, _) = resident(consort.id()?)?;
        failed += usize::from(!caller::once(through.addr(), &body).await?.is_answered);
        let (_, peak) = resident(consort.id()?)?;
        if round == 0 {
            resident_peaks.push(peak.saturating_sub(before) as f64 / 1e6);
        }
    }
    let (_, settled) = resident(consort.id()?)?;
    let heap = Stat::of(peaks);
    let size = body.len() as f64 / 1e6;
    let target = Target::new(
        "peak heap for a body of 10 MB to 5 members and a judge",
        Bound::AtMost(1.2 * size + 2.0),
        heap,
        " MB",
    );
    let table = Table {
        title: "Big bodies: 10 MB with images, 5 members and a judge, one run at a time",
        note: "The heap is what Consort's allocator handed out at the most, beyond what it had handed out before. Resident memory is of the program as it is shipped.",
        columns: vec!["body MB", "peak heap MB", "RSS grown by the first run, MB", "peak RSS after all, MB"],
        rows: vec![vec![
            Cell::from(format!("{size:.1}")),
            heap.into(),
            Stat::of(resident_peaks).into(),
            Stat::exactly(settled as f64 / 1e6).into(),
        ]],
    };
    Ok(Findings { targets: vec![target], tables: vec![table], invalid_windows: failed })
}

/// A question about images, each in base64 as callers send them.
fn with_images() -> String {
    let pixels: String =
        "iVBORw0KGgoAAAANSUhEUgAAB9AAAAfQCAYAAACaOMR5".chars().cycle().take(BODY / IMAGES).collect();
    let image = format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{pixels}"}}}}"#);
    let images = vec![image; IMAGES].join(",");
    format!(
        r#"{{"model":"{ALIAS}","messages":[{{"role":"user","content":[{{"type":"text","text":"What differs?"}},{images}]}}]}}"#
    )
}
