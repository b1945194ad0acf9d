//! Ensembles for tests, and the models and callers beneath them.

use std::num::NonZeroUsize;

use super::*;

pub(crate) use crate::upstream::fixture::{Scripted, fails, model, piece, says, status, streams, tokens};

/// A member with nothing of its own.
pub(crate) fn member(name: &str) -> Member {
    Member { model: model(name), weight: 1.0, params: Vec::new(), system: None, required: false }
}

/// Three members `a`, `b`, `c`, a judge `judge`, a quorum of two, no bounds.
pub(crate) fn ensemble(name: &str) -> Ensemble {
    Ensemble {
        name: name.into(),
        panel: ["a", "b", "c"].map(member).into(),
        strategy: Strategy::Judge(Judge {
            model: model("judge"),
            fallback: None,
            prompt: prompt::Template::of(prompt::Purpose::Synthesis),
            params: Vec::new(),
            max_candidate_bytes: 1000,
        }),
        reading: Reading::Auto,
        quorum: NonZeroUsize::new(2).unwrap(),
        timeout: None,
        deadline: None,
        straggler_grace: None,
        on_quorum_failure: OnQuorumFailure::Fail,
        on_judge_failure: OnJudgeFailure::Best,
        single_candidate: SingleCandidate::Return,
        execution: Execution::Parallel,
        when: None,
        otherwise: None,
        max_inflight: None,
        rate_limit: None,
        budget: None,
        overrides: Overrides::default(),
        trace: Trace::Off,
        reasoning: Reasoning::Pass,
    }
}
