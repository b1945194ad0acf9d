//! The record of every run: in a file, between the log's lines, and what Envoy logs of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use consort_testkit::eventually;
use consort_testkit::provider::Reply;
use serde_json::{Value, json};

use crate::stack::{ALIAS, KEY, Options, Stack, ms};

/// What a thousand tokens cost at every model of these tests: read, and written.
const PRICES: (f64, f64) = (0.5, 2.0);

/// An installation whose models have a price, with these `decisions`.
async fn priced(decisions: String) -> Stack {
    let (input, output) = PRICES;
    let whole = move |base_url: &str| {
        let models: String = ["a", "b", "c", "judge"]
            .iter()
            .map(|name| {
                format!(
                    "- {{display_name: {name}, provider: p, model_name: model-{name}, retries: 0, \
                     cooldown: {{enabled: false}}, cost: {{input_per_1k: {input}, output_per_1k: {output}}}}}\n"
                )
            })
            .collect();
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers: [{{name: p, base_url: '{base_url}', api_key: {KEY}}}]
decisions: {{{decisions}}}
models:
{models}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: b}}, {{model: c}}], judge: {{model: judge}}, min_responses: 2}}}}
"
        )
    };
    Options::new().whole(whole).start().await
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn price(prompt_tokens: u64, completion_tokens: u64) -> f64 {
    (prompt_tokens as f64 * PRICES.0 + completion_tokens as f64 * PRICES.1) / 1000.0
}

#[tokio::test]
async fn mixed_runs_leave_one_decision_each_whose_sums_are_what_providers_billed() {
    const RUNS: usize = 60;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("decisions.jsonl");
    let stack = priced(format!("file: {{path: '{}'}}, stdout: true", path.display())).await;
    stack.provider.model("model-c").reply(Reply::text("three").delay(ms(60)));
    let runs = (0..RUNS).map(|number| {
        let fields = match number % 4 {
            0 => json!({}),
            1 => json!({"stream": true}),
            2 => json!({"n": 2}),
            _ => json!({"stream": number % 8 == 3}),
        };
        let call = stack.ask(fields).header("x-request-id", &format!("run-{number}"));
        async move {
            // Callers of every fourth run leave after 0 to 100 ms.
            let patience = if number % 4 == 3 { ms(number as u64 * 7 % 100) } else { ms(30_000) };
            let _left = tokio::time::timeout(patience, call.send()).await;
        }
    });
    futures_util::future::join_all(runs).await;
    // One leaves for certain while it is answered, however fast or slow the machine is.
    let asked = stack.provider.requests_for("model-judge").len();
    stack.provider.model("model-judge").reply(Reply::stall());
    let leaving = tokio::spawn(stack.ask(json!({})).header("x-request-id", "leaves").send());
    stack.provider.wait_for("model-judge", asked + 1).await;
    leaving.abort();
    stack.provider.model("model-judge").reply(Reply::text("the judge's answer"));
    stack.provider.model("model-b").reply(Reply::error(500, "down", "server_error", None));
    stack.ask(json!({})).header("x-request-id", "degraded").send().await;
    stack.provider.model("model-a").reply(Reply::error(500, "down", "server_error", None));
    stack.ask(json!({})).header("x-request-id", "missed").send().await;

    // Who leaves before Envoy has passed the request on leaves no run.
    let logged = stack.runs_logged(RUNS * 3 / 4 + 3).await;
    stack.service.signal("TERM");
    assert!(stack.service.wait_exit(Duration::from_secs(30)).await.success());
    let decisions = lines(&path);
    let ids: BTreeSet<&str> = decisions.iter().filter_map(|d| d["request_id"].as_str()).collect();
    assert_eq!(ids.len(), decisions.len(), "each once");
    assert!(decisions.len() >= logged.len(), "{} of {}", decisions.len(), logged.len());
    let with = |outcome: &str| decisions.iter().filter(|d| d["outcome"] == outcome).count();
    assert!(with("full") >= RUNS / 2 && with("quorum") == 1, "{} {}", with("full"), with("quorum"));
    assert!(with("failed") == RUNS / 4 + 1 && with("cancelled") > 0, "{} cancelled", with("cancelled"));
    for decision in &decisions {
        let usage = &decision["usage"];
        let tokens = ["prompt_tokens", "completion_tokens"].map(|field| usage[field].as_u64().unwrap_or(0));
        let cost = decision["cost_usd"].as_f64();
        assert!((cost.unwrap_or(0.0) - price(tokens[0], tokens[1])).abs() < 1e-9, "{decision}");
        let is_asked = decision["members"][0]["result"] != "not_asked";
        assert_eq!(cost.is_some(), is_asked, "{decision}");
    }
    // What was cancelled in mid-call was billed by its provider, and nobody can know how much.
    let answered = |d: &&Value| d["outcome"] == "full" || d["outcome"] == "quorum";
    let sum: u64 =
        decisions.iter().filter(answered).map(|d| d["usage"]["total_tokens"].as_u64().unwrap_or(0)).sum();
    assert!(sum > 0 && sum <= stack.provider.billed_in_all().total());
    let printed = stack.service.logs().into_iter().filter(|line| line.get("request_id").is_some()).count();
    assert_eq!(printed, decisions.len(), "standard output has them too");
    let text = fs::read_to_string(&path).expect("the file");
    assert!(
        !text.contains(KEY) && !text.contains("why?") && !text.contains("three"),
        "neither keys nor texts"
    );
}

#[tokio::test]
async fn undisturbed_runs_cost_what_their_providers_billed_to_the_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d");
    let stack = priced(format!("file: {{path: '{}'}}, include_content: true", path.display())).await;
    for number in 0..10 {
        stack.ask(json!({"stream": number % 2 == 0})).send().await;
    }
    let decisions =
        eventually("ten decisions", ms(10_000), async || Some(lines(&path)).filter(|d| d.len() == 10)).await;
    let billed = stack.provider.billed_in_all();
    let sum: u64 = decisions.iter().filter_map(|d| d["usage"]["total_tokens"].as_u64()).sum();
    let usd: f64 = decisions.iter().filter_map(|d| d["cost_usd"].as_f64()).sum();
    assert_eq!(sum, billed.total());
    assert!((usd - price(billed.prompt, billed.completion)).abs() < 1e-9, "{usd} for {billed:?}");
    let log = stack.envoy.wait_access_log(10).await;
    for line in &log {
        let of_run = decisions.iter().find(|d| d["request_id"] == line["request_id"]).expect("the same run");
        assert_eq!(line["consort"]["cost_usd"].as_f64(), of_run["cost_usd"].as_f64(), "{line}");
    }
    let first = &decisions[0];
    assert_eq!((&first["question"], &first["answer"]), (&json!("why?"), &json!("the judge's answer")));
    assert_eq!((&first["members"][2]["content"], &first["door"]), (&json!("three"), &json!("ext_proc")));
    let attempt = &first["members"][0]["tries"][0];
    assert_eq!(attempt["result"], "answered");
    let [started, first_byte, quorum, total] = [
        &attempt["started_ms"],
        &first["members"][0]["first_byte_ms"],
        &first["quorum_ms"],
        &first["total_ms"],
    ]
    .map(|figure| figure.as_f64().expect("a figure"));
    assert!(started <= first_byte && first_byte <= total && quorum <= total, "{first}");
    let failed = {
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(5)).cut_after(1));
        stack.ask_stream().send().await;
        stack.envoy.wait_access_log(11).await.remove(10)
    };
    assert!(
        failed["consort"]["cost_usd"].as_f64() > Some(0.0),
        "what broke off has cost something: {failed}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_before_anything_is_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("consort.yaml");
    fs::write(&config, "decisions: {file: {path: /proc/no/where}}\nlisten: {ext_proc: '127.0.0.1:0'}")
        .expect("a file");
    let serve =
        std::process::Command::new(env!("CARGO_BIN_EXE_consort")).arg("serve").arg("-c").arg(config).output();
    let serve = serve.expect("it ran");
    assert_eq!(serve.status.code(), Some(1));
    let told = String::from_utf8_lossy(&serve.stderr);
    assert!(told.starts_with("consort: cannot write decisions to /proc/no/where: "), "{told}");
}

#[tokio::test]
async fn a_journal_that_another_process_keeps_is_refused_before_anything_is_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = dir.path().join("journal");
    let stack = priced(format!("journal: '{}'", journal.display())).await;
    assert_eq!(stack.ask(json!({})).send().await.status, 200);
    let mut serve = tokio::process::Command::new(env!("CARGO_BIN_EXE_consort"));
    serve.arg("serve").arg("-c").arg(stack.service.config_path());
    serve.env("CONSORT__LISTEN__ADMIN", "127.0.0.1:0").kill_on_drop(true);
    let serve = tokio::time::timeout(ms(10_000), serve.output()).await;
    let serve = serve.expect("it ends").expect("it ran");
    assert_eq!(serve.status.code(), Some(1));
    let told = String::from_utf8_lossy(&serve.stderr);
    let taken =
        format!("consort: decisions.journal: another process keeps its journal in {}", journal.display());
    assert!(told.starts_with(&taken), "{told}");
    stack.service.signal("TERM");
    assert!(stack.service.wait_exit(ms(10_000)).await.success());
    assert_eq!(fs::read_to_string(journal).expect("a journal"), "", "a clean end leaves nothing");
}
