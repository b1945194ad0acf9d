//! How the models fare.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::readiness::now_ms;
use super::{Admin, InForce};
use crate::ensemble::Ensemble;
use crate::limits::{Limiter, ModelState, ModelView, RateLimit};
use crate::upstream::DirectModel;

/// The key of the limit that has no window.
const CONCURRENCY: &str = "concurrency";

/// Every direct model with its state, in the file's order, and every ensemble with its members, by name.
pub(super) async fn models(State(admin): State<Admin>) -> Json<Value> {
    let InForce { models, snapshot, .. } = &*admin.current.load_full();
    let mut ensembles: Vec<&Ensemble> = snapshot.ensembles().map(|ensemble| &**ensemble).collect();
    ensembles.sort_by(|a, b| a.name.cmp(&b.name));
    Json(json!({
        "models": join_all(models.iter().map(|model| direct_model(model, &admin))).await,
        "ensembles": join_all(ensembles.into_iter().map(|each| ensemble(each, &admin.limiter))).await,
    }))
}

async fn direct_model(model: &DirectModel, admin: &Admin) -> Value {
    let ModelView { state, trouble } = admin.cooldowns.view(&model.name);
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
        "limits": used(model, &admin.limiter).await,
    })
}

/// Each limit of a model by its key; without the use of it where the store does not answer.
async fn used(model: &DirectModel, limiter: &Limiter) -> Map<String, Value> {
    let Some(rate) = &model.rate_limit else {
        return Map::new();
    };
    let Some(levels) = limiter.view(&model.name, None, rate).await else {
        let unknown = |limit| json!({ "used": null, "limit": limit, "reset_s": null });
        return bounds(rate).map(|(key, limit)| (key.to_owned(), unknown(limit))).collect();
    };
    let known = levels.into_iter().map(|level| {
        // What is in flight has no end that is known.
        let reset_s = (level.limit != CONCURRENCY).then_some(level.reset.as_secs_f64());
        let told = json!({ "used": level.used, "limit": level.of, "reset_s": reset_s });
        (level.limit.to_owned(), told)
    });
    known.collect()
}

/// The limits as configured, by their keys.
fn bounds(rate: &RateLimit) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    let windows = rate.windows.iter().map(|window| (window.rate.key(), window.limit.get()));
    windows.chain(rate.concurrency.map(|most| (CONCURRENCY, most.get())))
}

async fn ensemble(ensemble: &Ensemble, limiter: &Limiter) -> Value {
    let budget = match ensemble.budget {
        Some(budget) => {
            let spent_usd = limiter.spent_usd(&ensemble.name, budget).await;
            Some(json!({ "usd_per_day": budget.usd(), "spent_usd": spent_usd }))
        }
        None => None,
    };
    // Each caller has a count of its own.
    let rate_limit = ensemble.rate_limit.as_ref().map(|rate| bounds(rate).collect::<HashMap<_, _>>());
    json!({
        "name": ensemble.name,
        "strategy": ensemble.strategy.name(),
        "quorum": ensemble.quorum,
        "rate_limit": rate_limit,
        "budget": budget,
        "members": ensemble.panel.iter().map(|member| &member.model.name).collect::<Vec<_>>(),
    })
}
