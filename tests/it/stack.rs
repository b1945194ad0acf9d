//! A whole installation on loopback: callers → Envoy → Consort → provider, and Envoy → upstream.

use std::time::Duration;

use bytes::Bytes;
use consort_testkit::envoy::{Envoy, EnvoyOptions};
use consort_testkit::http::{self, Call};
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use consort_testkit::upstream::Upstream;
use serde_json::{Value, json};

/// The path that callers post to.
pub const CHAT: &str = "/v1/chat/completions";
/// The alias that callers ask for.
pub const ALIAS: &str = "research-ensemble";
/// The key that Consort has for the provider.
pub const KEY: &str = "sk-of-the-provider";

/// Fields of a direct model: a failure is one failed call, and the next call is made whatever happened before. What
/// is made of failures is easier to see so.
pub const ONE_ATTEMPT: &str = "retries: 0, cooldown: {enabled: false}";

/// A whole installation. Its provider knows `model-a`, `model-b`, `model-c` and `model-judge`.
pub struct Stack {
    pub envoy: Envoy,
    pub service: Service,
    pub provider: Provider,
    pub upstream: Upstream,
}

/// A whole configuration, made of the provider's `base_url`.
type Whole = Box<dyn FnOnce(&str) -> String + Send>;

/// How an installation differs from the shipped one.
pub struct Options {
    file: &'static str,
    ensemble: String,
    models: String,
    more: String,
    whole: Option<Whole>,
    environment: Vec<(String, String)>,
    edit: Box<dyn FnOnce(String) -> String + Send>,
}

impl Options {
    /// The shipped streaming attachment.
    pub fn new() -> Self {
        Self {
            file: "envoy.yaml",
            ensemble: String::new(),
            models: String::new(),
            more: String::new(),
            whole: None,
            environment: Vec::new(),
            edit: Box::new(|yaml| yaml),
        }
    }

    /// A file of `deploy/envoy/` by its name.
    pub fn shipped(file: &'static str) -> Self {
        Self { file, ..Self::new() }
    }

    /// The shipped attachment for any Envoy.
    pub fn buffered() -> Self {
        Self::shipped("envoy-buffered.yaml")
    }

    /// The shipped attachment that hands ensembles' requests to the plain door.
    pub fn handoff() -> Self {
        let handoff = Self::shipped("envoy-handoff.yaml");
        handoff.environment("CONSORT__EXT_PROC__HANDOFF__ENABLED", true)
    }

    /// Fields of the ensemble, as the inside of a YAML flow mapping.
    pub fn ensemble(mut self, fields: &str) -> Self {
        self.ensemble = format!(", {fields}");
        self
    }

    /// Further direct models and ensembles, as elements of a YAML sequence.
    pub fn models(mut self, elements: &str) -> Self {
        self.models.push_str(elements);
        self.models.push('\n');
        self
    }

    /// Another configuration altogether, made of the provider's `base_url`.
    pub fn whole(mut self, config: impl FnOnce(&str) -> String + Send + 'static) -> Self {
        self.whole = Some(Box::new(config));
        self
    }

    /// Further top-level sections of Consort's file.
    pub fn config(mut self, sections: &str) -> Self {
        self.more.push_str(sections);
        self.more.push('\n');
        self
    }

    /// A variable of Consort's environment.
    pub fn environment(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// A deviation from the shipped Envoy file; several are applied in order.
    pub fn edit(mut self, edit: impl FnOnce(String) -> String + Send + 'static) -> Self {
        let earlier = self.edit;
        self.edit = Box::new(|yaml| edit(earlier(yaml)));
        self
    }

    /// Starts it all and waits until Envoy has seen Consort healthy.
    pub async fn start(self) -> Stack {
        let provider = provider().await;
        let upstream = Upstream::start().await;
        let config = match self.whole {
            Some(whole) => whole(&provider.base_url()),
            None => config(&provider, &self.ensemble, &self.models, &self.more),
        };
        let service = Service::start_with(env!("CARGO_BIN_EXE_consort"), &config, |command| {
            command.envs(self.environment);
        })
        .await;
        let mut options = EnvoyOptions::shipped(self.file).consort(service.addr()).upstream(upstream.addr());
        if self.file == "envoy-handoff.yaml" {
            options = options.consort_http(service.http());
        }
        let envoy = Envoy::start(options.edit(self.edit)).await;
        envoy.wait_healthy().await;
        Stack { envoy, service, provider, upstream }
    }
}

/// A provider whose members say "one", "two" and "three" and whose judge says "the judge's answer".
pub async fn provider() -> Provider {
    let provider = Provider::start().await;
    provider.require_key(KEY);
    provider.model("model-a").reply(Reply::text("one"));
    provider.model("model-b").reply(Reply::text("two"));
    provider.model("model-c").reply(Reply::text("three"));
    provider.model("model-judge").reply(Reply::text("the judge's answer"));
    provider
}

/// The shipped configuration with these additions.
pub fn config(provider: &Provider, ensemble: &str, models: &str, more: &str) -> String {
    let base_url = provider.base_url();
    let quorum = if ensemble.contains("min_responses") { "" } else { ", min_responses: 2" };
    format!(
        "listen: {{ext_proc: '127.0.0.1:0', http: '127.0.0.1:0'}}
providers: [{{name: scripted, base_url: '{base_url}', api_key: {KEY}}}]
models:
- {{display_name: a, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: b, provider: scripted, model_name: model-b, {ONE_ATTEMPT}}}
- {{display_name: c, provider: scripted, model_name: model-c, {ONE_ATTEMPT}}}
- {{display_name: judge, provider: scripted, model_name: model-judge, {ONE_ATTEMPT}}}
- display_name: {ALIAS}
  ensemble: {{panel: [{{model: a}}, {{model: b}}, {{model: c}}], judge: {{model: judge}}{quorum}{ensemble}}}
{models}{more}"
    )
}

impl Stack {
    /// The shipped installation.
    pub async fn start() -> Self {
        Options::new().start().await
    }

    /// A question to the alias, with these further fields.
    pub fn ask(&self, fields: Value) -> Call {
        http::post(self.envoy.addr(), CHAT).json(&question(fields))
    }

    /// A question to the alias, to be streamed.
    pub fn ask_stream(&self) -> Call {
        self.ask(json!({"stream": true}))
    }

    /// A body as it is.
    pub fn ask_raw(&self, body: impl Into<Bytes>) -> Call {
        http::post(self.envoy.addr(), CHAT).header("content-type", "application/json").body(body)
    }

    /// The line that a run left in Consort's log; of several, the first.
    pub async fn run_logged(&self) -> Value {
        self.runs_logged(1).await.remove(0)
    }

    /// All lines that runs have left in Consort's log, once there are `n`.
    pub async fn runs_logged(&self, n: usize) -> Vec<Value> {
        consort_testkit::eventually(&format!("{n} runs in Consort's log"), ms(10_000), async || {
            let mut lines = self.service.logs();
            lines.retain(|line| {
                line["fields"]["message"].as_str().is_some_and(|m| m.starts_with("ensemble "))
            });
            let fields = lines.iter_mut().map(|line| line["fields"].take()).collect();
            Some(fields).filter(|fields: &Vec<Value>| fields.len() >= n)
        })
        .await
    }
}

/// The body of a question to the alias, with these further fields.
pub fn question(fields: Value) -> Value {
    let mut body = json!({"model": ALIAS, "messages": [{"role": "user", "content": "why?"}]});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    body
}

/// A duration in ms, for short rows.
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
