//! The attempts that one call takes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::trace::CallTrace;
use crate::chat::Usage;

/// The attempts of one call, counted as they are made: the account of its run reads them at the call's end, be that
/// an answer, a failure or a cancellation.
#[derive(Debug, Default)]
pub struct Attempts {
    begun: AtomicU32,
    /// What attempts without an answer have cost and nobody has billed yet.
    unbilled: Mutex<Option<Usage>>,
    /// Where their spans belong, when the run is traced.
    trace: Option<CallTrace>,
}

impl Attempts {
    /// Of a call with this place in a trace.
    pub(super) fn traced(trace: Option<CallTrace>) -> Self {
        Self { trace, ..Self::default() }
    }

    /// Where their spans belong; none where nobody traces them.
    pub fn trace(&self) -> Option<&CallTrace> {
        self.trace.as_ref()
    }

    /// One more begins.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt has failed before it had said anything, and this is what it cost all the same.
    pub fn failed_at(&self, cost: &Usage) {
        let mut unbilled = self.unbilled.lock().unwrap_or_else(PoisonError::into_inner);
        unbilled.get_or_insert_default().add(cost);
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
