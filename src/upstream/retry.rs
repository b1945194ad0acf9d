//! Calls that are made again where that may help, to models that are not left alone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use rand::Rng;
use tokio::time::Instant;

use super::{Call, Caller, Credential, DirectModel, Events, Failure};
use crate::chat::Event;
use crate::limits::{Cooldowns, Cooling, Pass, Role};

/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer: who is told to come back later than this fails at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The result of an attempt that was heard to its end.
const ANSWERED: &str = "answered";

/// Makes each call by another caller, as often as its model allows: an attempt that fails before it has said
/// anything is followed by another one. Models that keep failing are not called for a while.
#[derive(Debug)]
pub struct Retrying<C> {
    caller: Arc<C>,
    cooldowns: Cooldowns,
}

impl<C: Caller> Retrying<C> {
    /// Attempts by `caller`; what comes of them is known to `cooldowns`.
    pub fn new(caller: Arc<C>, cooldowns: Cooldowns) -> Self {
        Self { caller, cooldowns }
    }
}

impl<C: Caller> Caller for Retrying<C> {
    /// The future ends when the answer speaks. A failure before that is the last attempt's.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        let (caller, cooldowns) = (Arc::clone(&self.caller), self.cooldowns.clone());
        Box::pin(async move {
            let mut made = 0;
            let mut last = None;
            loop {
                // How long the first attempt may take is the operator's word; later ones get what is left.
                let overdue = if made == 0 { call.bounds.overdue() } else { None };
                // Who was asked and failed has not been spared, although others are from now on.
                let pass = match pass(&cooldowns, &call.model, overdue) {
                    Ok(pass) => pass,
                    Err(cooling) => return Err(last.unwrap_or(cooling)),
                };
                let Failed { failure, is_cooling } = match attempt(&*caller, &call, pass).await {
                    Ok(events) => return Ok(events),
                    Err(failed) => failed,
                };
                made += 1;
                match pause(&failure, made, &call) {
                    Some(pause) if !is_cooling => tokio::time::sleep(pause).await,
                    _ => return Err(failure),
                }
                last = Some(failure);
            }
        })
    }
}

/// An attempt without an answer.
struct Failed {
    failure: Failure,
    /// Whether the model cools down now, so that another attempt would not be made.
    is_cooling: bool,
}

/// The right to one attempt; none is needed for a model that never cools down.
fn pass(
    cooldowns: &Cooldowns,
    model: &DirectModel,
    overdue: Option<Instant>,
) -> Result<Option<Pass>, Failure> {
    let Some(cooldown) = &model.cooldown else {
        return Ok(None);
    };
    let admitted = cooldowns.admit(&model.name, cooldown, role(model));
    let mut pass = admitted.map_err(|Cooling { retry_after }| Failure::Cooling { retry_after })?;
    pass.overdue_at(overdue);
    Ok(Some(pass))
}

/// What a call may be to a model that has cooled.
pub(super) fn role(model: &DirectModel) -> Role {
    if model.background_check.is_some() { Role::CallerOnly } else { Role::Caller }
}

async fn attempt(caller: &impl Caller, call: &Call, mut pass: Option<Pass>) -> Result<Events, Failed> {
    call.attempts.begin();
    let mut silence = Vec::new();
    match first_words(caller, call, &mut silence).await {
        Ok(Some(rest)) => {
            if let Some(pass) = &mut pass {
                pass.spoke();
            }
            Ok(observed(silence, rest, call, pass).boxed())
        }
        Ok(None) => {
            call.attempts.ended(ANSWERED, None);
            if let Some(pass) = &mut pass {
                pass.succeeded();
            }
            Ok(futures_util::stream::iter(silence.into_iter().map(Ok)).boxed())
        }
        Err(failure) => {
            // A usage is a total so far, so that the last one counts.
            let cost = silence.iter().rev().find_map(|event| match event {
                Event::Usage(cost) => Some(cost),
                _ => None,
            });
            if let Some(cost) = cost {
                call.attempts.failed_at(cost);
            }
            call.attempts.ended(failure.label(), failure.status().map(|status| status.as_u16()));
            let is_cooling = learn(pass.as_mut(), &call.model, &failure);
            Err(Failed { failure, is_cooling })
        }
    }
}

/// Listens until the answer speaks; what follows, or nothing when it has ended without a word. What came before is
/// held back, since another attempt may yet take the place of this one.
async fn first_words(
    caller: &impl Caller,
    call: &Call,
    silence: &mut Vec<Event>,
) -> Result<Option<Events>, Failure> {
    let mut events = caller.call(call.clone()).await?;
    while let Some(event) = events.next().await.transpose()? {
        call.attempts.heard();
        let speaks = match &event {
            Event::Message(_) => true,
            Event::Delta(delta) => delta.speaks,
            Event::Finish(_) | Event::Usage(_) | Event::Decision(_) => false,
        };
        silence.push(event);
        if speaks {
            return Ok(Some(events));
        }
    }
    Ok(None)
}

/// An answer that has begun: its end is what its model is known by.
fn observed(
    first: Vec<Event>,
    mut rest: Events,
    call: &Call,
    mut pass: Option<Pass>,
) -> impl Stream<Item = Result<Event, Failure>> + use<> {
    let (model, attempts) = (Arc::clone(&call.model), Arc::clone(&call.attempts));
    async_stream::stream! {
        for event in first {
            yield Ok(event);
        }
        while let Some(event) = rest.next().await {
            if let Err(failure) = &event {
                attempts.ended(failure.label(), failure.status().map(|status| status.as_u16()));
            }
            match &event {
                // It was well enough to speak until its time was over.
                Err(Failure::Timeout) => {
                    if let Some(pass) = &mut pass {
                        pass.succeeded();
                    }
                }
                Err(failure) => {
                    learn(pass.as_mut(), &model, failure);
                    pass = None;
                }
                Ok(_) => {}
            }
            yield event;
        }
        attempts.ended(ANSWERED, None);
        if let Some(pass) = &mut pass {
            pass.succeeded();
        }
    }
}

/// Tells what a failure says of its model; whether that cools down now.
fn learn(pass: Option<&mut Pass>, model: &DirectModel, failure: &Failure) -> bool {
    let (Some(pass), Some(cooldown)) = (pass, &model.cooldown) else {
        return false;
    };
    // What a provider says of a caller's own key is nothing that others should suffer for.
    let is_of_caller = matches!(model.provider.credential, Credential::Passthrough)
        && failure.status().is_some_and(|status| matches!(status.as_u16(), 401 | 403 | 429));
    !is_of_caller && failure.is_the_models(cooldown) && pass.failed(failure.label(), failure.retry_after())
}

/// How long to wait for the next attempt; none when there is to be none, or no time for it.
fn pause(failure: &Failure, made: u32, call: &Call) -> Option<Duration> {
    if made > call.model.retries || !failure.is_transient() {
        return None;
    }
    // What a provider says may be longer than time itself, and must not be added to any.
    let pause = failure.retry_after().unwrap_or_else(|| backoff(made));
    let fits = || call.bounds.until().is_none_or(|until| Instant::now() + pause < until);
    (pause <= LONGEST_PAUSE && fits()).then_some(pause)
}

/// Twice as long each time, less up to a half: those who failed together shall not come back together.
fn backoff(made: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << (made - 1).min(16)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests;
