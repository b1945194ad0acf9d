//! The end of the program: what runs finishes, nothing new is taken.

use std::time::Instant;

use consort_testkit::eventually;
use consort_testkit::http::{self, Live};
use consort_testkit::provider::Reply;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::stack::{ALIAS, CHAT, Options, Stack, ms};

const LONG: std::time::Duration = ms(20_000);

async fn next_content(live: &mut Live) -> bool {
    while let Some(event) = live.event().await {
        if event.is_done() {
            return false;
        }
        if event.json()["choices"][0]["delta"]["content"].as_str().is_some_and(|c| !c.is_empty()) {
            return true;
        }
    }
    false
}

/// Begins `n` streams of so many words, 50 ms apart, and hears the first word of each.
async fn streams(stack: &Stack, n: usize, words: usize) -> Vec<Live> {
    stack.provider.model("model-judge").reply(Reply::stream(&vec!["word "; words], ms(50)));
    join_all((0..n).map(|_| async {
        let mut live = stack.ask_stream().open().await;
        assert!(next_content(&mut live).await);
        live
    }))
    .await
}

/// Hears a stream to its end; how many words it had, counting the first, and whether it broke off.
async fn rest(mut live: Live) -> (usize, Option<String>) {
    let mut words = 1;
    while next_content(&mut live).await {
        words += 1;
    }
    (words, live.broken)
}

/// Waits until Envoy knows: our log and our listener's end come before our GOAWAY.
async fn told_to_go_away(stack: &Stack) {
    eventually("Envoy to be told to go away", LONG, async || {
        (stack.envoy.stats("cluster.consort.upstream_cx_close_notify").await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_that_run_are_finished_and_nothing_new_is_taken() {
    let stack = Stack::start().await;
    let running = streams(&stack, 50, 60).await;
    stack.service.signal("TERM");
    told_to_go_away(&stack).await;
    assert_eq!(http::get(stack.service.admin(), "/readyz").send().await.status, 503);
    assert_eq!(http::get(stack.service.admin(), "/livez").send().await.status, 200);
    let asked = stack.provider.requests_for("model-a").len();
    let began = Instant::now();
    let refused = stack.ask(json!({})).send().await;
    assert_eq!(refused.json()["error"]["code"], "ensemble_unavailable", "{}", refused.text());
    assert!(began.elapsed() < ms(1500), "it is refused at once: {:?}", began.elapsed());
    assert_eq!(stack.provider.requests_for("model-a").len(), asked);
    for ended in join_all(running.into_iter().map(rest)).await {
        assert_eq!(ended, (60, None));
    }
    let status = stack.service.wait_exit(LONG).await;
    assert_eq!(status.code(), Some(0), "{:?}", stack.service.logs());
    let runs = stack.runs_logged(50).await;
    assert!(runs.iter().all(|run| run["message"] == "ensemble answered"), "{runs:?}");
}

#[tokio::test]
async fn requests_are_taken_until_others_have_seen_that_it_ends() {
    let stack = Options::new().config("drain: {delay_ms: 4000}").start().await;
    stack.service.signal("TERM");
    eventually("readiness to be withdrawn", LONG, async || {
        let ready = http::get(stack.service.admin(), "/readyz").send().await;
        (ready.status == 503 && ready.json()["draining"] == true).then_some(())
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < ms(700) {
        let answer = stack.ask(json!({})).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-ensemble-outcome")), (200, "full"));
    }
    assert_eq!(stack.service.wait_exit(LONG).await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_ends_at_its_time_and_at_a_second_signal() {
    let bounded = Options::new().config("drain: {timeout_ms: 300}").start().await;
    let running = streams(&bounded, 1, 400).await;
    bounded.service.signal("TERM");
    assert_eq!(bounded.service.wait_exit(ms(5000)).await.code(), Some(0));
    drop(running);
    let forced = Stack::start().await;
    let running = streams(&forced, 1, 400).await;
    forced.service.signal("TERM");
    told_to_go_away(&forced).await;
    forced.service.signal("TERM");
    assert_eq!(forced.service.wait_exit(ms(5000)).await.code(), Some(1));
    assert!(forced.service.stderr().contains("a second time"), "{}", forced.service.stderr());
    drop(running);
}

/// The outcomes of the decisions in a file.
fn outcomes(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let decisions = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    decisions.map(|decision| decision["outcome"].to_string()).collect()
}

#[tokio::test]
async fn runs_that_are_cut_leave_their_decisions_and_their_callers_are_told() {
    for is_forced in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("decisions.jsonl");
        let timeout = if is_forced { 20_000 } else { 300 };
        let more = format!(
            "drain: {{timeout_ms: {timeout}}}\ndecisions: {{file: {{path: '{}'}}, stdout: true}}",
            path.display()
        );
        let stack = Options::new().config(&more).start().await;
        let running = streams(&stack, 2, 400).await;
        let mut plain = http::post(stack.service.http(), CHAT).json(&json!({
            "model": ALIAS, "stream": true, "messages": [{"role": "user", "content": "?"}],
        }));
        plain = plain.header("accept", "text/event-stream");
        let mut plain = plain.open().await;
        assert!(next_content(&mut plain).await);
        stack.service.signal("TERM");
        if is_forced {
            told_to_go_away(&stack).await;
            stack.service.signal("TERM");
        }
        let told = async {
            let mut last = String::new();
            while let Some(event) = plain.event().await {
                last = event.data.clone().unwrap_or_default();
            }
            last
        };
        let (last, status) = tokio::join!(told, stack.service.wait_exit(ms(5000)));
        assert_eq!(status.code(), Some(i32::from(is_forced)));
        assert_eq!(
            outcomes(&path),
            ["\"cancelled\"", "\"cancelled\"", "\"cancelled\""],
            "forced: {is_forced}"
        );
        if !is_forced {
            assert!(last.contains("draining"), "{last}");
        }
        drop(running);
    }
}

#[tokio::test]
async fn the_playground_takes_nothing_new_in_a_drain_and_what_runs_there_finishes() {
    let stack = Options::new().start().await;
    stack.provider.model("model-judge").reply(Reply::stream(&vec!["word "; 60], ms(50)));
    let ask = || {
        http::post(stack.service.admin(), CHAT).json(&json!({
            "model": ALIAS, "stream": true, "messages": [{"role": "user", "content": "?"}],
        }))
    };
    let mut running = ask().open().await;
    assert!(next_content(&mut running).await);
    stack.service.signal("TERM");
    let refused = eventually("the playground to take nothing new", LONG, async || {
        // Taken, it is wrong and no run.
        let told = http::post(stack.service.admin(), CHAT).json(&json!({})).send().await;
        (told.status == 503).then_some(told)
    })
    .await;
    assert_eq!((refused.header("retry-after"), &refused.json()["error"]["code"]), ("1", &json!("draining")));
    assert_eq!(rest(running).await, (60, None));
    assert_eq!(stack.service.wait_exit(LONG).await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_service_stops_at_once() {
    let stack = Stack::start().await;
    assert_eq!(stack.ask(json!({})).send().await.status, 200);
    let began = Instant::now();
    stack.service.signal("TERM");
    assert_eq!(stack.service.wait_exit(LONG).await.code(), Some(0));
    assert!(began.elapsed() < ms(3000), "{:?}", began.elapsed());
}
