//! Runs of aliases and models that may be asked only so much.

use super::*;
use crate::ensemble::{OnQuorumFailure, Vote};
use crate::limits::{Budget, Rate, RateLimit, Window, estimated_tokens};
use crate::upstream::Limited;
use crate::upstream::fixture::model;

fn limit(windows: &[(Rate, u64)], concurrency: u64) -> RateLimit {
    let window = |(rate, limit): &(Rate, u64)| Window { rate: *rate, limit: (*limit).try_into().unwrap() };
    RateLimit {
        windows: windows.iter().map(window).collect(),
        concurrency: concurrency.try_into().ok(),
        wait: Duration::ZERO,
    }
}

fn limited(name: &str, rate: &RateLimit) -> Arc<DirectModel> {
    let mut limited = Arc::into_inner(model(name)).unwrap();
    limited.rate_limit = Some(rate.clone());
    Arc::new(limited)
}

fn runner(scripted: Scripted, limiter: &Limiter) -> Runner {
    let caller = Limited::new(Arc::new(scripted), limiter.clone());
    Runner::new(Arc::new(caller), Admission::new(2000), 1 << 20).limited_by(limiter.clone())
}

async fn levels(limiter: &Limiter, name: &str, rate: &RateLimit) -> Vec<u64> {
    let levels = limiter.view(&name.into(), None, rate).await.unwrap();
    levels.into_iter().map(|level| level.used).collect()
}

#[tokio::test(start_paused = true)]
async fn an_alias_over_its_limit_says_when_to_come_back_and_settles_what_its_runs_have_cost() {
    let limiter = Limiter::default();
    let runner = runner(panel(), &limiter);
    let rate = limit(&[(Rate::Rpm, 2), (Rate::Tpm, 10_000)], 1);
    let ensemble = Arc::new(with(|e| e.rate_limit = Some(rate.clone())));
    let context = || Context { estimated_tokens: 4000, ..context() };
    let admitted = runner.admit(Arc::clone(&ensemble), context()).await.ok().unwrap();
    let refused = runner.admit(Arc::clone(&ensemble), context()).await.err().unwrap();
    assert_eq!((refused.error.status, refused.error.retry_after), (429, Some(1)), "one at a time");
    let outcome = admitted.run(request(&json!({})), None).await.ok().unwrap();
    let told: Vec<String> =
        outcome.head.quota.unwrap().headers().into_iter().map(|(_, value)| value).collect();
    assert_eq!(told, ["2", "1", "1m0s", "10000", "6000", "1m0s"]);
    assert_eq!(collect(outcome).await.1.count("total_tokens"), 60);
    assert_eq!(levels(&limiter, "team", &rate).await, [1, 60, 0]);
    drop(runner.admit(Arc::clone(&ensemble), context()).await.ok().unwrap());
    assert_eq!(levels(&limiter, "team", &rate).await, [2, 60, 0], "a run that was given up cost nothing");
    tokio::time::advance(Duration::from_millis(500)).await;
    let refused = runner.admit(ensemble, context()).await.err().unwrap();
    assert_eq!((refused.error.label, refused.error.retry_after), ("rate_limit_exceeded", Some(60)));
    assert_eq!(refused.error.should_retry, None, "it was not asked, so it may well come back");
    assert!(refused.error.message.contains("requests per minute"), "{}", refused.error.message);
    assert!(refused.head.quota.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_refuses_until_the_day_ends() {
    let limiter = Limiter::default();
    let ensemble = Arc::new(with(|e| e.budget = Some(Budget::usd_per_day(0.5))));
    let demand =
        Demand { name: &ensemble.name, caller: None, rate: None, budget: ensemble.budget, tokens: 0 };
    limiter.admit(demand).await.unwrap().reservation.settle(0, 0.5);
    let refused = runner(panel(), &limiter).admit(ensemble, context()).await.err().unwrap().error;
    let body: Value = serde_json::from_slice(&refused.to_json(None)).unwrap();
    assert_eq!((refused.status, refused.should_retry), (429, Some(false)));
    assert_eq!(
        (&body["error"]["type"], &body["error"]["code"]),
        (&json!("insufficient_quota"), &json!("insufficient_quota"))
    );
    assert!(refused.retry_after.is_some_and(|after| (1..=86_400).contains(&after)));
}

#[tokio::test(start_paused = true)]
async fn a_limited_member_fails_alone_a_limited_judge_has_its_fallback_and_a_limited_panel_is_a_429() {
    let rate = limit(&[(Rate::Rpm, 1)], 0);
    let limiter = Limiter::default();
    let runner = runner(panel().model("spare", says(3, "spare")), &limiter);
    let ensemble = Arc::new(with(|e| {
        e.panel[0].model = limited("a", &rate);
        let Strategy::Judge(judge) = &mut e.strategy else { unreachable!() };
        (judge.model, judge.fallback) = (limited("judge", &rate), Some(model("spare")));
    }));
    let mut told = Vec::new();
    for _ in 0..2 {
        let admitted = runner.admit(Arc::clone(&ensemble), context()).await.ok().unwrap();
        let outcome = admitted.run(request(&json!({})), None).await.ok().unwrap();
        let head = outcome.head.clone();
        told.push((collect(outcome).await.0, head.responses, head.outcome.unwrap().label()));
    }
    assert_eq!(told[0], ("judged".to_owned(), 3, "full"));
    assert_eq!(told[1], ("spare".to_owned(), 2, "degraded"));
    let all = Arc::new(with(|e| {
        for member in &mut e.panel {
            member.model = limited("a", &rate);
        }
        e.on_quorum_failure = OnQuorumFailure::BestEffort;
    }));
    tokio::time::advance(Duration::from_millis(20_500)).await;
    let failed = runner.admit(all, context()).await.ok().unwrap().run(request(&json!({})), None).await;
    let error = failed.err().unwrap().error;
    assert_eq!((error.status, error.label, error.retry_after), (429, "rate_limit_exceeded", Some(40)));
}

/// What each model's limits have counted is what its calls have cost, whatever became of them.
#[tokio::test(start_paused = true)]
async fn a_thousand_runs_of_all_kinds_are_settled_to_the_token() {
    let rate = limit(&[(Rate::Rpd, 1_000_000), (Rate::Tpd, 1_000_000_000)], 10_000);
    let limiter = Limiter::default();
    let scripted = Scripted::default()
        .model("a", says(10, "one"))
        .model("b", streams(7, &["tw", "o"]))
        .model("c", fails(12, down))
        .model("d", says(400, "late"))
        .model("judge", streams(5, &["jud", "ged"]));
    let runner = runner(scripted, &limiter);
    let ensemble = Arc::new(with(|e| {
        e.panel = ["a", "b", "c", "d"]
            .map(|name| Member { model: limited(name, &rate), ..fixture::member(name) })
            .into();
        e.rate_limit = Some(rate.clone());
        e.straggler_grace = Some(Duration::from_millis(100));
        let Strategy::Judge(judge) = &mut e.strategy else { unreachable!() };
        judge.model = limited("judge", &rate);
    }));
    let runs = (0..1000u64).map(|i| {
        let (runner, ensemble) = (runner.clone(), Arc::clone(&ensemble));
        async move {
            let body = json!({"stream": i % 2 == 0});
            let bytes = Bytes::from(body.to_string());
            let context = Context { estimated_tokens: estimated_tokens(bytes.len(), None), ..context() };
            let run = async {
                let admitted = runner.admit(ensemble, context).await.ok().unwrap();
                let mut outcome = admitted.run(request(&body), None).await.ok().unwrap();
                let mut usage = 0;
                while let Some(event) = outcome.events.next().await {
                    if let Event::Usage(sum) = event.unwrap() {
                        usage = sum.count("total_tokens");
                    }
                }
                usage
            };
            // A third leave, at all kinds of moments.
            let patience = if i % 3 == 0 { i % 130 } else { 60_000 };
            tokio::time::timeout(Duration::from_millis(patience), run).await.ok()
        }
    });
    let told: Vec<Option<u64>> = futures_util::future::join_all(runs).await;
    assert!(told.iter().filter(|usage| usage.is_none()).count() > 200 && told.iter().flatten().count() > 600);
    let mut of_models = 0;
    for name in ["a", "b", "c", "d", "judge"] {
        let [calls, tokens, running] = levels(&limiter, name, &rate).await[..] else {
            panic!("three limits")
        };
        assert_eq!(running, 0, "{name}");
        // A judge that breaks off has not told its cost, which is then estimated.
        let expected = match name {
            "a" | "b" => 5000..=15 * calls,
            "judge" => 5000..=u64::MAX,
            _ => 0..=0,
        };
        assert!(expected.contains(&tokens), "{name} {tokens}");
        of_models += tokens;
    }
    let [runs, tokens, running] = levels(&limiter, "team", &rate).await[..] else { panic!("three limits") };
    assert_eq!((runs, running), (1000, 0));
    assert_eq!(tokens, of_models, "runs and models agree");
    assert!(tokens >= told.into_iter().flatten().sum::<u64>());
}

#[test]
fn an_alias_is_taken_to_cost_what_all_its_calls_may() {
    let body = Bytes::from_static(br#"{"max_tokens": 100, "messages": []}"#);
    let rated = with(|e| e.rate_limit = Some(limit(&[(Rate::Tpm, 1)], 0)));
    assert_eq!(rated.estimated_tokens(&body), 4 * (9 + 100), "three members and a judge");
    assert_eq!(with(|e| e.rate_limit = Some(limit(&[(Rate::Rpm, 1)], 0))).estimated_tokens(&body), 0);
    let vote = with(|e| {
        e.rate_limit = Some(limit(&[(Rate::Tpm, 1)], 0));
        e.strategy = Strategy::Vote(Vote {
            require: crate::ensemble::Require::Plurality,
            on_no_consensus: crate::ensemble::OnNoConsensus::First,
            similarity: 0.8,
        });
    });
    assert_eq!(vote.estimated_tokens(&Bytes::from_static(b"{")), 3 * (1 + 512));
}
