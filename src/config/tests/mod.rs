//! The contract of a configuration file, from text to [`Config`].

mod decisions;
mod health;
mod http;
mod limits;
mod meaning;
mod network;
mod overrides;
mod process;
mod providers;
mod refusal;
mod rules;
mod signing;
mod source;
mod strategies;

use tracing::level_filters::LevelFilter;

use super::*;
use crate::ensemble::{Ensemble, Params};
use crate::telemetry::LogFormat;

/// Two direct models, `a` and `b`, at one provider; ensembles follow.
const MODELS: &str = r#"
providers: [{name: p, base_url: "https://provider.example/v1"}]
models:
- {display_name: a, provider: p, model_name: m}
- {display_name: b, provider: p, model_name: m}
"#;

fn environment<const N: usize>(variables: [(&str, &str); N]) -> Environment {
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn read(text: &str, format: Format, environment: &Environment) -> Result<Config, Problems> {
    Source { name: "consort", text, format, environment }.load()
}

fn yaml(text: &str) -> Result<Config, Problems> {
    read(text, Format::Yaml, &Environment::new())
}

fn problems(text: &str) -> String {
    yaml(text).unwrap_err().to_string()
}

/// The problems of a file with one provider whose fields are `fields`.
fn provider_problems(fields: &str) -> String {
    problems(&format!("providers: [{{name: p, {fields}}}]"))
}

fn with_ensemble(fields: &str) -> Result<Config, Problems> {
    yaml(&format!("{MODELS}- {{display_name: e, ensemble: {{{fields}}}}}"))
}

fn ensemble(fields: &str) -> Arc<Ensemble> {
    let config = with_ensemble(fields).unwrap_or_else(|problems| panic!("{problems}"));
    Arc::clone(config.snapshot.ensemble("e").unwrap())
}

fn ensemble_problems(fields: &str) -> String {
    with_ensemble(fields).unwrap_err().to_string()
}

fn member_problems(fields: &str) -> String {
    ensemble_problems(&format!("panel: [{{model: a, {fields}}}], judge: {{model: b}}"))
}

fn shown(params: &Params) -> String {
    let shown: Vec<String> =
        params.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    shown.join(" ")
}
