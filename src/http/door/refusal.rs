//! Requests that never become a run, answered in OpenAI's envelope.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use tracing::info;

use super::REQUEST_ID;
use crate::chat::ApiError;
use crate::dispatch::{Field, Whole};

/// Answers with an error of a request that never became a run.
pub(super) fn refused(error: &ApiError, headers: &HeaderMap) -> Response {
    let request_id = request_id(headers);
    info!(%request_id, code = error.label, "request refused");
    whole(Whole::error(error, None, &request_id))
}

/// The id that the request has been given.
pub(super) fn request_id(headers: &HeaderMap) -> Cow<'_, str> {
    headers.get(REQUEST_ID).map(|id| String::from_utf8_lossy(id.as_bytes())).unwrap_or_default()
}

/// An answer, or an error, in one piece.
pub(super) fn whole(whole: Whole) -> Response {
    respond(whole.status, whole.fields, Body::from(whole.body))
}

pub(super) fn respond(status: u16, fields: Vec<Field>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in fields {
        // Only what is no text of a header is left out: an id or an alias that somebody made up.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

pub(super) async fn no_such_path(headers: HeaderMap) -> Response {
    let message = "there is no such path here; see POST /v1/chat/completions and GET /v1/models";
    refused(&ApiError::new(404, "unknown_url", message), &headers)
}

pub(super) async fn wrong_method(headers: HeaderMap) -> Response {
    let message = "this path does not take this method; the header allow says which it takes";
    refused(&ApiError::new(405, "method_not_allowed", message), &headers)
}

/// The error for a ticket that opens nothing. Why is between us: who has made it up learns nothing from it.
pub(super) fn invalid_ticket() -> ApiError {
    let message =
        "the header x-consort-ticket holds no ticket for this request; only Consort itself sends it";
    ApiError::new(403, "invalid_ticket", message)
}

pub(super) fn no_key(headers: &HeaderMap) -> Response {
    unauthorised("no API key was sent; send it as the header `authorization: Bearer …`", headers)
}

pub(super) fn wrong_key(headers: &HeaderMap) -> Response {
    unauthorised("the API key is not known here", headers)
}

fn unauthorised(message: &str, headers: &HeaderMap) -> Response {
    let mut response = refused(&ApiError::new(401, "invalid_api_key", message), headers);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The error for a name that is no model's.
pub(super) fn unknown_model(name: &str) -> ApiError {
    /// How much of a name is repeated, in bytes.
    const CITED: usize = 256;
    let cited = name.get(..name.floor_char_boundary(CITED)).unwrap_or_default();
    let message = format!("there is no model `{cited}` here; GET /v1/models lists those that there are");
    ApiError::new(404, "model_not_found", message).param("model")
}
