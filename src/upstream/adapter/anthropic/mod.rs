//! Anthropic's Messages (API version 2023-06-01), spoken natively.

mod answer;
mod request;
mod stream;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Call, Failure, ProviderError};
use super::Spoken;
use super::asked::Asked;
use super::told::Cost;
use super::wire::endpoint;
use crate::chat::Body;

pub(super) use stream::Listener;

const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"));

/// The request in Anthropic's words.
pub(super) fn speak(call: &Call) -> Result<Spoken, Failure> {
    let asked = Asked::read(&call.body.to_bytes())?;
    let style = asked.style;
    let request = request::translate(asked, call.model.max_tokens_default, call.model.rules.unsupported)?;
    Ok(Spoken {
        uri: endpoint(&call.model.provider.base_url, "/messages", None)?,
        headers: vec![VERSION],
        body: Body::from_chunks([request.to_string().into()]),
        listener: super::Listener::Anthropic(Listener::new(style)),
    })
}

/// What a refusal says.
pub(super) fn error(body: &[u8]) -> Option<ProviderError> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        message: String,
    }
    let Envelope { error } = serde_json::from_slice(body).ok()?;
    Some(ProviderError { message: error.message, param: None, code: Some(error.kind) })
}

/// A field that has to be there.
fn read<'a, T: Deserialize<'a>>(field: Option<&'a RawValue>) -> Result<T, Failure> {
    let json = field.map_or("null", RawValue::get);
    serde_json::from_str(json).map_err(|e| Failure::Unreadable(e.into()))
}

/// A `stop_reason` as chat completions have it.
fn finish_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        // end_turn, stop_sequence, pause_turn, and what is still to come.
        _ => "stop",
    }
}

/// A `usage`; what a later report of the same answer leaves out stays as it was.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Usage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
}

impl Usage {
    fn update(&mut self, later: Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens =
            later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
    }

    /// None where nothing was reported. Anthropic counts what was not cached apart from what was.
    fn cost(self) -> Option<Cost> {
        let (Some(input), Some(output)) = (self.input_tokens, self.output_tokens) else {
            return None;
        };
        let (read, written) = (self.cache_read_input_tokens, self.cache_creation_input_tokens);
        Some(Cost {
            prompt: [read, written].into_iter().flatten().fold(input, u64::saturating_add),
            completion: output,
            cached: read,
            cache_written: written.filter(|written| *written > 0),
            reasoning: None,
        })
    }
}

#[cfg(test)]
mod tests;
