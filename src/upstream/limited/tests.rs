use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::*;
use crate::chat::Body;
use crate::limits::{Cooldown, Cooldowns, Rate, Role, Window};
use crate::telemetry::Attempts;
use crate::upstream::fixture::{self, Scripted, fails, says, status};
use crate::upstream::{DirectModel, Passed, Retrying};

const MS: Duration = Duration::from_millis(1);

fn limit(windows: &[(Rate, u64)], concurrency: u64, wait: Duration) -> RateLimit {
    let window = |(rate, limit): &(Rate, u64)| Window { rate: *rate, limit: (*limit).try_into().unwrap() };
    RateLimit {
        windows: windows.iter().map(window).collect(),
        concurrency: concurrency.try_into().ok(),
        wait,
    }
}

fn model(rate_limit: RateLimit) -> DirectModel {
    let mut model = Arc::into_inner(fixture::model("m")).unwrap();
    model.rate_limit = Some(rate_limit);
    model
}

fn call(model: &Arc<DirectModel>, body: &str) -> Call {
    Call {
        model: Arc::clone(model),
        body: Body::from_chunks([Bytes::from(body.to_owned())]),
        max_tokens: None,
        stream: false,
        passed: Arc::new(Passed::default()),
        bounds: Bounds::default(),
        attempts: Arc::new(Attempts::default()),
    }
}

async fn used(limiter: &Limiter, model: &DirectModel) -> Vec<u64> {
    let levels = limiter.view(&model.name, None, model.rate_limit.as_ref().unwrap()).await.unwrap();
    levels.into_iter().map(|level| level.used).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_counts_once_with_its_retries_and_is_in_flight_until_it_is_dropped() {
    let mut model = model(limit(&[(Rate::Rpm, 5), (Rate::Tpm, 9000)], 3, Duration::ZERO));
    model.retries = 2;
    let model = Arc::new(model);
    let limiter = Limiter::default();
    let down = Arc::new(Scripted::default().model("m", fails(1, || status(503, "", None))));
    let retrying = Arc::new(Retrying::new(Arc::clone(&down), Cooldowns::default()));
    let failed = Limited::new(retrying, limiter.clone()).call(call(&model, "{}")).await;
    assert!(failed.is_err());
    let attempts = down.calls.lock().unwrap().len();
    assert_eq!((attempts, used(&limiter, &model).await), (3, vec![1, 0, 0]));
    let up = Limited::new(Arc::new(Scripted::default().model("m", says(1, "x"))), limiter.clone());
    let answering = Call { max_tokens: Some(100), ..call(&model, r#"{"max_tokens": 500, "x": "long"}"#) };
    let attempts = Arc::clone(&answering.attempts);
    let mut events = up.call(answering).await.ok().unwrap();
    assert_eq!(used(&limiter, &model).await, [2, 8 + 100, 1]);
    while events.next().await.is_some() {}
    drop((events, attempts));
    assert_eq!(used(&limiter, &model).await, [2, 0, 0], "nobody has told what it cost");
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_cooling_model_counts_nothing() {
    let mut model = model(limit(&[(Rate::Rpm, 1), (Rate::Tpm, 9000)], 1, Duration::ZERO));
    let rules =
        Cooldown { failures: NonZeroU32::MIN, first: 9000 * MS, longest: 9000 * MS, statuses: [503].into() };
    model.cooldown = Some(rules.clone());
    let (model, limiter, cooldowns) = (Arc::new(model), Limiter::default(), Cooldowns::default());
    cooldowns.admit(&model.name, &rules, Role::Caller).unwrap().failed("x", None);
    let up = Arc::new(Retrying::new(Arc::new(Scripted::default().model("m", says(1, "x"))), cooldowns));
    let limited = Limited::new(up, limiter.clone());
    for _ in 0..3 {
        let failed = limited.call(call(&model, "{}")).await.err().unwrap();
        assert!(matches!(failed, Failure::Cooling { .. }), "{failed:?}");
    }
    assert_eq!(used(&limiter, &model).await, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cooling_model_is_known_before_there_is_room() {
    let mut model = model(limit(&[(Rate::Rps, 1)], 0, 1500 * MS));
    let rules =
        Cooldown { failures: NonZeroU32::MIN, first: 9000 * MS, longest: 9000 * MS, statuses: [503].into() };
    model.cooldown = Some(rules.clone());
    let (model, cooldowns) = (Arc::new(model), Cooldowns::default());
    let up = Retrying::new(Arc::new(Scripted::default().model("m", says(0, "x"))), cooldowns.clone());
    let limited = Limited::new(Arc::new(up), Limiter::default()).sparing(cooldowns.clone());
    assert!(limited.call(call(&model, "{}")).await.is_ok());
    cooldowns.admit(&model.name, &rules, Role::Caller).unwrap().failed("x", None);
    let began = Instant::now();
    let failed = limited.call(call(&model, "{}")).await.err().unwrap();
    assert!(matches!(failed, Failure::Cooling { .. }), "{failed:?}");
    assert_eq!(began.elapsed(), Duration::ZERO);
    tokio::time::advance(9000 * MS).await;
    assert!(limited.call(call(&model, "{}")).await.is_ok(), "the look has left the probe to the call");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_room_as_long_as_it_may() {
    let began = Instant::now();
    let model = Arc::new(model(limit(&[(Rate::Rps, 1)], 0, 1500 * MS)));
    let up = Limited::new(Arc::new(Scripted::default().model("m", says(0, "x"))), Limiter::default());
    for expected in [0, 1000, 2000] {
        assert!(up.call(call(&model, "{}")).await.is_ok());
        assert_eq!(began.elapsed().as_millis(), expected);
    }
    let bounds = Bounds { timeout: Some(Instant::now() + 900 * MS), deadline: None };
    let failed = up.call(Call { bounds, ..call(&model, "{}") }).await.err().unwrap();
    assert!(matches!(failed, Failure::Limited { retry_after } if retry_after == 1000 * MS), "{failed:?}");
    assert_eq!(began.elapsed().as_millis(), 2000, "it is known at once that it would be in vain");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_end_of_another_one_as_well() {
    let model = Arc::new(model(limit(&[], 1, 300 * MS)));
    let up =
        Arc::new(Limited::new(Arc::new(Scripted::default().model("m", says(0, "x"))), Limiter::default()));
    let first = up.call(call(&model, "{}")).await.ok().unwrap();
    let failed = up.call(call(&model, "{}")).await.err().unwrap();
    assert!(matches!(failed, Failure::Limited { .. }), "{failed:?}");
    let (began, second) = (Instant::now(), up.call(call(&model, "{}")));
    let (second, ()) = tokio::join!(second, async {
        tokio::time::sleep(90 * MS).await;
        drop(first);
    });
    assert!(second.is_ok() && began.elapsed() == 100 * MS, "{:?}", began.elapsed());
}

/// Notes whether a call that has waited may still cool its model.
struct Bounded(AtomicU32);

impl Caller for Bounded {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        self.0.fetch_add(u32::from(call.bounds.overdue().is_some()), Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(futures_util::stream::empty().boxed())))
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_on_waiting_is_not_held_against_the_model() {
    let model = Arc::new(model(limit(&[(Rate::Rps, 1)], 0, 5000 * MS)));
    let bounded = Arc::new(Bounded(AtomicU32::new(0)));
    let limited = Limited::new(Arc::clone(&bounded), Limiter::default());
    for _ in 0..2 {
        let bounds = Bounds { timeout: Some(Instant::now() + 5000 * MS), deadline: None };
        assert!(limited.call(Call { bounds, ..call(&model, "{}") }).await.is_ok());
        assert_eq!(bounded.0.load(Ordering::Relaxed), 1, "the first one's");
    }
}
