//! What an oracle is told of an Envoy.

use crate::ext_proc::ModeOverride;
use crate::ext_proc::pb::BodySendMode;

/// How Envoy is attached, and what its messages meet.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// The mode that the first message tells, if it does.
    pub base: Option<BodySendMode>,
    /// As configured.
    pub mode_override: ModeOverride,
    /// As configured.
    pub max_request_bytes: usize,
    /// Whether an alias's complete request goes on to an upstream.
    pub redirects: bool,
}

/// A message of Envoy's, in a word.
#[derive(Clone, Debug)]
pub enum Said {
    /// The request's headers.
    Headers {
        /// Whether they are those of a chat completion.
        is_chat: bool,
        /// Whether there is no body.
        end: bool,
    },
    /// A piece of the body.
    Body(Vec<u8>, bool),
    /// The request's trailers.
    Trailers,
    /// The headers of a response that came from elsewhere.
    ResponseHeaders,
    /// Its body.
    ResponseBody,
    /// Its trailers.
    ResponseTrailers,
    /// A message without content.
    Nothing,
}
