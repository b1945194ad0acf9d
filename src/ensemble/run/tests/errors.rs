//! Runs without an answer, over scripted callers in paused time.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_unreachable_quorum_cancels_the_rest_at_once() {
    let caller = Arc::new(
        panel().model("a", fails(1, down)).model("b", fails(2, down)).model("c", says(9000, "late")),
    );
    let began = Instant::now();
    let failed = run(Arc::clone(&caller), fixture::ensemble("team"), json!({})).await.err().unwrap();
    assert_eq!((began.elapsed().as_millis(), caller.open.load(Ordering::Relaxed)), (2, 0));
    assert_eq!((failed.error.status, failed.error.code.as_deref()), (502, Some("quorum_not_met")));
    assert_eq!(failed.error.should_retry, Some(false));
    assert!(!failed.error.message.contains("secret"), "{}", failed.error.message);
}

#[tokio::test(start_paused = true)]
async fn one_members_word_is_not_told_as_every_members() {
    for (failure, code) in [(429, "rate_limit_exceeded"), (400, ""), (401, "upstream_auth")] {
        let limited: fn() -> Failure = match failure {
            429 => || status(429, "x", None),
            400 => || status(400, "x", None),
            _ => || status(401, "x", None),
        };
        let all = with(|e| e.quorum = std::num::NonZeroUsize::new(3).unwrap());
        let (_, told, e) =
            error(panel().model("a", fails(1, limited)).model("c", says(9000, "late")), all).await;
        assert_eq!((&*told, e.should_retry), ("quorum_not_met", Some(false)), "{failure}");
        let same = panel()
            .model("a", fails(1, limited))
            .model("b", fails(2, limited))
            .model("c", fails(800, limited));
        assert_eq!(
            error(same, fixture::ensemble("team")).await.1,
            code,
            "the last one is waited for a moment"
        );
        let silent = panel()
            .model("a", fails(1, limited))
            .model("b", fails(2, limited))
            .model("c", says(9000, "late"));
        let began = Instant::now();
        assert_eq!(error(silent, fixture::ensemble("team")).await.1, "quorum_not_met");
        assert!(began.elapsed() < Duration::from_millis(1100));
    }
}

#[tokio::test(start_paused = true)]
async fn an_ensemble_whose_models_all_cool_down_is_to_be_asked_again_soon() {
    let cooling: fn() -> Failure = || Failure::Cooling { retry_after: Duration::from_millis(1500) };
    let later: fn() -> Failure = || Failure::Cooling { retry_after: Duration::from_secs(20) };
    let two = || panel().model("a", fails(0, later)).model("b", fails(0, cooling));
    let (code, name, e) = error(two().model("c", fails(0, later)), fixture::ensemble("team")).await;
    assert_eq!((code, &*name, e.retry_after, e.should_retry), (503, "models_cooling", Some(2), None));

    let began = Instant::now();
    let (_, name, e) = error(two(), fixture::ensemble("team")).await;
    assert_eq!((&*name, e.should_retry), ("quorum_not_met", Some(false)), "c was asked");
    assert!(began.elapsed() <= Duration::from_millis(1), "nobody waits for what cannot be");
}

#[tokio::test(start_paused = true)]
async fn who_cools_down_agrees_with_those_who_were_asked() {
    let cooling: fn() -> Failure = || Failure::Cooling { retry_after: Duration::from_secs(20) };
    let limited: fn() -> Failure = || status(429, "x", Some(Duration::from_secs(3)));
    let refusing: fn() -> Failure = || status(400, "too long", None);
    for (others, expected) in [
        (limited, (429, "rate_limit_exceeded", Some(3))),
        (|| status(401, "", None), (502, "upstream_auth", None)),
        (refusing, (400, "", None)),
        (down, (502, "quorum_not_met", None)),
    ] {
        let mixed =
            panel().model("a", fails(0, cooling)).model("b", fails(1, others)).model("c", fails(2, others));
        let (code, name, e) = error(mixed, fixture::ensemble("team")).await;
        assert_eq!((code, &*name, e.retry_after), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cooling_judge_is_replaced_or_named_at_once() {
    let cooling: fn() -> Failure = || Failure::Cooling { retry_after: Duration::from_secs(20) };
    let broken = || panel().model("judge", fails(0, cooling)).model("spare", says(1, "spared"));
    let spared = with_judge(|j| j.fallback = Some(fixture::model("spare")));
    assert_eq!(answer(&Arc::new(broken()), spared).await, ("spared".to_owned(), "degraded", 60, 31));
    let strict = with(|e| e.on_judge_failure = OnJudgeFailure::Fail);
    let (code, name, e) = error(broken(), strict).await;
    assert_eq!((code, &*name, e.retry_after, e.should_retry), (503, "judge_failed", Some(20), Some(false)));
}

#[tokio::test(start_paused = true)]
async fn every_line_of_the_error_table() {
    let all = |failure: fn() -> Failure| {
        panel().model("a", fails(1, failure)).model("b", fails(2, failure)).model("c", fails(3, failure))
    };
    let team = || fixture::ensemble("team");
    let (code, name, e) =
        error(all(|| status(422, "provider/a at models.internal: too long", None)), team()).await;
    assert_eq!((code, &*name, &*e.message), (422, "", "team at upstream: too long"));
    let (code, name, e) = error(all(|| status(429, "x", Some(Duration::from_millis(2500)))), team()).await;
    assert_eq!((code, &*name, e.retry_after, e.should_retry), (429, "rate_limit_exceeded", Some(3), None));
    let (code, name, _) = error(all(|| status(401, "bad key sk-1", None)), team()).await;
    assert_eq!((code, &*name), (502, "upstream_auth"));
    let (code, name, _) = error(all(|| Failure::Timeout), team()).await;
    assert_eq!((code, &*name), (504, "ensemble_timeout"));
    let mixed = all(|| Failure::Timeout).model("a", fails(1, down)).model("b", says(2, "ok"));
    let (code, name, e) = error(mixed, team()).await;
    assert_eq!(
        (code, &*name, &*e.message),
        (502, "quorum_not_met", "1 of the 2 answers needed came from this ensemble's models")
    );
    let late = with(|e| e.deadline = Some(Duration::from_millis(15)));
    let (code, name, _) = error(panel().model("b", fails(1, down)), late).await;
    assert_eq!((code, &*name), (504, "ensemble_timeout"));
    for (failure, expected) in [
        (down as fn() -> Failure, 502),
        (|| status(401, "", None), 502),
        (|| status(429, "", None), 429),
        (|| Failure::Timeout, 504),
    ] {
        let strict = with(|e| e.on_judge_failure = OnJudgeFailure::Fail);
        let (code, name, e) = error(panel().model("judge", fails(1, failure)), strict).await;
        assert_eq!((code, &*name), (expected, "judge_failed"));
        assert_eq!(e.should_retry, (code != 429).then_some(false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_past_the_cap_is_refused_before_its_request_is_read() {
    let caller = Arc::new(panel());
    let runner = Runner::new(Arc::clone(&caller) as Arc<dyn Caller>, Admission::new(1), 1 << 20);
    let ensemble = Arc::new(fixture::ensemble("team"));
    let first = runner.admit(Arc::clone(&ensemble), context()).await.ok().unwrap();
    let refused = runner.admit(Arc::clone(&ensemble), context()).await.err().unwrap().error;
    assert_eq!((refused.status, refused.retry_after, refused.should_retry), (503, Some(1), None));
    let outcome = first.run(request(&json!({})), None).await.ok().unwrap();
    assert!(runner.admit(Arc::clone(&ensemble), context()).await.is_err(), "the answer is still on its way");
    drop(outcome);
    assert!(runner.admit(ensemble, context()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_answer_within_the_bound_passes_and_one_past_it_does_not() {
    for (max_answer_bytes, passes) in [(1000, true), (50, false)] {
        let runner = Runner::new(Arc::new(panel()), Admission::new(8), max_answer_bytes);
        let admitted = runner.admit(Arc::new(fixture::ensemble("team")), context()).await.ok().unwrap();
        let outcome = admitted.run(request(&json!({})), None).await.ok().unwrap();
        let events: Vec<_> = outcome.events.collect().await;
        let error = events.last().unwrap().as_ref().err().map(|e| (e.status, e.label));
        assert_eq!(error, (!passes).then_some((502, "answer_too_large")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_run_alone_and_frees_its_place() {
    let caller = Arc::new(panel().model("judge", vec![(Duration::ZERO, Err(|| panic!("a defect")))]));
    let runner = Runner::new(Arc::clone(&caller) as Arc<dyn Caller>, Admission::new(1), 1 << 20);
    let ensemble = Arc::new(fixture::ensemble("team"));
    let admitted = runner.admit(Arc::clone(&ensemble), context()).await.ok().unwrap();
    let run = tokio::spawn(admitted.run(request(&json!({})), None));
    assert!(run.await.err().unwrap().is_panic());
    assert_eq!(caller.open.load(Ordering::Relaxed), 0);
    assert!(runner.admit(ensemble, context()).await.is_ok());
}
