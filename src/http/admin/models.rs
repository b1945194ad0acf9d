//! How the models fare.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::readiness::now_ms;
use super::{Admin, InForce};
use crate::ensemble::Ensemble;
use crate::limits::{Cooldowns, ModelState, ModelView};
use crate::upstream::DirectModel;

/// Every direct model with its state, in the file's order, and every ensemble with its members, by name.
pub(super) async fn models(State(admin): State<Admin>) -> Json<Value> {
    let InForce { models, snapshot, .. } = &**admin.current.load();
    let mut ensembles: Vec<&Ensemble> = snapshot.ensembles().map(|ensemble| &**ensemble).collect();
    ensembles.sort_by(|a, b| a.name.cmp(&b.name));
    Json(json!({
        "models": models.iter().map(|model| direct_model(model, &admin.cooldowns)).collect::<Vec<_>>(),
        "ensembles": ensembles.into_iter().map(ensemble).collect::<Vec<_>>(),
    }))
}

fn direct_model(model: &DirectModel, cooldowns: &Cooldowns) -> Value {
    let ModelView { state, trouble } = cooldowns.view(&model.name);
    let (word, left) = match state {
        ModelState::Called => ("called", None),
        ModelState::Cooling(left) => ("cooling", Some(left)),
        ModelState::Probing => ("probing", None),
    };
    json!({
        "name": model.name,
        "provider": model.provider.name,
        "state": word,
        "until_ms": left.map(|left| now_ms() + u64::try_from(left.as_millis()).unwrap_or_default()),
        "left_s": left.map(|left| left.as_secs_f64()),
        "last_error": trouble.cause,
        "failures": trouble.failures,
    })
}

fn ensemble(ensemble: &Ensemble) -> Value {
    json!({
        "name": ensemble.name,
        "strategy": ensemble.strategy.name(),
        "quorum": ensemble.quorum,
        "members": ensemble.panel.iter().map(|member| &member.model.name).collect::<Vec<_>>(),
    })
}
