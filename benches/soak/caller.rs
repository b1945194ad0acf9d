//! The callers, and what of an answer is wrong.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use consort_testkit::http::sse_events;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::ledger::{End, Ledger, Tokens};
use crate::plan::{Fault, Kind, Plan, SECRET, tags};

/// Longer than any run may take.
const PATIENCE: Duration = Duration::from_secs(30);

type Http = Client<HttpConnector, Full<Bytes>>;

/// Where callers go, and by what.
#[derive(Debug)]
pub struct Callers {
    pub envoy: SocketAddr,
    pub door: SocketAddr,
    pub ledger: Arc<Ledger>,
    next: AtomicU64,
    http1: Http,
    http2: Http,
}

/// What came of a request.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    headers: HeaderMap,
    body: Bytes,
    broken: Option<String>,
}

impl Callers {
    pub fn new(envoy: SocketAddr, door: SocketAddr, ledger: Arc<Ledger>, first: u64) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let builder = || Client::builder(TokioExecutor::new());
        Self {
            envoy,
            door,
            ledger,
            next: AtomicU64::new(first),
            http1: builder().build(connector.clone()),
            http2: builder().http2_only(true).build(connector),
        }
    }

    /// How many requests were made.
    pub fn made(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Asks, rests and asks again.
    pub async fn one(&self, caller: usize, until: Instant) {
        // A quarter of them share connections over HTTP/2.
        let http = if caller.is_multiple_of(4) { &self.http2 } else { &self.http1 };
        tokio::time::sleep(Duration::from_millis(caller as u64 * 7)).await;
        while Instant::now() < until {
            let plan = Plan::of(self.next.fetch_add(1, Ordering::Relaxed));
            self.ask(http, &plan).await;
            tokio::time::sleep(plan.rest()).await;
        }
    }

    /// Asks once; the status, if an answer came.
    pub async fn probe(&self, n: u64) -> Option<u16> {
        self.ask(&self.http1, &Plan::of(n)).await
    }

    async fn ask(&self, http: &Http, plan: &Plan) -> Option<u16> {
        self.ledger.asked(plan);
        let patience = plan.leaves.unwrap_or(PATIENCE);
        let Ok(answer) = tokio::time::timeout(patience, self.exchange(http, plan)).await else {
            if plan.leaves.is_none() {
                self.ledger.wrong(plan.n, "no end of an answer in 30 s");
            }
            self.ledger.ended(plan.n, End::Left);
            return None;
        };
        let status = answer.status;
        let usage = match answer.verdict(plan) {
            Ok(usage) => usage,
            // The probe looks at its own.
            Err(_) if plan.n >= crate::plan::PROBE => None,
            Err(wrong) => {
                self.ledger.wrong(plan.n, format!("{wrong}; {answer:?}"));
                None
            }
        };
        let outcome = answer.header("x-ensemble-outcome").to_owned();
        self.ledger.ended(plan.n, End::Answered { outcome, usage });
        Some(status)
    }

    async fn exchange(&self, http: &Http, plan: &Plan) -> Answer {
        let to = if plan.is_at_door { self.door } else { self.envoy };
        let request = Request::post(format!("http://{to}/v1/chat/completions"));
        let request =
            request.header(CONTENT_TYPE, "application/json").header("x-request-id", plan.request_id());
        let failed = |broken: String| Answer { broken: Some(broken), ..Answer::default() };
        let Ok(request) = request.body(Full::new(plan.body().into())) else {
            return failed("no request".to_owned());
        };
        let response = match http.request(request).await {
            Ok(response) => response,
            Err(error) => return failed(format!("{error:?}")),
        };
        let (head, mut incoming) = response.into_parts();
        let (mut body, mut broken) = (BytesMut::new(), None);
        while let Some(frame) = incoming.frame().await {
            match frame {
                Ok(frame) => body.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Err(error) => {
                    broken = Some(format!("{error:?}"));
                    break;
                }
            }
        }
        Answer { status: head.status.as_u16(), headers: head.headers, body: body.freeze(), broken }
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The usage that it tells, if it does, or what is wrong with it.
    fn verdict(&self, plan: &Plan) -> Result<Option<Tokens>, String> {
        if let Some(other) = tags(&self.body).find(|n| *n != plan.n) {
            return Err(format!("something of request {other}"));
        }
        if plan.kind == Kind::Pass {
            return self.passed(plan).map(|()| None);
        }
        if memchr::memmem::find(&self.body, SECRET.as_bytes()).is_some() {
            return Err("something of a provider".to_owned());
        }
        if self.status != plan.status() {
            return Err(format!("status {} instead of {}", self.status, plan.status()));
        }
        if self.header("x-request-id") != plan.request_id() {
            return Err("another request's id".to_owned());
        }
        let outcome = self.header("x-ensemble-outcome");
        if self.status != 200 {
            let error: Value = serde_json::from_slice(&self.body).map_err(|error| error.to_string())?;
            return if error["error"]["code"].is_string() { Ok(None) } else { Err("no error".to_owned()) };
        }
        if !plan.outcomes().is_empty() && !plan.breaks_off() && !plan.outcomes().contains(&outcome) {
            return Err(format!("outcome {outcome} instead of {:?}", plan.outcomes()));
        }
        if let Some(broken) = &self.broken {
            return Err(format!("broken off: {broken}"));
        }
        if plan.is_stream { self.streamed(plan) } else { self.whole(plan) }
    }

    /// A plain model's answer is its upstream's, byte for byte.
    fn passed(&self, plan: &Plan) -> Result<(), String> {
        let (expected, is_cut) = plan.upstream(plan.body().as_bytes());
        if is_cut {
            let is_begun = expected.as_bytes().starts_with(&self.body) && self.body.len() < expected.len();
            // Envoy's own answer, where it saw the end before the beginning.
            let is_unbegun = self.status == 503 && self.header("server") == "envoy";
            let is_right = is_unbegun || (is_begun && self.broken.is_some());
            return if is_right { Ok(()) } else { Err("not broken off".to_owned()) };
        }
        let is_right = self.status == plan.status() && self.broken.is_none() && expected == self.body;
        if is_right { Ok(()) } else { Err(format!("not the upstream's {} {expected:.80}", plan.status())) }
    }

    fn whole(&self, plan: &Plan) -> Result<Option<Tokens>, String> {
        let body: Value = serde_json::from_slice(&self.body).map_err(|error| error.to_string())?;
        let choice = &body["choices"][0];
        let message = &choice["message"];
        Self::said(plan, &body, message["content"].as_str().unwrap_or_default(), &message["tool_calls"])?;
        if choice["finish_reason"] != finish(plan) {
            return Err("another finish_reason".to_owned());
        }
        let usage = serde_json::from_value(body["usage"].clone()).map_err(|error| error.to_string())?;
        Ok(Some(usage))
    }

    fn streamed(&self, plan: &Plan) -> Result<Option<Tokens>, String> {
        let (mut text, mut calls, mut usage) = (String::new(), Value::Null, None);
        let (mut finished, mut failed, mut is_done) = (Value::Null, false, false);
        let mut last = Value::Null;
        for event in sse_events(&self.body).iter().filter(|event| event.data.is_some()) {
            if is_done {
                return Err("something after [DONE]".to_owned());
            }
            is_done = event.is_done();
            if is_done {
                break;
            }
            let chunk = event.json();
            failed |= chunk["error"].is_object();
            if let Some(delta) = chunk.pointer("/choices/0/delta") {
                text.push_str(delta["content"].as_str().unwrap_or_default());
                join(&mut calls, &delta["tool_calls"]);
                if !chunk["choices"][0]["finish_reason"].is_null() {
                    finished = chunk["choices"][0]["finish_reason"].clone();
                }
            }
            if chunk["usage"].is_object() {
                usage = serde_json::from_value(chunk["usage"].clone()).ok();
            }
            if !failed {
                last = chunk;
            }
        }
        if failed {
            let is_right = plan.breaks_off() && !is_done && plan.begins(&text);
            return if is_right { Ok(None) } else { Err("an error in a stream".to_owned()) };
        }
        if plan.breaks_off() && plan.kind != Kind::First {
            return Err("a stream that should have broken off".to_owned());
        }
        if !is_done || finished != finish(plan) {
            return Err("a stream without its end".to_owned());
        }
        if usage.is_some() != plan.wants_usage {
            return Err("usage, and it was not asked for, or none, and it was".to_owned());
        }
        Self::said(plan, &last, &text, &calls)?;
        Ok(usage)
    }

    fn said(plan: &Plan, body: &Value, text: &str, calls: &Value) -> Result<(), String> {
        let is_ours = body["model"] == plan.alias()
            && body["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-"));
        let is_right = match plan.kind {
            Kind::Tools => plan.accepts_calls(calls) && text.is_empty(),
            _ => plan.accepts(text),
        };
        match (is_ours, is_right) {
            (false, _) => Err("another model, or no id of an answer".to_owned()),
            (_, false) => Err(format!("a wrong answer: {text:?}, {calls}")),
            _ => Ok(()),
        }
    }
}

fn finish(plan: &Plan) -> &'static str {
    if plan.kind == Kind::Tools { "tool_calls" } else { "stop" }
}

/// Puts a call of a tool together.
fn join(calls: &mut Value, delta: &Value) {
    for piece in delta.as_array().into_iter().flatten() {
        let Some(index) = piece["index"].as_u64() else { continue };
        if calls.is_null() {
            *calls = Value::Array(Vec::new());
        }
        let Some(all) = calls.as_array_mut() else { continue };
        match all.get_mut(index as usize) {
            None => all.push(piece.clone()),
            Some(call) => {
                let more = piece["function"]["arguments"].as_str().unwrap_or_default();
                let before = call["function"]["arguments"].as_str().unwrap_or_default();
                call["function"]["arguments"] = Value::String(format!("{before}{more}"));
            }
        }
    }
}

/// How many of these requests have a fault of a provider, or a caller that leaves.
pub fn troubled(requests: Range<u64>) -> [(&'static str, u64); 7] {
    let plans: Vec<Plan> = requests.map(Plan::of).collect();
    let count = |is_one: &dyn Fn(&Plan) -> bool| plans.iter().filter(|plan| is_one(plan)).count() as u64;
    let with = |fault| count(&|plan| plan.mishap.is_some_and(|mishap| mishap.fault == fault));
    let leaving = count(&|plan| plan.leaves.is_some());
    [
        ("500", with(Fault::Error500)),
        ("429", with(Fault::Limited429)),
        ("stall", with(Fault::Stall)),
        ("cut", with(Fault::Cut)),
        ("malformed", with(Fault::Garbage)),
        ("slow first byte", with(Fault::Slow)),
        ("caller leaves", leaving),
    ]
}
