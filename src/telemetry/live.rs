//! A run as it goes on, for those who follow it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::decision::{Call, Decision, Outcome};
use super::record::{RUNNING, ms};
use super::{Decisions, Seat};

/// What followers were last told of a run. Its account tells of what the account knows; that a call is heard is
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
        let mut running = decision.clone();
        self.brought_up_to_now(&mut running);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.clone());
        self.decisions.tell(running);
    }

    /// What was told is not known any more to be the newest.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn heard(&self, seat: Seat, at: Instant) {
        if !self.decisions.are_followed() {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = last.as_mut()
            && let Some(call) = running.call_mut(seat)
        {
            call.first_byte_ms = Some(ms(at.saturating_duration_since(self.began)));
            self.brought_up_to_now(running);
            let running = running.clone();
            drop(last);
            self.decisions.tell(running);
        }
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
    /// The call is heard.
    pub(super) fn heard(&self, at: Instant) {
        self.live.heard(self.seat, at);
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
