//! What is recorded of runs, and told of them as they go on.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::*;
use crate::ensemble::fixture::{model, piece};
use crate::limits::Cooldowns;
use crate::telemetry::{Cost, Sinks, Told, Wanted, decision::Decision};
use crate::upstream::Retrying;

fn kept(max_content_bytes: Option<usize>) -> Decisions {
    Decisions::open(&Sinks { ring: 1000, max_content_bytes, ..Sinks::default() }).unwrap()
}

fn runner(decisions: &Decisions, panel: Scripted) -> Runner {
    let caller = Retrying::new(Arc::new(panel), Cooldowns::default());
    Runner::new(Arc::new(caller), Admission::new(1000), 1 << 20).recording(decisions.clone())
}

async fn ended(runner: &Runner, ensemble: Ensemble, body: Value) -> Result<(), &'static str> {
    let admitted = runner.admit(Arc::new(ensemble), context()).await.ok().unwrap();
    match admitted.run(request(&body), None).await {
        Ok(outcome) => match outcome.events.collect::<Vec<_>>().await.into_iter().find_map(Result::err) {
            Some(error) => Err(error.label),
            None => Ok(()),
        },
        Err(failed) => Err(failed.error.label),
    }
}

fn last(decisions: &Decisions) -> Arc<Decision> {
    decisions.recent(&Wanted::default(), 0, 1).remove(0)
}

#[tokio::test(start_paused = true)]
async fn texts_are_kept_where_they_are_wanted_and_only_so_much_of_them() {
    let body = || json!({"messages": [{"role": "user", "content": "why is the sky blue?"}], "stream": true});
    let long = || panel().model("a", says(1, "ééééééé")).model("judge", streams(5, &["fourteen", " bytes"]));
    for (max, question, a, answer) in [
        (13, "why is the sk", "éééééé", "fourteen byte"),
        (100, "why is the sky blue?", "ééééééé", "fourteen bytes"),
    ] {
        let decisions = kept(Some(max));
        ended(&runner(&decisions, long()), fixture::ensemble("team"), body()).await.unwrap();
        let d = last(&decisions);
        assert_eq!((d.question.as_deref(), d.answer.as_deref()), (Some(question), Some(answer)));
        let contents = d.members.iter().chain(&d.judges).map(|call| call.content.as_deref());
        assert_eq!(contents.collect::<Vec<_>>(), [Some(a), Some("two"), Some("three"), Some(answer)]);
    }
    let decisions = kept(Some(100));
    let first = with(|e| e.strategy = Strategy::First);
    ended(&runner(&decisions, panel()), first, json!({})).await.unwrap();
    assert_eq!(last(&decisions).answer.as_deref(), Some("one"));
    let decisions = kept(None);
    ended(&runner(&decisions, long()), fixture::ensemble("team"), body()).await.unwrap();
    let json = serde_json::to_string(&*last(&decisions)).unwrap();
    assert!(!["sky", "é", "two", "fourteen"].iter().any(|text| json.contains(text)), "{json}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_sees_the_decision_sees_no_texts_that_are_the_operators() {
    let decisions = kept(Some(100));
    let traced = Context { trace: true, ..context() };
    let admitted =
        runner(&decisions, panel()).admit(Arc::new(fixture::ensemble("team")), traced).await.ok().unwrap();
    let outcome = admitted.run(request(&json!({})), None).await.ok().unwrap();
    let events: Vec<_> = outcome.events.collect().await;
    let shown = events.iter().find_map(|event| match event {
        Ok(Event::Decision(decision)) => Some(decision.get()),
        _ => None,
    });
    let shown: Value = serde_json::from_str(shown.unwrap()).unwrap();
    assert_eq!((&shown["question"], &shown["answer"]), (&Value::Null, &Value::Null));
    assert!(shown["members"].as_array().unwrap().iter().all(|call| call["content"].is_null()));
    drop(events);
    assert_eq!(last(&decisions).question.as_deref(), Some("why?"));
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_sees_calls_begin_speak_and_end() {
    let decisions = kept(None);
    let mut watch = decisions.watch(Wanted { running: true, ..Wanted::default() }, None);
    let following = async {
        let mut seen = Vec::new();
        while let Some(Told::Decision(d)) = watch.next().await {
            let calls = d.members.iter().chain(&d.judges);
            let calls: Vec<String> =
                calls.map(|call| format!("{}{:?}", call.result, call.first_byte_ms.unwrap_or(0.0))).collect();
            seen.push(format!("{} {:?} {}", d.outcome().label(), d.quorum_ms, calls.join(" ")));
            if d.outcome() != How::Running {
                break;
            }
        }
        seen
    };
    let short = with(|e| {
        e.panel.truncate(2);
    });
    let slow = panel().model("judge", streams(5, &["x", "y"]));
    let runner = runner(&decisions, slow);
    let (ended, seen) = tokio::join!(ended(&runner, short, json!({"stream": true})), following);
    ended.unwrap();
    insta::assert_snapshot!(seen.join("\n"), @r"
    running None running0.0 running0.0
    running None usable10.0 running0.0
    running Some(20.0) usable10.0 usable20.0 running0.0
    running Some(20.0) usable10.0 usable20.0 running25.0
    full Some(20.0) usable10.0 usable20.0 answered25.0
    ");
}

#[tokio::test(start_paused = true)]
async fn the_door_the_beginning_and_each_part_are_recorded() {
    let decisions = kept(None);
    let runner = runner(&decisions, panel().model("judge", fails(1, down)).model("spare", says(1, "spared")));
    let spare = with_judge(|j| j.fallback = Some(model("spare")));
    let context = Context { door: Door::Http, ..context() };
    let admitted = runner.admit(Arc::new(spare), context).await.ok().unwrap();
    drop(admitted.run(request(&json!({})), None).await.ok().unwrap().events.collect::<Vec<_>>().await);
    let d = last(&decisions);
    let parts: Vec<&str> = d.members.iter().chain(&d.judges).map(|call| &*call.role).collect();
    assert_eq!(parts, ["member", "member", "member", "judge", "fallback"]);
    assert_eq!((&*d.door, d.run, d.quorum_ms), ("http", 1, Some(20.0)));
    assert_eq!(d.judges[0].tries[0].status, Some(503));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(u128::from(d.started_at_ms).abs_diff(now) < 600_000);
}

/// Models with prices that answer, fail, stall and break off.
fn script(choice: u8, ms: u64) -> crate::upstream::fixture::Script {
    match choice % 6 {
        0 => fails(ms, down),
        1 => Vec::new(),
        2 => {
            let mut broken = streams(ms, &["a", "b"]);
            broken.truncate(1);
            broken.push((Duration::from_millis(ms), Err(|| Failure::Incomplete)));
            broken
        }
        3 => vec![
            (Duration::from_millis(ms), Ok(piece("no usage"))),
            (Duration::ZERO, Ok(Event::Finish("stop".into()))),
        ],
        4 => streams(ms, &["a", "b", "c"]),
        _ => says(ms, "words"),
    }
}

fn priced(name: &str) -> Arc<DirectModel> {
    let mut priced = Arc::into_inner(model(name)).unwrap();
    priced.retries = 1;
    priced.cost = Some(Cost { input: 1.0, cached_input: 1.0, output: 3.0 });
    Arc::new(priced)
}

fn agrees(d: &Decision) {
    let calls = || d.members.iter().chain(&d.judges);
    let tokens: u64 = calls().filter_map(|call| call.usage).map(|usage| usage.total_tokens).sum();
    assert_eq!(d.usage.unwrap().total_tokens, tokens);
    assert_eq!(
        d.cost_usd,
        calls().map(|call| call.cost_usd).fold(None, |sum, usd| Some(sum.unwrap_or(0.0) + usd?).or(sum))
    );
    for call in calls() {
        let usage = call.usage.unwrap_or_default();
        let usd = (usage.prompt_tokens as f64 + 3.0 * usage.completion_tokens as f64) / 1000.0;
        assert!((call.cost_usd.unwrap_or(0.0) - usd).abs() < 1e-9, "{call:?}");
        assert!(call.result != "running" && call.tries.len() == call.attempts as usize, "{call:?}");
        assert!(call.tries.iter().all(|attempt| attempt.result != "running"), "{call:?}");
        assert!(call.elapsed_ms >= 0.0 && call.started_ms + call.elapsed_ms <= d.total_ms + 1e-6, "{call:?}");
    }
    assert_ne!(d.outcome(), How::Running);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_has_one_decision_however_it_ends_and_its_sums_agree(
        runs in proptest::collection::vec((any::<[u8; 4]>(), 1..60_u64, 0..120_u64, 0..3_u8, any::<bool>()), 1..20)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let decisions = kept(None);
        // A panic is what one of these callers does, and not a failure of the test.
        let count = runs.len();
        runtime.block_on(async {
            let all = runs.into_iter().enumerate().map(|(number, (choices, ms, leaves_after, end, stream))| {
                let decisions = decisions.clone();
                async move {
                    let mut scripted = Scripted::default();
                    for (name, choice) in ["a", "b", "c", "judge"].into_iter().zip(choices) {
                        scripted = scripted.model(name, script(choice, ms));
                    }
                    let runner = runner(&decisions, scripted);
                    let ensemble = with(|e| {
                        e.name = format!("team-{number}").into();
                        e.panel.iter_mut().for_each(|member| member.model = priced(&member.model.name));
                        e.deadline = Some(Duration::from_millis(200));
                        let Strategy::Judge(judge) = &mut e.strategy else { unreachable!() };
                        judge.model = priced("judge");
                    });
                    let run = ended(&runner, ensemble, json!({"stream": stream}));
                    match end {
                        0 => drop(run.await),
                        1 => drop(tokio::time::timeout(Duration::from_millis(leaves_after), run).await),
                        _ => {
                            let panics = async {
                                tokio::time::sleep(Duration::from_millis(leaves_after)).await;
                                std::panic::resume_unwind(Box::new("the caller's own defect"));
                            };
                            let both = async { tokio::select! { biased; _ = run => {}, () = panics => {} } };
                            let _ = AssertUnwindSafe(both).catch_unwind().await;
                        }
                    }
                }
            });
            futures_util::future::join_all(all).await;
        });
        let kept = decisions.recent(&Wanted::default(), 0, 1000);
        prop_assert_eq!(kept.len(), count);
        let mut aliases: Vec<&str> = kept.iter().map(|d| &*d.alias).collect();
        aliases.sort_unstable();
        aliases.dedup();
        prop_assert_eq!(aliases.len(), count);
        kept.iter().for_each(|decision| agrees(decision));
    }
}
