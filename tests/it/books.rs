//! Decisions, metrics and what providers bill: three books of the same runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use consort_testkit::provider::{Provider, Received, Reply, Usage};
use consort_testkit::{eventually, http};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::stack::{ALIAS, KEY, Options, Stack, ms};

const RUNS: usize = 500;
/// What a thousand tokens cost at every model: read, and written.
const PRICES: (f64, f64) = (0.5, 2.0);

/// What becomes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// The judge fails, and the best candidate stands in.
    Degraded,
    /// Two of three members fail.
    QuorumMissed,
    /// The judge fails where nobody may stand in.
    JudgeFailed,
    /// The caller leaves after so many ms.
    Left(u64),
}

fn fate(run: usize) -> Fate {
    match run % 10 {
        0..=3 => Fate::Answered,
        4 => Fate::Degraded,
        5 => Fate::QuorumMissed,
        6 => Fate::JudgeFailed,
        // Scattered over a run, and a little beyond its end.
        _ => Fate::Left((run as u64 * 37) % 150),
    }
}

/// The run that a request belongs to: its question says so, in whatever it is wrapped.
fn run_of(request: &Received) -> usize {
    let text = request.json.to_string();
    let digits = text.split("run-").nth(1).expect("the question").chars().take_while(char::is_ascii_digit);
    digits.collect::<String>().parse().expect("a number")
}

/// What providers have billed each run.
type Bills = Arc<Mutex<BTreeMap<usize, Usage>>>;

fn script(provider: &Provider, bills: &Bills) {
    for (place, name) in ["model-a", "model-b", "model-c", "model-judge"].into_iter().enumerate() {
        let bills = Arc::clone(bills);
        provider.model(name).answer(move |request| {
            let run = run_of(request);
            let fails = match fate(run) {
                Fate::QuorumMissed => place == 1 || place == 2,
                Fate::Degraded | Fate::JudgeFailed => place == 3,
                Fate::Answered | Fate::Left(_) => false,
            };
            if fails {
                // Later than the others answer: who is still heard when the quorum is out of reach is cancelled.
                return Reply::error(500, "down", "server_error", None).delay(ms(60));
            }
            let usage = Usage::new(10 + (run % 7) as u64, 3 + place as u64);
            let mut bills = bills.lock().unwrap();
            let bill = bills.entry(run).or_default();
            *bill = bill.plus(usage);
            Reply::text(format!("{name} on run {run}")).usage(usage).delay(ms(10 * place as u64 + 10))
        });
    }
}

async fn stack(decisions: String) -> Stack {
    let whole = move |base_url: &str| {
        let model = |name: &&str| {
            format!(
                "- {{display_name: {name}, provider: p, model_name: model-{name}, retries: 0, cooldown: {{enabled: false}}, \
                 cost: {{input_per_1k: {}, output_per_1k: {}}}}}\n",
                PRICES.0, PRICES.1
            )
        };
        let models: String = ["a", "b", "c", "judge"].iter().map(model).collect();
        let panel = "panel: [{model: a}, {model: b}, {model: c}], judge: {model: judge}, min_responses: 2";
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers: [{{name: p, base_url: '{base_url}', api_key: {KEY}}}]
decisions: {{file: {{path: '{decisions}'}}}}
models:
{models}- {{display_name: {ALIAS}, ensemble: {{{panel}}}}}
- {{display_name: strict, ensemble: {{{panel}, on_judge_failure: fail}}}}
"
        )
    };
    Options::new().whole(whole).start().await
}

/// Asks, as long as the run's fate has it; whether an answer came, and its status.
async fn ask(stack: &Stack, run: usize) -> Option<u16> {
    let alias = if fate(run) == Fate::JudgeFailed { "strict" } else { ALIAS };
    let question = json!([{"role": "user", "content": format!("run-{run}: why?")}]);
    let fields = json!({"model": alias, "messages": question, "stream": run.is_multiple_of(2)});
    let call = stack.ask(fields).header("x-request-id", &format!("run-{run}"));
    let Fate::Left(after) = fate(run) else {
        return Some(call.send().await.status.as_u16());
    };
    tokio::time::timeout(ms(after), call.send()).await.ok().map(|answer| answer.status.as_u16())
}

/// The sum of a metric's series that have this label, or of all.
fn metric(text: &str, name: &str, label: &str) -> f64 {
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name).unwrap_or("x");
        rest.starts_with([' ', '{']) && line.contains(label)
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn count(decision: &Value, field: &str) -> u64 {
    decision["usage"][field].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn five_hundred_mixed_runs_stand_once_and_alike_in_all_books() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("decisions.jsonl");
    let stack = stack(path.display().to_string()).await;
    let bills = Bills::default();
    script(&stack.provider, &bills);
    let asked = futures_util::stream::iter(0..RUNS).map(|run| {
        let stack = &stack;
        async move { (run, ask(stack, run).await) }
    });
    let answered: Vec<_> = asked.buffer_unordered(25).collect().await;
    for (run, status) in &answered {
        let expected = match fate(*run) {
            Fate::Answered | Fate::Degraded => Some(200),
            Fate::QuorumMissed | Fate::JudgeFailed => Some(502),
            Fate::Left(_) => continue,
        };
        assert_eq!(*status, expected, "run {run}");
    }
    // A caller that has left before Envoy had passed its request on leaves no run.
    let began = stack.runs_logged(RUNS * 7 / 10).await.len();
    let metrics = eventually("every run to be over", ms(10_000), async || {
        let text = http::get(stack.service.admin(), "/metrics").send().await.text().to_owned();
        (metric(&text, "consort_inflight", "") == 0.0).then_some(text)
    })
    .await;
    stack.service.signal("TERM");
    assert!(stack.service.wait_exit(ms(30_000)).await.success());
    let text = fs::read_to_string(&path).expect("the file");
    let decisions: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a decision")).collect();

    let ids: BTreeSet<_> = decisions.iter().filter_map(|decision| decision["request_id"].as_str()).collect();
    assert_eq!(ids.len(), decisions.len(), "each once");
    assert!(decisions.len() >= began && decisions.len() <= RUNS, "{} of {began}", decisions.len());
    let bills = bills.lock().unwrap();
    for decision in &decisions {
        let run = decision["request_id"].as_str().and_then(|id| id.strip_prefix("run-")).expect("ours");
        let run: usize = run.parse().expect("a number");
        let outcome = decision["outcome"].as_str().expect("a word");
        let (read, written) = (count(decision, "prompt_tokens"), count(decision, "completion_tokens"));
        let bill = bills.get(&run).copied().unwrap_or_default();
        match fate(run) {
            Fate::Answered => assert_eq!(outcome, "full"),
            Fate::Degraded => assert_eq!(outcome, "degraded"),
            Fate::QuorumMissed | Fate::JudgeFailed => assert_eq!(outcome, "failed"),
            Fate::Left(_) => assert!(matches!(outcome, "cancelled" | "full"), "{outcome}"),
        }
        let members = decision["members"].as_array().expect("a panel");
        if outcome == "cancelled" || members.iter().any(|member| member["result"] == "cancelled") {
            // What was on its way when nobody wanted it any more was billed, and nobody has read how much: at most a
            // guess.
            assert!(matches!(fate(run), Fate::Left(_) | Fate::QuorumMissed), "run {run}");
            let is_guess = decision["usage"]["estimated"] == true;
            assert!(is_guess || (read <= bill.prompt && written <= bill.completion), "run {run}");
        } else {
            assert_eq!((read, written), (bill.prompt, bill.completion), "run {run}");
            assert_eq!(decision["usage"]["estimated"], false);
        }
        let cost = decision["cost_usd"].as_f64().unwrap_or_default();
        let due = (read as f64 * PRICES.0 + written as f64 * PRICES.1) / 1000.0;
        assert!((cost - due).abs() < 1e-9, "run {run}: {cost}, not {due}");
    }

    let with = |outcome: &str| decisions.iter().filter(|decision| decision["outcome"] == outcome).count();
    assert!(with("cancelled") > 30, "{} left", with("cancelled"));
    for outcome in ["full", "degraded", "failed", "cancelled"] {
        let label = format!("outcome=\"{outcome}\"");
        assert_eq!(metric(&metrics, "consort_requests_total", &label) as usize, with(outcome), "{outcome}");
    }
    for (kind, field) in [("input", "prompt_tokens"), ("output", "completion_tokens")] {
        let sum: u64 = decisions.iter().map(|decision| count(decision, field)).sum();
        let label = format!("gen_ai_token_type=\"{kind}\"");
        assert_eq!(metric(&metrics, "gen_ai_client_token_usage_sum", &label) as u64, sum, "{kind}");
    }
    let spent: f64 = decisions.iter().filter_map(|decision| decision["cost_usd"].as_f64()).sum();
    let counted = metric(&metrics, "consort_cost_usd_total", "");
    assert!((counted - spent).abs() < 1e-6, "{counted}, not {spent}");
}
