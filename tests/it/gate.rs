//! The gate: Envoy reads small bodies itself, and no alias that Consort would take gets by.

use consort_testkit::http::{self, Answer};
use consort_testkit::provider::Reply;
use serde_json::json;

use crate::envoy_config::instead;
use crate::stack::{ALIAS, CHAT, Options, Stack, ms, question};

const STREAMS: &str = "http.llm.ext_proc.consort.streams_started";

async fn gated(mode: &'static str) -> Stack {
    let options = if mode == "handoff" { Options::handoff() } else { Options::new() };
    options.edit(move |yaml| instead(&yaml, &["--mode", mode, "--gate"])).start().await
}

#[tokio::test]
async fn small_requests_for_other_models_open_no_stream_to_consort() {
    for mode in ["standalone", "duplex", "buffered", "handoff"] {
        let stack = gated(mode).await;
        let plain = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "x".repeat(2000)}]});
        let answer = http::post(stack.envoy.addr(), CHAT).json(&plain).send().await;
        assert_eq!(answer.header("x-upstream"), "echo", "{mode}");
        let arrived = stack.upstream.requests().pop().unwrap();
        assert_eq!(arrived.body.as_deref(), Some(plain.to_string().as_bytes()), "{mode}");
        assert_eq!(stack.envoy.stats(STREAMS).await, 0, "{mode}");
        let large = json!({"model": "gpt-4o", "x": "y".repeat(10_000)});
        http::post(stack.envoy.addr(), CHAT).json(&large).send().await;
        assert_eq!(stack.envoy.stats(STREAMS).await, 1, "{mode}: Envoy reads no large body");
    }
}

#[tokio::test]
async fn aliases_keep_every_feature() {
    for mode in ["standalone", "duplex", "buffered", "handoff"] {
        let stack = gated(mode).await;
        let answer = stack.ask(json!({})).send().await;
        assert_eq!(answer.header("x-ensemble-outcome"), "full", "{mode}: {}", answer.text());
        let large = stack.ask(json!({"user": "x".repeat(300_000)})).send().await;
        assert_eq!(large.header("x-ensemble-outcome"), "full", "{mode}: {}", large.text());
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(10)));
        let streamed = stack.ask_stream().send().await;
        assert!(streamed.events().last().is_some_and(|e| e.is_done()), "{mode}: {}", streamed.text());
        let refused = stack.ask(json!({"n": 2})).send().await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["param"]),
            (400, &json!("n")),
            "{mode}"
        );
        assert!(stack.upstream.requests().is_empty(), "{mode}");
    }
}

#[tokio::test]
async fn small_requests_for_plain_models_are_answered_while_consort_is_down() {
    // Even where no request can pass a Consort that is down: nobody asks it.
    for mode in ["standalone", "duplex"] {
        let stack = gated(mode).await;
        stack.service.kill();
        let plain = json!({"model": "gpt-4o", "messages": []});
        let answer = http::post(stack.envoy.addr(), CHAT).json(&plain).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-upstream")), (200, "echo"), "{mode}");
    }
}

#[tokio::test]
async fn a_caller_who_leaves_takes_the_providers_calls_with_him() {
    let stack = gated("standalone").await;
    stack.provider.model("model-c").reply(Reply::stall());
    let caller = tokio::spawn(stack.ask(json!({})).send());
    stack.provider.wait_for("model-c", 1).await;
    caller.abort();
    let open = || async { (stack.provider.open_connections() <= 3).then_some(()) };
    consort_testkit::eventually("the call to end", ms(5000), open).await;
}

/// Who has answered: the upstream, or Consort, and how.
fn told(answer: &Answer) -> String {
    match (answer.header("x-upstream"), answer.header("x-ensemble-outcome")) {
        ("echo", _) => "passed".to_owned(),
        (_, "") => format!("{} {}", answer.status.as_u16(), answer.json()["error"]["param"]),
        (_, outcome) => outcome.to_owned(),
    }
}

async fn asked(stack: &Stack, headers: &[(&str, &str)], body: &[u8], chunked: bool) -> String {
    let call = http::post(stack.envoy.addr(), CHAT);
    let call = headers.iter().fold(call, |call, (name, value)| call.header(name, value));
    if !chunked {
        return told(&call.body(body.to_vec()).send().await);
    }
    let mut upload = call.upload(&[]).await;
    upload.piece(body.to_vec()).await;
    told(&upload.finish().await.rest().await)
}

/// A body by a name, with its headers, and whether it comes without a length.
type Row = (&'static str, &'static [(&'static str, &'static str)], Vec<u8>, bool);

/// Where parsers differ, Consort is asked, or it does not matter: with the gate everybody gets what he gets without.
#[tokio::test]
async fn no_reading_of_a_body_lets_an_alias_by_that_consort_would_take() {
    let (open, gated) = (Stack::start().await, gated("standalone").await);
    for stack in [&open, &gated] {
        stack.provider.forgive();
    }
    let json_type: &'static [_] = &[("content-type", "application/json")];
    let charset: &'static [_] = &[("content-type", "application/json; charset=utf-8")];
    let vendor: &'static [_] = &[("content-type", "Application/vnd.x+JSON")];
    let two_types: &'static [_] = &[("content-type", "application/json, text/plain")];
    let text: &'static [_] = &[("content-type", "text/plain")];
    let gzip: &'static [_] = &[("content-type", "application/json"), ("content-encoding", "gzip")];
    let identity: &'static [_] = &[("content-type", "application/json"), ("content-encoding", "identity")];
    let ask = question(json!({})).to_string();
    let with = |member: &str| format!("{{{member},{}", &ask[1..]);
    let padded = |n: usize| with(&format!("\"user\":\"{}\"", "x".repeat(n)));
    let exactly = |n: usize| padded(n - padded(0).len());
    let nested = format!("{{\"x\":{}1{},{}", "[".repeat(1200), "]".repeat(1200), &ask[1..]);
    let deep_other = format!("{{\"x\":{}1{},\"model\":\"gpt-4o\"}}", "[".repeat(1200), "]".repeat(1200));
    let rows: Vec<Row> = vec![
        ("as it is", json_type, ask.clone().into(), false),
        ("without a type", &[], ask.clone().into(), false),
        ("with a charset", charset, ask.clone().into(), false),
        ("of a vendor", vendor, ask.clone().into(), false),
        ("of two types", two_types, ask.clone().into(), false),
        ("as text", text, ask.clone().into(), false),
        ("said to be gzip", gzip, ask.clone().into(), false),
        ("identity", identity, ask.clone().into(), false),
        ("chunked", json_type, ask.clone().into(), true),
        ("of four digits", json_type, exactly(9_999).into(), false),
        ("of five digits", json_type, exactly(10_000).into(), false),
        ("escaped", json_type, ask.replace(r#""model""#, r#""mod\u0065l""#).into(), false),
        ("an escaped name", json_type, ask.replace(ALIAS, r"\u0072esearch\u002densemble").into(), false),
        ("a solidus escaped", json_type, ask.replace(ALIAS, r"\/").into(), false),
        ("with space", json_type, ask.replace(':', " \t\r\n: ").into(), false),
        ("behind others", json_type, with(r#""metadata":{"model":"gpt-4o"}"#).into(), false),
        ("another within", json_type, format!(r#"{{"x":{ask},"model":"gpt-4o"}}"#).into(), false),
        ("only within", json_type, format!(r#"{{"x":{ask}}}"#).into(), false),
        (
            "a text like it",
            json_type,
            r#"{"x":"\"model\":\"research-ensemble\"","model":"gpt-4o"}"#.into(),
            false,
        ),
        ("trailing garbage", json_type, format!("{ask} x").into(), false),
        ("trailing object", json_type, format!(r#"{ask}{{"model":"gpt-4o"}}"#).into(), false),
        ("a trailing comma", json_type, with(r#""x":[1,]"#).into(), false),
        ("a comment", json_type, format!("{{/* */{}", &ask[1..]).into(), false),
        ("a comma first", json_type, format!("{{,{}", &ask[1..]).into(), false),
        ("cut", json_type, ask[..ask.len() - 1].into(), false),
        ("a byte order mark", json_type, format!("\u{feff}{ask}").into(), false),
        ("another encoding", json_type, ask.encode_utf16().flat_map(u16::to_le_bytes).collect(), false),
        ("no UTF-8", json_type, with("\"x\":\"?\"").replace('?', "\u{1}").into_bytes(), false),
        ("half a pair", json_type, with(r#""x":"\ud800""#).into(), false),
        ("NaN", json_type, with(r#""x":NaN"#).into(), false),
        ("a huge number", json_type, with(r#""x":1e999"#).into(), false),
        ("deep", json_type, nested.into(), false),
        ("another, deep", json_type, deep_other.into(), false),
        ("a number", json_type, ask.replace(&format!("\"{ALIAS}\""), "1").into(), false),
        ("null", json_type, ask.replace(&format!("\"{ALIAS}\""), "null").into(), false),
        ("a list", json_type, ask.replace(&format!("\"{ALIAS}\""), &format!("[\"{ALIAS}\"]")).into(), false),
        ("an empty name", json_type, ask.replace(ALIAS, "").into(), false),
        ("no model", json_type, r#"{"messages":[]}"#.into(), false),
        ("no object", json_type, format!("[{ask}]").into(), false),
        ("nothing", json_type, Vec::new(), false),
        ("another case", json_type, ask.replace(ALIAS, "Research-Ensemble").into(), false),
        ("a longer name", json_type, ask.replace(ALIAS, "research-ensembles").into(), false),
        ("with a NUL", json_type, ask.replace(ALIAS, r"research-ensemble\u0000").into(), false),
        ("a name too long", json_type, ask.replace(ALIAS, &"x".repeat(9_000)).into(), false),
        ("another first", json_type, with(r#""model":"gpt-4o""#).into(), false),
        ("twice", json_type, with(&format!("\"model\":\"{ALIAS}\"")).into(), false),
    ];
    let mut wrong = Vec::new();
    for (name, headers, body, chunked) in rows {
        let expected = asked(&open, headers, &body, chunked).await;
        let got = asked(&gated, headers, &body, chunked).await;
        if got != expected {
            wrong.push(format!("{name}: {got} instead of {expected}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// The one difference (docs/adr/022): Envoy goes by the last of two, and what is no alias by it is not Consort's.
#[tokio::test]
async fn an_alias_that_another_model_follows_is_the_upstreams_to_read() {
    let (open, gated) = (Stack::start().await, gated("standalone").await);
    let both = format!(r#"{{"model":"{ALIAS}","messages":[],"model":"gpt-4o"}}"#);
    let json_type = [("content-type", "application/json")];
    assert_eq!(asked(&open, &json_type, both.as_bytes(), false).await, r#"400 "model""#);
    assert_eq!(asked(&gated, &json_type, both.as_bytes(), false).await, "passed");
    assert_eq!(gated.upstream.requests().pop().unwrap().body.as_deref(), Some(both.as_bytes()));
    assert!(gated.provider.requests().is_empty());
}
