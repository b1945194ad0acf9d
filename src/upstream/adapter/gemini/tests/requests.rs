use bytes::Bytes;
use serde_json::{Value, json};

use super::super::super::super::{Failure, Unsupported};
use super::super::super::asked::Asked;
use super::super::request::translate;

fn translated(model: &str, fields: Value, unsupported: Unsupported) -> Result<Value, Failure> {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    translate(Asked::read(&Bytes::from(body.to_string())).unwrap(), unsupported)
}

fn of(fields: Value) -> Value {
    translated("gemini-2.5-flash", fields, Unsupported::Reject).unwrap()
}

/// The status, the code and the field of a refusal.
fn refused(fields: Value) -> (u16, String, String) {
    match translated("gemini-2.5-flash", fields, Unsupported::Reject) {
        Err(Failure::Status { status, error: Some(error), .. }) => {
            (status.as_u16(), error.code.unwrap(), error.param.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_conversation_is_told_in_turns_of_user_and_model() {
    let request = of(json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "What is this?"},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://h/a.JPG?x=1"}},
            {"type": "image_url", "image_url": {"url": "https://h/picture"}},
        ]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"},
    ]}));
    assert_eq!(
        request,
        json!({
            "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
            "contents": [
                {"role": "user", "parts": [
                    {"text": "What is this?"},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                    {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://h/a.JPG?x=1"}},
                    {"fileData": {"fileUri": "https://h/picture"}},
                ]},
                {"role": "model", "parts": [{"text": "A cat."}]},
                {"role": "user", "parts": [{"text": "Sure?"}]},
            ],
        })
    );
    // Somebody has to ask.
    let alone = of(json!({"messages": [{"role": "system", "content": "Say hi."}]}));
    assert_eq!(alone, json!({"contents": [{"role": "user", "parts": [{"text": "Say hi."}]}]}));
}

fn with_calls() -> Value {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    json!({"messages": [
        {"role": "user", "content": "weather and time?"},
        {"role": "assistant", "content": "Let me see.",
            "tool_calls": [call("c1", "weather", r#"{"city":"Rome","days":0.70}"#), call("c2", "now", "")]},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "{\"sky\":\"blue\"}"}]},
        {"role": "user", "content": "And?"},
    ]})
}

#[test]
fn calls_and_their_results_keep_their_ids_and_results_get_names() {
    assert_eq!(
        of(with_calls())["contents"],
        json!([
            {"role": "user", "parts": [{"text": "weather and time?"}]},
            {"role": "model", "parts": [
                {"text": "Let me see."},
                {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome", "days": 0.7}}},
                {"functionCall": {"id": "c2", "name": "now", "args": {}}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "c2", "name": "now", "response": {"result": "noon"}}},
                {"functionResponse": {"id": "c1", "name": "weather", "response": {"sky": "blue"}}},
                {"text": "And?"},
            ]},
        ])
    );
}

#[test]
fn the_first_call_of_a_turn_is_signed_where_models_insist() {
    let signatures = |model: &str| -> Vec<Value> {
        let request = translated(model, with_calls(), Unsupported::Reject).unwrap();
        let parts = request["contents"][1]["parts"].as_array().unwrap().iter();
        parts.map(|part| part.get("thoughtSignature").cloned().unwrap_or_default()).collect()
    };
    let skip = json!("skip_thought_signature_validator");
    assert_eq!(signatures("gemini-3-pro-preview"), [Value::Null, skip, Value::Null]);
    assert_eq!(signatures("gemini-2.5-pro"), [Value::Null, Value::Null, Value::Null]);
}

#[test]
fn tools_are_declared_and_chosen() {
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": false});
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": schema, "strict": true}},
        {"type": "function", "function": {"name": "now"}},
    ]);
    let declared = json!([{"functionDeclarations": [
        {"name": "weather", "description": "The weather.", "parametersJsonSchema": schema},
        {"name": "now"},
    ]}]);
    for (choice, config) in [
        (json!("auto"), json!({"mode": "AUTO"})),
        (json!("none"), json!({"mode": "NONE"})),
        (json!("required"), json!({"mode": "ANY"})),
        (
            json!({"type": "function", "function": {"name": "now"}}),
            json!({"mode": "ANY", "allowedFunctionNames": ["now"]}),
        ),
    ] {
        let request = of(json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": true}));
        assert_eq!(request["tools"], declared);
        assert_eq!(request["toolConfig"], json!({ "functionCallingConfig": config }), "{choice}");
    }
    assert_eq!(of(json!({ "tools": tools })).get("toolConfig"), None);
    assert_eq!(of(json!({"tools": [], "tool_choice": "auto"})).get("tools"), None);
}

#[test]
fn settings_go_by_their_names_there() {
    for (fields, config) in [
        (
            json!({"temperature": 0.70, "top_p": 1, "top_k": 40, "max_tokens": 9, "seed": 7, "stop": "x",
                "presence_penalty": 0.5, "frequency_penalty": -0.5, "user": "u", "store": false}),
            json!({"temperature": 0.7, "topP": 1, "topK": 40, "maxOutputTokens": 9, "seed": 7, "stopSequences": ["x"],
                "presencePenalty": 0.5, "frequencyPenalty": -0.5}),
        ),
        (
            json!({"max_completion_tokens": 5, "stop": ["a", "b"]}),
            json!({"maxOutputTokens": 5, "stopSequences": ["a", "b"]}),
        ),
        (json!({"logprobs": true, "top_logprobs": 3}), json!({"responseLogprobs": true, "logprobs": 3})),
        (json!({"logprobs": false, "top_logprobs": 0, "seed": 9_999_999_999_u64}), Value::Null),
        (json!({"response_format": {"type": "text"}}), Value::Null),
        (
            json!({"response_format": {"type": "json_object"}}),
            json!({"responseMimeType": "application/json"}),
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": {"type": "object"}}}}),
            json!({"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}),
        ),
        (
            json!({"reasoning_effort": "low"}),
            json!({"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": true}}),
        ),
        (
            json!({"temperature": 1, "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}}),
            json!({"temperature": 1, "mediaResolution": "MEDIA_RESOLUTION_LOW"}),
        ),
    ] {
        let request = of(fields.clone());
        assert_eq!(request.get("generationConfig").cloned().unwrap_or_default(), config, "{fields}");
    }
    let own = of(json!({"safetySettings": [{"category": "c"}], "cachedContent": "cachedContents/x"}));
    assert_eq!(
        (&own["safetySettings"][0]["category"], &own["cachedContent"]),
        (&json!("c"), &json!("cachedContents/x"))
    );
}

#[test]
fn what_cannot_be_carried_is_named_or_dropped() {
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let image = json!([{"type": "image_url", "image_url": {"url": "https://h/a.png"}}]);
    for (fields, param) in [
        (json!({"logit_bias": {"1": 2}}), "logit_bias"),
        (json!({"tools": tool, "parallel_tool_calls": false}), "parallel_tool_calls"),
        (
            json!({"messages": [{"role": "system", "content": image}, {"role": "user", "content": "x"}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": image}]}),
            "messages[1].content",
        ),
        (json!({"x_vendor": 1}), "x_vendor"),
    ] {
        let expected = (400, "unsupported_parameter".to_owned(), param.to_owned());
        assert_eq!(refused(fields.clone()), expected, "{fields}");
        let dropped = translated("gemini-2.5-flash", fields.clone(), Unsupported::Drop).unwrap();
        assert!(!dropped.to_string().contains("a.png") && dropped.get(param).is_none(), "{dropped}");
    }
}

#[test]
fn a_wrong_value_is_named() {
    for (fields, param) in [
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_k": []}), "top_k"),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": "y"}]}),
            "messages[1].tool_call_id",
        ),
    ] {
        assert_eq!(refused(fields.clone()), (400, "invalid_value".to_owned(), param.to_owned()), "{fields}");
    }
}
