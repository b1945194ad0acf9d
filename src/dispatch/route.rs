//! Who answers an alias's request: its ensemble, or the model that takes the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::info;

use super::Headers;
use crate::chat::Request;
use crate::ensemble::{Context, Ensemble, Facts, RunError, Wished};
use crate::limits::{CallerKey, KeySource};
use crate::telemetry::{Door, metrics};
use crate::upstream::DirectModel;

/// An alias's complete request.
pub struct Asked<'a, H> {
    /// What the alias stands for.
    pub ensemble: Arc<Ensemble>,
    /// The request's head.
    pub head: &'a H,
    /// What tells callers apart where their use is limited.
    pub caller_key: &'a KeySource,
    /// The request's body.
    pub body: Bytes,
    /// Which door it came in by.
    pub door: Door,
    /// How the door can hand over an answer.
    pub delivery: Delivery,
    /// What another door has decided already.
    pub settled: Option<Settled>,
}

/// What the door that a request was handed off from has decided: it is the ensemble's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Who the caller is to the limits; none where all callers share them.
    pub caller_key: Option<CallerKey>,
    /// Whether the ensemble took the request because its `when` could not be evaluated.
    pub condition_failed: bool,
}

/// How a door can hand over an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Piece by piece, where its caller wants that.
    Live,
    /// As a whole, and within this time.
    Whole {
        /// The longest that the door can wait.
        within: Duration,
    },
}

/// Who answers.
pub enum Route {
    /// The ensemble.
    Run(Box<Taken>),
    /// The model that takes the others.
    Otherwise(Box<Redirected>),
}

/// A request that is the ensemble's.
pub struct Taken {
    /// The ensemble, as its caller wants it.
    pub ensemble: Arc<Ensemble>,
    /// What is known of the caller.
    pub context: Context,
    /// The request.
    pub request: Given,
    /// How the door can hand over the answer.
    pub delivery: Delivery,
}

/// A request that goes to the model that takes the others.
pub struct Redirected {
    /// What the alias that was asked stands for.
    pub ensemble: Arc<Ensemble>,
    /// Who takes it.
    pub model: Arc<DirectModel>,
    /// What is known of the caller.
    pub context: Context,
    /// The request. Its fields may be more than an ensemble can honour.
    pub request: Request,
    /// The request's bytes.
    pub body: Bytes,
    /// How the door can hand over the answer.
    pub delivery: Delivery,
}

/// What is known of a request's body.
pub enum Given {
    /// Nothing yet: a run that finds no place need not read it.
    Unread(Bytes),
    /// All.
    Read(Request),
    /// That there can be no run.
    Refused(RunError),
}

/// Decides by the caller's headers and the ensemble's condition. The body is read when one of them asks.
pub fn route(asked: Asked<'_, impl Headers>) -> Route {
    let Asked { ensemble, head, caller_key, body, door, delivery, settled } = asked;
    let is_settled = settled.is_some();
    let Settled { caller_key, condition_failed } = settled
        .unwrap_or_else(|| Settled { caller_key: head.caller_key(caller_key), condition_failed: false });
    let context = Context {
        request_id: head.request_id(),
        door,
        passed: Arc::new(head.passed()),
        caller_key,
        condition_failed,
        ..Context::default()
    };
    let run =
        |ensemble, context, request| Route::Run(Box::new(Taken { ensemble, context, request, delivery }));
    let wished = match ensemble.wished(&head.wishes()) {
        Ok(wished) => wished,
        Err(error) => return run(ensemble, context, Given::Refused(error.into())),
    };
    let Wished { ensemble, enabled, trace, ignored, applied } = wished;
    let estimated_tokens = ensemble.estimated_tokens(&body);
    let mut context = Context { ignored, applied, trace, estimated_tokens, ..context };
    if is_settled || (enabled && ensemble.when.is_none()) {
        return run(ensemble, context, Given::Unread(body));
    }
    let request = match Request::parse_for_any(body.clone()) {
        Ok(request) => request,
        Err(error) => return run(ensemble, context, Given::Refused(error.into())),
    };
    if let Some(otherwise) = &ensemble.otherwise
        && (!enabled || !holds(&ensemble, &request, head, &mut context))
    {
        let why = if enabled { "when" } else { "x-ensemble-enable" };
        info!(request_id = %context.request_id, alias = %ensemble.name, model = %otherwise.name, why, "request passed to `otherwise`");
        metrics::passed_otherwise(&ensemble.name);
        let model = Arc::clone(otherwise);
        return Route::Otherwise(Box::new(Redirected { ensemble, model, context, request, body, delivery }));
    }
    let given = match request.check_supported() {
        Ok(()) => Given::Read(request),
        Err(error) => Given::Refused(error.into()),
    };
    run(ensemble, context, given)
}

/// Whether the request is the ensemble's by its own condition; in doubt it is.
fn holds(ensemble: &Ensemble, request: &Request, head: &impl Headers, context: &mut Context) -> bool {
    let Some(when) = &ensemble.when else {
        return true;
    };
    let facts = Facts {
        model: &ensemble.name,
        request,
        request_id: &context.request_id,
        path: head.path(),
        headers: &|| head.by_name(),
    };
    when.holds(&facts).unwrap_or_else(|_| {
        context.condition_failed = true;
        true
    })
}

impl Redirected {
    /// The same, answered by the model alone in the alias's name, and within the alias's limits.
    pub fn into_taken(self) -> Taken {
        let Self { ensemble: alias, model, context, request, body, delivery } = self;
        let ensemble = Arc::new(Ensemble::direct(Arc::clone(&alias.name), model).limited_as(&alias));
        let context = Context { estimated_tokens: ensemble.estimated_tokens(&body), ..context };
        let request = match ensemble.check(&request) {
            Ok(()) => Given::Read(request),
            Err(error) => Given::Refused(error.into()),
        };
        Taken { ensemble, context, request, delivery }
    }
}
