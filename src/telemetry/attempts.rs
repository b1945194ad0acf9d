//! The attempts that one call takes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::decision::{Attempt, Call};
use super::live::Followed;
use super::record::{CANCELLED, ms};
use super::settlement::Settlement;
use super::trace::CallTrace;
use crate::chat::Usage;

/// The attempts of one call, noted as they are made: the account of its run reads them at the call's end, be that
/// an answer, a failure or a cancellation.
#[derive(Debug, Default)]
pub struct Attempts {
    noted: Mutex<Noted>,
    followed: Option<Followed>,
    /// Where their spans belong, when the run is traced.
    trace: Option<CallTrace>,
}

#[derive(Debug, Default)]
struct Noted {
    tries: Vec<Try>,
    queued: Duration,
    /// What attempts without an answer have cost and nobody has billed yet.
    unbilled: Option<Usage>,
    /// Who is told what the call has cost.
    settlement: Option<Settlement<u64>>,
}

#[derive(Debug)]
struct Try {
    began: Instant,
    heard: Option<Instant>,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    at: Instant,
    result: &'static str,
    status: Option<u16>,
}

impl Attempts {
    /// Those of a call that may be followed, and may have a place in a trace.
    pub(super) fn of(followed: Option<Followed>, trace: Option<CallTrace>) -> Self {
        Self { noted: Mutex::default(), followed, trace }
    }

    /// Where their spans belong; none where nobody traces them.
    pub fn trace(&self) -> Option<&CallTrace> {
        self.trace.as_ref()
    }

    /// One more begins.
    pub fn begin(&self) {
        self.noted().tries.push(Try { began: Instant::now(), heard: None, end: None });
        if let Some(followed) = &self.followed {
            followed.noted(self);
        }
    }

    /// The current one is heard; only the first time counts.
    pub fn heard(&self) {
        let now = Instant::now();
        let is_first = self.noted().tries.last_mut().is_some_and(|current| {
            let is_first = current.heard.is_none();
            current.heard.get_or_insert(now);
            is_first
        });
        if let Some(followed) = self.followed.as_ref().filter(|_| is_first) {
            followed.noted(self);
        }
    }

    /// The current one has ended: `answered`, or the cause of failure in one word, with the status that the provider
    /// refused it with. One that never ends ends with its call.
    pub fn ended(&self, result: &'static str, status: Option<u16>) {
        let is_first = self.noted().tries.last_mut().is_some_and(|current| {
            let is_first = current.end.is_none();
            current.end.get_or_insert_with(|| End { at: Instant::now(), result, status });
            is_first
        });
        if let Some(followed) = self.followed.as_ref().filter(|_| is_first) {
            followed.noted(self);
        }
    }

    /// The call has waited so long for room within its model's limits.
    pub fn queued(&self, wait: Duration) {
        self.noted().queued += wait;
    }

    /// An attempt has failed before it had said anything, and this is what it cost all the same.
    pub fn failed_at(&self, cost: &Usage) {
        self.noted().unbilled.get_or_insert_default().add(cost);
    }

    /// Has somebody told, once, how many tokens the call was billed in all: at its end, or at the latest at its run's.
    pub fn settle_with(&self, settlement: Box<dyn FnOnce(u64) + Send>) {
        self.noted().settlement = Some(Settlement(settlement));
    }

    /// The call was billed so many tokens.
    pub(super) fn settle(&self, tokens: u64) {
        let settlement = self.noted().settlement.take();
        if let Some(Settlement(settlement)) = settlement {
            settlement(tokens);
        }
    }

    /// What is to be billed; nothing the second time.
    pub(super) fn take_unbilled(&self) -> Option<Usage> {
        self.noted().unbilled.take()
    }

    /// Writes what is noted into the record of the call, of a run that began at this moment. An attempt that is not
    /// over ends now, as its call does.
    pub(super) fn record(&self, call: &mut Call, run_began: Instant) {
        let noted = self.noted();
        let since = |moment: Instant| ms(moment.saturating_duration_since(run_began));
        let open = if matches!(&*call.result, "usable" | "answered") { CANCELLED } else { &*call.result };
        let told = |each: &Try| Attempt {
            started_ms: since(each.began),
            elapsed_ms: ms(each.end.as_ref().map_or_else(Instant::now, |end| end.at) - each.began),
            result: each.end.as_ref().map_or(open, |end| end.result).to_owned(),
            status: each.end.as_ref().and_then(|end| end.status).map(u32::from),
        };
        let tries = noted.tries.iter().map(told).collect();
        call.attempts = u32::try_from(noted.tries.len()).unwrap_or(u32::MAX);
        call.first_byte_ms = noted.tries.last().and_then(|last| last.heard).map(since);
        call.queued_ms = ms(noted.queued);
        call.tries = tries;
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
