//! What concerns the process: its listeners, its end, what operators see, what outlives a file.

use std::fs;
use std::time::Duration;

use super::*;
use crate::ext_proc::ListModels;

#[test]
fn the_admin_listener_is_moved_or_turned_off() {
    let admin = |address: &str| {
        yaml(&format!("listen: {{admin: '{address}'}}"))
            .map(|config| config.listen.admin.map(|a| a.to_string()))
    };
    for good in ["0.0.0.0:0", "unix:/run/admin.sock"] {
        assert_eq!(admin(good).unwrap().as_deref(), Some(good));
    }
    assert_eq!(admin("none").unwrap(), None);
    insta::assert_snapshot!(admin("9902").unwrap_err(), @"listen.admin: expected `host:port`, `unix:/path` or `none`");
}

#[test]
fn hosts_of_the_admin_listener_are_names_without_a_port() {
    let hosts = yaml("admin: {hosts: [Consort.Internal, 10.0.0.7, '[fd00::1]']}").unwrap().admin_hosts;
    assert_eq!(hosts, ["consort.internal", "10.0.0.7", "[fd00::1]"]);
    insta::assert_snapshot!(problems("admin: {hosts: [a, 'b:80', 'http://c', '']}"), @r"
    admin.hosts[1]: expected a host's name or address, without scheme and port
    admin.hosts[2]: expected a host's name or address, without scheme and port
    admin.hosts[3]: expected a host's name or address, without scheme and port
    ");
}

#[test]
fn a_drain_has_its_times_in_ms() {
    let drain = yaml("drain: {delay_ms: 5000, timeout_ms: 0}").unwrap().drain;
    assert_eq!(drain, Drain { delay: Duration::from_secs(5), timeout: Some(Duration::ZERO) });
}

#[test]
fn what_is_shown_has_the_defaults_and_no_secret() {
    let text = r#"
providers:
- {name: p, base_url: "https://${HOST}/v1", api_key: "sk-${KEY}"}
- {name: q, base_url: "https://q.example", api_key: sk-literal}
models:
- {display_name: a, provider: p, model_name: "${KEY}"}
- {display_name: e, ensemble: {panel: [{model: a}], judge: {model: a}}}
"#;
    let variables = environment([("KEY", "SECRET"), ("HOST", "h.example")]);
    let config = read(text, Format::Yaml, &variables).unwrap();
    let all = config.shown.to_string();
    for secret in ["SECRET", "sk-", "h.example"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    let at = |pointer: &str| config.shown.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/providers/0/api_key"), "[redacted]");
    assert_eq!(at("/providers/1/api_key"), "[redacted]");
    assert_eq!(at("/providers/0/base_url"), "https://${HOST}/v1");
    assert_eq!(at("/models/0/model_name"), "${KEY}");
    assert_eq!(at("/models/0/retries"), 1);
    assert_eq!(at("/limits/max_inflight"), 4096);
    let keys: Vec<_> = config.shown["models"][1].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["display_name", "ensemble"]);
}

#[test]
fn the_files_that_were_read_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "sk-file").unwrap();
    let text = format!("providers: [{{name: p, base_url: 'http://h', api_key_file: '{}'}}]", key.display());
    assert_eq!(yaml(&text).unwrap().watched, [key]);
}

#[test]
fn models_are_listed_as_the_file_says() {
    let how = |text: &str| yaml(text).unwrap().ext_proc.list_models;
    assert_eq!(how("ext_proc: {}"), ListModels::Off);
    assert_eq!(how("ext_proc: {list_models: off}"), ListModels::Off);
    assert_eq!(how("ext_proc: {list_models: add}"), ListModels::Add);
    assert_eq!(how("ext_proc: {list_models: answer}"), ListModels::Answer);
    insta::assert_snapshot!(problems("ext_proc: {list_models: ad}"), @r#"ext_proc.list_models: expected `off`, `add` or `answer` (did you mean "add"?)"#);
}
