//! The providers and the upstream of plain models: whatever reaches them says which request it is for, and what they
//! answer follows from that.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Result;
use crate::ledger::{Ledger, MODELS, Tokens};
use crate::plan::{Fault, Kind, MEMBERS, Mishap, Plan, SECRET, tags};

/// The key that Consort has for the providers.
pub const KEY: &str = "sk-of-the-soak";
const LATE: Duration = Duration::from_millis(900);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The server, in this process: it dies with its runtime.
#[derive(Debug)]
pub struct Provider {
    pub addr: SocketAddr,
    open: Arc<Mutex<JoinSet<()>>>,
}

impl Provider {
    pub async fn start(ledger: Arc<Ledger>, swaps: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let open = Arc::<Mutex<JoinSet<()>>>::default();
        let connections = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let ledger = Arc::clone(&ledger);
                let mut open = connections.lock().unwrap_or_else(PoisonError::into_inner);
                open.spawn(connection(socket, ledger, swaps));
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, open })
    }

    /// Ends all connections: whoever keeps idle ones for later has none afterwards.
    pub fn hang_up(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    pub fn connections(&self) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while open.try_join_next().is_some() {}
        open.len()
    }
}

async fn connection(socket: TcpStream, ledger: Arc<Ledger>, swaps: u64) {
    let _late = socket.set_nodelay(true);
    let service = service_fn(|request| answer(Arc::clone(&ledger), request, swaps));
    // Whoever hangs up has its reasons.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

/// A request as it reached a model.
struct Heard {
    plan: Plan,
    /// The model's place.
    model: usize,
    attempt: u64,
    is_stream: bool,
    json: Value,
}

impl Heard {
    /// Where the model sits in the panel, the judges after the members.
    fn seat(&self) -> u64 {
        self.model as u64
    }

    fn mishap(&self) -> Option<Mishap> {
        self.plan.fault(self.seat(), self.attempt)
    }
}

async fn answer(
    ledger: Arc<Ledger>,
    request: Request<Incoming>,
    swaps: u64,
) -> std::result::Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    // Who leaves while it speaks has asked nothing.
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return Ok(whole(StatusCode::BAD_REQUEST, String::new()));
    };
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut found = tags(&body);
    let Some(n) = found.next() else {
        ledger.wrong(0, format!("a request without a mark, for {}", head.uri));
        return Ok(whole(StatusCode::BAD_REQUEST, String::new()));
    };
    if let Some(other) = found.find(|other| *other != n) {
        ledger.wrong(n, format!("what {} was sent holds something of request {other}", head.uri));
    }
    let plan = Plan::of(n);
    if header("x-request-id") != plan.request_id() {
        ledger.wrong(n, format!("{} was sent the request id {:?}", head.uri, header("x-request-id")));
    }
    if plan.kind == Kind::Pass {
        ledger.passed_upstream();
        if plan.body().as_bytes() != body {
            ledger.wrong(n, "the body changed on its way to the upstream");
        }
        return Ok(upstream(&plan, &body).await);
    }
    if header(AUTHORIZATION.as_str()) != format!("Bearer {KEY}") {
        ledger.wrong(n, "the provider was sent another key");
    }
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(model) = MODELS.iter().position(|model| json["model"] == *model) else {
        ledger.wrong(n, format!("a model that nobody has: {}", json["model"]));
        return Ok(whole(StatusCode::NOT_FOUND, String::new()));
    };
    let attempt = ledger.arrived(n, model);
    // The oracle's own test: every so many answers are those of another request.
    let plan = if swaps > 0 && n.is_multiple_of(swaps) { Plan { n: n + 1, ..plan } } else { plan };
    let heard = Heard { plan, model, attempt, is_stream: json["stream"] == true, json };
    Ok(heard.answer(ledger, n).await)
}

/// A plain model's answer.
async fn upstream(plan: &Plan, body: &[u8]) -> Response<Body> {
    tokio::time::sleep(Duration::from_millis(plan.delay(0))).await;
    if plan.mishap.is_some_and(|mishap| matches!(mishap.fault, Fault::Slow | Fault::Stall)) {
        tokio::time::sleep(LATE).await;
    }
    let status = StatusCode::from_u16(plan.status()).unwrap_or_default();
    let (text, is_cut) = plan.upstream(body);
    if !is_cut && !plan.is_stream {
        return whole(status, text);
    }
    let mut pieces: Vec<io::Result<Bytes>> =
        text.as_bytes().chunks(64).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    if is_cut {
        pieces.truncate(pieces.len() / 2);
        pieces.push(Err(io::Error::other("cut")));
    }
    streamed(status, pieces, Duration::from_millis(1), || {})
}

impl Heard {
    async fn answer(self, ledger: Arc<Ledger>, n: u64) -> Response<Body> {
        let mishap = self.mishap();
        if mishap.is_some() {
            ledger.befell();
        }
        let cut = match mishap.map(|mishap| mishap.fault) {
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::Slow) => {
                tokio::time::sleep(LATE).await;
                false
            }
            Some(Fault::Cut) => true,
            _ => false,
        };
        tokio::time::sleep(Duration::from_millis(self.plan.delay(self.seat()))).await;
        match mishap.map(|mishap| mishap.fault) {
            Some(Fault::Error500) => return refusal(500, &self.plan),
            Some(Fault::Limited429) => return refusal(429, &self.plan),
            Some(Fault::Garbage) => {
                return whole(StatusCode::OK, format!("{{\"choices\": [{{\"message\": <{SECRET}>"));
            }
            _ => {}
        }
        let message = self.message(&ledger);
        let content = message.get("content").and_then(Value::as_str).unwrap_or_default();
        let tokens = Tokens {
            prompt_tokens: 40 + self.seat(),
            completion_tokens: 2 + content.split(' ').count() as u64,
            estimated: false,
        };
        if self.is_stream {
            let is_early = mishap.is_some_and(|mishap| mishap.is_early);
            let mut pieces = chunks(&self.plan, content, tokens);
            if cut {
                // The role alone, or the role and some words.
                pieces.truncate(if is_early { 1 } else { 4 });
                pieces.push(Err(io::Error::other("cut")));
            }
            let claim = move || {
                if !cut {
                    ledger.billed(n, tokens);
                }
            };
            return streamed(StatusCode::OK, pieces, Duration::from_millis(3), claim);
        }
        let body = completion(&self.plan, &message, tokens).to_string();
        if cut {
            let half = Bytes::from(body).slice(..60);
            let pieces = vec![Ok(half), Err(io::Error::other("cut"))];
            return streamed(StatusCode::OK, pieces, Duration::from_millis(1), || {});
        }
        ledger.billed(n, tokens);
        whole(StatusCode::OK, body)
    }

    fn message(&self, ledger: &Ledger) -> Map<String, Value> {
        let mut message = Map::new();
        message.insert("role".to_owned(), json!("assistant"));
        if self.seat() >= MEMBERS {
            message.insert("content".to_owned(), json!(self.judgement(ledger)));
        } else if self.plan.kind == Kind::Tools {
            let function = json!({"name": "lookup", "arguments": self.plan.arguments(self.seat())});
            let id = format!("call_m{}_{}", self.seat(), self.plan.n);
            message.insert("content".to_owned(), Value::Null);
            message.insert(
                "tool_calls".to_owned(),
                json!([{"id": id, "type": "function", "function": function}]),
            );
        } else {
            message.insert("content".to_owned(), json!(self.plan.candidate(self.seat())));
        }
        message
    }

    /// What a judge says of what it was shown, which it finds in its prompt.
    fn judgement(&self, ledger: &Ledger) -> String {
        let contents = self.json["messages"].as_array().into_iter().flatten();
        let prompt: Vec<&str> = contents.filter_map(|message| message["content"].as_str()).collect();
        let prompt = prompt.join("\n");
        let mut letter = "";
        let mut shown: Vec<(String, u64)> = Vec::new();
        for line in prompt.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["BEGIN", name, _] => letter = name,
                ["END", ..] => letter = "",
                _ if letter.is_empty() => {}
                _ => {
                    let member = (0..MEMBERS)
                        .find(|m| self.plan.candidate(*m).lines().next().is_some_and(|first| first == line));
                    shown.extend(member.map(|member| (letter.to_owned(), member)));
                }
            }
        }
        let survivors = self.plan.survivors().count();
        if shown.len() != survivors {
            ledger.wrong(self.plan.n, format!("a judge was shown {shown:?} of {survivors} drafts"));
        }
        let members: Vec<u64> = shown.iter().map(|(_, member)| *member).collect();
        let best = self.plan.preferred(&members);
        let reasons = format!("{} speaks for itself", self.plan.tag());
        match self.plan.kind {
            Kind::Rank => {
                let letter = shown.iter().find(|(_, member)| *member == best).map(|(letter, _)| letter);
                json!({"reasons": reasons, "best": letter}).to_string()
            }
            Kind::Score => {
                let grade = |member: u64| if member == best { 9 } else { 3 };
                let scores: Map<String, Value> =
                    shown.iter().map(|(letter, member)| (letter.clone(), json!(grade(*member)))).collect();
                json!({"reasons": reasons, "scores": scores}).to_string()
            }
            _ => self.plan.judged(shown.len()),
        }
    }
}

fn refusal(status: u16, plan: &Plan) -> Response<Body> {
    let message = format!("{SECRET} is in trouble with {}", plan.tag());
    let error = json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}});
    whole(StatusCode::from_u16(status).unwrap_or_default(), error.to_string())
}

fn completion(plan: &Plan, message: &Map<String, Value>, tokens: Tokens) -> Value {
    let finish = if message.contains_key("tool_calls") { "tool_calls" } else { "stop" };
    json!({
        "id": format!("chatcmpl-{}", plan.n), "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": usage(tokens),
    })
}

fn usage(tokens: Tokens) -> Value {
    let (read, written) = (tokens.prompt_tokens, tokens.completion_tokens);
    json!({"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written})
}

/// The same, a word at a time.
fn chunks(plan: &Plan, content: &str, tokens: Tokens) -> Vec<io::Result<Bytes>> {
    let event = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": format!("chatcmpl-{}", plan.n), "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": choices, "usage": usage,
        });
        Ok(Bytes::from(format!("data: {chunk}\n\n")))
    };
    let delta = |delta, finish: Option<&str>| {
        event(json!([{"index": 0, "delta": delta, "finish_reason": finish}]), Value::Null)
    };
    let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}), None)];
    chunks.extend(content.split_inclusive(' ').map(|word| delta(json!({"content": word}), None)));
    chunks.push(delta(json!({}), Some("stop")));
    chunks.push(event(json!([]), usage(tokens)));
    chunks.push(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
    chunks
}

fn whole(status: StatusCode, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    respond(status, "application/json", body)
}

/// Pieces with a pause between them; `claim` is called as the last is handed over.
fn streamed(
    status: StatusCode,
    pieces: Vec<io::Result<Bytes>>,
    pause: Duration,
    claim: impl FnOnce() + Send + 'static,
) -> Response<Body> {
    let state = (pieces.into_iter(), Some(claim), true);
    let frames = stream::unfold(state, move |(mut pieces, mut claim, is_first)| async move {
        let piece = pieces.next()?;
        if !is_first {
            tokio::time::sleep(pause).await;
        }
        if pieces.len() == 0
            && let Some(claim) = claim.take()
        {
            claim();
        }
        Some((piece.map(Frame::data), (pieces, claim, false)))
    });
    respond(status, "text/event-stream", StreamBody::new(frames).boxed_unsync())
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
