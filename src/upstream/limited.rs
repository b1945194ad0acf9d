//! Calls of models that may be asked only so much.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::retry::role;
use super::{Bounds, Call, Caller, Events, Failure};
use crate::limits::{Cooldowns, Cooling, Demand, Denied, Grant, Limiter, RateLimit, estimated_tokens};

/// How often it is tried again when it depends on others' ends whether there is room.
const RHYTHM: Duration = Duration::from_millis(25);
/// What a caller is told to wait in that case.
const SOON: Duration = Duration::from_secs(1);

/// Makes each call by another caller, once its model has room for it. A call counts once, however many attempts it takes.
#[derive(Debug)]
pub struct Limited<C> {
    caller: Arc<C>,
    limiter: Limiter,
    cooldowns: Cooldowns,
}

impl<C: Caller> Limited<C> {
    /// Calls by `caller`, as far as `limiter` has room for them.
    pub fn new(caller: Arc<C>, limiter: Limiter) -> Self {
        Self { caller, limiter, cooldowns: Cooldowns::default() }
    }

    /// With no room asked for a model that cools down by these.
    #[must_use]
    pub fn sparing(self, cooldowns: Cooldowns) -> Self {
        Self { cooldowns, ..self }
    }
}

impl<C: Caller> Caller for Limited<C> {
    fn call(&self, mut call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        if call.model.rate_limit.is_none() {
            return self.caller.call(call);
        }
        let (caller, limiter) = (Arc::clone(&self.caller), self.limiter.clone());
        let cooldowns = self.cooldowns.clone();
        Box::pin(async move {
            let Grant { lease, reservation, .. } = room(&limiter, &cooldowns, &mut call).await?;
            let settled = reservation.clone();
            // The account of the run learns of every cost, also of calls that are cancelled.
            call.attempts.settle_with(Box::new(move |tokens| settled.settle(tokens, 0.0)));
            match caller.call(call).await {
                Ok(mut events) => Ok(async_stream::stream! {
                    let _in_flight = lease;
                    while let Some(event) = events.next().await {
                        yield event;
                    }
                }
                .boxed()),
                Err(failure) => {
                    // No attempt was made.
                    if matches!(failure, Failure::Cooling { .. }) {
                        reservation.give_back();
                    }
                    Err(failure)
                }
            }
        })
    }
}

/// Room for a call, waited for as long as its model and its bounds allow.
async fn room(limiter: &Limiter, cooldowns: &Cooldowns, call: &mut Call) -> Result<Grant, Failure> {
    let model = Arc::clone(&call.model);
    let Some(rate) = &model.rate_limit else {
        return Ok(Grant::default());
    };
    let demand = Demand {
        name: &model.name,
        caller: None,
        rate: Some(rate),
        budget: None,
        tokens: tokens(call, rate),
    };
    let latest = Instant::now() + rate.wait;
    let latest = call.bounds.until().map_or(latest, |until| latest.min(until));
    loop {
        if model.cooldown.is_some() {
            let looked = cooldowns.look(&model.name, role(&model));
            looked.map_err(|Cooling { retry_after }| Failure::Cooling { retry_after })?;
        }
        let retry_after = match limiter.admit(demand).await {
            Ok(grant) => return Ok(grant),
            Err(Denied::Over { retry_after, .. }) => retry_after,
            Err(Denied::Spent { retry_after }) => Some(retry_after),
            Err(Denied::Undecided) => return Err(Failure::Undecided),
        };
        let pause = retry_after.unwrap_or(RHYTHM).max(Duration::from_millis(1));
        if Instant::now() + pause > latest {
            return Err(Failure::Limited { retry_after: retry_after.unwrap_or(SOON) });
        }
        tokio::time::sleep(pause).await;
        call.attempts.queued(pause);
        // What was spent on waiting is no time that the model has had.
        call.bounds = Bounds { timeout: None, deadline: call.bounds.until() };
    }
}

/// How many tokens a call may cost, where somebody counts them.
fn tokens(call: &Call, rate: &RateLimit) -> u64 {
    if !rate.counts_tokens() {
        return 0;
    }
    estimated_tokens(call.body.len(), call.max_tokens)
}

#[cfg(test)]
mod tests;
