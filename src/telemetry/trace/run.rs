//! The span of a run.

use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::{CallTrace, Sink, TraceHeaders, Traces};
use crate::telemetry::decision::{Decision, Outcome};
use crate::telemetry::{Part, Seat};

/// The span of a run, which goes on until its decision is known.
#[derive(Debug)]
pub struct RunSpan {
    span: Span,
    tracer: SdkTracer,
    /// Where spans of its calls belong.
    within: Context,
}

impl Traces {
    /// Begins the span of a run, below the caller's. None where traces are off.
    pub fn run(
        &self,
        request_id: &str,
        alias: &str,
        strategy: &'static str,
        caller: &TraceHeaders,
    ) -> Option<Box<RunSpan>> {
        let Sink { tracer, .. } = self.0.as_ref()?;
        let attributes = [
            KeyValue::new("gen_ai.operation.name", "invoke_workflow"),
            KeyValue::new("gen_ai.workflow.name", alias.to_owned()),
            KeyValue::new("consort.alias", alias.to_owned()),
            KeyValue::new("consort.strategy", strategy),
            KeyValue::new("consort.request_id", request_id.to_owned()),
        ];
        let span = tracer
            .span_builder(format!("invoke_workflow {alias}"))
            .with_kind(SpanKind::Internal)
            .with_attributes(attributes)
            .start_with_context(tracer, &caller.context());
        let within = Context::new().with_remote_span_context(span.span_context().clone());
        Some(Box::new(RunSpan { span, tracer: tracer.clone(), within }))
    }
}

impl RunSpan {
    /// Where spans of the attempts of a call belong that the decision notes already.
    pub(in crate::telemetry) fn call(&self, seat: Seat, decision: &Decision) -> CallTrace {
        let role = match seat {
            Seat::Member(_) => Part::Member.label(),
            Seat::Judge(place) => decision.judges.get(place).map_or(Part::Judge.label(), |call| &call.role),
        };
        CallTrace::new(self.tracer.clone(), self.within.clone(), seat, role.to_owned())
    }

    /// Ends it with what came of the run.
    pub(in crate::telemetry) fn end(mut self, decision: &Decision) {
        if !self.span.is_recording() {
            return;
        }
        let outcome = decision.outcome();
        self.span.set_attributes([
            KeyValue::new("consort.outcome", outcome.label()),
            KeyValue::new("consort.stream", decision.stream),
            KeyValue::new("consort.quorum.needed", i64::from(decision.quorum_needed)),
            KeyValue::new("consort.quorum.got", i64::from(decision.quorum_got)),
        ]);
        if let Some(usage) = &decision.usage {
            self.span.set_attributes([
                KeyValue::new("consort.usage.input_tokens", count(usage.prompt_tokens)),
                KeyValue::new("consort.usage.output_tokens", count(usage.completion_tokens)),
                KeyValue::new("consort.usage.estimated", usage.estimated),
            ]);
        }
        if let Some(agreement) = decision.agreement {
            self.span.set_attribute(KeyValue::new("consort.agreement", agreement));
        }
        if !decision.degraded.is_empty() {
            let why = decision.degraded.iter().cloned().map(StringValue::from).collect();
            self.span.set_attribute(KeyValue::new("consort.degraded", Value::Array(Array::String(why))));
        }
        let error = match outcome {
            Outcome::Failed => decision.error_code.clone(),
            Outcome::Cancelled => outcome.label().to_owned(),
            _ => return,
        };
        self.span.set_status(Status::error(error.clone()));
        self.span.set_attribute(KeyValue::new("error.type", error));
    }
}

/// A count of tokens as attributes have it.
pub(super) fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
