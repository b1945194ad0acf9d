//! Short tokens in great number: what a caller or a provider sends stays, in memory, a small multiple of its bytes.

use std::net::SocketAddr;

use consort_testkit::http;
use consort_testkit::service::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::stack::{CHAT, ONE_ATTEMPT, ms};

const MIB: usize = 1 << 20;
/// How large what is sent is.
const SENT: usize = 16 * MIB;
/// How much may be held for each byte that is sent; a text of as many bytes takes nearly as much.
const TIMES: usize = 6;
/// How much a process grows by when it does anything for the first time.
const GROWTH: usize = 36 * MIB;

/// A provider that says the same to everybody, in whatever words it is asked.
struct Parrot {
    addr: SocketAddr,
    speaks: JoinHandle<()>,
}

impl Parrot {
    async fn start(content_type: &'static str, says: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("it is bound");
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            says.len()
        );
        let speaks = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, &head, &says).await;
            }
        });
        Self { addr, speaks }
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.speaks.abort();
    }
}

/// Takes one request, of whatever length, and answers it.
async fn answer(mut stream: TcpStream, head: &str, says: &str) {
    let mut request = Vec::new();
    let end = loop {
        if stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
            if let Some(end) = request.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
        } else {
            return;
        }
    };
    let fields = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = fields.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut left = length.expect("a length").parse::<usize>().expect("a number") - (request.len() - end);
    let mut piece = vec![0; 64 << 10];
    while left > 0 {
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => left -= read,
            _ => return,
        }
    }
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(says.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Consort before such a provider, by each adapter: `by-openai`, `by-anthropic`, `by-gemini`; `voted` has a condition
/// and compares answers.
async fn consort(provider: &Parrot) -> Service {
    let (addr, fields) = (provider.addr, ONE_ATTEMPT);
    let provider =
        |name| format!("{{name: {name}, adapter: {name}, base_url: 'http://{addr}/v1', api_key: x}}");
    let model = |name| format!("{{display_name: {name}-model, provider: {name}, model_name: m, {fields}}}");
    let by = |name| {
        format!(
            "{{display_name: by-{name}, ensemble: {{panel: [{{model: {name}-model}}], strategy: first, \
             reasoning: drop}}}}"
        )
    };
    let names = ["openai", "anthropic", "gemini"];
    let config = format!(
        "listen: {{ext_proc: '127.0.0.1:0', http: '127.0.0.1:0'}}
providers: [{}]
models: [{}, {},
  {{display_name: voted, ensemble: {{panel: [{{model: openai-model}}], strategy: vote,
    when: 'request.messages > 0 && request.prompt_chars >= 0', otherwise: openai-model}}}}]
decisions: {{include_content: true}}
",
        names.map(provider).join(", "),
        names.map(model).join(", "),
        names.map(by).join(", "),
    );
    Service::start(env!("CARGO_BIN_EXE_consort"), &config).await
}

/// A body of about [`SENT`] bytes: as many of `item` between `before` and `after` as there is room for.
fn crowded(before: &str, item: &str, after: &str) -> String {
    let items = vec![item; SENT / (item.len() + 1)].join(",");
    format!("{before}{items}{after}")
}

/// What Consort holds now, and the most that it has ever held, in bytes.
fn held(service: &Service) -> [usize; 2] {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id())).expect("it runs");
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    })
}

async fn ask(service: &Service, body: String) -> http::Answer {
    let call = http::post(service.http(), CHAT).header("content-type", "application/json").body(body);
    call.patience(ms(120_000)).send().await
}

/// By how much Consort grows, at its peak, while it is asked this.
async fn growth(service: &Service, body: String) -> usize {
    let [before, _] = held(service);
    ask(service, body).await;
    let [_, peak] = held(service);
    peak - before
}

fn assert_small(grown: &[(String, usize)]) {
    let most = TIMES * SENT + GROWTH;
    let told: Vec<String> =
        grown.iter().map(|(what, bytes)| format!("{what}: {} MiB", bytes / MIB)).collect();
    let large = grown.iter().filter(|(_, bytes)| *bytes > most).count();
    assert!(large == 0, "{large} of them take more than {} MiB:\n{}", most / MIB, told.join("\n"));
}

const OPENAI_SAYS: &str = r#"{"choices":[{"message":{"content":"{}"},"finish_reason":"stop"}]}"#;
const ANTHROPIC_SAYS: &str = r#"{"content":[{"type":"text","text":"{}"}],"stop_reason":"end_turn"}"#;
const GEMINI_SAYS: &str = r#"{"candidates":[{"content":{"parts":[{"text":"{}"}]},"finishReason":"STOP"}]}"#;

/// Crowds that a caller may send to whom compares answers: what stands before them, one of them, what stands behind.
const COMPARED: [(&str, &str, &str, &str); 10] = [
    ("a text", r#""user":""#, "why", "\""),
    ("a schema", r#""response_format":{"type":"json_schema","json_schema":{"schema":["#, "0", "]}}"),
    (
        "a schema's objects",
        r#""response_format":{"type":"json_schema","json_schema":{"schema":["#,
        r#"{"a":0}"#,
        "]}}",
    ),
    (
        "a schema's pattern",
        r#""response_format":{"type":"json_schema","json_schema":{"schema":{"pattern":""#,
        "a",
        "\"}}}",
    ),
    ("modalities", r#""modalities":["#, r#""text""#, "]"),
    ("tools", r#""tools":["#, "0", "]"),
    ("a choice of tools", r#""tools":[{"function":{"name":"f"}}],"tool_choice":["#, "0", "]"),
    (
        "a tool's defaults",
        r#""tools":[{"function":{"name":"f","parameters":{"default":["#,
        r#"{"a":0}"#,
        "]}}}]",
    ),
    ("messages that are none", r#""messages":["#, "0", "]"),
    ("parts that are none", r#""messages":[{"role":"user","content":["#, "{}", "]}]"),
];

/// Those of requests that are put in other words.
const TOLD: [(&str, &str, &str, &str); 12] = [
    ("a text", r#""user":""#, "why", "\""),
    (
        "a schema's objects",
        r#""response_format":{"type":"json_schema","json_schema":{"schema":["#,
        r#"{"a":0}"#,
        "]}}",
    ),
    (
        "a tool's defaults",
        r#""tools":[{"function":{"name":"f","parameters":{"default":["#,
        r#"{"a":0}"#,
        "]}}}]",
    ),
    ("an unknown field", r#""x":["#, "0", "]"),
    ("ends", r#""stop":["#, r#""""#, "]"),
    ("functions", r#""functions":["#, r#"{"name":"f"}"#, "]"),
    ("biases", r#""logit_bias":{"0":["#, "0", "]}"),
    ("messages", r#""messages":["#, r#"{"role":"user"}"#, "]"),
    (
        "calls",
        r#""messages":[{"role":"assistant","tool_calls":["#,
        r#"{"id":"","function":{"name":""}}"#,
        "]}]",
    ),
    ("parts", r#""messages":[{"role":"user","content":["#, r#"{"type":"text","text":"a"}"#, "]}]"),
    (
        "arguments",
        r#""messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"a\":["#,
        "0",
        r#"]}"}}]}]"#,
    ),
    (
        "a result",
        r#""messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f"}}]},{"role":"tool","tool_call_id":"a","content":"{\"a\":["#,
        "0",
        r#"]}"}]"#,
    ),
];

/// A question to `alias` with further fields.
fn question(alias: &str, fields: &str) -> String {
    let asks = r#""messages":[{"role":"user","content":"why?"}],"#;
    let asks = if fields.starts_with(r#""messages""#) { "" } else { asks };
    format!(r#"{{"model":"{alias}",{asks}{fields}}}"#)
}

/// By how much Consort grows by each crowd that a caller sends to this alias.
async fn by_requests(alias: &str, crowds: &[(&str, &str, &str, &str)], says: &str) {
    let mut grown = Vec::new();
    for (what, before, item, after) in crowds {
        let provider = Parrot::start("application/json", says.to_owned()).await;
        let service = consort(&provider).await;
        ask(&service, question(alias, r#""n":1"#)).await;
        let body = question(alias, &crowded(before, item, after));
        grown.push((format!("{alias}, {what}"), growth(&service, body).await));
    }
    assert_small(&grown);
}

#[tokio::test]
async fn what_a_caller_sends_takes_a_small_multiple_of_its_bytes() {
    by_requests("voted", &COMPARED, OPENAI_SAYS).await;
}

#[tokio::test]
async fn the_patterns_of_a_schema_take_no_more_than_they_may() {
    let provider = Parrot::start("application/json", OPENAI_SAYS.to_owned()).await;
    let service = consort(&provider).await;
    let patterns =
        (100..130).map(|n| format!(r#"{{"pattern":"\\p{{L}}{{{n}}}"}}"#)).collect::<Vec<_>>().join(",");
    let format = format!(r#"{{"type":"json_schema","json_schema":{{"schema":{{"anyOf":[{patterns}]}}}}}}"#);
    let grown = growth(&service, question("voted", &format!(r#""response_format":{format}"#))).await;
    assert!(grown < GROWTH + 32 * MIB, "{} MiB", grown / MIB);
}

#[tokio::test]
async fn what_a_caller_sends_to_anthropic_takes_a_small_multiple_of_its_bytes() {
    by_requests("by-anthropic", &TOLD, ANTHROPIC_SAYS).await;
}

#[tokio::test]
async fn what_a_caller_sends_to_gemini_takes_a_small_multiple_of_its_bytes() {
    by_requests("by-gemini", &TOLD, GEMINI_SAYS).await;
}

/// Crowds that a provider may send whole.
const ANSWERS: [(&str, &str, &str, &str, &str); 23] = [
    ("by-openai", "a text", r#"{"choices":[{"message":{"content":""#, "why", r#""}}]}"#),
    ("by-openai", "choices", r#"{"choices":[{"message":{"content":"a"}},"#, "0", "]}"),
    ("by-openai", "parts", r#"{"choices":[{"message":{"content":["#, "{}", "]}}]}"),
    (
        "by-openai",
        "parts that think",
        r#"{"choices":[{"message":{"content":["#,
        r#"{"type":"thinking"}"#,
        r#",{"text":"a"}]}}]}"#,
    ),
    (
        "by-openai",
        "a call of old",
        r#"{"choices":[{"message":{"function_call":["#,
        "{}",
        r#"]},"finish_reason":"length"}]}"#,
    ),
    (
        "voted",
        "a call of old",
        r#"{"choices":[{"message":{"function_call":["#,
        "{}",
        r#"]},"finish_reason":"stop"}]}"#,
    ),
    (
        "by-openai",
        "usage",
        r#"{"choices":[{"message":{"content":"a"}}],"usage":{"#,
        r#""total_tokens":0"#,
        "}}",
    ),
    (
        "by-openai",
        "usage of a usage",
        r#"{"choices":[{"message":{"content":"a"}}],"usage":{"a":["#,
        "{}",
        "]}}",
    ),
    (
        "by-openai",
        "JSON",
        r#"{"choices":[{"message":{"content":"{\"a\":["#,
        "0",
        r#"]}"},"finish_reason":"stop"}]}"#,
    ),
    (
        "by-openai",
        "JSON of objects",
        r#"{"choices":[{"message":{"content":"{\"a\":["#,
        r#"{\"a\":0}"#,
        r#"]}"},"finish_reason":"stop"}]}"#,
    ),
    (
        "by-openai",
        "log probabilities",
        r#"{"choices":[{"message":{"content":"a"},"logprobs":{"content":["#,
        "{}",
        "]}}]}",
    ),
    (
        "by-anthropic",
        "a text",
        r#"{"content":[{"type":"text","text":""#,
        "why",
        r#""}],"stop_reason":"end_turn"}"#,
    ),
    ("by-anthropic", "blocks", r#"{"content":["#, r#"{"type":"x"}"#, r#"],"stop_reason":"end_turn"}"#),
    (
        "by-anthropic",
        "texts",
        r#"{"content":["#,
        r#"{"type":"text","text":""}"#,
        r#"],"stop_reason":"end_turn"}"#,
    ),
    (
        "by-anthropic",
        "an unknown block",
        r#"{"content":[{"type":"x","x":["#,
        "0",
        r#"]},{"type":"text","text":"a"}]}"#,
    ),
    (
        "by-anthropic",
        "a call",
        r#"{"content":[{"type":"tool_use","id":"a","name":"f","input":{"a":["#,
        "0",
        r#"]}}],"stop_reason":"tool_use"}"#,
    ),
    (
        "by-gemini",
        "a text",
        r#"{"candidates":[{"content":{"parts":[{"text":""#,
        "why",
        r#""}]},"finishReason":"STOP"}]}"#,
    ),
    (
        "by-gemini",
        "candidates",
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"},"#,
        "{}",
        "]}",
    ),
    ("by-gemini", "parts", r#"{"candidates":[{"content":{"parts":["#, "{}", r#"]},"finishReason":"STOP"}]}"#),
    (
        "by-gemini",
        "a call",
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":["#,
        "0",
        r#"]}}}]},"finishReason":"STOP"}]}"#,
    ),
    (
        "by-gemini",
        "tokens",
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"logprobsResult":{"chosenCandidates":["#,
        "{}",
        "]}}]}",
    ),
    (
        "by-gemini",
        "a token",
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"logprobsResult":{"chosenCandidates":[{"token":""#,
        "a",
        "\"}]}}]}",
    ),
    (
        "by-gemini",
        "likely tokens",
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"logprobsResult":{"chosenCandidates":[{"token":"a"}],"topCandidates":["#,
        "{}",
        "]}}]}",
    ),
];

#[tokio::test]
async fn what_a_provider_answers_takes_a_small_multiple_of_its_bytes() {
    let mut grown = Vec::new();
    for (alias, what, before, item, after) in ANSWERS {
        let provider = Parrot::start("application/json", crowded(before, item, after)).await;
        let service = consort(&provider).await;
        let mut fields = r#""response_format":{"type":"text"}"#;
        if what.starts_with("JSON") {
            fields = r#""response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}"#;
        } else if alias == "voted" {
            fields = r#""tools":[{"function":{"name":"f"}}]"#;
        }
        grown.push((format!("{alias}, {what}"), growth(&service, question(alias, fields)).await));
    }
    assert_small(&grown);
}

/// Crowds that a provider may send in the events of a stream, of which each is as large as the bound on them allows.
const EVENTS: [(&str, &str, &str, &str, &str); 7] = [
    ("by-openai", "a vendor's field", r#"{"choices":[{"delta":{"content":"a","x":["#, "0", "]}}]}"),
    (
        "by-openai",
        "a vendor's objects",
        r#"{"choices":[{"delta":{"content":"a","x":["#,
        r#"{"a":0}"#,
        "]}}]}",
    ),
    (
        "by-openai",
        "log probabilities",
        r#"{"choices":[{"delta":{"content":"a"},"logprobs":{"content":["#,
        "{}",
        "]}}]}",
    ),
    ("by-openai", "choices", r#"{"choices":[{"delta":{"content":"a"}},"#, "0", "]}"),
    ("by-anthropic", "an unknown event", r#"{"type":"x","x":["#, "0", "]}"),
    (
        "by-anthropic",
        "an unknown block",
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"x","x":["#,
        "0",
        "]}}",
    ),
    ("by-gemini", "parts", r#"{"candidates":[{"content":{"parts":["#, "{}", "]}}]}"),
];

#[tokio::test]
async fn what_a_provider_streams_takes_a_small_multiple_of_its_bytes() {
    let mut grown = Vec::new();
    for (alias, what, before, item, after) in EVENTS {
        let items = SENT / 3 / (item.len() + 1);
        let event = format!("data: {before}{}{after}\n\n", vec![item; items].join(","));
        let provider = Parrot::start("text/event-stream", event.repeat(3)).await;
        let service = consort(&provider).await;
        let body = question(alias, r#""stream":true"#);
        grown.push((format!("{alias}, {what}"), growth(&service, body).await));
    }
    assert_small(&grown);
}
