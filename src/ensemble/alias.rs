//! What an alias stands for. These types cannot hold a wrong ensemble: `config` builds them after
//! every check has passed.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::answer::Reading;
use super::overrides::Overrides;
use super::strategy::Strategy;
use super::when::When;
use crate::chat::{RawObject, Request, RequestError};
use crate::limits::{Budget, RateLimit, estimated_tokens};
use crate::upstream::DirectModel;

/// Every alias of one configuration; a request keeps the snapshot it began with.
#[derive(Debug, Default)]
pub struct Snapshot {
    ensembles: HashMap<Arc<str>, Arc<Ensemble>>,
    direct: HashMap<Arc<str>, Arc<Ensemble>>,
}

impl Snapshot {
    /// A snapshot of these ensembles, found by their names.
    pub fn new(ensembles: impl IntoIterator<Item = Ensemble>) -> Self {
        Self { ensembles: by_name(ensembles), direct: HashMap::new() }
    }

    /// The same with these direct models, for doors where callers may ask for one by its name.
    #[must_use]
    pub fn with_direct(self, models: impl IntoIterator<Item = Arc<DirectModel>>) -> Self {
        let alone = models.into_iter().map(|model| Ensemble::direct(Arc::clone(&model.name), model));
        Self { direct: by_name(alone), ..self }
    }

    /// The ensemble that callers ask for by `alias`.
    pub fn ensemble(&self, alias: &str) -> Option<&Arc<Ensemble>> {
        self.ensembles.get(alias)
    }

    /// The ensemble, or the direct model as one that [stands alone](Ensemble::direct).
    pub fn any(&self, alias: &str) -> Option<&Arc<Ensemble>> {
        self.ensembles.get(alias).or_else(|| self.direct.get(alias))
    }

    /// The names of all ensembles and direct models, sorted.
    pub fn aliases(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.ensembles.keys().chain(self.direct.keys()).map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// All ensembles, in no order.
    pub fn ensembles(&self) -> impl Iterator<Item = &Arc<Ensemble>> {
        self.ensembles.values()
    }
}

fn by_name(ensembles: impl IntoIterator<Item = Ensemble>) -> HashMap<Arc<str>, Arc<Ensemble>> {
    ensembles.into_iter().map(|e| (Arc::clone(&e.name), Arc::new(e))).collect()
}

/// An alias for a panel and a strategy.
#[derive(Clone, Debug)]
pub struct Ensemble {
    /// The model name that a caller sends.
    pub name: Arc<str>,
    /// The direct models asked, in panel order; never empty.
    pub panel: Vec<Member>,
    /// How the candidates become one answer.
    pub strategy: Strategy,
    /// How answers are read where they are compared.
    pub reading: Reading,
    /// How many usable candidates are needed; never more than members.
    pub quorum: NonZeroUsize,
    /// The bound of each panel call and of the judge call, streaming included.
    pub timeout: Option<Duration>,
    /// The bound of the whole run.
    pub deadline: Option<Duration>,
    /// How long stragglers may go on once the quorum is met; none waits for all.
    pub straggler_grace: Option<Duration>,
    /// What happens when the quorum is missed.
    pub on_quorum_failure: OnQuorumFailure,
    /// What happens when the judge and its fallback failed.
    pub on_judge_failure: OnJudgeFailure,
    /// What happens with a single candidate.
    pub single_candidate: SingleCandidate,
    /// In which order members are asked.
    pub execution: Execution,
    /// Which requests are the ensemble's; none when all are.
    pub when: Option<When>,
    /// Where the others go: Envoy routes them by this model's name.
    pub otherwise: Option<Arc<DirectModel>>,
    /// How many of its runs may be in flight, whoever asks; none without a cap of its own.
    pub max_inflight: Option<NonZeroUsize>,
    /// How much each caller may ask; none without a limit.
    pub rate_limit: Option<RateLimit>,
    /// What it may spend in a day; none without a bound.
    pub budget: Option<Budget>,
    /// What callers may change by headers.
    pub overrides: Overrides,
    /// Whether callers see the decision.
    pub trace: Trace,
    /// Whether callers see what models thought aloud.
    pub reasoning: Reasoning,
}

impl Ensemble {
    /// A model that answers alone in this alias's name: a panel of one, of whose answer nothing is made.
    pub fn direct(name: Arc<str>, model: Arc<DirectModel>) -> Self {
        let member = Member { model, weight: 1.0, params: Params::new(), system: None, required: false };
        Self {
            name,
            panel: vec![member],
            strategy: Strategy::Direct,
            reading: Reading::Auto,
            quorum: NonZeroUsize::MIN,
            timeout: None,
            deadline: None,
            straggler_grace: None,
            on_quorum_failure: OnQuorumFailure::Fail,
            on_judge_failure: OnJudgeFailure::Fail,
            single_candidate: SingleCandidate::Return,
            execution: Execution::Parallel,
            when: None,
            otherwise: None,
            overrides: Overrides::default(),
            trace: Trace::Off,
            reasoning: Reasoning::Pass,
            max_inflight: None,
            rate_limit: None,
            budget: None,
        }
    }

    /// The same within another one's limits and budget.
    #[must_use]
    pub fn limited_as(self, other: &Self) -> Self {
        Self {
            max_inflight: other.max_inflight,
            rate_limit: other.rate_limit.clone(),
            budget: other.budget,
            ..self
        }
    }

    /// Reads a request that it is to answer.
    ///
    /// # Errors
    /// When the request is none, or asks for more than one answer in text.
    pub fn read(&self, body: Bytes) -> Result<Request, RequestError> {
        let request = Request::parse_for_any(body)?;
        self.check(&request)?;
        Ok(request)
    }

    /// Sees that it can honour a request.
    ///
    /// # Errors
    /// When the request asks for more than one answer in text.
    pub fn check(&self, request: &Request) -> Result<(), RequestError> {
        request.check_supported().map_err(|error| match (&self.strategy, error) {
            (Strategy::Direct, RequestError::Unsupported { param, .. }) => RequestError::Unsupported {
                param,
                what: "is not supported here: there is one answer, in text",
            },
            (_, error) => error,
        })
    }

    /// How answers are read under its strategy: an average is of numbers, whatever they are otherwise read as.
    pub fn reads(&self) -> Reading {
        match (&self.strategy, &self.reading) {
            (Strategy::Average(_), Reading::Number { .. }) => self.reading.clone(),
            (Strategy::Average(_), Reading::Json(pointer)) => {
                Reading::Number { pattern: None, pointer: pointer.clone() }
            }
            (Strategy::Average(_), _) => Reading::Number { pattern: None, pointer: None },
            (_, reading) => reading.clone(),
        }
    }

    /// How many tokens a run of this request may cost, where somebody counts them: as many as each member's call may,
    /// and as one more that judges. A request that cannot be read costs as much as one without a bound.
    pub fn estimated_tokens(&self, request: &Bytes) -> u64 {
        if !self.rate_limit.as_ref().is_some_and(RateLimit::counts_tokens) {
            return 0;
        }
        let asked = RawObject::parse(request.clone()).ok();
        let most = |field| asked.as_ref()?.read::<u64>(field).ok().flatten();
        let call =
            estimated_tokens(request.len(), most("max_completion_tokens").or_else(|| most("max_tokens")));
        let judges = usize::from(self.strategy.judge_rounds(self.panel.len()) > 0);
        call.saturating_mul((self.panel.len() + judges) as u64)
    }

    /// The longest that a run may take by its own bounds: the deadline, or as many calls one after the other
    /// as there may be.
    pub fn longest_run(&self) -> Option<Duration> {
        let formed = if self.overrides.models.is_empty() { 0 } else { self.overrides.max_panel };
        let members = self.panel.len().max(formed);
        let strategies = std::iter::once(&self.strategy).chain(&self.overrides.strategies);
        // At least one more call: a fallback may answer alone.
        let judges =
            strategies.map(|strategy| strategy.judge_rounds(members)).max().unwrap_or_default().max(1);
        let calls = self.execution.rounds(members) + judges;
        let in_sequence =
            |timeout: Duration| timeout.saturating_mul(u32::try_from(calls).unwrap_or(u32::MAX));
        let hedges = match self.execution {
            Execution::Hedged(delay) => delay.saturating_mul(u32::try_from(members).unwrap_or(u32::MAX)),
            _ => Duration::ZERO,
        };
        self.deadline.or(self.timeout.map(|timeout| in_sequence(timeout).saturating_add(hedges)))
    }
}

/// In which order members are asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Execution {
    /// All at once.
    Parallel,
    /// One after the other, in panel order, until there is a decision.
    Sequential,
    /// A few, and more while they disagree.
    Cascade(Cascade),
    /// One after the other with this delay, without waiting for the ones before.
    Hedged(Duration),
}

/// An adaptive panel: it ends as soon as those who were asked agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cascade {
    /// How many members are asked at first; at least 2, at most as many as there are.
    pub start: NonZeroUsize,
    /// How many are added while they disagree.
    pub step: NonZeroUsize,
    /// The share of the leading class among those who gave an answer that is agreement; above 0, at most 1.
    pub agreement: f64,
}

impl Execution {
    /// How many panel calls may follow one another.
    fn rounds(&self, panel: usize) -> usize {
        match self {
            Self::Parallel | Self::Hedged(_) => 1,
            Self::Sequential => panel,
            Self::Cascade(c) => 1 + panel.saturating_sub(c.start.get()).div_ceil(c.step.get()),
        }
    }
}

/// Whether callers see the decision of their run, in the response body under `consort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Never.
    Off,
    /// When they ask for it by `x-ensemble-trace: true`.
    Header,
    /// Always.
    Always,
}

/// Whether callers see what models thought aloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// As it was given.
    Pass,
    /// Not at all.
    Drop,
}

/// One place in a panel. The same direct model may hold several.
#[derive(Clone, Debug)]
pub struct Member {
    /// The model asked.
    pub model: Arc<DirectModel>,
    /// Its weight where candidates are compared; finite and positive.
    pub weight: f64,
    /// Request fields forced on this member, as JSON text.
    pub params: Params,
    /// Text put before the conversation as a system message.
    pub system: Option<String>,
    /// Whether the run fails without this member, whatever the quorum says.
    pub required: bool,
}

/// Request fields and the JSON text that each is set to.
pub type Params = Vec<(String, Bytes)>;

/// What happens when the quorum is missed.
#[derive(Clone, Debug)]
pub enum OnQuorumFailure {
    /// The caller gets an error.
    Fail,
    /// Any usable candidate will do.
    BestEffort,
    /// This model answers alone.
    Fallback(Arc<DirectModel>),
}

/// What happens when the judge and its fallback failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnJudgeFailure {
    /// The best candidate is returned, disclosed as degraded.
    Best,
    /// The caller gets an error.
    Fail,
}

/// What happens with a single candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleCandidate {
    /// It is the answer.
    Return,
    /// The judge still writes one from it.
    Judge,
}
