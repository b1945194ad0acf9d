//! What the shipped settings survive, and what callers see when Consort does not.

use std::time::{Duration, Instant};

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::http::{self, Answer};
use consort_testkit::provider::Reply;
use consort_testkit::upstream::{Upstream, hash};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::envoy_config::instead;
use crate::stack::{ALIAS, CHAT, Options, Stack, ms, question};

#[tokio::test]
async fn two_thousand_waiting_runs_are_all_answered() {
    const RUNS: usize = 2000;
    let stack = Stack::start().await;
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.model(model).reply(Reply::text("late").delay(Duration::from_secs(6)));
    }
    let mut runs = JoinSet::new();
    for _ in 0..RUNS {
        let call = stack.ask(json!({}));
        runs.spawn(async move { call.send().await.status.as_u16() });
    }
    let statuses = runs.join_all().await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), RUNS);
    assert_eq!(stack.provider.requests_for("model-judge").len(), RUNS);
}

#[tokio::test]
async fn a_storm_of_callers_that_vanish_takes_no_other_answer_with_it() {
    let stack = Stack::start().await;
    stack.provider.model("model-c").reply(Reply::text("late").delay(Duration::from_secs(4)));
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let call = stack.ask(json!({}));
        waiting.spawn(async move { call.send().await.status.as_u16() });
    }
    stack.provider.wait_for("model-c", 100).await;
    let body = question(json!({})).to_string();
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..15 {
        let mut storm = JoinSet::new();
        for _ in 0..100 {
            let (addr, request) = (stack.envoy.addr(), request.clone());
            storm.spawn(async move {
                let mut caller = TcpStream::connect(addr).await.unwrap();
                caller.write_all(request.as_bytes()).await.unwrap();
            });
        }
        storm.join_all().await;
    }
    assert_eq!(waiting.join_all().await, [200; 100]);
    let open = || async { (stack.provider.open_connections() <= 300).then_some(()) };
    consort_testkit::eventually("the vanished callers' calls to end", Duration::from_secs(10), open).await;
}

#[tokio::test]
async fn consort_killed_while_a_panel_runs_is_a_503_for_the_caller() {
    let stack = Stack::start().await;
    stack.provider.model("model-c").reply(Reply::stall());
    let caller = tokio::spawn(stack.ask(json!({})).send());
    stack.provider.wait_for("model-c", 1).await;
    stack.service.kill();
    let answer = caller.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (503, ""));
    assert!(stack.upstream.requests().is_empty(), "an alias whose body was seen never passes");
}

/// By the health check's `no_traffic_interval`; its default is a minute.
#[tokio::test]
async fn a_dead_consort_is_noticed_without_traffic_and_one_that_is_back_too() {
    let stack = Stack::start().await;
    stack.service.pause();
    stack.envoy.wait_unhealthy().await;
    stack.service.resume();
    stack.envoy.wait_healthy().await;
    assert_eq!(stack.ask(json!({})).send().await.header("x-ensemble-outcome"), "full");
}

/// The body is Envoy's there, so it could pass: the fence is what refuses it.
#[tokio::test]
async fn consort_killed_while_a_buffered_panel_runs_is_a_503_for_the_caller() {
    let stack = Options::buffered().start().await;
    stack.provider.model("model-c").reply(Reply::stall());
    let caller = tokio::spawn(stack.ask(json!({})).send());
    stack.provider.wait_for("model-c", 1).await;
    stack.service.kill();
    assert_refused(&caller.await.unwrap(), "buffered");
    assert!(stack.upstream.requests().is_empty());
}

#[tokio::test]
async fn consort_killed_in_mid_stream_breaks_the_stream_at_once() {
    for h2c in [false, true] {
        let stack = Stack::start().await;
        stack
            .provider
            .model("model-judge")
            .reply(Reply::stream(&["It", " is", " so"], ms(10)).stall_after(2));
        let call = stack.ask_stream();
        let mut live = if h2c { call.h2c() } else { call }.open().await;
        for _ in 0..3 {
            assert!(live.event().await.is_some());
        }
        let killed = Instant::now();
        stack.service.kill();
        while let Some(event) = live.event().await {
            assert!(!event.is_done());
        }
        assert!(live.broken.is_some(), "an end that a client could take for an orderly one");
        // Over HTTP/1.1 Envoy's delayed_close_timeout of 0.25 s comes before the end; its default is 1 s.
        assert!(killed.elapsed() < ms(900), "{:?}", killed.elapsed());
    }
}

/// Refused by Envoy's fence, in OpenAI's envelope.
#[track_caller]
fn assert_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.text());
    let error = &answer.json()["error"];
    let message = "The model is unavailable at the moment. Please try again.";
    assert_eq!(
        *error,
        json!({"message": message, "type": "server_error", "param": null, "code": "ensemble_unavailable"}),
        "{what}"
    );
    assert_eq!(answer.header("retry-after"), "1", "{what}");
}

#[tokio::test]
async fn without_consort_plain_models_answer_and_no_prompt_for_an_alias_passes() {
    for file in ["envoy.yaml", "envoy-gate.yaml", "envoy-buffered.yaml", "envoy-handoff.yaml"] {
        let upstream = Upstream::start().await;
        let envoy = Envoy::start(EnvoyOptions::shipped(file).upstream(upstream.addr())).await;
        let json_type = |body: Vec<u8>| {
            http::post(envoy.addr(), CHAT).header("content-type", "application/json").body(body)
        };
        let padded = |model: &str, n: usize| {
            json!({"model": model, "messages": [], "user": "x".repeat(n)}).to_string().into_bytes()
        };
        for (nth, length) in [0, 20_000, 3 << 20].into_iter().enumerate() {
            let plain = padded("gpt-4o", length);
            let answer = json_type(plain.clone()).send().await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-upstream")),
                (200, "echo"),
                "{file}, {length}"
            );
            let arrived = upstream.wait_for(nth + 1).await.pop().unwrap();
            assert_eq!(arrived.hash, hash(&plain), "{file}, {length}");
            assert_refused(&json_type(padded(ALIAS, length)).send().await, file);
        }
        let ask = question(json!({}));
        // What Envoy reads otherwise than Consort, or not at all, might be an alias's.
        let text = http::post(envoy.addr(), CHAT).header("content-type", "text/plain");
        assert_refused(&text.body(ask.to_string()).send().await, file);
        assert_refused(&http::post(envoy.addr(), CHAT).body(ask.to_string()).send().await, file);
        assert_refused(&json_type(format!("{ask} x").into_bytes()).send().await, file);
        let mut upload =
            http::post(envoy.addr(), CHAT).header("content-type", "application/json").upload(&[]).await;
        upload.piece(ask.to_string()).await;
        assert_refused(&upload.finish().await.rest().await, file);
        // No model, no alias.
        let answer = json_type(b"{\"messages\":[]}".to_vec()).send().await;
        assert_eq!(answer.header("x-upstream"), "echo", "{file}");
        assert_eq!(upstream.requests().len(), 4, "{file}");
    }
}

#[tokio::test]
async fn beyond_the_circuit_breaker_plain_models_answer_and_no_prompt_for_an_alias_passes() {
    for file in ["envoy.yaml", "envoy-gate.yaml", "envoy-buffered.yaml"] {
        let full =
            |yaml| replace_once(yaml, "max_requests: 65536, max_retries", "max_requests: 1, max_retries");
        let stack = Options::shipped(file).edit(full).start().await;
        stack.provider.model("model-c").reply(Reply::stall());
        let caller = tokio::spawn(stack.ask(json!({})).try_open());
        stack.provider.wait_for("model-c", 1).await;
        assert_refused(&stack.ask(json!({})).send().await, file);
        let plain = http::post(stack.envoy.addr(), CHAT).json(&json!({"model": "gpt-4o"})).send().await;
        assert_eq!(plain.header("x-upstream"), "echo", "{file}: {}", plain.text());
        assert_eq!(stack.upstream.requests().len(), 1, "{file}");
        caller.abort();
    }
}

#[tokio::test]
async fn where_the_operator_lets_aliases_pass_the_upstream_says_what_it_thinks_of_them() {
    let options = Options::new().edit(|yaml| instead(&yaml, &["--on-failure", "open"]));
    let stack = options.start().await;
    stack.upstream.knows_no_models();
    stack.service.kill();
    let answer = stack.ask(json!({})).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn a_refused_override_is_an_error_in_the_log_with_its_remedy() {
    for (allowed, refused) in [
        ("allow_mode_override: true", "allow_mode_override: false"),
        ("- request_body_mode: FULL_DUPLEX_STREAMED", "- request_body_mode: BUFFERED"),
    ] {
        let stack = Options::new().edit(move |yaml| replace_once(yaml, allowed, refused)).start().await;
        let answer = stack.ask(json!({})).send().await;
        assert_refused(&answer, refused);
        let told = |line: &serde_json::Value| line["level"] == "ERROR";
        let line = stack.service.wait_for_log(told).await;
        assert!(
            line["fields"]["message"].as_str().unwrap().starts_with("no body came after the mode override")
        );
        assert!(line["fields"]["remedy"].as_str().unwrap().contains("allowed_override_modes"));
        stack.ask(json!({})).send().await;
        assert_eq!(stack.service.logs().iter().filter(|l| told(l)).count(), 1, "told once a minute");
    }
}

#[tokio::test]
async fn a_message_over_the_decoding_limit_is_refused_and_passes_nowhere() {
    for options in [Options::new(), Options::buffered()] {
        let raise = |yaml: String| {
            let is_limit = |line: &&str| line.trim_start().starts_with("per_connection_buffer_limit_bytes");
            let limit = yaml.lines().find(is_limit).unwrap().to_owned();
            replace_once(yaml, &limit, "    per_connection_buffer_limit_bytes: 67108864")
        };
        // Consort decodes messages of up to 34 MiB; Envoy may now send all 40 MiB in one.
        let stack = options.config("limits: {max_request_bytes: 65536}").edit(raise).start().await;
        let answer = stack.ask(json!({"user": "x".repeat(40 << 20)})).send().await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (413, &json!("request_too_large"))
        );
        assert!(stack.upstream.requests().is_empty());
    }
}
