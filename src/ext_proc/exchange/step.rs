//! What an exchange says is to be done.

use std::sync::Arc;

use http::HeaderName;

use crate::chat::{ApiError, Body};
use crate::dispatch::Whole;
use crate::ensemble::Ensemble;
use crate::ext_proc::headers::RequestHead;
use crate::ext_proc::pb;

/// What is to be done next.
#[derive(Debug)]
pub(in crate::ext_proc) enum Step {
    /// Send these and read on.
    Send(Vec<pb::ProcessingResponse>),
    /// Send these; nothing more is to be said.
    Finish(Vec<pb::ProcessingResponse>),
    /// Answer the request with this error; nothing more is to be said.
    Refuse(Box<ApiError>),
    /// Answer the request with this; nothing more is to be said.
    Tell(Box<Whole>),
    /// An alias's request is complete: answer it, or let it [pass](super::Exchange::pass) or be
    /// [redirected](super::Exchange::redirect).
    Answer(Box<Asked>),
    /// Envoy said what it may not say here.
    Break(Violation),
}

/// An alias's complete request.
#[derive(Debug)]
pub(in crate::ext_proc) struct Asked {
    pub(in crate::ext_proc) ensemble: Arc<Ensemble>,
    pub(in crate::ext_proc) body: Vec<u8>,
    pub(in crate::ext_proc) head: RequestHead,
    /// Whether Envoy can stream an immediate response in this mode.
    pub(in crate::ext_proc) can_stream: bool,
}

/// A request that goes on to its upstream, changed.
#[derive(Debug)]
pub(in crate::ext_proc) struct Detour {
    pub(in crate::ext_proc) body: Body,
    /// Whether the caller has told the length of the one before.
    pub(in crate::ext_proc) tells_length: bool,
    /// A header that is set.
    pub(in crate::ext_proc) field: Option<(HeaderName, String)>,
    /// Whether Envoy is to choose the route anew.
    pub(in crate::ext_proc) clear_route_cache: bool,
}

/// Something that an operator should know, and the caller will not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ext_proc) enum Notice {
    /// The attachment never shows a body, so that no alias can be recognised.
    NoBody,
    /// The attachment's body mode is none that Consort can answer from.
    UnsupportedMode,
}

/// A message out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::ext_proc) enum Violation {
    #[error("the first message is not the request's headers")]
    NoHeaders,
    #[error("the request's headers came twice")]
    HeadersTwice,
    #[error("a message without content")]
    Empty,
}
