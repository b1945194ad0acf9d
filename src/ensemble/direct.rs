//! A direct model that its caller asks by name: one call, and what it says is the answer.

use std::time::Duration;

use futures_util::StreamExt;
use tracing::warn;

use super::begun::Begun;
use super::error::{RunError, made_safe};
use super::member::{forced, streamed};
use super::run::Run;
use crate::chat::quoted;
use crate::telemetry::decision::Outcome as How;
use crate::telemetry::{Ended, Seat};
use crate::upstream::{Credential, DirectModel, Failure, ProviderError};

/// Why a direct model gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Over its rate limit; when it will answer again, where that is known.
    #[error("the model is over its rate limit")]
    RateLimited(Option<Duration>),
    /// Left alone after failures, for so long.
    #[error("the model has failed too often and is left alone for a while; try again soon")]
    Cooling(Duration),
    /// Our credentials are wrong.
    #[error("the model refused its credentials; its operator can mend this")]
    Auth,
    /// Out of time.
    #[error("the model did not answer in time")]
    Timeout,
    /// Anything else.
    #[error("the model gave no answer")]
    Failed,
}

/// Asks the one model. Nothing of its answer is judged: who asks for one model gets what that model says, be it a
/// refusal, or cut short.
pub(super) async fn ask(run: &mut Run) -> Result<Begun, RunError> {
    let member = run.ensemble.panel.first().ok_or(RunError::Internal)?.clone();
    run.account.panel_began(run.request.stream);
    let attempts = run.account.member_began(0, member.model.cost);
    let seat = Seat::Member(0);
    let edit = run.request.edit().set("model", quoted(&member.model.model_name));
    let edit = if run.request.stream { streamed(edit) } else { edit };
    let body = forced(edit, &member.model, &member.params).body();
    let sent = body.len();
    let called = run.call(&member.model, body, run.request.stream, attempts).await;
    match called {
        Ok(rest) => {
            run.account.panel_ended(0, Some(seat));
            run.head.panel_time = run.account.panel_time();
            run.head.responses = 1;
            run.settle(How::Full);
            Ok(Begun { seat, first: Vec::new(), rest: rest.boxed(), sent, by_fallback: false })
        }
        Err(failure) => {
            let (request_id, cause) = (&*run.context.request_id, failure.chain());
            warn!(request_id, alias = %run.ensemble.name, model = %member.model.name, %cause, "model failed");
            run.account.ended(seat, &Ended { result: failure.label(), usage: None, estimate: None });
            Err(told(&failure, &member.model, &run.ensemble.name))
        }
    }
}

/// What a failed call is to the caller of this alias.
fn told(failure: &Failure, model: &DirectModel, alias: &str) -> RunError {
    let is_callers_key = matches!(model.provider.credential, Credential::Passthrough);
    let unanswered = match failure {
        Failure::Timeout => Unanswered::Timeout,
        Failure::Cooling { retry_after } => Unanswered::Cooling(*retry_after),
        Failure::Limited { retry_after } => Unanswered::RateLimited(Some(*retry_after)),
        Failure::Status { status, error, retry_after } => match status.as_u16() {
            status @ (400 | 413 | 422) => return refused(status, error.as_ref(), model, alias),
            status @ (401 | 403) if is_callers_key => return refused(status, error.as_ref(), model, alias),
            401 | 403 => Unanswered::Auth,
            429 => Unanswered::RateLimited(*retry_after),
            _ => Unanswered::Failed,
        },
        _ => Unanswered::Failed,
    };
    unanswered.into()
}

/// What the model found wrong with the request.
fn refused(status: u16, error: Option<&ProviderError>, model: &DirectModel, alias: &str) -> RunError {
    let mut error = made_safe(&error.cloned().unwrap_or_default(), alias, std::iter::once(model));
    if error.message.is_empty() {
        "the model refused the request".clone_into(&mut error.message);
    }
    RunError::Refused { status, error }
}
