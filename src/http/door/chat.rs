//! `/v1/chat/completions`: a request becomes a run, and its replies an HTTP response.

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::head::Head;
use super::{Door, refusal};
use crate::chat::{self, ApiError, ModelScan, RequestError, Scan};
use crate::dispatch::{self, Asked, Delivery, Headers, Reply, Route, Taken};
use crate::ensemble::RunError;
use crate::limits::Share;
use crate::telemetry;

/// How long a body that is too large is read on: a caller that is still sending does not hear yet.
const DISCARD: Duration = Duration::from_secs(1);

/// Answers a chat-completions request. Everything happens inside the response: when the caller leaves, hyper drops
/// it, and all of it stops.
pub(super) async fn complete(State(door): State<Door>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let head = Head(parts);
    let mut share = door.room.share();
    match door.take(&head, body, &mut share).await {
        Ok(taken) => {
            let pacing = door.settings.pacing;
            let replies = dispatch::replies(taken, door.runner, pacing);
            // The run holds the body until it is over.
            let replies = replies.map(move |reply| {
                let _held = &share;
                reply
            });
            answered(Box::pin(replies)).await
        }
        Err(error) => refusal::refused(&error, &head.0.headers),
    }
}

async fn answered(mut replies: impl Stream<Item = Reply> + Send + Unpin + 'static) -> Response {
    match replies.next().await {
        Some(Reply::Whole(whole)) => refusal::whole(*whole),
        Some(Reply::Head(fields)) => {
            let pieces = replies.filter_map(|reply| ready(piece(reply).map(Ok::<_, Infallible>)));
            refusal::respond(200, fields, Body::from_stream(pieces))
        }
        _ => refusal::refused(&ApiError::from(&RunError::Internal), &HeaderMap::new()),
    }
}

/// What a streamed answer says with a reply.
fn piece(reply: Reply) -> Option<Bytes> {
    match reply {
        Reply::Piece(piece) | Reply::End(piece, _) => Some(piece).filter(|piece| !piece.is_empty()),
        Reply::Waiting(_) | Reply::Whole(_) | Reply::Head(_) => None,
    }
}

impl Door {
    /// Reads a request as far as is needed to know who answers it.
    async fn take(&self, head: &Head, body: Body, share: &mut Share) -> Result<Taken, ApiError> {
        let unsupported = |what| Err(ApiError::new(415, "unsupported_media_type", what));
        if !head.is_json() {
            return unsupported("the request body must be JSON; send `content-type: application/json`");
        }
        if !head.is_plain() {
            return unsupported("the request body must not be compressed");
        }
        let reading = tokio::time::timeout(self.settings.body_timeout, self.body(body, share));
        let slow = || ApiError::new(408, "request_timeout", "the request body took too long to arrive");
        let body = reading.await.map_err(|_elapsed| slow())??;
        let model = match ModelScan::default().feed(&body) {
            Scan::Model(model) => model,
            Scan::More | Scan::None => return Err(without_model(body)),
        };
        let settled = match head.ticket() {
            Some(ticket) => Some(self.redeem(ticket, &model, &body)?),
            None => None,
        };
        let ensemble = self.snapshot.any(&model).ok_or_else(|| refusal::unknown_model(&model))?;
        let asked = Asked {
            ensemble: Arc::clone(ensemble),
            head,
            caller_key: &self.settings.caller_key,
            body,
            door: if settled.is_some() { telemetry::Door::ExtProc } else { telemetry::Door::Http },
            delivery: Delivery::Live,
            settled,
        };
        Ok(match dispatch::route(asked) {
            Route::Run(taken) => *taken,
            Route::Otherwise(redirected) => redirected.into_taken(),
        })
    }

    async fn body(&self, mut body: Body, share: &mut Share) -> Result<Bytes, ApiError> {
        let max_bytes = self.settings.max_request_bytes;
        let is_declared = body.size_hint().lower() > max_bytes as u64;
        let read =
            if is_declared { None } else { Some(collect(Limited::new(&mut body, max_bytes), share).await) };
        match read {
            Some(Ok(Some(read))) => Ok(read),
            Some(Ok(None)) => Err(ApiError::from(&RunError::Overloaded)),
            Some(Err(error)) if !error.is::<LengthLimitError>() => {
                Err(ApiError::new(400, "unreadable_body", "the request body could not be read"))
            }
            Some(Err(_)) | None => {
                // An answer that comes before the end of a body is lost to many clients.
                let rest = pin!(async { while let Some(Ok(_)) = body.frame().await {} });
                let _elapsed = tokio::time::timeout(DISCARD, rest).await;
                Err(dispatch::too_large(max_bytes))
            }
        }
    }
}

/// The whole of a body; none where there is no room for it.
async fn collect(
    mut body: Limited<&mut Body>,
    share: &mut Share,
) -> Result<Option<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            share.take(piece.len());
            if share.is_short() {
                return Ok(None);
            }
            pieces.push(piece);
        }
    }
    Ok(Some(chat::Body::from_chunks(pieces).into_bytes()))
}

/// What is wrong with a request that names no model.
fn without_model(body: Bytes) -> ApiError {
    let error = chat::Request::parse_for_any(body).err().unwrap_or(RequestError::Invalid {
        param: "model",
        what: "must be the name of a model; GET /v1/models lists those that there are",
    });
    ApiError::from(&error)
}
