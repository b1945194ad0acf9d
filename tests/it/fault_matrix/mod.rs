//! Every part of an installation fails while three runs are under way: one waits for its panel, one for its judge, one
//! streams. What their callers see, what is recorded, and how soon a fresh request is answered as if nothing had been.
//!
//! The words of the tables are those of docs/operations.md. What faults of a single provider come to in each seat is
//! `fault_table`; what the limits do without their Redis, `redis`; drains, `drain` and `rolling`.

mod bill;
mod heard;
mod rig;

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use self::rig::{DEADLINE, Fault, Rig};
use crate::stack::ms;

/// When Envoy gives up a connection on which nothing is answered: `connection_keepalive`, interval and timeout.
const KEEPALIVE: Duration = ms(15_000 + 5_000);
/// What a machine that has other things to do may add to a bound.
const MARGIN: Duration = ms(4_000);

/// A row: what fails, what the three callers see, in which of these ways their runs may be recorded, and within what time
/// from its mending a fresh request is answered.
struct Row {
    fault: Fault,
    sees: [&'static str; 3],
    recorded: [&'static [&'static str]; 3],
    well_within: Duration,
}

fn row(
    fault: Fault,
    sees: [&'static str; 3],
    recorded: [&'static [&'static str]; 3],
    well_within: u64,
) -> Row {
    Row { fault, sees, recorded, well_within: ms(well_within) }
}

/// Whoever has gone by then, nobody noticed.
const UNHURT: ([&str; 3], [&[&str]; 3]) = (["200 full"; 3], [&["full"]; 3]);
/// Envoy has lost Consort: it tells its callers at once.
const LOST: [&str; 3] = ["503", "503", "200, broken off"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_consort_fails() {
    all([
        // The process that takes its place finds them in the journal.
        row(Fault::ConsortKilled, LOST, [&["failed"]; 3], 20_000),
        // Thawed, Consort finds all at once that its caller has left, that its calls' time is up, and what the provider
        // has said meanwhile: whichever it looks at first. The one whose member was late has no time for its judge.
        row(
            Fault::ConsortFrozen,
            LOST,
            [
                &["cancelled", "degraded"],
                &["cancelled", "degraded", "full"],
                &["cancelled", "failed", "full"],
            ],
            20_000,
        ),
        row(Fault::ConsortUnreachable, LOST, [&["cancelled"]; 3], 20_000),
        // Nothing tells Consort that its words do not arrive.
        row(Fault::ConsortSilent, LOST, [&["full"]; 3], 20_000),
        row(Fault::ConsortDelayed, UNHURT.0, UNHURT.1, 20_000),
        row(Fault::ConsortLossy, UNHURT.0, UNHURT.1, 20_000),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_envoy_fails() {
    all([
        row(Fault::EnvoyDrained, UNHURT.0, UNHURT.1, 20_000),
        row(Fault::EnvoyKilled, ["cut", "cut", "200, broken off"], [&["cancelled"]; 3], 20_000),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_provider_fails() {
    const SEEN: [&str; 3] = ["200 degraded", "200 degraded", "200, then judge_failed"];
    const RECORDED: [&[&str]; 3] = [&["degraded"], &["degraded"], &["failed"]];
    all([
        row(Fault::ProviderKilled, SEEN, RECORDED, 5_000),
        row(Fault::ProviderFrozen, SEEN, RECORDED, 10_000),
        row(
            Fault::BodyCut,
            ["200 quorum", "200 degraded", "200, then judge_failed"],
            [&["quorum"], &["degraded"], &["failed"]],
            5_000,
        ),
        row(Fault::ProviderDelayed, UNHURT.0, UNHURT.1, 5_000),
        row(Fault::ProviderLossy, UNHURT.0, UNHURT.1, 5_000),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_what_consort_writes_to_or_reads_from_fails() {
    all([
        row(Fault::RedisGone, UNHURT.0, UNHURT.1, 5_000),
        // What was admitted goes on.
        row(Fault::RedisGoneClosed, UNHURT.0, UNHURT.1, 5_000),
        row(Fault::DiskFull, UNHURT.0, UNHURT.1, 5_000),
        row(Fault::ClockAhead, UNHURT.0, UNHURT.1, 5_000),
        row(Fault::ClockBack, UNHURT.0, UNHURT.1, 5_000),
    ])
    .await;
}

async fn all(rows: impl IntoIterator<Item = Row>) {
    let wrong = join_all(rows.into_iter().map(faults)).await.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Everything that is not as the row says.
async fn faults(row: Row) -> Vec<String> {
    let Some(mut rig) = Rig::start(row.fault).await else { return Vec::new() };
    let asked = Instant::now();
    let callers = rig.three_callers().await;
    let patience = match row.fault {
        Fault::ConsortFrozen | Fault::ConsortSilent => asked.elapsed() + KEEPALIVE + MARGIN,
        _ => DEADLINE + MARGIN,
    };
    rig.strike().await;
    let heard = callers.heard().await;
    let mut wrong = Vec::new();
    for ((id, heard), sees) in rig::PHASES.into_iter().zip(heard).zip(row.sees) {
        let told = heard.told(id);
        if told != sees {
            wrong.push(format!("{:?}, {id}: {told}, not {sees} (after {:?})", row.fault, heard.took));
        }
        if heard.took > patience {
            wrong.push(format!("{:?}, {id}: took {:?}, more than {patience:?}", row.fault, heard.took));
        }
    }
    wrong.extend(rig.meanwhile().await);
    rig.mend().await;
    let well = rig.until_well(&mut wrong).await;
    if well > row.well_within {
        wrong.push(format!("{:?}: well after {well:?}", row.fault));
    }
    for (id, recorded) in rig::PHASES.into_iter().zip(row.recorded) {
        wrong.extend(rig.recorded(id, recorded).await);
    }
    wrong.extend(rig.at_last().await);
    eprintln!("{:?}: well after {well:?}", row.fault);
    wrong
}
