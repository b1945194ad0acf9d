//! What a request holds once it is admitted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::key::Subject;
use super::limiter::Store;
use super::quota::Quota;
use super::rate::{Rate, Unit};
use super::store::Taken;

/// A request is admitted: what it holds of its limits.
#[derive(Debug, Default)]
pub struct Grant {
    /// Its place in flight.
    pub lease: Lease,
    /// Its tokens, and what it will have cost.
    pub reservation: Reservation,
    /// What is left; none where there is no limit, or the store did not answer.
    pub quota: Option<Quota>,
}

/// A place among those in flight. Dropping it frees the place.
#[derive(Debug, Default)]
pub struct Lease(Option<Held>);

#[derive(Debug)]
struct Held {
    store: Store,
    subject: Subject,
    id: u64,
}

/// Tokens that are reserved until it is known how many it were. Dropping the last copy of it without
/// [settling](Self::settle) gives them all back.
#[derive(Clone, Debug, Default)]
pub struct Reservation(Option<Arc<Reserved>>);

#[derive(Debug)]
struct Reserved {
    store: Store,
    subject: Subject,
    taken: Mutex<Option<Vec<Taken>>>,
}

/// A request is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A limit is reached.
    Over {
        /// Which, for people.
        what: &'static str,
        /// When there may be room, at the soonest; none where that depends on others' ends.
        retry_after: Option<Duration>,
        /// What is left.
        quota: Quota,
    },
    /// The day's budget is spent.
    Spent {
        /// How long the day still lasts.
        retry_after: Duration,
    },
    /// The store does not answer, and without it nothing is admitted.
    Undecided,
}

impl Lease {
    pub(super) fn held(store: Store, subject: Subject, id: u64) -> Self {
        Self(Some(Held { store, subject, id }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Held { store, subject, id }) = self.0.take() {
            store.release(subject, id);
        }
    }
}

impl Reservation {
    pub(super) fn of(store: Store, subject: Subject, taken: Vec<Taken>) -> Self {
        Self(Some(Arc::new(Reserved { store, subject, taken: Mutex::new(Some(taken)) })))
    }

    /// What it has cost: so many tokens, and so much that a budget knows of. Only the first word counts.
    pub fn settle(&self, tokens: u64, usd: f64) {
        if let Some(reserved) = &self.0 {
            reserved.settle(tokens, super::rate::nano_usd(usd));
        }
    }

    /// It was not needed after all, as if it had never been asked for.
    pub fn give_back(&self) {
        if let Some(reserved) = &self.0
            && let Some(taken) = reserved.take()
        {
            reserved.correct(taken.into_iter().map(Taken::back).collect(), 0);
        }
    }
}

impl Reserved {
    fn settle(&self, tokens: u64, nano_usd: u64) {
        let Some(taken) = self.take() else { return };
        let counted = taken.into_iter().filter(|taken| taken.rate.unit() == Unit::Tokens);
        let corrections = counted.map(|taken| taken.to(tokens)).filter(|correction| correction.by != 0);
        self.correct(corrections.collect(), nano_usd);
    }

    fn take(&self) -> Option<Vec<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn correct(&self, corrections: Vec<super::store::Correction>, spent: u64) {
        if !corrections.is_empty() || spent > 0 {
            self.store.correct(&self.subject, corrections, spent);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.settle(0, 0);
    }
}

impl Denied {
    pub(super) fn rate(rate: Rate, left: Duration, quota: Quota) -> Self {
        Self::Over { what: rate.words(), retry_after: Some(left), quota }
    }
}
