//! The one trait of the network, and its implementation over HTTP.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryFutureExt};
use http::HeaderValue;
use tokio::time::Instant;

use super::traced::traced;
use super::{DirectModel, Failure, adapter};
use crate::chat::{Body, Event};
use crate::telemetry::{Attempts, TraceHeaders};

/// One call of a direct model.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model called.
    pub model: Arc<DirectModel>,
    /// The request, complete.
    pub body: Body,
    /// The bound on its answer that the caller has asked for.
    pub max_tokens: Option<u64>,
    /// Whether the request asks for a stream.
    pub stream: bool,
    /// What travels on from the caller.
    pub passed: Arc<Passed>,
    /// Until when the answer is wanted.
    pub bounds: Bounds,
    /// Where its attempts are counted.
    pub attempts: Arc<Attempts>,
}

/// Until when an answer is wanted; who makes the call holds it to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// By the bound on each call: a model that misses it is too slow.
    pub timeout: Option<Instant>,
    /// By what else takes its time from the run: missing it says nothing of the model.
    pub deadline: Option<Instant>,
}

impl Bounds {
    /// The earlier one.
    pub fn until(self) -> Option<Instant> {
        [self.timeout, self.deadline].into_iter().flatten().min()
    }

    /// When a call that began with these bounds has had all the time that the bound on each call allows.
    pub fn overdue(self) -> Option<Instant> {
        self.timeout.filter(|_| self.until() == self.timeout)
    }
}

/// The caller's headers that travel on to providers.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// Joins logs on both sides.
    pub request_id: Option<HeaderValue>,
    /// The caller's trace (W3C Trace Context).
    pub traceparent: Option<HeaderValue>,
    /// Its vendor part.
    pub tracestate: Option<HeaderValue>,
    /// The caller's own credential: only for providers that say `api_key: passthrough`.
    pub authorization: Option<HeaderValue>,
}

impl Passed {
    /// What joins traces.
    pub fn trace(&self) -> TraceHeaders {
        TraceHeaders { traceparent: self.traceparent.clone(), tracestate: self.tracestate.clone() }
    }
}

/// The steps of an answer as they arrive. A step that fails is the last one.
pub type Events = BoxStream<'static, Result<Event, Failure>>;

/// Calls direct models. Dropping what it returns cancels the call.
pub trait Caller: Send + Sync + 'static {
    /// Makes one call. The future ends when the provider has accepted it, or later; the answer follows as
    /// events: one [`Event::Message`], or [`Event::Delta`]s; then at most one [`Event::Finish`] and
    /// one [`Event::Usage`], in the order in which they came.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>>;
}

/// Calls providers over HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpCaller;

impl Caller for HttpCaller {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        let deadline = call.model.timeout.map(|timeout| Instant::now() + timeout);
        // The inner box keeps what waits for it small: it would be there twice, as argument and as what is polled.
        Box::pin(traced(call, move |call| bound(Box::pin(adapter::call(call)), deadline)))
    }
}

/// Holds a call and its whole answer to one deadline.
///
/// # Errors
/// What the call fails with, or [`Failure::Timeout`].
pub async fn bound(
    call: impl Future<Output = Result<Events, Failure>>,
    deadline: Option<Instant>,
) -> Result<Events, Failure> {
    let Some(deadline) = deadline else {
        return call.await;
    };
    let mut events =
        tokio::time::timeout_at(deadline, pin!(call)).map_err(|_elapsed| Failure::Timeout).await??;
    let bounded = async_stream::stream! {
        loop {
            match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(Some(event)) => yield event,
                Ok(None) => return,
                Err(_elapsed) => {
                    yield Err(Failure::Timeout);
                    return;
                }
            }
        }
    };
    Ok(bounded.boxed())
}
