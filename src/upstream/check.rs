//! Background checks: questions to models that have cooled down, so that no caller's call has to find out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::{Bounds, Call, Caller, DirectModel, Failure, Passed};
use crate::chat::RawObject;
use crate::limits::{Cooldowns, Role};
use crate::telemetry::Attempts;

/// How long an answer is waited for: who is back says a few words sooner.
const LONGEST: Duration = Duration::from_secs(30);

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
        let asked = tokio::time::timeout(LONGEST, ask(&*caller, &model, &question)).await;
        match asked.unwrap_or(Err(Failure::Timeout)) {
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
async fn ask(caller: &impl Caller, model: &Arc<DirectModel>, question: &Value) -> Result<(), Failure> {
    let question = RawObject::parse(Bytes::from(question.to_string()));
    let question = question.map_err(|error| Failure::Unreadable(error.into()))?;
    let call = Call {
        model: Arc::clone(model),
        body: model.rules.apply(question.edit()).body(),
        max_tokens: None,
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tokio::time::Instant;

    use super::*;
    use crate::limits::Cooldown;
    use crate::upstream::BackgroundCheck;
    use crate::upstream::fixture::{self, Script, Scripted, fails, says, status};

    const S: Duration = Duration::from_secs(1);

    /// When a model that has cooled down for 30 s is called again, if it is within 100 s, and what it was asked until
    /// then, by checks every 7 s that go like this.
    async fn checked(script: Script) -> (Option<Duration>, Vec<Value>) {
        let mut model = Arc::into_inner(fixture::model("m")).unwrap();
        let rules =
            Cooldown { failures: NonZeroU32::MIN, first: 30 * S, longest: 600 * S, statuses: [503].into() };
        model.cooldown = Some(rules.clone());
        model.background_check =
            Some(BackgroundCheck { interval: 7 * S, prompt: "Well?".to_owned(), max_tokens: 3 });
        let (caller, cooldowns) = (Arc::new(Scripted::default().model("m", script)), Cooldowns::default());
        cooldowns.admit(&model.name, &rules, Role::CallerOnly).unwrap().failed("x", None);
        let (name, began) = (Arc::clone(&model.name), Instant::now());
        let checking = tokio::spawn(check(Arc::clone(&caller), cooldowns.clone(), Arc::new(model)));
        let mut back = None;
        while back.is_none() && began.elapsed() < 100 * S {
            tokio::time::sleep(S / 2).await;
            back = cooldowns.admit(&name, &rules, Role::CallerOnly).ok().map(|_| began.elapsed());
        }
        checking.abort();
        let calls = caller.calls.lock().unwrap();
        (back, calls.iter().map(|(_, body)| body.clone()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_finds_out_whether_a_model_is_back() {
        let (back, asked) = checked(says(1, "yes")).await;
        assert_eq!(back, Some(35 * S + S / 2), "at the first check after the cooldown");
        let question = json!({"model": "provider/m", "messages": [{"role": "user", "content": "Well?"}],
            "max_tokens": 3});
        assert_eq!(asked, [question]);
        let (back, asked) = checked(fails(1, || status(503, "", None))).await;
        assert_eq!((back, asked.len()), (None, 2), "at 35 s, and 60 s later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_is_refused_has_found_the_model() {
        let (back, asked) = checked(fails(1, || status(400, "max_tokens is not supported", None))).await;
        assert_eq!((back, asked.len()), (Some(35 * S + S / 2), 1));
    }
}
