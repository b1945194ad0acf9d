//! The words and figures of a decision.

use std::time::Duration;

use super::decision::{Call, Decision, Outcome, Usage as UsageRecord};
use crate::chat::Usage;

pub(super) const NOT_ASKED: &str = "not_asked";
pub(super) const RUNNING: &str = "running";
pub(super) const CANCELLED: &str = "cancelled";
/// What had begun when its process was killed, and that process's runs.
pub(super) const KILLED: &str = "killed";
pub(super) const USABLE: &str = "usable";
/// The label of an error that is a defect of ours.
pub(super) const DEFECT: &str = "internal_error";

/// The part that a call plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It gives a candidate.
    Member,
    /// It makes the answer, or a verdict, of the candidates.
    Judge,
    /// It stands in for the judge, or for the panel.
    Fallback,
}

impl Part {
    /// The word for it in records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Judge => "judge",
            Self::Fallback => "fallback",
        }
    }
}

/// A way in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// Envoy's external processing.
    #[default]
    ExtProc,
    /// HTTP.
    Http,
}

impl Door {
    /// The word for it in records.
    pub fn label(self) -> &'static str {
        match self {
            Self::ExtProc => "ext_proc",
            Self::Http => "http",
        }
    }
}

impl Outcome {
    /// How a run may end.
    pub const ENDS: [Self; 7] = [
        Self::Full,
        Self::Quorum,
        Self::Degraded,
        Self::Single,
        Self::Cascade,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it in headers, logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Full => "full",
            Self::Quorum => "quorum",
            Self::Degraded => "degraded",
            Self::Single => "single",
            Self::Cascade => "cascade",
            Self::Failed => "failed",
            Self::Cancelled => CANCELLED,
            Self::Running => RUNNING,
        }
    }
}

/// Writes an outcome as its word.
pub(super) fn word<S: serde::Serializer>(outcome: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let outcome = Outcome::try_from(*outcome).unwrap_or(Outcome::Unspecified);
    serializer.serialize_str(outcome.label())
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl Decision {
    /// The same without what was said.
    pub(super) fn without_texts(mut self) -> Self {
        (self.question, self.answer) = (None, None);
        self.members.iter_mut().chain(&mut self.judges).for_each(|call| call.content = None);
        self
    }
}

/// Gives this end to the calls that never had one.
pub(super) fn end_running<'a>(calls: impl Iterator<Item = &'a mut Call>, result: &str, now_ms: f64) {
    for call in calls.filter(|call| call.result == RUNNING) {
        result.clone_into(&mut call.result);
        call.elapsed_ms = now_ms - call.started_ms;
    }
}

/// What two attempts of one call cost.
pub(super) fn plus(before: Option<UsageRecord>, usage: UsageRecord) -> UsageRecord {
    let Some(before) = before else {
        return usage;
    };
    let either = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a.saturating_add(b.unwrap_or(0))));
    UsageRecord {
        prompt_tokens: before.prompt_tokens.saturating_add(usage.prompt_tokens),
        completion_tokens: before.completion_tokens.saturating_add(usage.completion_tokens),
        total_tokens: before.total_tokens.saturating_add(usage.total_tokens),
        cached_tokens: either(before.cached_tokens, usage.cached_tokens),
        reasoning_tokens: either(before.reasoning_tokens, usage.reasoning_tokens),
        estimated: before.estimated || usage.estimated,
    }
}

pub(super) fn record(usage: &Usage, estimated: bool) -> UsageRecord {
    UsageRecord {
        prompt_tokens: usage.count("prompt_tokens"),
        completion_tokens: usage.count("completion_tokens"),
        total_tokens: usage.count("total_tokens"),
        cached_tokens: usage.detail("prompt_tokens_details", "cached_tokens"),
        reasoning_tokens: usage.detail("completion_tokens_details", "reasoning_tokens"),
        estimated,
    }
}
