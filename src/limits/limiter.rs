//! The limits of all names, wherever they are counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::grant::{Denied, Grant, Lease, Reservation};
use super::key::{CallerKey, Subject};
use super::quota::Quota;
use super::rate::{Budget, DAY_MS, RateLimit, usd};
use super::store::{Correction, Keeper, Memory, OnError, Order, Redis, RedisSettings, Request, Seen};

/// The limits of all names. The rules come with each request, so that what was counted outlives a configuration.
#[derive(Clone, Debug)]
pub struct Limiter {
    store: Store,
}

/// Where use is counted, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreSettings {
    /// In this process.
    #[default]
    Memory,
    /// In a Redis that several processes share.
    Redis(Box<RedisSettings>),
}

#[derive(Clone, Debug)]
pub(super) enum Store {
    Memory(Arc<Memory>),
    Redis(Arc<Redis>),
}

/// A shared store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the limits' store cannot be used")]
pub struct StoreError(#[from] redis::RedisError);

/// What wants to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The alias or the direct model.
    pub name: &'a Arc<str>,
    /// Whose request it is, where callers are told apart.
    pub caller: Option<&'a CallerKey>,
    /// The limit; none where there is none.
    pub rate: Option<&'a RateLimit>,
    /// What the name may spend in a day, whoever the caller is.
    pub budget: Option<Budget>,
    /// How many tokens it may cost.
    pub tokens: u64,
}

/// How far one limit of a name is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The key of the limit in the configuration.
    pub limit: &'static str,
    /// How much is used.
    pub used: u64,
    /// How much may be.
    pub of: u64,
    /// When the window ends; zero for what is in flight, and for a window that has not begun.
    pub reset: Duration,
}

impl Default for Limiter {
    /// One that counts in this process.
    fn default() -> Self {
        Self { store: Store::Memory(Arc::default()) }
    }
}

impl Limiter {
    /// Counts as configured; within a tokio runtime. The keeper must be polled as long as the limiter is in use.
    ///
    /// # Errors
    /// When the store cannot be used, whether it can be reached or not.
    pub fn open(settings: &StoreSettings) -> Result<(Self, Keeper), StoreError> {
        Ok(match settings {
            StoreSettings::Memory => (Self::default(), Keeper::idle()),
            StoreSettings::Redis(settings) => {
                let (redis, keeper) = Keeper::of((**settings).clone())?;
                (Self { store: Store::Redis(redis) }, keeper)
            }
        })
    }

    /// Decides all limits of a name at once: all of them count the request, or none does.
    ///
    /// # Errors
    /// When one of them has no room for it, or the store does not answer and is to be missed.
    pub async fn admit(&self, demand: Demand<'_>) -> Result<Grant, Denied> {
        if demand.rate.is_none() && demand.budget.is_none() {
            return Ok(Grant::default());
        }
        let request = demand.request();
        let (verdict, subject, lease) = match &self.store {
            Store::Memory(memory) => {
                let (verdict, subject) = memory.admit(&request);
                (verdict, subject, request.rate.concurrency.map(|_| 0))
            }
            Store::Redis(redis) => match redis.admit(request.clone()).await {
                Ok((verdict, lease)) => (verdict, request.subject.clone(), lease),
                Err(_lost) => {
                    redis.undecided();
                    return match redis.settings.on_error {
                        OnError::Open => Ok(Grant::default()),
                        OnError::Closed => Err(Denied::Undecided),
                    };
                }
            },
        };
        if !verdict.is_admitted {
            return Err(denied(&request, &verdict.seen));
        }
        let lease = lease.map(|id| self.store.lease(&subject, id)).unwrap_or_default();
        let taken = request.taken(&verdict).collect();
        Ok(Grant {
            lease,
            reservation: Reservation::of(self.store.clone(), subject, taken),
            quota: demand.rate.map(|rate| Quota::of(rate, &verdict.seen)),
        })
    }

    /// How far a name's limits are used; none when the store does not answer.
    pub async fn view(
        &self,
        name: &Arc<str>,
        caller: Option<&CallerKey>,
        rate: &RateLimit,
    ) -> Option<Vec<Level>> {
        let request = Demand { name, caller, rate: Some(rate), budget: None, tokens: 0 }.request();
        let seen = match &self.store {
            Store::Memory(memory) => memory.look(&request),
            Store::Redis(redis) => redis.look(&request).await.ok()?,
        };
        let windows = rate.windows.iter().zip(&seen.windows).map(|(window, counted)| Level {
            limit: window.rate.key(),
            used: counted.used,
            of: window.limit.get(),
            reset: counted.left(window.rate, seen.now),
        });
        let running = rate.concurrency.map(|most| Level {
            limit: "concurrency",
            used: seen.running,
            of: most.get(),
            reset: Duration::ZERO,
        });
        Some(windows.chain(running).collect())
    }

    /// What a name has spent today (UTC), in USD; none when the store does not answer.
    pub async fn spent_usd(&self, name: &Arc<str>, budget: Budget) -> Option<f64> {
        let request = Demand { name, caller: None, rate: None, budget: Some(budget), tokens: 0 }.request();
        let seen = match &self.store {
            Store::Memory(memory) => memory.look(&request),
            Store::Redis(redis) => redis.look(&request).await.ok()?,
        };
        Some(usd(seen.spent))
    }

    /// Where use is counted, in a word, and whether it can be now.
    pub async fn store(&self) -> (&'static str, bool) {
        match &self.store {
            Store::Memory(_) => ("memory", true),
            Store::Redis(redis) => ("redis", redis.answers().await),
        }
    }

    /// Waits until the store knows all that has happened so far. A shared store that does not answer makes this wait
    /// until it does.
    pub async fn flush(&self) {
        if let Store::Redis(redis) = &self.store {
            let (done, flushed) = oneshot::channel();
            redis.order(Order::Flush(done));
            // A keeper that is gone has nothing to tell any more.
            let _ = flushed.await;
        }
    }
}

impl Demand<'_> {
    fn request(&self) -> Request {
        Request {
            subject: Subject { name: Arc::clone(self.name), caller: self.caller.cloned() },
            rate: self.rate.cloned().unwrap_or_default(),
            budget: self.budget.map(Budget::nano),
            tokens: self.tokens,
        }
    }
}

/// Why there is no room: what will be missed for longest.
fn denied(request: &Request, seen: &Seen) -> Denied {
    if request.budget.is_some_and(|budget| seen.spent >= budget) {
        return Denied::Spent { retry_after: Duration::from_millis(DAY_MS - seen.now % DAY_MS) };
    }
    let quota = Quota::of(&request.rate, seen);
    let windows = request.rate.windows.iter().zip(&seen.windows);
    let over = windows.filter(|(window, counted)| {
        counted.used.saturating_add(window.amount(request.tokens)) > window.limit.get()
    });
    let longest =
        over.map(|(window, counted)| (counted.left(window.rate, seen.now), window.rate)).max_by_key(|w| w.0);
    match longest {
        Some((left, rate)) => Denied::rate(rate, left, quota),
        None => Denied::Over { what: "requests at a time", retry_after: None, quota },
    }
}

impl Store {
    fn lease(&self, subject: &Subject, id: u64) -> Lease {
        if let Self::Redis(redis) = self {
            redis.order(Order::Hold(subject.clone(), id));
        }
        Lease::held(self.clone(), subject.clone(), id)
    }

    pub(super) fn release(&self, subject: Subject, id: u64) {
        match self {
            Self::Memory(memory) => memory.release(&subject),
            Self::Redis(redis) => redis.order(Order::Release(subject, id)),
        }
    }

    pub(super) fn correct(&self, subject: &Subject, corrections: Vec<Correction>, spent: u64) {
        match self {
            Self::Memory(memory) => memory.correct(subject, &corrections, spent),
            Self::Redis(redis) => {
                redis.order(Order::Correct { subject: subject.clone(), corrections, spent });
            }
        }
    }
}
