//! What Envoy permits, as a second reading of the protocol: sequences of messages are played before it.

mod said;

use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpTrailers, ProtocolConfiguration};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

pub use self::said::{Attachment, Said};
use super::*;
use crate::chat::Body;
use crate::limits::Room;

/// Plays messages to an exchange that knows one alias, held to what Envoy permits; tells whether it is over.
///
/// # Errors
/// The first step that Envoy does not permit.
pub fn play(
    snapshot: &Arc<Snapshot>,
    attachment: Attachment,
    said: impl IntoIterator<Item = Said>,
) -> Result<bool, String> {
    let Attachment { mode_override, max_request_bytes, .. } = attachment;
    let mut exchange =
        Exchange::new(Arc::clone(snapshot), mode_override, max_request_bytes, Room::default().share());
    let mut envoy = Envoy::new(attachment, snapshot);
    for (place, said) in said.into_iter().enumerate() {
        let named = |breach: &str| format!("{breach}, at message {place} ({said:?}) of {attachment:?}");
        envoy.says(&said);
        let step = exchange.receive(said.message(attachment.base));
        let is_asked = matches!(step, Step::Answer(_)) && !envoy.is_over;
        envoy.hears(step).map_err(named)?;
        if is_asked && attachment.redirects {
            envoy.expects_detour();
            envoy.hears(exchange.redirect(&detour())).map_err(named)?;
        }
    }
    Ok(envoy.is_over)
}

const DETOUR: &[u8] = br#"{"model":"other"}"#;

fn detour() -> Detour {
    let body = Body::from_chunks([Bytes::from_static(DETOUR)]);
    Detour { body, tells_length: true, field: None, clear_route_cache: false }
}

impl Said {
    fn message(&self, base: Option<BodySendMode>) -> pb::ProcessingRequest {
        let request = match self {
            Self::Headers { is_chat, end } => {
                let path = if *is_chat { "/v1/chat/completions" } else { "/v1/embeddings" };
                let header = |(key, value): (&str, &str)| pb::HeaderValue {
                    key: key.to_owned(),
                    raw_value: value.as_bytes().to_vec(),
                    ..pb::HeaderValue::default()
                };
                let headers = [(":method", "POST"), (":path", path)].map(header).into();
                pb::Request::RequestHeaders(pb::HttpHeaders {
                    headers: Some(pb::HeaderMap { headers }),
                    end_of_stream: *end,
                    ..pb::HttpHeaders::default()
                })
            }
            Self::Body(body, end_of_stream) => pb::Request::RequestBody(pb::HttpBody {
                body: body.clone(),
                end_of_stream: *end_of_stream,
                ..pb::HttpBody::default()
            }),
            Self::Trailers => pb::Request::RequestTrailers(HttpTrailers::default()),
            Self::ResponseHeaders => pb::Request::ResponseHeaders(pb::HttpHeaders::default()),
            Self::ResponseBody => pb::Request::ResponseBody(pb::HttpBody::default()),
            Self::ResponseTrailers => pb::Request::ResponseTrailers(HttpTrailers::default()),
            Self::Nothing => return pb::ProcessingRequest::default(),
        };
        let protocol_config = base.filter(|_| matches!(self, Self::Headers { .. })).map(|base| {
            ProtocolConfiguration { request_body_mode: base.into(), ..ProtocolConfiguration::default() }
        });
        pb::ProcessingRequest { protocol_config, request: Some(request), ..pb::ProcessingRequest::default() }
    }
}

/// Whether something was shown, and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Not,
    Waiting,
    Answered,
}

/// Envoy's side of one request.
struct Envoy<'a> {
    attachment: Attachment,
    snapshot: &'a Snapshot,
    /// How it shows the body by now.
    mode: Option<BodySendMode>,
    is_chat: bool,
    headers: Shown,
    trailers: Shown,
    /// Pieces of a body that it keeps, unanswered.
    kept: usize,
    /// How often it has shown some of a body.
    bodies: usize,
    came: Vec<u8>,
    /// What must go on to the upstream in the place of what came.
    detour: Option<&'static [u8]>,
    went_on: Vec<u8>,
    /// The request has come to its end.
    is_whole: bool,
    /// Its end has gone on.
    end_went_on: bool,
    /// The response that it has just shown.
    response: Option<Said>,
    /// It has said what it never says.
    is_mad: bool,
    /// It has said what it never says, and must be told so.
    is_out_of_turn: bool,
    is_over: bool,
}

impl<'a> Envoy<'a> {
    fn new(attachment: Attachment, snapshot: &'a Snapshot) -> Self {
        Self {
            attachment,
            snapshot,
            mode: attachment.base,
            is_chat: false,
            headers: Shown::Not,
            trailers: Shown::Not,
            kept: 0,
            bodies: 0,
            came: Vec::new(),
            detour: None,
            went_on: Vec::new(),
            is_whole: false,
            end_went_on: false,
            response: None,
            is_mad: false,
            is_out_of_turn: false,
            is_over: false,
        }
    }

    /// Whether the body is shown in pieces that Consort must hand back.
    fn is_duplex(&self) -> bool {
        self.mode == Some(BodySendMode::FullDuplexStreamed)
    }

    /// Whether Consort can tell an alias in this mode.
    fn sees_aliases(&self) -> bool {
        self.is_chat && (self.is_duplex() || matches!(self.mode, Some(BodySendMode::Buffered) | None))
    }

    fn says(&mut self, said: &Said) {
        if self.is_over || self.is_mad {
            return;
        }
        self.response = None;
        match said {
            Said::Headers { .. } | Said::Nothing if self.headers != Shown::Not => self.is_out_of_turn = true,
            Said::Headers { is_chat, end } => {
                (self.headers, self.is_chat, self.is_whole) = (Shown::Waiting, *is_chat, *end);
            }
            Said::ResponseHeaders | Said::ResponseBody | Said::ResponseTrailers => {
                self.response = Some(said.clone());
            }
            _ if self.headers == Shown::Not => self.is_out_of_turn = true,
            Said::Body(piece, end) => {
                // What is kept is shown once, as a whole.
                self.is_mad = self.sees_aliases() && !self.is_duplex() && self.bodies > 0;
                self.kept += usize::from(!self.is_duplex());
                self.bodies += 1;
                self.came.extend_from_slice(piece);
                self.is_whole = *end;
            }
            Said::Trailers => (self.trailers, self.is_whole) = (Shown::Waiting, true),
            Said::Nothing => self.is_out_of_turn = true,
        }
    }

    /// Holds a step to what is permitted.
    fn hears(&mut self, step: Step) -> Result<(), &'static str> {
        if self.is_over {
            return match step {
                Step::Send(replies) if replies.is_empty() => Ok(()),
                _ => Err("something was said after the end"),
            };
        }
        let is_end = !matches!(step, Step::Send(_));
        if !self.is_mad {
            match step {
                Step::Break(_) => permit(self.is_out_of_turn, "a message in turn is called out of turn"),
                Step::Tell(_) => Err("a chat is told a list"),
                _ if self.is_out_of_turn => Err("a message out of turn is taken"),
                Step::Send(replies) => self.take(replies).and_then(|()| self.may_wait()),
                Step::Finish(replies) => self.take(replies).and_then(|()| self.may_end()),
                Step::Refuse(_) => self.may_refuse(),
                Step::Answer(asked) => self.may_answer(&asked),
            }?;
        }
        self.is_over = is_end;
        Ok(())
    }

    /// The request that was answered goes on after all.
    fn expects_detour(&mut self) {
        self.detour = Some(DETOUR);
        self.is_over = false;
    }

    fn take(&mut self, replies: Vec<pb::ProcessingResponse>) -> Result<(), &'static str> {
        replies.into_iter().try_for_each(|reply| self.take_one(reply))
    }

    fn take_one(&mut self, reply: pb::ProcessingResponse) -> Result<(), &'static str> {
        if reply.mode_override.is_some() {
            let is_alone = reply.response.is_none() && reply.override_message_timeout.is_none();
            let is_due = self.headers == Shown::Waiting && self.is_chat && !self.is_duplex();
            let may = self.attachment.mode_override == ModeOverride::Standalone
                && matches!(self.mode, Some(BodySendMode::None | BodySendMode::Streamed));
            self.mode = Some(BodySendMode::FullDuplexStreamed);
            return permit(is_alone && is_due && may, "an override out of place");
        }
        match (reply.response.ok_or("an empty reply")?, &self.response) {
            (pb::Response::ResponseHeaders(_), Some(Said::ResponseHeaders))
            | (pb::Response::ResponseBody(_), Some(Said::ResponseBody))
            | (pb::Response::ResponseTrailers(_), Some(Said::ResponseTrailers)) => Ok(()),
            (pb::Response::RequestHeaders(headers), None) => {
                permit(self.headers == Shown::Waiting, "headers are answered that do not wait")?;
                self.headers = Shown::Answered;
                let common = headers.response.unwrap_or_default();
                let is_same = self.detour.is_some() || common == pb::CommonResponse::default();
                permit(is_same && common.body_mutation.is_none(), "headers are changed")
            }
            (pb::Response::RequestBody(body), None) => self.take_body(body.response.unwrap_or_default()),
            (pb::Response::RequestTrailers(_), None) => {
                permit(self.trailers == Shown::Waiting, "trailers are answered that do not wait")?;
                self.trailers = Shown::Answered;
                permit(self.headers == Shown::Answered && self.all_went_on(), "trailers go before the body")?;
                self.end_went_on = true;
                Ok(())
            }
            _ => Err("an answer to what was not asked"),
        }
    }

    fn take_body(&mut self, common: pb::CommonResponse) -> Result<(), &'static str> {
        /// Envoy's bound on a piece.
        const MOST: usize = 64 << 10;
        permit(self.headers == Shown::Answered, "a body goes before its headers")?;
        let mutation = common.body_mutation.and_then(|body| body.mutation);
        match mutation {
            Some(pb::Mutation::StreamedResponse(piece)) if self.is_duplex() => {
                permit(!self.end_went_on, "a body goes on after its end")?;
                permit(piece.body.len() <= MOST, "a piece is too large")?;
                self.went_on.extend_from_slice(&piece.body);
                permit(self.due().starts_with(&self.went_on), "another body goes on than came")?;
                self.end_went_on = piece.end_of_stream;
                let ends = self.is_whole && self.trailers == Shown::Not && self.all_went_on();
                permit(!piece.end_of_stream || ends, "a body ends before its end")
            }
            None | Some(pb::Mutation::Body(_)) if !self.is_duplex() => {
                permit(self.kept > 0, "a body is answered that does not wait")?;
                self.kept -= 1;
                let changed = match &mutation {
                    Some(pb::Mutation::Body(body)) => Some(&**body),
                    _ => None,
                };
                permit(changed == self.detour, "a kept body is changed")
            }
            _ => Err("a body is answered in the words of another mode"),
        }
    }

    /// What must go on.
    fn due(&self) -> &[u8] {
        self.detour.unwrap_or(&self.came)
    }

    fn all_went_on(&self) -> bool {
        !self.is_duplex() || self.went_on == self.due()
    }

    /// Whether all that waits is answered.
    fn is_quiet(&self) -> bool {
        self.headers == Shown::Answered && self.kept == 0 && self.trailers != Shown::Waiting
    }

    /// Nothing is said for now, or not everything.
    fn may_wait(&self) -> Result<(), &'static str> {
        permit(!self.is_whole, "a whole request is neither answered nor let go on")?;
        if self.is_duplex() {
            let is_held = self.headers == Shown::Waiting && self.is_chat;
            return permit(is_held || self.all_went_on(), "something of what passes is held back");
        }
        permit(self.is_quiet(), "a message with a timer waits")
    }

    /// The stream ends in good order.
    fn may_end(&self) -> Result<(), &'static str> {
        if self.response.is_some() {
            return Ok(());
        }
        permit(self.is_quiet(), "the end leaves something unanswered")?;
        let is_unseen = self.mode == Some(BodySendMode::None);
        permit(self.is_whole || is_unseen, "the end comes before that of the request")?;
        let body_went_on = self.bodies == 0 && self.trailers == Shown::Not || self.end_went_on;
        permit(!self.is_duplex() || body_went_on, "the end of the body did not go on")?;
        let is_alias = self.sees_aliases() && self.detour.is_none() && self.names_alias() == Some(true);
        permit(!is_alias, "an alias passes")
    }

    fn may_refuse(&self) -> Result<(), &'static str> {
        permit(self.can_answer(), "a refusal comes too late")?;
        let is_past = self.came.len() > self.attachment.max_request_bytes;
        permit(is_past && self.names_alias() != Some(false), "a refusal without a reason")
    }

    fn may_answer(&self, asked: &Asked) -> Result<(), &'static str> {
        permit(self.can_answer(), "an answer comes too late")?;
        permit(self.is_whole || !self.is_duplex(), "an answer comes before the request's end")?;
        permit(asked.body == self.came, "another body is answered than came")?;
        permit(asked.body.len() <= self.attachment.max_request_bytes, "more is answered than may be")?;
        permit(asked.can_stream == self.is_duplex(), "an answer would come in the wrong words")?;
        permit(self.names_alias() != Some(false), "what is no alias is answered")
    }

    fn can_answer(&self) -> bool {
        let waits = if self.is_duplex() { self.headers == Shown::Waiting } else { self.kept == 1 };
        waits && self.sees_aliases() && self.went_on.is_empty() && self.response.is_none()
    }

    /// Whether the body asks for an alias, as another parser reads it that takes a byte order mark; none where that
    /// finds no JSON object.
    fn names_alias(&self) -> Option<bool> {
        let json = self.came.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.came);
        let mut json = serde_json::Deserializer::from_slice(json);
        let model = json.deserialize_map(FirstModel).ok()?;
        json.end().ok()?;
        Some(model.is_some_and(|model| self.snapshot.ensemble(&model).is_some()))
    }
}

fn permit(is_permitted: bool, breach: &'static str) -> Result<(), &'static str> {
    if is_permitted { Ok(()) } else { Err(breach) }
}

/// The first `model` of an object, where it is a text.
struct FirstModel;

impl<'de> Visitor<'de> for FirstModel {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut first = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "model" && first.is_none() {
                first = Some(map.next_value::<serde_json::Value>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(first.and_then(|model| model.as_str().map(str::to_owned)))
    }
}
