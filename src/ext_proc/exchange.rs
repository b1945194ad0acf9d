//! The protocol without I/O: a message in, a step out. It holds no clock and no socket.

mod held;
mod step;

use std::sync::Arc;

use self::held::Held;
pub(super) use self::step::{Asked, Detour, Notice, Step, Violation};
use super::headers::RequestHead;
use super::pb::{self, BodySendMode};
use super::{ModeOverride, reply};
use crate::chat::{ModelScan, Scan};
use crate::dispatch::Headers;
use crate::ensemble::{Ensemble, Snapshot};
use crate::limits::Share;
use crate::signing::{MARKER, TICKET};

/// One HTTP request, as Envoy tells it.
#[derive(Debug)]
pub(super) struct Exchange {
    snapshot: Arc<Snapshot>,
    mode_override: ModeOverride,
    max_request_bytes: usize,
    phase: Phase,
    head: RequestHead,
    /// Headers that only Consort may set, and that have come: they go no further.
    ours: Vec<&'static str>,
    scan: ModelScan,
    held: Held,
    notice: Option<Notice>,
    overridden: bool,
}

/// How Envoy has shown a request.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// In pieces that it does not keep; its headers are unanswered yet.
    Pieces {
        /// Whether trailers were the end.
        trailers: bool,
    },
    /// As a whole that it keeps; its headers are answered.
    Whole {
        /// Whether that was the end, or trailers are still to come.
        end: bool,
    },
}

#[derive(Clone, Debug)]
enum Phase {
    /// Nothing has come yet.
    Start,
    /// The headers' answer is held back until the body tells where the request goes.
    Hold,
    /// This ensemble's body is being collected.
    Collect(Arc<Ensemble>),
    /// No alias: what comes is handed back.
    Echo,
    /// Envoy keeps the body and shows it whole.
    Buffered,
    /// Envoy keeps the body and shows it in vain.
    Ignore,
    /// The body was asked for by an override that has not shown any effect yet.
    Override,
    /// An alias's request is complete and has no answer yet.
    Asked(Shown),
    /// There is nothing more to say.
    Over,
}

impl Exchange {
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        mode_override: ModeOverride,
        max_request_bytes: usize,
        share: Share,
    ) -> Self {
        Self {
            snapshot,
            mode_override,
            max_request_bytes,
            phase: Phase::Start,
            head: RequestHead::default(),
            ours: Vec::new(),
            scan: ModelScan::default(),
            held: Held::new(share),
            notice: None,
            overridden: false,
        }
    }

    /// Takes the next message.
    pub(super) fn receive(&mut self, message: pb::ProcessingRequest) -> Step {
        if matches!(self.phase, Phase::Asked(_) | Phase::Over) {
            return Step::Send(Vec::new());
        }
        let Some(request) = message.request else {
            return self.violation(Violation::Empty);
        };
        match (&self.phase, request) {
            (Phase::Start, pb::Request::RequestHeaders(headers)) => {
                let base = message.protocol_config.map(|c| c.request_body_mode());
                let end = headers.end_of_stream;
                self.head = RequestHead::from(headers).with_metadata(message.metadata_context);
                self.ours =
                    [TICKET, MARKER].into_iter().filter(|name| self.head.value(name).is_some()).collect();
                self.begin(end, base)
            }
            // The request ended elsewhere: some other filter or Envoy itself has answered it.
            (
                _,
                request @ (pb::Request::ResponseHeaders(_)
                | pb::Request::ResponseBody(_)
                | pb::Request::ResponseTrailers(_)),
            ) => self.over(reply::pass_response(&request).into_iter().collect()),
            (Phase::Start, _) => self.violation(Violation::NoHeaders),
            (_, pb::Request::RequestHeaders(_)) => self.violation(Violation::HeadersTwice),
            (_, pb::Request::RequestBody(piece)) => self.body(piece),
            (_, pb::Request::RequestTrailers(_)) => self.trailers(),
        }
    }

    /// Lets an alias's complete request go on to its upstream as it is.
    pub(super) fn pass(&mut self, body: Vec<u8>) -> Step {
        match self.phase {
            Phase::Asked(Shown::Pieces { trailers }) => {
                let mut replies = vec![self.pass_headers()];
                replies.extend(reply::echo(body, !trailers));
                replies.extend(trailers.then(reply::pass_trailers));
                self.over(replies)
            }
            Phase::Asked(Shown::Whole { end }) => {
                self.phase = Phase::Ignore;
                self.send(vec![reply::pass_body()], end)
            }
            _ => Step::Send(Vec::new()),
        }
    }

    /// Lets an alias's complete request go on to its upstream, changed.
    pub(super) fn redirect(&mut self, detour: &Detour) -> Step {
        match self.phase {
            Phase::Asked(Shown::Pieces { trailers }) => {
                let mut replies = vec![reply::changed_headers(detour, &self.ours)];
                replies.extend(reply::handed_on(&detour.body, !trailers));
                replies.extend(trailers.then(reply::pass_trailers));
                self.over(replies)
            }
            Phase::Asked(Shown::Whole { end }) => {
                self.phase = Phase::Ignore;
                self.send(vec![reply::changed_body(detour)], end)
            }
            _ => Step::Send(Vec::new()),
        }
    }

    /// Whether the body was asked for and nothing has come of it: when the stream ends here, Envoy
    /// has refused the override, or the caller has left before its first byte.
    pub(super) fn awaits_override(&self) -> bool {
        matches!(self.phase, Phase::Override)
    }

    /// Whether the body came because it was asked for.
    pub(super) fn was_overridden(&self) -> bool {
        self.overridden
    }

    /// The id under which the request is logged.
    pub(super) fn request_id(&self) -> Arc<str> {
        self.head.request_id()
    }

    /// What an operator should know of the last step.
    pub(super) fn take_notice(&mut self) -> Option<Notice> {
        self.notice.take()
    }

    fn begin(&mut self, end: bool, base: Option<BodySendMode>) -> Step {
        if end {
            return self.over(vec![self.pass_headers()]);
        }
        let is_wanted = self.head.may_be_chat();
        match base {
            Some(BodySendMode::None) if !is_wanted => self.over(vec![self.pass_headers()]),
            Some(BodySendMode::None | BodySendMode::Streamed)
                if is_wanted && self.mode_override == ModeOverride::Standalone =>
            {
                self.phase = Phase::Override;
                Step::Send(vec![reply::body_wanted()])
            }
            Some(BodySendMode::None) => {
                self.notice = Some(Notice::NoBody);
                self.over(vec![self.pass_headers()])
            }
            Some(BodySendMode::FullDuplexStreamed) if is_wanted => {
                self.phase = Phase::Hold;
                Step::Send(Vec::new())
            }
            Some(BodySendMode::FullDuplexStreamed) => {
                self.phase = Phase::Echo;
                Step::Send(vec![self.pass_headers()])
            }
            // Envoys that do not tell their mode are older than the others.
            Some(BodySendMode::Buffered) | None if is_wanted => {
                self.phase = Phase::Buffered;
                Step::Send(vec![self.pass_headers()])
            }
            _ => {
                self.notice = is_wanted.then_some(Notice::UnsupportedMode);
                self.phase = Phase::Ignore;
                Step::Send(vec![self.pass_headers()])
            }
        }
    }

    fn body(&mut self, piece: pb::HttpBody) -> Step {
        let end = piece.end_of_stream;
        match &self.phase {
            Phase::Hold | Phase::Override => {
                self.overridden |= self.awaits_override();
                self.phase = Phase::Hold;
                let scan = self.scan.feed(&piece.body);
                self.held.push(piece.body);
                self.decide(&scan, end)
            }
            Phase::Collect(ensemble) => {
                let ensemble = Arc::clone(ensemble);
                self.held.append(piece.body);
                self.collect(ensemble, end.then_some(Shown::Pieces { trailers: false }))
            }
            Phase::Echo => self.send(reply::echo(piece.body, end).collect(), end),
            // The one message is the body, even where trailers are still to come.
            Phase::Buffered => match self.scanned(&piece.body) {
                Some(ensemble) => {
                    self.held.push(piece.body);
                    self.answer(ensemble, Shown::Whole { end })
                }
                None => self.send(vec![reply::pass_body()], end),
            },
            Phase::Ignore => self.send(vec![reply::pass_body()], end),
            Phase::Start | Phase::Asked(_) | Phase::Over => Step::Send(Vec::new()),
        }
    }

    fn trailers(&mut self) -> Step {
        match &self.phase {
            Phase::Hold | Phase::Override => {
                let mut replies = self.release(false);
                replies.push(reply::pass_trailers());
                self.over(replies)
            }
            Phase::Collect(ensemble) => {
                let ensemble = Arc::clone(ensemble);
                self.collect(ensemble, Some(Shown::Pieces { trailers: true }))
            }
            Phase::Echo | Phase::Buffered | Phase::Ignore => self.over(vec![reply::pass_trailers()]),
            Phase::Start | Phase::Asked(_) | Phase::Over => Step::Send(Vec::new()),
        }
    }

    /// Where a held request goes, as far as is known.
    fn decide(&mut self, scan: &Scan, end: bool) -> Step {
        if let Some(ensemble) = self.asked(scan) {
            return self.collect(ensemble, end.then_some(Shown::Pieces { trailers: false }));
        }
        if *scan != Scan::More || end {
            self.phase = Phase::Echo;
            let replies = self.release(end);
            return self.send(replies, end);
        }
        // Beyond the bound nothing more can be held, and an alias must not slip by unseen.
        self.refusal().unwrap_or(Step::Send(Vec::new()))
    }

    /// Lets the request's headers go on.
    fn pass_headers(&self) -> pb::ProcessingResponse {
        reply::pass_headers(&self.ours)
    }

    fn scanned(&mut self, piece: &[u8]) -> Option<Arc<Ensemble>> {
        let scan = self.scan.feed(piece);
        self.asked(&scan)
    }

    /// The ensemble that the request asks for.
    fn asked(&self, scan: &Scan) -> Option<Arc<Ensemble>> {
        match scan {
            Scan::Model(model) => self.snapshot.ensemble(model).map(Arc::clone),
            Scan::More | Scan::None => None,
        }
    }

    /// Lets go on what was held.
    fn release(&mut self, end: bool) -> Vec<pb::ProcessingResponse> {
        let pieces = self.held.release();
        let last = pieces.len();
        let echoed =
            pieces.into_iter().enumerate().flat_map(|(i, piece)| reply::echo(piece, end && i + 1 == last));
        std::iter::once(self.pass_headers()).chain(echoed).collect()
    }

    /// Takes what has come of an ensemble's request, and the whole once it is `shown`.
    fn collect(&mut self, ensemble: Arc<Ensemble>, shown: Option<Shown>) -> Step {
        if let Some(shown) = shown {
            return self.answer(ensemble, shown);
        }
        if !matches!(self.phase, Phase::Collect(_)) {
            self.held.gather(self.head.length().min(self.max_request_bytes));
        }
        self.phase = Phase::Collect(ensemble);
        self.refusal().unwrap_or(Step::Send(Vec::new()))
    }

    fn answer(&mut self, ensemble: Arc<Ensemble>, shown: Shown) -> Step {
        if let Some(refusal) = self.refusal() {
            return refusal;
        }
        self.phase = Phase::Asked(shown);
        let body = self.held.body();
        let head = std::mem::take(&mut self.head);
        let can_stream = matches!(shown, Shown::Pieces { .. });
        Step::Answer(Box::new(Asked { ensemble, body, head, can_stream }))
    }

    /// The refusal of what cannot be held.
    fn refusal(&mut self) -> Option<Step> {
        let error = self.held.refusal(self.max_request_bytes)?;
        self.phase = Phase::Over;
        Some(Step::Refuse(Box::new(error)))
    }

    fn send(&mut self, replies: Vec<pb::ProcessingResponse>, end: bool) -> Step {
        if end { self.over(replies) } else { Step::Send(replies) }
    }

    fn violation(&mut self, violation: Violation) -> Step {
        self.phase = Phase::Over;
        Step::Break(violation)
    }

    fn over(&mut self, replies: Vec<pb::ProcessingResponse>) -> Step {
        self.phase = Phase::Over;
        Step::Finish(replies)
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod oracle;
#[cfg(test)]
mod sequences;
#[cfg(test)]
mod tests;
