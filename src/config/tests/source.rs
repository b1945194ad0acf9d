//! Files, formats and the environment; the published files.

use std::fs;
use std::path::Path as File;

use super::*;
use crate::ext_proc::ModeOverride;

#[test]
fn no_problem_shows_what_the_environment_holds() {
    let secret = "sk-live-0123456789";
    let text = r#"
listen: {ext_proc: "${KEY}"}
log: {level: "${KEY}", format: 3}
limits: {max_panel: "${KEY}"}
providers:
- {name: p, adapter: "${KEY}", base_url: "${KEY}", api_key: "a\n${KEY}"}
- {name: q, base_url: "https://${KEY}@h", api_key_file: "/no/${KEY}", ca_file: "/no/${KEY}"}
- {name: "${KEY}", base_url: "http://h"}
- {name: "${KEY}", base_url: "http://h"}
models:
- {display_name: a, provider: "${KEY}", model_name: m, timeout: "${KEY}"}
- {display_name: "${KEY}", provider: p, model_name: m}
- {display_name: "${KEY}", provider: p, model_name: m}
- display_name: e
  ensemble:
    panel: [{model: "x${KEY}", weight: "${KEY}"}, "${KEY}"]
    judge: {model: "y${KEY}", prompt: "{{${KEY}}} {{candidates}}", fallback: "z${KEY}"}
    on_quorum_failure: "${KEY}"
    on_judge_failure: "${KEY}"
"#;
    let variables = environment([("KEY", secret), ("CONSORT__LOG__FORMAT", secret)]);
    let problems = read(text, Format::Yaml, &variables).unwrap_err().to_string();
    assert!(!problems.contains("0123456789"), "{problems}");
    insta::assert_snapshot!(problems, @r#"
        limits.max_panel: expected an integer, found a string
        listen.ext_proc: expected `host:port` or `unix:/path`
        log.format: expected `json` or `pretty` [set by CONSORT__LOG__FORMAT]
        log.level: expected `error`, `warn`, `info`, `debug` or `trace`
        models[0].timeout: expected an integer, found a string
        models[2].display_name: "${KEY}" is the name of another model too
        models[3].ensemble.judge.fallback: unknown model "z${KEY}"
        models[3].ensemble.judge.model: unknown model "y${KEY}"
        models[3].ensemble.judge.prompt: is no prompt template as interpolated
        models[3].ensemble.on_judge_failure: expected `best` or `fail`
        models[3].ensemble.on_quorum_failure: expected `fail`, `best_effort` or `{fallback: …}`
        models[3].ensemble.panel[0].model: unknown model "x${KEY}"
        models[3].ensemble.panel[0].weight: expected a number, found a string
        models[3].ensemble.panel[1]: expected a mapping, found a string
        providers[0].adapter: expected `openai`, `anthropic` or `gemini`
        providers[0].api_key: the key holds a character that no header may hold
        providers[0].base_url: must begin with https:// or http://
        providers[1].api_key_file: cannot read "/no/${KEY}": No such file or directory (os error 2)
        providers[1].base_url: must hold no credentials: they belong in `api_key`
        providers[1].ca_file: cannot read "/no/${KEY}": No such file or directory (os error 2)
        providers[3].name: "${KEY}" is the name of another provider too
        "#);
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let text = "limits: {max_inflight: 1, max_panel: 5}\nlog: {level: warn}";
    let variables = environment([
        ("CONSORT__LIMITS__MAX_INFLIGHT", "2"),
        ("CONSORT__EXT_PROC__MODE_OVERRIDE", "never"),
        ("CONSORT__LISTEN__EXT_PROC", "unix:/${SOCKET}"),
        ("CONSORT_PORT", "tcp://10.0.0.1:1"),
        ("SOCKET", "s"),
    ]);
    let config = read(text, Format::Yaml, &variables).unwrap();
    assert_eq!(config.max_inflight, 2, "environment over file");
    assert_eq!(config.log.level, LevelFilter::WARN, "file over default");
    assert_eq!(config.log.format, LogFormat::Json, "default");
    assert_eq!(config.ext_proc.mode_override, ModeOverride::Never);
    assert_eq!(config.listen.ext_proc, Address::Unix("/s".into()));
}

#[test]
fn a_problem_of_the_environments_names_the_variable() {
    let variables = environment([
        ("CONSORT__LISTEN__HTP", "x"),
        ("CONSORT__LIMTS__MAX_PANEL", "2"),
        ("CONSORT__LIMITS__MAX_INFLIGHT", "many"),
    ]);
    insta::assert_snapshot!(read("{}", Format::Yaml, &variables).unwrap_err(), @r#"
        limits.max_inflight: expected an integer, found a string [set by CONSORT__LIMITS__MAX_INFLIGHT]
        limts: unknown key (did you mean "limits"?) [set by CONSORT__LIMTS__MAX_PANEL]
        listen.htp: unknown key (did you mean "http"?) [set by CONSORT__LISTEN__HTP]
        "#);
}

#[test]
fn yaml_toml_and_json_say_the_same() {
    let yaml = r#"
log: {level: debug}
providers: [{name: p, base_url: "http://h/v1"}]
models:
- {display_name: a, provider: p, model_name: m, timeout: 5}
- display_name: e
  ensemble:
    panel: [{model: a, temperature: 0.7, params: {Top_P: 0.5, stop: [x, y]}}]
    judge: {model: a}
    on_quorum_failure: {fallback: a}
"#;
    let toml = r#"
log.level = "debug"
[[providers]]
name = "p"
base_url = "http://h/v1"
[[models]]
display_name = "a"
provider = "p"
model_name = "m"
timeout = 5
[[models]]
display_name = "e"
[models.ensemble]
panel = [{model = "a", temperature = 0.7, params = {Top_P = 0.5, stop = ["x", "y"]}}]
judge = {model = "a"}
on_quorum_failure = {fallback = "a"}
"#;
    let json = r#"{"log": {"level": "debug"},
"providers": [{"name": "p", "base_url": "http://h/v1"}],
"models": [{"display_name": "a", "provider": "p", "model_name": "m", "timeout": 5},
{"display_name": "e", "ensemble": {
"panel": [{"model": "a", "temperature": 0.7, "params": {"Top_P": 0.5, "stop": ["x", "y"]}}],
"judge": {"model": "a"}, "on_quorum_failure": {"fallback": "a"}}}]}"#;
    let [yaml, toml, json] = [(yaml, Format::Yaml), (toml, Format::Toml), (json, Format::Json)]
        .map(|(text, format)| format!("{:#?}", read(text, format, &Environment::new()).unwrap()));
    assert_eq!(yaml, toml);
    assert_eq!(yaml, json);
    assert!(yaml.contains("0.7") && yaml.contains("Top_P"), "{yaml}");
}

#[test]
fn a_syntax_error_has_its_place_and_not_the_text_there() {
    let error = |text: &str, format| {
        let error = read(text, format, &Environment::new()).unwrap_err().to_string();
        assert!(!error.contains("sk-live"), "{error}");
        error
    };
    insta::assert_snapshot!(error("a: 1\nb: [sk-live", Format::Yaml), @"consort:3:1: while parsing a flow sequence, expected ',' or ']'");
    insta::assert_snapshot!(error("a: 1\nb: sk-live: x", Format::Yaml), @"consort:2:11: mapping values are not allowed in this context");
    insta::assert_snapshot!(error("a: 1\na: 2", Format::Yaml), @r#"consort:2:4: duplicate key "a""#);
    insta::assert_snapshot!(error("a: {{sk-live: x}: 1}", Format::Yaml), @"consort: a key must be text, not a list or a mapping");
    insta::assert_snapshot!(error("a = 1\nb = \"sk-live", Format::Toml), @r#"consort:2:13: invalid basic string, expected `"`"#);
    insta::assert_snapshot!(error("a = 1\na = 'sk-live'", Format::Toml), @"consort:2:1: duplicate key");
    insta::assert_snapshot!(error("{\"a\": 1,\n \"b\": \"sk-live\" x}", Format::Json), @"consort:2:17: expected `,` or `}`");
    insta::assert_snapshot!(error("sk-live", Format::Yaml), @"consort: must be a mapping of keys to values");
    insta::assert_snapshot!(error("[sk-live]", Format::Yaml), @"consort: must be a mapping of keys to values");
    insta::assert_snapshot!(error("a: 1\n---\nb: sk-live", Format::Yaml), @"consort: Got 2 YAML documents, expected 1");
}

#[test]
fn a_file_that_is_missing_or_of_no_format_says_so() {
    insta::assert_snapshot!(load(File::new("/no/such/consort.yaml")).unwrap_err(), @"/no/such/consort.yaml: cannot be read: No such file or directory (os error 2)");
    insta::assert_snapshot!(load(File::new("consort.conf")).unwrap_err(), @"consort.conf: cannot tell the format: expected a name that ends in .yaml, .yml, .toml or .json");
}

#[test]
fn the_example_loads() {
    let config = load(File::new("deploy/consort.example.yaml")).unwrap_or_else(|e| panic!("{e}"));
    for alias in ["research-ensemble", "maths-ensemble", "ensemble"] {
        assert!(config.snapshot.ensemble(alias).is_some(), "{alias}");
    }
}

#[test]
fn the_published_schema_is_the_one_in_the_code() {
    let published = fs::read_to_string("deploy/consort.schema.json").unwrap();
    assert!(
        published == format!("{:#}\n", json_schema()),
        "out of date: cargo run -- schema > deploy/consort.schema.json"
    );
}
