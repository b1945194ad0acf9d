//! The chat-completions wire format: what callers send, what providers answer, and what a caller
//! is answered.
//!
//! Requests stay the caller's bytes ([`Request`], [`RawObject`]); answers are [`Event`]s, whether
//! they came in one piece or as a stream.

mod answer;
mod body;
mod chunk;
mod collected;
mod completion;
mod conversation;
mod counted;
mod error;
mod listed;
mod object;
mod pieces;
mod reasoning;
mod request;
mod scan;
pub mod sse;
mod thinking;
mod usage;

pub use answer::Answer;
pub use body::Body;
pub use chunk::{Chunk, ChunkError};
pub use collected::Collected;
pub use completion::{Completion, CompletionError, MAX_CALLS, MAX_PARTS};
pub use conversation::Conversation;
pub use counted::{MAX_NODES, Nodes};
pub use error::{ApiError, JsonError};
pub use listed::{First, UpTo, each};
pub use object::{Edit, ObjectError, RawObject, quoted};
pub use reasoning::without_reasoning;
pub use request::{Request, RequestError};
pub use scan::{ModelScan, Scan};
pub use thinking::Thinking;
pub use usage::Usage;

/// One step of an answer, from a provider or to a caller.
#[derive(Clone, Debug)]
pub enum Event {
    /// A whole message, as a provider that does not stream gives it.
    Message(Box<Completion>),
    /// A further piece of the message.
    Delta(Delta),
    /// Why the message ended.
    Finish(Box<str>),
    /// What the answer cost its provider.
    Usage(Usage),
    /// The record of how an ensemble's answer came about, for a caller who may see it.
    Decision(Box<serde_json::value::RawValue>),
}

/// A piece of a message, as its provider wrote it.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The `delta` object, without `role`.
    pub json: bytes::Bytes,
    /// The piece's `logprobs`, when its provider gave some.
    pub logprobs: Option<Box<serde_json::value::RawValue>>,
    /// Whether it says anything: content, reasoning, a refusal or a tool call.
    pub speaks: bool,
}
