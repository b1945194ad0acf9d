use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::Unsupported;
use super::super::Stage;
use super::super::asked::Asked;
use super::super::told::Style;
use super::*;
use crate::chat::{Collected, Event, MAX_PARTS, sse};

const ANSWER: &str = include_str!("fixtures/answer.json");
const STREAM: &str = include_str!("fixtures/stream.txt");

fn request(fields: Value, unsupported: Unsupported) -> Result<Value, Failure> {
    let mut body = json!({"model": "claude", "messages": [{"role": "user", "content": "why?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request::translate(Asked::read(&Bytes::from(body.to_string()))?, 4096, unsupported)
}

/// What a request says beyond the question.
fn further(fields: Value) -> Value {
    let mut request =
        request(fields.clone(), Unsupported::Reject).unwrap_or_else(|e| panic!("{fields}: {e:?}"));
    let request_fields = request.as_object_mut().unwrap();
    request_fields.retain(|name, value| match &**name {
        "model" | "messages" => false,
        "max_tokens" => *value != json!(4096),
        _ => true,
    });
    request
}

#[test]
fn the_conversation_is_system_and_alternating_turns() {
    let said = request(
        json!({"messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look:"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "https://h/x.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [
                {"id": "call.1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":0.7}"}},
                {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "call.1", "content": "seven"},
            {"role": "tool", "tool_call_id": "call_2", "content": ""},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "So?"},
        ]}),
        Unsupported::Reject,
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(&said.unwrap()).unwrap());
    let alone = request(json!({"messages": [{"role": "system", "content": "Say hi."}]}), Unsupported::Reject)
        .unwrap();
    assert_eq!(
        alone["messages"],
        json!([{"role": "user", "content": [{"type": "text", "text": "Say hi."}]}])
    );
    assert!(alone.get("system").is_none());
}

#[test]
fn each_field_has_its_counterpart() {
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false});
    let tools = json!([{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
        {"type": "function", "function": {"name": "g", "strict": true}}]);
    let tools_there = json!([{"name": "f", "description": "d", "input_schema": schema},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}, "strict": true}]);
    for (fields, expected) in [
        (json!({}), json!({})),
        (json!({"max_tokens": 7}), json!({"max_tokens": 7})),
        (json!({"max_completion_tokens": 9}), json!({"max_tokens": 9})),
        (json!({"temperature": 0.7, "top_p": 1}), json!({"temperature": 0.7, "top_p": 1})),
        (json!({"temperature": null, "stop": ["a", "b"]}), json!({"stop_sequences": ["a", "b"]})),
        (json!({"stop": "a", "stream": true}), json!({"stop_sequences": ["a"], "stream": true})),
        (json!({"user": "u1", "seed": 5}), json!({"metadata": {"user_id": "u1"}})),
        (json!({"user": "u1", "safety_identifier": "s"}), json!({"metadata": {"user_id": "s"}})),
        (
            json!({"top_k": 40, "thinking": {"type": "adaptive"}}),
            json!({"thinking": {"type": "adaptive"}, "top_k": 40}),
        ),
        (json!({"tools": tools}), json!({"tools": tools_there})),
        (
            json!({"tools": tools, "tool_choice": "auto"}),
            json!({"tools": tools_there, "tool_choice": {"type": "auto"}}),
        ),
        (
            json!({"tools": tools, "tool_choice": "none"}),
            json!({"tools": tools_there, "tool_choice": {"type": "none"}}),
        ),
        (
            json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false}),
            json!({"tools": tools_there, "tool_choice": {"type": "any", "disable_parallel_tool_use": true}}),
        ),
        (
            json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"tools": tools_there, "tool_choice": {"type": "tool", "name": "f"}}),
        ),
        (
            json!({"tools": tools, "parallel_tool_calls": false}),
            json!({"tools": tools_there, "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
        ),
        (json!({"tool_choice": "auto", "parallel_tool_calls": true}), json!({})),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}),
            json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
        ),
        (
            json!({"output_config": {"effort": "low"},
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}),
            json!({"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}}}),
        ),
    ] {
        assert_eq!(further(fields.clone()), expected, "{fields}");
    }
    let json_object = further(json!({"response_format": {"type": "json_object"}}));
    assert!(json_object["system"][0]["text"].as_str().unwrap().contains("JSON"), "{json_object}");
}

#[test]
fn effort_is_a_budget_where_thinking_is_allowed() {
    let thinking = |fields: Value| {
        let said = further(fields);
        (said["thinking"]["budget_tokens"].as_u64(), said["max_tokens"].as_u64())
    };
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let behind_tools = json!([{"role": "user", "content": "why?"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "7"}]);
    let with = |more: &[Value]| json!([behind_tools.as_array().unwrap().as_slice(), more].concat());
    let asked_on = with(&[json!({"role": "user", "content": "So?"})]);
    let answered =
        with(&[json!({"role": "assistant", "content": "7."}), json!({"role": "user", "content": "Sure?"})]);
    for (fields, expected) in [
        (json!({"reasoning_effort": "none"}), (None, None)),
        (json!({"reasoning_effort": "minimal"}), (None, None)),
        (json!({"reasoning_effort": "low"}), (Some(1024), Some(4096 + 1024))),
        (json!({"reasoning_effort": "medium"}), (Some(4096), Some(4096 + 4096))),
        (json!({"reasoning_effort": "high"}), (Some(16_384), Some(4096 + 16_384))),
        (json!({"reasoning_effort": "xhigh"}), (Some(32_768), Some(4096 + 32_768))),
        (json!({"reasoning_effort": "high", "max_tokens": 5000}), (Some(2500), Some(5000))),
        (json!({"reasoning_effort": "high", "max_tokens": 2000}), (None, Some(2000))),
        (json!({"reasoning_effort": "high", "temperature": 1}), (Some(16_384), Some(4096 + 16_384))),
        (json!({"reasoning_effort": "high", "temperature": 0.5}), (None, None)),
        (json!({"reasoning_effort": "high", "top_p": 0.5}), (None, None)),
        (json!({"reasoning_effort": "high", "top_k": 5}), (None, None)),
        (json!({"reasoning_effort": "high", "tools": tools, "tool_choice": "required"}), (None, None)),
        (json!({"reasoning_effort": "low", "tools": tools}), (Some(1024), Some(4096 + 1024))),
        (json!({"reasoning_effort": "high", "messages": behind_tools}), (None, None)),
        (json!({"reasoning_effort": "high", "messages": asked_on}), (None, None)),
        (json!({"reasoning_effort": "high", "messages": answered}), (Some(16_384), Some(4096 + 16_384))),
    ] {
        assert_eq!(thinking(fields.clone()), expected, "{fields}");
    }
}

#[test]
fn what_cannot_be_carried_is_refused_by_name_or_left_out_as_the_operator_has_it() {
    for (fields, param) in [
        (json!({"temperature": 1.5}), "temperature"),
        (json!({"logit_bias": {"1": 5}}), "logit_bias"),
        (json!({"frequency_penalty": 0.5}), "frequency_penalty"),
        (json!({"logprobs": true}), "logprobs"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}),
            "messages[0].content[0]",
        ),
    ] {
        match request(fields.clone(), Unsupported::Reject) {
            Err(Failure::Status { status, error: Some(error), .. }) => {
                assert_eq!((status.as_u16(), error.param.as_deref()), (400, Some(param)));
                assert_eq!(error.code.as_deref(), Some("unsupported_parameter"));
                assert!(error.message.contains(param), "{error:?}");
            }
            other => panic!("{fields}: {other:?}"),
        }
        assert!(request(fields, Unsupported::Drop).unwrap().get(param).is_none_or(|left| *left == json!(1)));
    }
}

fn collected(events: impl IntoIterator<Item = Event>) -> (Value, Option<String>, Value) {
    let mut collected = Collected::default();
    for event in events {
        collected.push(event).unwrap();
    }
    let (completion, usage) = collected.finish().unwrap();
    let message = serde_json::from_str(completion.message.get()).unwrap();
    (message, completion.finish_reason.map(Into::into), serde_json::to_value(usage).unwrap())
}

/// What a listener makes of a stream that arrives in these pieces.
fn heard<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Event>, Failure> {
    let (mut decoder, mut listener) = (sse::Decoder::new(1 << 20), Listener::new(Style::Tools));
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece).unwrap();
        while let Some(data) = decoder.next_event() {
            events.extend(listener.hear(&data)?);
        }
    }
    events.extend(listener.end()?);
    Ok(events)
}

#[test]
fn a_whole_answer_and_a_streamed_one_say_the_same() {
    let whole = collected(Listener::new(Style::Tools).whole(ANSWER.as_bytes()).unwrap());
    let arguments = r#"{"city":"Köln","days":2}"#;
    assert_eq!(
        whole,
        (
            json!({"role": "assistant", "content": "Let me look. One moment.", "refusal": null,
            "reasoning_content": "They want weather.",
            "tool_calls": [
                {"id": "toolu_01", "type": "function", "function": {"name": "weather", "arguments": arguments}},
                {"id": "toolu_02", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ]}),
            Some("tool_calls".to_owned()),
            json!({"prompt_tokens": 130, "completion_tokens": 62, "total_tokens": 192,
                "prompt_tokens_details": {"cached_tokens": 20, "cache_creation_tokens": 10}}),
        )
    );
    let streamed = heard([STREAM.as_bytes()]).unwrap();
    assert_eq!(collected(streamed), whole);
}

proptest! {
    #[test]
    fn a_stream_says_the_same_wherever_it_is_cut(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([STREAM.len()]);
        let pieces = ends.scan(0, |from, to| Some(&STREAM.as_bytes()[std::mem::replace(from, to)..to]));
        prop_assert_eq!(collected(heard(pieces).unwrap()), collected(heard([STREAM.as_bytes()]).unwrap()));
    }
}

#[test]
fn a_call_without_its_arguments_cannot_be_read() {
    let call = |input: &str| {
        format!(
            r#"{{"content":[{{"type":"tool_use","id":"a","name":"f"{input}}}],"stop_reason":"tool_use"}}"#
        )
    };
    let told = |input| answer::whole(call(input).as_bytes(), Style::default());
    assert!(told(r#","input":{}"#).is_ok());
    assert!(matches!(told(""), Err(Failure::Unreadable(_))));
}

#[test]
fn a_stream_that_breaks_off_or_reports_an_error_has_failed() {
    let stop = STREAM.find("event: message_delta").unwrap();
    assert!(matches!(heard([&STREAM.as_bytes()[..stop]]), Err(Failure::Incomplete)));
    let overloaded =
        "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n";
    assert!(matches!(heard([overloaded.as_bytes()]), Err(Failure::ErrorEvent)));
    assert!(matches!(heard([&b"data: {\n\n"[..]]), Err(Failure::Unreadable(_))));
    // Its end is told by its reason already; the cost is that of the report which came.
    let last = STREAM.find("event: message_stop").unwrap();
    let (_, finish, usage) = collected(heard([&STREAM.as_bytes()[..last]]).unwrap());
    assert_eq!((finish.as_deref(), &usage["completion_tokens"]), (Some("tool_calls"), &json!(62)));
}

#[test]
fn a_message_that_has_ended_is_followed_by_nothing_else() {
    let mut listener = Listener::new(Style::Tools);
    let mut stages = Vec::new();
    for line in STREAM.lines().filter_map(|line| line.strip_prefix("data: ")) {
        listener.hear(&Bytes::from_static(line.as_bytes())).unwrap();
        stages.push(listener.stage());
    }
    assert_eq!(stages[stages.len() - 3..], [Stage::Speaking, Stage::Finished, Stage::Done]);
}

#[test]
fn each_stop_reason_has_its_finish_reason() {
    for (reason, finish) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ] {
        let body = json!({"content": [{"type": "text", "text": "a"}, {"type": "new_block", "x": 1}],
            "stop_reason": reason, "usage": {"input_tokens": 1, "output_tokens": 1}});
        let events = Listener::new(Style::Tools).whole(body.to_string().as_bytes()).unwrap();
        assert!(events.iter().any(|event| matches!(event, Event::Finish(f) if &**f == finish)), "{reason}");
    }
}

#[test]
fn an_answer_has_as_many_blocks_as_are_held_and_one_past_that_is_none() {
    let of = |blocks: usize| {
        let blocks = vec![r#"{"type":"text","text":"a"}"#; blocks].join(",");
        Listener::new(Style::Tools).whole(format!(r#"{{"content":[{blocks}]}}"#).as_bytes())
    };
    assert!(of(MAX_PARTS).is_ok());
    assert!(matches!(of(MAX_PARTS + 1), Err(Failure::Unreadable(_))));
}

#[test]
fn what_nobody_knows_is_passed_over_whatever_its_fields_are() {
    let body = r#"{"content":[{"type":"x","text":1,"input":[[]],"id":{}},{"type":"tool_use","id":"a","name":"f",
        "input":{"b" : [0.70, "c d"]}}],"stop_reason":"tool_use"}"#;
    let (message, ..) = collected(Listener::new(Style::Tools).whole(body.as_bytes()).unwrap());
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], r#"{"b":[0.70,"c d"]}"#);
    let mut listener = Listener::new(Style::Tools);
    for event in [
        r#"{"type":"x","index":"y","delta":1,"usage":[]}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"x","text":1}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"x","text":1}}"#,
    ] {
        assert!(listener.hear(&Bytes::from_static(event.as_bytes())).unwrap().is_empty(), "{event}");
    }
}

#[test]
fn what_is_no_answer_is_unreadable() {
    for body in ["", "{}", "[]", "<html>", r#"{"content":"x"}"#, r#"{"content":[{"type":"text"}]}"#] {
        let heard = Listener::new(Style::Tools).whole(body.as_bytes());
        assert!(matches!(heard, Err(Failure::Unreadable(_))), "{body}");
    }
}

#[test]
fn an_error_is_its_type_and_its_message() {
    let body = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"},"request_id":"r"}"#;
    let expected = ProviderError {
        message: "prompt is too long".to_owned(),
        param: None,
        code: Some("invalid_request_error".to_owned()),
    };
    assert_eq!(error(body.as_bytes()), Some(expected));
    for body in ["", "{}", "<html>", r#"{"error":"x"}"#] {
        assert_eq!(error(body.as_bytes()), None, "{body}");
    }
}
