//! Every answer, chunk and error against OpenAI's own description of them.

use std::path::Path;

use consort_testkit::http::Event;
use consort_testkit::provider::{Reply, Usage};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::stack::{Stack, ms};

/// The part of OpenAI's OpenAPI description (3.1, so its schemas are JSON Schema as they stand) that is about chat
/// completions, recorded beside the checkout.
const RECORDED: &str = "../shared/data/openai-chat-schemas.json";

#[tokio::test]
async fn what_callers_get_is_what_openai_describes() {
    let Some(schemas) = Schemas::recorded() else { return };
    let stack = Stack::start().await;
    let detailed = Usage::new(9, 3).cached(4).reasoning(2);
    let calls = json!({"content": null, "refusal": null, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]});
    let logprob = json!({"token": "one", "logprob": -0.25, "bytes": [111, 110, 101], "top_logprobs": []});
    let member = Reply::text("one").logprobs(json!({"content": [logprob], "refusal": null}));
    let down = Reply::error(500, "oops", "server_error", None);
    let calling = || Reply::message(calls.clone()).finish("tool_calls");
    let rows = [
        ("the judge's answer", member.clone(), Reply::stream(&["It", " is"], ms(1)).usage(detailed), "full"),
        ("the judge's tool calls", member.clone(), calling(), "full"),
        ("a judge that reports no usage", member.clone(), Reply::text("so").without_usage(), "full"),
        ("a judge that thinks", member.clone(), Reply::text("so").reasoning("Let me see"), "full"),
        ("a member's answer", member, down.clone(), "degraded"),
        ("a member's tool calls", calling(), down, "degraded"),
    ];
    for (row, member, judge, outcome) in rows {
        stack.provider.model("model-a").reply(member);
        stack.provider.model("model-judge").reply(judge);
        let plain = stack.ask(json!({})).send().await;
        assert_eq!(plain.header("x-ensemble-outcome"), outcome, "{row}");
        assert_valid(&schemas.completion, &plain.json(), row);
        for options in [json!({}), json!({"include_usage": true})] {
            let asked = json!({"stream": true, "stream_options": options});
            let answer = stack.ask(asked).send().await;
            assert_eq!(answer.header("x-ensemble-outcome"), outcome, "{row}");
            let mut events = answer.events();
            assert!(events.pop().unwrap().is_done(), "{row}");
            assert!(events.len() > 2, "{row}");
            for chunk in events.iter().map(Event::json) {
                assert_valid(&schemas.chunk, &chunk, row);
            }
        }
    }
}

#[tokio::test]
async fn errors_are_what_openai_describes() {
    let Some(schemas) = Schemas::recorded() else { return };
    let stack = Stack::start().await;
    for wrong in [
        json!({"n": 2}),
        json!({"n": "two"}),
        json!({"messages": []}),
        json!({"stream": "yes"}),
        json!({"stream_options": {"include_usage": true}}),
        json!({"modalities": ["text", "audio"]}),
    ] {
        let refused = stack.ask(wrong.clone()).send().await;
        assert_eq!(refused.status, 400, "{wrong}");
        assert_valid(&schemas.error, &refused.json(), &wrong.to_string());
    }
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(1)).cut_after(1));
    let broken = stack.ask_stream().send().await.events().pop().unwrap();
    assert_valid(&schemas.error, &broken.json(), "a stream that broke off");
    let failures = [
        (Reply::error(500, "oops", "server_error", None), 502),
        (Reply::error(401, "no key", "invalid_request_error", Some("invalid_api_key")), 502),
        (Reply::rate_limited("3"), 429),
        (Reply::error(400, "too long", "invalid_request_error", Some("context_length_exceeded")), 400),
    ];
    for (reply, status) in failures {
        for model in ["model-a", "model-b", "model-c"] {
            stack.provider.model(model).reply(reply.clone());
        }
        for stream in [false, true] {
            let failed = stack.ask(json!({"stream": stream})).send().await;
            assert_eq!(failed.status, status);
            assert_valid(&schemas.error, &failed.json(), &status.to_string());
        }
    }
}

#[test]
fn what_openai_does_not_describe_is_found() {
    let Some(schemas) = Schemas::recorded() else { return };
    let good = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{
            "index": 0, "message": {"role": "assistant", "content": "x", "refusal": null},
            "logprobs": null, "finish_reason": "stop",
        }],
    });
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}],
    });
    let error = json!({"error": {"message": "m", "type": "server_error", "param": null, "code": null}});
    let rows: [(&Validator, &Value, &str, Value); 11] = [
        (&schemas.completion, &good, "/object", json!("chat.completion.chunk")),
        (&schemas.completion, &good, "/created", json!("now")),
        (&schemas.completion, &good, "/choices/0/finish_reason", json!(null)),
        (&schemas.completion, &good, "/choices/0/finish_reason", json!("done")),
        (&schemas.completion, &good, "/choices/0/message/role", json!("judge")),
        (&schemas.completion, &good, "/choices/0/message", json!({"role": "assistant", "content": "x"})),
        (&schemas.chunk, &chunk, "/choices/0/finish_reason", json!("")),
        (&schemas.chunk, &chunk, "/choices/0/delta/content", json!(7)),
        (&schemas.chunk, &chunk, "/choices/0/delta", json!({"tool_calls": [{"id": "without an index"}]})),
        (&schemas.error, &error, "/error/message", json!(null)),
        (&schemas.error, &error, "/error", json!("oops")),
    ];
    for (validator, good, at, wrong) in rows {
        assert_valid(validator, good, "as it should be");
        let mut bad = good.clone();
        *bad.pointer_mut(at).unwrap() = wrong;
        assert!(!validator.is_valid(&bad), "{bad}");
    }
}

struct Schemas {
    completion: Validator,
    chunk: Validator,
    error: Validator,
}

impl Schemas {
    /// None, said aloud, where nothing was recorded.
    fn recorded() -> Option<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDED);
        let Ok(text) = std::fs::read(&path) else {
            consort_testkit::skipped(&format!("there is no {}", path.display()));
            return None;
        };
        let description: Value = serde_json::from_slice(&text).unwrap();
        let schema = |name: &str| {
            let schema = json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "$ref": format!("#/components/schemas/{name}"),
                "components": description["components"],
            });
            jsonschema::validator_for(&schema).unwrap()
        };
        Some(Self {
            completion: schema("CreateChatCompletionResponse"),
            chunk: schema("CreateChatCompletionStreamResponse"),
            error: error_response(),
        })
    }
}

fn assert_valid(validator: &Validator, body: &Value, row: &str) {
    let wrong: Vec<String> =
        validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{row}: {wrong:#?} in {body:#}");
}

/// `ErrorResponse` and `Error` of the same description, which the recorded part leaves out.
fn error_response() -> Validator {
    let text = json!({"type": "string"});
    let text_or_null = json!({"anyOf": [{"type": "string"}, {"type": "null"}]});
    jsonschema::validator_for(&json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["type", "message", "param", "code"],
            "properties": {"type": text, "message": text, "param": text_or_null, "code": text_or_null},
        }},
    }))
    .unwrap()
}
