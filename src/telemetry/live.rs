//! A run as it goes on, for those who follow it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::decision::{Call, Decision, Outcome};
use super::record::{RUNNING, ms};
use super::{Attempts, Decisions, Seat};

/// What followers were last told of a run. Its account tells of what the account knows; which attempts a call takes is
/// known below it, and added here.
#[derive(Debug)]
pub(super) struct Live {
    decisions: Decisions,
    began: Instant,
    last: Mutex<Option<Decision>>,
}

/// A call of a run that may be followed.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) live: Arc<Live>,
    pub(super) seat: Seat,
}

impl Live {
    /// A run that began at this moment.
    pub(super) fn new(decisions: Decisions, began: Instant) -> Self {
        Self { decisions, began, last: Mutex::new(None) }
    }

    /// Tells how far the run has come.
    pub(super) fn tell(&self, decision: &Decision) {
        self.told(self.last().insert(decision.clone()));
    }

    /// What was told is not known any more to be the newest; or the run has ended, and nothing follows.
    pub(super) fn forget(&self) {
        *self.last() = None;
    }

    fn noted(&self, seat: Seat, attempts: &Attempts) {
        if !self.decisions.are_followed() {
            return;
        }
        let mut last = self.last();
        if let Some(running) = last.as_mut()
            && let Some(call) = running.call_mut(seat)
        {
            attempts.record(call, self.began);
            self.told(running);
        }
    }

    /// Tells it while it is held, so that nothing is told after a later state, or after the end.
    fn told(&self, running: &mut Decision) {
        self.brought_up_to_now(running);
        self.decisions.tell(running.clone());
    }

    fn last(&self) -> MutexGuard<'_, Option<Decision>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn brought_up_to_now(&self, running: &mut Decision) {
        let now_ms = ms(self.began.elapsed());
        running.outcome = Outcome::Running.into();
        running.total_ms = now_ms;
        for call in running.members.iter_mut().chain(&mut running.judges).filter(|c| c.result == RUNNING) {
            call.elapsed_ms = now_ms - call.started_ms;
        }
    }
}

impl Followed {
    /// An attempt of the call begins, is heard, or ends.
    pub(super) fn noted(&self, attempts: &Attempts) {
        self.live.noted(self.seat, attempts);
    }
}

impl Decision {
    /// The call of this seat.
    pub(super) fn call_mut(&mut self, seat: Seat) -> Option<&mut Call> {
        match seat {
            Seat::Member(index) => self.members.get_mut(index),
            Seat::Judge(index) => self.judges.get_mut(index),
        }
    }
}
