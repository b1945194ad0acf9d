//! The runs that recordings are replayed through, and what comes of one question.
//!
//! ```text
//! this caller ──▶ Runner ──┬──▶ members: their recorded texts
//!                          └──▶ the judge: real, or played    (judge.rs)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Result;
use super::answers::{AnswerKind, Answers, said};
use super::judge::{RealJudge, played};
use super::recordings::{Question, Recordings};
use super::strategies::{Common, Strategy};
use crate::chat::{ApiError, Collected, Completion, Event, Request};
use crate::config::{Config, Environment, Format, Source};
use crate::ensemble::{Context, Failed, Key, Runner, Snapshot};
use crate::limits::{Admission, Cooldowns};
use crate::upstream::{Call, Caller, Events, Failure, HttpCaller, Retrying};

/// Bound on one call of a model: a real judge may think.
const CALL: Duration = Duration::from_secs(120);
/// How fast a member writes where it matters who is first.
const PER_WORD: Duration = Duration::from_millis(1);
/// The provider of recorded answers, and of those of a real judge.
const RECORDED: &str = "recorded";
const REAL: &str = "real";

/// What is replayed, and how.
pub(super) struct Plan {
    pub(super) recordings: Arc<Recordings>,
    pub(super) answers: Answers,
    pub(super) answer: AnswerKind,
    /// The members' weights, in panel order.
    pub(super) weights: Vec<f64>,
    pub(super) strategies: Vec<Strategy>,
    /// None where the first member plays it.
    pub(super) judge: Option<RealJudge>,
}

/// The ensembles of all strategies, ready to be asked.
pub(super) struct Rehearsal {
    plan: Plan,
    snapshot: Arc<Snapshot>,
    runner: Runner,
    is_paced: Arc<AtomicBool>,
}

/// What came of one question.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the answer says; none where there is no answer, or nothing can be read from it.
    pub(super) key: Option<Key>,
    /// How many members were asked.
    pub(super) asked: usize,
    /// How many calls judges took.
    pub(super) judge_calls: usize,
    /// Whether something stood in for what the strategy is made for.
    pub(super) is_degraded: bool,
    /// What the caller was told in place of an answer.
    pub(super) error: Option<String>,
}

/// The part of a decision that counts here.
#[derive(Deserialize)]
struct Decided {
    outcome: String,
    members: Vec<CallDecided>,
    judges: Vec<CallDecided>,
}

#[derive(Deserialize)]
struct CallDecided {
    result: String,
}

impl Rehearsal {
    pub(super) fn new(plan: Plan) -> Result<Self> {
        let config = plan.config()?;
        let is_paced = Arc::new(AtomicBool::new(false));
        let caller = Recorded {
            recordings: Arc::clone(&plan.recordings),
            answers: plan.answers.clone(),
            is_paced: Arc::clone(&is_paced),
            real: Retrying::new(Arc::new(HttpCaller), Cooldowns::default()),
        };
        let runner =
            Runner::new(Arc::new(caller), Admission::new(config.max_inflight), config.max_answer_bytes);
        Ok(Self { plan, snapshot: config.snapshot, runner, is_paced })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Lets the members answer as this strategy needs them to: recordings do not tell who was first, so that where
    /// it matters all write at one speed.
    pub(super) fn prepare(&self, strategy: Strategy) {
        self.is_paced.store(strategy == Strategy::First, Ordering::Relaxed);
    }

    /// Asks one question of one strategy's ensemble.
    pub(super) async fn ask(&self, strategy: Strategy, question: &Question) -> Result<Outcome> {
        let alias = strategy.alias();
        let ensemble = self.snapshot.ensemble(&alias).ok_or("a strategy without its ensemble")?;
        let messages = json!([{"role": "user", "content": question.prompt}]);
        let body = json!({"model": alias, "messages": messages}).to_string();
        let request = Request::parse(Bytes::from(body))?;
        let context = Context { request_id: (&*question.prompt).into(), trace: true, ..Context::default() };
        let run = match self.runner.admit(Arc::clone(ensemble), context).await {
            Ok(admitted) => Box::pin(admitted.run(request, None)).await,
            Err(failed) => Err(failed),
        };
        let (answer, decision) = match run {
            Ok(outcome) => collected(outcome.events).await?,
            Err(Failed { head, error }) => {
                let decision = head.decision.ok_or("a run without its decision")?;
                (Err(*error), serde_json::from_str(decision.get())?)
            }
        };
        Ok(self.outcome(answer, decision))
    }

    fn outcome(&self, answer: std::result::Result<Completion, ApiError>, decided: Decided) -> Outcome {
        Outcome {
            key: answer.as_ref().ok().and_then(|completion| self.plan.answers.in_completion(completion)),
            asked: decided.members.iter().filter(|call| call.result != "not_asked").count(),
            judge_calls: decided.judges.len(),
            is_degraded: decided.outcome == "degraded",
            error: answer.err().map(|error| error.message),
        }
    }
}

/// An answer in one piece, and how it came about.
async fn collected(
    mut events: stream::BoxStream<'static, std::result::Result<Event, ApiError>>,
) -> Result<(std::result::Result<Completion, ApiError>, Decided)> {
    let mut collected = Collected::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => collected.push(event)?,
            Err(error) => return Err(error.message.into()),
        }
    }
    let decision: Box<RawValue> = collected.decision.take().ok_or("an answer without its decision")?;
    let (completion, _) = collected.finish()?;
    Ok((Ok(completion), serde_json::from_str(decision.get())?))
}

/// Answers for the models: members and a played judge by what was recorded, a real judge by asking it.
struct Recorded {
    recordings: Arc<Recordings>,
    answers: Answers,
    /// Whether members take their time.
    is_paced: Arc<AtomicBool>,
    real: Retrying<HttpCaller>,
}

impl Recorded {
    /// What a member or a played judge says; none to a request that no recording begins with.
    fn text(&self, call: &Call) -> Option<String> {
        let asked: Value = serde_json::from_slice(&call.body.to_bytes()).ok()?;
        let prompt = asked.pointer("/messages/0/content").and_then(Value::as_str)?;
        let question = self.recordings.find(prompt)?;
        let name = &*call.model.name;
        match name.strip_prefix(MEMBER) {
            Some(place) => question.texts.get(place.parse::<usize>().ok()?.checked_sub(1)?).cloned(),
            None => Some(played(name, &asked, question, &self.answers)),
        }
    }
}

impl Caller for Recorded {
    fn call(&self, call: Call) -> BoxFuture<'static, std::result::Result<Events, Failure>> {
        if &*call.model.provider.name == REAL {
            return self.real.call(call);
        }
        let completion = self.text(&call).and_then(|text| Some((said(&text)?, text)));
        let is_paced = self.is_paced.load(Ordering::Relaxed);
        Box::pin(async move {
            let (completion, text) =
                completion.ok_or_else(|| Failure::Unreadable("nothing recorded".into()))?;
            if is_paced {
                let words = u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
                tokio::time::sleep(PER_WORD * words).await;
            }
            let completion = Completion { finish_reason: Some("stop".into()), ..completion };
            Ok(stream::iter([Ok(Event::Message(Box::new(completion)))]).boxed())
        })
    }
}

/// What the configuration calls the members, with a number behind it: their own names might mean something to it.
const MEMBER: &str = "member-";

impl Plan {
    fn aliases(&self) -> Vec<String> {
        (1..=self.recordings.members.len()).map(|place| format!("{MEMBER}{place}")).collect()
    }

    /// The judges that the strategies need.
    fn judges(&self) -> impl Iterator<Item = &'static str> {
        let mut judges: Vec<&str> = self.strategies.iter().filter_map(|strategy| strategy.judge()).collect();
        judges.dedup();
        judges.into_iter()
    }

    /// The ensembles by a configuration like any other, which names what is wrong: a judge's URL, a key that is not
    /// set.
    fn config(&self) -> Result<Config> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        // What overrides the keys of an operator's file is not meant for this one.
        let environment: Environment = variables.filter(|(name, _)| !name.starts_with("CONSORT__")).collect();
        let text = self.file().to_string();
        let source =
            Source { name: "consort.yaml", text: &text, format: Format::Json, environment: &environment };
        Ok(source.load()?)
    }

    fn file(&self) -> Value {
        let members = self.aliases();
        let mut providers = vec![json!({"name": RECORDED, "base_url": "http://recorded.invalid"})];
        let (mut judges_at, mut judge_name) = (RECORDED, None);
        if let Some(RealJudge { url, model, key_env }) = &self.judge {
            let mut real = json!({"name": REAL, "base_url": url});
            if let (Some(real), Some(name)) = (real.as_object_mut(), key_env) {
                real.insert("api_key".to_owned(), json!(format!("${{{name}}}")));
            }
            providers.push(real);
            (judges_at, judge_name) = (REAL, Some(model.as_str()));
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
            .map(|member| direct(member, RECORDED, member))
            .chain(self.judges().map(|judge| direct(judge, judges_at, judge_name.unwrap_or(judge))))
            .chain(self.strategies.iter().map(|strategy| strategy.ensemble(&common)))
            .collect();
        json!({"limits": {"max_panel": members.len()}, "providers": providers, "models": models})
    }
}
