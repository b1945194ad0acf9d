//! `/v1/models`, in OpenAI's shape.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{Door, refusal};

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl Door {
    fn model<'a>(&self, id: &'a str) -> Model<'a> {
        Model { id, object: "model", created: self.since, owned_by: "consort" }
    }
}

/// All ensembles and direct models, by name.
pub(super) async fn list(State(door): State<Door>) -> Response {
    let data = door.snapshot.aliases().into_iter().map(|id| door.model(id)).collect();
    Json(List { object: "list", data }).into_response()
}

/// One of them. A name may have slashes.
pub(super) async fn show(State(door): State<Door>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match door.snapshot.any(&id) {
        Some(_) => Json(door.model(&id)).into_response(),
        None => refusal::refused(&refusal::unknown_model(&id), &headers),
    }
}
