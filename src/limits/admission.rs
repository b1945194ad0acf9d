//! The cap on runs in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metrics::{self, Gauge};

/// The cap on runs in flight: past it a run is refused at once, never queued, so that overload
/// shows where it can be acted on.
#[derive(Clone, Debug)]
pub struct Admission {
    slots: Arc<Semaphore>,
    inflight: Gauge,
}

/// A place among the runs in flight; dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    inflight: Gauge,
}

impl Admission {
    /// Admits at most `max_inflight` runs at a time.
    pub fn new(max_inflight: usize) -> Self {
        let slots = Arc::new(Semaphore::new(max_inflight.min(Semaphore::MAX_PERMITS)));
        Self { slots, inflight: metrics::inflight() }
    }

    /// A place, unless all are taken.
    pub fn admit(&self) -> Option<Permit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        self.inflight.increment(1.0);
        Some(Permit { _slot: slot, inflight: self.inflight.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inflight.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let admission = Admission::new(1);
        let permit = admission.admit().unwrap();
        assert!(admission.admit().is_none());
        drop(permit);
        assert!(admission.admit().is_some());
    }

    #[test]
    fn runs_in_flight_are_counted_while_they_are() {
        let metrics = Metrics::new();
        let shown = |runs: u8| assert!(metrics.render().contains(&format!("\nconsort_inflight {runs}\n")));
        let admission = metrics.within(|| Admission::new(2));
        let permits = [admission.admit(), admission.admit()];
        assert!(admission.admit().is_none());
        shown(2);
        drop(permits);
        shown(0);
    }
}
