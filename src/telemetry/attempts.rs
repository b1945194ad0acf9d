//! The attempts that one call takes.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::chat::Usage;

/// The attempts of one call, counted as they are made: the account of its run reads them at the call's end, be that
/// an answer, a failure or a cancellation.
#[derive(Debug, Default)]
pub struct Attempts {
    begun: AtomicU32,
    /// What attempts without an answer have cost and nobody has billed yet.
    unbilled: Mutex<Option<Usage>>,
    /// Who is told what the call has cost.
    settlement: Mutex<Option<Settlement>>,
}

/// Somebody who is told a cost, once.
pub(super) struct Settlement(pub(super) Box<dyn FnOnce(u64) + Send>);

impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settlement")
    }
}

impl Attempts {
    /// One more begins.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt has failed before it had said anything, and this is what it cost all the same.
    pub fn failed_at(&self, cost: &Usage) {
        let mut unbilled = self.unbilled.lock().unwrap_or_else(PoisonError::into_inner);
        unbilled.get_or_insert_default().add(cost);
    }

    /// Has somebody told, once, how many tokens the call was billed in all: at its end, or at the latest at its run's.
    pub fn settle_with(&self, settlement: Box<dyn FnOnce(u64) + Send>) {
        *self.settlement.lock().unwrap_or_else(PoisonError::into_inner) = Some(Settlement(settlement));
    }

    /// The call was billed so many tokens.
    pub(super) fn settle(&self, tokens: u64) {
        let settlement = self.settlement.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Settlement(settlement)) = settlement {
            settlement(tokens);
        }
    }

    /// How many have begun.
    pub(super) fn count(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// What is to be billed; nothing the second time.
    pub(super) fn take_unbilled(&self) -> Option<Usage> {
        self.unbilled.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
