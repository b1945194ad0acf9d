//! The wire formats that providers speak: each puts a chat-completions request in its own words, and its
//! answer in those of chat completions.

mod anthropic;
mod asked;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gemini;
mod openai;
mod told;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Uri};

use super::{Adapter, Call, Events, Failure, ProviderError};
use crate::chat::{Body, Event};

/// A request in a provider's words.
struct Spoken {
    uri: Uri,
    /// Headers of the format's own.
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
    listener: Listener,
}

/// Reads one answer in the words of the provider that gives it. It is read whole, or event by event.
enum Listener {
    OpenAi(openai::Listener),
    Anthropic(anthropic::Listener),
    Gemini(gemini::Listener),
}

/// What a provider says about a request that it refuses.
#[derive(Debug, PartialEq)]
struct Refusal {
    /// The status that tells whose fault it is.
    status: StatusCode,
    /// The error, when it could be read.
    error: Option<ProviderError>,
    /// When to come back, when the body says so.
    retry_after: Option<Duration>,
}

/// How far a streamed answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The message goes on.
    Speaking,
    /// The message has ended; its usage may still follow.
    Finished,
    /// Nothing more follows.
    Done,
}

/// Makes one call.
pub(super) async fn call(mut call: Call) -> Result<Events, Failure> {
    let provider = Arc::clone(&call.model.provider);
    let spoken = match &provider.adapter {
        Adapter::OpenAi(endpoint) => openai::speak(&mut call, endpoint)?,
        Adapter::Anthropic => anthropic::speak(&call)?,
        Adapter::Gemini => gemini::speak(&call)?,
    };
    wire::ask(&call, spoken).await
}

impl Listener {
    /// What a whole answer says.
    fn whole(&mut self, body: &Bytes) -> Result<Vec<Event>, Failure> {
        match self {
            Self::OpenAi(_) => openai::whole(body),
            Self::Anthropic(listener) => listener.whole(body),
            Self::Gemini(listener) => listener.whole(body),
        }
    }

    /// What the data of one event of a stream says.
    fn hear(&mut self, data: &Bytes) -> Result<Vec<Event>, Failure> {
        match self {
            Self::OpenAi(listener) => listener.hear(data),
            Self::Anthropic(listener) => listener.hear(data),
            Self::Gemini(listener) => listener.hear(data),
        }
    }

    /// What is left to say when a stream's body has ended; one that had more to say is incomplete.
    fn end(&mut self) -> Result<Vec<Event>, Failure> {
        match self {
            Self::OpenAi(listener) => listener.end(),
            Self::Anthropic(listener) => listener.end(),
            Self::Gemini(listener) => listener.end(),
        }
    }

    /// What a stream has reported of its cost and not told yet.
    fn cost_so_far(&self) -> Option<Event> {
        match self {
            Self::OpenAi(_) => None,
            Self::Anthropic(listener) => listener.cost_so_far(),
            Self::Gemini(listener) => listener.cost_so_far(),
        }
    }

    fn stage(&self) -> Stage {
        match self {
            Self::OpenAi(listener) => listener.stage(),
            Self::Anthropic(listener) => listener.stage(),
            Self::Gemini(listener) => listener.stage(),
        }
    }

    /// What a provider says about a request that it refuses.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> Refusal {
        let error = match self {
            Self::OpenAi(_) => openai::error(body),
            Self::Anthropic(_) => anthropic::error(body),
            Self::Gemini(_) => return gemini::refusal(status, body),
        };
        Refusal { status, error, retry_after: None }
    }
}
