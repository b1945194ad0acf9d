//! Calls that are made again, models that are left alone, and how they come back.

use std::time::{Duration, Instant};

use consort_testkit::provider::{Reply, Usage};
use serde_json::json;

use crate::stack::{ALIAS, KEY, ONE_ATTEMPT, Options, Stack, ms};

/// The model `odd` with these fields beside the well-behaved `a` and `b`; two of the three are enough.
async fn beside(fields: &str) -> Stack {
    let fields = fields.to_owned();
    let options = Options::new().whole(move |base_url| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers: [{{name: scripted, base_url: '{base_url}', api_key: {KEY}}}]
models:
- {{display_name: a, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: b, provider: scripted, model_name: model-b, {ONE_ATTEMPT}}}
- {{display_name: odd, provider: scripted, model_name: model-odd, {fields}}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: odd}}, {{model: a}}, {{model: b}}], strategy: vote}}}}
- {{display_name: alone, ensemble: {{panel: [{{model: odd}}], strategy: vote}}}}
"
        )
    });
    options.start().await
}

fn down() -> Reply {
    Reply::error(503, "kaboom", "server_error", None)
}

/// How many requests the odd model's provider has seen.
fn seen(stack: &Stack) -> usize {
    stack.provider.requests_for("model-odd").len()
}

#[tokio::test]
async fn a_call_is_made_again_and_the_log_says_how_often() {
    let stack = beside("retries: 2").await;
    stack.provider.model("model-odd").reply(down()).then(Reply::cut()).then(Reply::text("three"));
    let answer = stack.ask(json!({})).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-ensemble-outcome")), (200, "full"));
    let requests = stack.provider.requests_for("model-odd");
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.body == requests[0].body), "the very same");
    let logged = stack.run_logged().await;
    let odd = logged["members"].as_str().and_then(|members| members.split(' ').next()).unwrap_or_default();
    assert!(odd.starts_with("odd=usable@") && odd.ends_with("x3"), "{logged}");
    assert_eq!(logged["usage.total_tokens"], stack.provider.billed_in_all().total());
}

#[tokio::test]
async fn attempts_are_counted_when_the_caller_leaves_as_well() {
    let stack = beside("retries: 1").await;
    stack.provider.model("model-odd").reply(down()).then(Reply::stall());
    let caller = tokio::spawn(stack.ask(json!({})).try_open());
    stack.provider.wait_for("model-odd", 2).await;
    caller.abort();
    stack.provider.wait_for_closed("model-odd", 1).await;
    let logged = stack.run_logged().await;
    let odd = logged["members"].as_str().and_then(|members| members.split(' ').next()).unwrap_or_default();
    assert!(odd.starts_with("odd=cancelled@") && odd.ends_with("x2"), "{logged}");
}

#[tokio::test]
async fn retry_after_is_waited_for_to_the_millisecond() {
    let stack = beside("retries: 1").await;
    let limited = Reply::rate_limited("7").header("retry-after-ms", "900");
    stack.provider.model("model-odd").reply(limited).then(Reply::text("three"));
    let answer = stack.ask(json!({"model": "alone"})).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = stack.provider.requests_for("model-odd");
    let waited = requests[1].at - requests[0].at;
    assert!(waited >= ms(890) && waited < ms(5000), "{waited:?}");
}

#[tokio::test]
async fn a_model_that_cools_down_gets_no_request_and_is_not_waited_for() {
    let stack = beside("timeout: 400, retries: 0, cooldown: {failures: 2}").await;
    stack.provider.model("model-odd").reply(Reply::stall());
    for _ in 0..2 {
        let answer = stack.ask(json!({})).send().await;
        assert!(answer.status == 200 && answer.took >= ms(400), "{:?}", answer.took);
    }
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let answer = stack.ask(json!({})).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-ensemble-outcome")), (200, "quorum"));
        quickest = quickest.min(answer.took);
    }
    assert!(quickest < ms(300), "{quickest:?}");
    assert_eq!(seen(&stack), 2);
    let cools = |line: &serde_json::Value| line["fields"]["message"] == "model cools down";
    let line = stack.service.wait_for_log(cools).await;
    assert_eq!((&line["fields"]["model"], &line["fields"]["cause"]), (&json!("odd"), &json!("timeout")));
}

#[tokio::test]
async fn one_call_finds_out_whether_a_model_is_back() {
    let stack = beside("retries: 0, cooldown: {failures: 1, default_seconds: 1}").await;
    stack.provider.model("model-odd").reply(down()).then(Reply::text("three").delay(ms(600)));
    assert_eq!(stack.ask(json!({})).send().await.header("x-ensemble-outcome"), "quorum");
    let cooled = Instant::now();
    tokio::time::sleep(ms(1050)).await;
    let probe = stack.ask(json!({}));
    let probe = tokio::spawn(probe.send());
    stack.provider.wait_for("model-odd", 2).await;
    assert!(cooled.elapsed() >= ms(1000));
    let beside = stack.ask(json!({})).send().await;
    assert_eq!(beside.header("x-ensemble-outcome"), "quorum", "the others do without it until then");
    assert_eq!(seen(&stack), 2);
    assert_eq!(probe.await.expect("no panic").header("x-ensemble-outcome"), "full");
    assert_eq!(stack.ask(json!({})).send().await.header("x-ensemble-outcome"), "full");
}

#[tokio::test]
async fn when_all_models_cool_down_a_caller_is_told_to_come_back() {
    let stack = beside("retries: 0, cooldown: {failures: 1, default_seconds: 20}").await;
    stack.provider.model("model-odd").reply(down());
    assert_eq!(stack.ask(json!({"model": "alone"})).send().await.status, 502);
    let answer = stack.ask(json!({"model": "alone"})).send().await;
    let told = (answer.status.as_u16(), answer.json()["error"]["code"].clone());
    assert_eq!(told, (503, json!("models_cooling")));
    let after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((15..=20).contains(&after), "{after}");
    assert_eq!(answer.header("x-should-retry"), "", "nobody was billed");
    assert!(!answer.text().contains("odd"), "{}", answer.text());
    assert_eq!(seen(&stack), 1);
}

#[tokio::test]
async fn a_background_check_asks_a_model_that_cools_down_so_that_no_caller_has_to() {
    let stack = beside(
        "retries: 0, cooldown: {failures: 1, default_seconds: 1},
  background_check: {interval_seconds: 1, prompt: 'Are you there?', max_tokens: 3}",
    )
    .await;
    stack
        .provider
        .model("model-odd")
        .reply(Reply::text("three"))
        .then(down())
        .then(down())
        .then(Reply::text("yes").usage(Usage::new(4, 1)));
    assert_eq!(stack.ask(json!({})).send().await.header("x-ensemble-outcome"), "full");
    tokio::time::sleep(ms(1500)).await;
    assert_eq!(seen(&stack), 1, "a model that answers is not asked");
    assert_eq!(stack.ask(json!({})).send().await.header("x-ensemble-outcome"), "quorum");
    let began = Instant::now();
    let mut asked = 0;
    while stack.ask(json!({})).send().await.header("x-ensemble-outcome") == "quorum" {
        asked += 1;
        assert!(began.elapsed() < ms(10_000), "it came back");
        tokio::time::sleep(ms(50)).await;
    }
    assert!(asked > 10, "callers did not wait for it: {asked}");
    let requests = stack.provider.requests_for("model-odd");
    assert_eq!(requests.len(), 5, "two callers, two checks, and the caller after them");
    for check in &requests[2..4] {
        let question = json!([{"role": "user", "content": "Are you there?"}]);
        assert_eq!((&check.json["messages"], &check.json["max_tokens"]), (&question, &json!(3)));
    }
    stack.service.signal("TERM");
    assert_eq!(stack.service.wait_exit(ms(8000)).await.code(), Some(0));
}

/// A quarter of all answers come sooner: what else the machine does only adds.
async fn quartile(stack: &Stack, aliases: [&str; 2], pairs: usize) -> [Duration; 2] {
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..pairs {
        for (took, alias) in took.iter_mut().zip(aliases) {
            let answer = stack.ask(json!({"model": alias})).send().await;
            assert_eq!((answer.status.as_u16(), answer.header("x-ensemble-responses")), (200, "2"));
            took.push(answer.took);
        }
    }
    took.map(|mut took| {
        took.sort_unstable();
        took[pairs / 4]
    })
}

#[tokio::test]
async fn a_dead_member_costs_nothing_once_it_cools() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options::new().whole(move |base_url| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers:
- {{name: scripted, base_url: '{base_url}', api_key: {KEY}}}
- {{name: dead, base_url: 'http://{nobody}/v1'}}
models:
- {{display_name: a, provider: scripted, model_name: model-a}}
- {{display_name: b, provider: scripted, model_name: model-b}}
- {{display_name: gone, provider: dead, model_name: model-c}}
- {{display_name: two, ensemble: {{panel: [{{model: a}}, {{model: b}}], strategy: vote}}}}
- {{display_name: three, ensemble: {{panel: [{{model: a}}, {{model: b}}, {{model: gone}}], strategy: vote}}}}
"
        )
    });
    let stack = options.start().await;
    for model in ["model-a", "model-b"] {
        stack.provider.model(model).reply(Reply::text("18").delay(ms(60)));
    }
    let cools = |line: &serde_json::Value| line["fields"]["message"] == "model cools down";
    while !stack.service.logs().iter().any(cools) {
        stack.ask(json!({"model": "three"})).send().await;
    }
    let [without, with] = quartile(&stack, ["two", "three"], 25).await;
    assert!(with <= without.mul_f64(1.05), "{with:?} with a dead member, {without:?} without");
}
