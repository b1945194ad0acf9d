//! `GET /v1/models` through Envoy, without I/O: the aliases are told with the upstream's models, or in their place.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use percent_encoding::percent_decode_str;

use super::exchange::Step;
use super::headers::value;
use super::{ListModels, pb, reply};
use crate::dispatch::{Headers, Models};
use crate::ensemble::Snapshot;

/// A longer list passes as it is, in bytes.
const MAX_LIST: usize = 4 << 20;

/// One request, as far as it asks for models.
#[derive(Debug)]
pub(super) struct Listing {
    snapshot: Arc<Snapshot>,
    how: ListModels,
    models: Models,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing has come yet.
    Start,
    /// It asks for something else.
    Other,
    /// The upstream is asked.
    Asked,
    /// The upstream's list is on its way.
    Answered {
        /// Whether its length is told.
        tells_length: bool,
    },
}

/// What a path below `/models` asks for.
enum Wanted {
    List,
    One(String),
}

/// A message's headers, read where they are: most requests ask for something else.
struct Seen<'a>(&'a [pb::HeaderValue]);

impl Listing {
    pub(super) fn new(snapshot: Arc<Snapshot>, how: ListModels, models: Models) -> Self {
        let phase = if how == ListModels::Off { Phase::Other } else { Phase::Start };
        Self { snapshot, how, models, phase }
    }

    /// Takes the next message; `None` when it is none of its business.
    pub(super) fn receive(&mut self, message: &pb::ProcessingRequest) -> Option<Step> {
        match (self.phase, message.request.as_ref()?) {
            (Phase::Start, pb::Request::RequestHeaders(headers)) => {
                self.phase = Phase::Other;
                self.asked(&Seen::of(headers))
            }
            (Phase::Asked, pb::Request::ResponseHeaders(headers)) if !headers.end_of_stream => {
                Some(self.answered(&Seen::of(headers)))
            }
            (Phase::Answered { tells_length }, pb::Request::ResponseBody(body)) => {
                Some(Step::Finish(vec![self.listed(body, tells_length)]))
            }
            (Phase::Asked | Phase::Answered { .. }, request) => {
                Some(Step::Finish(reply::pass_response(request).into_iter().collect()))
            }
            (Phase::Start | Phase::Other, _) => None,
        }
    }

    fn asked(&mut self, head: &Seen<'_>) -> Option<Step> {
        let whole = match (Wanted::read(head)?, self.how) {
            (Wanted::One(name), _) => {
                self.snapshot.ensemble(&name)?;
                self.models.one(&name, &head.request_id())
            }
            (Wanted::List, ListModels::Answer) => self.models.list(self.names(), &head.request_id()),
            (Wanted::List, _) => {
                self.phase = Phase::Asked;
                return Some(Step::Send(vec![reply::plain_wanted()]));
            }
        };
        Some(Step::Tell(Box::new(whole)))
    }

    fn answered(&mut self, head: &Seen<'_>) -> Step {
        let length = head.value(CONTENT_LENGTH.as_str());
        let bytes = |length| std::str::from_utf8(length).ok()?.parse::<usize>().ok();
        let is_short = length.is_none_or(|length| bytes(length).is_some_and(|bytes| bytes <= MAX_LIST));
        let is_list = head.value(":status") == Some(b"200") && head.is_json() && head.is_plain() && is_short;
        if !is_list {
            return Step::Finish(vec![reply::pass_response_headers()]);
        }
        self.phase = Phase::Answered { tells_length: length.is_some() };
        Step::Send(vec![reply::pass_response_headers()])
    }

    /// The list with the aliases, or as it came.
    fn listed(&self, body: &pb::HttpBody, tells_length: bool) -> pb::ProcessingResponse {
        // Envoy shows no more than it buffers; without the end it is not the whole.
        let is_whole = body.end_of_stream && body.body.len() <= MAX_LIST;
        let list = is_whole.then(|| Bytes::copy_from_slice(&body.body));
        match list.and_then(|list| self.models.appended(list, self.names())) {
            Some(list) => reply::replaced(&list, tells_length),
            None => reply::pass_response_body(),
        }
    }

    /// Direct models are not served here.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.snapshot.ensembles().map(|ensemble| &*ensemble.name).collect();
        names.sort_unstable();
        names
    }
}

impl Wanted {
    /// What a request asks for, whatever stands before `/models` in its path.
    fn read(head: &Seen<'_>) -> Option<Self> {
        if head.value(":method") != Some(b"GET") {
            return None;
        }
        let path = head.path();
        match path.split_once("/models/") {
            // A name may have slashes, escaped or not.
            Some((_, name)) => percent_decode_str(name).decode_utf8().ok().map(|name| Self::One(name.into())),
            None => path.ends_with("/models").then_some(Self::List),
        }
    }
}

impl<'a> Seen<'a> {
    fn of(headers: &'a pb::HttpHeaders) -> Self {
        Self(headers.headers.as_ref().map_or(&[], |map| &map.headers))
    }
}

impl Headers for Seen<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rfind(|header| header.key == name).map(value)
    }

    fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|header| (&*header.key, value(header)))
    }

    fn path(&self) -> &str {
        let path = self.value(":path").and_then(|path| std::str::from_utf8(path).ok());
        path.and_then(|path| path.split('?').next()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
