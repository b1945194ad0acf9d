//! A scripted chat-completions API, as strict as the real one.
//!
//! One server stands for many models, and speaks OpenAI's chat completions and Gemini's `generateContent`. What a test breaks of the protocol is answered as OpenAI would (400, or 401,
//! 404 and 405 where those are due), remembered, and fails the test: at [`Provider::assert_clean`] or when the provider
//! is dropped.

mod gemini;
mod perform;
mod reply;
mod serve;
mod strict;
mod usage;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use serde_json::Value;

pub use reply::{Reply, error_body};
pub use usage::Usage;

use crate::listen::Server;

const PATIENCE: Duration = Duration::from_secs(10);

/// The server; see the module.
#[derive(Debug)]
pub struct Provider {
    server: Server,
    shared: Arc<Shared>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The model of the body or of the path; empty when there was none.
    pub model: String,
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub path: String,
    /// The protocol it came by.
    pub version: Version,
    /// The caller's end of the connection: equal for requests that shared one.
    pub peer: SocketAddr,
    /// The headers.
    pub headers: HeaderMap,
    /// The exact body.
    pub body: Bytes,
    /// The body as JSON; null when it was none.
    pub json: Value,
    /// When its headers came.
    pub at: Instant,
    /// How long after `at` the answer had been handed over; `None` while it is due, or when the caller left first.
    pub finished: Option<Duration>,
    /// How long after `at` the caller left before the answer had been handed over.
    pub closed: Option<Duration>,
}

impl Received {
    /// A header's value; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of text"))
    }
}

impl Provider {
    /// Listens on a port of the loopback interface.
    pub async fn start() -> Self {
        Self::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens where it is told to.
    pub async fn bind(addr: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let respond = move |request, peer| serve::respond(Arc::clone(&state), request, peer);
        let state = Arc::clone(&shared);
        let malformed = move |error| state.lock().violate(format!("malformed HTTP: {error}"));
        let server = Server::start(addr, respond, malformed).await;
        let server = server.unwrap_or_else(|error| panic!("{addr}: {error}"));
        Self { server, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    /// The `base_url` of an OpenAI-compatible provider.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.server.addr)
    }

    /// The `base_url` of a provider that speaks Gemini's format, with the same scripts.
    pub fn gemini_base_url(&self) -> String {
        format!("http://{}/v1beta", self.server.addr)
    }

    /// From now on, `authorization` has to be `Bearer {key}`, or `x-goog-api-key` the key itself.
    pub fn require_key(&self, key: &str) {
        self.shared.lock().key = Some(key.to_owned());
    }

    /// Makes a model known and returns its script. A model without a script says hello.
    pub fn model(&self, name: &str) -> Script {
        let script = Script { shared: Arc::clone(&self.shared), model: name.to_owned() };
        self.shared
            .lock()
            .scripts
            .entry(name.to_owned())
            .or_insert_with(|| Lines::Queue(VecDeque::from([Reply::text(format!("Hello from {name}."))])));
        script
    }

    /// Everything that was received, in the order in which the bodies were complete.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// What was received for one model.
    pub fn requests_for(&self, model: &str) -> Vec<Received> {
        let of_model = |request: &Received| request.model == model;
        self.requests().into_iter().filter(of_model).collect()
    }

    /// Waits, at most 10 s, until `n` requests for a model have been received; returns all of them.
    pub async fn wait_for(&self, model: &str, n: usize) -> Vec<Received> {
        crate::eventually(&format!("{n} requests for {model}"), PATIENCE, async || {
            Some(self.requests_for(model)).filter(|received| received.len() >= n)
        })
        .await
    }

    /// Waits, at most 10 s, until `n` requests for a model were left by their caller; returns those.
    pub async fn wait_for_closed(&self, model: &str, n: usize) -> Vec<Received> {
        crate::eventually(&format!("{n} abandoned requests for {model}"), PATIENCE, async || {
            let mut received = self.requests_for(model);
            received.retain(|request| request.closed.is_some());
            Some(received).filter(|closed| closed.len() >= n)
        })
        .await
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.server.open_connections()
    }

    /// The sum of the usages that answers for a model have claimed: what an honest bill shows.
    pub fn billed(&self, model: &str) -> Usage {
        self.shared.lock().billed.get(model).copied().unwrap_or_default()
    }

    /// As [`Provider::billed`], over all models.
    pub fn billed_in_all(&self) -> Usage {
        self.shared.lock().billed.values().fold(Usage::default(), |sum, usage| sum.plus(*usage))
    }

    /// Says that a violation whose text contains this is what the test is about: it has to occur.
    pub fn expect_violation(&self, contains: &str) {
        self.shared.lock().expected.push(contains.to_owned());
    }

    /// Says that callers are people who may try what they like: a violation is answered as before, and that is all.
    pub fn forgive(&self) {
        self.shared.lock().forgiving = true;
    }

    /// From now on, neither headers nor bodies are remembered: they fill the memory when there are thousands.
    pub fn forget_contents(&self) {
        self.shared.lock().forgetful = true;
    }

    /// The violations so far, expected or not.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Panics unless the violations are exactly those that were expected.
    pub fn assert_clean(&self) {
        if let Err(complaint) = self.shared.lock().verdict() {
            panic!("{complaint}");
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}

/// What a model answers.
///
/// Replies are given in order, the last one for ever: `reply(a)` is always `a`, `reply(a).then(b)` is `a` once and `b`
/// from then on.
pub struct Script {
    shared: Arc<Shared>,
    model: String,
}

impl Script {
    /// Forgets what was scripted; answers this.
    pub fn reply(self, reply: Reply) -> Self {
        self.set(Lines::Queue(VecDeque::from([reply])))
    }

    /// Answers this after what was scripted before, which is then given once.
    pub fn then(self, reply: Reply) -> Self {
        match self.shared.lock().scripts.get_mut(&self.model) {
            Some(Lines::Queue(queue)) => queue.push_back(reply),
            _ => panic!("{} answers by a function: nothing can follow", self.model),
        }
        self
    }

    /// Answers by a function of the request. If it panics, that is a violation.
    pub fn answer(self, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        self.set(Lines::Function(Arc::new(answer)))
    }

    fn set(self, lines: Lines) -> Self {
        self.shared.lock().scripts.insert(self.model.clone(), lines);
        self
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("model", &self.model).finish_non_exhaustive()
    }
}

enum Lines {
    Queue(VecDeque<Reply>),
    Function(Arc<dyn Fn(&Received) -> Reply + Send + Sync>),
}

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    key: Option<String>,
    scripts: HashMap<String, Lines>,
    received: Vec<Received>,
    violations: Vec<String>,
    expected: Vec<String>,
    forgiving: bool,
    forgetful: bool,
    billed: HashMap<String, Usage>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl State {
    fn violate(&mut self, violation: String) {
        self.violations.push(violation);
    }

    fn claim(&mut self, model: &str, usage: Usage) {
        let sum = self.billed.entry(model.to_owned()).or_default();
        *sum = sum.plus(usage);
    }

    fn verdict(&self) -> Result<(), String> {
        if self.forgiving {
            return Ok(());
        }
        let expected =
            |violation: &&String| self.expected.iter().any(|contains| violation.contains(contains.as_str()));
        let surprises: Vec<_> = self.violations.iter().filter(|one| !expected(one)).collect();
        let missing: Vec<_> = self
            .expected
            .iter()
            .filter(|contains| !self.violations.iter().any(|one| one.contains(contains.as_str())))
            .collect();
        if surprises.is_empty() && missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the provider was sent what a real one refuses: {surprises:#?}; expected, and not seen: {missing:#?}"
        ))
    }
}
