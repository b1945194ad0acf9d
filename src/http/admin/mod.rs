//! The operators' listener: is it ready, what is in force, how do the models fare.

mod guard;
mod level;
mod models;
mod playground;
mod readiness;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Bounds, reply};
use crate::chat::ApiError;
use crate::ensemble::Snapshot;
use crate::limits::{Cooldowns, Limiter};
use crate::telemetry::LogLevel;
use crate::telemetry::metrics::Metrics;
use crate::upstream::DirectModel;

pub use playground::playground;
pub use readiness::Readiness;

/// What this listener spends on its peers.
pub const BOUNDS: Bounds =
    Bounds { header_timeout: Duration::from_secs(10), max_header_bytes: 16 << 10, max_connections: 512 };
/// What operators send is a word.
const MAX_BODY: usize = 4 << 10;
/// How long an answer may take, the request's body included.
const ANSWER: Duration = Duration::from_secs(10);

/// What the listener tells of.
#[derive(Clone)]
pub struct Admin {
    /// What is in force.
    pub current: Arc<ArcSwap<InForce>>,
    /// Whether the process is ready.
    pub readiness: Arc<Readiness>,
    /// How the models fare.
    pub cooldowns: Cooldowns,
    /// How far limits are used.
    pub limiter: Limiter,
    /// From which level on is logged.
    pub log_level: LogLevel,
    /// All metrics, as Prometheus reads them.
    pub metrics: Metrics,
}

/// What operators see of one configuration.
pub struct InForce {
    /// The whole file with its defaults, without secrets.
    pub config: Arc<Value>,
    /// The direct models, in the file's order.
    pub models: Vec<Arc<DirectModel>>,
    /// The ensembles.
    pub snapshot: Arc<Snapshot>,
    /// The hosts that the listener may be called by, beside those of this machine; in lower case.
    pub hosts: Vec<String>,
}

/// The routes of the listener, and `more` of them: those are guarded against pages of foreign origins as its own are.
pub fn router(admin: Admin, more: Router) -> Router {
    let own = Router::new()
        .route("/config", get(config))
        .route("/models", get(models::models))
        .route("/version", get(version))
        .route("/log-level", get(level::level).put(level::set_level))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(in_time))
        .with_state(admin.clone());
    let guarded = own
        .merge(more)
        .layer(middleware::from_fn_with_state(Arc::clone(&admin.current), guard::refuse_foreign));
    let open = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    guarded
        .merge(open)
        .fallback(reply::not_found)
        .method_not_allowed_fallback(reply::method_not_allowed)
        .layer(middleware::map_response(fresh))
}

/// Nothing here is true for long.
async fn fresh(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(http::HeaderValue::from_static("no-store"));
    response
}

async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER, next.run(request)).await;
    answered.unwrap_or_else(|_elapsed| {
        reply::error(&ApiError::new(408, "timeout", "the request did not come to its end in time"))
    })
}

async fn ready(State(admin): State<Admin>) -> Response {
    let status = if admin.readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // A store that does not answer takes no readiness away: what requests meet without it is `on_error`'s decision.
    let (kind, answers) = admin.limiter.store().await;
    let state = if answers { "ok" } else { "unreachable" };
    let dependencies = json!({ "limits_store": { "kind": kind, "state": state } });
    (status, Json(admin.readiness.to_json(&dependencies))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render()).into_response()
}

async fn config(State(admin): State<Admin>) -> Json<Value> {
    Json(Value::clone(&admin.current.load().config))
}

async fn version() -> Json<Value> {
    Json(json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") }))
}

#[cfg(test)]
mod tests;
