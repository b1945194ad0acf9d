//! Calls over a scripted caller, in paused time.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Mutex;

use super::*;
use crate::chat::{Body, Completion, Delta};
use crate::limits::Cooldown;
use crate::telemetry::Attempts;
use crate::upstream::fixture::{self, Script, Step, fails, piece, says, status, tokens};
use crate::upstream::{Bounds, Passed, bound};

/// What each attempt does, in order; and when they were made.
#[derive(Debug, Default)]
struct Line {
    scripts: Mutex<VecDeque<Script>>,
    made: Mutex<Vec<Instant>>,
}

impl Caller for Line {
    fn call(&self, _: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        self.made.lock().unwrap().push(Instant::now());
        let script = self.scripts.lock().unwrap().pop_front().expect("one more attempt");
        Box::pin(async move {
            let events = futures_util::stream::iter(script).then(async |(wait, event)| {
                tokio::time::sleep(wait).await;
                event.map_err(|failure| failure())
            });
            Ok(events.boxed())
        })
    }
}

/// What came of a call: its words, or the failure; when each attempt began, in ms; its attempts.
#[derive(Debug, PartialEq)]
struct Came {
    of_it: Result<String, &'static str>,
    made: Vec<u128>,
}

/// A model and everything that is known of it.
struct Rig {
    line: Arc<Line>,
    retrying: Retrying<Line>,
    model: Arc<DirectModel>,
    attempts: Arc<Attempts>,
}

impl Rig {
    fn new(scripts: impl IntoIterator<Item = Script>, change: impl FnOnce(&mut DirectModel)) -> Self {
        let line = Arc::new(Line { scripts: Mutex::new(scripts.into_iter().collect()), ..Line::default() });
        let mut model = Arc::into_inner(fixture::model("m")).unwrap();
        model.retries = 2;
        change(&mut model);
        let retrying = Retrying::new(Arc::clone(&line), Cooldowns::default());
        Self { line, retrying, model: Arc::new(model), attempts: Arc::default() }
    }

    fn begin(&self, bounds: Bounds) -> BoxFuture<'static, Result<Events, Failure>> {
        let call = self.retrying.call(Call {
            model: Arc::clone(&self.model),
            body: Body::default(),
            max_tokens: None,
            stream: true,
            passed: Arc::new(Passed::default()),
            bounds,
            attempts: Arc::clone(&self.attempts),
        });
        Box::pin(bound(call, bounds.until()))
    }

    async fn call(&self, bounds: Bounds) -> Came {
        let began = Instant::now();
        self.line.made.lock().unwrap().clear();
        let heard = async {
            let mut words = String::new();
            let mut events = self.begin(bounds).await?;
            while let Some(event) = events.next().await {
                words.push_str(&match event? {
                    Event::Message(message) => message.content.unwrap_or_default(),
                    Event::Delta(delta) if delta.speaks => "*".to_owned(),
                    Event::Delta(_) => "-".to_owned(),
                    Event::Usage(usage) => usage.count("total_tokens").to_string(),
                    Event::Finish(_) | Event::Decision(_) => ".".to_owned(),
                });
            }
            Ok(words)
        };
        let of_it = heard.await.map_err(|failure: Failure| failure.label());
        let made = self.line.made.lock().unwrap();
        Came { of_it, made: made.iter().map(|at| at.duration_since(began).as_millis()).collect() }
    }

    async fn call_unbound(&self) -> Came {
        self.call(Bounds::default()).await
    }
}

fn within(ms: u64) -> Bounds {
    Bounds { timeout: Some(Instant::now() + Duration::from_millis(ms)), deadline: None }
}

fn cooldown(failures: u32) -> Option<Cooldown> {
    Some(Cooldown {
        failures: NonZeroU32::new(failures).unwrap(),
        first: Duration::from_secs(30),
        longest: Duration::from_secs(600),
        statuses: [401, 429, 503].into(),
    })
}

fn role() -> Event {
    let json = bytes::Bytes::from_static(b"{\"content\":\"\"}");
    Event::Delta(Delta { json, logprobs: None, speaks: false })
}

fn now(event: Event) -> Step {
    (Duration::ZERO, Ok(event))
}

fn cut() -> Step {
    (Duration::ZERO, Err(|| Failure::Incomplete))
}

fn down() -> Script {
    fails(0, || status(503, "", None))
}

fn came(of_it: Result<&str, &'static str>, made: &[u128]) -> Came {
    Came { of_it: of_it.map(str::to_owned), made: made.to_vec() }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_is_followed_by_another_after_a_growing_pause() {
    let rig = Rig::new([down(), down(), says(5, "one")], |_| {});
    let Came { of_it, made } = rig.call_unbound().await;
    assert_eq!((of_it.as_deref(), made.len()), (Ok("one.15"), 3));
    assert!((125..=251).contains(&made[1]), "{made:?}");
    assert!((250..=502).contains(&(made[2] - made[1])), "{made:?}");
    let rig = Rig::new([down(), down(), down()], |_| {});
    let Came { of_it, made } = rig.call_unbound().await;
    assert_eq!((of_it, made.len()), (Err("server_error"), 3));
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_tried_again() {
    let io = || Box::new(std::io::Error::other("x"));
    assert!(Failure::Connect(io()).is_transient() && Failure::Broken(io()).is_transient());
    assert!(Failure::Incomplete.is_transient() && Failure::ErrorEvent.is_transient());
    for code in [408, 409, 429, 500, 502, 503, 504, 529] {
        assert!(status(code, "", None).is_transient(), "{code}");
    }
    for code in [302, 400, 401, 403, 404, 413, 422] {
        assert!(!status(code, "", None).is_transient(), "{code}");
    }
    let cooling = Failure::Cooling { retry_after: Duration::ZERO };
    for failure in [Failure::Timeout, Failure::TooLarge { max_bytes: 1 }, Failure::Unreadable(io()), cooling]
    {
        assert!(!failure.is_transient(), "{failure}");
    }
    let rig = Rig::new([fails(0, || status(400, "", None))], |_| {});
    assert_eq!(rig.call_unbound().await, came(Err("bad_request"), &[0]));
    let rig = Rig::new([down()], |model| model.retries = 0);
    assert_eq!(rig.call_unbound().await, came(Err("server_error"), &[0]));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_kept_where_it_fits_and_no_other_attempt_is_made_where_it_does_not() {
    let told: fn() -> Failure = || status(429, "", Some(Duration::from_secs(3)));
    let rig = || Rig::new([fails(0, told), says(0, "one")], |_| {});
    assert_eq!(rig().call_unbound().await, came(Ok("one.15"), &[0, 3000]));
    assert_eq!(rig().call(within(3001)).await, came(Ok("one.15"), &[0, 3000]));
    assert_eq!(rig().call(within(3000)).await, came(Err("rate_limited"), &[0]));
    let by_run = Bounds { deadline: within(2000).timeout, ..within(9000) };
    assert_eq!(rig().call(by_run).await, came(Err("rate_limited"), &[0]));
    let late: fn() -> Failure = || status(429, "", Some(Duration::from_secs(60)));
    let rig = Rig::new([fails(0, late)], |_| {});
    assert_eq!(rig.call_unbound().await, came(Err("rate_limited"), &[0]), "nobody waits for so long");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_begun_again_until_it_speaks_and_never_after() {
    let silent = vec![now(role()), now(Event::Usage(tokens(7, 1))), cut()];
    let spoken = fixture::streams(0, &["a", "b"]);
    let rig = Rig::new([silent.clone(), spoken], |_| {});
    let Came { of_it, made } = rig.call_unbound().await;
    assert_eq!((of_it.as_deref(), made.len()), (Ok("**.15"), 2), "nothing of the first one is heard");

    let broken = vec![now(role()), now(piece("a")), cut()];
    let rig = Rig::new([broken], |_| {});
    assert_eq!(rig.call_unbound().await, came(Err("incomplete"), &[0]));

    let wordless = vec![now(role()), now(Event::Finish("stop".into())), now(Event::Usage(tokens(7, 0)))];
    let rig = Rig::new([wordless], |_| {});
    assert_eq!(rig.call_unbound().await, came(Ok("-.7"), &[0]), "an empty answer is one");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_often_is_left_alone_and_then_tried_once() {
    let rig =
        Rig::new([down(), down(), down(), says(0, "one"), says(0, "two")], |m| m.cooldown = cooldown(2));
    let Came { of_it, made } = rig.call_unbound().await;
    assert_eq!((of_it, made.len()), (Err("server_error"), 2), "the third attempt would meet a cooling model");
    assert_eq!(rig.call_unbound().await, came(Err("cooling"), &[]));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(rig.call_unbound().await, came(Err("server_error"), &[0]), "a probe is one attempt");
    tokio::time::advance(Duration::from_secs(59)).await;
    let Err(Failure::Cooling { retry_after }) = rig.begin(Bounds::default()).await.map(drop) else {
        panic!("it cools twice as long");
    };
    assert_eq!(retry_after, Duration::from_secs(1));
    tokio::time::advance(retry_after).await;
    assert_eq!(rig.call_unbound().await, came(Ok("one.15"), &[0]));
    assert_eq!(rig.call_unbound().await, came(Ok("two.15"), &[0]));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_refused_and_calls_that_are_cancelled_do_not_cool_a_model() {
    let refused = || fails(0, || status(400, "", None));
    let slow = || says(50, "late");
    let rig = Rig::new([refused(), refused(), slow(), slow(), says(0, "one")], |m| m.cooldown = cooldown(1));
    for _ in 0..2 {
        assert_eq!(rig.call_unbound().await, came(Err("bad_request"), &[0]));
    }
    let deadline = Bounds { deadline: within(20).timeout, timeout: within(90).timeout };
    assert_eq!(rig.call(deadline).await, came(Err("timeout"), &[0]), "the run had no more time");
    let left = tokio::time::timeout(Duration::from_millis(20), rig.call_unbound()).await;
    assert!(left.is_err(), "its caller has left");
    assert_eq!(rig.call_unbound().await, came(Ok("one.15"), &[0]));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_had_all_its_time_has_failed_by_the_models_fault() {
    let rig = Rig::new([says(50, "late"), says(50, "late")], |m| m.cooldown = cooldown(2));
    assert_eq!(rig.call(within(20)).await, came(Err("timeout"), &[0]));
    assert_eq!(rig.call(within(20)).await, came(Err("timeout"), &[0]));
    assert_eq!(rig.call_unbound().await, came(Err("cooling"), &[]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_a_failure_and_one_that_ends_begins_anew() {
    let broken = || vec![now(piece("a")), cut()];
    let whole = Completion::parse(br#"{"choices":[{"message":{"content":"x"}}]}"#).unwrap();
    let whole = vec![now(Event::Message(Box::new(whole)))];
    let rig = Rig::new([broken(), whole, broken(), broken()], |m| m.cooldown = cooldown(2));
    for expected in [Err("incomplete"), Ok("x"), Err("incomplete"), Err("incomplete")] {
        assert_eq!(rig.call_unbound().await, came(expected, &[0]));
    }
    assert_eq!(rig.call_unbound().await, came(Err("cooling"), &[]));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_for_more_time_than_there_is_is_not_called_again() {
    let forever = || status(503, "", Some(Duration::from_secs(i64::MAX as u64)));
    let rig = Rig::new([fails(5, forever)], |_| {});
    assert_eq!(rig.call(within(60_000)).await, Came { of_it: Err("server_error"), made: vec![0] });
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_key_cools_no_model_for_others() {
    let refused = || fails(1, || status(401, "", None));
    let rig = Rig::new([refused(), refused(), says(1, "yes")], |model| {
        model.cooldown = cooldown(1);
        Arc::get_mut(&mut model.provider).unwrap().credential = Credential::Passthrough;
    });
    assert_eq!(rig.call_unbound().await.of_it, Err("auth"));
    assert_eq!(rig.call_unbound().await.of_it, Err("auth"));
    assert_eq!(rig.call_unbound().await.of_it, Ok("yes.15".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn who_speaks_until_its_time_is_over_is_well() {
    let speaks =
        || vec![(Duration::from_millis(1), Ok(piece("a"))), (Duration::from_secs(60), Ok(piece("b")))];
    let rig = Rig::new([speaks(), speaks(), says(1, "yes")], |model| model.cooldown = cooldown(1));
    assert_eq!(rig.call(within(1000)).await.of_it, Err("timeout"));
    assert_eq!(rig.call(within(1000)).await.of_it, Err("timeout"));
    assert_eq!(rig.call_unbound().await.of_it, Ok("yes.15".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn who_failed_is_told_as_failed_although_the_model_cools_meanwhile() {
    let down = || status(503, "", Some(Duration::from_secs(1)));
    let rig =
        Rig::new([fails(1, down), fails(1, down), fails(1, down)], |model| model.cooldown = cooldown(3));
    let (first, others) = tokio::join!(rig.begin(Bounds::default()), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let one = rig.begin(Bounds::default());
        let two = rig.begin(Bounds::default());
        tokio::join!(one, two)
    });
    assert_eq!(first.err().unwrap().label(), "server_error");
    assert!(others.0.is_err() && others.1.is_err());
}
