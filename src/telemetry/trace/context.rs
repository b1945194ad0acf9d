//! How spans of different processes find together: W3C Trace Context.

use http::HeaderValue;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The headers that join traces.
#[derive(Clone, Debug, Default)]
pub struct TraceHeaders {
    /// Which span is whose parent.
    pub traceparent: Option<HeaderValue>,
    /// What vendors add to it.
    pub tracestate: Option<HeaderValue>,
}

impl TraceHeaders {
    /// What a span below this context sends on.
    pub(super) fn of(context: &Context) -> Self {
        let mut headers = Self::default();
        TraceContextPropagator::new().inject_context(context, &mut headers);
        headers
    }

    /// The context that spans below these headers belong to; an empty one when they say nothing that can be read.
    pub(super) fn context(&self) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }
}

impl Extractor for TraceHeaders {
    fn get(&self, key: &str) -> Option<&str> {
        let value = match key {
            TRACEPARENT => self.traceparent.as_ref(),
            TRACESTATE => self.tracestate.as_ref(),
            _ => None,
        };
        value?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Injector for TraceHeaders {
    fn set(&mut self, key: &str, value: String) {
        let value = HeaderValue::try_from(value).ok().filter(|value| !value.is_empty());
        match key {
            TRACEPARENT => self.traceparent = value,
            TRACESTATE => self.tracestate = value,
            _ => {}
        }
    }
}
