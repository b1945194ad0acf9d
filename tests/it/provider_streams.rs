//! What providers make of an event stream, and the one well-formed stream that callers get of it.

use consort_testkit::http::Event;
use consort_testkit::provider::Reply;
use serde_json::{Value, json};

use crate::stack::{Stack, ms};

/// What the streams of these tests say, in three pieces.
const TEXT: &str = "Hé 🙂 so.";
const PIECES: [&str; 3] = ["Hé", " 🙂", " so."];

#[tokio::test]
async fn the_framing_of_a_providers_stream_does_not_reach_the_caller() {
    let stack = Stack::start().await;
    let plain = format!("{}{}data: [DONE]\n\n", opening(), said(&PIECES));
    let cut_short = |end: &str| plain.strip_suffix(end).unwrap().to_owned();
    let rows = [
        ("plain", plain.clone()),
        ("CRLF", plain.replace('\n', "\r\n")),
        ("CR", plain.replace('\n', "\r")),
        ("a byte order mark", format!("\u{feff}{plain}")),
        ("comments", plain.replace("data: ", ": OPENROUTER PROCESSING\n\n: x\ndata: ")),
        ("other fields", plain.replace("data: ", "event: message\nid: 7\nretry: 10\ndata: ")),
        ("no space after the colon", plain.replace("data: ", "data:")),
        ("data in several lines", plain.replace(",\"choices\":", ",\ndata: \"choices\":\ndata: ")),
        ("no [DONE]", cut_short("data: [DONE]\n\n")),
        ("no last blank line", cut_short("\n")),
        ("no last line end", cut_short("\n\n")),
        ("no [DONE] and no last line end", cut_short("\n\ndata: [DONE]\n\n")),
        ("more after [DONE]", format!("{plain}data: {{\"garbage\n\n")),
        ("garbage after the end", plain.replace("data: [DONE]", "data: {\"garbage\n\ndata: [DONE]")),
        (
            "no choices after the end",
            plain.replace("data: [DONE]", "data: {\"choices\":null}\n\ndata: [DONE]"),
        ),
        ("white space around [DONE]", plain.replace("data: [DONE]", "data:  [DONE] ")),
        ("empty events", plain.replace("data: ", "data:\n\ndata: ")),
    ];
    for (row, stream) in rows {
        for reply in [Reply::sse(stream.clone()), Reply::sse(stream).trickle(ms(0))] {
            let relayed = relay(&stack, reply).await;
            assert_eq!((relayed.contents.concat(), &relayed.error), (TEXT.to_owned(), &Value::Null), "{row}");
            assert_eq!(relayed.finish, ["stop"], "{row}");
            assert_eq!((relayed.roles, relayed.done), (1, true), "{row}");
        }
    }
}

#[tokio::test]
async fn a_character_cut_by_tcp_is_whole_for_the_caller() {
    let stack = Stack::start().await;
    // Drops of 7 bytes, flushed one by one: whatever stands before it, the character is cut in three of seven places.
    for padding in 0..7 {
        let text = format!("{}🙂", "x".repeat(padding));
        let stream = format!("{}data: [DONE]\n\n", said(&[&text]));
        let relayed = relay(&stack, Reply::sse(stream).trickle(ms(1))).await;
        assert_eq!(relayed.contents, [text]);
    }
}

#[tokio::test]
async fn reasoning_and_what_else_a_delta_holds_passes_on() {
    let stack = Stack::start().await;
    let stream = [
        opening(),
        delta(json!({"reasoning_content": "Let", "content": null})),
        delta(json!({"reasoning_content": " me see"})),
        delta(json!({"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]})),
        delta(json!({"content": "So."})),
        end("stop"),
    ];
    let relayed = relay(&stack, Reply::sse(stream.concat())).await;
    let told: Vec<Value> = relayed.deltas.into_iter().skip(1).filter(|delta| *delta != json!({})).collect();
    assert_eq!(
        told,
        [
            json!({"reasoning_content": "Let", "content": null}),
            json!({"reasoning_content": " me see"}),
            json!({"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}),
            json!({"content": "So."}),
        ]
    );
}

#[tokio::test]
async fn reasoning_reaches_the_caller_while_the_judge_still_thinks() {
    let stack = Stack::start().await;
    let thinks = Reply::stream(&["So."], ms(1)).reasoning("Let me see").stall_after(2);
    stack.provider.model("model-judge").reply(thinks);
    let mut live = stack.ask_stream().open().await;
    let mut thoughts = Vec::new();
    while thoughts.len() < 2 {
        let chunk = live.event().await.unwrap().json();
        thoughts.extend(chunk["choices"][0]["delta"]["reasoning_content"].as_str().map(str::to_owned));
    }
    assert_eq!(thoughts, ["Let ", "me "]);
}

#[tokio::test]
async fn habits_of_providers_are_evened_out() {
    let stack = Stack::start().await;
    let with_role = PIECES.map(|piece| delta(json!({"role": "assistant", "content": piece}))).concat();
    let finished_beside =
        chunk(json!([{"index": 0, "delta": {"content": PIECES[2]}, "finish_reason": "stop"}]), None);
    let empty_finish =
        |piece: &str| chunk(json!([{"index": 0, "delta": {"content": piece}, "finish_reason": ""}]), None);
    let rows = [
        ("the role in every chunk", with_role + &end("stop")),
        ("the finish reason beside the content", said_open(&PIECES[..2]) + &finished_beside),
        ("the finish reason twice", said(&PIECES) + &end("stop")),
        ("an empty finish reason until the end", PIECES.map(empty_finish).concat() + &end("stop")),
        ("a chunk without choices first", chunk(json!([]), None) + &said(&PIECES)),
        ("chunks without what is not said", PIECES.map(bare).concat() + &end("stop")),
    ];
    for (row, stream) in rows {
        let relayed = relay(&stack, Reply::sse(stream + "data: [DONE]\n\n")).await;
        assert_eq!(relayed.contents, PIECES, "{row}");
        assert_eq!(relayed.finish, ["stop"], "{row}");
        assert_eq!((relayed.roles, relayed.done), (1, true), "{row}");
        assert_eq!(relayed.deltas.last(), Some(&json!({})), "{row}: the finish reason comes last");
    }
}

#[tokio::test]
async fn usage_is_read_wherever_a_stream_reports_it() {
    let stack = Stack::start().await;
    let usage = |prompt: u64, completion: u64| {
        Some(
            json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}),
        )
    };
    let piece =
        |index: usize| json!([{"index": 0, "delta": {"content": PIECES[index]}, "finish_reason": null}]);
    let role = json!([{"index": 0, "delta": {"role": "assistant", "content": ""}}]);
    let finish = json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]);
    let rows = [
        ("at the end", said(&PIECES) + &chunk(json!([]), usage(50, 9))),
        ("beside the finish reason", said_open(&PIECES) + &chunk(finish.clone(), usage(50, 9))),
        (
            "in every chunk, growing",
            (0..3).map(|i| chunk(piece(i), usage(50, 3 * (i as u64 + 1)))).collect::<String>() + &end("stop"),
        ),
        ("in the first chunk alone", chunk(role, usage(50, 9)) + &said(&PIECES)),
    ];
    let members = stack.provider.billed_in_all();
    for (row, stream) in rows {
        let before = stack.provider.billed_in_all().total();
        let relayed = relay(&stack, Reply::sse(stream + "data: [DONE]\n\n")).await;
        let panel = stack.provider.billed_in_all().total() - before;
        assert_eq!(relayed.contents, PIECES, "{row}");
        assert_eq!(relayed.usage["total_tokens"], panel + 59, "{row}: {}", relayed.usage);
    }
    assert_eq!(members.total(), 0, "the judge's raw streams are not on the provider's own bill");
}

#[tokio::test]
async fn a_whole_answer_to_a_streaming_call_is_streamed_in_one_piece() {
    let stack = Stack::start().await;
    let whole = |message: Value, finish: &str| {
        let choices = json!([{"index": 0, "message": message, "finish_reason": finish}]);
        let usage = json!({"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59});
        Reply::status(200, json!({"object": "chat.completion", "choices": choices, "usage": usage}))
    };
    let text = relay(&stack, whole(json!({"role": "assistant", "content": TEXT}), "stop")).await;
    assert_eq!((text.contents, text.roles, text.done), (vec![TEXT.to_owned()], 1, true));
    assert_eq!(text.finish, ["stop"]);
    assert_eq!(text.usage["completion_tokens"], 9 + 3);

    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}});
    let calls = whole(json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls");
    let calls = relay(&stack, calls).await;
    assert_eq!((calls.roles, calls.done), (1, true));
    assert_eq!(calls.finish, ["tool_calls"]);
    let mut numbered = call.clone();
    numbered["index"] = json!(0);
    let told: Vec<&Value> = calls.deltas.iter().filter_map(|delta| delta.get("tool_calls")).collect();
    assert_eq!(told, [&json!([numbered])]);
}

#[tokio::test]
async fn what_breaks_a_stream_after_its_first_words_is_one_error_event() {
    let stack = Stack::start().await;
    let begun = opening() + &delta(json!({"content": PIECES[0]}));
    for (row, rest) in breaks() {
        let relayed = relay(&stack, Reply::sse(begun.clone() + &rest)).await;
        assert_eq!(relayed.contents, PIECES[..1], "{row}");
        assert_eq!(relayed.error["code"], "judge_failed", "{row}");
        assert!(!relayed.done && relayed.finish.is_empty(), "{row}");
        assert!(!relayed.error.to_string().contains("db-7"), "{row}");
    }
}

#[tokio::test]
async fn what_breaks_a_stream_before_its_first_words_is_a_failed_judge() {
    let stack = Stack::start().await;
    for (row, rest) in breaks() {
        let relayed = relay(&stack, Reply::sse(opening() + &rest)).await;
        assert_eq!(relayed.outcome, "degraded", "{row}");
        assert_eq!((relayed.contents.concat(), relayed.done), ("one".to_owned(), true), "{row}");
        assert_eq!((relayed.finish, relayed.error), (vec!["stop".to_owned()], Value::Null), "{row}");
    }
}

/// Ends that no stream may have.
fn breaks() -> [(&'static str, String); 6] {
    let error = r#"{"error":{"message":"host db-7 is down","type":"server_error","code":null}}"#;
    [
        ("garbage", "data: {\"choices\": [{\"delta\": {\"con\n\n".to_owned()),
        ("no JSON at all", "data: upstream db-7 timed out\n\ndata: [DONE]\n\n".to_owned()),
        ("an error", format!("data: {error}\n\n")),
        ("an event named error", format!("event: error\ndata: {error}\n\ndata: [DONE]\n\n")),
        ("an end without a finish reason", String::new()),
        ("an end inside an event", "data: {\"choices\":[{\"delta\":{\"content\":\"\n".to_owned()),
    ]
}

/// What a caller made of the judge's stream.
#[derive(Debug, Default)]
struct Relayed {
    outcome: String,
    deltas: Vec<Value>,
    contents: Vec<String>,
    roles: usize,
    finish: Vec<String>,
    usage: Value,
    error: Value,
    done: bool,
}

async fn relay(stack: &Stack, judge: Reply) -> Relayed {
    stack.provider.model("model-judge").reply(judge);
    let answer = stack.ask(json!({"stream": true, "stream_options": {"include_usage": true}})).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut relayed =
        Relayed { outcome: answer.header("x-ensemble-outcome").to_owned(), ..Relayed::default() };
    for event in answer.events() {
        assert!(!relayed.done && relayed.error.is_null(), "something after the end: {}", answer.text());
        relayed.hear(&event);
    }
    relayed
}

impl Relayed {
    fn hear(&mut self, event: &Event) {
        if event.is_done() {
            self.done = true;
            return;
        }
        let mut event = event.json();
        if event.get("error").is_some() {
            self.error = event["error"].take();
            return;
        }
        if !event["usage"].is_null() {
            self.usage = event["usage"].take();
        }
        let Some(choice) = event.pointer_mut("/choices/0") else { return };
        self.finish.extend(choice["finish_reason"].as_str().map(str::to_owned));
        let delta = choice["delta"].take();
        self.roles += usize::from(delta.get("role").is_some());
        self.contents.extend(delta["content"].as_str().filter(|c| !c.is_empty()).map(str::to_owned));
        self.deltas.push(delta);
    }
}

fn chunk(choices: Value, usage: Option<Value>) -> String {
    let mut chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"});
    chunk["choices"] = choices;
    if let Some(usage) = usage {
        chunk["usage"] = usage;
    }
    format!("data: {chunk}\n\n")
}

fn delta(delta: Value) -> String {
    chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), None)
}

fn bare(piece: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"delta": {"content": piece}}]}))
}

fn opening() -> String {
    delta(json!({"role": "assistant", "content": "", "refusal": null}))
}

fn end(reason: &str) -> String {
    chunk(json!([{"index": 0, "delta": {}, "finish_reason": reason}]), None)
}

/// Chunks that say these pieces, and no more.
fn said_open(pieces: &[&str]) -> String {
    pieces.iter().map(|piece| delta(json!({"content": piece}))).collect()
}

/// Chunks that say these pieces and stop.
fn said(pieces: &[&str]) -> String {
    said_open(pieces) + &end("stop")
}
