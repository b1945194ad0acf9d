//! The door's API on the operators' own origin.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::RETRY_AFTER;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch::Receiver;

use crate::chat::ApiError;
use crate::http::door::{Live, routes};
use crate::http::reply;

#[derive(Clone)]
struct Playground {
    door: Live,
    is_exposed: bool,
    /// Its sender is gone once nothing new is taken.
    stopped: Receiver<()>,
}

/// The routes of a `door` for operators, until the sender of `stopped` is gone. Where the listener is exposed, a door
/// without keys stays closed.
pub fn playground(door: Live, is_exposed: bool, stopped: Receiver<()>) -> Router {
    let playground = Playground { door: door.clone(), is_exposed, stopped };
    routes(door).layer(from_fn_with_state(playground, take))
}

async fn take(State(playground): State<Playground>, request: Request, next: Next) -> Response {
    let Playground { door, is_exposed, stopped } = playground;
    if is_exposed && !door.has_keys() {
        let message = "whoever reaches this listener could ask models here: it takes `http.api_keys`";
        return reply::error(&ApiError::new(403, "playground_closed", message));
    }
    if request.method() == Method::POST && stopped.has_changed().is_err() {
        let error = ApiError::new(503, "draining", "the service is ending; send the request again");
        return ([(RETRY_AFTER, "1")], reply::error(&error)).into_response();
    }
    next.run(request).await
}
