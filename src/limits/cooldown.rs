//! Models that keep failing are left alone for a while, so that nobody waits for them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::telemetry::metrics::{self, Gauge};

/// What a caller is told to wait while somebody else's call finds out whether a model is back.
const SOON: Duration = Duration::from_secs(1);

/// When a model cools down, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// How many attempts in a row have to fail.
    pub failures: NonZeroU32,
    /// How long the first cooldown lasts.
    pub first: Duration,
    /// The bound on all of them: each one whose probe fails is followed by one twice as long.
    pub longest: Duration,
    /// The statuses that count as failures, beside connections and answers that do not come about.
    pub statuses: Arc<[u16]>,
}

/// The state of every model by its name. It outlives a configuration: a model that is called the same
/// after a reload is as healthy as it was.
#[derive(Clone, Debug, Default)]
pub struct Cooldowns {
    models: Arc<RwLock<HashMap<Arc<str>, Arc<Model>>>>,
}

/// One model's state.
#[derive(Debug)]
struct Model {
    name: Arc<str>,
    phase: Mutex<Phase>,
    /// Whether it cools down, for scrapers.
    is_cooling: Gauge,
}

/// Whether a model is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is; so many attempts in a row have failed.
    Called { failures: u32 },
    /// It is not before this moment, and then by one probe.
    Cooling { until: Instant, lasts: Duration },
    /// One call is finding out whether it is back.
    Probed { lasts: Duration },
}

/// Who asks for a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A call whose answer somebody waits for, and which may be the probe of a model that has cooled.
    Caller,
    /// The same where a background check probes.
    CallerOnly,
    /// A background check: it calls only models that have cooled.
    Check,
}

/// A model is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooling {
    /// When it may be called again, at the soonest.
    pub retry_after: Duration,
}

/// The right to one attempt. Its end is told to it; one that is dropped before was cancelled, which says nothing of
/// the model, unless it was overdue.
#[derive(Debug)]
pub struct Pass {
    model: Arc<Model>,
    rules: Cooldown,
    is_probe: bool,
    /// From when on being dropped means that the model took too long.
    overdue: Option<Instant>,
    is_settled: bool,
}

impl Cooldowns {
    /// The right to call this model once.
    ///
    /// # Errors
    /// While it cools down, and while somebody else's call is its probe.
    pub fn admit(&self, name: &Arc<str>, rules: &Cooldown, role: Role) -> Result<Pass, Cooling> {
        let model = self.model(name);
        let is_probe = model.admit(role)?;
        Ok(Pass { model, rules: rules.clone(), is_probe, overdue: None, is_settled: false })
    }

    fn model(&self, name: &Arc<str>) -> Arc<Model> {
        let known = self.models.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
            let model = models.entry(Arc::clone(name)).or_insert_with(|| {
                let phase = Mutex::new(Phase::Called { failures: 0 });
                let is_cooling = metrics::cooling(name);
                Arc::new(Model { name: Arc::clone(name), phase, is_cooling })
            });
            Arc::clone(model)
        })
    }
}

impl Model {
    /// Whether the attempt is a probe.
    fn admit(&self, role: Role) -> Result<bool, Cooling> {
        let mut phase = self.phase();
        match *phase {
            Phase::Called { .. } if role == Role::Check => Err(Cooling { retry_after: SOON }),
            Phase::Called { .. } => Ok(false),
            Phase::Cooling { until, lasts } => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() || role == Role::CallerOnly {
                    return Err(Cooling { retry_after: left.max(SOON) });
                }
                *phase = Phase::Probed { lasts };
                Ok(true)
            }
            Phase::Probed { .. } => Err(Cooling { retry_after: SOON }),
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cool(&self, phase: &mut Phase, lasts: Duration, retry_after: Option<Duration>, rules: &Cooldown) {
        let lasts = lasts.min(rules.longest);
        let wait = retry_after.map_or(lasts, |after| lasts.max(after).min(rules.longest));
        *phase = Phase::Cooling { until: Instant::now() + wait, lasts };
        self.is_cooling.set(1.0);
    }
}

impl Pass {
    /// Dropped at this moment or later, the attempt has failed by taking too long.
    pub fn overdue_at(&mut self, moment: Option<Instant>) {
        self.overdue = moment;
    }

    /// The model has begun to answer: that is all a probe wants to know, and however long the rest takes is not
    /// its fault.
    pub fn spoke(&mut self) {
        self.overdue = None;
        if self.is_probe {
            self.succeeded();
        }
    }

    /// The model has answered.
    pub fn succeeded(&mut self) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        let mut phase = self.model.phase();
        match *phase {
            Phase::Called { .. } => *phase = Phase::Called { failures: 0 },
            Phase::Probed { .. } if self.is_probe => {
                *phase = Phase::Called { failures: 0 };
                self.model.is_cooling.set(0.0);
                info!(model = %self.model.name, "model answers again");
            }
            // Others' answers were on their way before it cooled: they are not news.
            Phase::Probed { .. } | Phase::Cooling { .. } => {}
        }
    }

    /// The attempt has failed by the model's fault, for this cause in one word; whether the model cools down now.
    pub fn failed(&mut self, cause: &str, retry_after: Option<Duration>) -> bool {
        // A probe that has spoken and then broken off is a failure like any other.
        let is_probe = self.is_probe && !self.is_settled;
        self.is_settled = true;
        let mut phase = self.model.phase();
        let failures = match *phase {
            Phase::Called { failures } if failures + 1 < self.rules.failures.get() => {
                *phase = Phase::Called { failures: failures + 1 };
                return false;
            }
            Phase::Called { failures } => {
                self.model.cool(&mut phase, self.rules.first, retry_after, &self.rules);
                failures + 1
            }
            Phase::Probed { lasts } if is_probe => {
                self.model.cool(&mut phase, lasts.saturating_mul(2), retry_after, &self.rules);
                1
            }
            // What began before it cooled must not make it cool twice as long.
            Phase::Probed { .. } | Phase::Cooling { .. } => return true,
        };
        if let Phase::Cooling { until, .. } = *phase {
            let cooling_s = until.saturating_duration_since(Instant::now()).as_secs_f64();
            warn!(model = %self.model.name, cause, failures, cooling_s, "model cools down");
        }
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        if self.overdue.is_some_and(|overdue| overdue <= Instant::now()) {
            self.failed("timeout", None);
        } else if self.is_probe {
            let mut phase = self.model.phase();
            if let Phase::Probed { lasts } = *phase {
                *phase = Phase::Cooling { until: Instant::now(), lasts };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    const S: Duration = Duration::from_secs(1);

    fn rules() -> Cooldown {
        Cooldown {
            failures: NonZeroU32::new(3).unwrap(),
            first: 30 * S,
            longest: 100 * S,
            statuses: [500].into(),
        }
    }

    fn admit(cooldowns: &Cooldowns, role: Role) -> Result<Pass, Cooling> {
        cooldowns.admit(&"m".into(), &rules(), role)
    }

    fn pass(cooldowns: &Cooldowns) -> Pass {
        admit(cooldowns, Role::Caller).unwrap()
    }

    /// For how many seconds nobody may call it.
    fn left(cooldowns: &Cooldowns) -> Option<u64> {
        admit(cooldowns, Role::CallerOnly).err().map(|cooling| cooling.retry_after.as_secs())
    }

    fn cooled(retry_after: Option<Duration>) -> Cooldowns {
        let cooldowns = Cooldowns::default();
        assert!(!pass(&cooldowns).failed("x", None));
        assert!(!pass(&cooldowns).failed("x", None));
        assert!(pass(&cooldowns).failed("x", retry_after));
        cooldowns
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_cool_a_model_and_an_answer_between_them_begins_anew() {
        assert_eq!(left(&cooled(None)), Some(30));
        let cooldowns = Cooldowns::default();
        for _ in 0..5 {
            assert!(!pass(&cooldowns).failed("x", None));
            assert!(!pass(&cooldowns).failed("x", None));
            pass(&cooldowns).succeeded();
        }
        drop((pass(&cooldowns), pass(&cooldowns), pass(&cooldowns)));
        assert_eq!(left(&cooldowns), None, "cancelled calls say nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_under_way_change_nothing_any_more() {
        let cooldowns = Cooldowns::default();
        let mut others = [pass(&cooldowns), pass(&cooldowns), pass(&cooldowns)];
        for _ in 0..3 {
            pass(&cooldowns).failed("x", None);
        }
        tokio::time::advance(10 * S).await;
        let [one, two, three] = &mut others;
        assert!(one.failed("x", None) && two.failed("x", Some(90 * S)));
        three.succeeded();
        assert_eq!(left(&cooldowns), Some(20));
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_makes_a_cooldown_longer_up_to_the_longest() {
        assert_eq!(left(&cooled(Some(5 * S))), Some(30));
        assert_eq!(left(&cooled(Some(50 * S))), Some(50));
        assert_eq!(left(&cooled(Some(5000 * S))), Some(100));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_is_let_through_and_each_that_fails_doubles_the_time() {
        let cooldowns = cooled(None);
        for (wait, next) in [(30u32, 60u64), (60, 100), (100, 100)] {
            tokio::time::advance(wait * S - S / 10).await;
            assert!(admit(&cooldowns, Role::Caller).is_err());
            tokio::time::advance(S / 10).await;
            let mut probe = pass(&cooldowns);
            assert_eq!(admit(&cooldowns, Role::Caller).err(), Some(Cooling { retry_after: S }));
            assert!(probe.failed("x", None));
            assert_eq!(left(&cooldowns), Some(next));
        }
        tokio::time::advance(100 * S).await;
        pass(&cooldowns).succeeded();
        assert!(!pass(&cooldowns).failed("x", None), "it takes three again");
        assert_eq!(left(&cooldowns), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_cancelled_leaves_its_place_to_the_next() {
        let cooldowns = cooled(None);
        tokio::time::advance(30 * S).await;
        drop(pass(&cooldowns));
        let mut next = pass(&cooldowns);
        next.spoke();
        assert_eq!(left(&cooldowns), None, "its first words end the cooldown");
        assert!(!next.failed("x", None), "its end is one failure");
    }

    #[tokio::test(start_paused = true)]
    async fn an_overdue_call_that_is_dropped_has_failed() {
        let cooldowns = Cooldowns::default();
        for wait in [9, 10, 10, 10] {
            assert_eq!(left(&cooldowns), None);
            let mut late = pass(&cooldowns);
            late.overdue_at(Some(Instant::now() + 10 * S));
            tokio::time::advance(wait * S).await;
        }
        assert_eq!(left(&cooldowns), Some(30));
    }

    #[tokio::test(start_paused = true)]
    async fn scrapers_see_a_model_cool_until_it_answers() {
        let metrics = Metrics::new();
        let shows = |cooling: u8| {
            let line = format!("\nconsort_model_cooling{{model=\"m\"}} {cooling}\n");
            assert!(metrics.render().contains(&line), "{line}");
        };
        let cooldowns = Cooldowns::default();
        metrics.within(|| drop(pass(&cooldowns)));
        shows(0);
        for _ in 0..3 {
            pass(&cooldowns).failed("x", None);
        }
        shows(1);
        tokio::time::advance(30 * S).await;
        let mut probe = pass(&cooldowns);
        shows(1);
        probe.succeeded();
        shows(0);
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_background_check_probes_callers_do_not() {
        let cooldowns = cooled(None);
        assert!(admit(&cooldowns, Role::Check).is_err(), "not before its time");
        tokio::time::advance(31 * S).await;
        assert_eq!(left(&cooldowns), Some(1));
        admit(&cooldowns, Role::Check).unwrap().succeeded();
        assert_eq!(left(&cooldowns), None);
        assert!(admit(&cooldowns, Role::Check).is_err(), "a model that is called needs no check");
    }
}
