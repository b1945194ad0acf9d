//! The cap on runs in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The cap on runs in flight: past it a run is refused at once, never queued, so that overload
/// shows where it can be acted on.
#[derive(Clone, Debug)]
pub struct Admission {
    slots: Arc<Semaphore>,
}

/// A place among the runs in flight; dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
}

impl Admission {
    /// Admits at most `max_inflight` runs at a time.
    pub fn new(max_inflight: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(max_inflight.min(Semaphore::MAX_PERMITS))) }
    }

    /// A place, unless all are taken.
    pub fn admit(&self) -> Option<Permit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        Some(Permit { _slot: slot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let admission = Admission::new(1);
        let permit = admission.admit().unwrap();
        assert!(admission.admit().is_none());
        drop(permit);
        assert!(admission.admit().is_some());
    }
}
