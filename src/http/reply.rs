//! Answers that are the same whoever asks.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::chat::ApiError;

/// An error in OpenAI's envelope.
pub(super) fn error(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, "application/json")], error.to_json(None)).into_response()
}

/// Nothing is there.
pub(super) async fn not_found() -> Response {
    error(&ApiError::new(404, "not_found", "there is nothing at this path"))
}

/// It is there, and not for this method; what is allowed stands in `allow`.
pub(super) async fn method_not_allowed() -> Response {
    error(&ApiError::new(405, "method_not_allowed", "this path does not take this method"))
}
