//! Whole runs over scripted callers, in paused time.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::*;
use crate::chat::{ApiError, Collected, Event, Usage};
use crate::ensemble::fixture::{self, Scripted, fails, says, status, streams};
use crate::ensemble::{Judge, Member, OnJudgeFailure, SingleCandidate};
use crate::telemetry::decision::Outcome as How;

fn panel() -> Scripted {
    Scripted::default()
        .model("a", says(10, "one"))
        .model("b", says(20, "two"))
        .model("c", says(30, "three"))
        .model("judge", says(5, "judged"))
}

fn request(body: &Value) -> Request {
    let mut body = body.clone();
    body["model"] = json!("team");
    if body.get("messages").is_none() {
        body["messages"] = json!([{"role": "user", "content": "why?"}]);
    }
    Request::parse(Bytes::from(body.to_string())).unwrap()
}

fn context() -> Context {
    Context { request_id: "request-1".into(), ..Context::default() }
}

async fn run(caller: Arc<Scripted>, ensemble: Ensemble, body: Value) -> Result<Outcome, Failed> {
    let runner = Runner::new(caller, Admission::new(8), 1 << 20);
    runner.admit(Arc::new(ensemble), context()).await?.run(request(&body), None).await
}

/// The answer's text, its outcome, its usage's sum and how long it took.
async fn answer(caller: &Arc<Scripted>, ensemble: Ensemble) -> (String, &'static str, u64, u128) {
    let began = Instant::now();
    let outcome = run(Arc::clone(caller), ensemble, json!({})).await.expect("an answer");
    let head = outcome.head.clone();
    let (text, usage) = collect(outcome).await;
    (text, head.outcome.unwrap().label(), usage.count("total_tokens"), began.elapsed().as_millis())
}

async fn collect(outcome: Outcome) -> (String, Usage) {
    let mut collected = Collected::default();
    let events: Vec<_> = outcome.events.collect().await;
    for event in events {
        collected.push(event.expect("no error")).unwrap();
    }
    let (completion, usage) = collected.finish().unwrap();
    (completion.content.unwrap_or_default(), usage)
}

async fn error(caller: Scripted, ensemble: Ensemble) -> (u16, String, ApiError) {
    let failed = run(Arc::new(caller), ensemble, json!({})).await.err().expect("an error");
    let code = failed.error.code.clone().unwrap_or_default().into_owned();
    (failed.error.status, code, *failed.error)
}

fn with(change: impl FnOnce(&mut Ensemble)) -> Ensemble {
    let mut ensemble = fixture::ensemble("team");
    change(&mut ensemble);
    ensemble
}

fn with_judge(change: impl FnOnce(&mut Judge)) -> Ensemble {
    with(|e| {
        let Strategy::Judge(judge) = &mut e.strategy else { unreachable!() };
        change(judge);
    })
}

fn down() -> Failure {
    status(503, "secret host down", None)
}

#[tokio::test(start_paused = true)]
async fn a_judge_answers_from_a_full_panel_and_everything_billed_is_summed() {
    let caller = Arc::new(panel());
    assert_eq!(answer(&caller, fixture::ensemble("team")).await, ("judged".to_owned(), "full", 60, 35));
    let calls = caller.calls.lock().unwrap();
    assert_eq!(calls.iter().map(|(m, _)| &**m).collect::<Vec<_>>(), ["a", "b", "c", "judge"]);
    let judge = &calls[3].1;
    assert_eq!(judge["model"], "provider/judge");
    assert_eq!(judge["messages"][0], json!({"role": "user", "content": "why?"}));
    let prompt = judge["messages"][1]["content"].as_str().unwrap();
    assert!(
        ["one", "two", "three"].iter().all(|text| prompt.contains(text)) && !prompt.contains("provider/")
    );
}

#[tokio::test(start_paused = true)]
async fn stragglers_are_cancelled_after_the_grace_and_waited_for_without_one() {
    let slow = || Arc::new(panel().model("c", says(5000, "late")));
    let graced = slow();
    let quick = with(|e| e.straggler_grace = Some(Duration::from_millis(100)));
    assert_eq!(answer(&graced, quick).await, ("judged".to_owned(), "quorum", 45, 20 + 100 + 5));
    assert_eq!(graced.open.load(Ordering::Relaxed), 0);
    assert_eq!(answer(&slow(), fixture::ensemble("team")).await.3, 5005);
    let timed = with(|e| e.timeout = Some(Duration::from_secs(1)));
    assert_eq!(answer(&slow(), timed).await, ("judged".to_owned(), "quorum", 45, 1005));
}

#[tokio::test(start_paused = true)]
async fn best_effort_and_fallback_go_on_without_a_quorum() {
    let one = || {
        Arc::new(
            panel().model("a", fails(1, down)).model("b", fails(2, down)).model("spare", says(7, "spare")),
        )
    };
    let best_effort = with(|e| e.on_quorum_failure = OnQuorumFailure::BestEffort);
    assert_eq!(answer(&one(), best_effort).await, ("three".to_owned(), "degraded", 15, 30));
    let fallback = with(|e| e.on_quorum_failure = OnQuorumFailure::Fallback(fixture::model("spare")));
    assert_eq!(answer(&one(), fallback).await, ("spare".to_owned(), "degraded", 15, 2 + 7));
    let none = panel()
        .model("a", fails(1, down))
        .model("b", fails(2, down))
        .model("c", fails(3, down))
        .model("spare", fails(1, down));
    let fallback = with(|e| e.on_quorum_failure = OnQuorumFailure::Fallback(fixture::model("spare")));
    assert_eq!(error(none, fallback).await.1, "quorum_not_met");
}

#[tokio::test(start_paused = true)]
async fn a_failed_judge_is_replaced_by_its_fallback_or_by_the_best_candidate() {
    let broken = || Arc::new(panel().model("judge", fails(1, down)).model("spare", says(1, "spared")));
    let fallback = with_judge(|j| j.fallback = Some(fixture::model("spare")));
    assert_eq!(answer(&broken(), fallback).await, ("spared".to_owned(), "degraded", 60, 32));
    let weighted = with(|e| e.panel[1].weight = 2.0);
    assert_eq!(answer(&broken(), weighted).await, ("two".to_owned(), "degraded", 45, 31));
    assert_eq!(answer(&broken(), fixture::ensemble("team")).await.0, "one");
    let empty = Arc::new(panel().model("judge", says(1, " ")));
    assert_eq!(answer(&empty, fixture::ensemble("team")).await, ("one".to_owned(), "degraded", 60, 31));
}

#[tokio::test(start_paused = true)]
async fn no_judge_is_asked_when_the_panel_has_used_all_the_time() {
    let caller = Arc::new(panel().model("c", says(9000, "late")));
    let late = with(|e| e.deadline = Some(Duration::from_millis(50)));
    assert_eq!(answer(&caller, late).await, ("one".to_owned(), "degraded", 30, 50));
    assert_eq!(caller.calls.lock().unwrap().len(), 3);
    let strict = with(|e| {
        e.deadline = Some(Duration::from_millis(50));
        e.on_judge_failure = OnJudgeFailure::Fail;
    });
    assert_eq!(error(panel().model("c", says(9000, "late")), strict).await.1, "ensemble_timeout");
}

#[tokio::test(start_paused = true)]
async fn a_single_candidate_is_returned_or_judged() {
    let alone = |e: &mut Ensemble| {
        e.panel.truncate(1);
        e.quorum = std::num::NonZeroUsize::MIN;
    };
    assert_eq!(answer(&Arc::new(panel()), with(alone)).await, ("one".to_owned(), "single", 15, 10));
    let judged = with(|e| {
        alone(e);
        e.single_candidate = SingleCandidate::Judge;
    });
    assert_eq!(answer(&Arc::new(panel()), judged).await, ("judged".to_owned(), "full", 30, 15));
}

#[tokio::test(start_paused = true)]
async fn unusable_answers_are_no_candidates() {
    let caller = Arc::new(panel().model("a", says(1, "")));
    assert_eq!(answer(&caller, fixture::ensemble("team")).await.1, "quorum");
    assert!(!caller.calls.lock().unwrap()[3].1.to_string().contains("BEGIN C"));
}

#[tokio::test(start_paused = true)]
async fn members_get_the_callers_request_and_their_own_settings() {
    let caller = Arc::new(panel());
    let ensemble = with(|e| {
        e.panel[1] = Member {
            params: vec![
                ("temperature".to_owned(), Bytes::from_static(b"0.70")),
                ("store".to_owned(), Bytes::from_static(b"true")),
            ],
            system: Some("be \"brief\"".to_owned()),
            ..fixture::member("b")
        };
    });
    let body = json!({"stream": true, "stream_options": {"include_usage": true}, "store": false, "metadata": {"k": "v"},
        "vendor": {"x": 1}, "temperature": 0.2, "max_tokens": 7, "tools": [], "stop": ["x"]});
    let caller_copy = Arc::new(panel().model("judge", streams(1, &["j"])));
    drop(caller);
    run(Arc::clone(&caller_copy), ensemble, body).await.ok().unwrap();
    let calls = caller_copy.calls.lock().unwrap();
    let user = json!({"role": "user", "content": "why?"});
    assert_eq!(
        calls[0].1,
        json!({"model": "provider/a", "messages": [user], "stream": false, "vendor": {"x": 1}, "temperature": 0.2,
            "max_tokens": 7, "tools": [], "stop": ["x"]})
    );
    assert_eq!(calls[1].1["messages"], json!([{"role": "system", "content": "be \"brief\""}, user]));
    assert_eq!((&calls[1].1["temperature"], &calls[1].1["store"]), (&json!(0.7), &json!(true)));
    let judge = &calls[3].1;
    assert_eq!((&judge["stream"], &judge["stream_options"]), (&json!(true), &json!({"include_usage": true})));
    assert_eq!(
        (&judge["max_tokens"], &judge["stop"], &judge["tools"]),
        (&json!(7), &json!(["x"]), &json!([]))
    );
}

#[tokio::test(start_paused = true)]
async fn a_streaming_judge_is_passed_on_as_it_speaks() {
    let caller = Arc::new(panel().model("judge", streams(100, &["a", "b", "c"])));
    let began = Instant::now();
    let mut outcome = run(caller, fixture::ensemble("team"), json!({"stream": true})).await.ok().unwrap();
    assert_eq!((began.elapsed().as_millis(), outcome.head.outcome), (130, Some(How::Full)));
    let mut seen = Vec::new();
    while let Some(event) = outcome.events.next().await {
        let what = match event.unwrap() {
            Event::Delta(delta) => String::from_utf8(delta.json.to_vec()).unwrap(),
            Event::Finish(reason) => reason.into(),
            Event::Decision(_) => unreachable!("nobody asked for it"),
            Event::Usage(usage) => usage.count("total_tokens").to_string(),
            Event::Message(_) => panic!("not whole"),
        };
        seen.push((began.elapsed().as_millis(), what));
    }
    let piece = |text: &str| json!({"content": text}).to_string();
    assert_eq!(
        seen,
        [
            (130, piece("a")),
            (230, piece("b")),
            (330, piece("c")),
            (330, "stop".to_owned()),
            (330, "60".to_owned())
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stalled_streaming_judge_ends_at_its_bound_with_an_error() {
    let mut script = streams(10, &["a"]);
    script.insert(1, (Duration::from_secs(9), Ok(fixture::piece("late"))));
    for (bound, after, code) in [
        (with(|e| e.timeout = Some(Duration::from_secs(2))), 2030, "judge_failed"),
        (with(|e| e.deadline = Some(Duration::from_secs(1))), 1000, "ensemble_timeout"),
    ] {
        let caller = Arc::new(panel().model("judge", script.clone()));
        let began = Instant::now();
        let outcome = run(caller, bound, json!({"stream": true})).await.ok().unwrap();
        let events: Vec<_> = outcome.events.collect().await;
        assert_eq!(began.elapsed().as_millis(), after);
        let error = events.last().unwrap().as_ref().unwrap_err();
        assert_eq!((events.len(), error.status, error.code.as_deref()), (2, 504, Some(code)));
    }
    let silent = Arc::new(panel().model("judge", vec![(Duration::from_secs(9), Ok(fixture::piece("late")))]));
    let bound = with(|e| e.timeout = Some(Duration::from_secs(2)));
    let outcome = run(silent, bound, json!({"stream": true})).await.ok().unwrap();
    assert_eq!(
        outcome.head.outcome,
        Some(How::Degraded),
        "nothing was said yet, so the best candidate stands in"
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_a_run_cancels_its_calls_wherever_it_is() {
    let caller = Arc::new(panel().model("judge", streams(1000, &["a", "b"])));
    let waiting = run(Arc::clone(&caller), fixture::ensemble("team"), json!({"stream": true}));
    assert!(tokio::time::timeout(Duration::from_millis(15), waiting).await.is_err());
    assert_eq!((caller.open.load(Ordering::Relaxed), caller.calls.lock().unwrap().len()), (0, 3));
    let outcome =
        run(Arc::clone(&caller), fixture::ensemble("team"), json!({"stream": true})).await.ok().unwrap();
    assert_eq!(caller.open.load(Ordering::Relaxed), 1);
    drop(outcome);
    assert_eq!(caller.open.load(Ordering::Relaxed), 0);
}

mod asking;
mod corners;
mod decisions;
mod errors;
mod hostile;
mod limits;
mod strategies;
