//! Background checks: questions to models that have cooled down, so that no caller's call has to find out.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::{Bounds, Call, Caller, DirectModel, Failure, Passed};
use crate::chat::Body;
use crate::limits::{Cooldowns, Role};
use crate::telemetry::Attempts;

/// Asks a model whether it is back, whenever it has cooled down, for ever. A model without a background check or a
/// cooldown is never asked.
pub async fn check<C: Caller>(caller: Arc<C>, cooldowns: Cooldowns, model: Arc<DirectModel>) {
    let (Some(background), Some(cooldown)) = (&model.background_check, &model.cooldown) else {
        return;
    };
    let mut due = tokio::time::interval(background.interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let Ok(mut pass) = cooldowns.admit(&model.name, cooldown, Role::Check) else {
            continue;
        };
        let question = json!({
            "model": model.model_name,
            "messages": [{"role": "user", "content": background.prompt}],
            "max_tokens": background.max_tokens,
        });
        match ask(&*caller, &model, question.to_string()).await {
            Err(failure) if failure.is_the_models(cooldown) => {
                pass.failed(failure.label(), failure.retry_after());
            }
            // A model that refuses this question is there to be asked others: no caller would ever find out.
            Err(failure) => {
                debug!(model = %model.name, cause = %failure.chain(), "background check was refused");
                pass.succeeded();
            }
            Ok(()) => pass.succeeded(),
        }
    }
}

/// Hears an answer to its end.
async fn ask(caller: &impl Caller, model: &Arc<DirectModel>, question: String) -> Result<(), Failure> {
    let call = Call {
        model: Arc::clone(model),
        body: Body::from_chunks([Bytes::from(question)]),
        stream: false,
        passed: Arc::new(Passed::default()),
        bounds: Bounds::default(),
        attempts: Arc::new(Attempts::default()),
    };
    let mut events = caller.call(call).await?;
    while let Some(event) = events.next().await {
        event?;
    }
    Ok(())
}
