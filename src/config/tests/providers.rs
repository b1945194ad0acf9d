//! Adapters, presets, and what is changed of requests.

use super::*;
use crate::upstream::{Adapter, Credential, DirectModel, Rules, Unsupported};

fn model(provider: &str, fields: &str) -> Arc<DirectModel> {
    let text = format!(
        "providers: [{{name: p, {provider}}}]\nmodels: [{{display_name: a, provider: p, model_name: m{fields}}}]"
    );
    let config = yaml(&text).unwrap_or_else(|problems| panic!("{problems}"));
    Arc::clone(&config.direct_models[0])
}

#[test]
fn a_preset_knows_where_chat_completions_are_and_how_a_key_is_sent() {
    for (fields, path, header) in [
        ("base_url: 'https://h/v1'", "/chat/completions", "authorization: Bearer k"),
        ("base_url: 'https://h', preset: azure", "/openai/v1/chat/completions", "api-key: k"),
        ("base_url: 'https://h/openai/v1/', preset: azure", "/chat/completions", "api-key: k"),
        (
            "base_url: 'https://h', preset: azure, api_version: preview",
            "/openai/v1/chat/completions?api-version=preview",
            "api-key: k",
        ),
        (
            "base_url: 'https://h', preset: azure_deployment, api_version: 2024-10-21",
            "/openai/deployments/{model}/chat/completions?api-version=2024-10-21",
            "api-key: k",
        ),
        (
            "base_url: 'https://h', preset: gemini",
            "/v1beta/openai/chat/completions",
            "authorization: Bearer k",
        ),
        ("base_url: 'https://h', preset: bedrock", "/openai/v1/chat/completions", "authorization: Bearer k"),
        ("base_url: 'http://h:11434', preset: ollama", "/v1/chat/completions", "authorization: Bearer k"),
        ("base_url: 'http://h:8000/v1', preset: vllm", "/chat/completions", "authorization: Bearer k"),
        ("base_url: 'http://h:8080', preset: llama_cpp", "/v1/chat/completions", "authorization: Bearer k"),
        ("base_url: 'https://h/v1', adapter: anthropic", "", "x-api-key: k"),
        ("base_url: 'https://h/v1beta', adapter: gemini", "", "x-goog-api-key: k"),
    ] {
        let provider = &model(&format!("{fields}, api_key: k"), "").provider;
        let at = match &provider.adapter {
            Adapter::OpenAi(at) => {
                let query = at.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
                format!("{}{query}", at.path)
            }
            Adapter::Anthropic | Adapter::Gemini => String::new(),
        };
        let Credential::Fixed { name, value } = &provider.credential else { panic!("no key") };
        assert!(value.is_sensitive());
        assert_eq!(provider.credential.key(), Some("k"));
        assert_eq!((&*at, &*format!("{name}: {}", value.to_str().unwrap())), (path, header), "{fields}");
    }
}

#[test]
fn a_provider_is_traced_by_the_name_that_conventions_have_for_it() {
    for (fields, expected) in [
        ("", "openai"),
        (", adapter: anthropic", "anthropic"),
        (", adapter: gemini", "gcp.gemini"),
        (", preset: gemini", "gcp.gemini"),
        (", preset: azure", "azure.ai.openai"),
        (", preset: azure_deployment, api_version: x", "azure.ai.openai"),
        (", preset: bedrock", "aws.bedrock"),
        (", preset: ollama", "ollama"),
        (", preset: vllm", "vllm"),
        (", preset: llama_cpp", "llama_cpp"),
    ] {
        assert_eq!(model(&format!("base_url: 'https://h'{fields}"), "").provider.convention, expected);
    }
}

#[test]
fn a_preset_that_only_knows_an_older_name_is_sent_that() {
    let renames = |preset: &str, request: &str| {
        model(&format!("base_url: 'http://h', preset: {preset}"), request).rules.rename.clone()
    };
    let older = ("max_completion_tokens".to_owned(), "max_tokens".to_owned());
    for preset in ["ollama", "llama_cpp"] {
        assert_eq!(renames(preset, ""), std::slice::from_ref(&older));
    }
    assert_eq!(renames("vllm", ""), []);
    let own = renames("ollama", ", request: {rename: {max_completion_tokens: num_predict}}");
    assert_eq!(own, [("max_completion_tokens".to_owned(), "num_predict".to_owned())]);
}

#[test]
fn what_is_changed_of_requests_is_what_is_written() {
    let of = |fields: &str| model("base_url: 'http://h'", fields).rules.clone();
    assert_eq!(of(""), Rules::default());
    let rules = of(", request: {drop: [seed], rename: {max_tokens: max_completion_tokens},
        set: {service_tier: flex, top_p: 0.70}, unsupported: drop}");
    assert_eq!(rules.drop, ["seed"]);
    assert_eq!(rules.rename, [("max_tokens".to_owned(), "max_completion_tokens".to_owned())]);
    assert_eq!(shown(&rules.set), r#"service_tier="flex" top_p=0.7"#);
    assert_eq!(rules.unsupported, Unsupported::Drop);
}

#[test]
fn an_answer_of_anthropics_is_bounded_by_4096_tokens_unless_it_is_said_otherwise() {
    let of = |fields: &str| model("base_url: 'http://h', adapter: anthropic", fields).max_tokens_default;
    assert_eq!((of(""), of(", max_tokens_default: 9")), (4096, 9));
}

#[test]
fn what_does_not_belong_together_is_a_problem() {
    insta::assert_snapshot!(
        problems(
            "providers:
- {name: a, base_url: 'http://h', adapter: anthropic, preset: azure}
- {name: b, base_url: 'http://h', adapter: anthropic, api_key: passthrough}
- {name: c, base_url: 'http://h', preset: azure_deployment}
- {name: d, base_url: 'http://h', preset: ollama, api_version: '1'}
- {name: e, base_url: 'http://h', preset: azure, api_version: 'a&b'}
- {name: f, base_url: 'http://h', preset: azur}
- {name: g, base_url: 'http://h'}
- {name: h, base_url: 'http://h', adapter: gemini, api_key: passthrough}
models:
- {display_name: m, provider: g, model_name: m, max_tokens_default: 5, request: {drop: [n, seed], rename: {a: model},
   set: {stream: true}, unsupported: maybe, renam: {}}}
- {display_name: o, provider: g, model_name: m, request: {rename: {messages: m}}, max_tokens_default: 0}
"
        ),
        @r#"
        models[0].max_tokens_default: is for models of `adapter: anthropic`
        models[0].request.drop[0]: `n` may not be touched: it is always 1 in an ensemble
        models[0].request.renam: unknown key (did you mean "rename"?)
        models[0].request.rename.a: `model` may not be touched: it is what `model` beside `params` says
        models[0].request.set.stream: may not be set: it is Consort's to decide
        models[0].request.unsupported: expected `reject` or `drop`
        models[1].max_tokens_default: must be at least 1
        models[1].request.rename.messages: may not be set: it is the caller's conversation
        providers[0].preset: is for `adapter: openai`
        providers[1].api_key: cannot be `passthrough` here: callers send `authorization`, and this adapter's providers read another header
        providers[2].api_version: is required by `preset: azure_deployment`
        providers[3].api_version: is for `preset: azure_deployment` or `azure`
        providers[4].api_version: must be of letters, digits, dots and dashes
        providers[5].preset: expected `azure`, `azure_deployment`, `gemini`, `bedrock`, `ollama`, `vllm` or `llama_cpp` (did you mean "azure"?)
        providers[7].api_key: cannot be `passthrough` here: callers send `authorization`, and this adapter's providers read another header
        "#
    );
}
