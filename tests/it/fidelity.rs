//! What a caller writes reaches every model as it was written, and a selected answer comes back as it was given.

use consort_testkit::envoy::replace_once;
use consort_testkit::provider::{Provider, Received, Reply};
use serde_json::{Value, json};

use crate::stack::{ALIAS, KEY, Options, Stack, ms};

const MEMBERS: [&str; 3] = ["model-a", "model-b", "model-c"];

/// A conversation with all that one may hold: roles old and new, parts, an image, a tool's call and result, escapes.
const MESSAGES: &str = r#"[
  {"role":"developer","content":"Be \u0062rief.","name":"d"},
  {"role":"user","content":[{"type":"text","text":"What is this? \ud83d\ude00 é"},
    {"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}}]},
  {"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"look","arguments":"{\"at\": 1.50}"}}]},
  {"role":"tool","tool_call_id":"call_1","content":"a \"cat\"\n"},
  {"role":"function","name":"old","content":"{}"},
  {"role":"user","content":"Sure\/sure?", "vendor_tag":{"z":1,"a":2}}
]"#;

/// A request as no serializer would write it, with every field of this list of pieces.
fn request(pieces: &[&str]) -> String {
    format!("{{ {} }}", pieces.join(" ,\n  "))
}

fn messages() -> String {
    format!("\"messages\" : {MESSAGES}")
}

/// The body of the one request that a model got.
fn sent_to(stack: &Stack, model: &str) -> String {
    let requests = stack.provider.requests_for(model);
    assert_eq!(requests.len(), 1, "{model}");
    String::from_utf8(requests[0].body.to_vec()).expect("JSON is text")
}

fn keys(body: &str) -> Vec<String> {
    let body: serde_json::Map<String, Value> = serde_json::from_str(body).expect("an object");
    body.keys().cloned().collect()
}

mod members {
    use super::*;

    #[tokio::test]
    async fn get_the_callers_bytes_with_their_own_model_in_them() {
        let stack = Stack::start().await;
        let body = request(&[
            "\"temperature\": 0.7",
            "\"top_p\":1.0",
            "\"vendor\":{\"big\":123456789012345678901234567890,\"tiny\":1e-7,\"E\":1E5,\"neg\":-0.0,\"\\u00e9\":[]}",
            &messages(),
            "\"model\" : \"research-ensemble\"",
            "\"logit_bias\":{\"50256\":-100}",
            "\"seed\":18446744073709551616",
            "\"user\":\"\\ud83d\\ude00\\/\"",
            "\"n\":1",
            "\"stop\":[\"\\n\\n\"]",
            "\"functions\":[{\"name\":\"old\",\"parameters\":{}}]",
        ]);
        let answer = stack.ask_raw(body.clone()).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for model in MEMBERS {
            let expected = body.replace("\"research-ensemble\"", &format!("\"{model}\""));
            assert_eq!(sent_to(&stack, model), expected);
        }
    }

    #[tokio::test]
    async fn get_an_alias_that_was_written_with_escapes_replaced_as_well() {
        let stack = Stack::start().await;
        let body = r#"{"model":"research\u002densemble","messages":[{"role":"user","content":"research-ensemble"}]}"#;
        assert_eq!(stack.ask_raw(body).send().await.status, 200);
        let expected = r#"{"model":"model-a","messages":[{"role":"user","content":"research-ensemble"}]}"#;
        assert_eq!(sent_to(&stack, "model-a"), expected);
    }

    #[tokio::test]
    async fn get_a_body_that_came_in_many_pieces_as_the_one_that_it_was() {
        let small = |yaml| replace_once(yaml, "buffer_limit_bytes: 1048576", "buffer_limit_bytes: 4096");
        let stack = Options::new().edit(small).start().await;
        let long = format!("\"vendor\":\"{}\"", "é\\n, ".repeat(100_000));
        let body = request(&["\"model\":\"research-ensemble\"", &messages(), &long]);
        assert_eq!(stack.ask_raw(body.clone()).send().await.status, 200);
        for model in MEMBERS {
            let expected = body.replace("\"research-ensemble\"", &format!("\"{model}\""));
            assert!(sent_to(&stack, model) == expected, "the {} bytes differ", expected.len());
        }
    }

    #[tokio::test]
    async fn get_no_stream_and_nothing_that_is_stored_or_meant_for_one_model() {
        let stack = Stack::start().await;
        let body = request(&[
            "\"model\":\"research-ensemble\"",
            "\"stream\":true",
            "\"stream_options\":{\"include_usage\":true}",
            "\"store\":true",
            &messages(),
            "\"metadata\":{\"team\":\"x\"}",
            "\"temperature\":0.7",
            "\"prediction\":{\"type\":\"content\",\"content\":\"x\"}",
            "\"web_search_options\":{}",
            "\"service_tier\":\"flex\"",
        ]);
        assert_eq!(stack.ask_raw(body).send().await.status, 200);
        for model in MEMBERS {
            let sent = sent_to(&stack, model);
            assert_eq!(keys(&sent), ["model", "stream", "messages", "temperature", "service_tier"]);
            assert!(sent.contains(&messages()) && sent.contains("\"temperature\":0.7"), "{sent}");
            assert_eq!(stack.provider.requests_for(model)[0].json["stream"], false);
        }
        let judge = sent_to(&stack, "model-judge");
        let expected = ["model", "stream", "stream_options", "messages", "temperature", "service_tier"];
        assert_eq!(keys(&judge), expected);
    }

    #[tokio::test]
    async fn get_what_the_operator_overrides_for_each_of_them() {
        let models = "- display_name: overridden
  ensemble:
    panel:
    - {model: a, temperature: 0.25, seed: 7}
    - {model: b, params: {top_p: 0.50, store: true, vendor: {deep: [1, null]}, max_tokens: 5}}
    - {model: c, system: 'Answer as a \"pirate\".'}
    judge: {model: judge, params: {temperature: 0, reasoning_effort: low}}";
        let stack = Options::new().models(models).start().await;
        let body = request(&[
            "\"model\":\"overridden\"",
            "\"temperature\": 0.7",
            "\"seed\":1",
            "\"max_tokens\":100",
            &messages(),
        ]);
        assert_eq!(stack.ask_raw(body.clone()).send().await.status, 200);
        let of_member = |model: &str| body.replace("\"overridden\"", &format!("\"{model}\""));
        let a = of_member("model-a").replace(" 0.7", " 0.25").replace("\"seed\":1", "\"seed\":7");
        assert_eq!(sent_to(&stack, "model-a"), a);
        let b = sent_to(&stack, "model-b");
        assert_eq!(
            keys(&b),
            ["model", "temperature", "seed", "max_tokens", "messages", "top_p", "store", "vendor"]
        );
        let json: Value = serde_json::from_str(&b).expect("JSON");
        let forced = (&json["max_tokens"], &json["top_p"], &json["store"], &json["vendor"]);
        assert_eq!(forced, (&json!(5), &json!(0.5), &json!(true), &json!({"deep": [1, null]})));
        assert!(b.contains("\"temperature\": 0.7") && b.contains(MESSAGES), "{b}");
        let c = &stack.provider.requests_for("model-c")[0].json;
        assert_eq!(c["messages"][0], json!({"role": "system", "content": "Answer as a \"pirate\"."}));
        let own: Value = serde_json::from_str(MESSAGES).expect("JSON");
        let rest = c["messages"].as_array().map(|all| all[1..].to_vec());
        assert_eq!(rest.as_ref(), own.as_array());
        let inner = MESSAGES.trim_matches(['[', ']']);
        assert!(sent_to(&stack, "model-c").contains(inner));
        let judge = &stack.provider.requests_for("model-judge")[0].json;
        let asked = (&judge["temperature"], &judge["reasoning_effort"], &judge["seed"], &judge["max_tokens"]);
        assert_eq!(asked, (&json!(0), &json!("low"), &json!(1), &json!(100)));
    }
}

#[tokio::test]
async fn the_judge_gets_the_conversation_as_it_was_and_all_that_shapes_its_answer() {
    let stack = Stack::start().await;
    let shaping = [
        "\"max_tokens\":77",
        "\"stop\":[\"END\"]",
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":{\"type\":\"object\"}}}",
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"look\",\"parameters\":{\"type\":\"object\"}}}]",
        "\"tool_choice\":\"auto\"",
        "\"reasoning_effort\":\"high\"",
    ];
    for model in ["model-a", "model-b", "model-c", "model-judge"] {
        stack.provider.model(model).reply(Reply::text("{}"));
    }
    let conversation = messages();
    let mut pieces = vec!["\"model\":\"research-ensemble\"", &conversation];
    pieces.extend(shaping);
    let answer = stack.ask_raw(request(&pieces)).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let judge = sent_to(&stack, "model-judge");
    for piece in shaping {
        assert!(judge.contains(piece), "{piece} in {judge}");
    }
    assert!(judge.contains(MESSAGES.trim_matches(['[', ']', '\n'])), "{judge}");
    let messages = stack.provider.requests_for("model-judge")[0].json["messages"].clone();
    let own: Value = serde_json::from_str(MESSAGES).expect("JSON");
    let own = own.as_array().expect("an array");
    let all = messages.as_array().expect("an array");
    assert_eq!((all.len(), &all[..own.len()]), (own.len() + 1, &own[..]));
    assert_eq!(all[own.len()]["role"], "user");
}

mod headers {
    use super::*;

    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OWN: &str = "Bearer sk-of-the-caller";

    #[tokio::test]
    async fn of_the_callers_those_travel_on_that_join_logs_and_its_credential_only_where_it_may() {
        let trusting = Provider::start().await;
        trusting.require_key(OWN.trim_start_matches("Bearer "));
        trusting.model("model-t").reply(Reply::text("four"));
        let theirs = trusting.base_url();
        let stack = Options::new()
            .whole(move |ours| {
                format!(
                    "listen: {{ext_proc: '127.0.0.1:0'}}
providers:
- {{name: ours, base_url: '{ours}', api_key: {KEY}}}
- {{name: theirs, base_url: '{theirs}', api_key: passthrough}}
models:
- {{display_name: a, provider: ours, model_name: model-a}}
- {{display_name: t, provider: theirs, model_name: model-t}}
- {{display_name: judge, provider: ours, model_name: model-judge}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: t}}], judge: {{model: judge}}}}}}
"
                )
            })
            .start()
            .await;
        let call = stack.ask(json!({})).header("authorization", OWN).header("cookie", "secret=1");
        let call = call.header("traceparent", TRACEPARENT).header("tracestate", "vendor=1");
        let answer = call.header("x-forwarded-for", "10.1.2.3").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.header("x-request-id").to_owned();
        let seen = |received: &Received| {
            ["x-request-id", "traceparent", "tracestate", "authorization"]
                .map(|n| received.header(n).to_owned())
        };
        let ours = format!("Bearer {KEY}");
        for (provider, model, key) in [
            (&stack.provider, "model-a", &*ours),
            (&stack.provider, "model-judge", &*ours),
            (&trusting, "model-t", OWN),
        ] {
            let received = provider.requests_for(model).remove(0);
            assert_eq!(seen(&received), [&*id, TRACEPARENT, "vendor=1", key], "{model}");
            for kept_back in
                ["cookie", "x-forwarded-for", "x-envoy-expected-rq-timeout-ms", "x-forwarded-proto"]
            {
                assert_eq!(received.header(kept_back), "", "{model} {kept_back}");
            }
        }
        // Without a credential of its own, a caller has nothing to pass through.
        trusting.expect_violation("Incorrect API key");
        assert_eq!(stack.ask(json!({})).send().await.status, 502);
    }
}

mod candidates {
    use super::*;

    fn schema() -> Value {
        let schema = json!({
            "type": "object",
            "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 0}},
            "required": ["city", "people"],
            "additionalProperties": false,
        });
        json!({"type": "json_schema", "json_schema": {"name": "town", "strict": true, "schema": schema}})
    }

    #[tokio::test]
    async fn are_only_answers_that_keep_to_the_callers_schema() {
        let stack = Options::new().ensemble("min_responses: 1").start().await;
        let fits = r#"{"city": "Bonn", "people": 3}"#;
        stack.provider.model("model-a").reply(Reply::text(fits));
        stack.provider.model("model-judge").reply(Reply::text(fits));
        for (breaks, label) in [
            (Reply::text(r#"{"city": "Bonn", "people": -3}"#), "format"),
            (Reply::text(r#"{"city": "Bonn"}"#), "format"),
            (Reply::text("Bonn, 3"), "format"),
            (Reply::text("```json\n{\"city\": \"Bonn\", \"people\": 3}\n```"), "format"),
            (Reply::text(fits).finish("length"), "cut"),
            (Reply::text(r#"{"city": "Bo"#).finish("length"), "cut"),
        ] {
            usable_but_for(&stack, breaks, json!({"response_format": schema()}), label).await;
        }
        stack.provider.model("model-b").reply(Reply::text(fits));
        stack.provider.model("model-c").reply(Reply::text(fits));
        let answer = stack.ask(json!({"response_format": schema()})).send().await;
        assert_eq!(
            (answer.header("x-ensemble-responses"), answer.header("x-ensemble-outcome")),
            ("3", "full")
        );
    }

    #[tokio::test]
    async fn are_no_refusals_no_filtered_and_no_empty_answers() {
        let stack = Options::new().ensemble("min_responses: 1").start().await;
        for (reply, label) in [
            (Reply::refusal("I would rather not."), "refusal"),
            (Reply::content_filter(), "content_filter"),
            (Reply::text("half of it").finish("content_filter"), "content_filter"),
            (Reply::text(""), "empty"),
            (Reply::text(" \n"), "empty"),
            (Reply::message(json!({"content": null, "reasoning_content": "hm"})), "empty"),
        ] {
            usable_but_for(&stack, reply, json!({}), label).await;
        }
    }

    /// With this reply of two members, only the third is heard.
    async fn usable_but_for(stack: &Stack, reply: Reply, fields: Value, label: &str) {
        let shown = format!("{reply:?}");
        let runs = stack.runs_logged(0).await.len();
        stack.provider.model("model-b").reply(reply.clone());
        stack.provider.model("model-c").reply(reply);
        let answer = stack.ask(fields).send().await;
        let told = (answer.header("x-ensemble-responses"), answer.header("x-ensemble-outcome"));
        assert_eq!(told, ("1", "single"), "{shown}: {}", answer.text());
        let logged = stack.runs_logged(runs + 1).await.remove(runs);
        let members = logged["members"].as_str().unwrap_or_default();
        assert!(
            members.contains(&format!("b={label}@")) && members.contains(&format!("c={label}@")),
            "{logged}"
        );
    }
}

mod selected {
    use super::*;

    /// A message as no serializer of ours would write it.
    const MESSAGE: &str = r#"{ "role" : "assistant","content":"A \u0063at\/\ud83d\ude00 é \n","refusal":null, "annotations":[{"type":"url_citation","n":1.50}],"vendor":{"big":123456789012345678901234567890},"tool_calls":[{"id":"call_Zx9","type":"function","function":{"name":"look","arguments":"{\"at\": 1.50}"}}] }"#;
    const LOGPROBS: &str =
        r#"{"content":[{"token":" A","logprob":-0.10,"bytes":[32,65],"top_logprobs":[]}],"refusal":null}"#;

    async fn start() -> Stack {
        let stack = Stack::start().await;
        let body = format!(
            r#"{{"id":"theirs","object":"chat.completion","created":1,"model":"model-a-0613","choices":[{{"index":0,"message":{MESSAGE},"logprobs":{LOGPROBS},"finish_reason":"tool_calls"}}],"usage":{{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}}}"#
        );
        stack.provider.model("model-a").reply(Reply::raw("application/json", body));
        stack.provider.model("model-judge").reply(Reply::error(500, "kaboom", "server_error", None));
        stack
    }

    #[tokio::test]
    async fn an_answer_comes_back_byte_for_byte() {
        let stack = start().await;
        let answer = stack.ask(json!({"logprobs": true})).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-ensemble-outcome")), (200, "degraded"));
        let text = answer.text();
        assert!(text.contains(&format!("\"message\":{MESSAGE}")), "{text}");
        assert!(text.contains(&format!("\"logprobs\":{LOGPROBS}")), "{text}");
        let body = answer.json();
        assert_eq!(
            (&body["choices"][0]["finish_reason"], &body["model"]),
            (&json!("tool_calls"), &json!(ALIAS))
        );
        assert!(body["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")));
        // The member's 10 and 5, and 10 and 1 of each of the other two; a 500 is not billed.
        assert_eq!(
            (&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]),
            (&json!(30), &json!(7))
        );
    }

    #[tokio::test]
    async fn a_streamed_answer_says_the_same_in_deltas() {
        let stack = start().await;
        let answer = stack.ask(json!({"stream": true, "logprobs": true})).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-ensemble-outcome")), (200, "degraded"));
        let text = answer.text();
        for piece in [
            r#""content":"A \u0063at\/\ud83d\ude00 é \n""#,
            r#""annotations":[{"type":"url_citation","n":1.50}]"#,
            r#""vendor":{"big":123456789012345678901234567890}"#,
            LOGPROBS,
        ] {
            assert!(text.contains(piece), "{piece} in {text}");
        }
        let events = answer.events();
        let chunks: Vec<Value> = events.iter().filter(|e| !e.is_done()).map(|e| e.json()).collect();
        let call =
            chunks.iter().map(|c| &c["choices"][0]["delta"]["tool_calls"][0]).find(|call| !call.is_null());
        let function = json!({"name": "look", "arguments": "{\"at\": 1.50}"});
        let expected = json!({"index": 0, "id": "call_Zx9", "type": "function", "function": function});
        assert_eq!(call, Some(&expected));
        let finishes: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["finish_reason"]).collect();
        assert_eq!(finishes.last(), Some(&&json!("tool_calls")));
        assert!(finishes[..finishes.len() - 1].iter().all(|f| f.is_null()));
        assert!(events.last().is_some_and(|e| e.is_done()));
    }

    #[tokio::test]
    async fn a_judges_own_words_are_streamed_with_what_else_it_says() {
        let stack = Stack::start().await;
        let calls = Reply::tool_calls(&[("look", "{\"at\": 1.50}"), ("listen", "{}")]);
        stack.provider.model("model-judge").reply(calls.gap(ms(1)));
        let answer = stack.ask_stream().send().await;
        let events = answer.events();
        let chunks: Vec<Value> = events.iter().filter(|e| !e.is_done()).map(|e| e.json()).collect();
        let deltas = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["tool_calls"].as_array());
        let mut arguments = [String::new(), String::new()];
        let mut ids = Vec::new();
        for call in deltas.flatten() {
            let index = usize::try_from(call["index"].as_u64().expect("an index")).expect("small");
            arguments[index].push_str(call["function"]["arguments"].as_str().unwrap_or_default());
            ids.extend(call["id"].as_str().map(str::to_owned));
        }
        assert_eq!(arguments, ["{\"at\": 1.50}", "{}"]);
        assert_eq!(ids, ["call_0", "call_1"]);
        assert!(chunks.iter().any(|c| c["choices"][0]["finish_reason"] == "tool_calls"));
    }
}
