//! What is measured, once for time and once for allocations.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot run has nothing to say")]

use std::sync::Arc;

use bytes::Bytes;
use consort::chat::{Answer, Collected, Completion, Delta, Event, ModelScan, Request, Scan, Usage, sse};
use consort::config::{Config, Environment, Format, Source};
use consort::ensemble::{Context, Ensemble, Runner, member_body};
use consort::limits::{Admission, Cooldowns};
use consort::upstream::{Call, Caller, Events, Failure, Retrying};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

/// The sizes of bodies in which an alias is looked for: 1 KiB, 100 KiB, 10 MiB.
pub(crate) const SIZES: [usize; 3] = [1 << 10, 100 << 10, 10 << 20];

/// A request body of about `size` bytes whose model comes last: the whole of it must be read.
pub(crate) fn body(size: usize) -> Bytes {
    let turn = r#"{"role":"user","content":"What do \"panels\" of models add, and \\ when?"},"#;
    let turns = turn.repeat(size / turn.len());
    Bytes::from(format!(
        r#"{{"messages":[{}],"temperature":0.7,"model":"team"}}"#,
        turns.trim_end_matches(',')
    ))
}

/// Whether the body names a model, found as Envoy's pieces come.
pub(crate) fn detect(body: &[u8]) -> Scan {
    ModelScan::default().feed(body)
}

/// A panel of five and a judge.
pub(crate) fn ensemble() -> Arc<Ensemble> {
    named("team")
}

/// Two members and a judge, and the same with a third member that is dead.
pub(crate) fn pairs() -> [(&'static str, Arc<Ensemble>); 2] {
    [("two", named("pair")), ("two_and_one_that_cools_down", named("maimed"))]
}

fn named(alias: &str) -> Arc<Ensemble> {
    let text = "
providers: [{name: p, base_url: 'http://127.0.0.1:1/v1'}]
models:
- {display_name: a, provider: p, model_name: model-a}
- {display_name: dead, provider: p, model_name: model-dead}
- {display_name: judge, provider: p, model_name: model-judge}
- {display_name: pair, ensemble: {panel: [{model: a}, {model: a}], judge: {model: judge}}}
- {display_name: maimed, ensemble: {panel: [{model: dead}, {model: a}, {model: a}], judge: {model: judge}}}
- display_name: team
  ensemble: {panel: [{model: a}, {model: a}, {model: a, temperature: 0.2}, {model: a}, {model: a}], judge: {model: judge}}
";
    let config = load(text);
    Arc::clone(config.snapshot.ensemble(alias).expect("the alias"))
}

fn load(text: &str) -> Config {
    let source = Source { name: "bench", text, format: Format::Yaml, environment: &Environment::default() };
    source.load().expect("a valid configuration")
}

/// The bodies of five members.
pub(crate) fn member_bodies(request: &Request, ensemble: &Ensemble) -> usize {
    ensemble.panel.iter().map(|member| member_body(request, member).len()).sum()
}

/// A judge's answer of a hundred tokens, as its provider streams it.
pub(crate) fn provider_stream() -> Vec<u8> {
    let chunk = r#"{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}"#;
    format!("data: {chunk}\n\n").repeat(100).into_bytes()
}

/// Cuts a provider's stream into its events.
pub(crate) fn decode(stream: &[u8]) -> usize {
    let mut decoder = sse::Decoder::new(1 << 20);
    decoder.feed(stream).expect("short events");
    std::iter::from_fn(|| decoder.next_event()).count()
}

/// Writes a hundred pieces for a caller.
pub(crate) fn encode(answer: &mut Answer, event: &Event) -> usize {
    (0..100).map(|_| answer.event(event).expect("a piece").len()).sum()
}

/// A piece of content.
pub(crate) fn piece() -> Event {
    Event::Delta(Delta { json: Bytes::from_static(br#"{"content":" token"}"#), logprobs: None, speaks: true })
}

/// Answers at once, from memory; nobody is there in the place of `dead`.
#[derive(Debug)]
pub(crate) struct Memory(Completion);

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        let json = br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Paris."},"finish_reason":"stop"}]}"#;
        Arc::new(Self(Completion::parse(json).expect("a completion")))
    }
}

impl Caller for Memory {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        if &*call.model.name == "dead" {
            return std::future::ready(Err(Failure::Connect("refused".into()))).boxed();
        }
        let events = [
            Ok(Event::Message(Box::new(self.0.clone()))),
            Ok(Event::Finish("stop".into())),
            Ok(Event::Usage(Usage::estimate(40, 8))),
        ];
        std::future::ready(Ok(stream::iter(events).boxed())).boxed()
    }
}

/// A runner over [`Memory`], and the ensemble of three members and a judge that it runs.
pub(crate) fn runner() -> (Runner, Arc<Ensemble>) {
    let caller = Retrying::new(Memory::new(), Cooldowns::default());
    let runner = Runner::new(Arc::new(caller), Admission::new(usize::MAX), usize::MAX);
    let mut trio = Arc::into_inner(ensemble()).expect("nobody else has it");
    trio.panel.truncate(3);
    (runner, Arc::new(trio))
}

/// One whole run: three members, a judge, the answer's bytes.
pub(crate) async fn run(runner: &Runner, ensemble: &Arc<Ensemble>, body: &Bytes) -> usize {
    let context = Context { request_id: "request-1".into(), ..Context::default() };
    let admitted = runner.admit(Arc::clone(ensemble), context).await;
    let admitted = admitted.unwrap_or_else(|failed| panic!("{:?}", failed.error));
    let request = Request::parse(body.clone()).expect("a request");
    let outcome = admitted.run(request, None).await;
    let mut outcome = outcome.unwrap_or_else(|failed| panic!("{:?}", failed.error));
    let mut collected = Collected::default();
    while let Some(event) = outcome.events.next().await {
        collected.push(event.expect("no error")).expect("a piece");
    }
    let (completion, usage) = collected.finish().expect("a message");
    Answer::new("team", false).completion(&completion, &usage, None).expect("JSON").len()
}

/// So many runs that whoever is dead has cooled down.
pub(crate) async fn warm(runner: &Runner, ensemble: &Arc<Ensemble>, body: &Bytes) {
    for _ in 0..3 {
        run(runner, ensemble, body).await;
    }
}
