//! What a run does when something is slow, gone or broken: it ends in time, it leaves nothing running, and it accounts
//! for what it has cost.

use std::time::{Duration, Instant};

use consort_testkit::http::{Answer, Event};
use consort_testkit::provider::{Received, Reply};
use serde_json::{Value, json};

use crate::stack::{Options, Stack, ms};

/// Far beyond what anything here may take, and far below every default: a bound of ours has ended it.
const LONG: Duration = Duration::from_secs(8);
/// How soon a provider has to see that nobody listens any more.
const PROMPTLY: Duration = Duration::from_millis(100);
/// Leaving is timed on machines that are busy with other tests: this often, and the best time counts.
const ROUNDS: usize = 3;

/// One token after another, for as long as anybody listens.
fn endless() -> Reply {
    Reply::stream(&["and so on, "; 2000], ms(20))
}

/// What a stream has said to its caller.
fn said(events: &[Event]) -> String {
    let deltas = events.iter().filter(|e| e.data.is_some() && !e.is_done()).map(Event::json);
    deltas.filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

/// The text of an answer, be it whole or streamed to its very end.
#[track_caller]
fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    if answer.header("content-type").starts_with("text/event-stream") {
        let events = answer.events();
        assert!(events.last().is_some_and(Event::is_done), "{}", answer.text());
        said(&events)
    } else {
        answer.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// Asks plainly and for a stream; returns what both were answered alike: the text and how it came about.
async fn both(stack: &Stack, alias: &str) -> (String, String) {
    let [plain, streamed] = [false, true].map(|stream| json!({"model": alias, "stream": stream}));
    let plain = stack.ask(plain).send().await;
    let streamed = stack.ask(streamed).send().await;
    let told = |answer: &Answer| (text(answer), answer.header("x-ensemble-outcome").to_owned());
    assert_eq!(told(&plain), told(&streamed));
    told(&plain)
}

/// Fails unless a stream ended with exactly one error event, of this code, and without `[DONE]`.
#[track_caller]
fn assert_ended_by_error(answer: &Answer, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.broken.as_deref()), (200, None));
    let events = answer.events();
    let errors: Vec<Value> =
        events.iter().filter(|e| e.data.is_some() && !e.is_done()).map(Event::json).collect();
    let errors: Vec<&Value> = errors.iter().filter(|e| !e["error"].is_null()).collect();
    assert_eq!(errors.len(), 1, "{}", answer.text());
    assert_eq!(errors[0]["error"]["code"], code);
    let last = events.last().map(Event::json).unwrap_or_default();
    assert_eq!(&last, errors[0], "the error is the last word");
    assert!(!answer.text().contains("[DONE]"), "{}", answer.text());
}

/// When a request's caller left it, as a time of day.
fn left_at(received: &Received) -> Instant {
    received.at + received.closed.unwrap_or_default()
}

mod time {
    use super::*;

    #[tokio::test]
    async fn a_straggler_is_cancelled_after_the_grace() {
        let stack = Options::new().ensemble("straggler_grace_ms: 100").start().await;
        stack.provider.model("model-c").reply(Reply::stall());
        let answer = stack.ask(json!({})).send().await;
        assert_eq!(text(&answer), "the judge's answer");
        assert!(answer.took >= ms(100) && answer.took < ms(1500), "{:?}", answer.took);
        let told = [answer.header("x-ensemble-outcome"), answer.header("x-ensemble-responses")];
        assert_eq!(told, ["quorum", "2"]);
        let closed = stack.provider.wait_for_closed("model-c", 1).await[0].closed.unwrap_or_default();
        assert!(closed >= ms(90) && closed < ms(1500), "{closed:?}");
        let judge = stack.provider.requests_for("model-judge").remove(0);
        assert!(!judge.json.to_string().contains("three"));
        let logged = stack.run_logged().await;
        assert!(logged["members"].as_str().is_some_and(|m| m.contains("c=cancelled")), "{logged}");
    }

    #[tokio::test]
    async fn without_a_grace_a_straggler_is_waited_for_until_its_timeout() {
        let stack = Options::new().ensemble("timeout_ms: 700").start().await;
        stack.provider.model("model-c").reply(Reply::stall());
        let answer = stack.ask(json!({})).send().await;
        assert_eq!(text(&answer), "the judge's answer");
        assert!(answer.took >= ms(700) && answer.took < LONG, "{:?}", answer.took);
        assert_eq!(answer.header("x-ensemble-outcome"), "quorum");
        stack.provider.wait_for_closed("model-c", 1).await;
    }

    #[tokio::test]
    async fn a_slow_member_within_the_grace_still_counts() {
        let stack = Options::new().ensemble("straggler_grace_ms: 5000").start().await;
        stack.provider.model("model-c").reply(Reply::text("three").delay(ms(100)));
        let answer = stack.ask(json!({})).send().await;
        assert_eq!(
            (answer.header("x-ensemble-outcome"), answer.header("x-ensemble-responses")),
            ("full", "3")
        );
        assert!(answer.took < ms(4000), "nobody is waited for any longer: {:?}", answer.took);
    }

    #[tokio::test]
    async fn a_streaming_judge_that_stalls_is_ended_at_its_timeout() {
        let stack = Options::new().ensemble("timeout_ms: 500").start().await;
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(1)).stall_after(1));
        let answer = stack.ask_stream().send().await;
        assert_ended_by_error(&answer, "judge_failed");
        assert_eq!(said(&answer.events()), "It");
        assert!(answer.took >= ms(500) && answer.took < LONG, "{:?}", answer.took);
        let closed = stack.provider.wait_for_closed("model-judge", 1).await[0].closed.unwrap_or_default();
        assert!(closed >= ms(450), "the judge has all of its time: {closed:?}");
        let logged = stack.run_logged().await;
        assert_eq!(
            (&logged["message"], &logged["code"]),
            (&json!("ensemble failed"), &json!("judge_failed"))
        );
    }

    #[tokio::test]
    async fn the_deadline_bounds_the_panel() {
        let stack = Options::new().ensemble("deadline_ms: 500").start().await;
        stack.provider.model("model-b").reply(Reply::stall());
        stack.provider.model("model-c").reply(Reply::stall());
        for stream in [false, true] {
            let answer = stack.ask(json!({"stream": stream})).send().await;
            let told = (answer.status.as_u16(), answer.json()["error"]["code"].clone());
            assert_eq!(told, (504, json!("ensemble_timeout")));
            assert!(answer.took >= ms(500) && answer.took < LONG, "{:?}", answer.took);
        }
        stack.provider.wait_for_closed("model-b", 2).await;
        stack.provider.wait_for_closed("model-c", 2).await;
        assert!(stack.provider.requests_for("model-judge").is_empty());
    }

    #[tokio::test]
    async fn the_deadline_leaves_the_judge_what_the_panel_has_not_used() {
        let stack = Options::new().ensemble("deadline_ms: 800").start().await;
        stack.provider.model("model-c").reply(Reply::text("three").delay(ms(400)));
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(1)).stall_after(1));
        let answer = stack.ask_stream().send().await;
        assert_ended_by_error(&answer, "ensemble_timeout");
        assert!(answer.took >= ms(800) && answer.took < LONG, "{:?}", answer.took);
        let judge = stack.provider.wait_for_closed("model-judge", 1).await.remove(0);
        assert!(judge.closed.is_some_and(|after| after < ms(600)), "{:?}", judge.closed);
    }

    #[tokio::test]
    async fn a_judge_that_stalls_before_its_first_word_leaves_the_best_candidate_at_the_deadline() {
        let stack = Options::new().ensemble("deadline_ms: 500").start().await;
        stack.provider.model("model-judge").reply(Reply::stall());
        assert_eq!(both(&stack, crate::stack::ALIAS).await, ("one".to_owned(), "degraded".to_owned()));
    }
}

mod leaving {
    use super::*;

    /// The times that it took `n` requests of each model to be closed, after `left`.
    async fn closing(stack: &Stack, models: &[&str], n: usize, left: Instant) -> Duration {
        let mut longest = Duration::ZERO;
        for model in models {
            for received in stack.provider.wait_for_closed(model, n).await.split_off(n - 1) {
                longest = longest.max(left_at(&received).saturating_duration_since(left));
            }
        }
        longest
    }

    #[track_caller]
    fn assert_promptly(times: &[Duration]) {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        assert!(sorted.get(sorted.len() / 2).is_some_and(|median| *median < PROMPTLY), "{times:?}");
        assert!(times.iter().all(|time| *time < ms(2000)), "{times:?}");
    }

    #[tokio::test]
    async fn while_the_panel_runs_ends_every_call_and_bills_what_had_finished() {
        let stack = Stack::start().await;
        stack.provider.model("model-b").reply(Reply::stall());
        stack.provider.model("model-c").reply(Reply::text("three").stall_after(0));
        let mut times = Vec::new();
        for round in 1..=ROUNDS {
            let caller = tokio::spawn(stack.ask(json!({})).try_open());
            stack.provider.wait_for("model-b", round).await;
            stack.provider.wait_for("model-c", round).await;
            consort_testkit::eventually("model-a's answer", LONG, async || {
                let received = stack.provider.requests_for("model-a");
                received.get(round - 1).and_then(|one| one.finished)
            })
            .await;
            // The answer has left its provider; nothing tells from outside when Consort has read it.
            tokio::time::sleep(ms(200)).await;
            let left = Instant::now();
            caller.abort();
            times.push(closing(&stack, &["model-b", "model-c"], round, left).await);
        }
        assert_promptly(&times);
        let logged = stack.runs_logged(ROUNDS).await;
        assert_eq!(logged.len(), ROUNDS, "one line for each run");
        for line in logged {
            assert_eq!(line["message"], "ensemble cancelled");
            let usage = ["prompt_tokens", "completion_tokens", "total_tokens", "estimated"]
                .map(|name| line[format!("usage.{name}")].clone());
            assert_eq!(usage, [json!(10), json!(1), json!(11), json!(false)], "{line}");
        }
        assert!(stack.provider.requests_for("model-judge").is_empty());
    }

    #[tokio::test]
    async fn while_the_judge_streams_ends_its_call_and_bills_the_panel_and_what_was_said() {
        let stack = Stack::start().await;
        stack.provider.model("model-judge").reply(endless());
        let mut times = Vec::new();
        for round in 1..=ROUNDS {
            let mut live = stack.ask_stream().open().await;
            for _ in 0..5 {
                assert!(live.event().await.is_some());
            }
            let left = Instant::now();
            drop(live);
            times.push(closing(&stack, &["model-judge"], round, left).await);
        }
        assert_promptly(&times);
        let logged = stack.runs_logged(ROUNDS).await;
        assert_eq!(logged.len(), ROUNDS, "one line for each run");
        for line in logged {
            assert_eq!(
                (&line["message"], &line["outcome"]),
                (&json!("ensemble cancelled"), &json!("cancelled"))
            );
            // Three members at 10 and 1; the judge never came to its usage, so that is estimated.
            let count = |name: &str| line[format!("usage.{name}")].as_u64().unwrap_or_default();
            assert!(count("prompt_tokens") > 30 && count("completion_tokens") > 3, "{line}");
            assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
            assert_eq!(line["usage.estimated"], true);
            assert!(line["judges"].as_str().is_some_and(|j| j.starts_with("judge=cancelled@")), "{line}");
        }
    }

    #[tokio::test]
    async fn while_the_buffered_attachment_waits_ends_every_call_as_well() {
        let stack = Options::buffered().start().await;
        stack.provider.model("model-judge").reply(Reply::stall());
        let mut times = Vec::new();
        for round in 1..=ROUNDS {
            let caller = tokio::spawn(stack.ask(json!({})).try_open());
            stack.provider.wait_for("model-judge", round).await;
            let left = Instant::now();
            caller.abort();
            times.push(closing(&stack, &["model-judge"], round, left).await);
        }
        assert_promptly(&times);
        assert_eq!(stack.runs_logged(ROUNDS).await.len(), ROUNDS);
    }
}

mod failing {
    use super::*;

    const SPARE: &str = "- {display_name: spare, provider: scripted, model_name: model-spare, retries: 0, cooldown: {enabled: false}}
- display_name: with-spare
  ensemble:
    panel: [{model: a}, {model: b, weight: 2}, {model: c}]
    judge: {model: judge, fallback: spare}
    timeout_ms: 1000
- display_name: rescued
  ensemble:
    panel: [{model: a}, {model: b}, {model: c}]
    judge: {model: judge}
    on_quorum_failure: {fallback: spare}
- display_name: best-effort
  ensemble:
    panel: [{model: a}, {model: b}, {model: c}]
    judge: {model: judge}
    on_quorum_failure: best_effort
- display_name: any-answer
  ensemble: {panel: [{model: a}, {model: b}, {model: c}], judge: {model: judge}, min_responses: 1}
- display_name: always-judged
  ensemble:
    panel: [{model: a}, {model: b}, {model: c}]
    judge: {model: judge}
    min_responses: 1
    single_candidate: judge
- display_name: needs-b
  ensemble:
    panel: [{model: a}, {model: b, required: true}, {model: c}]
    judge: {model: judge}
    min_responses: 1";

    async fn start() -> Stack {
        let stack = Options::new().models(SPARE).start().await;
        stack.provider.model("model-spare").reply(Reply::text("the spare's answer"));
        stack
    }

    fn broken() -> Reply {
        Reply::error(500, "kaboom", "server_error", None)
    }

    fn pair(text: &str, outcome: &str) -> (String, String) {
        (text.to_owned(), outcome.to_owned())
    }

    #[tokio::test]
    async fn a_judge_that_fails_before_its_first_word_has_its_fallback_answer() {
        let stack = start().await;
        let failures = [
            broken(),
            Reply::rate_limited("30"),
            Reply::stall(),
            Reply::cut(),
            Reply::garbage(),
            Reply::text(""),
            Reply::refusal("I would rather not."),
            Reply::text("never seen").cut_after(0),
        ];
        for (nth, failure) in failures.into_iter().enumerate() {
            let shown = format!("{failure:?}");
            stack.provider.model("model-judge").reply(failure);
            assert_eq!(both(&stack, "with-spare").await, pair("the spare's answer", "degraded"), "{shown}");
            assert_eq!(stack.provider.requests_for("model-spare").len(), 2 * (nth + 1));
        }
        let spare = stack.provider.requests_for("model-spare").remove(0);
        let judge = stack.provider.requests_for("model-judge").remove(0);
        assert_eq!(spare.json["messages"], judge.json["messages"], "it is asked the very same");
    }

    #[tokio::test]
    async fn when_the_fallback_fails_too_the_best_candidate_is_the_answer() {
        let stack = start().await;
        stack.provider.model("model-judge").reply(broken());
        stack.provider.model("model-spare").reply(broken());
        assert_eq!(both(&stack, "with-spare").await, pair("two", "degraded"), "b has the most weight");
    }

    #[tokio::test]
    async fn after_its_first_word_a_judge_is_not_replaced() {
        let stack = start().await;
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(1)).cut_after(1));
        let answer = stack.ask(json!({"model": "with-spare", "stream": true})).send().await;
        assert_ended_by_error(&answer, "judge_failed");
        assert_eq!(said(&answer.events()), "It");
        assert!(stack.provider.requests_for("model-spare").is_empty());
    }

    #[tokio::test]
    async fn a_missed_quorum_is_made_the_best_of_or_rescued_where_the_operator_says_so() {
        let stack = start().await;
        stack.provider.model("model-a").reply(broken());
        stack.provider.model("model-b").reply(broken());
        assert_eq!(both(&stack, "best-effort").await, pair("three", "degraded"));
        assert_eq!(both(&stack, "rescued").await, pair("the spare's answer", "degraded"));
        let spare = stack.provider.requests_for("model-spare").remove(0);
        let conversation = json!([{"role": "user", "content": "why?"}]);
        assert_eq!(spare.json["messages"], conversation, "it is asked as if it were alone");
        stack.provider.model("model-spare").reply(broken());
        for alias in ["rescued", crate::stack::ALIAS] {
            let answer = stack.ask(json!({"model": alias})).send().await;
            assert_eq!(
                (answer.status.as_u16(), &answer.json()["error"]["code"]),
                (502, &json!("quorum_not_met"))
            );
        }
        stack.provider.model("model-c").reply(broken());
        let answer = stack.ask(json!({"model": "best-effort"})).send().await;
        assert_eq!(answer.status, 502, "the best of nothing is nothing");
        assert!(stack.provider.requests_for("model-judge").is_empty());
    }

    #[tokio::test]
    async fn a_single_candidate_is_the_answer_unless_the_judge_is_to_see_it() {
        let stack = start().await;
        stack.provider.model("model-a").reply(broken());
        stack.provider.model("model-b").reply(broken());
        assert_eq!(both(&stack, "any-answer").await, pair("three", "single"));
        assert!(stack.provider.requests_for("model-judge").is_empty());
        assert_eq!(both(&stack, "always-judged").await, pair("the judge's answer", "quorum"));
    }

    #[tokio::test]
    async fn a_run_without_a_required_member_fails_at_once_whatever_the_others_say() {
        let stack = start().await;
        stack.provider.model("model-b").reply(broken().delay(ms(300)));
        stack.provider.model("model-c").reply(Reply::stall());
        let answer = stack.ask(json!({"model": "needs-b"})).send().await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (502, &json!("quorum_not_met"))
        );
        assert!(answer.took < LONG, "{:?}", answer.took);
        stack.provider.wait_for_closed("model-c", 1).await;
    }
}
