//! Providers that speak otherwise, and what is changed of requests: the same conversation, the same answer.

use bytes::Bytes;
use consort::chat::{Chunk, Collected, Event};
use consort_testkit::anthropic::{Anthropic, Says};
use consort_testkit::http::{self, Answer};
use consort_testkit::provider::Reply;
use serde_json::{Value, json};

use crate::stack::{CHAT, KEY, ONE_ATTEMPT, Options, Stack};

const THEIRS: &str = "sk-ant-test";

/// Ensembles of one member each, whose answer is the caller's as it comes: `by-openai` and `by-anthropic`.
async fn stack(anthropic: &Anthropic, request: &str) -> Stack {
    let (there, request) = (anthropic.base_url(), request.to_owned());
    let options = Options::new().whole(move |base_url| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers:
- {{name: scripted, base_url: '{base_url}', api_key: {KEY}}}
- {{name: other, adapter: anthropic, base_url: '{there}', api_key: {THEIRS}}}
models:
- {{display_name: o, provider: scripted, model_name: model-a{request}, {ONE_ATTEMPT}}}
- {{display_name: c, provider: other, model_name: claude-test{request}, {ONE_ATTEMPT}}}
- {{display_name: by-openai, ensemble: {{panel: [{{model: o}}], strategy: first}}}}
- {{display_name: by-anthropic, ensemble: {{panel: [{{model: c}}], strategy: first}}}}
- {{display_name: judged, ensemble: {{panel: [{{model: o}}, {{model: c}}], judge: {{model: c}}}}}}
"
        )
    });
    options.start().await
}

async fn ask(stack: &Stack, alias: &str, fields: Value) -> Answer {
    let mut body = json!({"model": alias, "messages": [{"role": "user", "content": "why?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    http::post(stack.envoy.addr(), CHAT).json(&body).send().await
}

/// What an answer says, whether it came whole or streamed.
pub fn said(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    if answer.header("content-type").starts_with("application/json") {
        let whole: Value = serde_json::from_str(answer.text()).unwrap();
        let choice = &whole["choices"][0];
        return json!({"message": choice["message"], "finish": choice["finish_reason"], "usage": whole["usage"]});
    }
    let mut collected = Collected::default();
    for event in answer.events().iter().filter(|event| !event.is_done()) {
        let chunk = Chunk::parse(&Bytes::from(event.json().to_string())).unwrap();
        let steps = [
            chunk.delta.map(Event::Delta),
            chunk.finish_reason.map(Event::Finish),
            chunk.usage.map(Event::Usage),
        ];
        steps.into_iter().flatten().for_each(|step| collected.push(step).unwrap());
    }
    let (completion, usage) = collected.finish().unwrap();
    let message: Value = serde_json::from_str(completion.message.get()).unwrap();
    json!({"message": message, "finish": completion.finish_reason, "usage": usage})
}

/// What may be asked in any format: an image, a tool, a schema, bounds.
pub fn conversation() -> Value {
    let schema = json!({"type": "object", "properties": {"degrees": {"type": "integer"}}, "required": ["degrees"],
        "additionalProperties": false});
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    json!({
        "messages": [
            {"role": "system", "content": "You know the weather."},
            {"role": "user", "content": [
                {"type": "text", "text": "How warm is it here?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            ]},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": city}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "warmth", "strict": true, "schema": schema}},
        "max_tokens": 500, "temperature": 0.5, "stop": ["###"],
    })
}

/// The conversation once the tool has been called and has answered.
fn continued(first: &Value) -> Value {
    let mut conversation = conversation();
    let id = &first["message"]["tool_calls"][0]["id"];
    let messages = conversation["messages"].as_array_mut().unwrap();
    messages.push(first["message"].clone());
    messages.push(json!({"role": "tool", "tool_call_id": id, "content": "21 °C"}));
    conversation
}

const ARGUMENTS: &str = r#"{"city":"Köln am Rhein"}"#;

fn openai_says(asked: &Value) -> Reply {
    let behind_tool = asked["messages"].as_array().unwrap().last().unwrap()["role"] == "tool";
    let call =
        json!({"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}});
    let (mut message, finish) = if behind_tool {
        (json!({"role": "assistant", "content": "{\"degrees\": 21}", "refusal": null}), "stop")
    } else {
        let message = json!({"role": "assistant", "content": "I will look.", "refusal": null,
            "reasoning_content": "Where is this?", "tool_calls": [call]});
        (message, "tool_calls")
    };
    let usage = json!({"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 20}});
    if asked["stream"] != true {
        let choice = json!({"index": 0, "message": message, "finish_reason": finish});
        return Reply::raw("application/json", json!({"choices": [choice], "usage": usage}).to_string());
    }
    for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        call["index"] = 0.into();
    }
    let chunks = [
        json!({"choices": [{"index": 0, "delta": message}]}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}),
        json!({"choices": [], "usage": usage}),
    ];
    let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    Reply::sse(events + "data: [DONE]\n\n")
}

fn anthropic_says(asked: &Value) -> Says {
    let last = asked["messages"].as_array().unwrap().last().unwrap();
    let behind_tool = last["content"].as_array().unwrap().iter().any(|block| block["type"] == "tool_result");
    let input: Value = serde_json::from_str(ARGUMENTS).unwrap();
    let (blocks, stop_reason) = if behind_tool {
        (vec![json!({"type": "text", "text": "{\"degrees\": 21}"})], "end_turn")
    } else {
        let blocks = vec![
            json!({"type": "thinking", "thinking": "Where is this?", "signature": "c2ln"}),
            json!({"type": "text", "text": "I will look."}),
            json!({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": input}),
        ];
        (blocks, "tool_use")
    };
    let usage = json!({"input_tokens": 100, "cache_read_input_tokens": 20, "output_tokens": 30});
    Says::Blocks { blocks, stop_reason, usage }
}

#[tokio::test]
async fn the_same_conversation_gives_the_same_answer_through_each_adapter() {
    let anthropic = Anthropic::start(THEIRS).await;
    anthropic.answer(anthropic_says);
    let stack = stack(&anthropic, "").await;
    stack.provider.model("model-a").answer(|asked| openai_says(&asked.json));
    let options = json!({"include_usage": true});
    for stream in [
        json!({}),
        // Its form is checked before any of it is passed on.
        json!({"stream": true, "stream_options": options}),
        json!({"stream": true, "stream_options": options, "response_format": {"type": "text"}}),
    ] {
        let with = |conversation: Value| {
            let mut fields = conversation;
            fields.as_object_mut().unwrap().extend(stream.as_object().unwrap().clone());
            fields
        };
        let first = said(&ask(&stack, "by-openai", with(conversation())).await);
        assert_eq!(first["message"]["tool_calls"][0]["function"]["arguments"], ARGUMENTS);
        assert_eq!(said(&ask(&stack, "by-anthropic", with(conversation())).await), first);
        let second = said(&ask(&stack, "by-openai", with(continued(&first))).await);
        assert_eq!(second["message"]["content"], "{\"degrees\": 21}");
        assert_eq!(said(&ask(&stack, "by-anthropic", with(continued(&first))).await), second);
    }
    let heard = anthropic.heard();
    let streams: Vec<bool> = heard.iter().map(|heard| heard.json["stream"] == true).collect();
    assert_eq!(streams, [false, false, false, false, true, true]);
    assert_eq!(heard[0].json["system"], json!([{"type": "text", "text": "You know the weather."}]));
    let image = &heard[0].json["messages"][0]["content"][1];
    assert_eq!(image["source"], json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}));
    assert_eq!(heard[0].json["output_config"]["format"]["type"], "json_schema");
    assert_eq!(heard[1].json["messages"][2]["content"][0]["type"], "tool_result");
    assert!(heard.iter().all(|heard| heard.headers.contains_key("x-request-id")));
}

#[tokio::test]
async fn a_judge_and_a_member_of_another_format_take_part_as_any() {
    let anthropic = Anthropic::start(THEIRS).await;
    anthropic.answer(|asked| {
        let is_judge = asked["messages"].to_string().contains("from OpenAI's");
        Says::text(if is_judge { "The judge's word." } else { "from Anthropic's" })
    });
    let stack = stack(&anthropic, "").await;
    stack.provider.model("model-a").reply(Reply::text("from OpenAI's"));
    for fields in [json!({}), json!({"stream": true})] {
        let answer = ask(&stack, "judged", fields).await;
        assert_eq!(answer.header("x-ensemble-outcome"), "full", "{}", answer.text());
        assert_eq!(said(&answer)["message"]["content"], "The judge's word.");
    }
}

#[tokio::test]
async fn a_field_that_cannot_be_carried_is_refused_without_a_call_or_left_out() {
    let anthropic = Anthropic::start(THEIRS).await;
    let fields = json!({"temperature": 1.5, "logit_bias": {"5": 1}, "seed": 3});
    let refusing = stack(&anthropic, "").await;
    for fields in [fields.clone(), json!({"temperature": 1.5, "stream": true})] {
        let answer = ask(&refusing, "by-anthropic", fields).await;
        let error: Value = serde_json::from_str(answer.text()).unwrap();
        assert_eq!(answer.status, 400, "{error}");
        assert_eq!(error["error"]["param"], "temperature", "{error}");
        assert_eq!(error["error"]["code"], "unsupported_parameter", "{error}");
    }
    assert!(anthropic.heard().is_empty());
    let dropping = stack(&anthropic, ", request: {unsupported: drop}").await;
    let answer = ask(&dropping, "by-anthropic", fields).await;
    assert_eq!(said(&answer)["message"]["content"], "Hello.");
    let heard = &anthropic.heard()[0].json;
    assert_eq!(heard["temperature"], 1);
    assert!(heard.get("logit_bias").is_none() && heard.get("seed").is_none(), "{heard}");
}

#[tokio::test]
async fn errors_of_another_format_mean_what_they_mean() {
    let anthropic = Anthropic::start(THEIRS).await;
    let stack = stack(&anthropic, "").await;
    let overloaded = || Says::Error(529, "overloaded_error", "Overloaded", vec![]);
    let cut = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1}}}\n\n";
    let broken = format!("{cut}data: {{\"type\":\"error\",\"error\":{{\"type\":\"overloaded_error\"}}}}\n\n");
    for (says, status, code) in [
        (
            Says::Error(400, "invalid_request_error", "prompt is too long", vec![]),
            400,
            "invalid_request_error",
        ),
        (Says::Error(401, "authentication_error", "invalid x-api-key", vec![]), 502, "upstream_auth"),
        (
            Says::Error(429, "rate_limit_error", "slow down", vec![("retry-after", "7")]),
            429,
            "rate_limit_exceeded",
        ),
        (overloaded(), 502, "quorum_not_met"),
        (Says::Stream(cut.to_owned()), 502, "quorum_not_met"),
        (Says::Stream(broken), 502, "quorum_not_met"),
    ] {
        let shown = format!("{says:?}");
        anthropic.answer(move |_| says.clone());
        let answer = ask(&stack, "by-anthropic", json!({"stream": true})).await;
        let error: Value = serde_json::from_str(answer.text()).unwrap();
        assert_eq!(
            (answer.status.as_u16(), &error["error"]["code"]),
            (status, &json!(code)),
            "{shown}: {error}"
        );
        if status == 400 {
            assert_eq!(error["error"]["message"], "prompt is too long");
        }
        if status == 429 {
            assert_eq!(answer.header("retry-after"), "7");
        }
    }
}

/// After the first words: a message that stops without a reason has been cut.
#[tokio::test]
async fn a_message_that_stops_without_a_reason_is_no_whole_answer() {
    let anthropic = Anthropic::start(THEIRS).await;
    let stack = stack(&anthropic, "").await;
    let events = [
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 40, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}}),
        json!({"type": "message_stop"}),
    ];
    let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    anthropic.answer(move |_| Says::Stream(stream.clone()));
    let answer = ask(&stack, "by-anthropic", json!({"stream": true})).await;
    let events = answer.events();
    let last = events.last().unwrap();
    assert!(answer.text().contains("half") && !last.is_done(), "{}", answer.text());
    assert_eq!(last.json()["error"]["code"], "answer_broken_off");
    // What it had reported of its cost until then is billed, and no guess.
    let logged = stack.run_logged().await;
    assert_eq!((&logged["usage.total_tokens"], &logged["usage.estimated"]), (&json!(41), &json!(false)));
}

#[tokio::test]
async fn what_is_changed_of_requests_holds_for_members_and_judges() {
    let rules =
        "request: {drop: [seed], rename: {max_tokens: max_completion_tokens}, set: {service_tier: flex}}";
    let stack = Options::new()
        .models(&format!(
            "- {{display_name: ruled, provider: scripted, model_name: model-a, {rules}}}
- {{display_name: ruled-judge, provider: scripted, model_name: model-judge, {rules}}}
- display_name: ruled-ensemble
  ensemble:
    panel: [{{model: ruled, params: {{service_tier: default}}}}, {{model: ruled, params: {{max_tokens: 5}}}}]
    judge: {{model: ruled-judge}}"
        ))
        .start()
        .await;
    let answer =
        ask(&stack, "ruled-ensemble", json!({"seed": 1, "max_tokens": 9, "temperature": 0.70})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let of = |model: &str| {
        let mut sent: Vec<Value> =
            stack.provider.requests_for(model).into_iter().map(|sent| sent.json).collect();
        sent.sort_by_key(|sent| sent["max_completion_tokens"].as_u64());
        sent
    };
    let (members, judges) = (of("model-a"), of("model-judge"));
    let bounds: Vec<_> = members.iter().chain(&judges).map(|sent| &sent["max_completion_tokens"]).collect();
    assert_eq!(bounds, [&json!(5), &json!(9), &json!(9)]);
    let tiers: Vec<_> = members.iter().chain(&judges).map(|sent| &sent["service_tier"]).collect();
    assert_eq!(tiers, [&json!("flex"), &json!("default"), &json!("flex")]);
    for sent in members.iter().chain(&judges) {
        assert!(sent.get("seed").is_none() && sent.get("max_tokens").is_none(), "{sent}");
    }
}

#[tokio::test]
async fn azure_is_called_by_its_deployment_and_its_own_header() {
    let stack = Options::new()
        .whole(|base_url| {
            let root = base_url.trim_end_matches("/v1");
            format!(
                "listen: {{ext_proc: '127.0.0.1:0'}}
providers:
- {{name: dated, base_url: '{root}', preset: azure_deployment, api_version: 2024-10-21, api_key: {KEY}}}
- {{name: v1, base_url: '{root}', preset: azure, api_key: {KEY}}}
models:
- {{display_name: dated, provider: dated, model_name: my gpt}}
- {{display_name: v1, provider: v1, model_name: my gpt}}
- {{display_name: azure, ensemble: {{panel: [{{model: dated}}, {{model: v1}}], min_responses: 1}}}}
"
            )
        })
        .start()
        .await;
    // It is no Azure: what matters is how it was asked. With one answer needed the second is waited for.
    stack.provider.forgive();
    ask(&stack, "azure", json!({})).await;
    let mut asked: Vec<_> = stack.provider.requests().into_iter().collect();
    asked.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<&str> = asked.iter().map(|asked| &*asked.path).collect();
    assert_eq!(
        paths,
        [
            "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
            "/openai/v1/chat/completions"
        ]
    );
    for asked in &asked {
        assert_eq!((asked.header("api-key"), asked.header("authorization")), (KEY, ""));
        assert_eq!(asked.model, "my gpt");
    }
}
