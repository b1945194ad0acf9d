//! A provider that speaks Gemini's `generateContent`, through the whole service.

use consort_testkit::http::{self, Answer};
use consort_testkit::provider::{Received, Reply, Usage};
use serde_json::{Value, json};

use crate::adapters;
use crate::stack::{CHAT, KEY, ONE_ATTEMPT, Options, Stack, ms};

const OLD: &str = "gemini-2.5-flash";
const NEW: &str = "gemini-3-flash-preview";
const ARGUMENTS: &str = r#"{"city":"Köln am Rhein"}"#;

/// Ensembles of one member each, whose answer is the caller's: `by-openai`, `by-old` and `by-new`.
async fn stack() -> Stack {
    let options = Options::new().whole(|base_url| {
        let google = base_url.replace("/v1", "/v1beta");
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers:
- {{name: scripted, base_url: '{base_url}', api_key: {KEY}}}
- {{name: google, adapter: gemini, base_url: '{google}', api_key: {KEY}}}
models:
- {{display_name: o, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: old, provider: google, model_name: {OLD}, {ONE_ATTEMPT}}}
- {{display_name: new, provider: google, model_name: {NEW}, {ONE_ATTEMPT}}}
- {{display_name: by-openai, ensemble: {{panel: [{{model: o}}], strategy: first}}}}
- {{display_name: by-old, ensemble: {{panel: [{{model: old}}], strategy: first}}}}
- {{display_name: by-new, ensemble: {{panel: [{{model: new}}], strategy: first}}}}
"
        )
    });
    let stack = options.start().await;
    for model in [OLD, NEW] {
        stack.provider.model(model);
    }
    stack
}

async fn ask(stack: &Stack, alias: &str, fields: Value) -> Answer {
    let mut body = json!({"model": alias, "messages": [{"role": "user", "content": "why?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    http::post(stack.envoy.addr(), CHAT).json(&body).send().await
}

/// What an answer says, whether it came whole or streamed; ids of calls are the provider's own affair.
fn said(answer: &Answer) -> Value {
    let mut said = adapters::said(answer);
    for call in said["message"]["tool_calls"].as_array_mut().into_iter().flatten() {
        assert!(call["id"].take().as_str().is_some_and(|id| !id.is_empty()));
    }
    said
}

fn conversation() -> Value {
    let mut conversation = adapters::conversation();
    conversation["reasoning_effort"] = json!("low");
    conversation["user"] = json!("u-1");
    conversation
}

/// The conversation once the tool was called, and has answered.
fn continued() -> Value {
    let mut conversation = conversation();
    let function = json!({"name": "weather", "arguments": ARGUMENTS});
    let call = json!({"id": "call_7", "type": "function", "function": function});
    let messages = conversation["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "I will look.", "tool_calls": [call]}));
    messages.push(json!({"role": "tool", "tool_call_id": "call_7", "content": "21 °C"}));
    conversation
}

/// What each model says to it, in its own words.
fn says(asked: &Received) -> Reply {
    let usage = Usage::new(120, 30).cached(20).reasoning(12);
    if String::from_utf8_lossy(&asked.body).contains("21 °C") {
        return Reply::text("{\"degrees\": 21}").usage(usage);
    }
    let function = json!({"name": "weather", "arguments": ARGUMENTS});
    let call = json!({"id": "call_0", "type": "function", "function": function});
    let message = json!({"content": "I will look.", "refusal": null, "tool_calls": [call]});
    Reply::message(message).reasoning("Where is this?").finish("tool_calls").usage(usage)
}

#[tokio::test]
async fn the_same_conversation_gives_the_same_answer_as_from_openai() {
    let stack = stack().await;
    for model in ["model-a", OLD, NEW] {
        stack.provider.model(model).answer(says);
    }
    for stream in [json!({}), json!({"stream": true, "stream_options": {"include_usage": true}})] {
        for mut asked in [conversation(), continued()] {
            asked.as_object_mut().unwrap().extend(stream.as_object().unwrap().clone());
            let expected = said(&ask(&stack, "by-openai", asked.clone()).await);
            assert_eq!(expected["usage"]["completion_tokens_details"]["reasoning_tokens"], 12);
            for alias in ["by-old", "by-new"] {
                let answer = said(&ask(&stack, alias, asked.clone()).await);
                assert_eq!(answer, expected, "{alias} {stream}");
            }
        }
    }
    let asked = stack.provider.requests_for(NEW);
    let paths: Vec<&str> = asked.iter().map(|asked| &*asked.path).collect();
    let (plain, stream) = (
        format!("/v1beta/models/{NEW}:generateContent"),
        format!("/v1beta/models/{NEW}:streamGenerateContent?alt=sse"),
    );
    assert!(paths.iter().all(|path| [&*plain, &*stream].contains(path)), "{paths:?}");
    assert_eq!(asked[0].header("x-goog-api-key"), KEY);
    let config = &asked[0].json["generationConfig"];
    assert_eq!(config["thinkingConfig"], json!({"thinkingLevel": "LOW", "includeThoughts": true}));
    assert_eq!(
        (&config["responseJsonSchema"]["required"], &config["maxOutputTokens"]),
        (&json!(["degrees"]), &json!(500))
    );
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes_wherever_it_is_cut() {
    let stack = stack().await;
    let tokens = ["Hé", " 🙂", " so."];
    let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
    for pace in [Reply::stream(&tokens, ms(1)), Reply::stream(&tokens, ms(0)).trickle(ms(0))] {
        stack.provider.model(OLD).reply(pace.usage(Usage::new(9, 3)));
        let answer = ask(&stack, "by-old", asked.clone()).await;
        let events = answer.events();
        let contents: Vec<String> = events
            .iter()
            .filter(|event| !event.is_done())
            .filter_map(|event| event.json()["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .filter(|content| !content.is_empty())
            .collect();
        assert_eq!(contents, tokens);
        assert!(events.last().unwrap().is_done());
        let said = said(&answer);
        assert_eq!(said["finish"], "stop");
        assert_eq!(said["usage"], json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}));
    }
    assert!(stack.provider.requests_for(OLD)[0].path.ends_with(":streamGenerateContent?alt=sse"));

    let unfinished = json!({"candidates": [{"content": {"parts": [{"text": "Hé"}]}}]});
    for cut in [
        Reply::stream(&tokens, ms(1)).cut_after(2),
        // It ends as it should, and has not said that it is at its end.
        Reply::sse(format!("data: {unfinished}\n\n")),
    ] {
        stack.provider.model(OLD).reply(cut);
        let cut = ask(&stack, "by-old", asked.clone()).await;
        let last = cut.events().last().unwrap().clone();
        assert!(!last.is_done() && last.json()["error"]["message"].is_string(), "{last:?}");
    }
}

#[tokio::test]
async fn a_refusal_tells_the_caller_what_is_the_callers() {
    let stack = stack().await;
    let error = |code: u16, status: &str, details: Value| {
        Reply::status(
            code,
            json!({"error": {"code": code, "message": "the input is too long", "status": status, "details": details}}),
        )
    };
    let wrong_key =
        json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
    let later = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]);
    let blocked =
        json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}});
    for (reply, status, code) in [
        (error(400, "INVALID_ARGUMENT", json!([])), 400, "INVALID_ARGUMENT"),
        (error(400, "INVALID_ARGUMENT", wrong_key), 502, "upstream_auth"),
        (error(403, "PERMISSION_DENIED", json!([])), 502, "upstream_auth"),
        (error(429, "RESOURCE_EXHAUSTED", later), 429, "rate_limit_exceeded"),
        (error(500, "INTERNAL", json!([])), 502, "quorum_not_met"),
        (Reply::raw("application/json", blocked.to_string()), 502, "quorum_not_met"),
        (Reply::text("x").finish("MALFORMED_FUNCTION_CALL"), 502, "quorum_not_met"),
        (Reply::content_filter(), 502, "quorum_not_met"),
        (Reply::garbage(), 502, "quorum_not_met"),
    ] {
        let shown = format!("{reply:?}");
        stack.provider.model(OLD).reply(reply);
        let answer = ask(&stack, "by-old", json!({})).await;
        let error = serde_json::from_str::<Value>(answer.text()).unwrap()["error"].take();
        assert_eq!((answer.status.as_u16(), &error["code"]), (status, &json!(code)), "{shown}: {error}");
        if status == 429 {
            assert_eq!(answer.header("retry-after"), "7");
        }
        if status == 400 {
            assert_eq!(error["message"], "the input is too long");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_carried_is_refused_without_a_call() {
    let stack = stack().await;
    let answer = ask(&stack, "by-old", json!({"logit_bias": {"50256": -100}})).await;
    assert_eq!(answer.status, 400);
    let error = serde_json::from_str::<Value>(answer.text()).unwrap()["error"].take();
    assert_eq!((&error["code"], &error["param"]), (&json!("unsupported_parameter"), &json!("logit_bias")));
    assert!(stack.provider.requests_for(OLD).is_empty());
}
