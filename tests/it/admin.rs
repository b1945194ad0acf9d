//! Operators' listener at the real program.

use std::process::{Command, Stdio};

use ::http::Method;
use consort_testkit::http::{self, Call};
use consort_testkit::provider::Reply;
use consort_testkit::service::Service;
use http::Answer;
use serde_json::{Value, json};

use crate::stack::{ALIAS, CHAT, KEY, Options, Stack, config, ms, provider};

const CONSORT: &str = env!("CARGO_BIN_EXE_consort");

/// What `path` answers.
async fn got(service: &Service, path: &str) -> Answer {
    http::get(service.admin(), path).send().await
}

async fn told(service: &Service, path: &str) -> Value {
    got(service, path).await.json()
}

#[tokio::test]
async fn operators_are_told_what_is_in_force_and_how_it_fares() {
    let fields = "retries: 0, cooldown: {failures: 1}, rate_limit: {rpm: 9, concurrency: 4}, cost: {input_per_1k: 1, output_per_1k: 1}";
    let odd = format!(
        "- {{display_name: odd, provider: scripted, model_name: model-odd, {fields}}}
- {{display_name: alone, ensemble: {{panel: [{{model: odd}}], strategy: vote, rate_limit: {{rpd: 7}}, budget: {{usd_per_day: 2.5}}}}}}"
    );
    let stack = Options::new().models(&odd).start().await;
    stack.provider.model("model-odd").reply(Reply::error(503, "kaboom", "server_error", None));
    stack.ask(json!({"model": "alone"})).send().await;
    assert_eq!(got(&stack.service, "/livez").await.status, 200);
    let ready = told(&stack.service, "/readyz").await;
    assert_eq!((&ready["ready"], &ready["config"]["generation"]), (&json!(true), &json!(1)));
    let models = told(&stack.service, "/models").await;
    let odd = &models["models"][4];
    assert_eq!(
        (&odd["name"], &odd["state"], &odd["provider"]),
        (&json!("odd"), &json!("cooling"), &json!("scripted"))
    );
    assert_eq!((&odd["last_error"], &odd["failures"]), (&json!("server_error"), &json!(1)), "{odd}");
    let limits = &odd["limits"];
    assert_eq!((&limits["rpm"]["used"], &limits["rpm"]["limit"]), (&json!(1), &json!(9)), "{odd}");
    assert!(limits["rpm"]["reset_s"].as_f64().is_some_and(|s| (0.0..=60.0).contains(&s)), "{odd}");
    assert_eq!(limits["concurrency"], json!({"used": 0, "limit": 4, "reset_s": null}));
    assert_eq!(models["models"][0]["limits"], json!({}));
    let alone = &models["ensembles"][0];
    let bounds = (&alone["rate_limit"], &alone["budget"]);
    assert_eq!(bounds, (&json!({"rpd": 7}), &json!({"usd_per_day": 2.5, "spent_usd": 0.0})));
    let names: Vec<_> = models["ensembles"].as_array().unwrap().iter().map(|e| e["name"].clone()).collect();
    assert_eq!(names, ["alone", ALIAS]);
    let shown = got(&stack.service, "/config").await;
    assert!(!shown.text().contains(KEY), "{}", shown.text());
    assert_eq!(shown.json()["providers"][0]["api_key"], "[redacted]");
    assert_eq!(shown.json()["limits"]["max_inflight"], 4096);
    assert_eq!(told(&stack.service, "/version").await["version"], env!("CARGO_PKG_VERSION"));
    let metrics = got(&stack.service, "/metrics").await;
    assert!(metrics.text().contains("consort_config_last_reload_successful 1"), "{}", metrics.text());
    let h2c = http::get(stack.service.admin(), "/livez").h2c().send().await;
    assert_eq!(h2c.status, 200);
}

#[tokio::test]
async fn a_page_of_another_origin_learns_and_changes_nothing() {
    let provider = provider().await;
    let service = Service::start(CONSORT, &config(&provider, "", "", "")).await;
    let call = |method, path, name, value| Call::new(method, service.admin(), path).header(name, value);
    // All that it serves, but for what probes and scrapers ask by a pod's address.
    let served = [
        (Method::GET, "/"),
        (Method::GET, "/console/console.css"),
        (Method::GET, "/config"),
        (Method::GET, "/models"),
        (Method::GET, "/version"),
        (Method::GET, "/log-level"),
        (Method::PUT, "/log-level"),
        (Method::GET, "/v1/decisions"),
        (Method::GET, "/v1/decisions/stream"),
        (Method::GET, "/v1/models"),
        (Method::POST, CHAT),
        (Method::POST, "/consort.decision.v1.DecisionLog/Watch"),
    ];
    for (method, path) in served {
        for (name, value, code) in [
            ("host", "evil.example", "foreign_host"),
            ("origin", "http://evil.example", "foreign_origin"),
            ("origin", "null", "foreign_origin"),
        ] {
            let refused = call(method.clone(), path, name, value).body("{}").send().await;
            assert_eq!(
                (refused.status.as_u16(), &refused.json()["error"]["code"]),
                (403, &json!(code)),
                "{method} {path} {name}: {value}"
            );
        }
    }
    let put = call(Method::PUT, "/log-level", "origin", "http://evil.example").body("trace").send().await;
    assert_eq!((put.status.as_u16(), &put.json()["error"]["code"]), (403, &json!("foreign_origin")));
    assert_eq!(told(&service, "/log-level").await["level"], "info");
    let probe = call(Method::GET, "/readyz", "host", "10.1.2.3:9902").send().await;
    assert_eq!(probe.status, 200);
}

#[tokio::test]
async fn the_log_level_changes_while_requests_run() {
    let stack = Stack::start().await;
    stack.provider.model("model-a").reply(Reply::error(503, "kaboom", "server_error", None));
    let debug_lines = || stack.service.logs().iter().filter(|line| line["level"] == "DEBUG").count();
    stack.ask(json!({})).send().await;
    stack.runs_logged(1).await;
    assert_eq!(debug_lines(), 0);
    let put = Call::new(Method::PUT, stack.service.admin(), "/log-level").body("debug").send().await;
    assert_eq!((put.status.as_u16(), put.json()), (200, json!({"level": "debug"})));
    stack.ask(json!({})).send().await;
    stack.runs_logged(2).await;
    assert!(debug_lines() > 0);
}

#[tokio::test]
async fn a_second_consort_on_the_same_address_says_which_one_is_taken() {
    let provider = provider().await;
    let service = Service::start(CONSORT, &config(&provider, "", "", "")).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("consort.yaml");
    std::fs::write(&file, format!("listen: {{ext_proc: '127.0.0.1:0', admin: '{}'}}", service.admin()))
        .unwrap();
    let mut second = Command::new(CONSORT);
    second.args(["serve", "-c"]).arg(&file).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || second.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("consort: cannot listen on {} (`listen.admin`): ", service.admin());
    assert!(said.starts_with(&expected), "{said}");
}

#[tokio::test]
async fn the_listener_is_turned_off_or_behind_a_socket() {
    let provider = provider().await;
    let without = config(&provider, "", "", "").replacen("'127.0.0.1:0'", "'127.0.0.1:0', admin: none", 1);
    let service = Service::start(CONSORT, &without).await;
    assert_eq!(service.admin().port(), 0);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let behind = without.replace("admin: none", &format!("admin: 'unix:{}'", socket.display()));
    let _service = Service::start(CONSORT, &behind).await;
    let heard = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut peer = std::os::unix::net::UnixStream::connect(socket).unwrap();
        peer.set_read_timeout(Some(ms(10_000))).unwrap();
        peer.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        text
    });
    assert!(heard.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
}
