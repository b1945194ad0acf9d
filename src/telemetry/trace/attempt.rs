//! The spans of a call's attempts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tokio::time::Instant;

use super::TraceHeaders;
use super::run::count;
use crate::chat::Usage;
use crate::telemetry::Seat;

/// How much of a provider's words an attribute takes, in bytes.
const MAX_ATTRIBUTE_BYTES: usize = 256;

/// Where the spans of one call's attempts belong.
#[derive(Debug)]
pub struct CallTrace {
    tracer: SdkTracer,
    run: Context,
    seat: Seat,
    /// What the decision calls the call's part.
    role: String,
    begun: AtomicU32,
    /// The model that says that it answers the attempt that goes on.
    answering: Arc<Mutex<Option<String>>>,
}

/// What an attempt asks, and where.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The provider's name for the model.
    pub model: &'a str,
    /// The alias of the direct model.
    pub alias: &'a str,
    /// The provider, as OpenTelemetry's conventions call it.
    pub provider: &'static str,
    /// Its host.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// When whoever asks stops waiting.
    pub until: Option<Instant>,
}

/// The span of one attempt. It ends when this is dropped, at the latest: as cancelled, unless its end was told.
#[derive(Debug)]
pub struct AttemptSpan {
    span: Span,
    until: Option<Instant>,
    is_settled: bool,
    answering: Arc<Mutex<Option<String>>>,
}

impl CallTrace {
    pub(super) fn new(tracer: SdkTracer, run: Context, seat: Seat, role: String) -> Self {
        Self { tracer, run, seat, role, begun: AtomicU32::new(0), answering: Arc::default() }
    }

    /// Begins the span of the next attempt.
    pub fn attempt(&self, asked: Asked<'_>) -> AttemptSpan {
        let attempt = self.begun.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.provider.name", asked.provider),
            KeyValue::new("gen_ai.request.model", asked.model.to_owned()),
            KeyValue::new("server.address", asked.host.to_owned()),
            KeyValue::new("server.port", i64::from(asked.port)),
            KeyValue::new("consort.model", asked.alias.to_owned()),
            KeyValue::new("consort.attempt", i64::from(attempt)),
            KeyValue::new("consort.role", self.role.clone()),
        ];
        if let Seat::Member(place) = self.seat {
            attributes.push(KeyValue::new("consort.member", i64::try_from(place).unwrap_or(i64::MAX)));
        }
        let span = self
            .tracer
            .span_builder(format!("chat {}", asked.model))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &self.run);
        lock(&self.answering).take();
        AttemptSpan { span, until: asked.until, is_settled: false, answering: Arc::clone(&self.answering) }
    }

    /// The model that says that it answers.
    pub fn answered_by(&self, mut model: String) {
        cut(&mut model);
        *lock(&self.answering) = Some(model);
    }
}

impl AttemptSpan {
    /// What joins the provider's spans to this one.
    pub fn headers(&self) -> TraceHeaders {
        TraceHeaders::of(&Context::new().with_remote_span_context(self.span.span_context().clone()))
    }

    /// What it cost, so far.
    pub fn cost(&mut self, usage: &Usage) {
        self.span.set_attributes([
            KeyValue::new("gen_ai.usage.input_tokens", count(usage.count("prompt_tokens"))),
            KeyValue::new("gen_ai.usage.output_tokens", count(usage.count("completion_tokens"))),
        ]);
        let details = [
            ("gen_ai.usage.cache_read.input_tokens", usage.detail("prompt_tokens_details", "cached_tokens")),
            (
                "gen_ai.usage.reasoning.output_tokens",
                usage.detail("completion_tokens_details", "reasoning_tokens"),
            ),
        ];
        for (name, tokens) in details {
            if let Some(tokens) = tokens {
                self.span.set_attribute(KeyValue::new(name, count(tokens)));
            }
        }
    }

    /// The message is whole; its usage may follow.
    pub fn finished(&mut self, reason: &str) {
        let mut reason = reason.to_owned();
        cut(&mut reason);
        let reasons = Value::Array(Array::String(vec![reason.into()]));
        self.span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        self.is_settled = true;
    }

    /// The answer has ended.
    pub fn ended(mut self) {
        self.is_settled = true;
    }

    /// It has failed, by this cause and with this status, when there was one. What breaks after the message was whole
    /// has broken nothing.
    pub fn failed(&mut self, cause: &'static str, status: Option<StatusCode>) {
        if self.is_settled {
            return;
        }
        self.is_settled = true;
        if let Some(status) = status {
            self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        }
        self.span.set_attribute(KeyValue::new("error.type", cause));
        self.span.set_status(Status::error(cause));
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        if !self.is_settled {
            let is_overdue = self.until.is_some_and(|until| until <= Instant::now());
            self.failed(if is_overdue { "timeout" } else { "cancelled" }, None);
        }
        if let Some(model) = lock(&self.answering).take() {
            self.span.set_attribute(KeyValue::new("gen_ai.response.model", model));
        }
    }
}

/// Exporters send a batch whole, or not at all.
fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_ATTRIBUTE_BYTES));
}

fn lock(model: &Mutex<Option<String>>) -> std::sync::MutexGuard<'_, Option<String>> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::telemetry::Traces;
    use crate::telemetry::decision::{Call, Decision};

    #[test]
    fn what_a_provider_calls_itself_and_its_end_is_cut_at_a_bound() {
        let run = Traces::of(SdkTracerProvider::builder().build());
        let run = run.run("r", "team", "judge", &TraceHeaders::default()).unwrap();
        let asked = Asked { model: "m", alias: "a", provider: "openai", host: "h", port: 1, until: None };
        let told = |text: &str| {
            let trace = run.call(Seat::Member(0), &Decision::default());
            let mut attempt = trace.attempt(asked);
            attempt.finished(text);
            let data = attempt.span.exported_data().unwrap();
            trace.answered_by(text.to_owned());
            let model = lock(&trace.answering).take().unwrap();
            let of =
                |key: &str| data.attributes.iter().find(|a| a.key.as_str() == key).unwrap().value.clone();
            let Value::Array(Array::String(reasons)) = of("gen_ai.response.finish_reasons") else { panic!() };
            assert_eq!(reasons[0].as_str(), model);
            model.len()
        };
        assert_eq!(told(&"x".repeat(256)), 256);
        assert_eq!(told(&"x".repeat(257)), 256);
        assert_eq!(told(&"é".repeat(1000)), 256);
    }

    #[test]
    fn an_attempt_plays_the_part_that_the_decision_names() {
        let run = Traces::of(SdkTracerProvider::builder().build());
        let run = run.run("r", "team", "judge", &TraceHeaders::default()).unwrap();
        let judges = ["judge", "fallback"].map(|role| Call { role: role.to_owned(), ..Call::default() });
        let decision = Decision { judges: judges.to_vec(), ..Decision::default() };
        let asked = Asked { model: "m", alias: "a", provider: "openai", host: "h", port: 1, until: None };
        let role = |seat| {
            let data = run.call(seat, &decision).attempt(asked).span.exported_data().unwrap();
            let role = data.attributes.iter().find(|attribute| attribute.key.as_str() == "consort.role");
            role.map(|role| role.value.to_string())
        };
        let roles = [Seat::Member(0), Seat::Judge(0), Seat::Judge(1)].map(role);
        assert_eq!(roles.map(Option::unwrap), ["member", "judge", "fallback"]);
    }
}
