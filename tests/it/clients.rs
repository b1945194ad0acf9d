//! OpenAI's own SDKs as callers: what they make of our answers is what users see.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use consort_testkit::fetch;
use consort_testkit::provider::{Provider, Received, Reply, Usage};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::stack::{ALIAS, Options, Stack, ms};

pub const PYTHON_SDK: &str = "openai==3.54.0";
pub const NODE_SDK: &str = "openai@7.57.0";
/// What the judge of these tests says, token by token.
const TOKENS: [&str; 4] = ["It", " is", " só", " 🙂."];

#[tokio::test]
async fn the_python_sdk_reads_plain_and_streamed_answers() {
    let stack = Options::new().config("stream: {commit_after_ms: 100, heartbeat_ms: 50}").start().await;
    stack.provider.model("model-a").answer(|asked| {
        let reply = Reply::text("one").usage(Usage::new(10, 1).cached(8));
        if question(asked) == "slowly" { reply.delay(ms(400)) } else { reply }
    });
    let judge = Reply::stream(&TOKENS, ms(1)).usage(Usage::new(50, 4).reasoning(2));
    stack.provider.model("model-judge").reply(judge);
    let said = python("answers", &stack).await;

    let text = TOKENS.concat();
    for plain in [&said["plain"], &said["async"]["plain"], &said["helper"]["completion"]] {
        assert_eq!(plain["model"], ALIAS);
        assert_eq!(plain["choices"][0]["message"]["role"], "assistant");
        assert_eq!(plain["choices"][0]["message"]["content"], *text);
        assert_eq!(plain["choices"][0]["finish_reason"], "stop");
        assert!(plain["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")), "{plain}");
    }
    // Three members of 10 + 1, and the judge.
    let usage = json!({
        "prompt_tokens": 80, "completion_tokens": 7, "total_tokens": 87,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 2},
    });
    for reported in [&said["plain"]["usage"], &said["helper"]["completion"]["usage"]] {
        assert_eq!(without_nulls(reported), usage);
    }
    for streamed in [&said["stream"], &said["async"]["stream"], &said["with_usage"], &said["slowly"]] {
        assert_eq!(streamed["model"], ALIAS);
        assert_eq!(streamed["ids"], 1);
        assert_eq!(streamed["roles"], json!(["assistant"]));
        assert_eq!(streamed["contents"], json!(TOKENS));
        // The role, four tokens, the end.
        assert_eq!(streamed["finish"], json!([null, null, null, null, null, "stop"]));
    }
    assert_eq!(said["stream"]["usages"], json!([null, null, null, null, null, null]));
    assert_eq!(said["with_usage"]["usages"], json!([null, null, null, null, null, null, usage]));
    assert_eq!(said["with_usage"]["last_choices"], 0);
    assert_eq!(said["helper"]["kinds"], json!(["chunk", "content.delta", "content.done"]));
}

#[tokio::test]
async fn the_python_sdk_reads_tool_calls_whole_and_in_pieces() {
    let stack = Stack::start().await;
    let arguments = [r#"{"city": "Köln \"am\" Rhein"}"#, r#"{"city": "Rome"}"#];
    let calls = [("weather", arguments[0]), ("weather", arguments[1])];
    stack.provider.model("model-judge").reply(Reply::tool_calls(&calls));
    let said = python("tools", &stack).await;
    for completion in [&said["plain"], &said["helper"]["completion"]] {
        let choice = &completion["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls");
        for (index, arguments) in arguments.iter().enumerate() {
            let call = &choice["message"]["tool_calls"][index];
            assert_eq!(call["id"], format!("call_{index}"));
            assert_eq!(call["function"]["name"], "weather");
            assert_eq!(call["function"]["arguments"], *arguments);
        }
        assert_eq!(choice["message"]["tool_calls"].as_array().map(Vec::len), Some(2));
    }
    let streamed = &said["stream"];
    let call = |index: usize| json!({"id": format!("call_{index}"), "name": "weather", "arguments": arguments[index]});
    assert_eq!(streamed["calls"], json!([call(0), call(1)]));
    assert_eq!(streamed["finish"].as_array().and_then(|f| f.last()), Some(&json!("tool_calls")));
    let parsed = &said["helper"]["completion"]["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(parsed["parsed_arguments"], json!({"city": "Köln \"am\" Rhein"}));
}

#[tokio::test]
async fn the_python_sdk_repeats_what_cost_nothing_and_never_a_billed_panel() {
    let stack = Stack::start().await;
    let first = Arc::new(Mutex::new(None));
    for model in ["model-a", "model-b", "model-c"] {
        let first = Arc::clone(&first);
        stack.provider.model(model).answer(move |asked| match &*question(asked) {
            "fail" => Reply::error(500, "oops", "server_error", None),
            "be limited" => {
                let run = asked.header("x-request-id").to_owned();
                let mut first = first.lock().unwrap();
                if *first.get_or_insert_with(|| run.clone()) == run {
                    Reply::rate_limited("1")
                } else {
                    Reply::text("one")
                }
            }
            _ => Reply::text("one"),
        });
    }
    stack.provider.model("model-judge").answer(|asked| match asked.json["stream"].as_bool() {
        Some(true) => Reply::stream(&TOKENS, ms(1)).cut_after(2),
        _ => Reply::text("the judge's answer"),
    });
    let said = python("errors", &stack).await;

    let refused = json!({"kind": "BadRequestError", "status": 400, "code": "unsupported_parameter",
        "param": "n", "type": "invalid_request_error"});
    assert_eq!(said["n"], refused);
    for failed in ["fail", "fail_streaming"] {
        let failed = &said[failed];
        assert_eq!((&failed["kind"], &failed["status"]), (&json!("InternalServerError"), &json!(502)));
        assert_eq!(failed["code"], "quorum_not_met");
    }
    let answer = &said["limited"]["answer"];
    assert_eq!(answer["choices"][0]["message"]["content"], "the judge's answer", "{said}");
    // A failure inside a stream has no status of its own: it was 200.
    let broken = &said["broken_off"];
    assert_eq!(broken["contents"], json!(TOKENS[..2]));
    assert_eq!((&broken["kind"], &broken["code"]), (&json!("APIError"), &json!("judge_failed")));

    assert_eq!(runs(&stack.provider, "fail"), 2, "asked twice, each time once");
    assert_eq!(runs(&stack.provider, "be limited"), 2, "refused, and then answered");
    assert_eq!(runs(&stack.provider, "break off"), 1);
    assert_eq!(runs(&stack.provider, "why?"), 0, "refused before anybody was asked");
}

#[tokio::test]
async fn the_python_sdk_hears_the_first_member_live() {
    let stack = Options::new().ensemble("strategy: first, min_responses: 1").start().await;
    stack.provider.model("model-a").reply(Reply::stream(&TOKENS, ms(1)));
    stack.provider.model("model-b").reply(Reply::stall());
    stack.provider.model("model-c").reply(Reply::error(500, "kaboom", "server_error", None));
    let said = python("answers", &stack).await;
    assert_eq!(said["plain"]["choices"][0]["message"]["content"], TOKENS.concat());
    assert_eq!(said["helper"]["completion"]["choices"][0]["message"]["content"], TOKENS.concat());
    assert_eq!(said["stream"]["contents"], json!(TOKENS));
    assert_eq!(said["stream"]["roles"], json!(["assistant"]));
    let usages = said["with_usage"]["usages"].as_array().unwrap();
    assert_eq!(usages.last().unwrap()["total_tokens"], said["plain"]["usage"]["total_tokens"]);
}

#[tokio::test]
async fn the_python_sdk_puts_a_selected_answer_together_as_its_member_said_it() {
    let stack = selecting().await;
    let said = python("selected", &stack).await;
    for (name, member) in members_words() {
        let member = member["choices"][0].clone();
        is_what_the_member_said(name, &said[name]["helper"], &member);
        let streamed = &said[name]["stream"];
        assert_eq!(streamed["roles"], json!(["assistant"]), "{name}");
        let contents: Vec<&str> =
            streamed["contents"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
        assert_eq!(contents.concat(), member["message"]["content"].as_str().unwrap_or_default(), "{name}");
        assert_eq!(contents.len() > 20, name == "long", "{name}: {contents:?}");
    }
}

#[tokio::test]
async fn the_node_sdk_puts_a_selected_answer_together_as_its_member_said_it() {
    let Some(packages) = node_packages().await else { return };
    let stack = selecting().await;
    let said = node("selected", &packages, &stack).await;
    for (name, member) in members_words() {
        is_what_the_member_said(name, &said[name], &member["choices"][0]);
    }
}

/// What the best member says to each question: text that can be cut wrongly, calls side by side, tokens
/// with what they weigh.
fn members_words() -> [(&'static str, Value); 3] {
    let line = "Zwölf \"Boxkämpfer\" 👩‍👩‍👧‍👦🇩🇪👍🏽 e\u{301}\n漢字漢字、かな\\交じり文。\t🙂";
    let long = format!("{}{}", line.repeat(40), "無空白".repeat(200));
    let call = |id: &str, city: &str| {
        let arguments = json!({"city": city}).to_string();
        json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}})
    };
    let calls = json!([call("call_Zx9", "Köln \"am\" Rhein\n"), call("call_a-1", "東京 🗼")]);
    let token = |token: &str| json!({"token": token, "logprob": -0.25, "bytes": token.as_bytes(), "top_logprobs": []});
    let words = "so it is ".repeat(50);
    let logprobs =
        json!({"content": words.split_inclusive(' ').map(token).collect::<Vec<_>>(), "refusal": null});
    let choice = |message: Value, logprobs: Value, finish: &str| {
        json!({
            "id": "theirs", "object": "chat.completion", "created": 1, "model": "model-a-0613",
            "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        })
    };
    let says = |content: Value| json!({"role": "assistant", "content": content, "refusal": null});
    let mut calling = says(Value::Null);
    calling["tool_calls"] = calls;
    [
        ("long", choice(says(json!(long)), Value::Null, "stop")),
        ("tools", choice(calling, Value::Null, "tool_calls")),
        ("logprobs", choice(says(json!(words)), logprobs, "stop")),
    ]
}

/// An ensemble without a judge to speak of: its best member's answer is the caller's.
async fn selecting() -> Stack {
    let stack = Stack::start().await;
    stack.provider.model("model-judge").reply(Reply::error(500, "kaboom", "server_error", None));
    stack.provider.model("model-a").answer(|asked| {
        let question = question(asked);
        let (_, words) = members_words().into_iter().find(|(name, _)| *name == question).unwrap();
        Reply::raw("application/json", words.to_string())
    });
    stack
}

fn is_what_the_member_said(name: &str, accumulated: &Value, member: &Value) {
    let choice = &accumulated["choices"][0];
    assert_eq!(choice["finish_reason"], member["finish_reason"], "{name}");
    assert_eq!(without_nulls(&choice["logprobs"]), without_nulls(&member["logprobs"]), "{name}");
    assert_eq!(choice["message"]["role"], "assistant", "{name}");
    assert_eq!(choice["message"]["content"], member["message"]["content"], "{name}");
    let mut calls = choice["message"]["tool_calls"].clone();
    for call in calls.as_array_mut().into_iter().flatten() {
        // What the SDKs add of their own.
        call.as_object_mut().unwrap().retain(|key, _| key != "index");
        call["function"].as_object_mut().unwrap().retain(|key, _| !key.starts_with("parsed"));
    }
    assert_eq!(calls, member["message"]["tool_calls"], "{name}");
}

#[tokio::test]
async fn the_node_sdk_reads_plain_and_streamed_answers() {
    let Some(packages) = node_packages().await else { return };
    let stack = Stack::start().await;
    stack.provider.model("model-judge").reply(Reply::stream(&TOKENS, ms(1)));
    let said = node("answers", &packages, &stack).await;
    for whole in [&said["plain"], &said["helper"]] {
        assert_eq!(whole["model"], ALIAS);
        assert_eq!(whole["choices"][0]["message"]["content"], TOKENS.concat());
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    }
    let chunks = said["stream"].as_array().unwrap();
    let contents: Vec<_> =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(contents.concat(), TOKENS.concat());
    assert_eq!(chunks.last().unwrap()["usage"], said["plain"]["usage"]);
    let refused = json!({"kind": "BadRequestError", "status": 400, "code": "unsupported_parameter",
        "param": "n", "type": "invalid_request_error"});
    assert_eq!(said["refused"], refused);
}

/// Runs a group of cases of the Python script.
async fn python(group: &str, stack: &Stack) -> Value {
    python_at(group, stack.envoy.addr()).await
}

/// As [`python`], wherever the ensembles are.
pub async fn python_at(group: &str, addr: SocketAddr) -> Value {
    let python = tokio::task::spawn_blocking(|| fetch::python_venv("openai", &[PYTHON_SDK])).await;
    let python = python.unwrap().unwrap_or_else(|error| panic!("{error}"));
    run(python, script("openai_sdk.py"), &[group], addr).await
}

/// Node's packages, where there is an npm to fetch them with.
pub async fn node_packages() -> Option<PathBuf> {
    let fetched = tokio::task::spawn_blocking(|| fetch::npm_dir("openai", &[NODE_SDK])).await;
    let packages = fetched.unwrap().unwrap_or_else(|error| panic!("{error}"));
    if packages.is_none() {
        consort_testkit::lacking(&format!("there is no npm here to fetch {NODE_SDK} with"));
    }
    packages
}

/// Runs a group of cases of the Node script.
async fn node(group: &str, packages: &Path, stack: &Stack) -> Value {
    node_at(group, packages, stack.envoy.addr()).await
}

/// As [`node`], wherever the ensembles are.
pub async fn node_at(group: &str, packages: &Path, addr: SocketAddr) -> Value {
    run("node", script("openai_sdk.mjs"), &[&packages.to_string_lossy(), group], addr).await
}

/// Runs a script with these arguments and the `base_url` to call; what it printed.
async fn run(program: impl AsRef<Path>, script: PathBuf, arguments: &[&str], addr: SocketAddr) -> Value {
    let mut command = Command::new(program.as_ref());
    command.arg(script).args(arguments).arg(base_url(addr));
    // A proxy of the machine is not on the way to loopback, and a key of its user's none of our business.
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{errors}", String::from_utf8_lossy(&output.stdout)))
}

fn base_url(addr: SocketAddr) -> String {
    format!("http://{addr}/v1")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients").join(name)
}

/// What the caller asked.
fn question(asked: &Received) -> String {
    asked.json["messages"][0]["content"].as_str().unwrap_or_default().to_owned()
}

/// How many runs asked a member this: repeated attempts within a run have its request id.
fn runs(provider: &Provider, text: &str) -> usize {
    let asked = provider.requests_for("model-a").into_iter().filter(|asked| question(asked) == text);
    asked.map(|asked| asked.header("x-request-id").to_owned()).collect::<HashSet<_>>().len()
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        value => value.clone(),
    }
}
