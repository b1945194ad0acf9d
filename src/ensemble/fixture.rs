//! Ensembles and callers for tests, without a network.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::upstream::{Adapter, Client, ClientSettings, Credential, DirectModel, Provider};

/// A direct model whose provider's name for it is `provider/{name}`.
pub(crate) fn model(name: &str) -> Arc<DirectModel> {
    let client = Client::new(ClientSettings {
        connect_timeout: Duration::from_secs(1),
        first_byte_timeout: None,
        idle_timeout: None,
        max_response_bytes: 1 << 20,
        extra_roots: Vec::new(),
    })
    .unwrap();
    Arc::new(DirectModel {
        name: name.into(),
        provider: Arc::new(Provider {
            name: "somewhere".into(),
            adapter: Adapter::OpenAi,
            base_url: "http://models.internal/v1".parse().unwrap(),
            credential: Credential::None,
            client,
        }),
        model_name: format!("provider/{name}"),
        timeout: None,
    })
}

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
            prompt: prompt::Template::default(),
            params: Vec::new(),
            max_candidate_bytes: 1000,
        }),
        quorum: NonZeroUsize::new(2).unwrap(),
        timeout: None,
        deadline: None,
        straggler_grace: None,
        on_quorum_failure: OnQuorumFailure::Fail,
        on_judge_failure: OnJudgeFailure::Best,
        single_candidate: SingleCandidate::Return,
    }
}
