//! The cap on runs in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::lateness::Lateness;
use crate::telemetry::metrics::{self, Gauge};

/// The cap on runs in flight: past it a run is refused at once, never queued, so that overload
/// shows where it can be acted on.
#[derive(Clone, Debug)]
pub struct Admission {
    runs: Arc<Runs>,
    shown: Gauge,
    max: usize,
}

/// The runs that are in flight, under every cap.
#[derive(Debug, Default)]
struct Runs {
    inflight: AtomicUsize,
    /// The last of them has ended.
    idle: Notify,
    cut: CancellationToken,
    /// This process does not keep up with its work.
    is_late: AtomicBool,
}

/// A place among the runs in flight; dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    runs: Arc<Runs>,
    shown: Gauge,
}

impl Admission {
    /// Admits at most `max_inflight` runs at a time.
    pub fn new(max_inflight: usize) -> Self {
        Self { runs: Arc::default(), shown: metrics::inflight(), max: max_inflight }
    }

    /// Another cap on the same runs: those that are in flight now count, and all of them end.
    #[must_use]
    pub fn with_max(&self, max_inflight: usize) -> Self {
        Self { max: max_inflight, ..self.clone() }
    }

    /// A place, unless all are taken, or too much is to be done already.
    pub fn admit(&self) -> Option<Permit> {
        if self.runs.is_late.load(Ordering::Relaxed) {
            return None;
        }
        let one_more = |inflight| (inflight < self.max).then_some(inflight + 1);
        self.runs.inflight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        self.shown.increment(1.0);
        Some(Permit { runs: Arc::clone(&self.runs), shown: self.shown.clone() })
    }

    /// From now on, nothing is admitted while the work of this process is late by more than `max`, and has been so
    /// for a second; without a bound, that does not matter. Never ends.
    pub async fn watch_lateness(self, max: Option<Duration>) {
        self.runs.is_late.store(false, Ordering::Relaxed);
        match max {
            Some(max) => {
                let tell = |is_late| self.runs.is_late.store(is_late, Ordering::Relaxed);
                Lateness::beyond(max).watch(tell).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until no run is in flight.
    pub async fn idle(&self) {
        loop {
            // Made before it is looked, so that an end in between is heard.
            let idle = self.runs.idle.notified();
            if self.runs.inflight.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Ends the runs that are in flight, under whatever cap, and those that begin from now on.
    pub fn cut(&self) {
        self.runs.cut.cancel();
    }

    /// Waits until runs are to end; without this value, so that it may be waited for beside them.
    pub fn is_cut(&self) -> impl Future<Output = ()> + Send + use<> {
        self.runs.cut.clone().cancelled_owned()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shown.decrement(1.0);
        if self.runs.inflight.fetch_sub(1, Ordering::Release) == 1 {
            self.runs.idle.notify_waiters();
        }
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
    fn nobody_is_admitted_while_there_is_too_much_to_do() {
        let admission = Admission::new(2);
        let permit = admission.admit();
        admission.runs.is_late.store(true, Ordering::Relaxed);
        assert!(admission.admit().is_none() && admission.with_max(9).admit().is_none());
        admission.runs.is_late.store(false, Ordering::Relaxed);
        assert!(permit.is_some() && admission.admit().is_some());
    }

    #[test]
    fn another_cap_counts_the_runs_that_are_in_flight() {
        let admission = Admission::new(2);
        let (first, second) = (admission.admit().unwrap(), admission.admit().unwrap());
        let lower = admission.with_max(1);
        drop(first);
        assert!(lower.admit().is_none(), "one is still in flight");
        let third = admission.with_max(2).admit();
        assert!(third.is_some() && admission.with_max(2).admit().is_none());
        drop((second, third));
        assert!(lower.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_when_the_last_run_has_ended_under_whatever_cap() {
        let admission = Admission::new(2);
        admission.idle().await;
        let (first, second) = (admission.admit().unwrap(), admission.with_max(9).admit().unwrap());
        let waits = async |limit| tokio::time::timeout(limit, admission.idle()).await.is_err();
        drop(first);
        assert!(waits(Duration::from_secs(1)).await);
        let ending = async { drop(second) };
        tokio::join!(admission.idle(), ending);
    }

    #[test]
    fn runs_in_flight_are_counted_while_they_are() {
        let metrics = Metrics::default();
        let shown = |runs: u8| assert!(metrics.render().contains(&format!("\nconsort_inflight {runs}\n")));
        let admission = metrics.within(|| Admission::new(2));
        let permits = [admission.admit(), admission.admit()];
        assert!(admission.admit().is_none());
        shown(2);
        drop(permits);
        shown(0);
    }
}
