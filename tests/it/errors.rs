//! What callers are told when there is no answer: the status, OpenAI's envelope, what official clients retry by, and
//! never who was asked.

use consort_testkit::http::Answer;
use consort_testkit::provider::{Reply, error_body};
use serde_json::{Value, json};

use crate::stack::{ALIAS, KEY, ONE_ATTEMPT, Options, Stack, ms, question};

/// What the bodies of failing upstreams say, which no caller may read.
const INNARDS: &str = "kaboom in shard 7";

/// An installation whose direct models and provider have names that a text shows unmistakably.
///
/// Beside the usual ensemble: one usable answer suffices `any-answer`, `strict-judge` fails with its judge, `short-calls` and `short-runs` are bounded by 300 ms.
fn named() -> Options {
    Options::new().whole(|base_url| {
        let panel = "panel: [{model: direct-one}, {model: direct-two}, {model: direct-three}]";
        let judge = "judge: {model: direct-judge}";
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
limits: {{max_request_bytes: 5000}}
providers: [{{name: secret-provider, base_url: '{base_url}', api_key: {KEY}}}]
models:
- {{display_name: direct-one, provider: secret-provider, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: direct-two, provider: secret-provider, model_name: model-b, {ONE_ATTEMPT}}}
- {{display_name: direct-three, provider: secret-provider, model_name: model-c, {ONE_ATTEMPT}}}
- {{display_name: direct-judge, provider: secret-provider, model_name: model-judge, {ONE_ATTEMPT}}}
- {{display_name: {ALIAS}, ensemble: {{{panel}, {judge}}}}}
- {{display_name: any-answer, ensemble: {{{panel}, {judge}, min_responses: 1}}}}
- {{display_name: strict-judge, ensemble: {{{panel}, {judge}, on_judge_failure: fail, timeout_ms: 600}}}}
- {{display_name: short-calls, ensemble: {{{panel}, {judge}, timeout_ms: 300}}}}
- {{display_name: short-runs, ensemble: {{{panel}, {judge}, deadline_ms: 300}}}}
"
        )
    })
}

/// What a caller is told, apart from the message.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told<'a> {
    status: u16,
    kind: &'a str,
    code: Option<&'a str>,
    param: Option<&'a str>,
    /// Empty: the header is not there.
    retry_after: &'a str,
    /// Empty: the header is not there.
    should_retry: &'a str,
}

impl<'a> Told<'a> {
    fn new(status: u16, kind: &'a str, code: &'a str) -> Self {
        Self { status, kind, code: Some(code), param: None, retry_after: "", should_retry: "" }
    }

    /// Nobody was asked, and asking the same again is in vain.
    fn bad_request(code: Option<&'a str>, param: Option<&'a str>) -> Self {
        Self { code, param, ..Self::new(400, "invalid_request_error", "") }
    }

    /// Members were billed.
    fn final_after_members(self) -> Self {
        Self { should_retry: "false", ..self }
    }

    fn come_back(self, retry_after: &'a str) -> Self {
        Self { retry_after, ..self }
    }
}

/// Fails unless `answer` is exactly this error, in exactly OpenAI's envelope, and tells nothing of who was asked;
/// returns its message.
#[track_caller]
fn assert_told(stack: &Stack, answer: &Answer, expected: Told<'_>) -> String {
    let body = answer.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no envelope: {body}"));
    let mut names: Vec<_> = error.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        (body.as_object().map(|o| o.len()), names),
        (Some(1), vec!["code", "message", "param", "type"])
    );
    let told = Told {
        status: answer.status.as_u16(),
        kind: error["type"].as_str().unwrap_or_default(),
        code: error["code"].as_str(),
        param: error["param"].as_str(),
        retry_after: answer.header("retry-after"),
        should_retry: answer.header("x-should-retry"),
    };
    assert_eq!(told, expected, "{body} {:?}", answer.headers);
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.header("x-request-id").is_empty());
    assert_tells_nothing(stack, answer);
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty());
    message.to_owned()
}

/// Fails if anything that the caller sees names who was asked, or repeats what failed there.
#[track_caller]
fn assert_tells_nothing(stack: &Stack, answer: &Answer) {
    let headers =
        answer.headers.iter().map(|(n, v)| format!("{n}: {}\n", String::from_utf8_lossy(v.as_bytes())));
    let seen: String = headers.chain([answer.text().to_owned()]).collect();
    let port = stack.provider.addr().port().to_string();
    let consort = stack.service.addr().port().to_string();
    let secrets =
        [&*port, &*consort, "127.0.0.1", "localhost", KEY, "secret-provider", INNARDS, "model-", "direct-"];
    for secret in secrets {
        assert!(!seen.contains(secret), "{secret:?} is in what the caller sees:\n{seen}");
    }
}

/// Asks twice, plainly and for a stream: before the first content both are told alike. Returns the message.
async fn assert_both_told(stack: &Stack, fields: Value, expected: Told<'_>) -> String {
    let mut streaming = fields.clone();
    streaming["stream"] = json!(true);
    let plain = stack.ask(fields).send().await;
    let streamed = stack.ask(streaming).send().await;
    let message = assert_told(stack, &plain, expected);
    assert_eq!(assert_told(stack, &streamed, expected), message);
    message
}

fn panel_says(stack: &Stack, reply: &Reply) {
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.model(model).reply(reply.clone());
    }
}

fn broken() -> Reply {
    Reply::error(500, INNARDS, "server_error", None)
}

#[tokio::test]
async fn a_request_that_no_ensemble_can_honour_is_refused_before_anybody_is_asked() {
    let stack = named().start().await;
    let audio = json!({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}});
    let refused = [
        (json!({"n": 2}), "unsupported_parameter", "n"),
        (audio, "unsupported_parameter", "modalities"),
        (json!({"audio": {"voice": "alloy"}}), "unsupported_parameter", "audio"),
        (json!({"messages": []}), "invalid_value", "messages"),
        (json!({"messages": "why?"}), "invalid_value", "messages"),
        (json!({"n": "two"}), "invalid_value", "n"),
    ];
    for (fields, code, param) in refused {
        let message = assert_both_told(&stack, fields, Told::bad_request(Some(code), Some(param))).await;
        assert!(message.contains(&format!("'{param}'")), "{message}");
    }
    let alone = stack.ask(json!({"stream_options": {"include_usage": true}})).send().await;
    assert_told(&stack, &alone, Told::bad_request(Some("invalid_value"), Some("stream_options")));
    let no_bool = stack.ask(json!({"stream": "yes"})).send().await;
    assert_told(&stack, &no_bool, Told::bad_request(Some("invalid_value"), Some("stream")));
    let twice = r#"{"model":"research-ensemble","messages":[{}],"top_p":1,"top_p":0}"#;
    let twice = stack.ask_raw(twice).send().await;
    let message = assert_told(&stack, &twice, Told::bad_request(Some("duplicate_key"), Some("top_p")));
    assert!(message.contains("top_p"), "{message}");
    assert!(stack.provider.requests().is_empty() && stack.upstream.requests().is_empty());
}

#[tokio::test]
async fn malformed_json_is_ours_to_refuse_when_it_names_an_alias_and_the_upstreams_otherwise() {
    let stack = named().start().await;
    for body in [
        r#"{"model":"research-ensemble","messages":["#,
        r#"{"model":"research-ensemble","messages":[{"role":"user"}],}"#,
        r#"{"model":"research-ensemble","messages":[{}]} x"#,
    ] {
        let answer = stack.ask_raw(body).send().await;
        assert_told(&stack, &answer, Told::bad_request(None, None));
    }
    assert!(stack.upstream.requests().is_empty());
    let others = [r#"{"messages":[{}]}"#, r#"{"messages":[}"#, "why?", r#"{"model":7}"#];
    for (sent, body) in others.into_iter().enumerate() {
        let answer = stack.ask_raw(body).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-upstream")), (200, "echo"), "{body}");
        let arrived = stack.upstream.requests().remove(sent);
        assert_eq!(arrived.body.as_deref(), Some(body.as_bytes()));
    }
    assert!(stack.provider.requests().is_empty());
}

#[tokio::test]
async fn what_every_member_finds_wrong_with_a_request_is_told_without_naming_them() {
    let stack = named().start().await;
    let provider = stack.provider.addr();
    for status in [400, 422] {
        let message = "This model's maximum context length is 8192 tokens.";
        let body =
            error_body(message, "invalid_request_error", Some("messages"), Some("context_length_exceeded"));
        panel_says(&stack, &Reply::status(status, body));
        let code = "context_length_exceeded";
        let expected = Told {
            param: Some("messages"),
            ..Told::new(status, "invalid_request_error", code).final_after_members()
        };
        assert_eq!(assert_both_told(&stack, json!({}), expected).await, message);
    }
    let message = format!(
        "model-a (direct-one, model-b-mini) at http://{provider}/v1 of secret-provider, \
         {provider} by key {KEY}: too long"
    );
    let body = error_body(&message, "invalid_request_error", Some("model-a"), Some("direct-one_too_long"));
    panel_says(&stack, &Reply::status(400, body));
    let plain = stack.ask(json!({})).send().await;
    assert_eq!(plain.status, 400);
    assert!(plain.json()["error"]["message"].as_str().is_some_and(|m| m.ends_with(": too long")));
    assert_tells_nothing(&stack, &plain);
    // Without an envelope there is nothing safe to repeat.
    panel_says(&stack, &Reply::raw("text/html", INNARDS).with_status(400));
    let expected = Told { code: None, ..Told::new(400, "invalid_request_error", "").final_after_members() };
    assert_both_told(&stack, json!({}), expected).await;
}

#[tokio::test]
async fn when_every_member_is_rate_limited_the_caller_is_told_the_soonest_return() {
    let stack = named().start().await;
    for (model, after) in [("model-a", "30"), ("model-b", "7"), ("model-c", "60")] {
        stack.provider.model(model).reply(Reply::rate_limited(after));
    }
    // Only where one answer would do is every member heard: otherwise the run ends when the quorum is out of reach.
    let expected = Told::new(429, "rate_limit_error", "rate_limit_exceeded").come_back("7");
    assert_both_told(&stack, json!({"model": "any-answer"}), expected).await;
    let soon = Reply::rate_limited("7").header("retry-after-ms", "1500");
    stack.provider.model("model-b").reply(soon);
    assert_both_told(&stack, json!({"model": "any-answer"}), expected.come_back("2")).await;
}

#[tokio::test]
async fn what_went_wrong_with_the_members_has_its_own_status_and_code() {
    let stack = named().start().await;
    let unauthorised = |status| Reply::error(status, &format!("Incorrect API key: {KEY}"), "auth", None);
    for status in [401, 403] {
        panel_says(&stack, &unauthorised(status));
        let expected = Told::new(502, "server_error", "upstream_auth").final_after_members();
        assert_both_told(&stack, json!({}), expected).await;
    }
    let not_met = Told::new(502, "server_error", "quorum_not_met").final_after_members();
    let replies = [
        broken(),
        broken().with_status(503).header("retry-after", "9"),
        Reply::error(
            404,
            "The model `model-a` does not exist",
            "invalid_request_error",
            Some("model_not_found"),
        ),
        Reply::raw("text/html", format!("<html>{INNARDS}</html>")),
        Reply::garbage(),
        Reply::cut(),
        Reply::text(INNARDS).cut_after(0),
        Reply::text(""),
        Reply::refusal(INNARDS),
        Reply::content_filter(),
    ];
    for reply in replies {
        panel_says(&stack, &reply);
        let message = assert_both_told(&stack, json!({}), not_met).await;
        assert!(message.contains("0 of the 2"), "{reply:?}: {message}");
    }
    // Different troubles have no name in common, and one usable answer is not none.
    stack.provider.model("model-b").reply(Reply::rate_limited("1").delay(ms(300)));
    stack.provider.model("model-a").reply(unauthorised(401).delay(ms(300)));
    assert_both_told(&stack, json!({}), not_met).await;
    stack.provider.model("model-c").reply(Reply::text("three"));
    let message = assert_both_told(&stack, json!({}), not_met).await;
    assert!(message.contains("1 of the 2"), "{message}");
}

#[tokio::test]
async fn a_panel_that_is_out_of_time_is_a_gateway_timeout() {
    let stack = named().start().await;
    panel_says(&stack, &Reply::stall());
    for alias in ["short-calls", "short-runs"] {
        let expected = Told::new(504, "server_error", "ensemble_timeout").final_after_members();
        assert_both_told(&stack, json!({"model": alias}), expected).await;
    }
}

#[tokio::test]
async fn a_failed_judge_is_told_as_its_cause_where_no_candidate_may_stand_in() {
    let stack = named().start().await;
    let upstream = Told::new(502, "server_error", "judge_failed").final_after_members();
    let late = Told { status: 504, ..upstream };
    let limited = Told::new(429, "rate_limit_error", "judge_failed").come_back("11");
    let unauthorised = Reply::error(401, &format!("Incorrect API key: {KEY}"), "auth", None);
    let failures = [
        (broken(), upstream),
        (unauthorised, upstream),
        (Reply::error(400, "model-judge takes no images", "invalid_request_error", None), upstream),
        (Reply::garbage(), upstream),
        (Reply::cut(), upstream),
        (Reply::text(""), upstream),
        (Reply::refusal(INNARDS), upstream),
        (Reply::rate_limited("11"), limited),
        (Reply::stall(), late),
    ];
    for (reply, expected) in failures {
        stack.provider.model("model-judge").reply(reply);
        assert_both_told(&stack, json!({"model": "strict-judge"}), expected).await;
    }
}

#[tokio::test]
async fn a_judge_that_breaks_off_in_mid_stream_ends_it_with_one_error_and_no_done() {
    let stack = named().start().await;
    for (reply, code) in [
        (Reply::stream(&["It", " is", " so"], ms(1)).cut_after(2), "judge_failed"),
        (
            Reply::sse(format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"It\"}}}}]}}\n\ndata: {}\n\n",
                error_body(INNARDS, "server_error", None, None)
            )),
            "judge_failed",
        ),
    ] {
        stack.provider.model("model-judge").reply(reply);
        let answer = stack.ask_stream().send().await;
        assert_eq!((answer.status.as_u16(), answer.broken.as_deref()), (200, None));
        let events = answer.events();
        let last = events.last().map(|event| event.json()).unwrap_or_default();
        assert_eq!((&last["error"]["code"], &last["error"]["type"]), (&json!(code), &json!("server_error")));
        assert!(last["error"]["param"].is_null() && last["error"]["message"].is_string());
        let of_errors =
            events.iter().filter(|event| event.data.as_deref().is_some_and(|d| d.contains("\"error\"")));
        assert_eq!(of_errors.count(), 1);
        assert!(events.iter().any(|event| event.json()["choices"][0]["delta"]["content"] == "It"));
        assert!(!answer.text().contains("[DONE]"), "{}", answer.text());
        assert_tells_nothing(&stack, &answer);
    }
}

#[tokio::test]
async fn past_the_cap_on_runs_a_caller_is_told_to_come_back_and_nobody_is_asked() {
    let stack = Options::new().config("limits: {max_inflight: 1}").start().await;
    stack.provider.model("model-a").reply(Reply::stall());
    let first = tokio::spawn(stack.ask(json!({})).try_open());
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.wait_for(model, 1).await;
    }
    let expected = Told::new(503, "server_error", "overloaded").come_back("1");
    let asked = stack.provider.requests().len();
    for fields in [json!({}), json!({"stream": true})] {
        let refused = stack.ask(fields).send().await;
        assert_told(&stack, &refused, expected);
    }
    assert_eq!(stack.provider.requests().len(), asked);
    first.abort();
    stack.provider.wait_for_closed("model-a", 1).await;
    stack.provider.model("model-a").reply(Reply::text("one"));
    // The place is free again once the run is over, which its line in the log tells.
    stack.runs_logged(1).await;
    assert_eq!(stack.ask(json!({})).send().await.status, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_in_openais_shape_by_both_attachments() {
    let expected = Told::new(413, "invalid_request_error", "request_too_large");
    // Over the limit in one message of Envoy's, in several, and (beyond any message) over what tonic decodes.
    for (name, options) in [("streamed", Options::new()), ("buffered", Options::buffered())] {
        let stack = options.config("limits: {max_request_bytes: 5000}").start().await;
        for bytes in [5_001, 200_000, 3_000_000] {
            let body = question(json!({"messages": [{"role": "user", "content": "x".repeat(bytes)}]}));
            for stream in [false, true] {
                let mut body = body.clone();
                body["stream"] = json!(stream);
                let answer = stack.ask_raw(body.to_string()).send().await;
                assert_told(&stack, &answer, expected);
            }
        }
        let small = question(json!({"messages": [{"role": "user", "content": "x".repeat(4_000)}]}));
        assert_eq!(stack.ask_raw(small.to_string()).send().await.status, 200);
        assert!(stack.upstream.requests().is_empty(), "{name}");
    }
}
