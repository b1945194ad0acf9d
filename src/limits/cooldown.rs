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
    trouble: Mutex<Trouble>,
    /// Whether it cools down, for scrapers.
    is_cooling: Gauge,
}

/// What has gone wrong since a model last answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// How many attempts in a row have failed by its fault.
    pub failures: u64,
    /// The cause of the last one, in one word.
    pub cause: Option<&'static str>,
}

/// Whether a model is called, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelView {
    /// Whether it is called.
    pub state: ModelState,
    /// What has gone wrong since it last answered.
    pub trouble: Trouble,
}

/// Whether a model is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// It is.
    Called,
    /// It is left alone for this long; from then on one call finds out whether it is back.
    Cooling(Duration),
    /// One call is finding out whether it is back.
    Probing,
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

    /// Whether a call could be made now, without the right to it.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn look(&self, name: &str, role: Role) -> Result<(), Cooling> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.get(name).map_or(Phase::Called { failures: 0 }, |model| *model.phase()).look(role)
    }

    /// How a model fares; one that was never asked is called.
    pub fn view(&self, name: &str) -> ModelView {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let Some(model) = models.get(name) else {
            return ModelView { state: ModelState::Called, trouble: Trouble::default() };
        };
        let state = match *model.phase() {
            Phase::Called { .. } => ModelState::Called,
            Phase::Cooling { until, .. } => {
                ModelState::Cooling(until.saturating_duration_since(Instant::now()))
            }
            Phase::Probed { .. } => ModelState::Probing,
        };
        ModelView { state, trouble: *model.trouble() }
    }

    fn model(&self, name: &Arc<str>) -> Arc<Model> {
        let known = self.models.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
            let model = models.entry(Arc::clone(name)).or_insert_with(|| {
                let phase = Mutex::new(Phase::Called { failures: 0 });
                let is_cooling = metrics::cooling(name);
                Arc::new(Model { name: Arc::clone(name), phase, trouble: Mutex::default(), is_cooling })
            });
            Arc::clone(model)
        })
    }
}

impl Phase {
    fn look(self, role: Role) -> Result<(), Cooling> {
        match self {
            Self::Called { .. } if role == Role::Check => Err(Cooling { retry_after: SOON }),
            Self::Called { .. } => Ok(()),
            Self::Cooling { until, .. } => {
                let left = until.saturating_duration_since(Instant::now());
                let is_over = left.is_zero() && role != Role::CallerOnly;
                if is_over { Ok(()) } else { Err(Cooling { retry_after: left.max(SOON) }) }
            }
            Self::Probed { .. } => Err(Cooling { retry_after: SOON }),
        }
    }
}

impl Model {
    /// Whether the attempt is a probe.
    fn admit(&self, role: Role) -> Result<bool, Cooling> {
        let mut phase = self.phase();
        phase.look(role)?;
        let Phase::Cooling { lasts, .. } = *phase else {
            return Ok(false);
        };
        *phase = Phase::Probed { lasts };
        Ok(true)
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
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
        *self.model.trouble() = Trouble::default();
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
    pub fn failed(&mut self, cause: &'static str, retry_after: Option<Duration>) -> bool {
        // A probe that has spoken and then broken off is a failure like any other.
        let is_probe = self.is_probe && !self.is_settled;
        self.is_settled = true;
        {
            let mut trouble = self.model.trouble();
            *trouble = Trouble { failures: trouble.failures + 1, cause: Some(cause) };
        }
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
mod tests;
