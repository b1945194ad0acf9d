//! Limits of aliases and direct models, counted in the process, through a real Envoy.

use consort_testkit::http::Answer;
use consort_testkit::provider::{Reply, Usage};
use serde_json::json;

use crate::stack::{Options, Stack, ms};

/// The four headers' values that do not depend on when it is.
fn quota(answer: &Answer) -> [String; 4] {
    ["limit-requests", "remaining-requests", "limit-tokens", "remaining-tokens"]
        .map(|name| answer.header(&format!("x-ratelimit-{name}")).to_owned())
}

async fn asked_as(stack: &Stack, key: &str) -> Answer {
    stack.ask(json!({"max_tokens": 25})).header("x-api-key", key).send().await
}

#[tokio::test]
async fn each_caller_has_an_aliass_limits_and_is_told_what_is_left() {
    for options in [Options::new(), Options::buffered()] {
        let options = options.ensemble("rate_limit: {rpm: 2, rpd: 100, tpm: 5000}");
        let stack = options.config("limits: {caller_key: {header: X-Api-Key}}").start().await;
        let first = asked_as(&stack, "sk-ann").await;
        assert_eq!(first.status, 200, "{}", first.text());
        let [requests, left, tokens, tokens_left] = quota(&first);
        assert_eq!((&*requests, &*left, &*tokens), ("2", "1", "5000"));
        let reserved = 5000 - tokens_left.parse::<u64>().expect("a number");
        assert!(
            reserved % 4 == 0 && (4 * 25..4 * 125).contains(&reserved),
            "four calls of 25 and the prompt: {reserved}"
        );
        let reset = first.header("x-ratelimit-reset-requests");
        assert!(reset == "1m0s" || reset.ends_with('s') && !reset.contains('m'), "{reset}");
        let streamed = stack.ask_stream().header("x-api-key", "sk-ann").send().await;
        assert_eq!((streamed.status.as_u16(), streamed.header("x-ratelimit-remaining-requests")), (200, "0"));
        let refused = asked_as(&stack, "sk-ann").await;
        assert_eq!(refused.status, 429);
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("rate_limit_exceeded"), &json!("rate_limit_error"))
        );
        let after: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=60).contains(&after), "{after}");
        assert_eq!((&*quota(&refused)[1], refused.header("x-should-retry")), ("0", ""));
        let (used, billed) =
            (5000 - quota(&refused)[3].parse::<u64>().unwrap(), stack.provider.billed_in_all());
        assert_eq!(used, billed.total(), "what was reserved has been settled");
        assert_eq!(asked_as(&stack, "sk-bob").await.status, 200);
        let nobody = || async { stack.ask(json!({})).send().await.status.as_u16() };
        assert_eq!(
            (nobody().await, nobody().await, nobody().await),
            (200, 200, 429),
            "who has no key shares one"
        );
        let lines = stack.service.logs();
        assert!(!format!("{lines:?}").contains("sk-ann"), "no key is logged");
        stack.provider.assert_clean();
    }
}

#[tokio::test]
async fn a_caller_is_known_by_what_another_filter_of_envoy_has_found_out() {
    const FILTERS: &str = "          http_filters:\n";
    const RECEIVED: &str = "metadata_options: {";
    let options = Options::new().edit(|yaml| {
        let found = r#"          - name: envoy.filters.http.header_to_metadata
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
              request_rules:
              - {header: x-team, on_header_present: {metadata_namespace: who, key: team}}
"#;
        assert!(yaml.contains(FILTERS) && yaml.contains(RECEIVED));
        let forwarded = format!("{RECEIVED}forwarding_namespaces: {{untyped: [who]}}, ");
        yaml.replace(FILTERS, &format!("{FILTERS}{found}")).replace(RECEIVED, &forwarded)
    });
    let options = options.ensemble("rate_limit: {rpm: 1}");
    let stack = options.config("limits: {caller_key: {metadata: [who, team]}}").start().await;
    let asked = async |team: &str| stack.ask(json!({})).header("x-team", team).send().await.status.as_u16();
    assert_eq!((asked("red").await, asked("red").await, asked("blue").await), (200, 429, 200));
    assert_eq!(stack.ask(json!({})).send().await.status, 200, "nobody has said who this is");
}

#[tokio::test]
async fn a_member_over_its_limit_fails_alone_and_a_panel_over_it_is_a_429() {
    let models = "- {display_name: few, provider: scripted, model_name: model-a, rate_limit: {rpm: 1}}
- {display_name: pair, ensemble: {panel: [{model: few}, {model: b}], strategy: vote, min_responses: 1}}
- {display_name: alone, ensemble: {panel: [{model: few}], strategy: vote}}";
    let stack = Options::new().models(models).start().await;
    for outcome in ["full", "quorum"] {
        let answer = stack.ask(json!({"model": "pair"})).send().await;
        assert!(answer.status == 200, "{} {outcome}", answer.text());
    }
    let lines = stack.runs_logged(2).await;
    assert!(
        lines[1]["members"].as_str().is_some_and(|members| members.contains("few=limited@")),
        "{}",
        lines[1]
    );
    let answer = stack.ask(json!({"model": "alone"})).send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["code"].clone()),
        (429, json!("rate_limit_exceeded"))
    );
    let after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((50..=60).contains(&after), "{after}");
    assert_eq!(stack.provider.requests_for("model-a").len(), 1);
    assert!(!answer.text().contains("few"), "{}", answer.text());
}

#[tokio::test]
async fn an_alias_that_has_spent_its_budget_is_refused_until_the_day_ends() {
    let models = "- {display_name: dear, provider: scripted, model_name: model-a, cost: {input_per_1k: 1, output_per_1k: 2}}
- {display_name: alone, ensemble: {panel: [{model: dear}], strategy: vote, budget: {usd_per_day: 0.45}}}";
    let stack = Options::new().models(models).start().await;
    stack.provider.model("model-a").reply(Reply::text("one").usage(Usage::new(100, 50)));
    let asked = || async { stack.ask(json!({"model": "alone"})).send().await };
    for spent in ["nothing", "0.2 USD", "0.4 USD"] {
        assert_eq!(asked().await.status, 200, "{spent}");
    }
    let refused = asked().await;
    let error = &refused.json()["error"];
    assert_eq!((refused.status.as_u16(), &error["code"]), (429, &json!("insufficient_quota")));
    assert_eq!((&error["type"], refused.header("x-should-retry")), (&json!("insufficient_quota"), "false"));
    let today = 86_400 - std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() % 86_400;
    let after: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!(after >= today && after <= today + 60, "{after} {today}");
    assert_eq!(stack.provider.requests_for("model-a").len(), 3);
}

#[tokio::test]
async fn a_judge_over_its_limit_goes_to_its_fallback() {
    let models = "- {display_name: few, provider: scripted, model_name: model-c, rate_limit: {rpm: 1}}
- display_name: judged
  ensemble: {panel: [{model: a}, {model: b}], judge: {model: few, fallback: judge}}";
    let stack = Options::new().models(models).start().await;
    for (text, outcome) in [("three", "full"), ("the judge's answer", "degraded")] {
        let answer = stack.ask(json!({"model": "judged"})).send().await;
        let told = answer.json()["choices"][0]["message"]["content"].clone();
        assert_eq!((told, answer.header("x-ensemble-outcome")), (json!(text), outcome));
    }
}

#[tokio::test]
async fn a_call_waits_for_room_where_it_may_and_a_place_is_free_when_its_caller_leaves() {
    let models = "- {display_name: one, provider: scripted, model_name: model-a, retries: 0, rate_limit: {concurrency: 1, wait_ms: 5000}}
- {display_name: alone, ensemble: {panel: [{model: one}], strategy: vote}}";
    let stack = Options::new().models(models).start().await;
    stack.provider.model("model-a").reply(Reply::stall()).then(Reply::text("one").delay(ms(100)));
    let leaving = tokio::spawn(stack.ask(json!({"model": "alone"})).try_open());
    stack.provider.wait_for("model-a", 1).await;
    let waiting = tokio::spawn(stack.ask(json!({"model": "alone"})).send());
    let other = tokio::spawn(stack.ask(json!({"model": "alone"})).send());
    stack.provider.wait_for("model-a", 1).await;
    leaving.abort();
    for waiting in [waiting, other] {
        assert_eq!(waiting.await.expect("no panic").status, 200);
    }
    let requests = stack.provider.requests_for("model-a");
    assert_eq!(requests.len(), 3);
    assert!(requests[2].at - requests[1].at >= ms(100), "one after the other");
}
