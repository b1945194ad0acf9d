//! Retries, cooldowns, background checks and costs of direct models.

use std::time::Duration;

use super::*;
use crate::limits::Cooldown;
use crate::telemetry::Cost;

/// The direct model `a` with these fields.
fn model(fields: &str) -> Result<Arc<DirectModel>, Problems> {
    let provider = "providers: [{name: p, base_url: 'http://h'}]";
    yaml(&format!("{provider}\nmodels: [{{display_name: a, provider: p, model_name: m{fields}}}]"))
        .map(|config| Arc::clone(&config.direct_models[0]))
}

#[test]
fn a_model_is_called_once_more_and_cools_down_unless_its_fields_say_otherwise() {
    let seconds = Duration::from_secs;
    let default = model("").unwrap();
    assert_eq!((default.retries, &default.background_check), (1, &None));
    let expected = Cooldown {
        failures: 3.try_into().unwrap(),
        first: seconds(30),
        longest: seconds(600),
        statuses: [401, 408, 429, 500, 502, 503, 504].into(),
    };
    assert_eq!(default.cooldown, Some(expected));
    let fields =
        ", retries: 0, cooldown: {failures: 1, default_seconds: 5, max_seconds: 5, trigger_statuses: [529]}";
    let own = model(fields).unwrap();
    let expected = Cooldown {
        failures: 1.try_into().unwrap(),
        first: seconds(5),
        longest: seconds(5),
        statuses: [529].into(),
    };
    assert_eq!((own.retries, &own.cooldown), (0, &Some(expected)));
    assert_eq!(model(", cooldown: {enabled: false}").unwrap().cooldown, None);
    let asked = model(", background_check: {interval_seconds: 7, prompt: Well?, max_tokens: 1}").unwrap();
    let asked = asked.background_check.as_ref().unwrap();
    assert_eq!((asked.interval, &*asked.prompt, asked.max_tokens), (seconds(7), "Well?", 1));
}

#[test]
fn what_cannot_be_of_them_is_named() {
    let told = |fields: &str| model(fields).unwrap_err().to_string();
    insta::assert_snapshot!(told(
        ", retries: 11, cooldown: {failures: 0, default_seconds: 0, trigger_statuses: [200]}, background_check: {interval_seconds: 0}"
    ), @r"
    models[0].background_check.interval_seconds: must be from 1 to 86400
    models[0].cooldown.default_seconds: must be from 1 to 86400
    models[0].cooldown.failures: must be from 1 to 1000
    models[0].cooldown.trigger_statuses[0]: must be from 400 to 599
    models[0].retries: must be from 0 to 10
    ");
    insta::assert_snapshot!(told(
        ", cooldown: {enabled: false, default_seconds: 60, max_seconds: 59}, background_check: {}"
    ), @r"
    models[0].background_check: asks models that have cooled down, and `cooldown.enabled` is false
    models[0].cooldown.max_seconds: must be at least `default_seconds`, which is 60
    ");
}

#[test]
fn callers_can_neither_cool_a_model_by_wrong_requests_nor_be_asked_for() {
    let of = |provider: &str, model: &str| {
        let text = format!(
            "providers: [{{name: p, base_url: 'http://h'{provider}}}]\nmodels: [{{display_name: m, provider: p, model_name: m{model}}}]"
        );
        problems(&text).to_string()
    };
    assert_eq!(
        of("", ", cooldown: {trigger_statuses: [503, 422]}"),
        "models[0].cooldown.trigger_statuses[1]: 422 says that a request is wrong, and callers must not cool a model by theirs"
    );
    assert_eq!(
        of(", api_key: passthrough", ", background_check: {}"),
        "models[0].background_check: cannot ask for nobody: the provider's `api_key` is `passthrough`"
    );
    assert_eq!(
        of("", ", request: {rename: {a: b, b: c}}"),
        "models[0].request.rename.a: `b` is renamed itself: say in one step what each field is called there"
    );
}

#[test]
fn what_comes_from_a_cache_costs_what_all_input_costs_unless_it_is_said() {
    let cost = |fields: &str| model(&format!(", cost: {{{fields}}}")).map(|model| model.cost.unwrap());
    assert_eq!(model("").unwrap().cost, None);
    let of = |cached_input| Cost { input: 0.5, cached_input, output: 2.0 };
    assert_eq!(cost("input_per_1k: 0.5, output_per_1k: 2").unwrap(), of(0.5));
    assert_eq!(cost("input_per_1k: 0.5, output_per_1k: 2, cached_input_per_1k: 0").unwrap(), of(0.0));
    insta::assert_snapshot!(cost("input_per_1k: -1, cached_input_per_1k: 1001").unwrap_err(), @r"
    models[0].cost.cached_input_per_1k: must be from 0 to 1000
    models[0].cost.input_per_1k: must be from 0 to 1000
    models[0].cost.output_per_1k: is required
    ");
    assert!(cost("input_per_1k: .nan, output_per_1k: .inf").is_err());
}
