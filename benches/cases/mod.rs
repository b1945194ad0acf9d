//! What is measured, once for time and once for instructions and allocations.

#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot run has nothing to say")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use consort::chat::{Answer, Collected, Completion, Delta, Event, ModelScan, Request, Scan, Usage, sse};
use consort::config::{Config, Environment, Format, Source};
use consort::ensemble::{Context, Ensemble, Runner, member_body};
use consort::limits::{Admission, Cooldowns};
use consort::telemetry::decision::Outcome;
use consort::telemetry::{About, Account, Decisions, Door, Ended, Part, Seat, Sinks};
use consort::upstream::{Call, Caller, Events, Failure, Retrying};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

/// What is measured.
pub(crate) struct Case {
    pub(crate) name: String,
    /// How many bytes it reads, where that is what it does.
    pub(crate) bytes: Option<u64>,
    run: Box<dyn Fn()>,
}

impl Case {
    fn new(name: impl Into<String>, run: impl Fn() + 'static) -> Self {
        Self { name: name.into(), bytes: None, run: Box::new(run) }
    }

    pub(crate) fn run(&self) {
        (self.run)();
    }

    /// What comes but once: the first runs find out who is dead, and fill what is kept.
    pub(crate) fn prepare(&self) {
        (0..4).for_each(|_| self.run());
    }
}

/// Everything that is measured.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in SIZES {
        let body = body(size);
        let bytes = Some(body.len() as u64);
        let run = move || drop(black_box(detect(black_box(&body))));
        cases.push(Case { bytes, ..Case::new(format!("alias_detection/{size}"), run) });
    }
    let (five, request) = (named("team"), Request::parse(body(100 << 10)).expect("a request"));
    cases.push(Case::new("five_member_bodies", move || {
        black_box(member_bodies(black_box(&request), &five));
    }));
    let stream = provider_stream();
    cases.push(Case::new("sse_decode_100", move || {
        black_box(decode(black_box(&stream)));
    }));
    let piece = piece();
    cases.push(Case::new("sse_encode_100", move || {
        black_box(encode(&mut Answer::new("team", false), black_box(&piece)));
    }));
    cases.push(Case::new("decision", decision()));
    let small = body(1 << 10);
    for (name, alias) in [
        ("run_three_and_a_judge", "trio"),
        // What a dead member costs once it is left alone: the difference.
        ("run_and_a_judge/two", "pair"),
        ("run_and_a_judge/two_and_one_that_cools_down", "maimed"),
        ("run_vote_of_16/numbers", "numbers"),
        ("run_vote_of_16/texts", "texts"),
    ] {
        cases.push(Case::new(name, whole_run(named(alias), small.clone())));
    }
    cases
}

/// The sizes of bodies in which an alias is looked for: 1 KiB, 100 KiB, 10 MiB.
const SIZES: [usize; 3] = [1 << 10, 100 << 10, 10 << 20];

/// A request body of about `size` bytes whose model comes last: the whole of it must be read.
fn body(size: usize) -> Bytes {
    let turn = r#"{"role":"user","content":"What do \"panels\" of models add, and \\ when?"},"#;
    let turns = turn.repeat(size / turn.len());
    Bytes::from(format!(
        r#"{{"messages":[{}],"temperature":0.7,"model":"team"}}"#,
        turns.trim_end_matches(',')
    ))
}

/// Whether the body names a model, found as Envoy's pieces come.
fn detect(body: &[u8]) -> Scan {
    ModelScan::default().feed(body)
}

fn named(alias: &str) -> Arc<Ensemble> {
    let text = "
providers: [{name: p, base_url: 'http://127.0.0.1:1/v1'}]
models:
- {display_name: a, provider: p, model_name: model-a}
- {display_name: dead, provider: p, model_name: model-dead}
- {display_name: judge, provider: p, model_name: model-judge}
- {display_name: trio, ensemble: {panel: [{model: a}, {model: a}, {model: a, temperature: 0.2}], judge: {model: judge}}}
- {display_name: pair, ensemble: {panel: [{model: a}, {model: a}], judge: {model: judge}}}
- {display_name: maimed, ensemble: {panel: [{model: dead}, {model: a}, {model: a}], judge: {model: judge}}}
- display_name: team
  ensemble: {panel: [{model: a}, {model: a}, {model: a, temperature: 0.2}, {model: a}, {model: a}], judge: {model: judge}}
";
    let sixteen = ["{model: a}"; 16].join(", ");
    let votes = format!(
        "- {{display_name: numbers, ensemble: {{panel: [{sixteen}], strategy: vote, answer: number}}}}
- {{display_name: texts, ensemble: {{panel: [{sixteen}], strategy: vote, answer: text}}}}
"
    );
    let config = load(&format!("{text}{votes}"));
    Arc::clone(config.snapshot.ensemble(alias).expect("the alias"))
}

fn load(text: &str) -> Config {
    let source = Source { name: "bench", text, format: Format::Yaml, environment: &Environment::default() };
    source.load().expect("a valid configuration")
}

/// The bodies of five members.
fn member_bodies(request: &Request, ensemble: &Ensemble) -> usize {
    ensemble.panel.iter().map(|member| member_body(request, member).len()).sum()
}

/// A judge's answer of a hundred tokens, as its provider streams it.
fn provider_stream() -> Vec<u8> {
    let chunk = r#"{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}"#;
    format!("data: {chunk}\n\n").repeat(100).into_bytes()
}

/// Cuts a provider's stream into its events.
fn decode(stream: &[u8]) -> usize {
    let mut decoder = sse::Decoder::new(1 << 20);
    decoder.feed(stream).expect("short events");
    std::iter::from_fn(|| decoder.next_event()).count()
}

/// Writes a hundred pieces for a caller.
fn encode(answer: &mut Answer, event: &Event) -> usize {
    (0..100).map(|_| answer.event(event).expect("a piece").len()).sum()
}

/// A piece of content.
fn piece() -> Event {
    Event::Delta(Delta { json: Bytes::from_static(br#"{"content":" token"}"#), logprobs: None, speaks: true })
}

/// Answers at once, from memory; nobody is there in the place of `dead`.
#[derive(Debug)]
struct Memory(Completion);

impl Memory {
    fn new() -> Arc<Self> {
        let json = br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"It follows from the question that the answer is 42."},"finish_reason":"stop"}]}"#;
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

/// Whole runs of an ensemble, over [`Memory`].
fn whole_run(ensemble: Arc<Ensemble>, body: Bytes) -> impl Fn() {
    let caller = Retrying::new(Memory::new(), Cooldowns::default());
    let runner = Runner::new(Arc::new(caller), Admission::new(usize::MAX), usize::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    move || {
        black_box(runtime.block_on(run(&runner, &ensemble, black_box(&body))));
    }
}

/// The record of a run of three members and a judge, kept in the ring as in the program.
fn decision() -> impl Fn() {
    let decisions = Decisions::open(&Sinks { ring: 8, ..Sinks::default() }).expect("no file, no failure");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    move || {
        let _clock = runtime.enter();
        let about = About {
            request_id: "request-1",
            alias: "team",
            strategy: "judge",
            quorum: 2,
            door: Door::ExtProc,
        };
        let panel = [("a", 1.0), ("b", 1.0), ("c", 1.0)];
        let mut account = Account::open(&decisions, about, panel.into_iter());
        account.panel_began(false);
        let ended = Ended { result: "usable", usage: Some(Usage::estimate(40, 8)), estimate: None };
        for member in 0..3 {
            account.member_began(member, None).begin();
            account.ended(Seat::Member(member), &ended);
        }
        account.quorum_met();
        account.panel_ended(0, None);
        let (judge, attempts) = account.judge_began("judge", Part::Judge, None);
        attempts.begin();
        account.ended(judge, &ended);
        account.chosen(judge);
        account.settle(Outcome::Full);
    }
}

/// One whole run: three members, a judge, the answer's bytes.
async fn run(runner: &Runner, ensemble: &Arc<Ensemble>, body: &Bytes) -> usize {
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
