//! Why a run gave no answer, and what its caller is told.

use std::time::Duration;

use super::direct::Unanswered;
use super::overrides::OverrideError;
use crate::chat::{ApiError, RequestError};
use crate::limits::Denied;
use crate::upstream::{DirectModel, Failure, ProviderError};

/// Why a run gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The caller's request cannot be honoured; nobody was asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The caller wants an ensemble that may not be; nobody was asked.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// Too many runs are in flight; nobody was asked.
    #[error("too many requests are being answered; try again soon")]
    Overloaded,
    /// The caller has had as much of the alias as there is for now; nobody was asked.
    #[error("the limit on {what} of this model is reached; try again later")]
    OverLimit {
        /// Which limit.
        what: &'static str,
        /// When there may be room, at the soonest.
        retry_after: Option<Duration>,
    },
    /// The alias has spent what it may in a day; nobody was asked.
    #[error("this model has spent its budget for today (UTC)")]
    BudgetSpent {
        /// How long the day still lasts.
        retry_after: Duration,
    },
    /// Nobody knows whether the limits have room; nobody was asked.
    #[error("rate limits cannot be checked at the moment; try again soon")]
    LimitsUnavailable,
    /// Every member says that the request is wrong.
    #[error("{}", error.message)]
    Refused {
        /// The status that they gave.
        status: u16,
        /// What the first of them in panel order said, made safe.
        error: ProviderError,
    },
    /// Every member is over its limit.
    #[error("the models of this ensemble are over their rate limits")]
    RateLimited {
        /// The soonest that one of them will answer again.
        retry_after: Option<Duration>,
    },
    /// Every member cools down; nobody was asked.
    #[error(
        "the models of this ensemble have failed too often and are left alone for a while; try again soon"
    )]
    Cooling {
        /// The soonest that one of them may be asked again.
        retry_after: Option<Duration>,
    },
    /// Every member refused our credentials.
    #[error("the models of this ensemble refused their credentials; its operator can mend this")]
    UpstreamAuth,
    /// Too few usable answers.
    #[error("{got} of the {needed} answers needed came from this ensemble's models")]
    QuorumNotMet {
        /// How many there were.
        got: usize,
        /// How many were needed.
        needed: usize,
    },
    /// The members disagree, and the ensemble wants an error then.
    #[error("the models of this ensemble gave different answers")]
    NoConsensus,
    /// An average was to be taken, and no answer has a number.
    #[error("this ensemble averages numbers, and none of its models gave one; ask for a number")]
    NotNumeric,
    /// Nobody answered in time.
    #[error("this ensemble did not answer in time")]
    Timeout,
    /// The judge gave no answer.
    #[error("the answers could not be combined")]
    Judge(Cause),
    /// The judge's answer broke off after the caller had seen some of it.
    #[error("the answer broke off")]
    BrokenOff(Cause),
    /// The same of a member that was speaking to the caller.
    #[error("the answer broke off")]
    MemberBrokeOff(Cause),
    /// The one model that was asked gave no answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The answer is larger than may be held.
    #[error("the answer is larger than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: usize,
    },
    /// A defect of ours.
    #[error("internal error")]
    Internal,
}

/// What a failed judge call looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Out of time.
    Timeout,
    /// Over its rate limit.
    RateLimited(Option<Duration>),
    /// Left alone after others' failures.
    Cooling(Duration),
    /// Nobody knows whether it is over its limit.
    Undecided,
    /// Anything else.
    Upstream,
}

impl Cause {
    /// What a failed call looks like from outside.
    pub fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Timeout => Self::Timeout,
            Failure::Status { status, retry_after, .. } if status.as_u16() == 429 => {
                Self::RateLimited(*retry_after)
            }
            Failure::Limited { retry_after } => Self::RateLimited(Some(*retry_after)),
            Failure::Undecided => Self::Undecided,
            Failure::Cooling { retry_after } => Self::Cooling(*retry_after),
            _ => Self::Upstream,
        }
    }
}

impl From<&RunError> for ApiError {
    fn from(error: &RunError) -> Self {
        let api = |status: u16, label: &'static str| Self::new(status, label, error.to_string());
        match error {
            RunError::Request(e) => Self::from(e),
            RunError::Override(e) => api(400, "invalid_header").param(e.header),
            RunError::Overloaded => api(503, "overloaded").retry_after(Some(1)),
            RunError::OverLimit { retry_after, .. } => {
                api(429, "rate_limit_exceeded").retry_after(seconds(*retry_after))
            }
            RunError::BudgetSpent { retry_after } => {
                api(429, "insufficient_quota").no_retry().retry_after(seconds(Some(*retry_after)))
            }
            RunError::LimitsUnavailable => api(503, "limits_unavailable").retry_after(Some(1)),
            RunError::Refused { status, error } => {
                let refused = api(*status, "upstream_refused").code(error.code.clone()).no_retry();
                Self { param: error.param.clone(), ..refused }
            }
            RunError::RateLimited { retry_after } => {
                api(429, "rate_limit_exceeded").retry_after(seconds(*retry_after))
            }
            RunError::Cooling { retry_after } => {
                api(503, "models_cooling").retry_after(seconds(*retry_after))
            }
            RunError::UpstreamAuth => api(502, "upstream_auth").no_retry(),
            RunError::QuorumNotMet { .. } => api(502, "quorum_not_met").no_retry(),
            RunError::NoConsensus => api(502, "no_consensus").no_retry(),
            RunError::NotNumeric => api(400, "answer_not_numeric").no_retry(),
            RunError::Timeout => api(504, "ensemble_timeout").no_retry(),
            RunError::Judge(cause) | RunError::BrokenOff(cause) => caused(*cause, api(502, "judge_failed")),
            RunError::MemberBrokeOff(cause) => caused(*cause, api(502, "answer_broken_off")),
            RunError::Unanswered(why) => unanswered(*why, api),
            RunError::TooLarge { .. } => api(502, "answer_too_large").no_retry(),
            RunError::Internal => api(500, "internal_error").no_retry(),
        }
    }
}

impl From<&Denied> for RunError {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Over { what, retry_after, .. } => Self::OverLimit { what, retry_after: *retry_after },
            Denied::Spent { retry_after } => Self::BudgetSpent { retry_after: *retry_after },
            Denied::Undecided => Self::LimitsUnavailable,
        }
    }
}

/// An error with the status that its cause has.
fn caused(cause: Cause, error: ApiError) -> ApiError {
    match cause {
        Cause::Timeout => ApiError { status: 504, ..error.no_retry() },
        Cause::RateLimited(after) => ApiError { status: 429, ..error.retry_after(seconds(after)) },
        Cause::Cooling(after) => {
            ApiError { status: 503, ..error.no_retry().retry_after(seconds(Some(after))) }
        }
        Cause::Undecided => ApiError { status: 503, ..error.no_retry().retry_after(Some(1)) },
        Cause::Upstream => error.no_retry(),
    }
}

/// The error of a direct model.
fn unanswered(why: Unanswered, api: impl Fn(u16, &'static str) -> ApiError) -> ApiError {
    match why {
        Unanswered::RateLimited(after) => api(429, "rate_limit_exceeded").retry_after(seconds(after)),
        Unanswered::Cooling(after) => api(503, "models_cooling").retry_after(seconds(Some(after))),
        Unanswered::Auth => api(502, "upstream_auth").no_retry(),
        Unanswered::Timeout => api(504, "model_timeout").no_retry(),
        Unanswered::Failed => api(502, "model_failed").no_retry(),
    }
}

/// Whole seconds, rounded up: a client that comes back early is refused again.
fn seconds(after: Option<Duration>) -> Option<u64> {
    let after = after.unwrap_or(Duration::from_secs(1));
    Some(after.as_secs() + u64::from(after.subsec_nanos() > 0))
}

/// How much of a provider's message is passed on, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;
/// How much of its `code` and `param`, in bytes.
const MAX_WORD_BYTES: usize = 128;
/// A name of one or two letters tells nothing, and is a word in many a message.
const TELLING: usize = 3;

/// A provider's error with everything taken out that would tell a caller who was asked.
pub fn made_safe<'a>(
    error: &ProviderError,
    alias: &str,
    models: impl Iterator<Item = &'a DirectModel>,
) -> ProviderError {
    let mut safe = error.clone();
    let mut names: Vec<(&str, &str)> = models
        .flat_map(|m| {
            let base = &m.provider.base_url;
            let authority = base.authority().map_or("", |authority| authority.as_str());
            let host = base.host().unwrap_or_default();
            let key = m.provider.credential.key().unwrap_or_default();
            let upstream = [authority, host, key, &m.provider.name].map(|name| (name, "upstream"));
            [(&*m.model_name, alias), (&*m.name, alias)].into_iter().chain(upstream)
        })
        .filter(|(name, _)| name.len() >= TELLING && *name != alias)
        .collect();
    // Longer names first, so that none leaves a part of another.
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let words = [safe.param.as_mut(), safe.code.as_mut()].into_iter().flatten().map(|w| (w, MAX_WORD_BYTES));
    for (text, max_bytes) in words.chain([(&mut safe.message, MAX_MESSAGE_BYTES)]) {
        for (name, shown) in &names {
            *text = without(text, name, shown);
        }
        text.truncate(text.floor_char_boundary(max_bytes));
    }
    safe
}

/// `text` with `shown` for every `name`, in any case, that is no part of a longer word.
fn without(text: &str, name: &str, shown: &str) -> String {
    // Lower case in ASCII keeps every byte's place.
    let (lower, name) = (text.to_ascii_lowercase(), name.to_ascii_lowercase());
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (at, found) in lower.match_indices(&name) {
        let (before, after) = (lower.get(..at), lower.get(at + found.len()..));
        let is_part = before.is_some_and(|b| b.ends_with(char::is_alphanumeric))
            || after.is_some_and(|a| a.starts_with(char::is_alphanumeric));
        if !is_part {
            out.push_str(text.get(done..at).unwrap_or_default());
            out.push_str(shown);
            done = at + found.len();
        }
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_words_are_passed_on_up_to_their_bounds() {
        let error = |message: usize, word: usize| {
            let text = |bytes| "x".repeat(bytes);
            let error =
                ProviderError { message: text(message), param: Some(text(word)), code: Some(text(word)) };
            let safe = made_safe(&error, "team", std::iter::empty());
            [safe.message.len(), safe.param.unwrap().len(), safe.code.unwrap().len()]
        };
        assert_eq!(error(4096, 128), [4096, 128, 128]);
        assert_eq!(error(4097, 129), [4096, 128, 128]);
    }

    #[test]
    fn names_are_taken_out_in_any_case_and_parts_of_words_are_left() {
        assert_eq!(without("GPT-4 and gpt-4o at gpt-4.", "gpt-4", "team"), "team and gpt-4o at team.");
        assert_eq!(without("é Model-A é", "model-a", "team"), "é team é");
        assert_eq!(without("", "x", "y"), "");
    }
}
