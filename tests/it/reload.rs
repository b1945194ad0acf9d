//! The configuration follows its file, under the feet of requests.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use consort_testkit::eventually;
use consort_testkit::http;
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::stack::{ALIAS, CHAT, KEY, ONE_ATTEMPT, Options, config, ms, provider, question};

const LONG: std::time::Duration = ms(20_000);

/// Puts another file in the place of this one, as editors and tools do.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

async fn ready(service: &Service) -> Value {
    http::get(service.admin(), "/readyz").send().await.json()
}

/// Waits until the file is in force for the `n`th time.
async fn generation(service: &Service, n: u64) -> Value {
    eventually(&format!("generation {n}"), LONG, async || {
        Some(ready(service).await)
            .filter(|ready| ready["config"]["generation"] == n && ready["config"]["state"] == "ok")
    })
    .await
}

/// Waits until the file is refused.
async fn refused(service: &Service) -> Value {
    eventually("the file to be refused", LONG, async || {
        Some(ready(service).await).filter(|ready| ready["config"]["state"] == "stale")
    })
    .await
}

async fn gauge(service: &Service, name: &str) -> f64 {
    let metrics = http::get(service.admin(), "/metrics").send().await;
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {}", metrics.text()))
}

/// A whole configuration that names itself everywhere: its members say `candidate 7`, its judge `verdict 7`.
fn version(base_url: &str, n: usize) -> String {
    format!(
        "listen: {{ext_proc: '127.0.0.1:0'}}
providers: [{{name: scripted, base_url: '{base_url}', api_key: {KEY}}}]
models:
- {{display_name: a, provider: scripted, model_name: a-{n}, {ONE_ATTEMPT}}}
- {{display_name: b, provider: scripted, model_name: b-{n}, {ONE_ATTEMPT}}}
- {{display_name: judge, provider: scripted, model_name: judge-{n}, {ONE_ATTEMPT}}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: b}}], judge: {{model: judge}}}}}}
"
    )
}

fn script(provider: &Provider, n: usize) {
    for member in ["a", "b"] {
        let said = format!("candidate {n}.");
        provider.model(&format!("{member}-{n}")).reply(Reply::text(said).delay(ms(100)));
    }
    provider.model(&format!("judge-{n}")).answer(move |received| {
        // A judge that is shown another version's candidates says so.
        let text = String::from_utf8_lossy(&received.body).into_owned();
        let shown: BTreeSet<&str> = text
            .split("candidate ")
            .skip(1)
            .filter_map(|rest| rest.split('.').next())
            .filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        let whole = shown.iter().all(|number| **number == n.to_string()) && shown.len() == 1;
        Reply::text(if whole { format!("verdict {n}") } else { format!("mixed {n}: {shown:?}") })
            .delay(ms(100))
    });
}

/// 200 callers that ask without a pause while the file changes 50 times, and every third time to one that is wrong.
#[tokio::test]
async fn requests_in_flight_are_each_answered_by_one_whole_configuration() {
    const RELOADS: usize = 50;
    let stack = Options::new().whole(|base_url| version(base_url, 0)).start().await;
    (0..=RELOADS).for_each(|n| script(&stack.provider, n));
    stack.provider.forget_contents();
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let caller = async || {
        let mut seen = BTreeSet::new();
        while !over.load(Ordering::Relaxed) {
            let answer = stack.ask(json!({})).patience(ms(60_000)).send().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("x-ensemble-outcome"), "full");
            let said =
                answer.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
            let number = said.strip_prefix("verdict ").and_then(|number| number.parse::<usize>().ok());
            seen.insert(number.unwrap_or_else(|| panic!("{said}")));
            answered.fetch_add(1, Ordering::Relaxed);
        }
        seen
    };
    let operator = async {
        eventually("200 callers to be served", LONG, async || {
            (answered.load(Ordering::Relaxed) >= 200).then_some(())
        })
        .await;
        let mut good = 1;
        for n in 1..=RELOADS {
            let text = version(&stack.provider.base_url(), n);
            if n % 3 == 0 {
                replace(
                    &stack.service.config_path(),
                    &text.replace("judge: {model: judge}", "judge: {model: jude}"),
                );
                let ready = refused(&stack.service).await;
                let problems = ready["config"]["last_error"]["problems"].to_string();
                assert!(
                    problems.contains(r#"unknown model \"jude\" (did you mean \"judge\"?)"#),
                    "{problems}"
                );
                assert_eq!((&ready["ready"], &ready["config"]["generation"]), (&json!(true), &json!(good)));
                assert_eq!(gauge(&stack.service, "consort_config_last_reload_successful").await, 0.0);
            } else {
                good += 1;
                replace(&stack.service.config_path(), &text);
                let ready = generation(&stack.service, good).await;
                assert_eq!(ready["config"]["last_error"], Value::Null);
                assert_eq!(gauge(&stack.service, "consort_config_last_reload_successful").await, 1.0);
                // It is in force as soon as it is said to be.
                let answer = stack.ask(json!({})).patience(ms(60_000)).send().await;
                assert_eq!(answer.json()["choices"][0]["message"]["content"], format!("verdict {n}"));
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    let callers = join_all((0..200).map(|_| caller()));
    let (seen, ()) = tokio::join!(callers, operator);
    let seen: BTreeSet<usize> = seen.into_iter().flatten().collect();
    assert!(seen.iter().all(|n| *n == 0 || n % 3 != 0), "a file that is wrong was in force: {seen:?}");
    assert!(seen.len() > 20, "{seen:?}");
    stack.provider.assert_clean();
}

#[tokio::test]
async fn a_config_map_is_followed_through_its_links() {
    let stack = Options::new().whole(|base_url| version(base_url, 0)).start().await;
    let file = stack.service.config_path();
    let dir = file.parent().unwrap().to_owned();
    let mount = |n: usize| {
        let name = format!("..v{n}");
        fs::create_dir(dir.join(&name)).unwrap();
        fs::write(dir.join(&name).join("consort.yaml"), version(&stack.provider.base_url(), n)).unwrap();
        symlink(&name, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    mount(1);
    symlink("..data/consort.yaml", dir.join("link")).unwrap();
    fs::rename(dir.join("link"), &file).unwrap();
    generation(&stack.service, 2).await;
    for n in 2..4 {
        script(&stack.provider, n);
        mount(n);
        fs::remove_dir_all(dir.join(format!("..v{}", n - 1))).unwrap();
        generation(&stack.service, n as u64 + 1).await;
        let answer = stack.ask(json!({})).send().await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], format!("verdict {n}"));
    }
}

#[tokio::test]
async fn a_signal_reads_the_file_again_and_files_beside_it_do_not() {
    let provider = provider().await;
    let service = Service::start(env!("CARGO_BIN_EXE_consort"), &config(&provider, "", "", "")).await;
    service.signal("HUP");
    generation(&service, 2).await;
    let beside = service.config_path().with_file_name("unrelated");
    for n in 0..20 {
        fs::write(&beside, n.to_string()).unwrap();
        tokio::time::sleep(ms(20)).await;
    }
    // The same text, written anew.
    replace(&service.config_path(), &fs::read_to_string(service.config_path()).unwrap());
    service.signal("HUP");
    generation(&service, 3).await;
}

#[tokio::test]
async fn what_was_begun_ends_as_it_began_and_what_is_known_is_kept() {
    let odd = "- {display_name: odd, provider: scripted, model_name: model-odd, retries: 0, cooldown: {failures: 1}}
- {display_name: alone, ensemble: {panel: [{model: odd}], strategy: vote}}";
    let stack = Options::new().models(odd).config("limits: {max_inflight: 2}").start().await;
    stack.provider.model("model-odd").reply(Reply::error(503, "kaboom", "server_error", None));
    stack.provider.model("model-new").reply(Reply::text("the new judge's answer"));
    stack.provider.model("model-judge").reply(Reply::stream(&["old "; 20], ms(100)));
    stack.ask(json!({"model": "alone"})).send().await;
    let running = stack.ask_stream().open().await;
    stack.provider.wait_for("model-judge", 1).await;
    let peers = || -> Vec<_> { stack.provider.requests().iter().map(|request| request.peer).collect() };
    let before = peers();

    let file = stack.service.config_path();
    let text = fs::read_to_string(&file).unwrap();
    let text = text
        .replace("model_name: model-judge", "model_name: model-new")
        .replace("max_inflight: 2", "max_inflight: 1");
    replace(&file, &format!("{text}\nlog: {{level: debug, format: pretty}}"));
    let ready = generation(&stack.service, 2).await;
    assert_eq!(ready["config"]["needs_restart"], json!(["log.format"]));
    stack.service.wait_for_log(|line| line["fields"]["key"] == "log.format" && line["level"] == "WARN").await;
    let level = http::get(stack.service.admin(), "/log-level").send().await;
    assert_eq!(level.json()["level"], "debug");

    let overload = stack.ask(json!({})).send().await;
    assert_eq!(
        overload.status,
        503,
        "the run that is in flight counts against the new cap: {}",
        overload.text()
    );
    let old = running.rest().await;
    assert!(old.text().contains("old ") && old.text().contains("[DONE]"), "{}", old.text());
    let answer = eventually("a place", LONG, async || {
        Some(stack.ask(json!({})).send().await).filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "the new judge's answer");
    // A new pool would share none; how many connections three calls at once need is a matter of chance.
    let after = peers().split_off(before.len());
    assert!(
        after.iter().any(|peer| before.contains(peer)),
        "connections are kept: {before:?}, then {after:?}"
    );
    let models = http::get(stack.service.admin(), "/models").send().await.json();
    assert_eq!(models["models"][4]["state"], "cooling", "{models}");
}

#[tokio::test]
async fn a_key_that_is_mounted_is_read_again_when_it_changes() {
    let provider = provider().await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "sk-old").unwrap();
    let text = config(&provider, "", "", "")
        .replace(&format!("api_key: {KEY}"), &format!("api_key_file: '{}'", key.display()));
    let service = Service::start(env!("CARGO_BIN_EXE_consort"), &text).await;
    let ask = || http::post(service.http(), CHAT).json(&question(json!({}))).send();
    provider.expect_violation("key");
    assert_eq!(ask().await.status, 502, "the old key is refused");
    replace(&key, KEY);
    generation(&service, 2).await;
    assert_eq!(ask().await.status, 200, "the new one is sent");
    fs::remove_file(&key).unwrap();
    let problems = refused(&service).await["config"]["last_error"]["problems"].to_string();
    assert!(problems.contains("providers[0].api_key_file: cannot read"), "{problems}");
    replace(&key, "sk-newer");
    generation(&service, 3).await;
    let later = dir.path().join("later/key");
    replace(&service.config_path(), &text.replace(&*key.display().to_string(), &later.display().to_string()));
    let problems = refused(&service).await["config"]["last_error"]["problems"].to_string();
    assert!(problems.contains("later/key"), "{problems}");
    fs::create_dir(dir.path().join("later")).unwrap();
    fs::write(&later, "sk-latest").unwrap();
    generation(&service, 4).await;
    let logs = format!("{:?}", service.logs());
    assert!(!logs.contains("sk-"), "{logs}");
}
