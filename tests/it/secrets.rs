//! No secret leaves the process but to where it belongs, however much is said.

use std::fs;

use consort_testkit::provider::Reply;
use consort_testkit::{eventually, http};
use serde_json::json;

use crate::stack::{ALIAS, KEY, Options, ms};

/// What nobody may find anywhere.
const SECRETS: [&str; 5] =
    [KEY, "sk-of-a-caller", "proxy-password", "collector-password", "sk-in-a-wrong-file"];

#[tokio::test]
async fn no_secret_is_in_anything_that_consort_says_at_its_most_verbose() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("decisions.jsonl");
    let decisions = file.display().to_string();
    let whole = move |base_url: &str| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
log: {{level: trace}}
decisions: {{file: {{path: '{decisions}'}}, stdout: true, include_content: true}}
limits: {{caller_key: {{header: authorization}}}}
providers:
- {{name: ours, base_url: '{base_url}', api_key: {KEY}}}
- {{name: theirs, base_url: '{base_url}', api_key: passthrough}}
- {{name: behind, base_url: 'https://models.internal/v1', api_key: {KEY}, proxy: 'http://user:proxy-password@127.0.0.1:9'}}
models:
- {{display_name: a, provider: ours, model_name: model-a, retries: 1, cooldown: {{enabled: false}}}}
- {{display_name: b, provider: theirs, model_name: model-b, retries: 0}}
- {{display_name: c, provider: behind, model_name: model-c, retries: 0}}
- {{display_name: judge, provider: ours, model_name: model-judge}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: b}}, {{model: c}}], judge: {{model: judge}}, min_responses: 1, single_candidate: judge, rate_limit: {{rpm: 100}}}}}}
- {{display_name: alone, ensemble: {{panel: [{{model: a}}], strategy: first, trace: always}}}}
"
        )
    };
    let stack = Options::new()
        .whole(whole)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .environment("OTEL_EXPORTER_OTLP_HEADERS", "authorization=collector-password")
        .start()
        .await;
    // The caller's own key goes to the provider that wants it, and is none of this provider's.
    stack.provider.expect_violation("authorization");
    stack.provider.forgive();
    let ask = |fields| stack.ask(fields).header("authorization", "Bearer sk-of-a-caller");
    let mut said = String::new();
    for fields in [json!({}), json!({"stream": true}), json!({"model": "alone"})] {
        said.push_str(ask(fields).send().await.text());
    }
    let telling = format!("Incorrect API key provided: {KEY}. You can find it at https://h");
    for status in [401, 400, 500] {
        let reply = Reply::error(status, &telling, "invalid_request_error", Some("invalid_api_key"));
        stack.provider.model("model-a").reply(reply);
        for stream in [false, true] {
            said.push_str(ask(json!({"model": "alone", "stream": stream})).send().await.text());
        }
    }
    stack.provider.model("model-a").reply(Reply::text("one"));
    stack.provider.model("model-judge").reply(Reply::stall());
    let leaving = tokio::spawn(ask(json!({})).try_open());
    stack.provider.wait_for("model-judge", 3).await;
    leaving.abort();
    stack.runs_logged(10).await;

    let good = fs::read_to_string(stack.service.config_path()).expect("ours");
    let wrong = good
        .replace(&format!("api_key: {KEY}"), "api_key: [sk-in-a-wrong-file], api_kee: sk-in-a-wrong-file");
    fs::write(stack.service.config_path(), wrong).expect("written");
    let admin = stack.service.admin();
    eventually("the wrong file to be refused", ms(10_000), async || {
        let told = http::get(admin, "/readyz").send().await;
        (told.json()["config"]["state"] == "stale").then_some(())
    })
    .await;
    for path in [
        "/readyz",
        "/config",
        "/models",
        "/metrics",
        "/version",
        "/v1/decisions",
        "/v1/models",
        "/",
        "/nowhere",
    ] {
        said.push_str(http::get(admin, path).header("host", "localhost").send().await.text());
    }
    let newest = http::get(admin, "/v1/decisions").header("host", "localhost").send().await.json();
    let newest = newest["decisions"][0]["sequence"].as_u64().expect("a decision");
    let stream = format!("/v1/decisions/stream?since={newest}");
    let mut live = http::get(admin, &stream).header("host", "localhost").open().await;
    said.push_str(live.event().await.and_then(|event| event.data).as_deref().expect("what has happened"));

    stack.service.signal("TERM");
    stack.service.wait_exit(ms(30_000)).await;
    let logs = format!("{:?}", stack.service.logs());
    let lines = fs::read_to_string(&file).expect("decisions");
    assert!(logs.contains("DEBUG") && lines.lines().count() >= 10, "much was said");
    let places = [
        ("an answer or a page", said),
        ("the log", logs),
        ("stderr", stack.service.stderr()),
        ("the file", lines),
    ];
    for (place, text) in &places {
        for secret in SECRETS {
            if let Some(at) = text.find(secret) {
                let from = text.floor_char_boundary(at.saturating_sub(200));
                panic!("{secret} is in {place}: {}", &text[from..text.ceil_char_boundary(at + 60)]);
            }
        }
    }
}
