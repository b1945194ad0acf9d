//! The caller: HTTP/1.1, or HTTP/2 with prior knowledge, one connection per call, every frame with its time.
//!
//! A call is made with [`get`] or [`post`] and then either taken whole ([`Call::send`]), frame by frame
//! ([`Call::open`]), or spoken piece by piece ([`Call::upload`]). Dropping a [`Live`] or an [`Upload`] closes its
//! connection: that is how a caller leaves.

mod sse;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use sse::{Event, SseReader, sse_events};

/// How long a call waits for the next sign of life before it fails the test, unless it says so itself.
pub const PATIENCE: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A GET, not yet sent.
pub fn get(addr: SocketAddr, path: &str) -> Call {
    Call::new(Method::GET, addr, path)
}

/// A POST, not yet sent.
pub fn post(addr: SocketAddr, path: &str) -> Call {
    Call::new(Method::POST, addr, path)
}

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    addr: SocketAddr,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    h2c: bool,
    patience: Duration,
}

impl Call {
    /// Any method.
    pub fn new(method: Method, addr: SocketAddr, path: &str) -> Self {
        Self {
            method,
            addr,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            h2c: false,
            patience: PATIENCE,
        }
    }

    /// Adds a header; a name may come more than once.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = header(name, value);
        self.headers.append(name, value);
        self
    }

    /// The body as it is, with its `content-length`.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A JSON body and its content type.
    pub fn json(self, body: &Value) -> Self {
        let body = body.to_string();
        self.header(CONTENT_TYPE.as_str(), "application/json").body(body)
    }

    /// HTTP/2 with prior knowledge in place of HTTP/1.1.
    pub fn h2c(mut self) -> Self {
        self.h2c = true;
        self
    }

    /// Another wait for the next sign of life than [`PATIENCE`].
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it and takes the whole answer; panics when there is none.
    pub async fn send(self) -> Answer {
        self.open().await.rest().await
    }

    /// Sends it and returns at the answer's headers; panics when there are none.
    pub async fn open(self) -> Live {
        let line = format!("{} {}{}", self.method, self.addr, self.path);
        self.try_open().await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// As [`Call::open`], where a refusal to answer is what the test is about.
    pub async fn try_open(mut self) -> Result<Live, CallError> {
        let body = Full::new(std::mem::take(&mut self.body)).map_err(|never| match never {});
        Talk::begin(self, body.boxed_unsync()).await?.answer().await
    }

    /// Sends the headers; the body follows piece by piece, chunked unless a `content-length` header was given.
    ///
    /// HTTP/1.1 sends only those trailers that a `trailer` header announced: name them here.
    pub async fn upload(mut self, trailers: &[&str]) -> Upload {
        if !trailers.is_empty() {
            self = self.header(TRAILER.as_str(), &trailers.join(", "));
        }
        let (pieces, rest) = mpsc::channel::<io::Result<Frame<Bytes>>>(1);
        let frames = stream::unfold(rest, |mut rest| async { rest.recv().await.map(|frame| (frame, rest)) });
        let body = StreamBody::new(frames).boxed_unsync();
        let talk = Talk::begin(self, body).await.expect("connected to the server under test");
        Upload { pieces: Some(pieces), talk }
    }
}

/// No answer's headers came: refused, cut, or not HTTP.
#[derive(Debug)]
pub struct CallError(pub String);

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CallError {}

/// A request whose body is still being spoken.
#[derive(Debug)]
pub struct Upload {
    pieces: Option<mpsc::Sender<io::Result<Frame<Bytes>>>>,
    talk: Talk,
}

impl Upload {
    /// Sends one piece; false when the server no longer listens.
    pub async fn piece(&mut self, piece: impl Into<Bytes>) -> bool {
        self.frame(Frame::data(piece.into())).await
    }

    /// Ends the body, if it has not ended, and waits for the answer's headers.
    pub async fn finish(mut self) -> Live {
        self.pieces = None;
        self.talk.answer().await.unwrap_or_else(|error| panic!("after an upload: {error}"))
    }

    /// Ends the body with these trailers, and waits for the answer's headers.
    pub async fn finish_with(mut self, trailers: &[(&str, &str)]) -> Live {
        let trailers = trailers.iter().map(|(name, value)| header(name, value)).collect();
        self.frame(Frame::trailers(trailers)).await;
        self.finish().await
    }

    async fn frame(&mut self, frame: Frame<Bytes>) -> bool {
        let pieces = self.pieces.as_ref().expect("the body has not ended");
        pieces.send(Ok(frame)).await.is_ok()
    }
}

/// An answer that is still coming; dropping it closes the connection.
#[derive(Debug)]
pub struct Live {
    /// The answer's status.
    pub status: StatusCode,
    /// The protocol it came by.
    pub version: Version,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The answer's trailers, once they have come.
    pub trailers: Option<HeaderMap>,
    /// Why the body ended before its end, if it did.
    pub broken: Option<String>,
    /// When the call was begun.
    pub began: Instant,
    body: Incoming,
    events: SseReader,
    ready: VecDeque<Event>,
    patience: Duration,
    _driver: Owned<()>,
}

impl Live {
    /// The next data frame; `None` at the end, be it an orderly one or (see `broken`) not.
    pub async fn frame(&mut self) -> Option<Piece> {
        loop {
            let frame = within(self.patience, "the next frame", self.body.frame()).await?;
            let at = Instant::now();
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) if bytes.is_empty() => {}
                Ok(Ok(bytes)) => return Some(Piece { at, bytes }),
                Ok(Err(other)) => self.trailers = other.into_trailers().ok(),
                Err(error) => {
                    self.broken = Some(chain(&error));
                    return None;
                }
            }
        }
    }

    /// The next server-sent event or comment; do not mix with [`Live::frame`].
    pub async fn event(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            let piece = self.frame().await?;
            self.ready.extend(self.events.push(&piece.bytes, piece.at));
        }
        self.ready.pop_front()
    }

    /// Waits for the end and returns everything.
    pub async fn rest(mut self) -> Answer {
        let mut pieces = Vec::new();
        let mut body = BytesMut::new();
        while let Some(piece) = self.frame().await {
            body.extend_from_slice(&piece.bytes);
            pieces.push(piece);
        }
        Answer {
            status: self.status,
            version: self.version,
            body: body.freeze(),
            pieces,
            headers: self.headers,
            trailers: self.trailers,
            broken: self.broken,
            took: self.began.elapsed(),
        }
    }
}

/// A data frame and when it came.
#[derive(Clone, Debug)]
pub struct Piece {
    /// When it came.
    pub at: Instant,
    /// What it held.
    pub bytes: Bytes,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The answer's status.
    pub status: StatusCode,
    /// The protocol it came by.
    pub version: Version,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The body, as far as it came.
    pub body: Bytes,
    /// The body's frames.
    pub pieces: Vec<Piece>,
    /// The answer's trailers, if there were any.
    pub trailers: Option<HeaderMap>,
    /// Why the body ended before its end, if it did.
    pub broken: Option<String>,
    /// From the beginning of the call to the end of the answer.
    pub took: Duration,
}

impl Answer {
    /// A header's value; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of text"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in a {}: {:?}", self.status, self.body))
    }

    /// The body as server-sent events and comments, each with the time at which it was complete.
    pub fn events(&self) -> Vec<Event> {
        let mut reader = SseReader::default();
        self.pieces.iter().flat_map(|piece| reader.push(&piece.bytes, piece.at)).collect()
    }
}

/// A connection with one request on it.
#[derive(Debug)]
struct Talk {
    response: Owned<hyper::Result<Response<Incoming>>>,
    began: Instant,
    patience: Duration,
    driver: Owned<()>,
}

impl Talk {
    async fn begin(call: Call, body: Body) -> Result<Self, CallError> {
        let (began, patience) = (Instant::now(), call.patience);
        let refused = |error: io::Error| CallError(format!("{}: {error}", call.addr));
        let socket = TcpStream::connect(call.addr).await.map_err(refused)?;
        socket.set_nodelay(true).map_err(refused)?;
        let io = TokioIo::new(socket);
        let failed = |error: hyper::Error| CallError(chain(&error));
        let authority = call.addr.to_string();
        let mut request = Request::new(body);
        *request.method_mut() = call.method;
        *request.headers_mut() = call.headers;
        if call.h2c {
            let uri = format!("http://{authority}{}", call.path);
            *request.uri_mut() = uri.parse().expect("a test's path is a path");
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
            let driver = Owned(tokio::spawn(async { drop(connection.await) }));
            let response = Owned(tokio::spawn(async move { sender.send_request(request).await }));
            Ok(Self { response, began, patience, driver })
        } else {
            *request.uri_mut() = call.path.parse().expect("a test's path is a path");
            let host = authority.parse().expect("an address is a header's value");
            request.headers_mut().entry(HOST).or_insert(host);
            let (mut sender, connection) = http1::handshake(io).await.map_err(failed)?;
            let driver = Owned(tokio::spawn(async { drop(connection.await) }));
            let response = Owned(tokio::spawn(async move { sender.send_request(request).await }));
            Ok(Self { response, began, patience, driver })
        }
    }

    async fn answer(mut self) -> Result<Live, CallError> {
        let response = within(self.patience, "the answer's headers", &mut self.response.0).await;
        let response = response.expect("sending does not panic");
        let (head, body) = response.map_err(|error| CallError(chain(&error)))?.into_parts();
        Ok(Live {
            status: head.status,
            version: head.version,
            headers: head.headers,
            trailers: None,
            broken: None,
            began: self.began,
            body,
            events: SseReader::default(),
            ready: VecDeque::new(),
            patience: self.patience,
            _driver: self.driver,
        })
    }
}

/// A task that ends with its owner: aborting what waits for an answer, or moves its bytes, is how a caller leaves.
#[derive(Debug)]
struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn within<T>(patience: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(patience, future)
        .await
        .unwrap_or_else(|_| panic!("waited {patience:?} in vain for {what}"))
}

fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let name = name.parse().unwrap_or_else(|error| panic!("{name:?}: {error}"));
    let value = value.parse().unwrap_or_else(|error| panic!("{value:?}: {error}"));
    (name, value)
}

/// An error with its causes, which is where hyper says what happened.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
