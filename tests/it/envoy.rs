//! What else Envoy may do around us.

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::http;
use consort_testkit::provider::Reply;
use consort_testkit::service::Service;
use consort_testkit::upstream::hash;
use serde_json::json;

use crate::stack::{self, ALIAS, CHAT, Options, Stack, ms, question};

#[tokio::test]
async fn a_request_with_trailers_is_answered_or_passed_like_any_other() {
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        for h2c in [false, true] {
            let call = || {
                let call = http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json");
                if h2c { call.h2c() } else { call }
            };
            let mut upload = call().upload(&["x-check"]).await;
            upload.piece(question(json!({})).to_string()).await;
            let answer = upload.finish_with(&[("x-check", "1")]).await.rest().await;
            assert_eq!(answer.header("x-ensemble-outcome"), "full", "h2c: {h2c} {}", answer.text());

            let before = stack.upstream.requests().len();
            let body = r#"{"model":"gpt-4o","messages":[]}"#;
            let mut upload = call().upload(&["x-check"]).await;
            upload.piece(body).await;
            let answer = upload.finish_with(&[("x-check", "1")]).await.rest().await;
            assert_eq!(answer.header("x-upstream"), "echo");
            let arrived = stack.upstream.requests().split_off(before).remove(0);
            assert_eq!((arrived.hash, arrived.complete), (hash(body.as_bytes()), true));
        }
    }
}

#[tokio::test]
async fn an_empty_last_frame_ends_a_request_like_any_other() {
    let stack = Stack::start().await;
    let call = || http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json").h2c();
    let mut upload = call().upload(&[]).await;
    upload.piece(question(json!({})).to_string()).await;
    tokio::time::sleep(ms(50)).await;
    let answer = upload.finish().await.rest().await;
    assert_eq!(answer.header("x-ensemble-outcome"), "full", "{}", answer.text());
    let answer = call().upload(&[]).await.finish().await.rest().await;
    assert_eq!(answer.header("x-upstream"), "echo", "a body of nothing but its end");
    assert_eq!(stack.upstream.requests().pop().unwrap().length, 0);
}

/// A filter behind ours sees the requests that go on, and none that is answered. (Our answers do walk
/// back through all filters: one that asks for response headers sees those.)
#[tokio::test]
async fn a_second_processor_after_ours_sees_only_what_passes() {
    let stack = Options::new()
        .edit(|yaml| {
            let router = "          - name: envoy.filters.http.router";
            let second = format!(
                "          - name: second
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              stat_prefix: second
              grpc_service: {{envoy_grpc: {{cluster_name: upstream}}}}
              failure_mode_allow: true
              processing_mode: {{request_header_mode: SEND, request_body_mode: STREAMED, response_header_mode: SKIP}}
{router}"
            );
            replace_once(yaml, router, &second)
        })
        .start()
        .await;
    let streams = async || stack.envoy.stats("http.llm.ext_proc.second.streams_started").await;
    let answer = stack.ask(json!({})).send().await;
    assert_eq!(answer.header("x-ensemble-outcome"), "full", "{}", answer.text());
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(10)));
    assert!(stack.ask_stream().send().await.events().last().is_some_and(|e| e.is_done()));
    assert_eq!(streams().await, 0);
    let plain = json!({"model": "gpt-4o", "x": "y".repeat(100_000)});
    let answer = http::post(stack.envoy.addr(), CHAT).json(&plain).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-upstream")), (200, "echo"));
    assert_eq!(streams().await, 1);
    let arrived = stack.upstream.requests().into_iter().rfind(|r| r.path == CHAT).unwrap();
    assert_eq!(arrived.hash, hash(plain.to_string().as_bytes()));
}

/// Why the shipped files have no `local_reply_config.body_format`: it rewrites answers that are not
/// streamed, ours with 200 among them.
#[tokio::test]
async fn a_local_reply_format_rewrites_plain_answers_and_leaves_streams() {
    let stack = Options::new()
        .edit(|yaml| {
            let at = "          local_reply_config:\n";
            let format = format!(
                "{at}            body_format: {{text_format_source: {{inline_string: 'rewritten: %LOCAL_REPLY_BODY%'}}}}\n"
            );
            replace_once(yaml, at, &format)
        })
        .start()
        .await;
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(10)));
    let streamed = stack.ask_stream().send().await;
    assert!(streamed.events().last().is_some_and(|e| e.is_done()), "{}", streamed.text());
    stack.provider.model("model-judge").reply(Reply::text("whole"));
    let plain = stack.ask(json!({})).send().await;
    assert!(plain.text().starts_with("rewritten: {"), "{}", plain.text());
}

#[tokio::test]
async fn the_access_log_tells_who_answered_and_what_it_cost() {
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        let billed = stack.ask(json!({})).send().await.json()["usage"]["total_tokens"].as_f64();
        stack.ask(json!({"n": 2})).send().await;
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(10)));
        stack.ask_stream().send().await;
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is", " so"], ms(10)).cut_after(1));
        stack.ask_stream().send().await;
        http::post(stack.envoy.addr(), CHAT).json(&json!({"model": "gpt-4o"})).send().await;
        let log = stack.envoy.wait_access_log(5).await;
        let details = |line: usize| log[line]["details"].as_str().unwrap_or_default();
        let noted = |line: usize| &log[line]["consort"];
        assert_eq!((details(0), &noted(0)["outcome"]), ("consort_answered", &json!("full")));
        assert_eq!((&noted(0)["alias"], noted(0)["total_tokens"].as_f64()), (&json!(ALIAS), billed));
        assert_eq!(details(1), "consort_unsupported_parameter");
        assert_eq!(noted(1)["code"], "unsupported_parameter");
        assert_eq!((log[2]["code"].as_u64(), &noted(2)["outcome"]), (Some(200), &json!("full")));
        assert!(noted(2)["completion_tokens"].as_f64().is_some_and(|tokens| tokens > 0.0), "{}", log[2]);
        assert_eq!(noted(3)["code"], "judge_failed");
        assert_eq!((details(4), noted(4).is_null()), ("via_upstream", true));
    }
}

/// Envoy's timer counts against a run there; we answer before it runs out and the alias falls through.
#[tokio::test]
async fn a_buffered_run_ends_before_envoys_timer_does() {
    let stack = Options::buffered().config("ext_proc: {buffered_timeout_ms: 2000}").start().await;
    stack.provider.model("model-b").reply(Reply::stall());
    stack.provider.model("model-c").reply(Reply::stall());
    let answer = stack.ask(json!({})).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (504, &json!("ensemble_timeout")));
    assert!(stack.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_lower_bound_for_aliases_leaves_plain_requests_alone() {
    for options in [Options::new(), Options::buffered()] {
        let stack = options.config("limits: {max_request_bytes: 1000}").start().await;
        let plain = json!({"model": "gpt-4o", "x": "y".repeat(10 << 20)});
        let answer = http::post(stack.envoy.addr(), CHAT).json(&plain).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-upstream")), (200, "echo"));
        assert_eq!(stack.ask(json!({"x": "y".repeat(1000)})).send().await.status, 413);
    }
}

/// What goes wrong with an answer is told without a word of it.
#[tokio::test]
async fn no_log_line_holds_a_providers_words() {
    const SECRET: &str = "TOP-SECRET-ANSWER";
    let stack = Options::new().config("log: {level: trace}").start().await;
    let quoted = format!("\"{SECRET}\"");
    stack.provider.model("model-a").reply(Reply::raw("application/json", quoted.clone()));
    stack.provider.model("model-b").reply(Reply::text(SECRET));
    stack.provider.model("model-judge").reply(Reply::raw("application/json", quoted.clone()));
    stack.ask(json!({})).send().await;
    let wrong = format!("data: {{\"choices\":[{{\"delta\":{quoted}}}]}}\n\n");
    stack.provider.model("model-judge").reply(Reply::sse(wrong));
    stack.ask_stream().send().await;
    let logs = stack.service.logs();
    assert!(logs.iter().any(|line| line["fields"]["message"] == "answering model failed"));
    assert!(logs.iter().all(|line| !line.to_string().contains(SECRET)), "{logs:#?}");
}

#[tokio::test]
async fn other_base_modes_answer_as_the_shipped_one_does() {
    for base in ["FULL_DUPLEX_STREAMED", "STREAMED"] {
        let stack = Options::new()
            .edit(move |yaml| {
                // Full duplex must see trailers.
                let modes = |body, trailers| {
                    format!("request_body_mode: {body}\n                request_trailer_mode: {trailers}\n")
                };
                replace_once(yaml, &modes("NONE", "SKIP"), &modes(base, "SEND"))
            })
            .start()
            .await;
        let answer = stack.ask(json!({})).send().await;
        assert_eq!(answer.header("x-ensemble-outcome"), "full", "{base}: {}", answer.text());
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(10)));
        assert!(stack.ask_stream().send().await.events().last().is_some_and(|e| e.is_done()), "{base}");
        let plain = json!({"model": "gpt-4o", "x": "y".repeat(300_000)});
        http::post(stack.envoy.addr(), CHAT).json(&plain).send().await;
        let arrived = stack.upstream.requests().pop().unwrap();
        assert_eq!((arrived.hash, arrived.complete), (hash(plain.to_string().as_bytes()), true), "{base}");
        let get = http::get(stack.envoy.addr(), CHAT).send().await;
        assert_eq!(get.header("x-upstream"), "echo", "{base}");
    }
}

#[tokio::test]
async fn an_attachment_without_bodies_is_told_what_to_change() {
    let stack = Options::new().config("ext_proc: {mode_override: never}").start().await;
    assert_eq!(stack.ask(json!({})).send().await.header("x-upstream"), "echo");
    let line = stack.service.wait_for_log(|line| line["level"] == "ERROR").await;
    assert!(line["fields"]["remedy"].as_str().unwrap().contains("ext_proc.mode_override"), "{line}");
}

#[tokio::test]
async fn a_unix_socket_joins_envoy_and_consort() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("consort.sock");
    // Left by a process that was killed: nobody listens on it any more.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let provider = stack::provider().await;
    let file = stack::config(&provider, "", "", "");
    let service = Service::start_with(env!("CARGO_BIN_EXE_consort"), &file, |command| {
        command.env("CONSORT__LISTEN__EXT_PROC", format!("unix:{}", socket.display()));
    })
    .await;
    let envoy = Envoy::start(EnvoyOptions::shipped("envoy.yaml").consort_socket(&socket)).await;
    envoy.wait_healthy().await;
    let answer = http::post(envoy.addr(), CHAT).json(&question(json!({}))).send().await;
    assert_eq!(answer.header("x-ensemble-outcome"), "full", "{} {:?}", answer.text(), service.logs());
}
