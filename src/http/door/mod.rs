//! The plain HTTP door: ensembles and direct models as an OpenAI-compatible server, without an Envoy.
//!
//! [`serve`] speaks HTTP, [`router`] knows the paths, `chat` takes a request to the common
//! [`dispatch`](crate::dispatch) and spells its replies.

mod chat;
mod head;
mod keys;
mod models;
mod patience;
mod refusal;
mod server;
#[cfg(test)]
mod tests;
mod ticket;
mod untaken;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{FromRef, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tracing::debug;

use crate::dispatch::{Models, Pacing, is_request_id};
use crate::ensemble::{Runner, Snapshot};
use crate::limits::{CallerKey, KeySource, Room};
use crate::signing::{Secrets, Spent};

pub use keys::{Key, Keys};
pub(super) use server::InFlight;
pub use server::{Connections, serve};

/// What an operator decides about this door.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Larger request bodies are refused with a 413.
    pub max_request_bytes: usize,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// When a stream speaks although there is nothing to say.
    pub pacing: Pacing,
    /// What tells callers apart where their use is limited.
    pub caller_key: KeySource,
    /// Who may come in; everybody where there are none.
    pub keys: Keys,
    /// How long the tickets hold that open it as well. Longer ones are refused, but for replicas' clocks.
    pub ticket_ttl: Duration,
    /// What the tickets are signed with that open it as well.
    pub secrets: Secrets,
}

/// The door: what it serves, and how.
#[derive(Clone)]
pub struct Door {
    snapshot: Arc<Snapshot>,
    runner: Runner,
    settings: Arc<Settings>,
    models: Models,
    /// The tickets that were taken.
    spent: Spent,
    /// Where bodies are held.
    room: Room,
}

impl Door {
    /// A door to these ensembles and direct models.
    pub fn new(snapshot: Arc<Snapshot>, runner: Runner, settings: Settings) -> Self {
        Self {
            snapshot,
            runner,
            settings: Arc::new(settings),
            spent: Spent::default(),
            models: Models::from_now(),
            room: Room::default(),
        }
    }

    /// The same, which knows what was taken before.
    #[must_use]
    pub fn remembering(self, spent: Spent) -> Self {
        Self { spent, ..self }
    }

    /// The same, which holds bodies here.
    #[must_use]
    pub fn within(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// Whether it takes a key to come in.
    pub fn has_keys(&self) -> bool {
        !self.settings.keys.is_empty()
    }

    /// The same without keys, for an origin that guards itself.
    #[must_use]
    pub fn without_keys(self) -> Self {
        let settings = Settings { keys: Keys::default(), ..Settings::clone(&self.settings) };
        Self { settings: Arc::new(settings), ..self }
    }
}

/// The door as it is now: a request keeps the one that it began with.
#[derive(Clone)]
pub struct Live {
    door: Arc<ArcSwap<Door>>,
    is_draining: Arc<AtomicBool>,
}

impl Live {
    /// A door that may be replaced.
    pub fn new(door: Door) -> Self {
        Self { door: Arc::new(ArcSwap::from_pointee(door)), is_draining: Arc::default() }
    }

    /// Whether it takes a key to come in.
    pub fn has_keys(&self) -> bool {
        self.door.load().has_keys()
    }

    /// Another door for the requests to come.
    pub fn replace(&self, door: Door) {
        self.door.store(Arc::new(door));
    }

    /// Tells those who ask for its health that it is about to close. Requests are taken as before.
    pub fn draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }
}

impl FromRef<Live> for Door {
    fn from_ref(live: &Live) -> Self {
        Self::clone(&live.door.load())
    }
}

/// Everything below the door's own listener: the API, `/health`, and an answer in JSON to whatever else is asked.
pub fn router(door: Live) -> Router {
    routes(door.clone())
        .merge(Router::new().route("/health", get(health)).with_state(door))
        .fallback(refusal::no_such_path)
        .method_not_allowed_fallback(refusal::wrong_method)
        .layer(from_fn(identify))
}

/// The API alone, for an origin that serves other paths too.
pub fn routes(door: Live) -> Router {
    let chat = Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route_layer(from_fn_with_state(door.clone(), ticket::admit));
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::show))
        .route_layer(from_fn_with_state(door.clone(), authorise))
        .merge(chat)
        .layer(from_fn(identify))
        .with_state(door)
}

async fn health(State(door): State<Live>) -> (StatusCode, Json<Value>) {
    match door.is_draining.load(Ordering::Relaxed) {
        false => (StatusCode::OK, Json(json!({"status": "ok"}))),
        true => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "draining"}))),
    }
}

const REQUEST_ID: &str = "x-request-id";

/// Gives every request an id, as Envoy does, and every answer the id of its request.
async fn identify(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).filter(|id| is_request_id(id.as_bytes())).cloned();
    let id = id.or_else(|| HeaderValue::try_from(format!("{:032x}", rand::random::<u128>())).ok());
    if let Some(id) = &id {
        request.headers_mut().insert(REQUEST_ID, id.clone());
    }
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
    }
    response
}

/// Lets those in who have a key. A key of ours means nothing to providers, and is taken off here.
async fn authorise(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let keys = &door.settings.keys;
    if keys.is_empty() {
        return next.run(request).await;
    }
    let Some(presented) = request.headers().get(AUTHORIZATION).and_then(keys::bearer) else {
        return refusal::no_key(request.headers());
    };
    let Some(key) = keys.find(presented) else {
        return refusal::wrong_key(request.headers());
    };
    debug!(request_id = ?request.headers().get(REQUEST_ID), key = %key.name, "request by a key");
    let caller = CallerKey::of(&key.digest);
    request.extensions_mut().insert(caller);
    request.headers_mut().remove(AUTHORIZATION);
    next.run(request).await
}
