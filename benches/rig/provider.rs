//! The providers, in a process of their own: they answer by the path that they are asked on, and remember how long each
//! run's calls took them.
//!
//! `/{pace}/{role}/v1/chat/completions` plays a model: `pace` is a delay in ms, `stall` (never), `hold` (when `/release`
//! is asked for) or `long` (at once, a long answer), `role` is `member` or `judge`. Whatever else is asked is the upstream of
//! plain models.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::Result;
use crate::cores::now;

/// What the providers say, in the words of a short answer.
const WORDS: &str = "Rayleigh scattering favours short waves, so that the blue of the sun's light reaches us from all of the sky.";

/// Request ids that begin so are those of runs that are timed.
pub const TIMED: &str = "rig-";

/// How often a long answer says the words: some five hundred of them.
const LONG: usize = 25;

/// How long the calls of one run took the providers, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Timing {
    /// The slowest member that answered.
    pub members: u64,
    /// The judge, to its last byte.
    pub judge: u64,
    /// When the judge's first byte was handed to its connection.
    pub judge_first: u64,
}

/// Serves until it is killed; `told` hears where.
pub async fn serve(told: impl FnOnce(SocketAddr)) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    told(listener.local_addr()?);
    let books = Arc::new(Books::default());
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let books = Arc::clone(&books);
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            // A gateway's bounds. With hyper's window of 1 MiB, a thousand bodies at once are cut where it ends, into
            // frames of a byte or so, and h2 ends the connection over these.
            server
                .http2()
                .max_concurrent_streams(Some(1 << 16))
                .max_pending_accept_reset_streams(1 << 16)
                .initial_connection_window_size(Some(64 << 20));
            let service = service_fn(|request| answer(Arc::clone(&books), request));
            // Whoever hangs up has its reasons.
            let _ended = server.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

#[derive(Debug, Default)]
struct Books {
    timings: Mutex<HashMap<String, Timing>>,
    held: AtomicUsize,
    release: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Member,
    Judge,
}

async fn answer(
    books: Arc<Books>,
    request: Request<Incoming>,
) -> std::result::Result<Response<Reply>, Infallible> {
    let begun = now();
    let (head, mut body) = request.into_parts();
    while let Some(Ok(_)) = body.frame().await {}
    let mut path = head.uri.path().split('/').skip(1);
    let pace = path.next().unwrap_or_default();
    let role = match path.next() {
        Some("member") => Role::Member,
        Some("judge") => Role::Judge,
        _ => return Ok(whole(books.tell(head.uri.path()))),
    };
    match pace {
        "stall" => std::future::pending().await,
        "hold" => books.hold().await,
        "0" | "long" => {}
        ms => tokio::time::sleep(Duration::from_millis(ms.parse().unwrap_or(0))).await,
    }
    let run = timed(&head.headers);
    let is_long = pace == "long";
    let is_stream = head.headers.get(ACCEPT).is_some_and(|accept| accept == "text/event-stream");
    if !is_stream {
        books.note(run, role, begun, now());
        return Ok(whole(completion(is_long)));
    }
    let telling = Telling { books, run, role, begun, first: None };
    let mut response = Response::new(Reply::Stream { chunks: chunks(is_long), at: 0, telling });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

fn whole(body: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Full::new(body.into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn timed(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    id.starts_with(TIMED).then(|| id.to_owned())
}

impl Books {
    /// What the rig asks for, and the answer to a plain model's request.
    fn tell(&self, path: &str) -> String {
        match path {
            "/timings" => {
                let timings =
                    std::mem::take(&mut *self.timings.lock().unwrap_or_else(PoisonError::into_inner));
                serde_json::to_string(&timings).unwrap_or_default()
            }
            "/held" => self.held.load(Ordering::Relaxed).to_string(),
            "/release" => {
                self.release.notify_waiters();
                "{}".to_owned()
            }
            _ => completion(false),
        }
    }

    async fn hold(&self) {
        let released = self.release.notified();
        let held = Held(&self.held);
        held.0.fetch_add(1, Ordering::Relaxed);
        released.await;
    }

    fn note(&self, run: Option<String>, role: Role, begun: u64, first: u64) {
        let Some(run) = run else { return };
        let took = now().saturating_sub(begun);
        let mut timings = self.timings.lock().unwrap_or_else(PoisonError::into_inner);
        let timing = timings.entry(run).or_default();
        match role {
            Role::Member => timing.members = timing.members.max(took),
            Role::Judge => (timing.judge, timing.judge_first) = (took, first),
        }
    }
}

/// A call that is held, until it is answered or given up.
struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Reply {
    Whole(Full<Bytes>),
    Stream { chunks: Arc<[Bytes]>, at: usize, telling: Telling },
}

/// An answer that is being streamed.
struct Telling {
    books: Arc<Books>,
    run: Option<String>,
    role: Role,
    begun: u64,
    first: Option<u64>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Stream { chunks, at, telling } => {
                let first = *telling.first.get_or_insert_with(now);
                let chunk = chunks.get(*at).cloned();
                *at += 1;
                if *at == chunks.len() {
                    telling.books.note(telling.run.take(), telling.role, telling.begun, first);
                }
                Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
        }
    }
}

fn words(is_long: bool) -> String {
    WORDS.repeat(if is_long { LONG } else { 1 })
}

fn completion(is_long: bool) -> String {
    json!({
        "id": "chatcmpl-rig", "object": "chat.completion", "created": 1, "model": "rig",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words(is_long)}}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 24, "total_tokens": 64},
    })
    .to_string()
}

/// The same, a word at a time.
fn chunks(is_long: bool) -> Arc<[Bytes]> {
    use std::sync::OnceLock;
    static CHUNKS: [OnceLock<Arc<[Bytes]>>; 2] = [const { OnceLock::new() }; 2];
    Arc::clone(CHUNKS[usize::from(is_long)].get_or_init(|| {
        let chunk = |choices: serde_json::Value, usage: serde_json::Value| {
            let chunk = json!({
                "id": "chatcmpl-rig", "object": "chat.completion.chunk", "created": 1, "model": "rig",
                "choices": choices, "usage": usage,
            });
            Bytes::from(format!("data: {chunk}\n\n"))
        };
        let delta = |delta, finish: Option<&str>| {
            chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}]), json!(null))
        };
        let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}), None)];
        chunks.extend(words(is_long).split_inclusive(' ').map(|word| delta(json!({"content": word}), None)));
        chunks.push(delta(json!({}), Some("stop")));
        let usage = json!({"prompt_tokens": 40, "completion_tokens": 24, "total_tokens": 64});
        chunks.push(chunk(json!([]), usage));
        chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
        chunks.into()
    }))
}
