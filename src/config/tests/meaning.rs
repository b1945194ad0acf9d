//! What a good file means.

use std::fs;
use std::time::Duration;

use super::*;
use crate::ensemble::{OnJudgeFailure, OnQuorumFailure, SingleCandidate, Strategy};
use crate::ext_proc::ModeOverride;
use crate::upstream::Credential;

#[test]
fn an_empty_file_has_the_defaults() {
    let config = yaml("{}").unwrap();
    assert_eq!(config.listen.ext_proc, Address::Tcp("127.0.0.1:50051".to_owned()));
    assert_eq!(config.max_inflight, 4096);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, LevelFilter::INFO);
    assert_eq!(config.ext_proc.mode_override, ModeOverride::Standalone);
    assert_eq!(config.ext_proc.max_request_bytes, 33_554_432);
    assert_eq!(config.max_answer_bytes, 16_777_216);
    assert_eq!(config.ext_proc.commit_after, Duration::from_secs(10));
    assert_eq!(config.ext_proc.heartbeat, Some(Duration::from_secs(10)));
    assert_eq!(config.ext_proc.buffered_timeout, Duration::from_secs(600));
    assert_eq!(config.snapshot.ensembles().count(), 0);
    assert_eq!(config.listen.admin, Some(Address::Tcp("127.0.0.1:9902".to_owned())));
    assert_eq!(config.drain, Drain { delay: Duration::ZERO, timeout: None });
}

#[test]
fn a_section_whose_keys_are_all_commented_out_has_the_defaults() {
    let config = yaml("limits:\n  # max_inflight: 1\nmodels:\nlisten:\n  ext_proc:\n").unwrap();
    assert_eq!(config.max_inflight, 4096);
}

#[test]
fn the_ensemble_of_aisixs_documentation_is_an_element_of_models_as_it_stands() {
    let aisix = r#"{"display_name":"research-ensemble","ensemble":{"panel":[{"model":"gpt-4o-panel"},{"model":"claude-panel"},{"model":"gemini-panel"}],"judge":{"model":"gpt-4o-judge"},"min_responses":2,"timeout_ms":30000}}"#;
    let direct: String = ["gpt-4o-panel", "claude-panel", "gemini-panel", "gpt-4o-judge"]
        .map(|name| format!(r#"{{"display_name":"{name}","provider":"p","model_name":"m"}},"#))
        .concat();
    let text = format!(
        r#"{{"providers":[{{"name":"p","base_url":"https://provider.example/v1"}}],"models":[{direct}{aisix}]}}"#
    );
    for format in [Format::Json, Format::Yaml] {
        let config = read(&text, format, &Environment::new()).unwrap();
        let ensemble = config.snapshot.ensemble("research-ensemble").unwrap();
        let panel: Vec<&str> = ensemble.panel.iter().map(|m| &*m.model.name).collect();
        assert_eq!(panel, ["gpt-4o-panel", "claude-panel", "gemini-panel"]);
        assert_eq!(ensemble.quorum.get(), 2);
        assert_eq!(ensemble.timeout, Some(Duration::from_secs(30)));
    }
}

#[test]
fn an_ensembles_defaults_are_those_of_its_documentation() {
    let e = ensemble("panel: [{model: a}, {model: a}, {model: b}], judge: {model: b}");
    assert_eq!(e.quorum.get(), 2);
    assert_eq!((e.timeout, e.deadline, e.straggler_grace), (None, None, None));
    assert!(matches!(e.on_quorum_failure, OnQuorumFailure::Fail));
    assert_eq!(e.on_judge_failure, OnJudgeFailure::Best);
    assert_eq!(e.single_candidate, SingleCandidate::Return);
    assert!(e.panel.iter().all(|m| m.weight == 1.0 && !m.required && m.params.is_empty()));
    let Strategy::Judge(judge) = &e.strategy else { panic!("not a judge") };
    assert_eq!(judge.max_candidate_bytes, 32_768);
    assert_eq!(
        judge.prompt,
        crate::ensemble::prompt::Template::of(crate::ensemble::prompt::Purpose::Synthesis)
    );
    assert!(judge.fallback.is_none());
    let of_one = ensemble("panel: [{model: a}], judge: {model: b}");
    assert_eq!(of_one.quorum.get(), 1);
}

#[test]
fn an_ensemble_is_what_its_fields_say() {
    let e = ensemble(
        "panel: [{model: a, weight: 2, system: Be brief., required: true}],
         judge: {model: a, fallback: b, prompt: 'Of {{count}}: {{candidates}}', max_candidate_bytes: 9},
         min_responses: 1, timeout_ms: 2, deadline_ms: 3, straggler_grace_ms: 0,
         on_quorum_failure: {fallback: b}, on_judge_failure: fail, single_candidate: judge",
    );
    assert_eq!(e.panel[0].weight, 2.0);
    assert_eq!(e.panel[0].system.as_deref(), Some("Be brief."));
    assert!(e.panel[0].required);
    assert_eq!(e.timeout, Some(Duration::from_millis(2)));
    assert_eq!(e.deadline, Some(Duration::from_millis(3)));
    assert_eq!(e.straggler_grace, Some(Duration::ZERO), "0 is no wait, not no bound");
    assert!(matches!(&e.on_quorum_failure, OnQuorumFailure::Fallback(m) if &*m.name == "b"));
    assert_eq!(e.on_judge_failure, OnJudgeFailure::Fail);
    assert_eq!(e.single_candidate, SingleCandidate::Judge);
    let Strategy::Judge(judge) = &e.strategy else { panic!("not a judge") };
    assert_eq!(judge.fallback.as_ref().map(|m| &*m.name), Some("b"));
    assert_eq!(judge.max_candidate_bytes, 9);
    let e = ensemble("panel: [{model: a}], judge: {model: b}, on_quorum_failure: best_effort");
    assert!(matches!(e.on_quorum_failure, OnQuorumFailure::BestEffort));
}

#[test]
fn a_timeout_of_a_direct_model_may_be_none() {
    let config = yaml(
        "providers: [{name: p, base_url: 'http://h'}]
models:
- {display_name: a, provider: p, model_name: m}
- {display_name: b, provider: p, model_name: m, timeout: 0}",
    )
    .unwrap();
    let timeouts: Vec<_> = config.direct_models.iter().map(|m| m.timeout).collect();
    assert_eq!(timeouts, [Some(Duration::from_secs(600)), None]);
}

#[test]
fn params_keep_numbers_keys_and_nulls_as_written() {
    let e = ensemble(
        "panel: [{model: a, temperature: 0.7, seed: 9223372036854775807, params: {
           Top_P: 0.95, topP: 1, response_format: {type: json_schema, Strict: true},
           stop: null, big: -9223372036854775808, tiny: 1.0e-9, list: [0.1, {x: null}]}}],
         judge: {model: b, params: {temperature: 0.30}}",
    );
    insta::assert_snapshot!(shown(&e.panel[0].params), @r#"Top_P=0.95 topP=1 response_format={"type":"json_schema","Strict":true} stop=null big=-9223372036854775808 tiny=1e-9 list=[0.1,{"x":null}] temperature=0.7 seed=9223372036854775807"#);
    let Strategy::Judge(judge) = &e.strategy else { panic!("not a judge") };
    insta::assert_snapshot!(shown(&judge.params), @"temperature=0.3");
}

#[test]
fn every_short_decimal_keeps_its_digits_in_every_format() {
    let panel: Vec<String> =
        (0..200).map(|i| format!(r#"{{"model": "a", "temperature": {}.{:02}}}"#, i / 100, i % 100)).collect();
    let judge = r#"{"model": "b"}"#;
    let json = format!(
        r#"{{"limits": {{"max_panel": 256}}, "providers": [{{"name": "p", "base_url": "http://h"}}], "models": [
        {{"display_name": "a", "provider": "p", "model_name": "m"}}, {{"display_name": "b", "provider": "p", "model_name": "m"}},
        {{"display_name": "e", "ensemble": {{"judge": {judge}, "panel": [{}]}}}}]}}"#,
        panel.join(",")
    );
    for format in [Format::Json, Format::Yaml] {
        let config = read(&json, format, &Environment::new()).unwrap();
        for (i, member) in config.snapshot.ensemble("e").unwrap().panel.iter().enumerate() {
            let sent: f64 = std::str::from_utf8(&member.params[0].1).unwrap().parse().unwrap();
            assert_eq!(sent, f64::from(u32::try_from(i).unwrap()) / 100.0);
            assert!(member.params[0].1.len() <= 4, "{}", shown(&member.params));
        }
    }
}

#[test]
fn an_address_is_a_host_and_port_or_a_socket() {
    let listen = |address: &str| {
        yaml(&format!("listen: {{ext_proc: '{address}'}}")).map(|config| config.listen.ext_proc)
    };
    for good in ["0.0.0.0:0", "localhost:50051", "[::1]:50051", "unix:/run/consort.sock"] {
        assert_eq!(listen(good).unwrap().to_string(), good);
    }
    assert_eq!(listen("unix:/s").unwrap(), Address::Unix("/s".into()));
    for bad in ["50051", ":50051", "::1:50051", "host:99999", "host:", "unix:", "unix:s", "unix:1"] {
        assert_eq!(
            listen(bad).unwrap_err().to_string(),
            "listen.ext_proc: expected `host:port` or `unix:/path`",
            "{bad}"
        );
    }
}

#[test]
fn a_key_is_given_read_passed_through_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "sk-file\r\n").unwrap();
    let credential = |fields: &str| {
        let text = format!(
            "providers: [{{name: p, base_url: 'http://h', {fields}}}]\nmodels: [{{display_name: a, provider: p, model_name: m}}]"
        );
        let config = read(&text, Format::Yaml, &environment([("KEY", "sk-env")])).unwrap();
        config.direct_models[0].provider.credential.clone()
    };
    let fixed = |fields: &str| match credential(fields) {
        Credential::Fixed { value, .. } => {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        }
        _ => panic!("not fixed"),
    };
    assert_eq!(fixed("api_key: '${KEY}'"), "Bearer sk-env");
    assert_eq!(fixed(&format!("api_key_file: '{}'", file.display())), "Bearer sk-file");
    assert!(matches!(credential("api_key: passthrough"), Credential::Passthrough));
    assert!(matches!(credential(""), Credential::None));
}
