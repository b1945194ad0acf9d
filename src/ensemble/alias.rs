//! What an alias stands for. These types cannot hold a wrong ensemble: `config` builds them after
//! every check has passed.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::prompt::Template;
use crate::upstream::DirectModel;

/// Every alias of one configuration; a request keeps the snapshot it began with.
#[derive(Debug, Default)]
pub struct Snapshot {
    ensembles: HashMap<Arc<str>, Arc<Ensemble>>,
}

impl Snapshot {
    /// A snapshot of these ensembles, found by their names.
    pub fn new(ensembles: impl IntoIterator<Item = Ensemble>) -> Self {
        Self { ensembles: ensembles.into_iter().map(|e| (Arc::clone(&e.name), Arc::new(e))).collect() }
    }

    /// The ensemble that callers ask for by `alias`.
    pub fn ensemble(&self, alias: &str) -> Option<&Arc<Ensemble>> {
        self.ensembles.get(alias)
    }

    /// All ensembles, in no order.
    pub fn ensembles(&self) -> impl Iterator<Item = &Arc<Ensemble>> {
        self.ensembles.values()
    }
}

/// An alias for a panel and a strategy.
#[derive(Debug)]
pub struct Ensemble {
    /// The model name that a caller sends.
    pub name: Arc<str>,
    /// The direct models asked, in panel order; never empty.
    pub panel: Vec<Member>,
    /// How the candidates become one answer.
    pub strategy: Strategy,
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
}

impl Ensemble {
    /// The longest that a run may take by its own bounds: the deadline, or the panel, the judge and its
    /// fallback one after the other.
    pub fn longest_run(&self) -> Option<Duration> {
        self.deadline.or(self.timeout.map(|timeout| timeout * 3))
    }
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

/// How candidates become one answer.
#[derive(Debug)]
pub enum Strategy {
    /// A judge model writes the answer from the candidates.
    Judge(Judge),
}

/// The model that synthesises.
#[derive(Debug)]
pub struct Judge {
    /// The model asked first.
    pub model: Arc<DirectModel>,
    /// The model asked when the first one failed before it had said anything.
    pub fallback: Option<Arc<DirectModel>>,
    /// The text that presents the candidates.
    pub prompt: Template,
    /// Request fields forced on the judge call, as JSON text.
    pub params: Params,
    /// How much of each candidate the judge is shown, in bytes; cut on a character boundary.
    pub max_candidate_bytes: usize,
}

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
