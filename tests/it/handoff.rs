//! The hand-off: Envoy's door gives a ticket, the plain door takes it and streams.

use std::time::{Duration, Instant};

use consort::signing::{Grant, Secrets, Ticket, digest, now};
use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::http::{self, Answer, Call};
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use consort_testkit::upstream::{Upstream, hash};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::clients::python_at;
use crate::stack::{ALIAS, CHAT, Options, Stack, config, ms, provider, question};

const TICKET: &str = "x-consort-ticket";
/// What replicas have in common.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const SIGNING: &str = "signing: {secrets: [0123456789abcdef0123456789abcdef]}";

/// What `/metrics` says of a counter with these labels.
async fn counted(service: &Service, series: &str) -> Option<u64> {
    let scraped = http::get(service.admin(), "/metrics").send().await;
    scraped.text().lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

fn assert_without_ticket(stack: &Stack, answers: &[&Answer]) {
    for answer in answers {
        assert!(!answer.headers.contains_key(TICKET), "{:?}", answer.headers);
        assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1);
    }
    let arrived = stack.upstream.requests();
    assert!(arrived.iter().all(|arrived| !arrived.headers.contains_key(TICKET)), "{arrived:?}");
    let asked = stack.provider.requests();
    assert!(asked.iter().all(|asked| !asked.headers.contains_key(TICKET)), "{asked:?}");
}

#[tokio::test]
async fn an_ensembles_request_is_answered_by_the_plain_door() {
    let stack = Options::handoff().start().await;
    let id = "made-by-the-caller";
    let plain = stack.ask(json!({})).header("x-request-id", id).send().await;
    assert_eq!(
        (plain.status.as_u16(), plain.header("x-ensemble-outcome")),
        (200, "full"),
        "{}",
        plain.text()
    );
    assert_eq!(plain.json()["choices"][0]["message"]["content"], "the judge's answer");
    stack.provider.model("model-judge").reply(Reply::tool_calls(&[("weather", r#"{"city": "Rome"}"#)]));
    let tools =
        json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
    let called = stack.ask(json!({"tools": tools})).h2c().send().await;
    assert_eq!(called.json()["choices"][0]["finish_reason"], "tool_calls", "{}", called.text());
    let refused = stack.ask(json!({"n": 2})).send().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["param"]), (400, &json!("n")));
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.model(model).reply(Reply::error(500, "oops", "server_error", None));
    }
    let failed = stack.ask_stream().send().await;
    assert_eq!((failed.status.as_u16(), &failed.json()["error"]["code"]), (502, &json!("quorum_not_met")));
    assert_without_ticket(&stack, &[&plain, &called, &refused, &failed]);
    assert!(stack.upstream.requests().is_empty());
    assert_eq!(
        counted(&stack.service, &format!("consort_handoffs_total{{alias=\"{ALIAS}\"}} ")).await,
        Some(4)
    );
    assert_eq!(counted(&stack.service, "consort_passthrough_total ").await, Some(0));
    let log = stack.envoy.wait_access_log(4).await;
    let told = ["cluster", "route", "alias", "outcome", "request_id"].map(|field| &log[0][field]);
    assert_eq!(told, [&json!("consort_http"), &json!("handoff"), &json!(ALIAS), &json!("full"), &json!(id)]);
    let asked = stack.provider.requests_for("model-a").remove(0);
    assert_eq!(asked.header("x-request-id"), id);
}

#[tokio::test]
async fn a_stream_arrives_as_the_judge_speaks() {
    const GAP: Duration = ms(150);
    let stack = Options::handoff().start().await;
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is", " so", "."], GAP));
    for by in [|call| call, Call::h2c] {
        let mut live = by(stack.ask_stream()).open().await;
        let mut came = Vec::new();
        while let Some(event) = live.event().await {
            came.push(event);
        }
        assert!(came.last().is_some_and(|event| event.is_done()));
        let spoke = came[4].at - came[1].at;
        assert!(spoke > 2 * GAP, "three pieces after the first took {spoke:?}");
    }
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let options = Options::handoff().config("stream: {commit_after_ms: 100, heartbeat_ms: 50}");
    let stack = options.start().await;
    stack.provider.model("model-a").reply(Reply::text("one").delay(ms(600)));
    let answer = stack.ask_stream().send().await;
    assert!(answer.text().matches(": waiting\n\n").count() >= 3, "{}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_calls_along() {
    let stack = Options::handoff().start().await;
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.model(model).reply(Reply::stall());
    }
    for (n, call) in [stack.ask(json!({})), stack.ask_stream().h2c()].into_iter().enumerate() {
        let asking = tokio::spawn(call.try_open());
        stack.provider.wait_for("model-c", n + 1).await;
        asking.abort();
        let left = Instant::now();
        stack.provider.wait_for_closed("model-a", n + 1).await;
        assert!(left.elapsed() < ms(500), "{:?}", left.elapsed());
    }
}

#[tokio::test]
async fn large_bodies_and_bodies_with_trailers_are_handed_off_whole() {
    let stack = Options::handoff().start().await;
    let large = json!({"user": "x".repeat(8 << 20)});
    let answer = stack.ask(large).send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-ensemble-outcome")),
        (200, "full"),
        "{}",
        answer.text()
    );
    assert_eq!(stack.ask(json!({"user": "x".repeat(32 << 20)})).send().await.status, 413);
    for h2c in [false, true] {
        let call = http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json");
        let mut upload = if h2c { call.h2c() } else { call }.upload(&["x-check"]).await;
        upload.piece(question(json!({})).to_string()).await;
        let answer = upload.finish_with(&[("x-check", "1")]).await.rest().await;
        assert_eq!(answer.header("x-ensemble-outcome"), "full", "h2c: {h2c} {}", answer.text());
    }
}

#[tokio::test]
async fn what_is_not_the_ensembles_goes_to_its_upstream_and_a_settled_condition_is_not_asked_again() {
    // The header that decides is gone when the door sees the request.
    let stack = Options::handoff()
        .ensemble("when: \"request.headers['x-tier'] == 'gold'\", otherwise: c")
        .edit(|yaml| {
            let route = "              - name: handoff ";
            replace_once(
                yaml,
                route,
                &format!(
                    "              - request_headers_to_remove: [x-tier]\n                name: handoff "
                ),
            )
        })
        .start()
        .await;
    let asked = async |tier: &str| stack.ask(json!({})).header("x-tier", tier).send().await;
    let gold = asked("gold").await;
    assert_eq!(gold.header("x-ensemble-outcome"), "full", "{}", gold.text());
    assert_eq!(asked("iron").await.header("x-upstream"), "echo");
    let body = question(json!({"model": "model-c"})).to_string();
    assert_eq!(stack.upstream.requests().remove(0).hash, hash(body.as_bytes()));
    // In doubt it is the ensemble's, and the record says so.
    assert_eq!(stack.ask(json!({})).send().await.header("x-ensemble-outcome"), "full");
    let runs = stack.runs_logged(2).await;
    assert_eq!(runs.iter().map(|run| run["condition_failed"] == true).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn the_limits_know_the_caller_that_envoys_door_has_seen() {
    let found = |yaml: String| {
        let filters = "          http_filters:\n";
        let filter = r#"          - name: envoy.filters.http.header_to_metadata
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
              request_rules:
              - {header: x-team, on_header_present: {metadata_namespace: who, key: team}, remove: true}
"#;
        let yaml = replace_once(yaml, filters, &format!("{filters}{filter}"));
        let status = "              status_on_error:";
        let forwarded = "              metadata_options: {forwarding_namespaces: {untyped: [who]}}\n";
        replace_once(yaml, status, &format!("{forwarded}{status}"))
    };
    for (key, options) in
        [("metadata: [who, team]", Options::handoff().edit(found)), ("header: x-team", Options::handoff())]
    {
        let options = options.ensemble("rate_limit: {rpm: 1}");
        let stack = options.config(&format!("limits: {{caller_key: {{{key}}}}}")).start().await;
        let asked =
            async |team: &str| stack.ask(json!({})).header("x-team", team).send().await.status.as_u16();
        assert_eq!((asked("red").await, asked("red").await, asked("blue").await), (200, 429, 200), "{key}");
    }
}

/// A ticket as Envoy's door writes them.
fn ticket(alias: &str, body: &Value, secret: &str, issued: u64) -> String {
    let secrets = Secrets::new([secret.as_bytes()]).unwrap();
    let grant = Grant { alias: alias.to_owned(), caller: None, in_doubt: false };
    let body = digest([body.to_string().as_bytes()]);
    Ticket::issue(grant, body, ms(10_000), &secrets, issued).unwrap()
}

#[tokio::test]
async fn a_ticket_opens_the_door_once_for_the_request_that_it_was_made_for() {
    let provider = provider().await;
    let hex: String = Sha256::digest("sk-ours").iter().map(|byte| format!("{byte:02x}")).collect();
    let more = format!("{SIGNING}\nhttp: {{api_keys: ['sha256:{hex}']}}\nlog: {{level: trace}}");
    let service = Service::start(env!("CARGO_BIN_EXE_consort"), &config(&provider, "", "", &more)).await;
    let body = question(json!({}));
    let asked = || http::post(service.http(), CHAT).json(&body);
    assert_eq!(asked().send().await.status, 401, "without a ticket, keys are asked for");
    let (late, other) = (now() - 10_000, question(json!({"seed": 1})));
    let good = ticket(ALIAS, &body, SECRET, now());
    let (word, signature) = good.split_once('.').unwrap();
    let forged = [
        String::new(),
        "x".to_owned(),
        word.to_owned(),
        format!("{word}.{}", "A".repeat(signature.len())),
        ticket(ALIAS, &body, "fedcba9876543210fedcba9876543210", now()),
    ];
    let mut wrong: Vec<(&str, String)> = forged.map(|text| ("forged", text)).into();
    wrong.push(("expired", ticket(ALIAS, &body, SECRET, late)));
    wrong.push(("other_body", ticket(ALIAS, &other, SECRET, now())));
    wrong.push(("other_alias", ticket("a", &body, SECRET, now())));
    let mut told = Vec::new();
    for (why, text) in &wrong {
        let refused = asked().header(TICKET, text).header("x-request-id", "same").send().await;
        assert_eq!(refused.status, 403, "{why} {}", refused.text());
        let mut headers = refused.headers.clone();
        headers.remove("date");
        told.push((refused.text().to_owned(), headers));
    }
    assert!(told.iter().all(|refused| *refused == told[0]), "{told:?}");
    assert_eq!(serde_json::from_str::<Value>(&told[0].0).unwrap()["error"]["code"], "invalid_ticket");
    assert!(provider.requests().is_empty());

    let opened = asked().header(TICKET, &good).send().await;
    assert_eq!(
        (opened.status.as_u16(), opened.header("x-ensemble-outcome")),
        (200, "full"),
        "{}",
        opened.text()
    );
    assert!(!opened.headers.contains_key(TICKET));
    // With a key, too: who presents a ticket is judged by it.
    let replayed = asked().header(TICKET, &good).header("authorization", "Bearer sk-ours").send().await;
    assert_eq!(
        (replayed.status.as_u16(), replayed.json()["error"]["code"].as_str()),
        (403, Some("invalid_ticket"))
    );
    assert_eq!(provider.requests().len(), 4, "one run");
    assert_eq!(
        http::get(service.http(), "/v1/models")
            .header(TICKET, &ticket(ALIAS, &body, SECRET, now()))
            .send()
            .await
            .status,
        401
    );
    for (why, n) in [("forged", 5), ("expired", 1), ("other_body", 1), ("other_alias", 1), ("replayed", 1)] {
        let series = format!("consort_tickets_refused_total{{reason=\"{why}\"}} ");
        assert_eq!(counted(&service, &series).await, Some(n), "{why}");
    }
    let logs = format!("{:?}", service.logs());
    assert!(!logs.contains(word) && !logs.contains(SECRET));
    let shown = http::get(service.admin(), "/config").send().await;
    assert!(shown.text().contains("signing") && !shown.text().contains(SECRET), "{}", shown.text());
}

#[tokio::test]
async fn a_ticket_of_a_callers_own_means_nothing_to_envoy() {
    let plain = json!({"model": "gpt-4o", "messages": []});
    let stack = Options::handoff().config(SIGNING).start().await;
    let with_ticket =
        |body: &Value, text: &str| http::post(stack.envoy.addr(), CHAT).json(body).header(TICKET, text);
    let answer = with_ticket(&question(json!({})), "forged").send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-ensemble-outcome")),
        (200, "full"),
        "{}",
        answer.text()
    );
    let answer = with_ticket(&plain, "forged").send().await;
    assert_eq!(answer.header("x-upstream"), "echo");
    let answer = http::get(stack.envoy.addr(), "/v1/models").header(TICKET, "forged").send().await;
    assert_eq!(answer.header("x-upstream"), "echo");
    assert_without_ticket(&stack, &[]);

    // Without the first fence the second one holds: the door refuses it.
    let stack = Options::handoff()
        .config(SIGNING)
        .edit(|yaml| replace_once(yaml, "- remove: x-consort-ticket", "- remove: x-nothing"))
        .start()
        .await;
    for body in [question(json!({})), plain] {
        let answer = http::post(stack.envoy.addr(), CHAT).json(&body).header(TICKET, "forged").send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
            (403, Some("invalid_ticket"))
        );
    }
    assert!(stack.upstream.requests().is_empty() && stack.provider.requests().is_empty());
}

/// An Envoy with one Consort for its processor and another for its door.
async fn between(first: &Service, second: Option<&Service>, upstream: &Upstream) -> Envoy {
    let options = EnvoyOptions::shipped("envoy-handoff.yaml").consort(first.addr()).upstream(upstream.addr());
    let Some(second) = second else {
        // Nobody is asked whether he is well: the ticket is written, and then the door is gone.
        let unchecked = |yaml: String| {
            replace_once(
                yaml,
                "http_health_check: {path: /health, codec_client_type: HTTP2}",
                "tcp_health_check: {}",
            )
        };
        let envoy = Envoy::start(options.edit(unchecked)).await;
        let healthy = async || envoy.stats("cluster.consort.membership_healthy").await == 1;
        consort_testkit::eventually("the processor to be healthy", ms(10_000), async || {
            healthy().await.then_some(())
        })
        .await;
        return envoy;
    };
    let envoy = Envoy::start(options.consort_http(second.http())).await;
    envoy.wait_healthy().await;
    envoy
}

async fn replica(provider: &Provider, secret: &str) -> Service {
    let more = format!("ext_proc: {{handoff: {{enabled: true}}}}\nsigning: {{secrets: [{secret}]}}");
    Service::start(env!("CARGO_BIN_EXE_consort"), &config(provider, "", "", &more)).await
}

#[tokio::test]
async fn replicas_with_a_secret_in_common_take_each_others_tickets() {
    let (provider, upstream) = (provider().await, Upstream::start().await);
    let first = replica(&provider, SECRET).await;
    let second = replica(&provider, &format!("fedcba9876543210fedcba9876543210, {SECRET}")).await;
    let stranger = replica(&provider, "fedcba9876543210fedcba9876543210").await;
    for (door, status, outcome) in [(&second, 200, "full"), (&stranger, 403, "")] {
        let envoy = between(&first, Some(door), &upstream).await;
        let answer = http::post(envoy.addr(), CHAT).json(&question(json!({}))).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-ensemble-outcome")),
            (status, outcome),
            "{}",
            answer.text()
        );
    }
    second.wait_for_log(|line| line["fields"]["message"] == "ensemble answered").await;
    assert!(first.logs().iter().all(|line| line["fields"]["message"] != "ensemble answered"));
}

#[tokio::test]
async fn a_door_that_is_gone_is_a_503_and_no_prompt_reaches_the_upstream() {
    let (provider, upstream) = (provider().await, Upstream::start().await);
    let first = replica(&provider, SECRET).await;
    let envoy = between(&first, None, &upstream).await;
    for fields in [json!({}), json!({"stream": true})] {
        let answer = http::post(envoy.addr(), CHAT).json(&question(fields)).send().await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.headers.contains_key(TICKET));
    }
    assert!(upstream.requests().is_empty() && provider.requests().is_empty());
    let plain = http::post(envoy.addr(), CHAT).json(&json!({"model": "gpt-4o"})).send().await;
    assert_eq!(plain.header("x-upstream"), "echo", "plain models go on");
}

#[tokio::test]
async fn the_python_sdk_reads_handed_off_answers() {
    let stack = Options::handoff().config("stream: {commit_after_ms: 100, heartbeat_ms: 50}").start().await;
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is", " so."], ms(1)));
    let said = python_at("answers", stack.envoy.addr()).await;
    assert_eq!(said["plain"]["choices"][0]["message"]["content"], "It is so.");
    assert_eq!(said["stream"]["contents"], json!(["It", " is", " so."]));
}
