//! Where requests for plain models go: an upstream that says what reached it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use crate::fetch::fnv;
use crate::listen::{Body, Server, whole};
use crate::provider::error_body;

/// Bodies up to this many bytes are kept as they are; of longer ones, length and hash.
pub const KEPT: usize = 1 << 20;

/// A request that reached the upstream.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub path: String,
    /// The protocol it came by.
    pub version: Version,
    /// The headers.
    pub headers: HeaderMap,
    /// How the body's end was told.
    pub framing: Framing,
    /// The body's length in bytes.
    pub length: usize,
    /// The body's FNV-1a hash: compare with [`hash`].
    pub hash: u64,
    /// The body itself, unless it was longer than [`KEPT`].
    pub body: Option<Bytes>,
    /// The trailers, if there were any.
    pub trailers: Option<HeaderMap>,
    /// Whether the body came to its end.
    pub complete: bool,
    /// When the headers came.
    pub at: Instant,
}

/// How a body's end was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By a `content-length`.
    Length(u64),
    /// By chunks (or, on HTTP/2, by the stream's end alone).
    Chunked,
    /// There was none.
    None,
}

/// FNV-1a, 64 bits.
pub fn hash(bytes: &[u8]) -> u64 {
    fnv(bytes)
}

/// Echoes: a 200 with `x-upstream: echo`, telling the method, path, length and hash of what came.
#[derive(Debug)]
pub struct Upstream {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    no_such_model: AtomicBool,
    scripts: Mutex<HashMap<String, Script>>,
}

/// What a path answers.
type Script = Arc<dyn Fn(&Arrived) -> Response<Bytes> + Send + Sync>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("arrived", &self.arrived).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Listens on a port of the loopback interface.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let respond = move |request, _| respond(Arc::clone(&state), request);
        let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), respond, |_| {}).await;
        Self { server: server.expect("a free port"), shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    /// From now on, chat requests get OpenAI's 404 `model_not_found`, as an alias would that slipped through.
    pub fn knows_no_models(&self) {
        self.shared.no_such_model.store(true, Ordering::SeqCst);
    }

    /// From now on, requests for this path, query included, are answered so. A `Duration` among the response's
    /// extensions delays it; with `transfer-encoding: chunked`, its length is not told.
    pub fn answer(&self, path: &str, answer: impl Fn(&Arrived) -> Response<Bytes> + Send + Sync + 'static) {
        let mut scripts = self.shared.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.insert(path.to_owned(), Arc::new(answer));
    }

    /// Everything that has arrived, in the order of its ending.
    pub fn requests(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits, at most 10 s, until `n` requests have arrived whole (or broken off).
    pub async fn wait_for(&self, n: usize) -> Vec<Arrived> {
        crate::eventually(&format!("{n} requests upstream"), Duration::from_secs(10), async || {
            Some(self.requests()).filter(|arrived| arrived.len() >= n)
        })
        .await
    }
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let at = Instant::now();
    let (head, mut body) = request.into_parts();
    let framing = framing(&head.headers, &body);
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    let mut complete = true;
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(other)) => trailers = other.into_trailers().ok(),
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    let arrived = Arrived {
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        method: head.method,
        version: head.version,
        headers: head.headers,
        framing,
        length: bytes.len(),
        hash: hash(&bytes),
        body: (bytes.len() <= KEPT).then(|| bytes.freeze()),
        trailers,
        complete,
        at,
    };
    let script = shared.scripts.lock().unwrap_or_else(PoisonError::into_inner).get(&arrived.path).cloned();
    if let Some(script) = script {
        let scripted = script(&arrived);
        shared.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(arrived);
        tokio::time::sleep(scripted.extensions().get().copied().unwrap_or_default()).await;
        return Ok(scripted.map(whole));
    }
    let answer =
        if shared.no_such_model.load(Ordering::SeqCst) && arrived.path.starts_with("/v1/chat/completions") {
            let message = "The model does not exist or you do not have access to it.";
            let error = error_body(message, "invalid_request_error", None, Some("model_not_found"));
            (StatusCode::NOT_FOUND, error)
        } else {
            let told = json!({
                "method": arrived.method.as_str(),
                "path": arrived.path,
                "length": arrived.length,
                "hash": format!("{:016x}", arrived.hash),
            });
            (StatusCode::OK, told)
        };
    shared.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(arrived);
    Response::builder()
        .status(answer.0)
        .header(CONTENT_TYPE, "application/json")
        .header("x-upstream", "echo")
        .body(whole(answer.1.to_string()))
        .map_err(io::Error::other)
}

fn framing(headers: &HeaderMap, body: &Incoming) -> Framing {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match length {
        Some(length) => Framing::Length(length),
        None if headers.contains_key(TRANSFER_ENCODING) => Framing::Chunked,
        None if http_body::Body::is_end_stream(body) => Framing::None,
        None => Framing::Chunked,
    }
}
