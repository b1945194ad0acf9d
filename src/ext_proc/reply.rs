//! What Envoy is told, spelled in its messages.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED};

use super::exchange::Detour;
use super::note::Note;
use super::pb;
use super::pb::streamed_immediate_response::Response as Streamed;
use crate::chat::Body;
use crate::dispatch::{Field, Reply, Summary, Whole};
use crate::signing::TICKET;

/// Envoy's own bound on a message of a body that it is handed back.
const MAX_PIECE: usize = 64 << 10;

fn response(response: pb::Response) -> pb::ProcessingResponse {
    pb::ProcessingResponse { response: Some(response), ..pb::ProcessingResponse::default() }
}

/// Asks for the body, and nothing else: everything of the override is spelled out since Envoy
/// compares it with the allowed ones field by field.
pub(super) fn body_wanted() -> pb::ProcessingResponse {
    pb::ProcessingResponse {
        mode_override: Some(pb::ProcessingMode {
            request_header_mode: pb::HeaderSendMode::Default.into(),
            request_body_mode: pb::BodySendMode::FullDuplexStreamed.into(),
            request_trailer_mode: pb::HeaderSendMode::Send.into(),
            response_header_mode: pb::HeaderSendMode::Skip.into(),
            response_body_mode: pb::BodySendMode::None.into(),
            response_trailer_mode: pb::HeaderSendMode::Skip.into(),
        }),
        ..pb::ProcessingResponse::default()
    }
}

/// Asks for more time; Envoy takes it once per message that it waits for.
fn more_time(timeout: Duration) -> pb::ProcessingResponse {
    pb::ProcessingResponse {
        override_message_timeout: Some(pb::Duration {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(timeout.subsec_nanos()).unwrap_or(0),
        }),
        ..pb::ProcessingResponse::default()
    }
}

/// Lets the request's headers go on, without these.
pub(super) fn pass_headers(without: &[&str]) -> pb::ProcessingResponse {
    let remove_headers: Vec<String> = without.iter().map(|name| (*name).to_owned()).collect();
    let mutation = pb::HeaderMutation { remove_headers, ..pb::HeaderMutation::default() };
    let header_mutation = (!without.is_empty()).then_some(mutation);
    let common = pb::CommonResponse { header_mutation, ..pb::CommonResponse::default() };
    response(pb::Response::RequestHeaders(pb::HeadersResponse { response: Some(common) }))
}

/// Lets a piece of the body that Envoy kept go on.
pub(super) fn pass_body() -> pb::ProcessingResponse {
    let unchanged = pb::BodyResponse { response: Some(pb::CommonResponse::default()) };
    response(pb::Response::RequestBody(unchanged))
}

/// Lets the request's trailers go on.
pub(super) fn pass_trailers() -> pb::ProcessingResponse {
    response(pb::Response::RequestTrailers(pb::TrailersResponse::default()))
}

/// Lets a request whose body Envoy kept go to the plain door: the route is chosen anew, by the ticket.
pub(super) fn handed_off(ticket: String) -> pb::ProcessingResponse {
    let common = pb::CommonResponse {
        header_mutation: Some(set([(TICKET, ticket)])),
        clear_route_cache: true,
        ..pb::CommonResponse::default()
    };
    response(pb::Response::RequestBody(pb::BodyResponse { response: Some(common) }))
}

/// Lets what Envoy says of a response go on.
pub(super) fn pass_response(of: &pb::Request) -> Option<pb::ProcessingResponse> {
    Some(response(match of {
        pb::Request::ResponseHeaders(_) => pb::Response::ResponseHeaders(pb::HeadersResponse::default()),
        pb::Request::ResponseBody(_) => pb::Response::ResponseBody(pb::BodyResponse::default()),
        pb::Request::ResponseTrailers(_) => pb::Response::ResponseTrailers(pb::TrailersResponse::default()),
        _ => return None,
    }))
}

/// Lets the response's headers go on.
pub(super) fn pass_response_headers() -> pb::ProcessingResponse {
    response(pb::Response::ResponseHeaders(pb::HeadersResponse::default()))
}

/// Lets the response's body go on, as far as Envoy has kept it.
pub(super) fn pass_response_body() -> pb::ProcessingResponse {
    response(pb::Response::ResponseBody(pb::BodyResponse::default()))
}

/// Lets the request's headers go on to an upstream that is not to compress what it answers.
pub(super) fn plain_wanted() -> pb::ProcessingResponse {
    let header_mutation = Some(set([(ACCEPT_ENCODING.as_str(), "identity".to_owned())]));
    let common = pb::CommonResponse { header_mutation, ..pb::CommonResponse::default() };
    response(pb::Response::RequestHeaders(pb::HeadersResponse { response: Some(common) }))
}

/// Puts this in the place of a response's body that Envoy kept.
pub(super) fn replaced(body: &Bytes, tells_length: bool) -> pb::ProcessingResponse {
    let length = tells_length.then(|| (CONTENT_LENGTH.as_str(), body.len().to_string()));
    // What else is told of a body holds for the one before.
    let of_another =
        [ETAG.as_str(), LAST_MODIFIED.as_str(), "content-md5", "content-digest", "repr-digest", "digest"];
    let remove_headers = of_another.map(str::to_owned).to_vec();
    let common = pb::CommonResponse {
        header_mutation: Some(pb::HeaderMutation { remove_headers, ..set(length) }),
        body_mutation: Some(pb::BodyMutation { mutation: Some(pb::Mutation::Body(body.to_vec())) }),
        ..pb::CommonResponse::default()
    };
    response(pb::Response::ResponseBody(pb::BodyResponse { response: Some(common) }))
}

/// Lets the request's headers go on, changed. Without the length of the body: Envoy sets none in the modes in
/// which it does not keep the body, and a wrong one must not stay.
pub(super) fn changed_headers(detour: &Detour, without: &[&str]) -> pb::ProcessingResponse {
    let remove_headers =
        without.iter().copied().chain([CONTENT_LENGTH.as_str()]).map(str::to_owned).collect();
    let headers = pb::HeaderMutation { remove_headers, ..set(field(detour)) };
    response(pb::Response::RequestHeaders(pb::HeadersResponse { response: Some(changed(detour, headers)) }))
}

/// Lets the body that Envoy kept go on, changed; with its length, which Envoy compares.
pub(super) fn changed_body(detour: &Detour) -> pb::ProcessingResponse {
    let length = detour.tells_length.then(|| (CONTENT_LENGTH.as_str(), detour.body.len().to_string()));
    let body = pb::BodyMutation { mutation: Some(pb::Mutation::Body(detour.body.to_bytes().to_vec())) };
    let common = changed(detour, set(field(detour).into_iter().chain(length)));
    let common = pb::CommonResponse { body_mutation: Some(body), ..common };
    response(pb::Response::RequestBody(pb::BodyResponse { response: Some(common) }))
}

fn field(detour: &Detour) -> Option<(&str, String)> {
    detour.field.as_ref().map(|(name, value)| (name.as_str(), value.clone()))
}

/// Envoy clears the route cache only where headers are mutated, be it in nothing.
fn changed(detour: &Detour, headers: pb::HeaderMutation) -> pb::CommonResponse {
    pb::CommonResponse {
        header_mutation: Some(headers),
        clear_route_cache: detour.clear_route_cache,
        ..pb::CommonResponse::default()
    }
}

/// Hands on a body in the place of one that Envoy did not keep.
pub(super) fn handed_on(body: &Body, end_of_stream: bool) -> impl Iterator<Item = pb::ProcessingResponse> {
    let pieces: Vec<&[u8]> = body.chunks().flat_map(|chunk| chunk.chunks(MAX_PIECE)).collect();
    let last = pieces.len();
    let piece = move |(i, piece): (usize, &[u8])| handed_back(piece.to_vec(), end_of_stream && i + 1 == last);
    pieces.into_iter().enumerate().map(piece)
}

fn handed_back(body: Vec<u8>, end_of_stream: bool) -> pb::ProcessingResponse {
    let piece = pb::StreamedBodyResponse { body, end_of_stream, ..pb::StreamedBodyResponse::default() };
    let mutation = pb::BodyMutation { mutation: Some(pb::Mutation::StreamedResponse(piece)) };
    let common = pb::CommonResponse { body_mutation: Some(mutation), ..pb::CommonResponse::default() };
    response(pb::Response::RequestBody(pb::BodyResponse { response: Some(common) }))
}

/// Hands back a piece of the body that Envoy did not keep.
pub(super) fn echo(body: Vec<u8>, end_of_stream: bool) -> impl Iterator<Item = pb::ProcessingResponse> {
    let (whole, large) = if body.len() <= MAX_PIECE { (Some(body), Vec::new()) } else { (None, body) };
    let pieces = large.len().div_ceil(MAX_PIECE);
    let cut: Vec<Vec<u8>> = large.chunks(MAX_PIECE).map(<[u8]>::to_vec).collect();
    whole.map(|body| handed_back(body, end_of_stream)).into_iter().chain(
        cut.into_iter()
            .enumerate()
            .map(move |(i, piece)| handed_back(piece, end_of_stream && i + 1 == pieces)),
    )
}

/// What a caller is told, in Envoy's words.
pub(super) fn spelled(reply: Reply) -> pb::ProcessingResponse {
    match reply {
        Reply::Waiting(within) => more_time(within),
        Reply::Whole(whole) => immediate(*whole),
        Reply::Head(fields) => stream_head(fields),
        Reply::Piece(piece) => stream_piece(&piece, None),
        Reply::End(piece, summary) => stream_piece(&piece, Some(&summary)),
    }
}

/// An answer, or an error, in one piece.
fn immediate(whole: Whole) -> pb::ProcessingResponse {
    let answer = response(pb::Response::ImmediateResponse(pb::ImmediateResponse {
        status: Some(pb::HttpStatus { code: whole.status.into() }),
        headers: Some(set(whole.fields)),
        body: whole.body.to_vec(),
        details: format!("consort_{}", whole.label),
        ..pb::ImmediateResponse::default()
    }));
    noted(answer, whole.summary.as_ref())
}

fn set<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> pb::HeaderMutation {
    let set = |(name, value)| pb::HeaderValueOption {
        header: Some(header(name, value)),
        append_action: pb::HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..pb::HeaderValueOption::default()
    };
    let set_headers = fields.into_iter().map(set).collect();
    pb::HeaderMutation { set_headers, ..pb::HeaderMutation::default() }
}

fn noted(mut reply: pb::ProcessingResponse, summary: Option<&Summary>) -> pb::ProcessingResponse {
    let note = |summary: &Summary| {
        let Summary { head, usage, code } = summary;
        Note { head, usage: usage.as_ref(), code: *code }.into_metadata()
    };
    reply.dynamic_metadata = summary.map(note);
    reply
}

/// The beginning of a streamed answer.
fn stream_head(fields: Vec<Field>) -> pb::ProcessingResponse {
    let status = header(":status", "200".to_owned());
    let headers = std::iter::once(status).chain(fields.into_iter().map(|(n, v)| header(n, v))).collect();
    streamed(Streamed::HeadersResponse(pb::HttpHeaders {
        headers: Some(pb::HeaderMap { headers }),
        ..pb::HttpHeaders::default()
    }))
}

/// A piece of a streamed answer; the last one brings a note.
fn stream_piece(body: &Bytes, last: Option<&Summary>) -> pb::ProcessingResponse {
    let piece = streamed(Streamed::BodyResponse(pb::StreamedBodyResponse {
        body: body.to_vec(),
        end_of_stream: last.is_some(),
        ..pb::StreamedBodyResponse::default()
    }));
    noted(piece, last)
}

fn streamed(part: Streamed) -> pb::ProcessingResponse {
    response(pb::Response::StreamedImmediateResponse(pb::StreamedImmediateResponse { response: Some(part) }))
}

fn header(name: &str, value: String) -> pb::HeaderValue {
    pb::HeaderValue { key: name.to_owned(), raw_value: value.into_bytes(), ..pb::HeaderValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(replies: impl Iterator<Item = pb::ProcessingResponse>) -> Vec<(usize, bool)> {
        replies
            .map(|reply| {
                let Some(pb::Response::RequestBody(pb::BodyResponse { response: Some(common) })) =
                    reply.response
                else {
                    panic!("not a body response");
                };
                let Some(pb::Mutation::StreamedResponse(piece)) = common.body_mutation.unwrap().mutation
                else {
                    panic!("not streamed");
                };
                (piece.body.len(), piece.end_of_stream)
            })
            .collect()
    }

    #[test]
    fn a_large_piece_is_handed_back_in_pieces_that_envoy_takes() {
        let echo = |size, end| pieces(echo(vec![7; size], end));
        assert_eq!(echo(0, true), [(0, true)]);
        assert_eq!(echo(MAX_PIECE, false), [(MAX_PIECE, false)]);
        assert_eq!(echo(MAX_PIECE * 2 + 1, true), [(MAX_PIECE, false), (MAX_PIECE, false), (1, true)]);
    }

    #[test]
    fn a_changed_body_is_handed_on_in_such_pieces_too() {
        let body = Body::from_chunks([3, MAX_PIECE + 1, 2].map(|size| Bytes::from(vec![7; size])));
        let expected = |end| [(3, false), (MAX_PIECE, false), (1, false), (2, end)];
        assert_eq!(pieces(handed_on(&body, true)), expected(true));
        assert_eq!(pieces(handed_on(&body, false)), expected(false), "trailers are still to come");
    }
}
