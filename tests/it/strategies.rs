//! Every strategy and every way of asking a panel, through a real Envoy: plain and streamed, with tools, with a
//! JSON Schema.

use consort_testkit::http::Answer;
use consort_testkit::provider::{Provider, Received, Reply};
use serde_json::{Value, json};

use crate::stack::{Options, Stack, ms};

/// An alias for each strategy, over the same three members.
const ALIASES: &str = "
- {display_name: strict, provider: scripted, model_name: model-judge, response_format: json_schema, retries: 0, cooldown: {enabled: false}}
- {display_name: vote, ensemble: {panel: PANEL, answer: number}}
- {display_name: weighted, ensemble: {panel: [{model: a}, {model: b}, {model: c, weight: 3}], strategy: weighted, answer: number}}
- {display_name: average, ensemble: {panel: PANEL, strategy: average}}
- {display_name: first, ensemble: {panel: PANEL, strategy: first}}
- {display_name: hedged, ensemble: {panel: PANEL, strategy: first, first: {hedge_ms: 250}}}
- {display_name: judged, ensemble: {panel: PANEL, judge: {model: judge}}}
- {display_name: rank, ensemble: {panel: PANEL, strategy: rank, judge: {model: strict}}}
- {display_name: pairwise, ensemble: {panel: PANEL, strategy: rank, judge: {model: judge}, rank: {mode: pairwise}}}
- {display_name: score, ensemble: {panel: PANEL, strategy: score, judges: [{model: judge}, {model: strict}]}}
- {display_name: sequential, ensemble: {panel: PANEL, execution: sequential, answer: number}}
- {display_name: cascade, ensemble: {panel: PANEL, judge: {model: judge}, cascade: {start: 2}, answer: number}}
- {display_name: text, ensemble: {panel: PANEL, strategy: vote}}
- {display_name: quiet, ensemble: {panel: PANEL, strategy: first, reasoning: drop}}
- {display_name: traced, ensemble: {panel: PANEL, answer: number, trace: always}}
- {display_name: ask-to-trace, ensemble: {panel: PANEL, answer: number, trace: header}}
";

const MEMBERS: [&str; 3] = ["model-a", "model-b", "model-c"];

async fn stack() -> Stack {
    let stack = Options::new()
        .models(&ALIASES.replace("PANEL", "[{model: a}, {model: b}, {model: c}]"))
        .start()
        .await;
    stack.provider.model("model-judge").answer(|request| Reply::text(verdict(request)));
    stack
}

/// What the scripted judge says: it prefers whoever says "8", and writes an answer where no verdict is asked for.
fn verdict(request: &Received) -> String {
    let prompt = request.json["messages"].as_array().and_then(|m| m.last()).map(|m| m["content"].clone());
    let prompt = prompt.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    let shown: Vec<(String, bool)> = prompt
        .split("BEGIN ")
        .skip(1)
        .filter_map(|candidate| candidate.split_once("\nEND "))
        .filter_map(|(candidate, _)| candidate.split_once('\n'))
        .map(|(fence, text)| (fence[..1].to_owned(), text.contains('8')))
        .collect();
    let best = shown.iter().find(|(_, is_best)| *is_best).or(shown.first()).map(|(label, _)| label.clone());
    if prompt.contains("\"best\"") {
        json!({"reasons": "it says 8", "best": best}).to_string()
    } else if prompt.contains("\"scores\"") {
        let grade = |(label, is_best): (String, bool)| (label, json!(if is_best { 9 } else { 2 }));
        json!({"reasons": "…", "scores": shown.into_iter().map(grade).collect::<serde_json::Map<_, _>>()})
            .to_string()
    } else if request.json.get("response_format").is_some() {
        r#"{"n":7}"#.to_owned()
    } else {
        "judged".to_owned()
    }
}

fn say(stack: &Stack, texts: [&str; 3]) {
    for (model, text) in MEMBERS.into_iter().zip(texts) {
        stack.provider.model(model).reply(Reply::text(text));
    }
}

/// The aliases that answer anything, and so not the one that averages.
const ANY: [&str; 12] = [
    "vote",
    "weighted",
    "first",
    "hedged",
    "judged",
    "rank",
    "pairwise",
    "score",
    "sequential",
    "cascade",
    "text",
    "quiet",
];

async fn ask(stack: &Stack, alias: &str, fields: Value) -> Answer {
    let mut body = json!({"model": alias});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = stack.ask(body).send().await;
    assert_eq!(answer.status, 200, "{alias}: {}", answer.text());
    answer
}

/// The content of an answer, whether it came whole or as a stream.
fn content(answer: &Answer) -> String {
    if answer.header("content-type").starts_with("application/json") {
        return answer.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
    }
    assert!(answer.events().last().unwrap().is_done());
    let events = answer.events();
    let chunks = events.iter().filter(|event| !event.is_done()).map(|event| event.json());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

fn asked(provider: &Provider) -> [usize; 4] {
    ["model-a", "model-b", "model-c", "model-judge"].map(|model| provider.requests_for(model).len())
}

#[tokio::test]
async fn each_does_what_its_name_says_plain_and_streamed() {
    let stack = stack().await;
    say(&stack, ["It is 7.", "#### 7", "I say 8"]);
    for streams in [false, true] {
        for (alias, expected, agreement) in [
            ("vote", "It is 7.", "0.67"),
            ("weighted", "I say 8", "0.60"),
            ("average", "It is 7.", "0.67"),
            ("judged", "judged", ""),
            ("rank", "I say 8", ""),
            ("pairwise", "I say 8", ""),
            ("score", "I say 8", ""),
            ("text", "It is 7.", "0.33"),
        ] {
            let answer = ask(&stack, alias, json!({"stream": streams})).await;
            assert_eq!(content(&answer), expected, "{alias}");
            match answer.header("x-ensemble-outcome") {
                "full" => assert_eq!(answer.header("x-ensemble-agreement"), agreement, "{alias}"),
                // A vote may be settled by two of them.
                outcome => assert_eq!(outcome, "quorum", "{alias}"),
            }
        }
    }
}

#[tokio::test]
async fn every_one_of_them_answers_with_tool_calls_and_by_a_schema_plain_and_streamed() {
    let stack = stack().await;
    for model in MEMBERS {
        stack.provider.model(model).answer(|request| match request.json.get("tools") {
            Some(_) => Reply::tool_calls(&[("look", r#"{"at":1}"#)]),
            None => Reply::text(r#"{"n": 8}"#),
        });
    }
    let tools = json!([{"type": "function", "function": {"name": "look"}}]);
    let schema = json!({"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    for streams in [false, true] {
        for alias in ANY {
            let called = ask(&stack, alias, json!({"stream": streams, "tools": tools})).await;
            // A judge writes its own answer, unless the panel agrees before it is asked.
            let is_judged = alias == "judged";
            let calls = called.text().contains(r#""name":"look""#);
            assert_eq!(
                (calls, called.header("x-ensemble-strategy").is_empty()),
                (!is_judged, false),
                "{alias}"
            );
            let valid = ask(&stack, alias, json!({"stream": streams, "response_format": format})).await;
            assert_eq!(content(&valid), if is_judged { r#"{"n":7}"# } else { r#"{"n": 8}"# }, "{alias}");
            assert_ne!(valid.header("x-ensemble-outcome"), "degraded", "{alias}");
        }
        for (fields, param) in
            [(json!({"tools": tools}), "tools"), (json!({"response_format": format}), "response_format")]
        {
            let mut body = json!({"model": "average", "stream": streams});
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let refused = stack.ask(body).send().await;
            assert_eq!((refused.status.as_u16(), &refused.json()["error"]["param"]), (400, &json!(param)));
        }
    }
}

#[tokio::test]
async fn a_judge_gets_the_operators_own_words_for_each_strategy() {
    let own = "
- display_name: own-words
  ensemble:
    panel: [{model: a}, {model: b}]
    overrides: {strategy: [rank, score]}
    judge:
      model: judge
      prompt: {judge: 'Write! {{candidates}}', rank: 'Choose! {{candidates}} {{verdict}}', score: 'Grade! {{candidates}} {{verdict}}'}";
    let stack = Options::new().models(own).start().await;
    stack.provider.model("model-judge").answer(|request| Reply::text(verdict(request)));
    for (strategy, words) in
        [("judge", "Write! BEGIN A "), ("rank", "Choose! BEGIN A "), ("score", "Grade! BEGIN A ")]
    {
        let mut call = stack.ask(json!({"model": "own-words"}));
        if strategy != "judge" {
            call = call.header("x-ensemble-strategy", strategy);
        }
        let answer = call.send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-ensemble-strategy")), (200, strategy));
        let asked = stack.provider.requests_for("model-judge").pop().unwrap();
        assert!(asked.json["messages"][1]["content"].as_str().unwrap().starts_with(words), "{strategy}");
    }
}

#[tokio::test]
async fn a_verdict_is_asked_for_in_the_form_that_the_judge_takes() {
    let stack = stack().await;
    ask(&stack, "rank", json!({"stream": true, "max_tokens": 5, "temperature": 2})).await;
    ask(&stack, "pairwise", json!({})).await;
    let requests = stack.provider.requests_for("model-judge");
    assert_eq!(requests.len(), 1 + 6);
    let strict = &requests[0].json;
    assert_eq!(strict["response_format"]["json_schema"]["schema"]["required"], json!(["reasons", "best"]));
    assert!(
        strict.get("stream").is_none()
            && strict.get("max_tokens").is_none()
            && strict.get("temperature").is_none()
    );
    assert!(requests[1].json.get("response_format").is_none());
}

/// A selected answer is what its member said, byte for byte.
#[tokio::test]
async fn selected_tool_calls_are_one_members_own_plain_and_streamed() {
    let stack = stack().await;
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object",
        "properties": {"at": {"type": "number"}, "deep": {"type": "boolean", "default": false}}}}}]);
    stack.provider.model("model-a").reply(Reply::text("I would rather not look."));
    stack.provider.model("model-b").reply(Reply::tool_calls(&[("look", r#"{ "at": 1.50 }"#)]));
    stack.provider.model("model-c").reply(Reply::tool_calls(&[("look", r#"{"deep":false,"at":1.5}"#)]));
    for streams in [false, true] {
        for alias in ["vote", "text", "weighted"] {
            let answer = ask(&stack, alias, json!({"stream": streams, "tools": tools})).await;
            let function = if streams {
                let events = answer.events();
                let mut chunks =
                    events.iter().filter(|e| !e.is_done()).map(|e| e.json()["choices"][0]["delta"].clone());
                chunks.find(|delta| delta.get("tool_calls").is_some()).unwrap()["tool_calls"][0]["function"]
                    .clone()
            } else {
                answer.json()["choices"][0]["message"]["tool_calls"][0]["function"].clone()
            };
            let own = if alias == "weighted" { r#"{"deep":false,"at":1.5}"# } else { r#"{ "at": 1.50 }"# };
            assert_eq!(function, json!({"name": "look", "arguments": own}), "{alias}");
        }
    }
    // Where a call is required, a text is no vote: one against one and one would be text's otherwise.
    stack.provider.model("model-c").reply(Reply::tool_calls(&[("look", r#"{"at":2}"#)]));
    let text = ask(&stack, "vote", json!({"tools": tools})).await;
    assert_eq!(content(&text), "I would rather not look.");
    let required = ask(&stack, "vote", json!({"tools": tools, "tool_choice": "required"})).await;
    let call = &required.json()["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(
        (&call["function"]["arguments"], required.header("x-ensemble-agreement")),
        (&json!(r#"{ "at": 1.50 }"#), "0.50")
    );
    let refused = stack.ask(json!({"model": "average", "tools": tools})).send().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["param"]), (400, &json!("tools")));
}

#[tokio::test]
async fn where_a_schema_is_asked_for_only_valid_answers_count_and_equal_values_agree() {
    let stack = stack().await;
    let schema = json!({"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    say(&stack, [r#"{"x":1}"#, r#"{"n": 2.0, "z": [1]}"#, r#"{"z":[1.0],"n":2}"#]);
    for (alias, expected, responses) in [
        ("vote", r#"{"n": 2.0, "z": [1]}"#, "2"),
        ("weighted", r#"{"z":[1.0],"n":2}"#, "2"),
        ("text", r#"{"n": 2.0, "z": [1]}"#, "2"),
    ] {
        for streams in [false, true] {
            let answer = ask(&stack, alias, json!({"stream": streams, "response_format": format})).await;
            assert_eq!(
                (&*content(&answer), answer.header("x-ensemble-responses")),
                (expected, responses),
                "{alias}"
            );
        }
    }
    for streams in [false, true] {
        stack.provider.model("model-b").reply(Reply::text(r#"{"n":3}"#).delay(ms(300)));
        stack.provider.model("model-c").reply(Reply::text(r#"{"n":4}"#).delay(ms(2000)));
        let answer = ask(&stack, "first", json!({"stream": streams, "response_format": format})).await;
        assert_eq!(content(&answer), r#"{"n":3}"#, "the invalid one came first and is none");
    }
}

#[tokio::test]
async fn the_first_to_speak_streams_live_and_the_others_connections_close() {
    let stack = stack().await;
    stack.provider.model("model-a").reply(Reply::text("late").delay(ms(20_000)));
    stack.provider.model("model-b").reply(Reply::stream(&["live", " and", " well"], ms(400)));
    stack.provider.model("model-c").reply(Reply::status(503, json!({})));
    let mut live = stack.ask(json!({"model": "first", "stream": true})).open().await;
    assert_eq!((live.status.as_u16(), live.headers["x-ensemble-responses"].to_str().unwrap()), (200, "1"));
    let opening = live.event().await.unwrap();
    let first = live.event().await.unwrap();
    assert_eq!(first.json()["choices"][0]["delta"]["content"], "live");
    assert!(first.at - opening.at < ms(300));
    stack.provider.wait_for_closed("model-a", 1).await;
    let rest = live.rest().await;
    assert!(rest.events().last().unwrap().is_done());
    let logged = stack.run_logged().await;
    assert_eq!((&logged["outcome"], &logged["calls_saved"]), (&json!("quorum"), &json!(1)));
}

#[tokio::test]
async fn a_hedge_asks_the_next_member_after_its_delay_only() {
    let stack = stack().await;
    say(&stack, ["quick", "spare", "spare"]);
    assert_eq!(content(&ask(&stack, "hedged", json!({})).await), "quick");
    assert_eq!(asked(&stack.provider), [1, 0, 0, 0]);
    stack.provider.model("model-a").reply(Reply::stall());
    assert_eq!(content(&ask(&stack, "hedged", json!({})).await), "spare");
    assert_eq!(asked(&stack.provider), [2, 1, 0, 0]);
    stack.provider.wait_for_closed("model-a", 1).await;
}

#[tokio::test]
async fn a_cascade_that_agrees_saves_calls_and_the_judge() {
    let stack = stack().await;
    say(&stack, ["7", "the answer is 7.0", "8"]);
    let answer = ask(&stack, "cascade", json!({})).await;
    let head = ["x-ensemble-outcome", "x-ensemble-agreement", "x-ensemble-responses"]
        .map(|name| answer.header(name));
    assert_eq!((&*content(&answer), head), ("7", ["cascade", "1.00", "2"]));
    assert_eq!((asked(&stack.provider), answer.header("x-ensemble-panel")), ([1, 1, 0, 0], "2"));
    assert_eq!(answer.json()["usage"]["total_tokens"], stack.provider.billed_in_all().total());
    let logged = stack.run_logged().await;
    assert_eq!((&logged["outcome"], &logged["calls_saved"]), (&json!("cascade"), &json!(1)));
    let streamed = ask(&stack, "cascade", json!({"stream": true})).await;
    assert_eq!((&*content(&streamed), streamed.header("x-ensemble-outcome")), ("7", "cascade"));
    say(&stack, ["7", "9", "8"]);
    let answer = ask(&stack, "cascade", json!({"stream": true})).await;
    assert_eq!((&*content(&answer), answer.header("x-ensemble-outcome")), ("judged", "full"));
    assert_eq!(asked(&stack.provider), [3, 3, 1, 1]);
}

#[tokio::test]
async fn a_sequence_asks_one_after_the_other_until_the_vote_is_settled() {
    let stack = stack().await;
    say(&stack, ["7", "7", "8"]);
    assert_eq!(content(&ask(&stack, "sequential", json!({})).await), "7");
    assert_eq!(asked(&stack.provider), [1, 1, 0, 0]);
    say(&stack, ["8", "7", "7"]);
    assert_eq!(content(&ask(&stack, "sequential", json!({})).await), "7");
    assert_eq!(asked(&stack.provider), [2, 2, 1, 0]);
}

#[tokio::test]
async fn what_models_thought_aloud_is_kept_from_callers_where_the_operator_says_so() {
    let stack = stack().await;
    for model in MEMBERS {
        stack.provider.model(model).reply(Reply::text("said").reasoning("thought"));
    }
    for streams in [false, true] {
        let told = ask(&stack, "first", json!({"stream": streams})).await;
        assert!(told.text().contains("thought") && told.text().contains("said"));
        let quiet = ask(&stack, "quiet", json!({"stream": streams})).await;
        assert!(!quiet.text().contains("thought") && quiet.text().contains("said"), "{}", quiet.text());
    }
}

#[tokio::test]
async fn the_decision_is_shown_where_it_is_allowed_and_asked_for_and_nowhere_else() {
    let stack = stack().await;
    say(&stack, ["7", "7", "8"]);
    stack.provider.model("model-c").reply(Reply::status(503, json!({"error": {"message": "secret host"}})));
    let decision = ask(&stack, "traced", json!({})).await.json()["consort"].take();
    assert_eq!((&decision["outcome"], &decision["members"][2]["model"]), (&json!("quorum"), &json!("c")));
    assert_eq!((&decision["members"][1]["key"], &decision["agreement"]), (&json!("7"), &json!(1.0)));
    for options in [json!({"include_usage": true}), json!({})] {
        let streamed = ask(&stack, "traced", json!({"stream": true, "stream_options": options})).await;
        let events = streamed.events();
        let chunks: Vec<Value> = events.iter().filter(|e| !e.is_done()).map(|e| e.json()).collect();
        let shown: Vec<bool> = chunks.iter().map(|chunk| chunk.get("consort").is_some()).collect();
        assert!(
            shown.last() == Some(&true) && shown.iter().filter(|is_shown| **is_shown).count() == 1,
            "{shown:?}"
        );
        assert_eq!(chunks.last().unwrap()["consort"]["members"][0]["result"], "usable");
    }
    let asked = |value: &'static str| {
        stack.ask(json!({"model": "ask-to-trace"})).header("x-ensemble-trace", value).send()
    };
    assert!(asked("true").await.json().get("consort").is_some());
    assert!(asked("false").await.json().get("consort").is_none());
    let not_allowed = stack.ask(json!({"model": "vote"})).header("x-ensemble-trace", "true").send().await;
    assert!(not_allowed.json().get("consort").is_none());
    let refused = asked("please").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["param"]),
        (400, &json!("x-ensemble-trace"))
    );
    for model in MEMBERS {
        stack.provider.model(model).reply(Reply::status(503, json!({"error": {"message": "secret host"}})));
    }
    let failed = stack.ask(json!({"model": "traced"})).send().await;
    assert_eq!(
        (failed.status.as_u16(), &failed.json()["consort"]["error_code"]),
        (502, &json!("quorum_not_met"))
    );
    assert!(!failed.text().contains("secret") && !failed.text().contains("model-a"), "{}", failed.text());
}
