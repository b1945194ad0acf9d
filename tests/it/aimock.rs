//! Provider surfaces that nobody here wrote: each adapter reads what `@copilotkit/aimock` makes of the same fixtures.

use std::process::Stdio;

use consort_testkit::fetch;
use consort_testkit::http;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::adapters::said;
use crate::stack::{CHAT, Options, Stack};

const AIMOCK: &str = "@copilotkit/aimock@1.43.0";

/// The mock, which ends with its standard input.
struct Aimock {
    _process: Child,
    url: String,
}

impl Aimock {
    /// Where there is an npm to fetch it with.
    async fn start() -> Option<Self> {
        let fetched = tokio::task::spawn_blocking(|| fetch::npm_dir("aimock", &[AIMOCK])).await;
        let Some(packages) = fetched.unwrap().unwrap_or_else(|error| panic!("{error}")) else {
            consort_testkit::lacking(&format!("there is no npm here to fetch {AIMOCK} with"));
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients/aimock.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(packages).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = loop {
            let line = lines.next_line().await.unwrap().expect("aimock prints its address");
            if line.starts_with("http://") {
                break line;
            }
        };
        Some(Self { _process: process, url })
    }

    /// Ensembles of one model each, by the surface that it is asked on.
    async fn stack(&self) -> Stack {
        let url = self.url.clone();
        let options = Options::new().whole(move |_| {
            format!(
                "listen: {{ext_proc: '127.0.0.1:0'}}
providers:
- {{name: openai, base_url: '{url}/v1', api_key: k}}
- {{name: anthropic, adapter: anthropic, base_url: '{url}/v1', api_key: k}}
- {{name: gemini, adapter: gemini, base_url: '{url}/v1beta', api_key: k}}
models:
- {{display_name: o, provider: openai, model_name: gpt-4o}}
- {{display_name: c, provider: anthropic, model_name: claude-sonnet-4-5}}
- {{display_name: g, provider: gemini, model_name: gemini-2.5-flash}}
- {{display_name: by-openai, ensemble: {{panel: [{{model: o}}], strategy: first}}}}
- {{display_name: by-anthropic, ensemble: {{panel: [{{model: c}}], strategy: first}}}}
- {{display_name: by-gemini, ensemble: {{panel: [{{model: g}}], strategy: first}}}}
"
            )
        });
        options.start().await
    }
}

fn user(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

/// What is said, without what differs from call to call.
fn words(said: &Value) -> Value {
    let message = &said["message"];
    let calls: Vec<&Value> =
        message["tool_calls"].as_array().into_iter().flatten().map(|call| &call["function"]).collect();
    let content = message["content"].as_str().unwrap_or_default();
    json!({"content": content, "calls": calls, "finish": said["finish"]})
}

#[tokio::test]
async fn what_aimock_says_is_the_same_on_each_surface() {
    let Some(aimock) = Aimock::start().await else { return };
    let stack = aimock.stack().await;
    let tool = |name: &str| {
        let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    };
    let tools = json!([tool("weather"), tool("clock")]);
    let calls = json!([
        {"name": "weather", "arguments": "{\"city\":\"Köln\",\"days\":2}"}, {"name": "clock", "arguments": "{}"},
    ]);
    let mut weather = user("the weather?");
    weather["tools"] = tools.clone();
    let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    let continued = json!({"tools": tools, "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "the weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call("c1", "weather"), call("c2", "clock")]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 °C"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
    ]});
    for (asked, expected) in [
        (user("plain"), json!({"content": "Hello, só 🙂.", "calls": [], "finish": "stop"})),
        (user("think"), json!({"content": "So it is — só 🙂.", "calls": [], "finish": "stop"})),
        (weather, json!({"content": "", "calls": calls, "finish": "tool_calls"})),
        (continued, json!({"content": "It is 21 °C in Köln.", "calls": [], "finish": "stop"})),
    ] {
        for alias in ["by-openai", "by-anthropic", "by-gemini"] {
            for stream in [false, true] {
                let mut body = asked.clone();
                body["model"] = alias.into();
                body["max_tokens"] = 1000.into();
                if stream {
                    body["stream"] = true.into();
                    body["stream_options"] = json!({"include_usage": true});
                }
                let said = said(&http::post(stack.envoy.addr(), CHAT).json(&body).send().await);
                assert_eq!(words(&said), expected, "{alias}, streamed: {stream}: {said}");
                assert!(said["usage"]["completion_tokens"].as_u64().is_some(), "{alias}: {said}");
                let thought = &said["message"]["reasoning_content"];
                let thinks = alias != "by-openai" && asked["messages"][0]["content"] == "think";
                assert!(!thinks || *thought == "Let me see.", "{said}");
            }
        }
    }
    for alias in ["by-anthropic", "by-gemini"] {
        let mut refused = user("fail");
        refused["model"] = alias.into();
        let answer = http::post(stack.envoy.addr(), CHAT).json(&refused).send().await;
        assert_eq!(answer.status, 400, "{alias}: {}", answer.text());
        assert!(answer.text().contains("prompt is too long"), "{alias}: {}", answer.text());
    }
}
