//! Streams as callers see them: live, well-formed, honest about their end.

use std::time::{Duration, Instant};

use consort_testkit::http::{Answer, Call, Event};
use consort_testkit::provider::{Reply, Usage};
use serde_json::{Value, json};

use crate::stack::{ALIAS, Options, Stack, ms};

/// Between the judge's tokens.
const GAP: Duration = ms(100);
/// How far the median of the gaps may be from the judge's.
const TOLERANCE: Duration = ms(30);

#[tokio::test]
async fn tokens_arrive_at_the_judges_pace_over_http_1() {
    tokens_arrive_at_the_judges_pace(|call| call).await;
}

#[tokio::test]
async fn tokens_arrive_at_the_judges_pace_over_http_2() {
    tokens_arrive_at_the_judges_pace(Call::h2c).await;
}

async fn tokens_arrive_at_the_judges_pace(by: impl Fn(Call) -> Call) {
    let stack = Stack::start().await;
    let tokens = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    stack.provider.model("model-judge").reply(Reply::stream(&tokens, GAP));
    let mut live = by(stack.ask_stream()).open().await;
    let mut arrived: Vec<(String, Instant)> = Vec::new();
    while let Some(event) = live.event().await {
        let Some(token) = content(&event) else { continue };
        if arrived.is_empty() {
            let judge = stack.provider.requests_for("model-judge").remove(0);
            assert_eq!(judge.finished, None, "the judge still speaks when its first token is here");
        }
        arrived.push((token, event.at));
    }
    assert_eq!(arrived.iter().map(|(token, _)| token).collect::<Vec<_>>(), tokens.iter().collect::<Vec<_>>());
    let mut gaps: Vec<Duration> = arrived.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    gaps.sort_unstable();
    let median = gaps[gaps.len() / 2];
    assert!(median.abs_diff(GAP) <= TOLERANCE, "median {median:?} of {gaps:?}");
}

#[tokio::test]
async fn every_chunk_tells_one_completion_from_its_role_to_done() {
    let stack = Stack::start().await;
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is", " so"], ms(1)).finish("length"));
    let answer = stack.ask_stream().send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut events = answer.events();
    assert!(events.pop().unwrap().is_done());
    let chunks: Vec<Value> = events.iter().map(Event::json).collect();
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["model"], ALIAS);
        assert_eq!((&chunk["id"], &chunk["created"]), (&chunks[0]["id"], &chunks[0]["created"]));
        assert_eq!(chunk["choices"][0]["index"], 0);
        assert_eq!(chunk.get("usage"), None, "nobody asked for it");
    }
    assert!(chunks[0]["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")), "{}", chunks[0]);
    let choices: Vec<(&Value, &Value)> =
        chunks.iter().map(|c| (&c["choices"][0]["delta"], &c["choices"][0]["finish_reason"])).collect();
    let null = Value::Null;
    assert_eq!(
        choices,
        [
            (&json!({"role": "assistant", "content": ""}), &null),
            (&json!({"content": "It"}), &null),
            (&json!({"content": " is"}), &null),
            (&json!({"content": " so"}), &null),
            (&json!({}), &json!("length")),
        ]
    );
}

#[tokio::test]
async fn a_usage_chunk_comes_exactly_when_asked_for_and_sums_every_billed_call() {
    let stack = Stack::start().await;
    let member = |text: &str, usage| Reply::text(text).usage(usage);
    stack.provider.model("model-a").reply(member("one", Usage::new(100, 5).cached(64).reasoning(3)));
    stack.provider.model("model-b").reply(member("two", Usage::new(90, 7).cached(0)));
    // What it says cannot be used, and costs none the less.
    stack.provider.model("model-c").reply(Reply::content_filter().usage(Usage::new(80, 11)));
    let judge = Usage::new(300, 20).cached(128).reasoning(12);
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is", " so"], ms(1)).usage(judge));
    let usage = json!({
        "prompt_tokens": 570, "completion_tokens": 43, "total_tokens": 613,
        "prompt_tokens_details": {"cached_tokens": 192},
        "completion_tokens_details": {"reasoning_tokens": 15},
    });

    // The strict provider refuses `stream_options` where there is no `stream`, as it must be for members.
    let asked = stack.ask(json!({"stream": true, "stream_options": {"include_usage": true}})).send().await;
    assert_eq!(asked.header("x-ensemble-responses"), "2");
    let chunks = chunks(&asked);
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage));
    assert!(!others.is_empty() && others.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));

    for options in [json!(null), json!({}), json!({"include_usage": false})] {
        let unasked = stack.ask(json!({"stream": true, "stream_options": options})).send().await;
        let chunks = self::chunks(&unasked);
        assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{options}");
        assert!(chunks.iter().all(|chunk| chunk["choices"] != json!([])), "{options}");
    }

    let plain = stack.ask(json!({})).send().await.json();
    assert_eq!(plain["usage"], usage);
}

#[tokio::test]
async fn a_judge_that_breaks_off_leaves_one_error_event_and_no_done() {
    let stack = Stack::start().await;
    let tokens = ["It", " is", " so", "."];
    stack.provider.model("model-judge").reply(Reply::stream(&tokens, ms(5)).cut_after(2));
    let answer = stack.ask_stream().send().await;
    assert_eq!((answer.status.as_u16(), &answer.broken), (200, &None), "an orderly end");
    assert_eq!(contents(&answer), ["It", " is"]);
    assert_error_ends(&answer, "judge_failed");
}

#[tokio::test]
async fn a_caller_who_waits_long_gets_its_status_and_heartbeats_and_then_the_answer() {
    let stack = waiting().await;
    stack.provider.model("model-b").reply(Reply::text("two").delay(ms(1000)));
    let live = stack.ask_stream().open().await;
    let committed = live.began.elapsed();
    assert!(committed >= ms(200), "{committed:?}");
    assert!(stack.provider.requests_for("model-judge").is_empty(), "the panel is still at work");
    assert_eq!((live.status.as_u16(), live.headers["x-ensemble-alias"].to_str().unwrap()), (200, ALIAS));
    let answer = live.rest().await;
    let events = answer.events();
    let silent = events.iter().take_while(|event| event.data.is_none()).count();
    // Nine fit; a busy machine may deliver some of them together.
    assert!(silent >= 3, "{silent} heartbeats: {}", answer.text());
    assert!(events[..silent].iter().all(|event| !event.comments.is_empty()));
    assert!(events[silent..].iter().all(|event| event.comments.is_empty()), "the judge speaks now");
    assert_eq!(contents(&answer).concat(), "the judge's answer");
    assert!(events.last().unwrap().is_done());
}

#[tokio::test]
async fn a_failure_after_the_status_is_one_error_event() {
    let stack = waiting().await;
    for model in ["model-a", "model-b", "model-c"] {
        let failed = Reply::error(500, "host db-7 is down", "server_error", None).delay(ms(500));
        stack.provider.model(model).reply(failed);
    }
    let answer = stack.ask_stream().send().await;
    assert_eq!((answer.status.as_u16(), &answer.broken), (200, &None));
    assert_error_ends(&answer, "quorum_not_met");
    assert!(contents(&answer).is_empty());
    assert!(!answer.text().contains("db-7"));
}

#[tokio::test]
async fn a_failure_before_the_status_has_one_of_its_own() {
    let stack = Options::new().ensemble("on_judge_failure: fail").start().await;
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(1)).cut_after(0));
    let answer = stack.ask_stream().send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-should-retry")), (502, "false"));
    assert_eq!(answer.json()["error"]["code"], "judge_failed");
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.model(model).reply(Reply::error(500, "host db-7 is down", "server_error", None));
    }
    let answer = stack.ask_stream().send().await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (502, "application/json"));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(answer.json()["error"]["code"], "quorum_not_met");
}

/// An installation whose streams commit themselves early.
async fn waiting() -> Stack {
    Options::new().config("stream: {commit_after_ms: 200, heartbeat_ms: 100}").start().await
}

/// What an event adds to the text.
fn content(event: &Event) -> Option<String> {
    event.data.as_deref().filter(|_| !event.is_done())?;
    let chunk = event.json();
    let content = chunk["choices"][0]["delta"]["content"].as_str()?;
    Some(content.to_owned()).filter(|content| !content.is_empty())
}

fn contents(answer: &Answer) -> Vec<String> {
    answer.events().iter().filter_map(content).collect()
}

/// The chunks of a stream that ended well.
fn chunks(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut events = answer.events();
    assert!(events.pop().is_some_and(|last| last.is_done()), "{}", answer.text());
    events.iter().map(Event::json).collect()
}

/// One error event ends the stream, and nothing says that it was completed.
fn assert_error_ends(answer: &Answer, code: &str) {
    let events = answer.events();
    assert!(!events.iter().any(Event::is_done), "{}", answer.text());
    let errors =
        events.iter().filter(|event| event.data.as_ref().is_some_and(|data| data.contains("\"error\"")));
    assert_eq!(errors.count(), 1, "{}", answer.text());
    assert_eq!(events.last().unwrap().json()["error"]["code"], code);
}
