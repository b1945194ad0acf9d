//! The kit against itself: what the other tests lean on.

#![expect(clippy::expect_used, reason = "a failure here is a failed test")]

use std::time::Duration;

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::http::{self, Call};
use consort_testkit::provider::{Provider, Reply, Usage};
use consort_testkit::upstream::{Framing, KEPT, Upstream, hash};
use http_types::Version;
use serde_json::{Value, json};

use ::http as http_types;

const CHAT: &str = "/v1/chat/completions";

fn ask(provider: &Provider, more: Value) -> Call {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let members = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(members);
    http::post(provider.addr(), CHAT).json(&body)
}

#[tokio::test]
async fn replies_come_in_order_and_the_last_one_stays() {
    let provider = Provider::start().await;
    provider
        .model("m")
        .reply(Reply::rate_limited("3"))
        .then(Reply::text("two words").usage(Usage::new(7, 2).cached(4).reasoning(1)));
    let first = ask(&provider, json!({})).send().await;
    assert_eq!((first.status.as_u16(), first.header("retry-after")), (429, "3"));
    for call in [ask(&provider, json!({})), ask(&provider, json!({})).h2c()] {
        let answer = call.send().await.json();
        assert_eq!(answer["choices"][0]["message"]["content"], "two words");
        assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 1);
    }
    assert_eq!(provider.billed("m"), Usage::new(14, 4).cached(8).reasoning(2));
    let received = provider.wait_for("m", 3).await;
    assert_eq!(received[2].version, Version::HTTP_2);
    assert!(received.iter().all(|one| one.finished.is_some() && one.closed.is_none()));
}

#[tokio::test]
async fn a_provider_may_forget_what_it_was_sent_and_answers_from_it_all_the_same() {
    let provider = Provider::start().await;
    provider.forget_contents();
    provider.model("m").answer(|asked| Reply::text(asked.json["messages"][0]["content"].to_string()));
    let answer = ask(&provider, json!({})).send().await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "\"hi\"");
    let received = provider.wait_for("m", 1).await.remove(0);
    assert!(received.body.is_empty() && received.json.is_null() && received.headers.is_empty());
    assert!(received.finished.is_some());
    let refused = ask(&provider, json!({"n": 2})).send().await;
    assert_eq!(refused.status, 400, "and is as strict");
    provider.expect_violation("'n'");
}

#[tokio::test]
async fn a_streaming_caller_gets_the_same_answer_in_chunks_of_openais_order() {
    let provider = Provider::start().await;
    provider.model("m").reply(Reply::stream(&["a", " b", " c"], Duration::from_millis(30)));
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = ask(&provider, options).send().await;
    let events = answer.events();
    let (done, chunks) = events.split_last().expect("events");
    assert!(done.is_done());
    let delta = |index: usize| chunks[index].json()["choices"][0]["delta"].clone();
    assert_eq!(delta(0)["role"], "assistant");
    let said: Vec<Value> = (1..4).map(|index| delta(index)["content"].clone()).collect();
    assert_eq!(said, ["a", " b", " c"]);
    assert!(chunks[3].at - chunks[1].at >= Duration::from_millis(50), "the gaps are kept");
    assert_eq!(chunks[3].json()["usage"], Value::Null);
    assert_eq!(chunks[4].json()["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[5].json()["choices"], json!([]));
    assert_eq!(chunks[5].json()["usage"]["total_tokens"], 13);
    assert_eq!(provider.billed("m"), Usage::new(10, 3));
}

#[tokio::test]
async fn calls_of_tools_are_whole_again_when_their_deltas_are_joined() {
    let provider = Provider::start().await;
    let arguments = r#"{"city":"Zürich"}"#;
    provider.model("m").reply(Reply::tool_calls(&[("weather", arguments), ("time", "{}")]));
    let events = ask(&provider, json!({"stream": true})).send().await.events();
    let mut joined = [String::new(), String::new()];
    for event in events.iter().filter(|event| !event.is_done()) {
        for call in event.json()["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().expect("an index");
            let piece = call["function"]["arguments"].as_str().expect("a piece");
            joined[usize::try_from(index).expect("small")].push_str(piece);
        }
    }
    assert_eq!(joined, [arguments, "{}"]);
}

#[tokio::test]
async fn a_caller_who_leaves_is_seen_at_once() {
    let provider = Provider::start().await;
    provider.model("stalls").reply(Reply::stall());
    provider.model("late").reply(Reply::text("late").delay(Duration::from_secs(60)));
    provider.model("halts").reply(Reply::text("one two three").stall_after(1));
    provider.model("drips").reply(Reply::text("slow").trickle(Duration::from_millis(50)));
    for h2c in [false, true] {
        let nth = 1 + usize::from(h2c);
        for model in ["stalls", "late", "halts", "drips"] {
            let call = ask(&provider, json!({"model": model, "stream": true}));
            let call = if h2c { call.h2c() } else { call };
            let task = tokio::spawn(async move {
                let mut live = call.open().await;
                while live.frame().await.is_some() {}
            });
            let received = provider.wait_for(model, nth).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let left = received[nth - 1].at.elapsed();
            task.abort();
            let closed = provider.wait_for_closed(model, nth).await[nth - 1].closed.expect("closed");
            let seen = closed.saturating_sub(left);
            assert!(seen < Duration::from_millis(250), "{model}, h2c {h2c}: seen after {seen:?}");
        }
    }
    consort_testkit::eventually("no connection left", Duration::from_secs(2), async || {
        (provider.open_connections() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_breaks_off_breaks_off_where_it_was_told_to() {
    let provider = Provider::start().await;
    provider.model("before").reply(Reply::cut());
    provider.model("middle").reply(Reply::text("one two three").cut_after(2));
    for h2c in [false, true] {
        let call = |more: Value| {
            let call = ask(&provider, more);
            if h2c { call.h2c() } else { call }
        };
        assert!(call(json!({"model": "before"})).try_open().await.is_err());
        let whole = call(json!({"model": "middle"})).send().await;
        assert!(whole.broken.is_some() && !whole.body.is_empty());
        let stream = call(json!({"model": "middle", "stream": true})).send().await;
        assert!(stream.broken.is_some());
        let said: Vec<_> = stream
            .events()
            .iter()
            .map(|event| event.json()["choices"][0]["delta"]["content"].clone())
            .collect();
        assert_eq!(said, ["", "one ", "two "]);
    }
    assert!(provider.requests().iter().all(|received| received.closed.is_none()));
    assert_eq!(provider.billed_in_all(), Usage::default());
}

#[tokio::test]
async fn a_breach_of_the_protocol_is_refused_and_fails_the_test() {
    let provider = Provider::start().await;
    provider.require_key("sk-right");
    provider.model("m").reply(Reply::text("never"));
    let right = |call: Call| call.header("authorization", "Bearer sk-right");
    let chat = http::post(provider.addr(), CHAT);
    let refused = [
        (ask(&provider, json!({})), 401, "Incorrect API key"),
        (right(http::get(provider.addr(), CHAT)), 405, "Not allowed"),
        (right(http::post(provider.addr(), "/v1/completions")), 404, "Invalid URL"),
        (right(chat.header("content-type", "text/plain").body("{}")), 400, "content-type"),
        (right(ask(&provider, json!({"model": "nobody"}))), 404, "does not exist"),
        (right(ask(&provider, json!({"n": 2}))), 400, "'n'"),
    ];
    let count = refused.len();
    for (call, status, told) in refused {
        let answer = call.send().await;
        assert_eq!(answer.status.as_u16(), status, "{told}");
        let message = answer.json()["error"]["message"].clone();
        assert!(message.as_str().is_some_and(|message| message.contains(told)), "{message}");
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| provider.assert_clean()));
        assert!(judged.is_err(), "{told}");
        provider.expect_violation(told);
        provider.assert_clean();
    }
    assert_eq!(provider.violations().len(), count);
    assert_eq!(provider.requests().len(), count, "refused requests are remembered too");
}

#[tokio::test]
async fn a_body_that_is_not_framed_as_it_says_is_a_breach() {
    let provider = Provider::start().await;
    provider.model("m");
    provider.expect_violation("malformed HTTP");
    raw(&provider, "content-length: 5\r\ncontent-length: 6\r\n\r\n{}").await;
    provider.expect_violation("broken body");
    raw(&provider, "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n").await;
}

async fn raw(provider: &Provider, rest: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(provider.addr()).await.expect("it listens");
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{rest}");
    socket.write_all(head.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await; // it may be reset
}

#[tokio::test]
async fn a_script_that_panics_is_a_violation() {
    let provider = Provider::start().await;
    provider.model("m").answer(|received| {
        assert_eq!(received.header("x-tried"), "1", "no x-tried");
        Reply::text(format!("{} bytes", received.body.len()))
    });
    let answer = ask(&provider, json!({})).header("x-tried", "1").send().await;
    assert_eq!(answer.status.as_u16(), 200);
    provider.expect_violation("no x-tried");
    assert_eq!(ask(&provider, json!({})).send().await.status.as_u16(), 500);
}

#[tokio::test]
async fn raw_bodies_are_sent_as_they_are() {
    let provider = Provider::start().await;
    let text = ": comment\r\n\r\ndata: {}\r\n\r\n";
    provider.model("m").reply(Reply::sse(text)).then(Reply::garbage()).then(Reply::huge(3 << 20));
    let answer = ask(&provider, json!({"stream": true})).send().await;
    assert_eq!((answer.text(), answer.header("content-type")), (text, "text/event-stream"));
    let garbage = ask(&provider, json!({})).send().await;
    assert!(serde_json::from_slice::<Value>(&garbage.body).is_err());
    assert!(ask(&provider, json!({})).send().await.body.len() > 3 << 20);
}

#[tokio::test]
async fn the_upstream_sees_pieces_and_trailers() {
    let upstream = Upstream::start().await;
    for h2c in [false, true] {
        let call = http::post(upstream.addr(), "/x?y=1");
        let call = if h2c { call.h2c() } else { call };
        let mut upload = call.upload(&["x-sum"]).await;
        assert!(upload.piece("one ").await && upload.piece("two").await);
        let answer = upload.finish_with(&[("x-sum", "7")]).await.rest().await;
        assert_eq!(answer.header("x-upstream"), "echo");
        assert_eq!(answer.json()["length"], 7);
    }
    for arrived in upstream.wait_for(2).await {
        assert_eq!(arrived.framing, Framing::Chunked);
        assert_eq!(arrived.path, "/x?y=1");
        assert_eq!(arrived.body.as_deref(), Some(b"one two".as_slice()));
        assert_eq!(arrived.trailers.expect("trailers")["x-sum"], "7");
    }
}

/// Both shipped files, with nobody at Consort's port: what was there before keeps working.
#[tokio::test]
async fn envoy_fails_open_byte_for_byte_when_consort_is_not_there() {
    for file in ["envoy.yaml", "envoy-buffered.yaml"] {
        let upstream = Upstream::start().await;
        let envoy = Envoy::start(EnvoyOptions::shipped(file).upstream(upstream.addr())).await;
        envoy.wait_unhealthy().await;
        let get = http::get(envoy.addr(), "/v1/models?limit=2").send().await;
        assert_eq!((get.status.as_u16(), get.header("x-upstream")), (200, "echo"), "{file}");
        let long = format!("{{\"model\":\"plain\",\"x\":\"{}\"}}", "é".repeat(2 << 20));
        let bodies = ["{\"model\": \"plain\", \"temperature\": 0.70}", "{\"x\": 1}", "", &long];
        for body in bodies {
            for h2c in [false, true] {
                let call = http::post(envoy.addr(), CHAT)
                    .header("content-type", "application/json")
                    .body(body.to_owned());
                let answer = if h2c { call.h2c() } else { call }.send().await;
                assert_eq!(answer.status.as_u16(), 200, "{file}: {}", answer.text());
            }
        }
        let arrived = upstream.wait_for(1 + 2 * bodies.len()).await;
        assert_eq!(arrived[0].path, "/v1/models?limit=2");
        for (index, body) in bodies.iter().enumerate() {
            for arrived in &arrived[1 + 2 * index..][..2] {
                assert_eq!((arrived.length, arrived.hash), (body.len(), hash(body.as_bytes())));
                assert_eq!(arrived.body.is_some(), body.len() <= KEPT);
                assert!(arrived.complete);
                let length = u64::try_from(body.len()).expect("small");
                assert_eq!(arrived.framing, Framing::Length(length), "{file}: {}", body.len());
            }
        }
        let log = envoy.wait_access_log(arrived.len()).await;
        assert_eq!(log[1]["route"], "chat");
        assert_eq!(envoy.stats("cluster.upstream.upstream_rq_200").await, arrived.len() as u64);
    }
}

#[tokio::test]
async fn a_deviation_from_the_shipped_file_is_made_where_it_says() {
    let options = EnvoyOptions::shipped("envoy.yaml")
        .edit(|yaml| replace_once(yaml, "num_retries: 2", "num_retries: 0"))
        .edit(|yaml| replace_once(yaml, "num_retries: 0", "num_retries: 1"));
    let envoy = Envoy::start(options).await;
    let answer = http::get(envoy.addr(), "/").send().await;
    assert_eq!(answer.status.as_u16(), 503, "nobody is upstream either");
}

#[test]
#[should_panic(expected = "0 times")]
fn a_deviation_that_no_longer_fits_fails() {
    replace_once("a: 1".to_owned(), "b: 1", "b: 2");
}
