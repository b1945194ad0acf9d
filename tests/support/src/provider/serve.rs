//! One request, from its first byte to the last of its answer.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use serde_json::Value;

use super::gemini;
use super::perform::{Asked, Head, Step};
use super::reply::Reply;
use super::strict::{self, Violation};
use super::{Lines, Received, Shared};
use crate::http::chain;
use crate::listen::{Body, whole};

/// Long enough for what was handed over to have left, before the connection is broken off.
const FLUSH: Duration = Duration::from_millis(5);

pub(super) async fn respond(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> io::Result<Response<Body>> {
    let at = Instant::now();
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            // A caller may leave while it speaks; it may not lie about the length.
            if !left(&error) {
                shared.lock().violate(format!("broken body: {}", chain(&error)));
            }
            return Err(io::Error::other(error));
        }
    };
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let route = gemini::route(&path);
    let model = route.map_or(json["model"].as_str(), |route| Some(route.model));
    let received = Received {
        model: model.unwrap_or_default().to_owned(),
        path: path.clone(),
        method: head.method,
        version: head.version,
        peer,
        headers: head.headers,
        body,
        json,
        at,
        finished: None,
        closed: None,
    };
    let checked = check(&shared, &received);
    let mut record = Record::new(Arc::clone(&shared), received.clone());
    if let Err(violation) = checked {
        shared.lock().violate(format!(
            "{} {}: {}",
            violation.status.as_u16(),
            received.model,
            violation.message
        ));
        record.finish();
        let google = route.map(|_| gemini::error_body(violation.status, &violation.message));
        return answer(violation.status, google.unwrap_or_else(|| violation.body()));
    }
    let Some(reply) = script(&shared, &received) else {
        record.finish();
        return answer(StatusCode::INTERNAL_SERVER_ERROR, Value::Null);
    };
    let json = &received.json;
    let performance = reply.perform(Asked {
        model: &received.model,
        id: record.index,
        gemini: route.map(|_| json),
        stream: route.map_or(json["stream"] == true, |route| route.stream),
        include_usage: json["stream_options"]["include_usage"] == true,
    });
    if !performance.delay.is_zero() {
        tokio::time::sleep(performance.delay).await;
    }
    match performance.head {
        Head::Stall => std::future::pending().await,
        Head::Cut => {
            record.finish();
            Err(io::Error::other("cut, as scripted"))
        }
        Head::Answer { status, headers, steps } => {
            let mut response = Response::new(perform(record, steps));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}

fn check(shared: &Shared, received: &Received) -> Result<(), Violation> {
    let key = shared.lock().key.clone();
    if let Some(route) = gemini::route(&received.path) {
        gemini::head(&received.method, &received.headers, key.as_deref())?;
        strict::known(route.model, |model| shared.lock().scripts.contains_key(model))?;
        return gemini::fields(route.model, &strict::json(&received.body)?);
    }
    strict::head(&received.method, &received.path, &received.headers, key.as_deref())?;
    let body = strict::json(&received.body)?;
    strict::fields(&body, |model| shared.lock().scripts.contains_key(model))
}

fn script(shared: &Shared, received: &Received) -> Option<Reply> {
    let answer = match shared.lock().scripts.get_mut(&received.model)? {
        Lines::Queue(queue) if queue.len() > 1 => return queue.pop_front(),
        Lines::Queue(queue) => return queue.front().cloned(),
        Lines::Function(answer) => Arc::clone(answer),
    };
    let reply = catch_unwind(AssertUnwindSafe(|| answer(received)));
    reply
        .inspect_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            shared.lock().violate(format!("the script of {} panicked: {text}", received.model));
        })
        .ok()
}

fn answer(status: StatusCode, body: Value) -> io::Result<Response<Body>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(whole(body.to_string()))
        .map_err(io::Error::other)
}

/// A body that takes its steps as it is read, and tells the record when it is through.
fn perform(record: Record, steps: VecDeque<Step>) -> Body {
    let frames = stream::unfold((record, steps), |(mut record, mut steps)| async move {
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Send(bytes) => {
                    record.settle(&steps);
                    return Some((Ok(Frame::data(bytes)), (record, steps)));
                }
                Step::Wait(gap) => tokio::time::sleep(gap).await,
                Step::Claim(_) => {} // settled with the last byte
                Step::Stall => std::future::pending().await,
                Step::Cut => {
                    record.finish();
                    tokio::time::sleep(FLUSH).await;
                    let cut: io::Result<Frame<Bytes>> = Err(io::Error::other("cut, as scripted"));
                    return Some((cut, (record, steps)));
                }
            }
        }
        record.finish();
        None
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Remembers a request; dropped before it is finished, it notes that the caller has left.
struct Record {
    shared: Arc<Shared>,
    index: usize,
    at: Instant,
    model: String,
    finished: bool,
}

impl Record {
    fn new(shared: Arc<Shared>, mut received: Received) -> Self {
        let (at, model) = (received.at, received.model.clone());
        let mut state = shared.lock();
        if state.forgetful {
            received =
                Received { headers: HeaderMap::new(), body: Bytes::new(), json: Value::Null, ..received };
        }
        state.received.push(received);
        let index = state.received.len() - 1;
        drop(state);
        Self { shared, index, at, model, finished: false }
    }

    /// With the last byte handed over, the answer counts: a known length means that nobody asks for more.
    fn settle(&mut self, rest: &VecDeque<Step>) {
        let waits = |step: &Step| matches!(step, Step::Send(_) | Step::Stall | Step::Cut);
        if rest.iter().any(waits) {
            return;
        }
        for step in rest {
            if let Step::Claim(usage) = step {
                self.shared.lock().claim(&self.model, *usage);
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true)
            && let Some(entry) = self.shared.lock().received.get_mut(self.index)
        {
            entry.finished = Some(self.at.elapsed());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished
            && let Some(entry) = self.shared.lock().received.get_mut(self.index)
        {
            entry.closed = Some(self.at.elapsed());
        }
    }
}

/// Whether a body ended because its sender went away, and not because it was malformed.
fn left(error: &hyper::Error) -> bool {
    let text = chain(error);
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || ["no longer needed", "connection reset", "broken pipe", "end of file", "connection error"]
            .iter()
            .any(|way| text.to_ascii_lowercase().contains(way))
}
