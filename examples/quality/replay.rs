//! The installation that recordings are replayed through, and what comes of one question.
//!
//! ```text
//! this caller ──▶ Envoy ──▶ Consort ──┬──▶ members: their recorded texts
//!                                     └──▶ the judge: real, or played    (judge.rs)
//! ```

use std::sync::Arc;
use std::time::Duration;

use consort::config::{Environment, Format, Source};
use consort::ensemble::Key;
use consort_testkit::envoy::{Envoy, EnvoyOptions};
use consort_testkit::provider::{Provider, Received, Reply};
use consort_testkit::service::Service;
use consort_testkit::{fetch, http};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Result;
use crate::answers::{AnswerKind, Answers};
use crate::judge::{RealJudge, played};
use crate::recordings::{Question, Recordings};
use crate::strategies::{Common, Strategy};

/// Bound on one call of a model: a real judge may think.
const CALL: Duration = Duration::from_secs(120);
/// Bound on one question: a verdict may be asked for twice, and of many pairs.
const PATIENCE: Duration = Duration::from_secs(600);
/// How fast a member writes where it matters who is first.
const PER_WORD: Duration = Duration::from_millis(1);

/// What is replayed, and how.
pub struct Plan {
    pub recordings: Arc<Recordings>,
    pub answers: Answers,
    pub answer: AnswerKind,
    /// The members' weights, in panel order.
    pub weights: Vec<f64>,
    pub strategies: Vec<Strategy>,
    /// None where the first member plays it.
    pub judge: Option<RealJudge>,
}

/// A whole installation; dropping it ends it.
pub struct Replay {
    plan: Plan,
    provider: Provider,
    _service: Service,
    envoy: Envoy,
}

/// What came of one question.
#[derive(Debug)]
pub struct Outcome {
    /// What the answer says; none where there is no answer, or nothing can be read from it.
    pub key: Option<Key>,
    /// How many members were asked.
    pub asked: usize,
    /// How many calls judges took.
    pub judge_calls: usize,
    /// Whether something stood in for what the strategy is made for.
    pub is_degraded: bool,
    /// What the caller was told in place of an answer.
    pub error: Option<String>,
}

/// The part of a traced answer, or of an error, that counts here.
#[derive(Deserialize)]
struct Traced {
    consort: Decision,
    error: Option<ToldError>,
}

#[derive(Deserialize)]
struct Decision {
    outcome: String,
    members: Vec<Call>,
    judges: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    result: String,
}

#[derive(Deserialize)]
struct ToldError {
    message: String,
}

impl Replay {
    pub async fn start(plan: Plan) -> Result<Self> {
        // Downloads, where it is missing: into target/tools, once.
        tokio::task::spawn_blocking(fetch::envoy).await??;
        let provider = Provider::start().await;
        provider.forget_contents();
        let config = plan.config(&provider.base_url()).to_string();
        check(&config)?;
        // The service is this very program, as `main` knows.
        let service = Service::start(std::env::current_exe()?, &config).await;
        let envoy = Envoy::start(EnvoyOptions::shipped("envoy.yaml").consort(service.addr())).await;
        envoy.wait_healthy().await;
        let replay = Self { plan, provider, _service: service, envoy };
        replay.script_judges();
        Ok(replay)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Lets the members answer as this strategy needs them to: recordings do not tell who was first, so that where
    /// it matters all write at one speed.
    pub fn prepare(&self, strategy: Strategy) {
        let pace = if strategy == Strategy::First { PER_WORD } else { Duration::ZERO };
        for (place, member) in self.plan.aliases().iter().enumerate() {
            let recordings = Arc::clone(&self.plan.recordings);
            self.provider.model(member).answer(move |asked| {
                let text = question(&recordings, asked).texts.get(place).cloned().unwrap_or_default();
                let words = u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
                Reply::text(text).delay(pace * words)
            });
        }
    }

    /// Asks one question of one strategy's ensemble.
    pub async fn ask(&self, strategy: Strategy, question: &Question) -> Result<Outcome> {
        let messages = json!([{"role": "user", "content": question.prompt}]);
        let body = json!({"model": strategy.alias(), "messages": messages});
        let call = http::post(self.envoy.addr(), "/v1/chat/completions").json(&body);
        let answer = call.patience(PATIENCE).try_open().await?.rest().await;
        let traced: Traced = serde_json::from_slice(&answer.body).map_err(|_| {
            format!("the answer is {}: {}", answer.status, String::from_utf8_lossy(&answer.body))
        })?;
        let key = match traced.error {
            None => self.plan.answers.in_completion(&answer.body)?,
            Some(_) => None,
        };
        let decision = traced.consort;
        Ok(Outcome {
            key,
            asked: decision.members.iter().filter(|call| call.result != "not_asked").count(),
            judge_calls: decision.judges.len(),
            is_degraded: decision.outcome == "degraded",
            error: traced.error.map(|error| error.message),
        })
    }

    fn script_judges(&self) {
        for judge in self.plan.judges().filter(|_| self.plan.judge.is_none()) {
            let (recordings, answers) = (Arc::clone(&self.plan.recordings), self.plan.answers.clone());
            self.provider
                .model(judge)
                .answer(move |asked| played(judge, asked, question(&recordings, asked), &answers));
        }
    }
}

/// Names what is wrong with a configuration: a judge's URL, a key that is not set.
fn check(text: &str) -> Result<()> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment: Environment = variables.collect();
    let source = Source { name: "consort.yaml", text, format: Format::Yaml, environment: &environment };
    source.load()?;
    Ok(())
}

/// The question that a request, of a member or a judge, begins with.
#[expect(clippy::expect_used, reason = "a script's panic is how the provider refuses what it does not know")]
fn question<'a>(recordings: &'a Recordings, asked: &Received) -> &'a Question {
    let prompt = asked.json.pointer("/messages/0/content").and_then(Value::as_str);
    prompt.and_then(|prompt| recordings.find(prompt)).expect("a recorded prompt")
}

impl Plan {
    /// What `consort.yaml` calls the members: their own names might mean something to it.
    fn aliases(&self) -> Vec<String> {
        (1..=self.recordings.members.len()).map(|place| format!("member-{place}")).collect()
    }

    /// The judges that the strategies need.
    fn judges(&self) -> impl Iterator<Item = &'static str> {
        let mut judges: Vec<&str> = self.strategies.iter().filter_map(|strategy| strategy.judge()).collect();
        judges.dedup();
        judges.into_iter()
    }

    /// `consort.yaml`, which may as well be JSON.
    fn config(&self, base_url: &str) -> Value {
        let members = self.aliases();
        let mut providers = vec![json!({"name": "recorded", "base_url": base_url})];
        let (mut judges_at, mut judge_name) = ("recorded", None);
        if let Some(RealJudge { url, model, key_env }) = &self.judge {
            let mut real = json!({"name": "real", "base_url": url});
            if let (Some(real), Some(name)) = (real.as_object_mut(), key_env) {
                real.insert("api_key".to_owned(), json!(format!("${{{name}}}")));
            }
            providers.push(real);
            (judges_at, judge_name) = ("real", Some(model.as_str()));
        }
        let direct = |name: &str, provider: &str, model: &str| json!({"display_name": name, "provider": provider, "model_name": model});
        let common = Common {
            members: &members,
            weights: &self.weights,
            answer: self.answer,
            timeout_ms: u64::try_from(CALL.as_millis()).unwrap_or(u64::MAX),
        };
        let models: Vec<Value> = members
            .iter()
            .map(|member| direct(member, "recorded", member))
            .chain(self.judges().map(|judge| direct(judge, judges_at, judge_name.unwrap_or(judge))))
            .chain(self.strategies.iter().map(|strategy| strategy.ensemble(&common)))
            .collect();
        json!({
            "listen": {"ext_proc": "127.0.0.1:0"},
            "limits": {"max_panel": members.len()},
            "providers": providers,
            "models": models,
        })
    }
}
