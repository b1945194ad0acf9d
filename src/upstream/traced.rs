//! Attempts as spans.

use std::sync::Arc;

use futures_util::StreamExt;
use http::uri::Scheme;

use super::{Call, Events, Failure, Passed};
use crate::chat::Event;
use crate::telemetry::{Asked, AttemptSpan, TraceHeaders};

/// Makes an attempt, as a span of its own where its run is traced: it begins here, and ends with the answer, or when
/// nobody wants it any more. The provider's spans belong below it.
pub(super) async fn traced<F>(mut call: Call, make: impl FnOnce(Call) -> F) -> Result<Events, Failure>
where
    F: Future<Output = Result<Events, Failure>>,
{
    let Some(mut span) = begin(&call) else {
        return make(call).await;
    };
    let TraceHeaders { traceparent, tracestate } = span.headers();
    call.passed = Arc::new(Passed { traceparent, tracestate, ..(*call.passed).clone() });
    match make(call).await {
        Ok(events) => Ok(watched(events, span)),
        Err(failure) => {
            span.failed(failure.label(), failure.status());
            Err(failure)
        }
    }
}

fn begin(call: &Call) -> Option<AttemptSpan> {
    let trace = call.attempts.trace()?;
    let provider = &call.model.provider;
    let url = &provider.base_url;
    let default_port = if url.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    Some(trace.attempt(Asked {
        model: &call.model.model_name,
        alias: &call.model.name,
        provider: provider.convention,
        host: url.host().unwrap_or_default(),
        port: url.port_u16().unwrap_or(default_port),
        until: call.bounds.until(),
    }))
}

/// The same events; the span learns from them.
fn watched(mut events: Events, mut span: AttemptSpan) -> Events {
    let watched = async_stream::stream! {
        while let Some(event) = events.next().await {
            match &event {
                Ok(Event::Finish(reason)) => span.finished(reason),
                Ok(Event::Usage(usage)) => span.cost(usage),
                Ok(Event::Message(_) | Event::Delta(_) | Event::Decision(_)) => {}
                Err(failure) => span.failed(failure.label(), failure.status()),
            }
            yield event;
        }
        span.ended();
    };
    watched.boxed()
}
