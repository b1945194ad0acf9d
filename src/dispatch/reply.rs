//! What a caller is told, before a door spells it.

use std::time::Duration;

use bytes::Bytes;

use crate::chat::{ApiError, Usage};
use crate::ensemble::Head;
use crate::limits::Quota;

/// The content type of whole answers and of errors.
pub(super) const JSON: &str = "application/json";
/// The content type of streams.
pub(super) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// A header of an answer.
pub type Field = (&'static str, String);

/// One step of what a caller is told. The last one is [`Reply::Whole`] or [`Reply::End`].
#[derive(Debug)]
pub enum Reply {
    /// The answer will come in one piece, within this time at most.
    Waiting(Duration),
    /// An answer, or an error, in one piece.
    Whole(Box<Whole>),
    /// The beginning of a streamed answer: its status is 200, and these are its headers.
    Head(Vec<Field>),
    /// A piece of a streamed answer.
    Piece(Bytes),
    /// The last piece of a streamed answer, which may be empty.
    End(Bytes, Summary),
}

/// An answer, or an error, in one piece.
#[derive(Debug)]
pub struct Whole {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub fields: Vec<Field>,
    /// The body.
    pub body: Bytes,
    /// `answered`, or the cause of the error in one word.
    pub label: &'static str,
    /// How it came about; none when there was no run.
    pub summary: Option<Summary>,
}

/// How an answer came about, for those who keep records of it.
#[derive(Debug)]
pub struct Summary {
    /// What is known of the run.
    pub head: Box<Head>,
    /// What it cost, where it has come to an end.
    pub usage: Option<Usage>,
    /// The cause of an error in one word.
    pub code: Option<&'static str>,
}

impl Whole {
    /// An error, with what is known of its run.
    pub fn error(error: &ApiError, head: Option<&Head>, request_id: &str) -> Self {
        let head = head.map(|head| Box::new(Head { outcome: None, ..head.clone() }));
        let mut fields = fields(JSON, head.as_deref(), request_id);
        if let Some(seconds) = error.retry_after {
            fields.push(("retry-after", seconds.to_string()));
        }
        if let Some(should) = error.should_retry {
            fields.push(("x-should-retry", should.to_string()));
        }
        Self {
            status: error.status,
            fields,
            body: error.to_json(head.as_ref().and_then(|head| head.decision.as_deref())),
            label: error.label,
            summary: head.map(|head| Summary { head, usage: None, code: Some(error.label) }),
        }
    }
}

/// The error for a request body over the bound.
pub fn too_large(max_bytes: usize) -> ApiError {
    ApiError::new(413, "request_too_large", format!("the request body is larger than {max_bytes} bytes"))
}

/// The error for a request that Consort itself has made and that would be answered by an ensemble again.
pub fn loop_detected() -> ApiError {
    let message = "this request was made for an ensemble and has come back to be answered by one; a member's \
                   `base_url` must lead to its model";
    ApiError::new(508, "loop_detected", message).no_retry()
}

/// The headers of an answer.
pub(super) fn fields(content_type: &'static str, head: Option<&Head>, request_id: &str) -> Vec<Field> {
    let mut fields = vec![("content-type", content_type.to_owned()), ("x-request-id", request_id.to_owned())];
    let Some(head) = head else {
        return fields;
    };
    fields.push(("x-ensemble-alias", head.alias.to_string()));
    fields.push(("x-ensemble-strategy", head.strategy.to_owned()));
    fields.push(("x-ensemble-panel", head.panel.to_string()));
    fields.extend(head.quota.iter().flat_map(Quota::headers));
    if let Some(outcome) = head.outcome {
        fields.push(("x-ensemble-responses", head.responses.to_string()));
        fields.push(("x-ensemble-outcome", outcome.label().to_owned()));
        if let Some(agreement) = head.agreement {
            fields.push(("x-ensemble-agreement", format!("{agreement:.2}")));
        }
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let judge = head.judge_time.map(|time| format!(", judge;dur={:.1}", ms(time))).unwrap_or_default();
        fields.push(("server-timing", format!("panel;dur={:.1}{judge}", ms(head.panel_time))));
    }
    fields
}
