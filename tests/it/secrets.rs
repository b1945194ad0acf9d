//! No secret leaves the process but to where it belongs, however much is said.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use consort_testkit::provider::{Provider, Reply};
use consort_testkit::{eventually, http};
use serde_json::json;

use crate::stack::{ALIAS, KEY, ONE_ATTEMPT, Options, ms};

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

#[tokio::test]
async fn a_key_is_sent_to_its_providers_origin_and_nowhere_that_this_one_names() {
    let elsewhere = Provider::start().await;
    let other = Provider::start().await;
    other.require_key("sk-of-the-other");
    other.model("model-b").reply(Reply::text("two"));
    let others = other.base_url();
    let whole = move |base_url: &str| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers:
- {{name: scripted, base_url: '{base_url}', api_key: {KEY}}}
- {{name: other, base_url: '{others}', api_key: sk-of-the-other}}
models:
- {{display_name: a, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: b, provider: other, model_name: model-b, {ONE_ATTEMPT}}}
- {{display_name: judge, provider: scripted, model_name: model-judge, {ONE_ATTEMPT}}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: b}}], judge: {{model: judge}}, min_responses: 1, single_candidate: judge}}}}
"
        )
    };
    let stack = Options::new().whole(whole).start().await;
    for (status, path) in
        [(301, "/v1/chat/completions"), (302, "/"), (303, "/"), (307, "/v1/chat/completions"), (308, "/")]
    {
        let away = || {
            let location = format!("http://{}{path}", elsewhere.addr());
            Reply::status(status, json!({})).header("location", &location)
        };
        stack.provider.model("model-a").reply(away());
        stack.provider.model("model-judge").reply(Reply::text("it is so"));
        let answer = stack.ask(json!({})).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-ensemble-responses")),
            (200, "1"),
            "{}",
            answer.text()
        );
        stack.provider.model("model-judge").reply(away());
        let answer = stack.ask_stream().send().await;
        assert_eq!(answer.header("x-ensemble-outcome"), "degraded", "{status}: {}", answer.text());
    }
    assert_eq!((elsewhere.requests().len(), elsewhere.open_connections()), (0, 0), "nobody has been there");
    for (provider, own) in [(&stack.provider, KEY), (&other, "sk-of-the-other")] {
        let requests = provider.requests();
        assert!(requests.len() >= 10);
        for request in requests {
            let values: Vec<_> = request.headers.values().filter_map(|value| value.to_str().ok()).collect();
            assert!(
                values.iter().all(|value| !value.contains("sk-") || *value == format!("Bearer {own}")),
                "{values:?}"
            );
        }
    }
}

/// The bound on core dumps of a process, as the system tells it.
fn core_limit(id: u32) -> Option<String> {
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"))?;
    Some(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn no_core_is_dumped_and_nobodys_memory_is_read_unless_that_is_allowed() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let (file, program) = (dir.path().join("consort.yaml"), dir.path().join("consort"));
    fs::write(&file, "listen: {ext_proc: '127.0.0.1:0', admin: none}\n").expect("written");
    // Where another user may run it, too.
    fs::copy(env!("CARGO_BIN_EXE_consort"), &program).expect("copied");
    let us = fs::metadata(&file).expect("ours").uid();
    let uid = if us == 0 { NOBODY } else { us };
    for (allows, argument) in [(false, None), (true, Some("--allow-core-dumps"))] {
        let mut command = Command::new("sh");
        // As a shell would have it that wants dumps, as far as it may have it.
        command.args(["-c", "ulimit -S -c $(ulimit -H -c); exec \"$@\"", "sh"]).arg(&program);
        command.arg("serve").args(argument).arg("-c").arg(&file);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit()).current_dir(dir.path());
        if us == 0 {
            command.uid(uid).gid(uid);
        }
        let before = core_limit(std::process::id()).expect("our own");
        let hard = before.split(' ').nth(1).expect("a hard one").to_owned();
        let mut child = command.spawn().expect("it starts");
        let id = child.id();
        let expected = if allows { format!("{hard} {hard}") } else { "0 0".to_owned() };
        // The files of a process whose memory others may not read are not its user's.
        let owner = if allows { uid } else { 0 };
        let is_running =
            || fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "consort");
        eventually("the process to have settled", ms(10_000), async || {
            let owner_is = fs::metadata(format!("/proc/{id}/environ")).ok()?.uid();
            let limit = core_limit(id)?;
            (is_running() && limit == expected && owner_is == owner).then_some(())
        })
        .await;
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
}
