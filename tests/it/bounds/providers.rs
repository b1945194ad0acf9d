//! What providers can make large.

use consort_testkit::provider::Reply;
use serde_json::{Value, json};

use crate::stack::{Options, Stack};

/// How many of three members were usable, of which the first said this.
async fn usable(stack: &Stack, said: Reply) -> u8 {
    stack.provider.model("model-a").reply(said);
    let answer = stack.ask(json!({})).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-ensemble-responses").parse().expect("a number")
}

fn message(message: &str) -> Reply {
    let body = format!(r#"{{"choices":[{{"message":{message},"finish_reason":"stop"}}]}}"#);
    Reply::raw("application/json", body)
}

#[tokio::test]
async fn a_server_sent_event_may_be_as_large_as_the_bound_and_not_a_byte_larger() {
    let bound = Options::new().ensemble("on_judge_failure: fail").config("limits: {max_event_bytes: 20000}");
    let stack = bound.start().await;
    let frame = |content: &str| format!(r#"data: {{"choices":[{{"delta":{{"content":"{content}"}}}}]}}"#);
    let ask = async |bytes: usize| {
        let line = frame(&"x".repeat(bytes - frame("").len()));
        let events = format!("{line}\n\ndata: [DONE]\n\n");
        stack.provider.model("model-judge").reply(Reply::sse(events));
        stack.ask_stream().send().await
    };
    let answer = ask(20_000).await;
    assert!(answer.status == 200 && answer.text().contains("xxx"), "{}", answer.status);
    let answer = ask(20_001).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (502, &json!("judge_failed")));
    // Lines that say nothing are lines.
    let line = format!(": {}\n\n{}\n\ndata: [DONE]\n\n", "x".repeat(20_000), frame("y"));
    stack.provider.model("model-judge").reply(Reply::sse(line));
    assert_eq!(stack.ask_stream().send().await.status, 502);
}

#[tokio::test]
async fn the_head_of_a_response_is_bounded_in_fields_and_in_bytes() {
    let stack = Stack::start().await;
    // With `content-type`, `content-length` and `date`.
    let fields = |count: usize| {
        (3..count).fold(Reply::text("one"), |reply, i| reply.header(&format!("x-field-{i}"), "x"))
    };
    assert_eq!(usable(&stack, fields(100)).await, 3, "up to the bound");
    assert_eq!(usable(&stack, fields(101)).await, 2, "one past it");
    let long = |bytes: usize| Reply::text("one").header("x-long", &"x".repeat(bytes));
    assert_eq!(usable(&stack, long(390_000)).await, 3);
    // It is read in pieces, of which the last one may be more.
    assert_eq!(usable(&stack, long(900_000)).await, 2);
}

#[tokio::test]
async fn a_message_has_as_many_tool_calls_as_are_held_and_one_past_that_is_none() {
    let stack = Stack::start().await;
    let call = json!({"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let calls = |count: usize| message(&json!({"tool_calls": vec![&call; count]}).to_string());
    assert_eq!(usable(&stack, calls(1024)).await, 3);
    assert_eq!(usable(&stack, calls(1025)).await, 2);
    // The shortest ones there are: none of them takes memory.
    let empty = format!(r#"{{"tool_calls":[{}{{}}]}}"#, "{},".repeat(8_000_000));
    assert_eq!(usable(&stack, message(&empty)).await, 2);
    assert!(peak_mib(&stack) < 400, "{} MiB", peak_mib(&stack));
}

#[tokio::test]
async fn the_first_choice_is_held_and_no_other() {
    let stack = Stack::start().await;
    let first = r#"{"message":{"content":"one"},"finish_reason":"stop"}"#;
    let many = format!(r#"{{"choices":[{first}{}]}}"#, r#",{"message":1}"#.repeat(2_000_000));
    assert_eq!(usable(&stack, Reply::raw("application/json", many)).await, 3);
    assert!(peak_mib(&stack) < 250, "{} MiB", peak_mib(&stack));
}

/// The most that Consort has ever held, in MiB.
fn peak_mib(stack: &Stack) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stack.service.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[tokio::test]
async fn deep_json_is_followed_without_a_stack_and_read_to_a_depth() {
    let stack = Stack::start().await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let vendors = |depth| message(&format!(r#"{{"content":"one","x_vendor":{}}}"#, nested(depth)));
    assert_eq!(usable(&stack, vendors(1_000_000)).await, 3, "nobody looks into it");
    // An answer that is to be JSON is looked into.
    let ask = async |depth: usize| {
        let text = Value::from(format!(r#"{{"x":{}}}"#, nested(depth - 1)));
        stack.provider.model("model-a").reply(message(&format!(r#"{{"content":{text}}}"#)));
        for name in ["model-b", "model-c"] {
            stack.provider.model(name).reply(Reply::text("{}"));
        }
        stack.provider.model("model-judge").reply(Reply::text("{}"));
        let schema = json!({"name": "any", "schema": {"type": "object"}});
        let format = json!({"response_format": {"type": "json_schema", "json_schema": schema}});
        let answer = stack.ask(format).send().await;
        answer.header("x-ensemble-responses").to_owned()
    };
    assert_eq!(ask(127).await, "3", "up to the bound");
    assert_eq!(ask(128).await, "2", "one past it");
}

#[tokio::test]
async fn a_response_may_be_as_large_as_the_bound_and_not_a_byte_larger() {
    let stack = Options::new().config("limits: {max_response_bytes: 20000}").start().await;
    let sized = |bytes: usize| {
        let body = |text: &str| format!(r#"{{"choices":[{{"message":{{"content":"{text}"}}}}]}}"#);
        Reply::raw("application/json", body(&"x".repeat(bytes - body("").len())))
    };
    assert_eq!(usable(&stack, sized(20_000)).await, 3);
    assert_eq!(usable(&stack, sized(20_001)).await, 2);
}

#[tokio::test]
async fn an_error_is_read_to_its_bound_and_no_further() {
    let alone = "- {display_name: alone, ensemble: {panel: [{model: a}], strategy: first}}";
    let stack = Options::new().models(alone).start().await;
    let ask = async |bytes: usize| {
        let body = |message: &str| json!({"error": {"message": message, "type": "invalid_request_error"}});
        let message = format!("too long {}", "x".repeat(bytes - body("too long ").to_string().len()));
        stack.provider.model("model-a").reply(Reply::status(400, body(&message)));
        let answer = stack.ask(json!({"model": "alone"})).send().await;
        assert_eq!(answer.status.as_u16(), 400, "{}", answer.text());
        answer.json()["error"]["message"].as_str().is_some_and(|told| told.starts_with("too long"))
    };
    assert!(ask(64 << 10).await, "it is read whole, and its message told");
    // What is read comes in pieces, of which the last one may be more.
    assert!(!ask(256 << 10).await, "what was cut off tells nothing");
}
