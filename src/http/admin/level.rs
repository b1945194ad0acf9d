//! From which level on is logged, while the process runs.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tracing::info;
use tracing::level_filters::LevelFilter;

use super::Admin;
use crate::chat::ApiError;
use crate::http::reply;

/// What may be asked for.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The level in force.
pub(super) async fn level(State(admin): State<Admin>) -> Json<Value> {
    told(admin.log_level.level())
}

/// Changes it, to a word that stands alone or as JSON: `debug`, `"debug"` or `{"level": "debug"}`.
pub(super) async fn set_level(State(admin): State<Admin>, body: Result<Bytes, BytesRejection>) -> Response {
    let Some(level) = body.ok().as_deref().and_then(asked) else {
        let message = format!("the body must be one of {}, or {{\"level\": \"…\"}}", LEVELS.join(", "));
        return reply::error(&ApiError::new(400, "invalid_level", message).param("level"));
    };
    admin.log_level.set(level);
    info!(%level, "log level changed");
    told(level).into_response()
}

fn told(level: LevelFilter) -> Json<Value> {
    Json(json!({ "level": level.to_string() }))
}

fn asked(body: &[u8]) -> Option<LevelFilter> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let json: Option<Value> = serde_json::from_str(text).ok();
    let word = match &json {
        Some(json) => json.get("level").unwrap_or(json).as_str()?,
        None => text,
    };
    LEVELS.contains(&word).then(|| LevelFilter::from_str(word).ok()).flatten()
}
