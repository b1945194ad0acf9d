//! What is refused, and in which words.

use super::*;

#[test]
fn a_number_that_would_lose_digits_is_refused() {
    let seed = |number: &str| member_problems(&format!("seed: {number}"));
    insta::assert_snapshot!(seed("9223372036854775808"), @"models[2].ensemble.panel[0].seed: is too large to keep its digits: it needs more than 64 bits");
    insta::assert_snapshot!(seed("2.5"), @"models[2].ensemble.panel[0].seed: expected an integer, found a number");
    insta::assert_snapshot!(member_problems("params: {x: [123456789012345678901234567890]}"), @"models[2].ensemble.panel[0].params.x[0]: is too large to keep its digits: it needs more than 64 bits");
    let toml = read("limits.max_panel = nan", Format::Toml, &Environment::new());
    insta::assert_snapshot!(toml.unwrap_err(), @"limits.max_panel: must be a finite number");
    insta::assert_snapshot!(problems("limits: {max_panel: 3.0}"), @"limits.max_panel: cannot be read: expected an integer without a fraction, within 64 bits");
}

#[test]
fn an_integer_with_a_fraction_does_not_hide_other_problems() {
    insta::assert_snapshot!(
        problems("limits: {max_panel: 3.0, max_inflight: 5.0}\nlisten: {ext_proc: x}"),
        @r#"
        limits.max_inflight: cannot be read: expected an integer without a fraction, within 64 bits
        limits.max_panel: cannot be read: expected an integer without a fraction, within 64 bits
        listen.ext_proc: expected `host:port` or `unix:/path`
        "#
    );
}

#[test]
fn ten_mistakes_are_ten_problems() {
    insta::assert_snapshot!(problems(
        r#"
listen: {extproc: "127.0.0.1:1"}
providers:
- {name: openai, base_url: api.openai.com, adapter: opnai}
- {name: other, base_url: "https://other.example", api_key: "${NO_SUCH_KEY}"}
models:
- {display_name: gpt-4o-panel, provider: opena, model_name: gpt-4o}
- {display_name: gpt-4o-judge, provider: openai, model_name: gpt-4o, timeout: 30s}
- display_name: research
  ensemble:
    panel:
    - {model: gpt4-panel}
    - {model: gpt-4o-panel, wieght: 2}
    judge: {model: gpt-4o-judge, prompt: "Choose."}
    min_responses: 3
"#
    ), @r#"
        listen.extproc: unknown key (did you mean "ext_proc"?)
        models[0].provider: unknown provider "opena" (did you mean "openai"?)
        models[1].timeout: expected an integer, found a string
        models[2].ensemble.judge.prompt: must contain the placeholder {{candidates}}
        models[2].ensemble.min_responses: 3 is more than the panel's 2
        models[2].ensemble.panel[0].model: unknown model "gpt4-panel" (did you mean "gpt-4o-panel"?)
        models[2].ensemble.panel[1].wieght: unknown key (did you mean "weight"?)
        providers[0].adapter: expected `openai`, `anthropic` or `gemini` (did you mean "openai"?)
        providers[0].base_url: must begin with https:// or http://
        providers[1].api_key: the environment variable NO_SUCH_KEY is not set
        "#);
}

#[test]
fn names_are_unique_and_known() {
    insta::assert_snapshot!(problems(&format!(
        "{MODELS}- {{display_name: a, provider: p, model_name: m}}
- {{display_name: e, ensemble: {{panel: [{{model: e}}, {{model: c}}], judge: {{model: e, fallback: e}}, on_quorum_failure: {{fallback: e}}}}}}"
    )), @r#"
        models[2].display_name: "a" is the name of another model too
        models[3].ensemble.judge.fallback: must be another model than the judge's own
        models[3].ensemble.judge.model: "e" is an ensemble; only a direct model can stand here
        models[3].ensemble.on_quorum_failure.fallback: "e" is an ensemble; only a direct model can stand here
        models[3].ensemble.panel[0].model: "e" is an ensemble; only a direct model can stand here
        models[3].ensemble.panel[1].model: unknown model "c"
        "#);
    insta::assert_snapshot!(problems(
        "providers: [{name: p, base_url: 'http://h'}, {name: p, base_url: 'http://h'}]"
    ), @r#"providers[1].name: "p" is the name of another provider too"#);
}

#[test]
fn a_reference_to_a_model_with_a_problem_is_no_second_problem() {
    insta::assert_snapshot!(problems(
        "models:
- {display_name: a, provider: nowhere, model_name: m}
- {display_name: e, ensemble: {panel: [{model: a}], judge: {model: a}}}"
    ), @r#"models[0].provider: unknown provider "nowhere""#);
}

#[test]
fn an_ensemble_and_a_direct_model_do_not_mix() {
    insta::assert_snapshot!(problems(&format!(
        "{MODELS}- {{display_name: e, provider: p, model_name: m, timeout: 1, retries: 0, cooldown: {{}}, background_check: {{}}, response_format: none, min_responses: 1, ensemble: {{panel: [{{model: a}}], judge: {{model: b}}}}}}
- {{display_name: n}}"
    )), @r#"
        models[2].background_check: is a direct model's key; an ensemble has only `display_name` and `ensemble`
        models[2].cooldown: is a direct model's key; an ensemble has only `display_name` and `ensemble`
        models[2].min_responses: unknown key (known: display_name, provider, model_name, timeout, retries, cooldown, rate_limit, background_check, response_format, request, max_tokens_default, cost, ensemble)
        models[2].model_name: is a direct model's key; an ensemble has only `display_name` and `ensemble`
        models[2].provider: is a direct model's key; an ensemble has only `display_name` and `ensemble`
        models[2].response_format: is a direct model's key; an ensemble has only `display_name` and `ensemble`
        models[2].retries: is a direct model's key; an ensemble has only `display_name` and `ensemble`
        models[2].timeout: is a direct model's key; an ensemble has only `display_name` and `ensemble`
        models[3].model_name: is required
        models[3].provider: is required
        "#);
}

#[test]
fn an_ensemble_needs_a_panel_and_a_judge_a_model() {
    insta::assert_snapshot!(ensemble_problems("panel: [], min_responses: 1"), @"models[2].ensemble.panel: must not be empty");
    insta::assert_snapshot!(ensemble_problems("judge: {prompt: null}, panel: {}, min_responses: 4"), @r#"
        models[2].ensemble.judge.model: is required
        models[2].ensemble.panel: expected a list, found a mapping
        "#);
}

#[test]
fn a_quorum_is_not_clamped() {
    let with = |min: &str| {
        ensemble_problems(&format!(
            "panel: [{{model: a}}, {{model: a}}], judge: {{model: b}}, min_responses: {min}"
        ))
    };
    insta::assert_snapshot!(with("3"), @"models[2].ensemble.min_responses: 3 is more than the panel's 2");
    insta::assert_snapshot!(with("0"), @"models[2].ensemble.min_responses: must be at least 1");
    insta::assert_snapshot!(with("-1"), @"models[2].ensemble.min_responses: must be at least 1");
}

#[test]
fn a_panel_is_bounded() {
    let bound = format!("panel: [{}], judge: {{model: b}}", vec!["{model: a}"; 16].join(", "));
    assert_eq!(ensemble(&bound).panel.len(), 16);
    let members = vec!["{model: a}"; 17].join(", ");
    insta::assert_snapshot!(ensemble_problems(&format!("panel: [{members}], judge: {{model: b}}")), @"models[2].ensemble.panel: has 17 members, `limits.max_panel` allows 16");
}

#[test]
fn a_weight_is_finite_and_positive() {
    insta::assert_snapshot!(member_problems("weight: 0"), @"models[2].ensemble.panel[0].weight: must be greater than 0");
    insta::assert_snapshot!(member_problems("weight: -1.5"), @"models[2].ensemble.panel[0].weight: must be greater than 0");
    insta::assert_snapshot!(member_problems("weight: .inf"), @"consort: Parsing .inf as floating point number failed");
    insta::assert_snapshot!(member_problems("weight: heavy"), @"models[2].ensemble.panel[0].weight: expected a number, found a string");
    assert_eq!(ensemble("panel: [{model: a, weight: 0.5}], judge: {model: b}").panel[0].weight, 0.5);
}

#[test]
fn params_leave_to_consort_what_it_decides() {
    insta::assert_snapshot!(member_problems(
        "params: {model: x, messages: [], stream: true, stream_options: {}, n: 2, user: u}"
    ), @r#"
        models[2].ensemble.panel[0].params.messages: may not be set: it is the caller's conversation
        models[2].ensemble.panel[0].params.model: may not be set: it is what `model` beside `params` says
        models[2].ensemble.panel[0].params.n: may not be set: it is always 1 in an ensemble
        models[2].ensemble.panel[0].params.stream: may not be set: it is Consort's to decide
        models[2].ensemble.panel[0].params.stream_options: may not be set: it is Consort's to decide
        "#);
    insta::assert_snapshot!(member_problems(
        "temperature: 1, seed: 1, params: {temperature: 1, seed: 1}"
    ), @r#"
        models[2].ensemble.panel[0].seed: cannot stand beside `params.seed`: choose one
        models[2].ensemble.panel[0].temperature: cannot stand beside `params.temperature`: choose one
        "#);
    insta::assert_snapshot!(ensemble_problems(
        "panel: [{model: a}], judge: {model: b, params: {stream: true}}"
    ), @"models[2].ensemble.judge.params.stream: may not be set: it is Consort's to decide");
}

#[test]
fn a_prompt_has_its_placeholders() {
    let with = |prompt: &str| {
        ensemble_problems(&format!("panel: [{{model: a}}], judge: {{model: b, prompt: '{prompt}'}}"))
    };
    insta::assert_snapshot!(with("Judge."), @"models[2].ensemble.judge.prompt: must contain the placeholder {{candidates}}");
    insta::assert_snapshot!(with("{{candidates}} {{cuont}}"), @"models[2].ensemble.judge.prompt: unknown placeholder {{cuont}} (known: {{candidates}}, {{question}}, {{count}}, {{verdict}})");
}

#[test]
fn a_wrong_word_brings_the_right_ones() {
    insta::assert_snapshot!(ensemble_problems(
        "panel: [{model: a}], judge: {model: b}, on_quorum_failure: besteffort, on_judge_failure: 3, single_candidate: {judge: b}"
    ), @r#"
        models[2].ensemble.on_judge_failure: expected `best` or `fail`
        models[2].ensemble.on_quorum_failure: expected `fail`, `best_effort` or `{fallback: …}` (did you mean "best_effort"?)
        models[2].ensemble.single_candidate: expected `return` or `judge`
        "#);
    insta::assert_snapshot!(ensemble_problems(
        "panel: [{model: a}], judge: {model: b, model_name: x}, on_quorum_failure: {fallback: c, x: 1}"
    ), @r#"
        models[2].ensemble.judge.model_name: unknown key (did you mean "model"?)
        models[2].ensemble.on_quorum_failure.x: unknown key (known: fallback)
        "#);
    insta::assert_snapshot!(problems("log: {level: verbose, format: 1}\next_proc: {mode_override: nevr}"), @r#"
        ext_proc.mode_override: expected `standalone` or `never` (did you mean "never"?)
        log.format: expected `json` or `pretty`
        log.level: expected `error`, `warn`, `info`, `debug` or `trace`
        "#);
}

#[test]
fn a_base_url_is_scheme_authority_and_path() {
    let base_url = |url: &str| {
        let text = format!(
            "providers: [{{name: p, base_url: '{url}'}}]\nmodels: [{{display_name: a, provider: p, model_name: m}}]"
        );
        yaml(&text).map(|config| config.direct_models[0].provider.base_url.to_string())
    };
    assert_eq!(base_url("https://h/v1/").unwrap(), "https://h/v1");
    let problem = |url: &str| base_url(url).unwrap_err().to_string();
    insta::assert_snapshot!(problem("h/v1"), @"providers[0].base_url: is no URL");
    insta::assert_snapshot!(problem("ftp://h"), @"providers[0].base_url: must begin with https:// or http://");
    insta::assert_snapshot!(problem("https://user:hunter2@h"), @"providers[0].base_url: must hold no credentials: they belong in `api_key`");
    insta::assert_snapshot!(problem("https://h/v1?key=hunter2"), @"providers[0].base_url: must have no query");
    insta::assert_snapshot!(problem("https://h h"), @"providers[0].base_url: is no URL");
}

#[test]
fn a_key_that_cannot_be_used_is_a_problem() {
    let base = "base_url: 'http://h'";
    insta::assert_snapshot!(provider_problems(&format!("{base}, api_key: a, api_key_file: b")), @"providers[0].api_key_file: cannot stand beside `api_key`: choose one");
    insta::assert_snapshot!(provider_problems(&format!("{base}, api_key: ''")), @"providers[0].api_key: the key is empty, or no text");
    insta::assert_snapshot!(provider_problems(&format!("{base}, api_key: \"sk\\nx\"")), @"providers[0].api_key: the key holds a character that no header may hold");
    insta::assert_snapshot!(provider_problems(&format!("{base}, api_key_file: /no/such/key")), @r#"providers[0].api_key_file: cannot read "/no/such/key": No such file or directory (os error 2)"#);
}

#[test]
fn a_name_that_no_header_can_hold_is_a_problem() {
    let named = |name: &str| {
        let provider = "providers: [{name: p, base_url: 'http://h'}]";
        problems(&format!("{provider}\nmodels: [{{display_name: \"{name}\", provider: p, model_name: m}}]"))
    };
    let expected = "models[0].display_name: must be of at most 256 bytes, without control characters";
    assert_eq!(named("a\\nb").to_string(), expected);
    assert_eq!(named(&"a".repeat(257)).to_string(), expected);
    let provider = "providers: [{name: p, base_url: 'http://h'}]";
    let model = "models: [{display_name: a, provider: p, model_name: \"m\\n\"}]";
    let expected = "models[0].model_name: must be without control characters: it goes out in a header";
    assert_eq!(problems(&format!("{provider}\n{model}")).to_string(), expected);
    let exact = format!("models: [{{display_name: {}, provider: p, model_name: m}}]", "a".repeat(256));
    assert!(yaml(&format!("providers: [{{name: p, base_url: 'http://h'}}]\n{exact}")).is_ok());
}
