//! A scripted Messages API, as strict as Anthropic's own: what it is sent that the real one refuses fails the test.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::listen::{Body, Server, whole};

/// All fields that a request may have.
const FIELDS: [&str; 14] = [
    "model",
    "messages",
    "max_tokens",
    "system",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "metadata",
    "output_config",
];

/// The server.
#[derive(Debug)]
pub struct Anthropic {
    server: Server,
    shared: Arc<Shared>,
}

/// What it answers.
#[derive(Clone, Debug)]
pub enum Says {
    /// A message of these blocks, whole or streamed as it was asked for.
    Blocks {
        /// Its content.
        blocks: Vec<Value>,
        /// Why it ends.
        stop_reason: &'static str,
        /// Its `usage`.
        usage: Value,
    },
    /// An error with this status and type, and with these headers.
    Error(u16, &'static str, &'static str, Vec<(&'static str, &'static str)>),
    /// A stream of exactly these bytes.
    Stream(String),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub json: Value,
}

type Script = Arc<dyn Fn(&Value) -> Says + Send + Sync>;

struct Shared {
    key: String,
    state: Mutex<State>,
}

struct State {
    script: Script,
    heard: Vec<Heard>,
    violations: Vec<String>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Anthropic {
    /// Listens on a port of the loopback interface; `x-api-key` has to be `key`.
    pub async fn start(key: &str) -> Self {
        let state =
            State { script: Arc::new(|_| Says::text("Hello.")), heard: Vec::new(), violations: Vec::new() };
        let shared = Arc::new(Shared { key: key.to_owned(), state: Mutex::new(state) });
        let (for_requests, for_others) = (Arc::clone(&shared), Arc::clone(&shared));
        let respond = move |request, _peer| respond(Arc::clone(&for_requests), request);
        let malformed = move |what: String| for_others.lock().violations.push(what);
        let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), respond, malformed).await;
        Self { server: server.expect("a free port"), shared }
    }

    /// The `base_url` of an `anthropic` provider.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.server.addr)
    }

    /// Answers by a function of the request's body.
    pub fn answer(&self, script: impl Fn(&Value) -> Says + Send + Sync + 'static) {
        self.shared.lock().script = Arc::new(script);
    }

    /// Everything that was received.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.lock().heard.clone()
    }
}

impl Drop for Anthropic {
    fn drop(&mut self) {
        let violations = &self.shared.lock().violations;
        if !std::thread::panicking() && !violations.is_empty() {
            panic!("Anthropic was sent what the real one refuses: {violations:#?}");
        }
    }
}

impl Says {
    /// A text.
    pub fn text(text: &str) -> Self {
        let usage = json!({"input_tokens": 10, "output_tokens": 2});
        Self::Blocks { blocks: vec![json!({"type": "text", "text": text})], stop_reason: "end_turn", usage }
    }
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    shared.lock().heard.push(Heard { headers: head.headers.clone(), json: json.clone() });
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wrong = if head.method != "POST" || head.uri.path() != "/v1/messages" {
        Some(format!("{} {}", head.method, head.uri))
    } else if header("x-api-key") != shared.key || head.headers.contains_key("authorization") {
        Some("x-api-key, and no authorization".to_owned())
    } else if header("anthropic-version") != "2023-06-01" || header("content-type") != "application/json" {
        Some("anthropic-version and content-type".to_owned())
    } else {
        fault(&json)
    };
    if let Some(wrong) = wrong {
        shared.lock().violations.push(format!("{wrong}: {json}"));
        return answer(400, &[], "application/json", error("invalid_request_error", &wrong));
    }
    let script = Arc::clone(&shared.lock().script);
    match script(&json) {
        Says::Error(status, kind, message, headers) => {
            answer(status, &headers, "application/json", error(kind, message))
        }
        Says::Stream(text) => answer(200, &[], "text/event-stream; charset=utf-8", text),
        Says::Blocks { blocks, stop_reason, usage } if json["stream"] == true => {
            answer(200, &[], "text/event-stream; charset=utf-8", stream(&blocks, stop_reason, &usage))
        }
        Says::Blocks { blocks, stop_reason, usage } => {
            let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": json["model"],
                "content": blocks, "stop_reason": stop_reason, "stop_sequence": null, "usage": usage});
            answer(200, &[], "application/json", message.to_string())
        }
    }
}

fn error(kind: &str, message: &str) -> String {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).to_string()
}

fn answer(status: u16, headers: &[(&str, &str)], kind: &str, body: String) -> io::Result<Response<Body>> {
    let mut response = Response::builder().status(status).header(CONTENT_TYPE, kind);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(whole(body)).map_err(io::Error::other)
}

/// The events of a message; texts and inputs come in pieces.
fn stream(blocks: &[Value], stop_reason: &str, usage: &Value) -> String {
    let mut first = usage.clone();
    first["output_tokens"] = 1.into();
    let mut events = vec![json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "content": [], "stop_reason": null, "usage": first}})];
    for (index, block) in blocks.iter().enumerate() {
        let (kind, name, field, text) = match &block["type"] {
            kind if kind == "text" => ("text", "text_delta", "text", text_of(&block["text"])),
            kind if kind == "thinking" => {
                ("thinking", "thinking_delta", "thinking", text_of(&block["thinking"]))
            }
            _ => ("tool_use", "input_json_delta", "partial_json", block["input"].to_string()),
        };
        let mut begins = block.clone();
        begins[if kind == "tool_use" { "input" } else { field }] =
            if kind == "tool_use" { json!({}) } else { json!("") };
        events.push(json!({"type": "content_block_start", "index": index, "content_block": begins}));
        events.push(json!({"type": "ping"}));
        let letters: Vec<char> = text.chars().collect();
        for piece in letters.chunks(7) {
            let piece: String = piece.iter().collect();
            events.push(json!({"type": "content_block_delta", "index": index,
                "delta": {"type": name, field: piece}}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events
        .push(json!({"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": null},
        "usage": {"output_tokens": usage["output_tokens"]}}));
    events.push(json!({"type": "message_stop"}));
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", text_of(&event["type"]));
    events.iter().map(event).collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the real API would refuse.
fn fault(json: &Value) -> Option<String> {
    let fields = json.as_object()?;
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Some(format!("{unknown}: extra inputs are not permitted"));
    }
    let max_tokens = json["max_tokens"].as_u64().unwrap_or_default();
    if max_tokens == 0 || !json["model"].is_string() {
        return Some("max_tokens and model are required".to_owned());
    }
    if !json["temperature"].is_null()
        && !json["temperature"].as_f64().is_some_and(|t| (0.0..=1.0).contains(&t))
    {
        return Some("temperature: 0 to 1".to_owned());
    }
    let budget = json["thinking"]["budget_tokens"].as_u64();
    if budget.is_some_and(|budget| budget < 1024 || budget >= max_tokens) {
        return Some("thinking.budget_tokens: at least 1024 and below max_tokens".to_owned());
    }
    if !json["tool_choice"].is_null() && json["tools"].as_array().is_none_or(Vec::is_empty) {
        return Some("tool_choice: only with tools".to_owned());
    }
    let tools = json["tools"].as_array();
    if tools.into_iter().flatten().any(|tool| tool["input_schema"]["type"] != "object") {
        return Some("tools: input_schema".to_owned());
    }
    let messages = json["messages"].as_array().filter(|messages| !messages.is_empty());
    let Some(messages) = messages else { return Some("messages: at least one".to_owned()) };
    let mut open: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        if message["role"] != ["user", "assistant"][at % 2] {
            return Some(format!("messages.{at}: roles must alternate, from user"));
        }
        let blocks = message["content"].as_array().filter(|blocks| !blocks.is_empty());
        let Some(blocks) = blocks else { return Some(format!("messages.{at}: content is empty")) };
        let answered: Vec<&str> = blocks.iter().filter_map(|block| block["tool_use_id"].as_str()).collect();
        if answered.len() != open.len() || open.iter().any(|id| !answered.contains(id)) {
            return Some(format!("messages.{at}: each tool_use needs its tool_result right behind it"));
        }
        open = blocks
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .filter_map(|b| b["id"].as_str())
            .collect();
        if let Some(wrong) = blocks.iter().find(|block| !is_block(block)) {
            return Some(format!("messages.{at}: {wrong}"));
        }
    }
    None
}

fn is_block(block: &Value) -> bool {
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    match block["type"].as_str() {
        Some("text") => text(&block["text"]),
        Some("image") => match block["source"]["type"].as_str() {
            Some("base64") => text(&block["source"]["data"]) && text(&block["source"]["media_type"]),
            Some("url") => text(&block["source"]["url"]),
            _ => false,
        },
        Some("tool_use") => text(&block["id"]) && text(&block["name"]) && block["input"].is_object(),
        Some("tool_result") => text(&block["tool_use_id"]),
        _ => false,
    }
}
