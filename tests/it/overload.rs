//! More than can be done: what is answered then, how quickly the rest is refused, and when it is over.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use consort_testkit::http::Answer;
use consort_testkit::provider::Reply;
use consort_testkit::{eventually, http};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep_until;

use crate::stack::{ALIAS, CHAT, Options, Stack, ms};

/// How many runs are admitted at once, and how long one takes: with its panel, and with its judge.
const PLACES: u32 = 12;
const HALF: Duration = ms(300);
/// How long each load lasts.
const LASTS: Duration = ms(5000);

/// What a load has come to.
struct Seen {
    /// When each answer had ended, from the beginning of the load, and the answer.
    runs: Vec<(Duration, Answer)>,
    /// How long requests for a plain model took meanwhile.
    passed: Vec<Duration>,
}

impl Seen {
    /// Runs that were answered, by the second, until the last was.
    fn goodput(&self) -> f64 {
        let answered = self.runs.iter().filter(|(_, answer)| answer.status == 200);
        let last = answered.clone().map(|(at, _)| *at).max().unwrap_or_default();
        answered.count() as f64 / last.as_secs_f64()
    }
}

/// The value below which this share of the values lies.
fn quantile(values: impl IntoIterator<Item = Duration>, share: f64) -> Duration {
    let mut values: Vec<Duration> = values.into_iter().collect();
    values.sort();
    values[((values.len() - 1) as f64 * share) as usize]
}

/// Who asks again as soon as there is an answer: as many as there are places.
async fn load_once(stack: &Stack) -> Seen {
    let began = tokio::time::Instant::now();
    let asking = join_all((0..PLACES).map(|_| async move {
        let mut runs = Vec::new();
        while began.elapsed() < LASTS {
            let answer = stack.ask(json!({})).send().await;
            runs.push((began.elapsed(), answer));
        }
        runs
    }));
    let (runs, passed) = tokio::join!(asking, pass_until(stack, began + LASTS));
    Seen { runs: runs.concat(), passed }
}

/// Three times as many as that comes to, whether answers come or not.
async fn load_thrice(stack: &Stack) -> Seen {
    let apart = 2 * HALF / PLACES / 3;
    let began = tokio::time::Instant::now();
    let runs = LASTS.div_duration_f64(apart) as u32;
    let asking = join_all((0..runs).map(|run| async move {
        sleep_until(began + apart * run).await;
        let answer = stack.ask(json!({})).send().await;
        (began.elapsed(), answer)
    }));
    let (runs, passed) = tokio::join!(asking, pass_until(stack, began + LASTS));
    Seen { runs, passed }
}

/// Asks a plain model again and again; how long each answer took.
async fn pass_until(stack: &Stack, until: tokio::time::Instant) -> Vec<Duration> {
    let mut passed = Vec::new();
    while tokio::time::Instant::now() < until {
        passed.push(pass(stack).await);
        tokio::time::sleep(ms(20)).await;
    }
    passed
}

async fn pass(stack: &Stack) -> Duration {
    let body = json!({"model": "plain", "messages": [{"role": "user", "content": "why?"}]});
    let answer = http::post(stack.envoy.addr(), CHAT).json(&body).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-upstream")), (200, "echo"));
    answer.took
}

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!((answer.header("retry-after"), &answer.json()["error"]["code"]), ("1", &json!("overloaded")));
}

/// Waits, at most the five seconds in which all has to be normal again, until every place can be taken at once and plain
/// requests take no longer than before.
async fn assert_normal(stack: &Stack, calm: Duration) {
    eventually("all to be normal", ms(5000), async || {
        let answers = join_all((0..PLACES).map(|_| stack.ask(json!({})).send())).await;
        let passed = quantile([pass(stack).await, pass(stack).await, pass(stack).await], 0.5);
        let is_normal = answers.iter().all(|answer| answer.status == 200) && passed < calm * 3 + ms(20);
        is_normal.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_of_what_is_admitted_costs_those_who_are_refused_and_nobody_else() {
    let stack = Options::new().config(&format!("limits: {{max_inflight: {PLACES}}}")).start().await;
    for model in ["model-a", "model-b", "model-c", "model-judge"] {
        stack.provider.model(model).reply(Reply::text("one").delay(HALF));
    }
    let once = load_once(&stack).await;
    let thrice = load_thrice(&stack).await;

    let (peak, goodput) = (once.goodput(), thrice.goodput());
    assert!(goodput > 0.9 * peak, "{goodput} runs a second, of {peak}");
    let refused: Vec<&Answer> =
        thrice.runs.iter().map(|(_, answer)| answer).filter(|answer| answer.status != 200).collect();
    assert!(refused.len() > thrice.runs.len() / 2, "{} of {}", refused.len(), thrice.runs.len());
    refused.iter().for_each(|answer| assert_refused(answer));
    let quickly = quantile(refused.iter().map(|answer| answer.took), 0.9);
    assert!(quickly < HALF / 2, "refused after {quickly:?}");
    let [calm, pressed] = [&once, &thrice].map(|seen| quantile(seen.passed.iter().copied(), 0.5));
    assert!(pressed < calm * 3 + ms(20), "passed after {pressed:?}, and {calm:?} before");
    assert_normal(&stack, calm).await;
}

/// Threads that never rest, so that a process that is nicer than they are has a tenth of each core; until this is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn beside(process: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
        let threads = threads.map(|thread| thread.expect("a thread").file_name());
        let reniced = Command::new("renice").args(["-n", "10", "-p"]).args(threads).output().expect("renice");
        assert!(reniced.status.success(), "{reniced:?}");
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || while !is_over.load(Ordering::Relaxed) {});
        }
        Self(is_over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_keep_up_refuses_runs_and_lets_the_rest_pass() {
    let stack = Options::new().config("limits: {max_lateness_ms: 10}").start().await;
    let busy = Busy::beside(stack.service.id());
    let until = Instant::now() + ms(6000);
    let callers = join_all((0..96).map(|_| {
        let stack = &stack;
        async move {
            let mut answers = Vec::new();
            while Instant::now() < until {
                answers.push(stack.ask(json!({})).send().await);
            }
            answers
        }
    }));
    let passing = async {
        while Instant::now() < until {
            pass(&stack).await;
        }
    };
    let (answers, ()) = tokio::join!(callers, passing);
    drop(busy);
    let answers = answers.concat();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!refused.is_empty() && refused.len() < answers.len(), "{} of {}", refused.len(), answers.len());
    refused.iter().for_each(|answer| assert_refused(answer));
    eventually("runs to be admitted again", ms(5000), async || {
        (stack.ask(json!({"model": ALIAS})).send().await.status == 200).then_some(())
    })
    .await;
    let told: Value = stack.run_logged().await;
    assert_eq!(told["alias"], ALIAS);
}
