//! The cap on runs in flight.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// How many of them are of an alias with a cap of its own; one without any is not there.
    of_alias: Mutex<HashMap<Arc<str>, usize>>,
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
    /// The alias among whose runs it counts, where that has a cap.
    alias: Option<Arc<str>>,
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
        Some(Permit { runs: Arc::clone(&self.runs), shown: self.shown.clone(), alias: None })
    }

    /// A place for a run of this alias, unless all are taken, or as many as the alias may have by its own cap. Runs
    /// that were admitted without a cap of the alias do not count towards one.
    pub fn admit_of(&self, alias: &Arc<str>, max: Option<NonZeroUsize>) -> Option<Permit> {
        let mut permit = self.admit()?;
        if let Some(max) = max {
            let mut of_alias = self.runs.of_alias();
            let count = of_alias.entry(Arc::clone(alias)).or_default();
            if *count >= max.get() {
                return None;
            }
            *count += 1;
            permit.alias = Some(Arc::clone(alias));
        }
        Some(permit)
    }

    /// From now on, nothing is admitted while the work of this process is late by more than `max`, and has been so
    /// for a second; without a bound, that does not matter.
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

impl Runs {
    fn of_alias(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.of_alias.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended_of(&self, alias: &Arc<str>) {
        let mut of_alias = self.of_alias();
        if let Some(count) = of_alias.get_mut(alias) {
            *count -= 1;
            if *count == 0 {
                of_alias.remove(alias);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(alias) = &self.alias {
            self.runs.ended_of(alias);
        }
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

    #[test]
    fn an_alias_has_as_many_runs_as_its_own_cap_says_and_takes_no_place_beyond() {
        let admission = Admission::new(4);
        let (a, b, two) = (Arc::from("a"), Arc::from("b"), NonZeroUsize::new(2));
        let places = [admission.admit_of(&a, two), admission.with_max(9).admit_of(&a, two)];
        assert!(places.iter().all(Option::is_some), "up to the cap");
        assert!(admission.admit_of(&a, two).is_none(), "one past it");
        let others = [admission.admit_of(&b, two), admission.admit_of(&a, None)];
        assert!(others.iter().all(Option::is_some), "another alias, and none that is capped");
        assert!(
            admission.admit_of(&b, two).is_none(),
            "who was refused has taken no place of all, nor has the alias"
        );
        drop((others, places));
        assert!(admission.runs.of_alias().is_empty(), "nothing is kept of aliases without runs");
        assert!(admission.admit_of(&a, two).is_some());
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
