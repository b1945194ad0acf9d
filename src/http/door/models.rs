//! `/v1/models`, in OpenAI's shape.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::{Door, refusal};

/// All ensembles and direct models, by name.
pub(super) async fn list(State(door): State<Door>, headers: HeaderMap) -> Response {
    refusal::whole(door.models.list(door.snapshot.aliases(), &refusal::request_id(&headers)))
}

/// One of them. A name may have slashes.
pub(super) async fn show(State(door): State<Door>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match door.snapshot.any(&id) {
        Some(_) => refusal::whole(door.models.one(&id, &refusal::request_id(&headers))),
        None => refusal::refused(&refusal::unknown_model(&id), &headers),
    }
}
