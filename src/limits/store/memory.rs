//! Counting in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Correction, Counted, Request, Seen, Verdict};
use crate::limits::key::{CallerKey, Subject};
use crate::limits::rate::{DAY_MS, Rate};

/// How many subjects are kept apart: whoever makes up keys must not fill the memory with them.
const MAX_BUCKETS: usize = 65_536;
/// How long it is before they are all looked through again.
const SWEEP_MS: u64 = 1000;

/// Counts in this process.
#[derive(Debug)]
pub(in crate::limits) struct Memory {
    clock: Clock,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    buckets: HashMap<Subject, Bucket>,
    /// The day (since 1970) and what was spent on it, by alias.
    spent: HashMap<Arc<str>, (u64, u64)>,
    /// From how many buckets on those that are over are thrown away.
    sweep_at: usize,
    swept: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    windows: [Counted; Rate::ALL.len()],
    running: u64,
}

/// Wall-clock time that never goes back.
#[derive(Debug)]
struct Clock {
    began: Instant,
    began_at: Duration,
}

impl Clock {
    fn now(&self) -> u64 {
        let now = self.began_at + self.began.elapsed();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Memory {
    fn default() -> Self {
        // A clock before 1970 is as good as one at 1970.
        let began_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { clock: Clock { began: Instant::now(), began_at }, counts: Mutex::default() }
    }
}

impl Memory {
    /// Admits, and then counts; the subject under which that happened.
    pub(in crate::limits) fn admit(&self, request: &Request) -> (Verdict, Subject) {
        let now = self.clock.now();
        let mut counts = self.counts();
        let subject = counts.make_room(&request.subject, now);
        let spent = counts.spent_today(&subject.name, now);
        let bucket = counts.buckets.entry(subject.clone()).or_default();
        let mut after = *bucket;
        let mut is_admitted = request.budget.is_none_or(|budget| spent < budget);
        for window in &request.rate.windows {
            let Some(counted) = after.windows.get_mut(window.rate as usize) else { continue };
            if now >= counted.begun.saturating_add(window.rate.period_ms()) {
                *counted = Counted { begun: now, used: 0 };
            }
            counted.used = counted.used.saturating_add(window.amount(request.tokens));
            is_admitted &= counted.used <= window.limit.get();
        }
        if let Some(most) = request.rate.concurrency {
            after.running += 1;
            is_admitted &= after.running <= most.get();
        }
        if is_admitted {
            *bucket = after;
        }
        let seen = Seen { now, windows: bucket.seen(request, now), running: bucket.running, spent };
        (Verdict { is_admitted, seen }, subject)
    }

    /// What is counted now.
    pub(in crate::limits) fn look(&self, request: &Request) -> Seen {
        let now = self.clock.now();
        let counts = self.counts();
        let bucket = counts.buckets.get(&request.subject).copied().unwrap_or_default();
        let spent = counts.spent_today(&request.subject.name, now);
        Seen { now, windows: bucket.seen(request, now), running: bucket.running, spent }
    }

    /// One of the subject's is no longer in flight.
    pub(in crate::limits) fn release(&self, subject: &Subject) {
        if let Some(bucket) = self.counts().buckets.get_mut(subject) {
            bucket.running = bucket.running.saturating_sub(1);
        }
    }

    /// What was counted was another amount, and this was spent.
    pub(in crate::limits) fn correct(&self, subject: &Subject, corrections: &[Correction], spent: u64) {
        let now = self.clock.now();
        let mut counts = self.counts();
        if spent > 0 {
            let sum = counts.spent_today(&subject.name, now).saturating_add(spent);
            counts.spent.insert(Arc::clone(&subject.name), (now / DAY_MS, sum));
        }
        let Some(bucket) = counts.buckets.get_mut(subject) else {
            return;
        };
        for Correction { rate, begun, by } in corrections {
            if let Some(counted) = bucket.windows.get_mut(*rate as usize)
                && counted.begun == *begun
            {
                counted.used = counted.used.saturating_add_signed(*by);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Under whom a subject is counted. Now and then, what is over is forgotten.
    fn make_room(&mut self, subject: &Subject, now: u64) -> Subject {
        if self.buckets.contains_key(subject) {
            return subject.clone();
        }
        if self.buckets.len() >= self.sweep_at && now >= self.swept.saturating_add(SWEEP_MS) {
            self.swept = now;
            self.buckets.retain(|_, bucket| !bucket.is_over(now));
            self.sweep_at = (2 * self.buckets.len()).clamp(1024, MAX_BUCKETS);
        }
        if self.buckets.len() >= MAX_BUCKETS && subject.caller.is_some() {
            return Subject { name: Arc::clone(&subject.name), caller: Some(CallerKey::others()) };
        }
        subject.clone()
    }

    fn spent_today(&self, name: &str, now: u64) -> u64 {
        self.spent.get(name).filter(|(day, _)| *day == now / DAY_MS).map_or(0, |(_, spent)| *spent)
    }
}

impl Bucket {
    /// The windows of a request's limit; those that are over count as not begun.
    fn seen(&self, request: &Request, now: u64) -> Vec<Counted> {
        let windows = request.rate.windows.iter();
        let counted = windows.map(|window| {
            let counted = self.windows.get(window.rate as usize).copied().unwrap_or_default();
            if counted.left(window.rate, now).is_zero() { Counted::default() } else { counted }
        });
        counted.collect()
    }

    fn is_over(&self, now: u64) -> bool {
        let mut windows = Rate::ALL.into_iter().zip(self.windows);
        self.running == 0 && windows.all(|(rate, counted)| counted.left(rate, now).is_zero())
    }
}
