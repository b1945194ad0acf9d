use serde_json::json;

use super::super::told::ToolCall;
use super::*;

fn asked(fields: Value) -> Result<Asked, Failure> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "why?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Asked::read(&Bytes::from(body.to_string()))
}

fn turns(messages: Value) -> Vec<Turn> {
    asked(json!({ "messages": messages })).unwrap().turns
}

/// The status, code and field of a refusal.
fn told(failure: Failure) -> (u16, String, String) {
    match failure {
        Failure::Status { status, error: Some(error), .. } => {
            (status.as_u16(), error.code.unwrap(), error.param.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Vec<Part> {
    vec![Part::Text(text.to_owned())]
}

#[test]
fn every_role_is_read_with_texts_parts_calls_and_results() {
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: arguments.to_owned(),
    };
    let read = turns(json!([
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": ""}]},
        {"role": "user", "name": "ann", "content": [
            {"type": "text", "text": "Look:"},
            {"type": "image_url", "image_url": {"url": "https://h/x.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 0.70}"}},
            {"id": "c2", "type": "function", "function": {"name": "f", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "c2", "content": "no"},
        {"role": "tool", "tool_call_id": "gone", "content": [{"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "", "refusal": "I will not."},
    ]));
    let expected = [
        Turn::System(text("Be brief.")),
        Turn::System(text("Be kind.")),
        Turn::User(vec![
            Part::Text("Look:".to_owned()),
            Part::Image(Image::Url("https://h/x.png".to_owned())),
            Part::Image(Image::Inline { media_type: "image/png".to_owned(), data: "AAAA".to_owned() }),
        ]),
        Turn::Assistant { parts: vec![], calls: vec![call("c1", "{\"a\": 0.70}"), call("c2", "{}")] },
        Turn::Tool { id: "c2".to_owned(), name: "f".to_owned(), parts: text("no") },
        Turn::Tool { id: "gone".to_owned(), name: String::new(), parts: text("?") },
        Turn::Assistant { parts: text("I will not."), calls: vec![] },
    ];
    assert_eq!(read, expected);
}

#[test]
fn functions_of_old_are_tools_and_are_told_as_they_were_offered() {
    let read = asked(json!({
        "messages": [
            {"role": "user", "content": "why?"},
            {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "7"},
        ],
        "functions": [{"name": "f", "parameters": {"type": "object"}}],
        "function_call": {"name": "f"},
    }))
    .unwrap();
    assert_eq!(read.style, Style::Functions);
    assert_eq!(read.choice, Some(Choice::Named("f".to_owned())));
    assert_eq!(read.tools[0].name, "f");
    let Turn::Assistant { calls, .. } = &read.turns[1] else { panic!("{read:?}") };
    assert_eq!(read.turns[2], Turn::Tool { id: calls[0].id.clone(), name: "f".to_owned(), parts: text("7") });
}

#[test]
fn tools_choices_and_scalars_are_read() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let read = asked(json!({
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": true}}],
        "tool_choice": "required", "parallel_tool_calls": false, "stop": "x", "max_tokens": 9,
        "max_completion_tokens": 5, "reasoning_effort": "high", "stream": true, "temperature": 0.7,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}, "top_p": null,
    }));
    let mut read = read.unwrap();
    assert_eq!(read.choice, Some(Choice::Required));
    let tool = Tool {
        name: "f".into(),
        description: Some("d".into()),
        parameters: Some(schema.clone()),
        strict: true,
    };
    assert_eq!(read.tools, [tool]);
    assert_eq!((read.parallel, read.stream, read.max_tokens), (Some(false), true, Some(5)));
    assert_eq!((read.stop.as_slice(), read.effort), (["x".to_owned()].as_slice(), Some(Effort::High)));
    assert_eq!(read.form, Form::Schema(schema));
    assert_eq!((read.number("temperature"), read.number("top_p")), (Ok(Some(0.7)), Ok(None)));
    assert!(read.settle(Unsupported::Reject).is_ok());
}

#[test]
fn what_is_left_is_refused_by_name_unless_it_is_harmless_or_neutral() {
    let settled = |fields: Value, unsupported| asked(fields).unwrap().settle(unsupported).map_err(told);
    for (fields, param) in [
        (json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (json!({"presence_penalty": 0.5}), "presence_penalty"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"x_vendor": 1}), "x_vendor"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"tools": [{"type": "custom", "custom": {"name": "c"}}]}), "tools[0]"),
        (json!({"tool_choice": {"type": "allowed_tools"}}), "tool_choice"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio"}]}]}),
            "messages[0].content[1]",
        ),
    ] {
        let refused = (400, "unsupported_parameter".to_owned(), param.to_owned());
        assert_eq!(settled(fields.clone(), Unsupported::Reject), Err(refused), "{fields}");
        assert_eq!(settled(fields, Unsupported::Drop), Ok(()));
    }
    let harmless = json!({"seed": 1, "user": "u", "metadata": {"a": "b"}, "n": 1, "presence_penalty": 0,
        "logprobs": false, "logit_bias": {}, "service_tier": "flex", "stream_options": {"include_usage": true}});
    assert_eq!(settled(harmless, Unsupported::Reject), Ok(()));
}

#[test]
fn a_request_has_as_many_values_as_are_read_and_one_past_that_is_refused_by_name() {
    // Beside these, a request has four: its model, its messages, the message, its role.
    let of = |fields: &str| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user"}}],{fields}}}"#);
        Asked::read(&Bytes::from(body)).map(|_| ()).map_err(told)
    };
    let refused = |param: &str| Err((400, "invalid_value".to_owned(), param.to_owned()));
    let zeros = |count: usize| vec!["0"; count].join(",");
    assert_eq!(of(&format!(r#""x":[{}]"#, zeros(MAX_NODES - 5))), Ok(()));
    assert_eq!(of(&format!(r#""x":[{}]"#, zeros(MAX_NODES - 4))), refused("x"));
    // Arguments are JSON, too, and are counted with the rest.
    let calling = |values: usize| {
        let function = format!(r#"{{"name":"f","arguments":"{{\"a\":[{}]}}"}}"#, zeros(values));
        let call = format!(r#"{{"role":"assistant","tool_calls":[{{"id":"c","function":{function}}}]}}"#);
        let body = format!(r#"{{"messages":[{call}]}}"#);
        Asked::read(&Bytes::from(body)).map(|_| ()).map_err(told)
    };
    // The list, the message, its role and calls, the call, its id and function, its two fields; the arguments and their list.
    assert_eq!(calling(MAX_NODES - 11), Ok(()));
    assert_eq!(calling(MAX_NODES - 10), refused("messages[0].tool_calls[0].function.arguments"));
}

#[test]
fn a_wrong_value_is_refused_by_name_whatever_the_operator_says() {
    let said = |message: Value| json!({"messages": [message]});
    for (fields, param) in [
        (json!({"messages": 1}), "messages"),
        (json!({"messages": [1]}), "messages[0]"),
        (said(json!({"role": "king", "content": "x"})), "messages[0].role"),
        (said(json!({"role": "user", "content": 1})), "messages[0].content"),
        (said(json!({"role": "user", "content": [{}]})), "messages[0].content[0]"),
        (said(json!({"role": "tool", "content": "x"})), "messages[0].tool_call_id"),
        (
            said(json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]})),
            "messages[0].content[0].image_url.url",
        ),
        (
            said(
                json!({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "["}}]}),
            ),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (json!({"tools": {}}), "tools"),
        (json!({"tool_choice": "maybe"}), "tool_choice"),
        (json!({"stop": 1}), "stop"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"response_format": {"type": "xml"}}), "response_format"),
        (json!({"reasoning_effort": "enormous"}), "reasoning_effort"),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls"),
    ] {
        let refused = told(asked(fields.clone()).unwrap_err());
        assert_eq!(refused, (400, "invalid_value".to_owned(), param.to_owned()), "{fields}");
    }
}
