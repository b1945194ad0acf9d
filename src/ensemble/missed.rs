//! Why a panel gave no quorum, and what its caller is told.

use std::time::Duration;

use super::begun::Begun;
use super::candidate::{Candidate, Unusable};
use super::error::{Cause, RunError, made_safe};
use super::quorum::Verdict;
use super::run::Run;
use crate::upstream::Failure;

/// What a panel said.
#[derive(Default)]
pub(super) struct Panel {
    /// The usable answers, in panel order.
    pub(super) candidates: Vec<Candidate>,
    /// What its results mean.
    pub(super) verdict: Verdict,
    /// The members that failed, in panel order.
    pub(super) missed: Vec<(usize, Missed)>,
    /// A member's answer that goes to the caller as it comes.
    pub(super) live: Option<Begun>,
    /// Whether those asked agree as much as an adaptive panel wants.
    pub(super) is_agreed: bool,
    /// How many members were asked.
    pub(super) asked: usize,
    /// How many calls could not matter any more.
    pub(super) saved: usize,
}

/// Why a member gave no candidate.
#[derive(Debug)]
pub(super) enum Missed {
    Failed(Failure),
    Unusable(Unusable),
}

/// A cause that tells a caller more than that the quorum was missed, when all members share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SharedCause {
    /// The request is wrong.
    Refused,
    /// Over the rate limit.
    RateLimited,
    /// Our credentials are wrong.
    Auth,
    /// Out of time.
    Timeout,
    /// Left alone after others' failures.
    Cooling,
    /// Nobody knows whether there is room.
    Undecided,
}

impl Missed {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Failed(failure) => failure.label(),
            Self::Unusable(why) => why.label(),
        }
    }

    /// The failure and its causes, in one line.
    pub(super) fn chain(&self) -> String {
        match self {
            Self::Failed(failure) => failure.chain(),
            Self::Unusable(why) => why.label().to_owned(),
        }
    }

    /// What it looks like from outside.
    pub(super) fn seen(&self) -> Cause {
        self.failure().map_or(Cause::Upstream, Cause::of)
    }

    fn cause(&self) -> Option<SharedCause> {
        match self {
            Self::Failed(Failure::Timeout) => Some(SharedCause::Timeout),
            Self::Failed(Failure::Cooling { .. }) => Some(SharedCause::Cooling),
            Self::Failed(Failure::Limited { .. }) => Some(SharedCause::RateLimited),
            Self::Failed(Failure::Undecided) => Some(SharedCause::Undecided),
            Self::Failed(failure) => match failure.status()?.as_u16() {
                400 | 422 => Some(SharedCause::Refused),
                429 => Some(SharedCause::RateLimited),
                401 | 403 => Some(SharedCause::Auth),
                _ => None,
            },
            Self::Unusable(_) => None,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Unusable(_) => None,
        }
    }
}

impl Panel {
    /// Why everybody who has ended has failed, when it is one and the same. Who was not asked agrees with the others:
    /// their word is newer.
    pub(super) fn shared_cause(&self) -> Option<SharedCause> {
        let causes = || self.missed.iter().map(|(_, missed)| missed.cause());
        let shared = causes().find(|cause| *cause != Some(SharedCause::Cooling)).or(causes().next())??;
        let is_shared = |cause| cause == Some(shared) || cause == Some(SharedCause::Cooling);
        (self.candidates.is_empty() && causes().all(is_shared)).then_some(shared)
    }

    /// What a caller is told when the quorum was missed.
    pub(super) fn error(&self, run: &Run) -> RunError {
        if run.is_out_of_time() {
            return RunError::Timeout;
        }
        let needed = run.ensemble.quorum.get();
        let quorum_not_met = RunError::QuorumNotMet { got: self.candidates.len(), needed };
        // Who was cancelled might have said something else; who was never asked has said nothing.
        if self.missed.len() < self.asked {
            return quorum_not_met;
        }
        match self.shared_cause() {
            Some(SharedCause::Refused) => self.refused(run).unwrap_or(quorum_not_met),
            Some(SharedCause::RateLimited) => RunError::RateLimited { retry_after: self.soonest() },
            Some(SharedCause::Auth) => RunError::UpstreamAuth,
            Some(SharedCause::Timeout) => RunError::Timeout,
            Some(SharedCause::Undecided) => RunError::LimitsUnavailable,
            Some(SharedCause::Cooling) => RunError::Cooling { retry_after: self.soonest() },
            None => quorum_not_met,
        }
    }

    /// What the first member in panel order found wrong with the request.
    fn refused(&self, run: &Run) -> Option<RunError> {
        let (status, error) = self.missed.iter().find_map(|(_, missed)| match missed {
            Missed::Failed(Failure::Status { status, error, .. }) => Some((status, error)),
            _ => None,
        })?;
        let error = error.clone().unwrap_or_default();
        let models = run.ensemble.panel.iter().map(|m| &*m.model);
        let mut error = made_safe(&error, &run.ensemble.name, models);
        if error.message.is_empty() {
            "the models of this ensemble refused the request as invalid".clone_into(&mut error.message);
        }
        Some(RunError::Refused { status: status.as_u16(), error })
    }

    /// The soonest that one of them will answer again.
    fn soonest(&self) -> Option<Duration> {
        let failures = self.missed.iter().filter_map(|(_, missed)| missed.failure());
        failures.filter_map(Failure::retry_after).min()
    }
}
